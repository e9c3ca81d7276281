/* What the test programs share: a check that ends the program, and calls that must succeed or fail. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clawdbot.h"

#define NUL CLAWDBOT_NUL_TERMINATED

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #condition);     \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

/* A call that must succeed, made with &error as its last argument. */
#define OK(call)                                                                                       \
    do {                                                                                               \
        clawdbot_error *error = NULL;                                                                  \
        int32_t status = (call);                                                                       \
        if (status != CLAWDBOT_OK || error != NULL) {                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, clawdbot_error_message(error)); \
            exit(1);                                                                                   \
        }                                                                                              \
    } while (0)

/* A call that must fail with an error of this kind, whose message contains a text. */
#define FAILS(kind, text, call)                                                                        \
    do {                                                                                               \
        clawdbot_error *error = NULL;                                                                  \
        int32_t status = (call);                                                                       \
        if (status != (kind) || clawdbot_error_code(error) != (kind) ||                                \
            strstr(clawdbot_error_message(error), (text)) == NULL) {                                   \
            fprintf(stderr, "%s:%d: %s: expected %s, found %d: %s\n", __FILE__, __LINE__, #call, #kind, \
                    (int)status, error == NULL ? "(no error)" : clawdbot_error_message(error));        \
            exit(1);                                                                                   \
        }                                                                                              \
        CHECK(strcmp(clawdbot_error_kind(error), clawdbot_error_kind_name(kind)) == 0);                \
        CHECK(clawdbot_error_detail_json(error)[0] == '{');                                            \
        clawdbot_error_free(error);                                                                    \
    } while (0)

/* Options from JSON. */
static inline clawdbot_options *options(const char *json) {
    clawdbot_options *made = NULL;
    OK(clawdbot_options_from_json(json, &made, &error));
    return made;
}

/* The built-in model on a runtime with few threads; the runtime's handle is freed at once. */
static inline clawdbot_model *builtin_model(void) {
    clawdbot_options *settings = options("{\"threads\": 2}");
    clawdbot_runtime *runtime = NULL;
    clawdbot_model *model = NULL;
    OK(clawdbot_runtime_new(settings, NULL, NULL, &runtime, &error));
    OK(clawdbot_model_load(runtime, NULL, NULL, NULL, NULL, &model, &error));
    clawdbot_runtime_free(runtime);
    clawdbot_options_free(settings);
    return model;
}

#endif
