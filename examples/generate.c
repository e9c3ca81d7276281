/* Generates from a prompt and prints the text as it arrives.
 *
 *   generate [PROMPT [MODEL]]
 *
 * Without a model, it uses the built-in story model. Build:
 *
 *   cargo build --release -p clawdbot-capi
 *   cc -Iinclude examples/generate.c target/release/libclawdbot.a -lpthread -ldl -lm -o generate
 */
#include <stdio.h>

#include "clawdbot.h"

static int fail(clawdbot_error *error) {
    fprintf(stderr, "%s: %s\n", clawdbot_error_kind(error), clawdbot_error_message(error));
    clawdbot_error_free(error);
    return 1;
}

/* Called for each event; any result but 0 cancels the request. */
static int32_t on_event(void *user_data, const clawdbot_event *event) {
    size_t length = 0;
    const char *text = clawdbot_event_text(event, &length);
    if (text != NULL) {
        fwrite(text, 1, length, stdout);
        fflush(stdout);
    }
    (void)user_data;
    return 0;
}

int main(int argc, char **argv) {
    const char *prompt = argc > 1 ? argv[1] : "Once upon a time";
    const char *directory = argc > 2 ? argv[2] : NULL;

    clawdbot_error *error = NULL;
    clawdbot_model *model = NULL;
    if (clawdbot_model_load(NULL, directory, NULL, NULL, NULL, &model, &error) != CLAWDBOT_OK) {
        return fail(error);
    }

    clawdbot_options *options = NULL;
    clawdbot_stream *stream = NULL;
    clawdbot_completion *completion = NULL;
    int result = 0;
    if (clawdbot_options_new(&options, &error) != CLAWDBOT_OK ||
        clawdbot_options_set_int(options, "max_tokens", 60, &error) != CLAWDBOT_OK ||
        clawdbot_options_set_number(options, "temperature", 0.0, &error) != CLAWDBOT_OK ||
        clawdbot_model_stream_text(model, prompt, CLAWDBOT_NUL_TERMINATED, options, &stream, &error) != CLAWDBOT_OK ||
        clawdbot_stream_run(stream, on_event, NULL, &completion, &error) != CLAWDBOT_OK) {
        result = fail(error);
    } else {
        clawdbot_usage usage;
        usage.struct_size = sizeof usage;
        if (clawdbot_completion_usage(completion, &usage, &error) != CLAWDBOT_OK) {
            result = fail(error);
        } else {
            printf("\n(%llu tokens, %.0f per second)\n", (unsigned long long)usage.completion_tokens,
                   usage.decode_seconds > 0 ? (double)(usage.completion_tokens - 1) / usage.decode_seconds : 0.0);
        }
    }

    clawdbot_completion_free(completion);
    clawdbot_stream_free(stream);
    clawdbot_options_free(options);
    clawdbot_model_free(model);
    return result;
}
