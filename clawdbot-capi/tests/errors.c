/* Everything that can be done wrong: the right number, a message, and outputs left alone. */
#include <math.h>
#include <stdint.h>

#include "check.h"

#define UNTOUCHED(type) ((type *)(uintptr_t)1)

static void freeing_nothing(void) {
    clawdbot_completion_free(NULL);
    clawdbot_constraint_free(NULL);
    clawdbot_error_free(NULL);
    clawdbot_event_free(NULL);
    clawdbot_model_free(NULL);
    clawdbot_options_free(NULL);
    clawdbot_runtime_free(NULL);
    clawdbot_session_free(NULL);
    clawdbot_stream_free(NULL);
    clawdbot_string_free(NULL);
    clawdbot_tokenizer_free(NULL);
    clawdbot_stream_cancel(NULL);
}

static void null_handles(void) {
    clawdbot_model *model = UNTOUCHED(clawdbot_model);
    clawdbot_session *session = UNTOUCHED(clawdbot_session);
    clawdbot_stream *stream = UNTOUCHED(clawdbot_stream);
    clawdbot_completion *completion = UNTOUCHED(clawdbot_completion);
    clawdbot_string *string = UNTOUCHED(clawdbot_string);
    clawdbot_tokenizer *tokenizer = UNTOUCHED(clawdbot_tokenizer);
    clawdbot_event *event = UNTOUCHED(clawdbot_event);
    clawdbot_usage usage;
    size_t count = 7;
    uint64_t done = 7, total = 7;
    uint32_t id = 7;
    int32_t reason = 7;
    usage.struct_size = sizeof usage;
#define NULL_FAILS(argument, call) FAILS(CLAWDBOT_ERROR_NULL_POINTER, argument, call)
    NULL_FAILS("out", clawdbot_options_new(NULL, &error));
    NULL_FAILS("out", clawdbot_cancel_handle_new(NULL, &error));
    NULL_FAILS("out", clawdbot_runtime_new(NULL, NULL, NULL, NULL, &error));
    NULL_FAILS("out", clawdbot_model_load(NULL, NULL, NULL, NULL, NULL, NULL, &error));
    NULL_FAILS("options", clawdbot_options_set_int(NULL, "seed", 1, &error));
    NULL_FAILS("runtime", clawdbot_runtime_info_json(NULL, &string, &error));
    NULL_FAILS("runtime", clawdbot_runtime_metrics_json(NULL, &string, &error));
    NULL_FAILS("runtime", clawdbot_runtime_plan_json(NULL, NULL, NULL, &string, &error));
    NULL_FAILS("model", clawdbot_model_info_json(NULL, &string, &error));
    NULL_FAILS("model", clawdbot_model_close(NULL, &error));
    NULL_FAILS("model", clawdbot_model_load_adapter(NULL, "a", "b", &error));
    NULL_FAILS("model", clawdbot_model_unload_adapter(NULL, "a", &error));
    NULL_FAILS("model", clawdbot_model_generate_text(NULL, "x", NUL, NULL, &completion, &error));
    NULL_FAILS("model", clawdbot_model_generate_tokens(NULL, &id, 1, NULL, &completion, &error));
    NULL_FAILS("model", clawdbot_model_generate_batch(NULL, NULL, NULL, 0, NULL, NULL, NULL, &error));
    NULL_FAILS("model", clawdbot_model_stream_text(NULL, "x", NUL, NULL, &stream, &error));
    NULL_FAILS("model", clawdbot_model_stream_tokens(NULL, &id, 1, NULL, &stream, &error));
    NULL_FAILS("model", clawdbot_model_render_chat(NULL, "[]", NULL, 0, NULL, &string, &error));
    NULL_FAILS("model", clawdbot_model_logits(NULL, &id, 1, NULL, 0, &count, &error));
    NULL_FAILS("model", clawdbot_model_logits_with(NULL, &id, 1, "a", NULL, NULL, 0, &count, &error));
    NULL_FAILS("model", clawdbot_model_tokenizer(NULL, &tokenizer, &error));
    NULL_FAILS("path", clawdbot_tokenizer_from_file(NULL, &tokenizer, &error));
    NULL_FAILS("tokenizer", clawdbot_tokenizer_encode(NULL, "x", NUL, 0, NULL, 0, &count, &error));
    NULL_FAILS("tokenizer", clawdbot_tokenizer_decode(NULL, &id, 1, 0, &string, &error));
    NULL_FAILS("model", clawdbot_session_new(NULL, &session, &error));
    NULL_FAILS("session", clawdbot_session_append_text(NULL, "x", NUL, 0, &count, &error));
    NULL_FAILS("session", clawdbot_session_append_tokens(NULL, &id, 1, &error));
    NULL_FAILS("session", clawdbot_session_tokens(NULL, NULL, 0, &count, &error));
    NULL_FAILS("session", clawdbot_session_truncate(NULL, 0, &error));
    NULL_FAILS("session", clawdbot_session_fork(NULL, NULL, &error));
    NULL_FAILS("session", clawdbot_session_save(NULL, "x", NULL, &error));
    NULL_FAILS("model", clawdbot_model_restore_session(NULL, "x", &session, &error));
    NULL_FAILS("session", clawdbot_session_generate(NULL, NULL, &completion, &error));
    NULL_FAILS("session", clawdbot_session_stream(NULL, NULL, &stream, &error));
    NULL_FAILS("stream", clawdbot_stream_next(NULL, &event, &error));
    NULL_FAILS("stream", clawdbot_stream_run(NULL, NULL, NULL, &completion, &error));
    NULL_FAILS("event", clawdbot_event_progress(NULL, &done, &total, &error));
    NULL_FAILS("event", clawdbot_event_token_id(NULL, &id, &error));
    NULL_FAILS("event", clawdbot_event_logprobs(NULL, NULL, NULL, NULL, &error));
    NULL_FAILS("completion", clawdbot_completion_finish_reason(NULL, &reason, &error));
    NULL_FAILS("completion", clawdbot_completion_usage(NULL, &usage, &error));
    NULL_FAILS("completion", clawdbot_completion_logprobs(NULL, 0, NULL, NULL, NULL, &error));
    NULL_FAILS("completion", clawdbot_completion_prompt_logprobs(NULL, 0, NULL, NULL, NULL, &error));
    NULL_FAILS("completion", clawdbot_completion_json(NULL, &string, &error));
#undef NULL_FAILS
    CHECK(model == UNTOUCHED(clawdbot_model) && session == UNTOUCHED(clawdbot_session));
    CHECK(stream == UNTOUCHED(clawdbot_stream) && completion == UNTOUCHED(clawdbot_completion));
    CHECK(string == UNTOUCHED(clawdbot_string) && tokenizer == UNTOUCHED(clawdbot_tokenizer));
    CHECK(event == UNTOUCHED(clawdbot_event) && count == 7 && done == 7 && total == 7 && id == 7 && reason == 7);
    /* What returns a value has one for NULL; an error nobody wants is not made. */
    CHECK(clawdbot_error_code(NULL) == 0 && clawdbot_error_kind(NULL) == NULL);
    CHECK(clawdbot_error_message(NULL) == NULL && clawdbot_error_detail_json(NULL) == NULL);
    CHECK(clawdbot_error_kind_name(0) == NULL && clawdbot_error_kind_name(-1) == NULL);
    CHECK(clawdbot_string_data(NULL) == NULL && clawdbot_string_length(NULL) == 0);
    CHECK(clawdbot_event_kind(NULL) == 0 && clawdbot_event_text(NULL, NULL) == NULL);
    CHECK(clawdbot_event_tool_call(NULL, NULL) == NULL && clawdbot_completion_reasoning(NULL, NULL) == NULL);
    CHECK(clawdbot_completion_tool_calls(NULL, NULL) == NULL);
    CHECK(clawdbot_event_tool_call_delta(NULL, NULL) == NULL);
    CHECK(clawdbot_event_completion(NULL) == NULL && clawdbot_tokenizer_vocab_size(NULL) == 0);
    CHECK(clawdbot_completion_text(NULL, NULL) == NULL && clawdbot_completion_token_ids(NULL, NULL) == NULL);
    CHECK(clawdbot_model_close(NULL, NULL) == CLAWDBOT_ERROR_NULL_POINTER);
}

