/* Loading, generating at once, pulling and pushing events, cancelling, scoring, tokenizing. */
#include <math.h>
#include <pthread.h>

#include "check.h"

static const char PROMPT[] = "Once upon a time";

struct seen {
    size_t tokens, done, limit;
    char text[4096];
};

static int32_t collect(void *user_data, const clawdbot_event *event) {
    struct seen *seen = user_data;
    if (clawdbot_event_kind(event) == CLAWDBOT_EVENT_TOKEN) {
        size_t length = 0;
        const char *text = clawdbot_event_text(event, &length);
        CHECK(strlen(text) == length && strlen(seen->text) + length < sizeof seen->text);
        strcat(seen->text, text);
        seen->tokens++;
    } else if (clawdbot_event_kind(event) == CLAWDBOT_EVENT_DONE) {
        CHECK(clawdbot_event_completion(event) != NULL && clawdbot_event_text(event, NULL) == NULL);
        seen->done++;
    }
    return seen->tokens == seen->limit;
}

static int32_t reason(const clawdbot_completion *completion) {
    int32_t reason = 0;
    OK(clawdbot_completion_finish_reason(completion, &reason, &error));
    return reason;
}

/* Reasoning that the prompt has opened. */
static void reasoning_is_no_text(clawdbot_model *model) {
    clawdbot_options *plain = options("{\"max_tokens\": 6, \"temperature\": 0}");
    clawdbot_options *thinks = options("{\"max_tokens\": 6, \"temperature\": 0, \"reasoning_format\": \"think\"}");
    clawdbot_completion *completion = NULL;
    clawdbot_stream *stream = NULL;
    clawdbot_event *event = NULL;
    size_t length = 1, said = 0;
    int done = 0;
    OK(clawdbot_model_generate_text(model, "Once <think>", NUL, plain, &completion, &error));
    CHECK(clawdbot_completion_reasoning(completion, &length)[0] == 0 && length == 0);
    clawdbot_completion_free(completion);
    OK(clawdbot_model_generate_text(model, "Once <think>", NUL, thinks, &completion, &error));
    CHECK(clawdbot_completion_text(completion, NULL)[0] == 0);
    CHECK(strlen(clawdbot_completion_reasoning(completion, &length)) == length && length > 0);
    CHECK(strcmp(clawdbot_completion_tool_calls(completion, NULL), "[]") == 0);
    OK(clawdbot_model_stream_text(model, "Once <think>", NUL, thinks, &stream, &error));
    while (!done) {
        OK(clawdbot_stream_next(stream, &event, &error));
        if (clawdbot_event_kind(event) == CLAWDBOT_EVENT_REASONING) {
            said += strlen(clawdbot_event_text(event, NULL));
        }
        CHECK(clawdbot_event_tool_call(event, NULL) == NULL);
        CHECK(clawdbot_event_tool_call_delta(event, NULL) == NULL);
        done = clawdbot_event_kind(event) == CLAWDBOT_EVENT_DONE;
        clawdbot_event_free(event);
    }
    CHECK(said == length);
    clawdbot_stream_free(stream);
    clawdbot_completion_free(completion);
    clawdbot_options_free(plain);
    clawdbot_options_free(thinks);
}

