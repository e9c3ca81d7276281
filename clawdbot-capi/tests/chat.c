/* A conversation: template, session, truncation. */
#include "check.h"

static size_t length(clawdbot_session *session) {
    size_t count = 0;
    OK(clawdbot_session_tokens(session, NULL, 0, &count, &error));
    return count;
}

static void say(const clawdbot_model *model, clawdbot_session *session, const char *messages) {
    clawdbot_string *prompt = NULL;
    size_t before = length(session), added = 0;
    OK(clawdbot_model_render_chat(model, messages, NULL, 1, NULL, &prompt, &error));
    CHECK(strstr(clawdbot_string_data(prompt), "<|assistant|>\n") != NULL);
    OK(clawdbot_session_append_text(session, clawdbot_string_data(prompt), clawdbot_string_length(prompt), 0, &added,
                                    &error));
    CHECK(added > 3 && length(session) == before + added);
    clawdbot_string_free(prompt);
}

#define HELLO "{\"role\": \"user\", \"content\": \"Hello\"}"

/* A session that chats computes what is new alone, and answers as the model does. */
static void turns(const clawdbot_model *model, const clawdbot_options *greedy) {
    static const char first[] = "[" HELLO "]";
    static const char second[] = "[" HELLO ", {\"role\": \"assistant\", \"content\": \"Hi!\"}, " HELLO "]";
    clawdbot_session *session = NULL;
    clawdbot_stream *stream = NULL;
    clawdbot_completion *mine = NULL, *its = NULL;
    clawdbot_options *slips;
    clawdbot_usage usage;
    usage.struct_size = sizeof usage;
    OK(clawdbot_session_new(model, &session, &error));
    OK(clawdbot_session_chat(session, first, NULL, NULL, greedy, &mine, &error));
    OK(clawdbot_model_chat(model, first, NULL, NULL, greedy, &its, &error));
    CHECK(strcmp(clawdbot_completion_text(mine, NULL), clawdbot_completion_text(its, NULL)) == 0);
    clawdbot_completion_free(mine);
    clawdbot_completion_free(its);
    OK(clawdbot_session_chat_stream(session, second, NULL, "{\"x\": 1}", greedy, &stream, &error));
    OK(clawdbot_stream_run(stream, NULL, NULL, &mine, &error));
    clawdbot_stream_free(stream);
    OK(clawdbot_model_chat_stream(model, second, NULL, NULL, greedy, &stream, &error));
    OK(clawdbot_stream_run(stream, NULL, NULL, &its, &error));
    clawdbot_stream_free(stream);
    CHECK(strcmp(clawdbot_completion_text(mine, NULL), clawdbot_completion_text(its, NULL)) == 0);
    OK(clawdbot_completion_usage(mine, &usage, &error));
    CHECK(usage.cached_tokens >= 5 && usage.cached_tokens < usage.prompt_tokens);
    clawdbot_completion_free(mine);
    clawdbot_completion_free(its);
    slips = options("{\"enable_thinking\": false}");
    FAILS(CLAWDBOT_ERROR_UNKNOWN_OPTION, "variables of the chat template go into `variables`",
          clawdbot_model_chat(model, first, NULL, NULL, slips, &mine, &error));
    FAILS(CLAWDBOT_ERROR_UNKNOWN_OPTION, "go into `variables`",
          clawdbot_session_chat(session, first, NULL, NULL, slips, &mine, &error));
    clawdbot_options_free(slips);
    clawdbot_session_free(session);
}