static void bad_options(const clawdbot_model *model) {
    static const struct {
        const char *json;
        int32_t kind;
        const char *names;
    } cases[] = {
        {"{\"max_token\": 5}", CLAWDBOT_ERROR_UNKNOWN_OPTION, "max_tokens"},
        {"{\"max_tokens\": 0}", CLAWDBOT_ERROR_INVALID_ARGUMENT, "max_tokens"},
        {"{\"max_tokens\": 1.5}", CLAWDBOT_ERROR_INVALID_ARGUMENT, "max_tokens"},
        {"{\"temperature\": -1}", CLAWDBOT_ERROR_INVALID_ARGUMENT, "temperature"},
        {"{\"temperature\": \"hot\"}", CLAWDBOT_ERROR_INVALID_ARGUMENT, "temperature"},
        {"{\"top_p\": 2}", CLAWDBOT_ERROR_INVALID_ARGUMENT, "top_p"},
        {"{\"stop\": \"text\"}", CLAWDBOT_ERROR_INVALID_ARGUMENT, "stop"},
        {"{\"stop_token_ids\": [1000000]}", CLAWDBOT_ERROR_INVALID_ARGUMENT, "stop_token_ids"},
        {"{\"max_tokens\": 1000000}", CLAWDBOT_ERROR_CONTEXT_OVERFLOW, "context"},
    };
    clawdbot_options *made = UNTOUCHED(clawdbot_options);
    clawdbot_completion *completion = NULL;
    clawdbot_runtime *runtime = NULL;
    clawdbot_model *other = NULL;
    size_t i;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        clawdbot_options *bad = options(cases[i].json);
        FAILS(cases[i].kind, cases[i].names,
              clawdbot_model_generate_text(model, "x", NUL, bad, &completion, &error));
        clawdbot_options_free(bad);
    }
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "JSON", clawdbot_options_from_json("{", &made, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "object", clawdbot_options_from_json("[]", &made, &error));
    CHECK(made == UNTOUCHED(clawdbot_options));

    OK(clawdbot_options_new(&made, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "name", clawdbot_options_set_int(made, NULL, 1, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "value", clawdbot_options_set_string(made, "stop", NULL, NUL, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_UTF8, "value", clawdbot_options_set_string(made, "stop", "\xff", 1, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_UTF8, "name", clawdbot_options_set_int(made, "\xc3", 1, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "JSON", clawdbot_options_set_json(made, "stop", "[1", &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "finite", clawdbot_options_set_number(made, "top_p", HUGE_VAL, &error));
    /* Nothing of that was set. What is set by each function arrives. */
    OK(clawdbot_options_set_int(made, "max_tokens", 1, &error));
    OK(clawdbot_options_set_number(made, "temperature", 0.5, &error));
    OK(clawdbot_options_set_bool(made, "ignore_eos", 1, &error));
    OK(clawdbot_options_set_json(made, "stop", "[\"a\"]", &error));
    OK(clawdbot_model_generate_text(model, "x", NUL, made, &completion, &error));
    {
        clawdbot_string *json = NULL;
        OK(clawdbot_completion_json(completion, &json, &error));
        CHECK(strstr(clawdbot_string_data(json), "\"max_tokens\":1,\"temperature\":0.5,") != NULL);
        CHECK(strstr(clawdbot_string_data(json), "\"stop\":[\"a\"]") != NULL);
        CHECK(strstr(clawdbot_string_data(json), "\"ignore_eos\":true") != NULL);
        clawdbot_string_free(json);
    }
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "logprobs",
          clawdbot_completion_logprobs(completion, 0, NULL, NULL, NULL, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "prompt_logprobs",
          clawdbot_completion_prompt_logprobs(completion, 0, NULL, NULL, NULL, &error));
    clawdbot_completion_free(completion);
    clawdbot_options_free(made);

    OK(clawdbot_options_new(&made, &error));
    OK(clawdbot_options_set_string(made, "weights", "int9", NUL, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "weights", clawdbot_model_load(NULL, NULL, made, NULL, NULL, &other, &error));
    FAILS(CLAWDBOT_ERROR_UNKNOWN_OPTION, "weights", clawdbot_runtime_new(made, NULL, NULL, &runtime, &error));
    CHECK(other == NULL && runtime == NULL);
    clawdbot_options_free(made);
}

static void bad_text(const clawdbot_model *model) {
    clawdbot_completion *completion = NULL;
    clawdbot_session *session = NULL;
    clawdbot_string *string = NULL;
    clawdbot_stream *stream = NULL;
    clawdbot_options *nonsense = options("{\"nonsense\": 1}");
    const char *texts[2] = {"fine", "not \xff fine"};
    clawdbot_completion *completions[2] = {NULL, NULL};
    clawdbot_error *errors[2] = {NULL, NULL};
    const uint32_t outside = 1000000;
    FAILS(CLAWDBOT_ERROR_INVALID_UTF8, "0xff at 4",
          clawdbot_model_generate_text(model, texts[1], NUL, NULL, &completion, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_UTF8, "text", clawdbot_model_generate_text(model, "\xc3\xa9", 1, NULL, &completion, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "text", clawdbot_model_generate_text(model, NULL, NUL, NULL, &completion, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "text", clawdbot_model_generate_text(model, NULL, 3, NULL, &completion, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "memory",
          clawdbot_model_generate_text(model, "x", SIZE_MAX - 1, NULL, &completion, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "1000000",
          clawdbot_model_generate_tokens(model, &outside, 1, NULL, &completion, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "memory",
          clawdbot_model_generate_tokens(model, &outside, SIZE_MAX / 2, NULL, &completion, &error));
    FAILS(CLAWDBOT_ERROR_UNKNOWN_OPTION, "nonsense",
          clawdbot_model_generate_batch(model, texts, NULL, 2, nonsense, completions, errors, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "errors",
          clawdbot_model_generate_batch(model, texts, NULL, 1, NULL, completions, NULL, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "name", clawdbot_model_load_adapter(model, NULL, "nowhere", &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "path", clawdbot_model_load_adapter(model, "a", NULL, &error));
    FAILS(CLAWDBOT_ERROR_NOT_FOUND, "adapter_config.json", clawdbot_model_load_adapter(model, "a", "nowhere", &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "\"a\"", clawdbot_model_unload_adapter(model, "a", &error));
    FAILS(CLAWDBOT_ERROR_EMPTY_PROMPT, "", clawdbot_model_logits(model, NULL, 0, (float[1]){0}, 1, NULL, &error));
    CHECK(completion == NULL && completions[0] == NULL && errors[0] == NULL);

    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "messages",
          clawdbot_model_render_chat(model, "[", NULL, 0, NULL, &string, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "did you mean \"user\"?",
          clawdbot_model_render_chat(model, "[{\"role\": \"usr\", \"content\": \"a\"}]", NULL, 0, NULL, &string, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "a list of messages",
          clawdbot_model_chat(model, "\"Hello\"", NULL, NULL, NULL, &completion, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "tools: the model's chat template ignores tools",
          clawdbot_model_chat_stream(model, "[{\"role\": \"user\", \"content\": \"a\"}]", "[{\"name\": \"f\"}]", NULL, NULL,
                                     &stream, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "variables",
          clawdbot_model_render_chat(model, "[]", NULL, 0, "[]", &string, &error));
    CHECK(stream == NULL);
    clawdbot_options_free(nonsense);
    OK(clawdbot_session_new(model, &session, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "length", clawdbot_session_truncate(session, 1, &error));
    clawdbot_session_free(session);
    CHECK(string == NULL);
}

static void loading(void) {
    clawdbot_options *poor = options("{\"memory_budget\": 100000, \"threads\": 1}");
    clawdbot_runtime *runtime = NULL;
    clawdbot_model *model = NULL;
    clawdbot_tokenizer *tokenizer = NULL;
    OK(clawdbot_runtime_new(poor, NULL, NULL, &runtime, &error));
    FAILS(CLAWDBOT_ERROR_OUT_OF_BUDGET, "budget", clawdbot_model_load(runtime, NULL, NULL, NULL, NULL, &model, &error));
    FAILS(CLAWDBOT_ERROR_NOT_FOUND, "no/such/model",
          clawdbot_model_load(runtime, "no/such/model", NULL, NULL, NULL, &model, &error));
    FAILS(CLAWDBOT_ERROR_NOT_FOUND, "", clawdbot_model_load(runtime, "\xff\xfe", NULL, NULL, NULL, &model, &error));
    FAILS(CLAWDBOT_ERROR_NOT_FOUND, "no/such", clawdbot_tokenizer_from_file("no/such.json", &tokenizer, &error));
    CHECK(model == NULL && tokenizer == NULL);
    clawdbot_runtime_free(runtime);
    clawdbot_options_free(poor);
}

/* After closing, everything answers so; what was running is cancelled; freeing goes on working. */
static void closed(clawdbot_model *model) {
    clawdbot_options *many = options("{\"max_tokens\": 500, \"ignore_eos\": true}");
    clawdbot_stream *stream = NULL;
    clawdbot_completion *completion = NULL;
    clawdbot_session *session = NULL;
    clawdbot_string *string = NULL;
    int32_t reason = 0;
    OK(clawdbot_model_stream_text(model, "x", NUL, many, &stream, &error));
    OK(clawdbot_model_close(model, &error));
    OK(clawdbot_model_close(model, &error));
    OK(clawdbot_stream_run(stream, NULL, NULL, &completion, &error));
    OK(clawdbot_completion_finish_reason(completion, &reason, &error));
    CHECK(reason == CLAWDBOT_FINISH_CANCELLED);
    clawdbot_completion_free(completion);
    completion = NULL;
    FAILS(CLAWDBOT_ERROR_CLOSED, "closed", clawdbot_model_generate_text(model, "x", NUL, NULL, &completion, &error));
    FAILS(CLAWDBOT_ERROR_CLOSED, "closed", clawdbot_session_new(model, &session, &error));
    FAILS(CLAWDBOT_ERROR_CLOSED, "closed",
          clawdbot_model_render_chat(model, "[]", NULL, 0, NULL, &string, &error));
    CHECK(completion == NULL && session == NULL && string == NULL);
    clawdbot_stream_free(stream);
    clawdbot_options_free(many);
}

int main(void) {
    clawdbot_model *model;
    freeing_nothing();
    null_handles();
    loading();
    model = builtin_model();
    bad_options(model);
    bad_text(model);
    closed(model);
    clawdbot_model_free(model);
    puts("errors: ok");
    return 0;
}