/* At once, by callback and by pulling: the same text. */
static void same_text_three_ways(clawdbot_model *model) {
    clawdbot_options *greedy = options("{\"max_tokens\": 6, \"temperature\": 0, \"logprobs\": 2}");
    clawdbot_completion *completion = NULL, *pushed = NULL;
    clawdbot_stream *stream = NULL;
    clawdbot_event *event = NULL;
    clawdbot_usage usage;
    clawdbot_logprob chosen;
    const clawdbot_logprob *top = NULL;
    struct seen seen = {0, 0, 1000, ""};
    size_t length = 0, count = 0, pulled = 0;
    const uint32_t *ids;
    clawdbot_string *json = NULL;
    int done = 0;

    OK(clawdbot_model_generate_text(model, PROMPT, NUL, greedy, &completion, &error));
    CHECK(strlen(clawdbot_completion_text(completion, &length)) == length && length > 0);
    ids = clawdbot_completion_token_ids(completion, &count);
    CHECK(count == 6 && reason(completion) == CLAWDBOT_FINISH_LENGTH);
    memset(&usage, 0, sizeof usage);
    usage.struct_size = sizeof usage;
    OK(clawdbot_completion_usage(completion, &usage, &error));
    CHECK(usage.completion_tokens == 6 && usage.prompt_tokens > 1 && usage.decode_seconds >= 0);
    CHECK(usage.draft_tokens == 0 && usage.accepted_tokens == 0 && usage.accepted_by_position[14] == 0);
    usage.struct_size = sizeof usage + 8;
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "struct_size", clawdbot_completion_usage(completion, &usage, &error));
    OK(clawdbot_completion_logprobs(completion, 0, &chosen, &top, &count, &error));
    CHECK(count == 2 && chosen.id == ids[0] && top[0].id == ids[0] && top[0].logprob >= top[1].logprob);
    CHECK(chosen.logprob <= 0 && chosen.logprob == top[0].logprob);
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "index",
          clawdbot_completion_logprobs(completion, 6, &chosen, &top, &count, &error));
    OK(clawdbot_completion_json(completion, &json, &error));
    CHECK(strstr(clawdbot_string_data(json), "\"finish_reason\":\"length\"") != NULL);
    CHECK(strlen(clawdbot_string_data(json)) == clawdbot_string_length(json));
    clawdbot_string_free(json);

    OK(clawdbot_model_stream_text(model, PROMPT, strlen(PROMPT), greedy, &stream, &error));
    OK(clawdbot_stream_run(stream, collect, &seen, &pushed, &error));
    CHECK(seen.tokens == 6 && seen.done == 1);
    CHECK(strcmp(seen.text, clawdbot_completion_text(completion, NULL)) == 0);
    CHECK(strcmp(seen.text, clawdbot_completion_text(pushed, NULL)) == 0);
    FAILS(CLAWDBOT_ERROR_CLOSED, "already", clawdbot_stream_run(stream, NULL, NULL, NULL, &error));
    OK(clawdbot_stream_next(stream, &event, &error));
    CHECK(event == NULL);
    clawdbot_stream_free(stream);
    clawdbot_completion_free(pushed);

    OK(clawdbot_model_stream_text(model, PROMPT, NUL, greedy, &stream, &error));
    for (;;) {
        uint32_t id = 0;
        OK(clawdbot_stream_next(stream, &event, &error));
        if (event == NULL) {
            break;
        }
        if (clawdbot_event_kind(event) == CLAWDBOT_EVENT_TOKEN) {
            OK(clawdbot_event_token_id(event, &id, &error));
            CHECK(id == ids[pulled++]);
            OK(clawdbot_event_logprobs(event, &chosen, NULL, &count, &error));
            CHECK(chosen.id == id && count == 2);
        } else if (clawdbot_event_kind(event) == CLAWDBOT_EVENT_DONE) {
            FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "token", clawdbot_event_token_id(event, &id, &error));
            done = 1;
        }
        clawdbot_event_free(event);
    }
    CHECK(pulled == 6 && done);
    clawdbot_stream_free(stream);
    clawdbot_completion_free(completion);
    clawdbot_options_free(greedy);
}

static int32_t inside(void *user_data, const clawdbot_event *event) {
    clawdbot_event *next = NULL;
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "in use", clawdbot_stream_next(user_data, &next, &error));
    CHECK(next == NULL && clawdbot_event_kind(event) != 0);
    return 0;
}

/* The callback stops it; a callback cannot use the stream it is called from. */
static void cancel_from_callback(clawdbot_model *model) {
    clawdbot_options *many = options("{\"max_tokens\": 500, \"temperature\": 0, \"ignore_eos\": true}");
    clawdbot_options *one = options("{\"max_tokens\": 1}");
    clawdbot_completion *completion = NULL;
    clawdbot_stream *stream = NULL;
    struct seen seen = {0, 0, 2, ""};
    size_t count = 0;
    OK(clawdbot_model_stream_text(model, PROMPT, NUL, many, &stream, &error));
    OK(clawdbot_stream_run(stream, collect, &seen, &completion, &error));
    clawdbot_completion_token_ids(completion, &count);
    CHECK(seen.tokens == 2 && seen.done == 0 && count >= 2 && count < 500);
    CHECK(reason(completion) == CLAWDBOT_FINISH_CANCELLED);
    clawdbot_completion_free(completion);
    clawdbot_stream_free(stream);
    OK(clawdbot_model_stream_text(model, PROMPT, NUL, one, &stream, &error));
    OK(clawdbot_stream_run(stream, inside, stream, NULL, &error));
    clawdbot_stream_free(stream);
    /* Freed before its end, and before anything was asked of it. */
    OK(clawdbot_model_stream_text(model, PROMPT, NUL, many, &stream, &error));
    clawdbot_stream_free(stream);
    clawdbot_options_free(many);
    clawdbot_options_free(one);
}

