/* Logits with adapters. CLAWDBOT_ADAPTED is the folder of a model, CLAWDBOT_ADAPTERS that of its adapters. */
#include "check.h"

#define TOKENS 5

static float *logits(clawdbot_model *model, const char *adapter, size_t *count) {
    static const uint32_t ids[TOKENS] = {3, 10, 17, 24, 5};
    float *found;
    OK(clawdbot_model_logits_with(model, ids, TOKENS, adapter, NULL, NULL, 0, count, &error));
    found = malloc(*count * sizeof *found);
    CHECK(found != NULL);
    OK(clawdbot_model_logits_with(model, ids, TOKENS, adapter, NULL, found, *count, NULL, &error));
    return found;
}

int main(void) {
    clawdbot_model *model = NULL;
    clawdbot_completion *completion = NULL;
    clawdbot_options *settings = options("{\"adapter\": \"some\", \"max_tokens\": 2, \"temperature\": 0}");
    char path[4096];
    const char *folder = getenv("CLAWDBOT_ADAPTERS");
    const uint32_t id = 3;
    float *plain, *with, *without;
    size_t count = 0;
    CHECK(folder != NULL && getenv("CLAWDBOT_ADAPTED") != NULL);
    OK(clawdbot_model_load(NULL, getenv("CLAWDBOT_ADAPTED"), NULL, NULL, NULL, &model, &error));
    plain = logits(model, NULL, &count);
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "\"some\"",
          clawdbot_model_logits_with(model, &id, 1, "some", NULL, plain, count, NULL, &error));
    CHECK(snprintf(path, sizeof path, "%s/some", folder) < (int)sizeof path);
    OK(clawdbot_model_load_adapter(model, "some", path, &error));
    with = logits(model, "some", &count);
    without = logits(model, NULL, &count);
    CHECK(memcmp(plain, without, count * sizeof *plain) == 0);
    CHECK(memcmp(plain, with, count * sizeof *plain) != 0);
    OK(clawdbot_model_logits(model, &id, 1, NULL, 0, &count, &error));
    OK(clawdbot_model_logits(model, &id, 1, with, count, NULL, &error));
    CHECK(memcmp(plain, with, count * sizeof *plain) == 0);
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "room",
          clawdbot_model_logits_with(model, &id, 1, "some", NULL, with, count - 1, NULL, &error));
    OK(clawdbot_model_generate_tokens(model, &id, 1, settings, &completion, &error));
    clawdbot_completion_free(completion);
    OK(clawdbot_model_unload_adapter(model, "some", &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "\"some\"",
          clawdbot_model_logits_with(model, &id, 1, "some", NULL, with, count, NULL, &error));
    free(plain);
    free(with);
    free(without);
    clawdbot_options_free(settings);
    clawdbot_model_free(model);
    printf("adapters: ok\n");
    return 0;
}
