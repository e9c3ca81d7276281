/* A function that changes logits: what it sees, what it may do, and when it is released. */
#include <math.h>

#include "check.h"

struct seen {
    int calls, released, answer;
    size_t prompt, output;
    uint32_t only;
};

/* Allows one token alone. */
static int32_t allow_one(void *user_data, const uint32_t *prompt, size_t prompt_length, const uint32_t *output,
                         size_t output_length, float *logits, size_t count) {
    struct seen *seen = user_data;
    size_t i;
    CHECK(prompt_length > 0 && prompt[0] < count);
    CHECK(output_length == 0 || output[output_length - 1] == seen->only);
    seen->calls++;
    seen->prompt = prompt_length;
    seen->output = output_length;
    for (i = 0; i < count; i++) {
        if (i != seen->only) logits[i] = -INFINITY;
    }
    return seen->answer;
}

static void release(void *user_data) {
    ((struct seen *)user_data)->released++;
}

int main(void) {
    clawdbot_model *model = builtin_model();
    clawdbot_options *some = options("{\"max_tokens\": 4, \"ignore_eos\": true, \"temperature\": 0}");
    clawdbot_completion *completion = NULL;
    clawdbot_stream *stream = NULL;
    clawdbot_runtime *runtime = NULL;
    struct seen seen = {0, 0, 0, 0, 0, 77}, other = {0, 0, 0, 0, 0, 78};
    const uint32_t *ids;
    size_t count = 0;

    OK(clawdbot_options_set_logits_processor(some, allow_one, &seen, release, &error));
    OK(clawdbot_model_generate_text(model, "Once", NUL, some, &completion, &error));
    ids = clawdbot_completion_token_ids(completion, &count);
    CHECK(count == 4 && ids[0] == 77 && ids[3] == 77);
    CHECK(seen.calls == 4 && seen.output == 3 && seen.prompt > 0 && seen.released == 0);
    clawdbot_completion_free(completion);

    /* Another one takes its place; a request that has begun keeps the first. */
    OK(clawdbot_model_stream_text(model, "Once", NUL, some, &stream, &error));
    OK(clawdbot_options_set_logits_processor(some, allow_one, &other, release, &error));
    OK(clawdbot_stream_run(stream, NULL, NULL, &completion, &error));
    CHECK(clawdbot_completion_token_ids(completion, &count)[0] == 77);
    clawdbot_completion_free(completion);
    clawdbot_stream_free(stream);
    CHECK(seen.released == 1 && other.released == 0);

    /* What it refuses ends its request. */
    other.answer = 5;
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "expected 0 from it, found 5",
          clawdbot_model_generate_text(model, "Once", NUL, some, &completion, &error));
    /* Options of something else have none. */
    FAILS(CLAWDBOT_ERROR_UNKNOWN_OPTION, "logits processor", clawdbot_runtime_new(some, NULL, NULL, &runtime, &error));
    OK(clawdbot_options_set_logits_processor(some, NULL, NULL, NULL, &error));
    CHECK(other.released == 1);
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "options",
          clawdbot_options_set_logits_processor(NULL, allow_one, &other, release, &error));
    CHECK(other.released == 2);
    OK(clawdbot_model_generate_text(model, "Once", NUL, some, &completion, &error));
    clawdbot_completion_free(completion);
    clawdbot_options_free(some);
    clawdbot_model_free(model);
    puts("processor: ok");
    return 0;
}