struct race {
    clawdbot_stream *stream;
    pthread_mutex_t lock;
    pthread_cond_t started;
    int running;
};

static int32_t on_first(void *user_data, const clawdbot_event *event) {
    struct race *race = user_data;
    (void)event;
    CHECK(pthread_mutex_lock(&race->lock) == 0);
    race->running = 1;
    CHECK(pthread_cond_signal(&race->started) == 0);
    CHECK(pthread_mutex_unlock(&race->lock) == 0);
    return 0;
}

static void *cancel_when_running(void *argument) {
    struct race *race = argument;
    CHECK(pthread_mutex_lock(&race->lock) == 0);
    while (!race->running) {
        CHECK(pthread_cond_wait(&race->started, &race->lock) == 0);
    }
    CHECK(pthread_mutex_unlock(&race->lock) == 0);
    clawdbot_stream_cancel(race->stream);
    return NULL;
}

static void cancel_from_another_thread(clawdbot_model *model) {
    clawdbot_options *many = options("{\"max_tokens\": 1000, \"temperature\": 0, \"ignore_eos\": true}");
    clawdbot_completion *completion = NULL;
    struct race race = {NULL, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    pthread_t thread;
    OK(clawdbot_model_stream_text(model, PROMPT, NUL, many, &race.stream, &error));
    CHECK(pthread_create(&thread, NULL, cancel_when_running, &race) == 0);
    OK(clawdbot_stream_run(race.stream, on_first, &race, &completion, &error));
    CHECK(reason(completion) == CLAWDBOT_FINISH_CANCELLED);
    CHECK(pthread_join(thread, NULL) == 0);
    clawdbot_completion_free(completion);
    clawdbot_stream_free(race.stream);
    clawdbot_options_free(many);
}

static void *cancel_calls(void *argument) {
    clawdbot_cancel_handle_cancel(argument);
    return NULL;
}

/* What has a handle stops when it is cancelled, and from then on. */
static void cancel_by_handle(clawdbot_model *model) {
    enum { TOKENS = 800 };
    static uint32_t ids[TOKENS];
    static const char *const texts[2] = {PROMPT, "The dog"};
    const clawdbot_options *each[2] = {NULL, NULL};
    clawdbot_cancel_handle *cancel = NULL;
    clawdbot_completion *completions[2];
    clawdbot_error *errors[2], *error = NULL;
    int32_t status;
    size_t needed = 0, i;
    float *logits;
    pthread_t thread;
    for (i = 0; i < TOKENS; i++) {
        ids[i] = 5 + (uint32_t)i % 100;
    }
    OK(clawdbot_model_logits(model, ids, TOKENS, NULL, 0, &needed, &error));
    logits = malloc(needed * sizeof *logits);
    CHECK(logits != NULL);
    OK(clawdbot_cancel_handle_new(&cancel, &error));
    OK(clawdbot_model_logits_with(model, ids, 2, NULL, cancel, logits, needed, NULL, &error));
    CHECK(pthread_create(&thread, NULL, cancel_calls, cancel) == 0);
    do {
        status = clawdbot_model_logits_with(model, ids, TOKENS, NULL, cancel, logits, needed, NULL, &error);
    } while (status == CLAWDBOT_OK);
    CHECK(status == CLAWDBOT_ERROR_CANCELLED && clawdbot_error_code(error) == status);
    clawdbot_error_free(error);
    CHECK(pthread_join(thread, NULL) == 0);
    OK(clawdbot_model_generate_batch_with(model, texts, NULL, each, 2, cancel, completions, errors, &error));
    for (i = 0; i < 2; i++) {
        CHECK(errors[i] == NULL ? reason(completions[i]) == CLAWDBOT_FINISH_CANCELLED
                                : clawdbot_error_code(errors[i]) == CLAWDBOT_ERROR_CANCELLED);
        clawdbot_completion_free(completions[i]);
        clawdbot_error_free(errors[i]);
    }
    clawdbot_cancel_handle_free(cancel);
    clawdbot_cancel_handle_cancel(NULL);
    clawdbot_cancel_handle_free(NULL);
    free(logits);
}

/* The array functions, asked twice. */
static void tokens_and_logits(clawdbot_model *model) {
    clawdbot_tokenizer *tokenizer = NULL;
    clawdbot_string *text = NULL;
    size_t count = 0, again = 0, needed = 0, i;
    uint32_t ids[64];
    float *logits;
    OK(clawdbot_model_tokenizer(model, &tokenizer, &error));
    OK(clawdbot_tokenizer_encode(tokenizer, PROMPT, NUL, 0, NULL, 0, &count, &error));
    CHECK(count > 1 && count < 64);
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "room",
          clawdbot_tokenizer_encode(tokenizer, PROMPT, NUL, 0, ids, count - 1, &again, &error));
    CHECK(again == 0);
    OK(clawdbot_tokenizer_encode(tokenizer, PROMPT, NUL, 0, ids, 64, &again, &error));
    CHECK(again == count);
    OK(clawdbot_tokenizer_decode(tokenizer, ids, count, 1, &text, &error));
    CHECK(strcmp(clawdbot_string_data(text), PROMPT) == 0);
    clawdbot_string_free(text);
    OK(clawdbot_tokenizer_encode(tokenizer, NULL, 0, 0, ids, 64, &again, &error));
    CHECK(again == 0);
    OK(clawdbot_model_logits(model, ids, 2, NULL, 0, &needed, &error));
    CHECK(needed % 2 == 0 && needed / 2 >= clawdbot_tokenizer_vocab_size(tokenizer));
    logits = malloc(needed * sizeof *logits);
    CHECK(logits != NULL);
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "room",
          clawdbot_model_logits(model, ids, 2, logits, needed - 1, NULL, &error));
    OK(clawdbot_model_logits(model, ids, 2, logits, needed, NULL, &error));
    for (i = 0; i < needed; i++) {
        CHECK(fabs((double)logits[i]) < 1e4);
    }
    free(logits);
    clawdbot_tokenizer_free(tokenizer);
}