/* A session in a file: what is restored goes on as the other one does. */
static void saved(const clawdbot_model *model, clawdbot_session *session, const clawdbot_options *greedy) {
    static const char path[] = "clawdbot-chat-test.session";
    clawdbot_session *restored = NULL;
    clawdbot_completion *mine = NULL, *its = NULL;
    clawdbot_usage usage;
    uint64_t size = 0;
    FILE *file;
    usage.struct_size = sizeof usage;
    OK(clawdbot_session_save(session, path, &size, &error));
    CHECK(size > 1000);
    OK(clawdbot_model_restore_session(model, path, &restored, &error));
    CHECK(length(restored) == length(session));
    OK(clawdbot_session_generate(session, greedy, &its, &error));
    OK(clawdbot_session_generate(restored, greedy, &mine, &error));
    CHECK(strcmp(clawdbot_completion_text(mine, NULL), clawdbot_completion_text(its, NULL)) == 0);
    OK(clawdbot_completion_usage(mine, &usage, &error));
    CHECK(usage.cached_tokens + 1 == usage.prompt_tokens);
    clawdbot_completion_free(mine);
    clawdbot_completion_free(its);
    clawdbot_session_free(restored);
    restored = NULL;
    file = fopen(path, "wb");
    CHECK(file != NULL && fputs("something else", file) >= 0 && fclose(file) == 0);
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "expected a saved session, found something else",
          clawdbot_model_restore_session(model, path, &restored, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "found another file", clawdbot_session_save(session, path, NULL, &error));
    CHECK(remove(path) == 0);
    FAILS(CLAWDBOT_ERROR_NOT_FOUND, path, clawdbot_model_restore_session(model, path, &restored, &error));
    CHECK(restored == NULL);
}

int main(void) {
    clawdbot_model *model = builtin_model();
    clawdbot_options *greedy = options("{\"max_tokens\": 4, \"temperature\": 0, \"ignore_eos\": true}");
    clawdbot_session *session = NULL, *fork = NULL;
    clawdbot_stream *stream = NULL, *second = NULL;
    clawdbot_completion *first = NULL, *again = NULL;
    clawdbot_usage usage;
    uint32_t tokens[256];
    size_t prompt, count = 0;

    OK(clawdbot_session_new(model, &session, &error));
    say(model, session, "[{\"role\": \"user\", \"content\": \"Tell me a story.\"}]");
    prompt = length(session);
    OK(clawdbot_session_stream(session, greedy, &stream, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "stream", clawdbot_session_stream(session, greedy, &second, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "stream", clawdbot_session_fork(session, &fork, &error));
    OK(clawdbot_stream_run(stream, NULL, NULL, &first, &error));
    clawdbot_stream_free(stream);
    CHECK(length(session) == prompt + 4);
    OK(clawdbot_session_tokens(session, tokens, 256, &count, &error));
    CHECK(memcmp(tokens + prompt, clawdbot_completion_token_ids(first, NULL), 4 * sizeof tokens[0]) == 0);

    /* The same turn again, from the same state. */
    OK(clawdbot_session_truncate(session, prompt, &error));
    CHECK(length(session) == prompt);
    OK(clawdbot_session_generate(session, greedy, &again, &error));
    CHECK(strcmp(clawdbot_completion_text(first, NULL), clawdbot_completion_text(again, NULL)) == 0);
    memset(&usage, 0, sizeof usage);
    usage.struct_size = sizeof usage;
    OK(clawdbot_completion_usage(again, &usage, &error));
    CHECK(usage.prompt_tokens == prompt && usage.cached_tokens > 0);

    /* A conversation that begins the same. */
    OK(clawdbot_session_fork(session, &fork, &error));
    CHECK(length(fork) == prompt + 4);
    OK(clawdbot_session_truncate(fork, prompt, &error));
    clawdbot_completion_free(again);
    OK(clawdbot_session_generate(fork, greedy, &again, &error));
    CHECK(strcmp(clawdbot_completion_text(first, NULL), clawdbot_completion_text(again, NULL)) == 0);
    clawdbot_session_free(fork);
    CHECK(length(session) == prompt + 4);

    say(model, session, "[{\"role\": \"user\", \"content\": \"And then?\"}]");
    clawdbot_completion_free(first);
    OK(clawdbot_session_generate(session, greedy, &first, &error));
    OK(clawdbot_completion_usage(first, &usage, &error));
    CHECK(usage.cached_tokens >= prompt);
    CHECK(second == NULL);
    turns(model, greedy);
    saved(model, session, greedy);

    clawdbot_completion_free(first);
    clawdbot_completion_free(again);
    clawdbot_options_free(greedy);
    clawdbot_model_free(model);
    clawdbot_session_free(session);
    puts("chat: ok");
    return 0;
}
