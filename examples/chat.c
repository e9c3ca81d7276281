/* A conversation on stdin, one message per line. The session keeps its state, so each turn computes only the new tokens.
 *
 *   chat [MODEL]
 *
 * Without a model, it uses the built-in story model. Build:
 *
 *   cargo build --release -p clawdbot-capi
 *   cc -Iinclude examples/chat.c target/release/libclawdbot.a -lpthread -ldl -lm -o chat
 */
#include <stdio.h>
#include <stdlib.h>
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

/* The conversation: a growing JSON array. `length` does not count the closing bracket. */
typedef struct {
    char *json;
    size_t length;
} conversation;

/* Adds {"role": role, "content": text}. Returns 0 if memory runs out. */
static int say(conversation *said, const char *role, const char *text, size_t length) {
    static const char head[] = "{\"role\": \"", middle[] = "\", \"content\": \"", tail[] = "\"}]";
    /* Escaping makes at most six bytes of one. */
    char *json = realloc(said->json, said->length + 6 * length + strlen(role) + 64);
    size_t i;
    if (json == NULL) {
        return 0;
    }
    said->json = json;
    json += said->length;
    json += sprintf(json, "%s%s%s%s", said->length == 0 ? "[" : ", ", head, role, middle);
    for (i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20) {
            json += sprintf(json, "\\u%04x", c);
        } else {
            if (c == '"' || c == '\\') {
                *json++ = '\\';
            }
            *json++ = (char)c;
        }
    }
    memcpy(json, tail, sizeof tail);
    said->length = (size_t)(json - said->json) + sizeof tail - 2;
    return 1;
}

/* One turn: adds the message and the answer to the conversation. */
static int32_t turn(clawdbot_session *session, const clawdbot_options *options, conversation *said, const char *line,
                    clawdbot_error **error) {
    clawdbot_stream *stream = NULL;
    clawdbot_completion *answer = NULL;
    const char *text;
    size_t length = 0;
    int32_t status;
    if (!say(said, "user", line, strlen(line))) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    status = clawdbot_session_chat_stream(session, said->json, NULL, NULL, options, &stream, error);
    if (status == CLAWDBOT_OK) {
        status = clawdbot_stream_run(stream, on_event, NULL, &answer, error);
        printf("\n");
    }
    if (status == CLAWDBOT_OK) {
        text = clawdbot_completion_text(answer, &length);
        if (!say(said, "assistant", text, length)) {
            fprintf(stderr, "out of memory\n");
            exit(1);
        }
    }
    clawdbot_completion_free(answer);
    clawdbot_stream_free(stream);
    return status;
}

int main(int argc, char **argv) {
    clawdbot_error *error = NULL;
    clawdbot_model *model = NULL;
    clawdbot_session *session = NULL;
    clawdbot_options *options = NULL;
    static const char settings[] = "{\"max_tokens\": 100, \"temperature\": 0.7, \"seed\": 1}";
    conversation said = {NULL, 0};
    char line[512];
    int result = 0;

    if (clawdbot_model_load(NULL, argc > 1 ? argv[1] : NULL, NULL, NULL, NULL, &model, &error) != CLAWDBOT_OK ||
        clawdbot_session_new(model, &session, &error) != CLAWDBOT_OK ||
        clawdbot_options_from_json(settings, &options, &error) != CLAWDBOT_OK) {
        result = fail(error);
    }
    while (result == 0 && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (turn(session, options, &said, line, &error) != CLAWDBOT_OK) {
            result = fail(error);
        }
    }
    free(said.json);
    clawdbot_options_free(options);
    clawdbot_session_free(session);
    clawdbot_model_free(model);
    return result;
}
