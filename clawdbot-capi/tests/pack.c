/* Packed files: written, refused, loaded. */
#include "check.h"

#define FILE_NAME "packed.clawdbot"

static int32_t count_calls(void *user_data, uint64_t done, uint64_t total) {
    CHECK(done <= total);
    *(int *)user_data += 1;
    return 0;
}

static int32_t stop(void *user_data, uint64_t done, uint64_t total) {
    (void)user_data, (void)done, (void)total;
    return 1;
}

static uint32_t first_token(const clawdbot_model *model) {
    clawdbot_options *settings = options("{\"max_tokens\": 1, \"temperature\": 0}");
    clawdbot_completion *completion = NULL;
    OK(clawdbot_model_generate_text(model, "Once upon a time", NUL, settings, &completion, &error));
    size_t count = 0;
    const uint32_t *ids = clawdbot_completion_token_ids(completion, &count);
    CHECK(count == 1);
    uint32_t id = ids[0];
    clawdbot_completion_free(completion);
    clawdbot_options_free(settings);
    return id;
}

int main(void) {
    clawdbot_options *settings = options("{\"threads\": 2}");
    clawdbot_runtime *runtime = NULL;
    clawdbot_model *builtin = NULL, *packed = NULL;
    clawdbot_string *plan = NULL;
    uint64_t size = 0;
    int calls = 0;
    OK(clawdbot_runtime_new(settings, NULL, NULL, &runtime, &error));
    clawdbot_options_free(settings);

    remove(FILE_NAME);
    settings = options("{\"weights\": \"bf16\"}");
    FAILS(CLAWDBOT_ERROR_CANCELLED, "cancelled",
          clawdbot_runtime_pack(runtime, NULL, FILE_NAME, settings, stop, NULL, &size, &error));
    CHECK(size == 0 && fopen(FILE_NAME, "rb") == NULL);
    OK(clawdbot_runtime_pack(runtime, NULL, FILE_NAME, settings, count_calls, &calls, &size, &error));
    CHECK(size > 4096 && calls > 1);
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "overwrite",
          clawdbot_runtime_pack(runtime, NULL, FILE_NAME, NULL, NULL, NULL, NULL, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "target",
          clawdbot_runtime_pack(runtime, NULL, NULL, NULL, NULL, NULL, NULL, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "runtime",
          clawdbot_runtime_pack(NULL, NULL, FILE_NAME, NULL, NULL, NULL, NULL, &error));

    clawdbot_options *calibrated = options("{\"weights\": \"int8\", \"calibrate\": \"text.txt\"}");
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "int4 or int4-mixed",
          clawdbot_runtime_pack(runtime, NULL, FILE_NAME, calibrated, NULL, NULL, NULL, &error));
    clawdbot_options_free(calibrated);
    calibrated = options("{\"weights\": \"int4\", \"calibrate\": \"builtin\", \"overwrite\": true}");
    calls = 0;
    OK(clawdbot_runtime_pack(runtime, NULL, FILE_NAME, calibrated, count_calls, &calls, &size, &error));
    CHECK(size > 4096 && calls > 1);
    OK(clawdbot_runtime_plan_json(runtime, FILE_NAME, NULL, &plan, &error));
    CHECK(strstr(clawdbot_string_data(plan), "\"weights\":\"int4\"") != NULL);
    CHECK(strstr(clawdbot_string_data(plan), "\"calibrated_tokens\":null") == NULL);
    clawdbot_string_free(plan);
    clawdbot_options_free(calibrated);
    remove(FILE_NAME);
    OK(clawdbot_runtime_pack(runtime, NULL, FILE_NAME, settings, NULL, NULL, &size, &error));

    OK(clawdbot_model_load(runtime, NULL, settings, NULL, NULL, &builtin, &error));
    clawdbot_options_free(settings);
    OK(clawdbot_model_load(runtime, FILE_NAME, NULL, NULL, NULL, &packed, &error));
    CHECK(first_token(packed) == first_token(builtin));
    clawdbot_model_free(packed);
    settings = options("{\"mmap\": false, \"verify\": true}");
    OK(clawdbot_model_load(runtime, FILE_NAME, settings, NULL, NULL, &packed, &error));
    CHECK(first_token(packed) == first_token(builtin));
    OK(clawdbot_runtime_plan_json(runtime, FILE_NAME, settings, &plan, &error));
    CHECK(strstr(clawdbot_string_data(plan), "\"packed\":true") != NULL);
    clawdbot_options_free(settings);
    settings = options("{\"weights\": \"int8\"}");
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "packed as bf16",
          clawdbot_runtime_plan_json(runtime, FILE_NAME, settings, &plan, &error));

    clawdbot_string *found = NULL;
    clawdbot_options_free(settings);
    settings = options("{\"sequences\": 1}");
    FAILS(CLAWDBOT_ERROR_CANCELLED, "cancelled",
          clawdbot_runtime_evaluate_json(runtime, FILE_NAME, settings, stop, NULL, &found, &error));
    calls = 0;
    OK(clawdbot_runtime_evaluate_json(runtime, FILE_NAME, settings, count_calls, &calls, &found, &error));
    CHECK(calls > 1 && strstr(clawdbot_string_data(found), "\"weights\":\"bf16\"") != NULL);
    CHECK(strstr(clawdbot_string_data(found), "the packed file's own weights, in f32") != NULL);
    clawdbot_string_free(found);
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "out",
          clawdbot_runtime_evaluate_json(runtime, NULL, NULL, NULL, NULL, NULL, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "runtime",
          clawdbot_runtime_evaluate_json(NULL, NULL, NULL, NULL, NULL, &found, &error));

    clawdbot_string_free(plan);
    clawdbot_model_free(packed);
    clawdbot_model_free(builtin);
    clawdbot_options_free(settings);
    clawdbot_runtime_free(runtime);
    remove(FILE_NAME);
    puts("pack: ok");
    return 0;
}