/* Options for each text; a text and options that are wrong fail alone. */
static void batch_with(clawdbot_model *model) {
    clawdbot_options *two = options("{\"max_tokens\": 2, \"temperature\": 0}");
    clawdbot_options *three = options("{\"max_tokens\": 3, \"temperature\": 0, \"ignore_eos\": true}");
    clawdbot_options *bad = options("{\"max_tokenz\": 3}");
    static const char *const texts[4] = {PROMPT, "\xff", PROMPT, PROMPT};
    const clawdbot_options *each[4];
    clawdbot_completion *completions[4] = {NULL, NULL, NULL, NULL};
    clawdbot_error *errors[4] = {NULL, NULL, NULL, NULL};
    size_t i, count = 0;
    each[0] = two;
    each[1] = two;
    each[2] = bad;
    each[3] = three;
    OK(clawdbot_model_generate_batch_with(model, texts, NULL, each, 4, NULL, completions, errors, &error));
    CHECK(clawdbot_error_code(errors[1]) == CLAWDBOT_ERROR_INVALID_UTF8 && completions[1] == NULL);
    CHECK(strncmp(clawdbot_error_message(errors[1]), "prompt[1]: ", 11) == 0);
    CHECK(strstr(clawdbot_error_detail_json(errors[1]), "\"prompt\":1") != NULL);
    CHECK(clawdbot_error_code(errors[2]) == CLAWDBOT_ERROR_UNKNOWN_OPTION && completions[2] == NULL);
    CHECK(strstr(clawdbot_error_message(errors[2]), "did you mean \"max_tokens\"?") != NULL);
    CHECK(strncmp(clawdbot_error_message(errors[2]), "prompt[2]: ", 11) == 0);
    CHECK(strstr(clawdbot_error_detail_json(errors[2]), "\"prompt\":2") != NULL);
    CHECK(errors[0] == NULL && errors[3] == NULL);
    (void)clawdbot_completion_token_ids(completions[0], &count);
    CHECK(count <= 2);
    (void)clawdbot_completion_token_ids(completions[3], &count);
    CHECK(count == 3);
    for (i = 0; i < 4; i++) {
        clawdbot_completion_free(completions[i]);
        clawdbot_error_free(errors[i]);
    }
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "options",
          clawdbot_model_generate_batch_with(model, texts, NULL, NULL, 4, NULL, completions, errors, &error));
    clawdbot_options_free(two);
    clawdbot_options_free(three);
    clawdbot_options_free(bad);
}

