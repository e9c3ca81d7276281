/* Models by name, without a network. The program runs in a directory that holds no cache. */
#define CLAWDBOT_HUB
#include "check.h"

static void local_paths(void) {
    clawdbot_string *path = NULL;
    OK(clawdbot_hub_fetch("./a model", NULL, NULL, NULL, &path, &error));
    CHECK(strcmp(clawdbot_string_data(path), "./a model") == 0);
    clawdbot_string_free(path);
    clawdbot_options *settings = options("{\"revision\": \"main\"}");
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "revision",
          clawdbot_hub_fetch(".", settings, NULL, NULL, &path, &error));
    clawdbot_options_free(settings);
}

/* The same with a runtime, whose log callback gets what is repeated. */
static void with_a_runtime(void) {
    clawdbot_runtime *runtime = NULL;
    clawdbot_string *path = NULL;
    OK(clawdbot_runtime_new(NULL, NULL, NULL, &runtime, &error));
    OK(clawdbot_runtime_fetch(runtime, "./a model", NULL, NULL, NULL, &path, &error));
    CHECK(strcmp(clawdbot_string_data(path), "./a model") == 0);
    clawdbot_string_free(path);
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "runtime",
          clawdbot_runtime_fetch(NULL, ".", NULL, NULL, NULL, &path, &error));
    clawdbot_runtime_free(runtime);
}

static void names(void) {
    clawdbot_string *path = NULL;
    clawdbot_options *settings = options("{\"offline\": true}");
    FAILS(CLAWDBOT_ERROR_NOT_FOUND, "HF_HUB_OFFLINE",
          clawdbot_hub_fetch("hf://owner/name", settings, NULL, NULL, &path, &error));
    clawdbot_options_free(settings);
    FAILS(CLAWDBOT_ERROR_INVALID_ARGUMENT, "s3",
          clawdbot_hub_fetch("s3://a/b", NULL, NULL, NULL, &path, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "name", clawdbot_hub_fetch(NULL, NULL, NULL, NULL, &path, &error));
    FAILS(CLAWDBOT_ERROR_NULL_POINTER, "out", clawdbot_hub_fetch(".", NULL, NULL, NULL, NULL, &error));
    settings = options("{\"revisions\": \"main\"}");
    FAILS(CLAWDBOT_ERROR_UNKNOWN_OPTION, "revision",
          clawdbot_hub_fetch(".", settings, NULL, NULL, &path, &error));
    clawdbot_options_free(settings);
    CHECK(path == NULL);
}

int main(void) {
    const char *others[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH", "HF_HUB_DOWNLOAD_TIMEOUT"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        CHECK(unsetenv(others[i]) == 0);
    }
    CHECK(setenv("HF_HOME", "empty", 1) == 0);
    local_paths();
    with_a_runtime();
    names();
    puts("hub: ok");
    return 0;
}
