/* Constraints without a model: what they accept, where they forbid, and what can be done wrong. */
#include <pthread.h>
#include <stdint.h>

#include "check.h"

#define UNTOUCHED(type) ((type *)(uintptr_t)1)
#define THREADS 4

static clawdbot_tokenizer *tokenizer(void) {
    clawdbot_model *model = builtin_model();
    clawdbot_tokenizer *made = NULL;
    OK(clawdbot_model_tokenizer(model, &made, &error));
    clawdbot_model_free(model);
    return made;
}

/* Checks that a text is accepted or not, and where it is forbidden (-1 for nowhere). */
static void expect(const clawdbot_constraint *constraint, const char *text, int32_t accepted, int64_t forbidden) {
    int32_t found = 7;
    int64_t at = 7;
    OK(clawdbot_constraint_accepts(constraint, text, NUL, &found, &error));
    OK(clawdbot_constraint_forbidden_at(constraint, text, NUL, &at, &error));
    if (found != accepted || at != forbidden) {
        fprintf(stderr, "%s: expected %d, %d, found %d, %d\n", text, (int)accepted, (int)forbidden, (int)found, (int)at);
        exit(1);
    }
}

static clawdbot_constraint *compiled(const clawdbot_tokenizer *tokens, const char *json) {
    clawdbot_constraint *made = NULL;
    OK(clawdbot_constraint_new(tokens, json, &made, &error));
    return made;
}

static void of_each_kind(const clawdbot_tokenizer *tokens) {
    /* A text that is accepted, one that may go on, and one that is forbidden where it says. */
    static const struct {
        const char *json, *accepted, *incomplete, *forbidden;
        int64_t at;
    } cases[] = {
        {"{\"json_schema\": {\"type\": \"array\", \"items\": {\"type\": \"integer\"}}}", "[1, 22]", "[1, 2", "{}", 0},
        {"{\"json_schema\": \"{\\\"const\\\": \\\"\\u00e9\\ud83d\\ude00x\\\"}\"}", "\"é😀x\"", "\"é😀", "\"é😀y\"", 3},
        {"{\"json_object\": true}", "{\"a\": [null]}", "{\"a\": ", "[1]", 0},
        {"{\"json_object\": false, \"regex\": \"é{2}[0-9]\"}", "éé1", "éé", "éé!", 2},
        {"{\"grammar\": \"start: \\\"x\\\" start | \\\"y\\\"\"}", "xxy", "xx", "xxz", 2},
        {"{\"choices\": [\"yes\", \"no\"]}", "no", "ye", "!", 0},
    };
    size_t i;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        clawdbot_constraint *made = compiled(tokens, cases[i].json);
        expect(made, cases[i].accepted, 1, -1);
        expect(made, cases[i].incomplete, 0, -1);
        expect(made, cases[i].forbidden, 0, cases[i].at);
        clawdbot_constraint_free(made);
    }
}

/* Texts have a length, may have NULs, and may be empty. */
static void lengths(const clawdbot_tokenizer *tokens) {
    clawdbot_constraint *made = compiled(tokens, "{\"regex\": \"(no)?\"}");
    int32_t accepted = 7;
    int64_t at = 7;
    OK(clawdbot_constraint_accepts(made, "no more", 2, &accepted, &error));
    CHECK(accepted == 1);
    OK(clawdbot_constraint_accepts(made, NULL, 0, &accepted, &error));
    CHECK(accepted == 1);
    OK(clawdbot_constraint_accepts(made, "no\0", 3, &accepted, &error));
    OK(clawdbot_constraint_forbidden_at(made, "no\0", 3, &at, &error));
    CHECK(accepted == 0 && at == 2);
    clawdbot_constraint_free(made);
}

