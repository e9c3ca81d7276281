/* Vectors and scores. The environment variable CLAWDBOT_GOLDEN names the folder of the small models. */
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
    scores();
    puts("embed: ok");
    return 0;
}
