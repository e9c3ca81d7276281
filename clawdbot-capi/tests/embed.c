/* Vectors and scores. The environment variable CLAWDBOT_GOLDEN names the folder of the small models. */
#include <math.h>

#include "check.h"

static clawdbot_model *load(const char *name) {
    clawdbot_model *model = NULL;
    char path[4096];
    const char *folder = getenv("CLAWDBOT_GOLDEN");
    CHECK(folder != NULL && snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path);
    OK(clawdbot_model_load(NULL, path, NULL, NULL, NULL, &model, &error));
    return model;
}

static float dot(const float *a, const float *b, size_t count) {
    float sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static void vectors(void) {
    clawdbot_model *model = load("bert");
    clawdbot_string *info = NULL;
    OK(clawdbot_model_info_json(model, &info, &error));
    CHECK(strstr(clawdbot_string_data(info), "\"tasks\":[\"embed\"]") != NULL);
    clawdbot_string_free(info);
    const char *texts[3] = {"the sea", "a ship", "the sea and more"};
    const size_t lengths[3] = {NUL, 6, 7};
    size_t needed = 0;
    OK(clawdbot_model_embed(model, texts, lengths, 3, NULL, NULL, 0, &needed, &error));
    CHECK(needed == 3 * 48);
    float found[3 * 48], first[48], half[24];
    OK(clawdbot_model_embed(model, texts, lengths, 3, NULL, found, needed, NULL, &error));
    /* The third is the first, by its length. */
    CHECK(memcmp(found, found + 96, 48 * sizeof *found) == 0);
    CHECK(dot(found, found, 48) > 0.999F && dot(found, found + 48, 48) < 0.999F);
    OK(clawdbot_model_embed(model, texts, NULL, 1, NULL, first, 48, &needed, &error));
    CHECK(needed == 48 && memcmp(found, first, sizeof first) == 0);
    clawdbot_options *settings = options("{\"dimensions\": 24, \"normalize\": false, \"pooling\": \"cls\"}");
    OK(clawdbot_model_embed(model, texts, NULL, 1, settings, half, 24, &needed, &error));
    CHECK(needed == 24);
    clawdbot_options_free(settings);
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "room for 144",
          clawdbot_model_embed(model, texts, lengths, 3, NULL, found, 143, NULL, &error));
    settings = options("{\"pool\": \"mean\"}");
    FAILS(CLAWDBOT_ERROR_UNKNOWN_OPTION, "pooling",
          clawdbot_model_embed(model, texts, NULL, 1, settings, first, 48, NULL, &error));
    clawdbot_options_free(settings);
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "texts",
          clawdbot_model_embed(model, NULL, NULL, 1, NULL, first, 48, NULL, &error));
    FAILS(CLAWDBOT_ERROR_UNSUPPORTED_MODEL, "gives no scores",
          clawdbot_model_rerank(model, "sea", NUL, texts, NULL, 3, NULL, first, &error));
    clawdbot_session *session = NULL;
    FAILS(CLAWDBOT_ERROR_UNSUPPORTED_MODEL, "does not generate",
          clawdbot_session_new(model, &session, &error));
    clawdbot_model_free(model);
}

/* A text that is wrong fails alone. */
static void each(void) {
    clawdbot_model *model = load("bert");
    const char *texts[4] = {"the sea", "\xff", "", "the sea"};
    clawdbot_error *errors[4] = {NULL, NULL, NULL, NULL};
    float found[4 * 48], scored[4];
    size_t needed = 0, i;
    clawdbot_cancel_handle *cancel = NULL;
    clawdbot_options *bare = options("{\"add_special_tokens\": false}");
    FAILS(CLAWDBOT_ERROR_INVALID_UTF8, "texts[1]",
          clawdbot_model_embed(model, texts, NULL, 4, NULL, found, 4 * 48, NULL, &error));
    OK(clawdbot_model_embed_each(model, texts, NULL, 4, bare, NULL, NULL, 0, &needed, NULL, &error));
    CHECK(needed == 4 * 48);
    OK(clawdbot_model_embed_each(model, texts, NULL, 4, bare, NULL, found, needed, NULL, errors, &error));
    CHECK(errors[0] == NULL && errors[3] == NULL && memcmp(found, found + 144, 48 * sizeof *found) == 0);
    CHECK(clawdbot_error_code(errors[1]) == CLAWDBOT_ERROR_INVALID_UTF8);
    CHECK(clawdbot_error_code(errors[2]) == CLAWDBOT_ERROR_EMPTY_PROMPT);
    CHECK(strncmp(clawdbot_error_message(errors[2]), "texts[2]: ", 10) == 0);
    for (i = 48; i < 144; i++) {
        CHECK(isnan(found[i]));
    }
    clawdbot_error_free(errors[1]);
    clawdbot_error_free(errors[2]);
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "errors",
          clawdbot_model_embed_each(model, texts, NULL, 4, bare, NULL, found, needed, NULL, NULL, &error));
    OK(clawdbot_cancel_handle_new(&cancel, &error));
    clawdbot_cancel_handle_cancel(cancel);
    FAILS(CLAWDBOT_ERROR_CANCELLED, "",
          clawdbot_model_embed_each(model, texts, NULL, 4, bare, cancel, found, needed, NULL, errors, &error));
    clawdbot_options_free(bare);
    clawdbot_model_free(model);

    model = load("bert_score");
    OK(clawdbot_model_rerank_each(model, "sea", NUL, texts, NULL, 2, NULL, NULL, scored, errors, &error));
    CHECK(errors[0] == NULL && scored[0] > 0 && isnan(scored[1]));
    CHECK(strncmp(clawdbot_error_message(errors[1]), "documents[1]: ", 14) == 0);
    clawdbot_error_free(errors[1]);
    FAILS(CLAWDBOT_ERROR_CANCELLED, "",
          clawdbot_model_rerank_each(model, "sea", NUL, texts, NULL, 2, NULL, cancel, scored, errors, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "errors",
          clawdbot_model_rerank_each(model, "sea", NUL, texts, NULL, 2, NULL, NULL, scored, NULL, &error));
    clawdbot_cancel_handle_free(cancel);
    clawdbot_model_free(model);
}

static void scores(void) {
    clawdbot_model *model = load("bert_score");
    const char *documents[2] = {"a ship", "bread"};
    const size_t lengths[2] = {6, NUL};
    float probabilities[2], logits[2];
    OK(clawdbot_model_rerank(model, "the sea!", 7, documents, lengths, 2, NULL, probabilities, &error));
    clawdbot_options *settings = options("{\"sigmoid\": false}");
    OK(clawdbot_model_rerank(model, "the sea", NUL, documents, NULL, 2, settings, logits, &error));
    clawdbot_options_free(settings);
    CHECK(probabilities[0] > 0 && probabilities[0] < 1 && probabilities[1] > 0 && probabilities[1] < 1);
    CHECK((probabilities[0] > probabilities[1]) == (logits[0] > logits[1]));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "scores",
          clawdbot_model_rerank(model, "sea", NUL, documents, NULL, 2, NULL, NULL, &error));
    clawdbot_model_free(model);
}

int main(void) {
    vectors();
    each();
    scores();
    puts("embed: ok");
    return 0;
}