static void what_is_wrong(const clawdbot_tokenizer *tokens) {
    static const struct {
        const char *json;
        int32_t kind;
        const char *names;
    } cases[] = {
        {"{}", CLAWDBOT_ERROR_INVALID_ARGUMENT, "json_schema, json_object, regex, grammar, choices; found none"},
        {"{\"json_object\": false}", CLAWDBOT_ERROR_INVALID_ARGUMENT, "found none"},
        {"{\"regex\": \"a\", \"choices\": [\"a\"]}", CLAWDBOT_ERROR_INVALID_ARGUMENT, "found regex too"},
        {"{\"regex\": 5}", CLAWDBOT_ERROR_INVALID_ARGUMENT, "regex"},
        {"{\"choices\": []}", CLAWDBOT_ERROR_INVALID_ARGUMENT, "choices"},
        {"{\"regexp\": \"a\"}", CLAWDBOT_ERROR_UNKNOWN_OPTION, "did you mean \"regex\"?"},
        {"{\"regex\": \"a\", \"max_tokens\": 1}", CLAWDBOT_ERROR_UNKNOWN_OPTION, "max_tokens"},
        {"[]", CLAWDBOT_ERROR_INVALID_ARGUMENT, "options_json: expected a JSON object"},
        {"{", CLAWDBOT_ERROR_INVALID_ARGUMENT, "options_json: expected JSON"},
        {"\"\xff\"", CLAWDBOT_ERROR_INVALID_UTF8, "options_json"},
        {"{\"regex\": \"(\"}", CLAWDBOT_ERROR_INVALID_CONSTRAINT, "regex"},
        {"{\"json_schema\": {\"not\": {}}}", CLAWDBOT_ERROR_INVALID_CONSTRAINT, "not"},
        {NULL, CLAWDBOT_ERROR_NULL_POINTER, "options_json"},
    };
    clawdbot_constraint *made = UNTOUCHED(clawdbot_constraint);
    clawdbot_constraint *good = compiled(tokens, "{\"regex\": \"a\"}");
    int32_t accepted = 7;
    int64_t at = 7;
    size_t i;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        FAILS(cases[i].kind, cases[i].names, clawdbot_constraint_new(tokens, cases[i].json, &made, &error));
    }
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "tokenizer", clawdbot_constraint_new(NULL, "{}", &made, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "out", clawdbot_constraint_new(tokens, "{}", NULL, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "constraint", clawdbot_constraint_accepts(NULL, "a", NUL, &accepted, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "constraint", clawdbot_constraint_forbidden_at(NULL, "a", NUL, &at, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "text", clawdbot_constraint_accepts(good, NULL, NUL, &accepted, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "text", clawdbot_constraint_forbidden_at(good, NULL, 1, &at, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "out", clawdbot_constraint_accepts(good, "a", NUL, NULL, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "out", clawdbot_constraint_forbidden_at(good, "a", NUL, NULL, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_UTF8, "0xff at 1", clawdbot_constraint_accepts(good, "a\xff", NUL, &accepted, &error));
    FAILS(CLAWDBOT_ERROR_INVALID_UTF8, "text", clawdbot_constraint_forbidden_at(good, "\xc3\xa9", 1, &at, &error));
    CHECK(made == UNTOUCHED(clawdbot_constraint) && accepted == 7 && at == 7);
    clawdbot_constraint_free(good);
}

static void *checks(void *constraint) {
    int i;
    for (i = 0; i < 20; i++) {
        expect(constraint, "{\"a\": [1, 2]}", 1, -1);
        expect(constraint, "{\"a\": ]", 0, 6);
    }
    return NULL;
}

/* A constraint is for any number of threads, and outlives its tokenizer. */
static void threads(clawdbot_tokenizer *tokens) {
    clawdbot_constraint *made = compiled(tokens, "{\"json_object\": true}");
    pthread_t running[THREADS];
    size_t i;
    clawdbot_tokenizer_free(tokens);
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&running[i], NULL, checks, made) == 0);
    }
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_join(running[i], NULL) == 0);
    }
    clawdbot_constraint_free(made);
}

int main(void) {
    clawdbot_tokenizer *tokens = tokenizer();
    of_each_kind(tokens);
    lengths(tokens);
    what_is_wrong(tokens);
    threads(tokens);
    puts("constraint: ok");
    return 0;
}