/* A batch gives what single requests give, and one failure does not touch the others. */
static void batch(clawdbot_model *model) {
    clawdbot_options *greedy = options("{\"max_tokens\": 3, \"temperature\": 0}");
    static const char *const texts[2] = {PROMPT, "The dog"};
    static char too_long[8000];
    const char *mixed[2];
    clawdbot_completion *together[2] = {NULL, NULL}, *alone = NULL;
    clawdbot_error *errors[2] = {NULL, NULL};
    size_t i;
    OK(clawdbot_model_generate_batch(model, texts, NULL, 2, greedy, together, errors, &error));
    for (i = 0; i < 2; i++) {
        CHECK(errors[i] == NULL);
        OK(clawdbot_model_generate_text(model, texts[i], NUL, greedy, &alone, &error));
        CHECK(strcmp(clawdbot_completion_text(alone, NULL), clawdbot_completion_text(together[i], NULL)) == 0);
        clawdbot_completion_free(alone);
        clawdbot_completion_free(together[i]);
    }
    for (i = 0; i + 1 < sizeof too_long; i++) {
        too_long[i] = i % 2 == 0 ? 'x' : ' ';
    }
    mixed[0] = too_long;
    mixed[1] = PROMPT;
    OK(clawdbot_model_generate_batch(model, mixed, NULL, 2, greedy, together, errors, &error));
    CHECK(together[0] == NULL && clawdbot_error_code(errors[0]) == CLAWDBOT_ERROR_CONTEXT_OVERFLOW);
    CHECK(strncmp(clawdbot_error_message(errors[0]), "prompt[0]: ", 11) == 0);
    CHECK(together[1] != NULL && errors[1] == NULL);
    clawdbot_error_free(errors[0]);
    clawdbot_completion_free(together[1]);
    clawdbot_options_free(greedy);
}

static int32_t on_progress(void *user_data, uint64_t done, uint64_t total) {
    size_t *calls = user_data;
    CHECK(done <= total);
    return ++*calls == 1000000;
}

static int32_t stop_at_once(void *user_data, uint64_t done, uint64_t total) {
    (void)user_data;
    (void)done;
    (void)total;
    return 1;
}

static void on_log(void *user_data, int32_t level, const char *message, size_t length) {
    size_t *lines = user_data;
    CHECK(level == CLAWDBOT_LOG_WARNING || level == CLAWDBOT_LOG_INFO);
    CHECK(strlen(message) == length && length > 0);
    ++*lines;
}

/* Log, plan, progress, cancelled load; the model outlives its runtime, a stream its model. */
static void loading(void) {
    clawdbot_options *settings = options("{\"threads\": 1}"), *few = options("{\"max_tokens\": 2}");
    clawdbot_runtime *runtime = NULL;
    clawdbot_model *model = NULL;
    clawdbot_stream *stream = NULL;
    clawdbot_completion *completion = NULL;
    clawdbot_string *json = NULL;
    size_t lines = 0, calls = 0;
    OK(clawdbot_runtime_new(settings, on_log, &lines, &runtime, &error));
    CHECK(lines > 0);
    OK(clawdbot_runtime_info_json(runtime, &json, &error));
    CHECK(strstr(clawdbot_string_data(json), "\"threads\":1") != NULL);
    clawdbot_string_free(json);
    OK(clawdbot_runtime_plan_json(runtime, NULL, NULL, &json, &error));
    CHECK(strstr(clawdbot_string_data(json), "\"load_bytes\":") != NULL);
    clawdbot_string_free(json);
    FAILS(CLAWDBOT_ERROR_CANCELLED, "", clawdbot_model_load(runtime, NULL, NULL, stop_at_once, NULL, &model, &error));
    CHECK(model == NULL);
    OK(clawdbot_model_load(runtime, NULL, NULL, on_progress, &calls, &model, &error));
    CHECK(calls > 0);
    OK(clawdbot_model_info_json(model, &json, &error));
    CHECK(strstr(clawdbot_string_data(json), "\"has_chat_template\":true") != NULL);
    clawdbot_string_free(json);
    clawdbot_runtime_free(runtime);
    OK(clawdbot_model_stream_text(model, PROMPT, NUL, few, &stream, &error));
    clawdbot_model_free(model);
    OK(clawdbot_stream_run(stream, NULL, NULL, &completion, &error));
    clawdbot_stream_free(stream);
    CHECK(clawdbot_completion_text(completion, NULL) != NULL);
    clawdbot_completion_free(completion);
    clawdbot_options_free(settings);
    clawdbot_options_free(few);
}

int main(void) {
    clawdbot_model *model;
    CHECK(strcmp(clawdbot_version(), CLAWDBOT_VERSION) == 0);
    CHECK(clawdbot_abi_version() == CLAWDBOT_ABI_VERSION);
    loading();
    model = builtin_model();
    reasoning_is_no_text(model);
    same_text_three_ways(model);
    cancel_from_callback(model);
    cancel_from_another_thread(model);
    cancel_by_handle(model);
    tokens_and_logits(model);
    batch(model);
    batch_with(model);
    clawdbot_model_free(model);
    puts("generate: ok");
    return 0;
}
