/* A conversation on standard input, one line a turn. Only what is new is computed: the session remembers the rest.
 *
 *   chat [MODEL_DIRECTORY]
 *
 * Without a directory, the story model that is part of the library is used. Build:
 *
 *   cargo build --release -p clawdbot-capi
 *   cc -Iinclude examples/chat.c target/release/libclawdbot.a -lpthread -ldl -lm -o chat
 */
#include <stdio.h>
#include <string.h>

#include "clawdbot.h"

static int fail(clawdbot_error *error) {
    fprintf(stderr, "%s: %s\n", clawdbot_error_kind(error), clawdbot_error_message(error));
    clawdbot_error_free(error);
    return 1;
}

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

/* Writes [{"role": "user", "content": line}]; 0 if there is no room. */
static int user_message(char *json, size_t capacity, const char *line) {
    static const char head[] = "[{\"role\": \"user\", \"content\": \"", tail[] = "\"}]";
    size_t at = sizeof head - 1;
    if (capacity < sizeof head + sizeof tail) {
        return 0;
    }
    memcpy(json, head, at);
    for (; *line != '\0'; line++) {
        unsigned char c = (unsigned char)*line;
        if (at + 6 + sizeof tail > capacity) {
            return 0;
        }
        if (c == '"' || c == '\\') {
            json[at++] = '\\';
            json[at++] = (char)c;
        } else if (c < 0x20) {
            at += (size_t)snprintf(json + at, 7, "\\u%04x", c);
        } else {
            json[at++] = (char)c;
        }
    }
    memcpy(json + at, tail, sizeof tail);
    return 1;
}

/* One turn: renders the line with the chat template, adds it to the session, streams the answer. */
static int32_t turn(clawdbot_model *model, clawdbot_session *session, const clawdbot_options *options,
                    const char *line, clawdbot_error **error) {
    char messages[4096];
    clawdbot_string *prompt = NULL;
    clawdbot_stream *stream = NULL;
    int32_t status;
    if (!user_message(messages, sizeof messages, line)) {
        fprintf(stderr, "(that line is too long)\n");
        return CLAWDBOT_OK;
    }
    status = clawdbot_model_render_chat(model, messages, NULL, 1, NULL, &prompt, error);
    if (status == CLAWDBOT_OK) {
        status = clawdbot_session_append_text(session, clawdbot_string_data(prompt), clawdbot_string_length(prompt), 0,
                                              NULL, error);
    }
    if (status == CLAWDBOT_OK) {
        status = clawdbot_session_stream(session, options, &stream, error);
    }
    if (status == CLAWDBOT_OK) {
        status = clawdbot_stream_run(stream, on_event, NULL, NULL, error);
        printf("\n");
    }
    clawdbot_stream_free(stream);
    clawdbot_string_free(prompt);
    return status;
}

int main(int argc, char **argv) {
    clawdbot_error *error = NULL;
    clawdbot_model *model = NULL;
    clawdbot_session *session = NULL;
    clawdbot_options *options = NULL;
    static const char settings[] = "{\"max_tokens\": 100, \"temperature\": 0.7, \"seed\": 1}";
    char line[512];
    int result = 0;

    if (clawdbot_model_load(NULL, argc > 1 ? argv[1] : NULL, NULL, NULL, NULL, &model, &error) != CLAWDBOT_OK ||
        clawdbot_session_new(model, &session, &error) != CLAWDBOT_OK ||
        clawdbot_options_from_json(settings, &options, &error) != CLAWDBOT_OK) {
        result = fail(error);
    }
    while (result == 0 && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (turn(model, session, options, line, &error) != CLAWDBOT_OK) {
            result = fail(error);
        }
    }
    clawdbot_options_free(options);
    clawdbot_session_free(session);
    clawdbot_model_free(model);
    return result;
}
