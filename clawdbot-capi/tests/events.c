/* A thread of the runtime computes; a pipe says which streams have events. */
#include <poll.h>
#include <unistd.h>

#include "check.h"

enum { STREAMS = 3 };

struct reader {
    clawdbot_stream *stream;
    int pipe[2];
    int tokens, ended;
};

/* On the thread that computes: says that there is something to read, and nothing else. */
static void ready(void *user_data) {
    struct reader *reader = user_data;
    ssize_t written = write(reader->pipe[1], "x", 1);
    (void)written;
}

static void read_events(struct reader *reader) {
    for (;;) {
        clawdbot_event *event = NULL;
        OK(clawdbot_stream_try_next(reader->stream, &event, &reader->ended, &error));
        if (event == NULL) {
            return;
        }
        reader->tokens += clawdbot_event_kind(event) == CLAWDBOT_EVENT_TOKEN;
        clawdbot_event_free(event);
    }
}

int main(void) {
    static struct reader readers[STREAMS];
    struct pollfd polled[STREAMS];
    clawdbot_options *driven = options("{\"driver\": \"thread\", \"threads\": 2}");
    clawdbot_options *greedy = options("{\"max_tokens\": 20, \"temperature\": 0, \"ignore_eos\": true}");
    clawdbot_runtime *runtime = NULL;
    clawdbot_model *model = NULL, *called = builtin_model();
    clawdbot_stream *stream = NULL;
    clawdbot_event *event = NULL;
    int i, open = STREAMS;
    OK(clawdbot_runtime_new(driven, NULL, NULL, &runtime, &error));
    OK(clawdbot_model_load(runtime, NULL, NULL, NULL, NULL, &model, &error));
    OK(clawdbot_model_set_max_batch(model, 2, &error));
    OK(clawdbot_model_set_prefill_chunk(model, 64, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "max_batch", clawdbot_model_set_max_batch(model, 0, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "model", clawdbot_model_set_prefill_chunk(NULL, 1, &error));
    for (i = 0; i < STREAMS; i++) {
        CHECK(pipe(readers[i].pipe) == 0);
        OK(clawdbot_model_stream_text(model, "Once", NUL, greedy, &readers[i].stream, &error));
        OK(clawdbot_stream_on_event(readers[i].stream, ready, &readers[i], &error));
        polled[i].fd = readers[i].pipe[0];
        polled[i].events = POLLIN;
    }
    while (open > 0) {
        CHECK(poll(polled, STREAMS, 60000) > 0);
        for (i = 0; i < STREAMS; i++) {
            char byte;
            if ((polled[i].revents & POLLIN) != 0 && polled[i].fd >= 0) {
                CHECK(read(polled[i].fd, &byte, 1) == 1);
                read_events(&readers[i]);
                if (readers[i].ended) {
                    polled[i].fd = -1;
                    open--;
                }
            }
        }
    }
    for (i = 0; i < STREAMS; i++) {
        CHECK(readers[i].tokens == 20);
        clawdbot_stream_free(readers[i].stream);
        CHECK(close(readers[i].pipe[0]) == 0 && close(readers[i].pipe[1]) == 0);
    }
    /* Freed while it is computed: the callback's data may go then. */
    OK(clawdbot_model_stream_text(model, "Once", NUL, greedy, &stream, &error));
    OK(clawdbot_stream_on_event(stream, ready, &readers[0], &error));
    OK(clawdbot_stream_on_event(stream, NULL, NULL, &error));
    clawdbot_stream_free(stream);
    /* Nobody computes for those who only look. */
    OK(clawdbot_model_stream_text(called, "Once", NUL, greedy, &stream, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "driver", clawdbot_stream_try_next(stream, &event, NULL, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "driver", clawdbot_stream_on_event(stream, ready, &readers[0], &error));
    clawdbot_stream_free(stream);
    clawdbot_model_free(called);
    clawdbot_model_free(model);
    clawdbot_runtime_free(runtime);
    clawdbot_options_free(greedy);
    clawdbot_options_free(driven);
    puts("events: ok");
    return 0;
}
