/* Several models under names: loaded when they are asked for, within a budget. */
#include "check.h"

static void expect_status(const clawdbot_pool *pool, const char *first, const char *second) {
    clawdbot_string *found = NULL;
    OK(clawdbot_pool_status_json(pool, &found, &error));
    CHECK(strstr(clawdbot_string_data(found), first) != NULL);
    CHECK(strstr(clawdbot_string_data(found), second) != NULL);
    clawdbot_string_free(found);
}

int main(void) {
    clawdbot_options *small = options("{\"max_batch\": 4, \"prefill_chunk\": 32}");
    clawdbot_options *one = options("{\"max_batch\": 1, \"prefill_chunk\": 16}");
    clawdbot_options *limited = NULL;
    const clawdbot_options *instances[1];
    clawdbot_runtime *runtime = NULL;
    clawdbot_pool *pool = NULL;
    clawdbot_model *first = NULL, *second = NULL;
    clawdbot_completion *completion = NULL;
    int32_t unloaded = 7;
    instances[0] = one;
    {
        /* Room for one model and some requests. */
        clawdbot_string *plan = NULL;
        char budget[64];
        const char *at;
        OK(clawdbot_runtime_new(NULL, NULL, NULL, &runtime, &error));
        OK(clawdbot_runtime_plan_json(runtime, NULL, small, &plan, &error));
        at = strstr(clawdbot_string_data(plan), "\"load_bytes\":");
        CHECK(at != NULL);
        sprintf(budget, "{\"threads\": 1, \"memory_budget\": %lld}", strtoll(at + 13, NULL, 10) * 3 / 2);
        limited = options(budget);
        clawdbot_string_free(plan);
        clawdbot_runtime_free(runtime);
    }
    OK(clawdbot_runtime_new(limited, NULL, NULL, &runtime, &error));
    OK(clawdbot_pool_new(runtime, &pool, &error));
    OK(clawdbot_pool_add(pool, "a", NULL, small, 0, 0, NULL, 0, &error));
    OK(clawdbot_pool_add(pool, "b", NULL, small, 1, 3600, NULL, 0, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "already", clawdbot_pool_add(pool, "b", NULL, NULL, 0, 0, NULL, 0, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "name", clawdbot_pool_add(pool, NULL, NULL, NULL, 0, 0, NULL, 0, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "instances", clawdbot_pool_add(pool, "c", NULL, NULL, 0, 0, NULL, 1, &error));
    expect_status(pool, "\"name\":\"a\",\"state\":\"unloaded\"", "\"name\":\"b\",\"state\":\"unloaded\",\"pin\":true");
    OK(clawdbot_pool_get(pool, "a", 0, NULL, &first, &error));
    FAILS(CLAWDBOT_ERROR_OUT_OF_BUDGET, "bytes", clawdbot_pool_get(pool, "b", 10, NULL, &second, &error));
    OK(clawdbot_model_generate_text(first, "Once", NUL, NULL, &completion, &error));
    clawdbot_completion_free(completion);
    clawdbot_model_free(first);
    OK(clawdbot_pool_get(pool, "b", 0, NULL, &second, &error));
    expect_status(pool, "\"name\":\"a\",\"state\":\"unloaded\"", "\"name\":\"b\",\"state\":\"loaded\"");
    OK(clawdbot_pool_unload(pool, "b", &unloaded, &error));
    CHECK(unloaded == 0);
    OK(clawdbot_model_close(second, &error));
    OK(clawdbot_pool_unload(pool, "b", &unloaded, &error));
    CHECK(unloaded == 1);
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "\"d\"", clawdbot_pool_get(pool, "d", 0, NULL, &first, &error));
    OK(clawdbot_pool_remove(pool, "b", &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "\"b\"", clawdbot_pool_remove(pool, "b", &error));
    OK(clawdbot_pool_remove(pool, "a", &error));
    OK(clawdbot_pool_add(pool, "a", NULL, one, 0, 0, instances, 1, &error));
    OK(clawdbot_pool_get(pool, "a", 0, NULL, &first, &error));
    expect_status(pool, "\"users\":[1,0]", "\"loaded\"");
    /* In the wrong order on purpose. */
    clawdbot_pool_free(pool);
    OK(clawdbot_model_generate_text(first, "Once", NUL, NULL, &completion, &error));
    clawdbot_completion_free(completion);
    clawdbot_runtime_free(runtime);
    clawdbot_model_free(first);
    clawdbot_model_free(second);
    clawdbot_options_free(limited);
    clawdbot_options_free(small);
    clawdbot_options_free(one);
    puts("pool: ok");
    return 0;
}
