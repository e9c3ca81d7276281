/* One model, several threads: each gets what it would get alone. */
#include <pthread.h>

#include "check.h"

enum { THREADS = 4, TURNS = 2 };

struct work {
    const clawdbot_model *model;
    const clawdbot_options *options;
    const char *prompt;
    char expected[1024];
    clawdbot_session *shared;
};

static void *generate(void *argument) {
    struct work *work = argument;
    int turn;
    for (turn = 0; turn < TURNS; turn++) {
        clawdbot_stream *stream = NULL;
        clawdbot_completion *completion = NULL;
        OK(clawdbot_model_stream_text(work->model, work->prompt, NUL, work->options, &stream, &error));
        OK(clawdbot_stream_run(stream, NULL, NULL, &completion, &error));
        CHECK(strcmp(clawdbot_completion_text(completion, NULL), work->expected) == 0);
        clawdbot_completion_free(completion);
        clawdbot_stream_free(stream);
    }
    return NULL;
}

/* A session is for one thread at a time; those who come in between get an error, and nothing breaks. */
static void *append(void *argument) {
    struct work *work = argument;
    int turn;
    for (turn = 0; turn < 50; turn++) {
        const uint32_t id = 7;
        clawdbot_error *error = NULL;
        if (clawdbot_session_append_tokens(work->shared, &id, 1, &error) != CLAWDBOT_OK) {
            CHECK(clawdbot_error_code(error) == CLAWDBOT_ERROR_INVALID_ARGUMENT);
            CHECK(strstr(clawdbot_error_message(error), "in use") != NULL);
            clawdbot_error_free(error);
        }
    }
    return NULL;
}

static void run(void *(*function)(void *), struct work *work) {
    pthread_t threads[THREADS];
    int i;
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, function, &work[i]) == 0);
    }
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

int main(void) {
    static const char *const prompts[THREADS] = {"Once", "The dog", "A girl named", "One day, the"};
    static struct work work[THREADS];
    clawdbot_model *model = builtin_model();
    clawdbot_options *sampled = options("{\"max_tokens\": 4, \"temperature\": 0.8, \"seed\": 11}");
    clawdbot_session *session = NULL;
    size_t count = 0;
    int i;
    OK(clawdbot_session_new(model, &session, &error));
    for (i = 0; i < THREADS; i++) {
        clawdbot_completion *completion = NULL;
        work[i].model = model;
        work[i].options = sampled;
        work[i].prompt = prompts[i];
        work[i].shared = session;
        OK(clawdbot_model_generate_text(model, prompts[i], NUL, sampled, &completion, &error));
        CHECK(strlen(clawdbot_completion_text(completion, NULL)) < sizeof work[i].expected);
        strcpy(work[i].expected, clawdbot_completion_text(completion, NULL));
        clawdbot_completion_free(completion);
    }
    run(generate, work);
    run(append, work);
    OK(clawdbot_session_tokens(session, NULL, 0, &count, &error));
    CHECK(count >= 50 && count <= 50 * THREADS);
    /* In the wrong order on purpose: children keep their parents alive. */
    clawdbot_model_free(model);
    clawdbot_options_free(sampled);
    clawdbot_session_free(session);
    puts("threads: ok");
    return 0;
}
