/**
 * clawdbot runs language models inside your program, on the CPU it has.
 *
 * Generated from clawdbot-capi by `cargo xtask generate`; do not edit.
 *
 * The objects: a runtime (threads, memory budget, log callback) loads a model; a session is one conversation's state; a
 * prompt with options becomes a stream of events and in the end a completion.
 *
 * Status and errors. A function that returns int32_t gives 0 (CLAWDBOT_OK) or one of CLAWDBOT_ERROR_*, unless it is
 * documented to give something else. Its last parameter, error, may be NULL; otherwise, on failure, it receives an error
 * object, which belongs to the caller: free it. On failure all other outputs are untouched; on success, error is. Wrong
 * arguments, files and options are errors. Nothing is printed, there is no global or thread-local state, and the
 * process is not ended.
 *
 * Ownership. What a function gives through a pointer to a handle (such as clawdbot_model **out) belongs to the caller,
 * who frees it once with the function named clawdbot_..._free, in any order: a session keeps its model alive, a model
 * its runtime. All of them accept NULL. What is returned as a plain pointer belongs to the object it was asked of, and
 * is valid until that is freed.
 *
 * Pointers. A required pointer that is NULL is CLAWDBOT_ERROR_NULL_POINTER. Any other pointer must be valid: handles
 * made by this library and not yet freed, inputs readable for their length, outputs writable. Outputs of one call must
 * not overlap.
 *
 * Text is UTF-8, checked. It goes in as pointer and length in bytes (CLAWDBOT_NUL_TERMINATED: up to the first NUL; a NULL
 * pointer with length 0 is the empty text), or NUL-terminated where there is no length (names, paths, JSON). Paths are
 * bytes on Unix.
 *
 * Arrays of unknown size are asked for twice: first with a NULL buffer, which gives the number of items, then with a
 * buffer; one that is too small is CLAWDBOT_ERROR_INVALID_ARGUMENT.
 *
 * Threads. Functions may be called on any thread, several at a time with the same handles, unless their name starts
 * with clawdbot_session_ or clawdbot_stream_: those need one thread at a time for each session or stream, and answer
 * CLAWDBOT_ERROR_INVALID_ARGUMENT otherwise. The exception is clawdbot_stream_cancel, for any thread at any time.
 * Freeing a handle is the last use of it: no other call with it may be running then.
 *
 * Callbacks must return: no exception, no longjmp. user_data is passed on untouched.
 */

#ifndef CLAWDBOT_H
#define CLAWDBOT_H

#include <stddef.h>
#include <stdint.h>

/**
 * Version of the library that this header belongs to.
 */
#define CLAWDBOT_VERSION "0.1.0"

/**
 * Given as the length of a text: the text ends at its first NUL character.
 */
#define CLAWDBOT_NUL_TERMINATED SIZE_MAX

/**
 * Status of a call that succeeded.
 */
#define CLAWDBOT_OK 0

/**
 * An argument or option has a value that is out of range or of the wrong type.
 */
#define CLAWDBOT_ERROR_INVALID_ARGUMENT 1

/**
 * An option of that name does not exist.
 */
#define CLAWDBOT_ERROR_UNKNOWN_OPTION 2

/**
 * A file or directory that is needed does not exist.
 */
#define CLAWDBOT_ERROR_NOT_FOUND 3

/**
 * The operating system refused to read or map a file, or to start a thread.
 */
#define CLAWDBOT_ERROR_IO 4

/**
 * A model file is malformed, truncated or inconsistent with its configuration.
 */
#define CLAWDBOT_ERROR_INVALID_MODEL 5

/**
 * The model is well formed, but uses an architecture or a feature that is not supported.
 */
#define CLAWDBOT_ERROR_UNSUPPORTED_MODEL 6

/**
 * The tokenizer files are malformed or do not belong to the model.
 */
#define CLAWDBOT_ERROR_INVALID_TOKENIZER 7

/**
 * The chat template does not compile or failed while rendering.
 */
#define CLAWDBOT_ERROR_INVALID_TEMPLATE 8

/**
 * The model has no chat template, so messages cannot be rendered.
 */
#define CLAWDBOT_ERROR_MISSING_TEMPLATE 9

/**
 * The chat template itself refused the conversation (its `raise_exception`).
 */
#define CLAWDBOT_ERROR_TEMPLATE_RAISED 10

/**
 * The prompt has no tokens and the model has no beginning-of-sequence token to start from.
 */
#define CLAWDBOT_ERROR_EMPTY_PROMPT 11

/**
 * Prompt and requested tokens do not fit into the context.
 */
#define CLAWDBOT_ERROR_CONTEXT_OVERFLOW 12

/**
 * The memory budget does not allow it.
 */
#define CLAWDBOT_ERROR_OUT_OF_BUDGET 13

/**
 * The work was cancelled.
 */
#define CLAWDBOT_ERROR_CANCELLED 14

/**
 * The object was closed, or its last request failed and left it without state.
 */
#define CLAWDBOT_ERROR_CLOSED 15

/**
 * The process was forked after the runtime had started; the child must make its own.
 */
#define CLAWDBOT_ERROR_FORKED_RUNTIME 16

/**
 * Text that must be UTF-8 is not.
 */
#define CLAWDBOT_ERROR_INVALID_UTF8 17

/**
 * A required pointer is null.
 */
#define CLAWDBOT_ERROR_NULL_POINTER 18

/**
 * The model produced logits that are not finite numbers.
 */
#define CLAWDBOT_ERROR_NON_FINITE 19

/**
 * A bug in clawdbot: please report it.
 */
#define CLAWDBOT_ERROR_INTERNAL 20

/**
 * A download failed: the hub cannot be reached, keeps failing, or sends what does not match its checksum.
 */
#define CLAWDBOT_ERROR_DOWNLOAD 21

/**
 * The hub refuses: a token is missing or invalid, or has no right to read a private or gated repository.
 */
#define CLAWDBOT_ERROR_ACCESS_DENIED 22

/**
 * As many requests wait as may (`max_queue`): try again later.
 */
#define CLAWDBOT_ERROR_OVERLOADED 23

/**
 * A constraint on the output (a JSON Schema, a regular expression, a grammar, choices) is malformed, uses what is not enforced, or is too large.
 */
#define CLAWDBOT_ERROR_INVALID_CONSTRAINT 24

/**
 * Version of the binary interface that this header describes. It changes when a program has to be compiled again.
 */
#define CLAWDBOT_ABI_VERSION 0

/**
 * Log level: something that was asked for is not quite what happens.
 */
#define CLAWDBOT_LOG_WARNING 1

/**
 * Log level: what was chosen, such as kernels, threads and sizes.
 */
#define CLAWDBOT_LOG_INFO 2

/**
 * Event kind: a chunk of a long prompt was computed.
 */
#define CLAWDBOT_EVENT_PROGRESS 1

/**
 * Event kind: a token was generated.
 */
#define CLAWDBOT_EVENT_TOKEN 2

/**
 * Event kind: the end, with the completion. The last event.
 */
#define CLAWDBOT_EVENT_DONE 3

/**
 * Event kind: text of the reasoning became certain.
 */
#define CLAWDBOT_EVENT_REASONING 4

/**
 * Event kind: a tool call is complete.
 */
#define CLAWDBOT_EVENT_TOOL_CALL 5

/**
 * Event kind: a part of a tool call became certain.
 */
#define CLAWDBOT_EVENT_TOOL_CALL_DELTA 6

/**
 * Finish reason: a stop token, the model's end of sequence, or a stop text.
 */
#define CLAWDBOT_FINISH_STOP 1

/**
 * Finish reason: `max_tokens`, or the context is full.
 */
#define CLAWDBOT_FINISH_LENGTH 2

/**
 * Finish reason: cancelled by its owner.
 */
#define CLAWDBOT_FINISH_CANCELLED 3

/**
 * Finish reason: the time that `deadline_ms` gave is over.
 */
#define CLAWDBOT_FINISH_DEADLINE 4

/**
 * Stops the calls that it is given to, from another thread. (A stream is stopped by `clawdbot_stream_cancel`, loading by
 * its callback.)
 */
typedef struct clawdbot_cancel_handle clawdbot_cancel_handle;

/**
 * The result of a request.
 */
typedef struct clawdbot_completion clawdbot_completion;

/**
 * What a text is constrained to, to check texts without a model.
 */
typedef struct clawdbot_constraint clawdbot_constraint;

/**
 * What went wrong: a stable number, its name, a message for people, detail for programs.
 */
typedef struct clawdbot_error clawdbot_error;

/**
 * Something that happened to a request.
 */
typedef struct clawdbot_event clawdbot_event;

/**
 * A loaded model: immutable weights, tokenizer, chat template, and the engine that all its requests share. Requests
 * that run at the same time, on several threads, are computed together.
 */
typedef struct clawdbot_model clawdbot_model;

/**
 * Options by name. The functions that take some list them.
 */
typedef struct clawdbot_options clawdbot_options;

/**
 * Named models of one runtime. Each is loaded when it is first asked for; one that does not fit into the runtime's budget
 * takes the place of those that were used longest ago and that nobody uses now.
 */
typedef struct clawdbot_pool clawdbot_pool;

/**
 * Threads, memory budget and log callback; models keep theirs alive.
 *
 * Worker threads start at the first computation. After a `fork`, the child must make its own runtime: everything that
 * needs this one answers `CLAWDBOT_ERROR_FORKED_RUNTIME` there.
 */
typedef struct clawdbot_runtime clawdbot_runtime;

/**
 * One conversation: its tokens, and their part of the model's cache.
 */
typedef struct clawdbot_session clawdbot_session;

/**
 * The events of one request. Computation happens inside the calls that ask for events.
 */
typedef struct clawdbot_stream clawdbot_stream;

/**
 * An owned text: a rendered prompt, decoded tokens, JSON.
 */
typedef struct clawdbot_string clawdbot_string;

/**
 * A tokenizer.
 */
typedef struct clawdbot_tokenizer clawdbot_tokenizer;

/**
 * Changes the logits of a request's next token before it is sampled: `count` of them, one for each token id, with `logit_bias` and
 * penalties, before masks and temperature. `prompt` and `output` are the tokens so far. Minus infinity forbids a token. Return 0
 * to go on; anything else ends the request with `CLAWDBOT_ERROR_INVALID_ARGUMENT`.
 *
 * It is called for each token on a thread of the library, perhaps on several at a time for several requests, and other requests of
 * the model wait for it. It must not call back into the library, and what it does must depend on its arguments alone: the same
 * place may be asked for more than once. The arrays are valid during the call.
 */
typedef int32_t (*clawdbot_logits_callback)(void *user_data,
                                            const uint32_t *prompt,
                                            size_t prompt_length,
                                            const uint32_t *output,
                                            size_t output_length,
                                            float *logits,
                                            size_t count);

/**
 * Is called once, on any thread, when nothing uses its `user_data` any more.
 */
typedef void (*clawdbot_release_callback)(void *user_data);

/**
 * Receives log messages: one of `CLAWDBOT_LOG_*`, and one line of text with a NUL after it, valid during the call. May
 * be called on any thread that uses the runtime, several at a time. It must not call back into the library.
 */
typedef void (*clawdbot_log_callback)(void *user_data, int32_t level, const char *message, size_t length);

/**
 * Receives the progress of loading: weights done, weights in all. Return 0 to go on; anything else cancels.
 */
typedef int32_t (*clawdbot_progress_callback)(void *user_data, uint64_t done, uint64_t total);

/**
 * Is called when a stream has something to read. It must be quick and must not call this library: let it write to a pipe or
 * an eventfd, or signal a condition, for a thread that then calls `clawdbot_stream_try_next`.
 */
typedef void (*clawdbot_ready_callback)(void *user_data);

/**
 * Receives events. The event is valid during the call, and must not be freed. Return 0 to go on; anything else cancels
 * the request.
 */
typedef int32_t (*clawdbot_event_callback)(void *user_data, const clawdbot_event *event);

/**
 * The log-probability of a token under the model's own distribution.
 */
typedef struct {
  /**
   * Token id.
   */
  uint32_t id;
  /**
   * Natural logarithm of its probability.
   */
  float logprob;
} clawdbot_logprob;

/**
 * Tokens and seconds of a request. Set `struct_size` to `sizeof(clawdbot_usage)` before the call.
 */
typedef struct {
  /**
   * Size of this struct in bytes, as the program knows it.
   */
  size_t struct_size;
  /**
   * Tokens of the prompt; for a session, everything before the output.
   */
  uint64_t prompt_tokens;
  /**
   * How many of them were in the cache already.
   */
  uint64_t cached_tokens;
  /**
   * Tokens generated, a stop token included.
   */
  uint64_t completion_tokens;
  /**
   * Tokens that were guessed and then computed (speculation).
   */
  uint64_t draft_tokens;
  /**
   * How many of them were right.
   */
  uint64_t accepted_tokens;
  /**
   * The right ones by position: of the first drafts of passes, of the second ones, and so on.
   */
  uint64_t accepted_by_position[15];
  /**
   * Seconds before the request's first forward pass.
   */
  double queue_seconds;
  /**
   * Seconds from there to the first token.
   */
  double prefill_seconds;
  /**
   * Seconds from the first token to the end.
   */
  double decode_seconds;
  /**
   * Seconds until it was known which first tokens a constraint allows, compiling it included; 0 without one.
   */
  double first_mask_seconds;
  /**
   * Median of the seconds that this took for each later token.
   */
  double mask_p50_seconds;
  /**
   * Their 99th percentile.
   */
  double mask_p99_seconds;
  /**
   * Those of `accepted_tokens` that a constraint forced: with a pass for several of them.
   */
  uint64_t forced_tokens;
} clawdbot_usage;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Version of the library, such as "0.1.0": a static string. To compare with `CLAWDBOT_VERSION`, that of the header.
 */
const char *clawdbot_version(void);

/**
 * Version of the library's binary interface. A program whose `CLAWDBOT_ABI_VERSION` differs must not use it.
 */
uint32_t clawdbot_abi_version(void);

/**
 * The error's number, one of `CLAWDBOT_ERROR_*`; the same as the status of the call that failed. 0 for NULL.
 */
int32_t clawdbot_error_code(const clawdbot_error *error);

/**
 * The name of the error's kind, such as "InvalidArgument": a static string. NULL for NULL.
 */
const char *clawdbot_error_kind(const clawdbot_error *error);

/**
 * The message, one sentence in UTF-8, NUL-terminated. Valid until the error is freed. NULL for NULL.
 */
const char *clawdbot_error_message(const clawdbot_error *error);

/**
 * Structured detail, a JSON object such as {"option": "top_p", "expected": ...}, NUL-terminated. Valid until the error
 * is freed. NULL for NULL.
 */
const char *clawdbot_error_detail_json(const clawdbot_error *error);

/**
 * The name of an error number, such as "InvalidArgument" for 1: a static string. NULL for a number that is not one.
 */
const char *clawdbot_error_kind_name(int32_t code);

/**
 * Frees an error. NULL is allowed.
 */
void clawdbot_error_free(clawdbot_error *error);

/**
 * The text, in UTF-8, with a NUL after its last byte. Valid until the string is freed. NULL for NULL.
 */
const char *clawdbot_string_data(const clawdbot_string *string);

/**
 * Length of the text in bytes, without the NUL after it. 0 for NULL.
 */
size_t clawdbot_string_length(const clawdbot_string *string);

/**
 * Frees a string. NULL is allowed.
 */
void clawdbot_string_free(clawdbot_string *string);

/**
 * New options, all at their defaults.
 *
 * Names and values are checked where the options are used: a name that does not exist there is
 * `CLAWDBOT_ERROR_UNKNOWN_OPTION`, a value of the wrong type or out of range is `CLAWDBOT_ERROR_INVALID_ARGUMENT`.
 */
int32_t clawdbot_options_new(clawdbot_options **out, clawdbot_error **error);

/**
 * New options from a JSON object, such as {"max_tokens": 20, "stop": ["\n"]}.
 */
int32_t clawdbot_options_from_json(const char *json, clawdbot_options **out, clawdbot_error **error);

/**
 * Sets the option `name` to an integer.
 */
int32_t clawdbot_options_set_int(clawdbot_options *options, const char *name, int64_t value, clawdbot_error **error);

/**
 * Sets the option `name` to a number, which must be finite.
 */
int32_t clawdbot_options_set_number(clawdbot_options *options, const char *name, double value, clawdbot_error **error);

/**
 * Sets the option `name` to true (any `value` but 0) or false.
 */
int32_t clawdbot_options_set_bool(clawdbot_options *options, const char *name, int32_t value, clawdbot_error **error);

/**
 * Sets the option `name` to a text.
 */
int32_t clawdbot_options_set_string(clawdbot_options *options,
                                    const char *name,
                                    const char *value,
                                    size_t length,
                                    clawdbot_error **error);

/**
 * Sets the option `name` to a JSON value: for lists, objects and null.
 */
int32_t clawdbot_options_set_json(clawdbot_options *options,
                                  const char *name,
                                  const char *value,
                                  clawdbot_error **error);

/**
 * Frees options. NULL is allowed.
 */
void clawdbot_options_free(clawdbot_options *options);

/**
 * Lets `callback` change the logits of the requests that these options are used for; NULL: nothing any more. `release` may be
 * NULL; otherwise it is called once with `user_data`: when the options are freed or have another callback, and all requests that were
 * begun with them have ended and are freed; at once if this fails. Calls that take other options refuse these.
 */
int32_t clawdbot_options_set_logits_processor(clawdbot_options *options,
                                              clawdbot_logits_callback callback,
                                              void *user_data,
                                              clawdbot_release_callback release,
                                              clawdbot_error **error);

/**
 * A new runtime. `log` may be NULL; it and `user_data` must remain valid until the runtime and everything made with it is
 * freed.
 *
 * `options`: NULL, or with any of these.
 * - threads (a whole number from 1 to 1024): Number of threads that compute. Default: the smallest of CPU quota,
 *   affinity and physical cores.
 * - driver (one of caller, thread): Who computes: `caller`, the threads that wait for results, so that nothing runs
 *   between calls; or `thread`, one of the runtime's own, so that requests advance while nobody waits for them.
 *   Default: caller.
 * - numa (one of off, interleave, local): On machines with several memory nodes (Linux): `interleave` spreads weights
 *   over them, `local` keeps weights next to the threads that read them (`docs/performance.md`). Changes no result.
 *   Default: off.
 * - memory_budget (a number of bytes below 2^64): Most bytes that the models of a runtime may use together: weights, KV
 *   cache, scratch memory, and all else that grows with requests. Default: no limit for weights; for what grows with
 *   requests, a share of the machine's memory (`docs/memory.md`).
 * - swap_space (a number of bytes below 2^64): Most bytes of a file for keys, values and states that memory has no room
 *   for: they are read back in place of being computed again, where that is faster. It has no name, and goes with the
 *   runtime. Default: 0, no such file.
 * - swap_directory (a path): Directory of that file. Default: the system's directory for temporary files.
 * - kernels (a name): Instruction-set tier. Tiers with `bf16` in their name round activations to bf16 where weights are
 *   bf16; all others give equal bits. Default: what `CLAWDBOT_ISA` says, or the best for this CPU.
 */
int32_t clawdbot_runtime_new(const clawdbot_options *options,
                             clawdbot_log_callback log,
                             void *user_data,
                             clawdbot_runtime **out,
                             clawdbot_error **error);

/**
 * Facts about a runtime, a JSON object: threads, numa, kernels, memory_budget (bytes or null), memory_used (bytes).
 */
int32_t clawdbot_runtime_info_json(const clawdbot_runtime *runtime, clawdbot_string **out, clawdbot_error **error);

/**
 * What the runtime's models have done since they were loaded, and what they do now, a JSON object: memory_used, memory_budget,
 * swap_used, histogram_bounds (seconds), and models, each with its name, requests by outcome, running, waiting, tokens, passes,
 * preemptions, bytes, and histograms of times. Waits for no pass.
 */
int32_t clawdbot_runtime_metrics_json(const clawdbot_runtime *runtime,
                                      clawdbot_string **out,
                                      clawdbot_error **error);

/**
 * What loading a model would cost, a JSON object: parameters, weights_bytes, kv_bytes_per_token, load_bytes, fits (whether
 * these are free in the budget, or without one in `system_memory`), verified, tasks, has_chat_template, warnings (what of the files has no effect), and so on.
 * Opens and checks the files, but reads no weights. Arguments as of `clawdbot_model_load`.
 */
int32_t clawdbot_runtime_plan_json(const clawdbot_runtime *runtime,
                                   const char *path,
                                   const clawdbot_options *options,
                                   clawdbot_string **out,
                                   clawdbot_error **error);

/**
 * Writes a model to a packed file: weights as they are computed with, tokenizer, chat template and configuration. Such a
 * file loads in milliseconds, and processes that use it share its memory. It appears when it is complete.
 *
 * `path`: as of `clawdbot_model_load`. `target`: the file to write.
 * `progress`: NULL, or called on this thread now and then; what it stops is `CLAWDBOT_ERROR_CANCELLED`.
 * `size`: receives the size of the file in bytes; may be NULL.
 *
 * `options`: NULL, or with any of these.
 * - weights (one of int8, int4, int4-mixed, bf16, f32, stored): Type that the weights will be computed with; `stored`
 *   keeps a quantized model's own codes. Default: `stored` for quantized models, int8 for others.
 * - merge_adapters (a list of paths): Directories of LoRA adapters, as PEFT writes them, to add to the weights before
 *   these are quantized. Default: none.
 * - calibrate (a path): Choose int4 codes for least error on texts like the one in this UTF-8 file, not by rounding to
 *   nearest; `builtin` is a text that comes with the library. 65,536 tokens are used. Default: rounding to nearest.
 * - overwrite (true or false): Replace a file that is already there. Default: false.
 */
int32_t clawdbot_runtime_pack(const clawdbot_runtime *runtime,
                              const char *path,
                              const char *target,
                              const clawdbot_options *options,
                              clawdbot_progress_callback progress,
                              void *user_data,
                              uint64_t *size,
                              clawdbot_error **error);

/**
 * How good a model is with a weight type, a JSON object: perplexity, and against a reference kl_divergence (nats),
 * top1_agreement and the error of each layer; `reference` says what it was compared with. One layer of each is in memory at
 * a time.
 *
 * `path`: as of `clawdbot_model_load`.
 * `progress`: NULL, or called on this thread now and then; what it stops is `CLAWDBOT_ERROR_CANCELLED`.
 *
 * `options`: NULL, or with any of these.
 * - weights (one of int8, int4, int4-mixed, bf16, f32, stored): Type of the weights that are evaluated; `stored` keeps
 *   a quantized model's own codes. Default: as a packed file holds them; `stored` for quantized models; int8 for
 *   others.
 * - kv (one of auto, int8, bf16, f32): Type of the KV cache that is evaluated; `auto` is f32 with f32 weights and bf16
 *   otherwise. Default: auto.
 * - merge_adapters (a list of paths): Directories of LoRA adapters, as PEFT writes them, to add to the weights before
 *   these are quantized; to those of the reference too, unless it is another model. Default: none.
 * - text (a path): UTF-8 file with the text; `builtin` is a text that comes with the library, which calibration uses
 *   too. Default: builtin.
 * - sequences (a whole number from 1 to 4096): Maximum number of sequences, of 512 tokens or of the whole context if
 *   that is shorter. They are taken from all over the text. Default: 8.
 * - reference (one of f32, bf16, none): Type of the weights that the model is compared with; `none` gives the
 *   perplexity alone. Default: f32.
 * - reference_model (a path): Model to compare with: a directory, GGUF or packed file with the same tokens and sizes.
 *   Default: the same model; of a packed or quantized one, its own weights, dequantized.
 * - store (true or false): Store the report in the packed file that is evaluated, where `clawdbot inspect` and plans
 *   show it. Default: false.
 */
int32_t clawdbot_runtime_evaluate_json(const clawdbot_runtime *runtime,
                                       const char *path,
                                       const clawdbot_options *options,
                                       clawdbot_progress_callback progress,
                                       void *user_data,
                                       clawdbot_string **out,
                                       clawdbot_error **error);

/**
 * Frees a runtime; models made with it keep working. NULL is allowed.
 */
void clawdbot_runtime_free(clawdbot_runtime *runtime);

#if defined(CLAWDBOT_HUB)
/**
 * Sees to it that a model is on this machine, and gives its path, for `clawdbot_model_load`. Only in a library that was
 * built with the feature `hub`; define CLAWDBOT_HUB to have it declared.
 *
 * `name`: OWNER/NAME on Hugging Face, hf://OWNER/NAME or modelscope://OWNER/NAME, the address of its page, or any of them with
 * `:Q4_K_M` for its GGUF file of that quantization; or a path, which is given back.
 * `progress`: NULL, or called on this thread with bytes: those downloaded, and those in all (0 while that is not known).
 *
 * `options`: NULL, or with any of these.
 * - revision (a name): Branch, tag or commit of the repository. Default: the main branch.
 * - file (a name): GGUF file of the repository (any part of a split one), or packed file. Default: safetensors, or the
 *   only GGUF file.
 * - offline (true or false): Use only what was downloaded before, without the network. Default: what `HF_HUB_OFFLINE`
 *   or `TRANSFORMERS_OFFLINE` says.
 */
int32_t clawdbot_hub_fetch(const char *name,
                           const clawdbot_options *options,
                           clawdbot_progress_callback progress,
                           void *user_data,
                           clawdbot_string **out,
                           clawdbot_error **error);
#endif

#if defined(CLAWDBOT_HUB)
/**
 * As `clawdbot_hub_fetch`; requests that fail and are repeated go to the log callback of `runtime`: why, and when.
 */
int32_t clawdbot_runtime_fetch(const clawdbot_runtime *runtime,
                               const char *name,
                               const clawdbot_options *options,
                               clawdbot_progress_callback progress,
                               void *user_data,
                               clawdbot_string **out,
                               clawdbot_error **error);
#endif

/**
 * A new handle, for one call or several. It stops once and for all.
 */
int32_t clawdbot_cancel_handle_new(clawdbot_cancel_handle **out, clawdbot_error **error);

/**
 * Asks the calls that have the handle to stop, also those that are made later. May be called from any thread and from a
 * signal handler, while these calls run; not after, or while, the handle is freed. NULL is allowed.
 */
void clawdbot_cancel_handle_cancel(const clawdbot_cancel_handle *cancel);

/**
 * Frees a handle. Calls that have it continue, and can no longer be stopped. NULL is allowed.
 */
void clawdbot_cancel_handle_free(clawdbot_cancel_handle *cancel);

/**
 * Loads a model.
 *
 * `runtime`: NULL for one of the model's own, with default options.
 * `path`: a Hugging Face model directory (config.json, safetensors, tokenizer.json), a GGUF file, or a packed file (see
 * `clawdbot_runtime_pack`); NULL for the story model that is part of the library.
 * `progress`: NULL, or called on this thread now and then; a load that it stops is `CLAWDBOT_ERROR_CANCELLED`.
 *
 * `options`: NULL, or with any of these.
 * - weights (one of int8, int4, int4-mixed, bf16, f32, stored): Type that weights are computed with; `stored` keeps a
 *   quantized model's own codes. Default: as a packed file holds them; `stored` for quantized models; int8 for others.
 * - kv (one of auto, int8, bf16, f32): Type of the KV cache; `auto` is f32 with f32 weights and bf16 otherwise.
 *   Default: auto.
 * - max_context (a whole number from 1 to 4294967295): Maximum number of tokens in a sequence. Default: what the model
 *   was trained for.
 * - prefill_chunk (a whole number from 1 to 65536): Maximum number of tokens in a forward pass; longer prompts take
 *   several. Changes speed and memory, not results. Default: 512.
 * - max_batch (a whole number from 1 to 4096): Maximum number of sequences in a forward pass; others wait their turn.
 *   Changes speed and memory, not results. Default: 64.
 * - target_inter_token_ms (a whole number from 1 to 3600000): Milliseconds between tokens that decoding sequences
 *   should have: prompts get as many tokens of a pass as that allows, at least 16. Changes speed, not results. Default:
 *   no target; prompts get `prefill_chunk`.
 * - max_queue (a whole number from 1 to 4294967295): Most requests that wait to begin; further ones are refused with
 *   `Overloaded`, which says when to try again. Default: no limit.
 * - share (a whole number from 1 to 1000): With `driver` thread: the model's share of the thread's time, relative to
 *   those of other models of the runtime that have work at the same time. Changes speed, not results. Default: 1.
 * - prefix_cache (true or false): Keep keys, values and states of requests that have ended, for prompts that begin as
 *   theirs did. Changes speed and memory, not results. Not for encoders. Default: true with `driver` thread, else
 *   false.
 * - prefix_cache_bytes (a whole number from 0 to 18446744073709551615): Most bytes that are kept so. They are given up
 *   where requests need memory. Default: half of what requests may take.
 * - prefix_cache_dir (a path): Directory for a file of what is kept so: written when the model is closed, read when it
 *   is loaded again. Default: what is kept goes with the model.
 * - speculation (one of none, ngram, draft, mtp): How tokens are guessed before they are computed: `ngram`, as what
 *   followed the last tokens before; `draft`, by the `draft_model`; `mtp`, by the model's own head. Changes speed, not
 *   results. Default: none.
 * - draft_model (a path): A smaller model with the same tokens, loaded to guess them: a directory, GGUF or packed file.
 *   Default: none.
 * - merge_adapters (a list of paths): Directories of LoRA adapters, as PEFT writes them, to add to the weights before
 *   these are quantized. Default: none.
 * - chat_template (a text): Text of a Jinja chat template to use instead of the model's own. It sees the model's
 *   special tokens. Default: the model's.
 * - mmap (true or false): Map a packed file, so that processes share its memory, instead of reading it. A mapped file
 *   must not be changed or shortened. Default: true; with `numa`, false.
 * - verify (true or false): Read all of a packed file first and compare it with its checksum. Default: false.
 * - cache (true, false or a directory ('./true' for a directory of that name)): Write a packed file when a directory is
 *   loaded, and use it the next time: true in the user's cache directory, or in the directory given here. Changes no
 *   result. Default: false.
 */
int32_t clawdbot_model_load(const clawdbot_runtime *runtime,
                            const char *path,
                            const clawdbot_options *options,
                            clawdbot_progress_callback progress,
                            void *user_data,
                            clawdbot_model **out,
                            clawdbot_error **error);

/**
 * Facts about a model, a JSON object: those of its plan, and vocab_size, bos_token_id, eos_token_ids,
 * has_chat_template, tasks, embedding (dimensions, pooling, normalize, prompts, default_prompt_name, max_tokens).
 */
int32_t clawdbot_model_info_json(const clawdbot_model *model, clawdbot_string **out, clawdbot_error **error);

/**
 * Cancels the model's requests and frees its memory once they have ended. The handle remains, and everything else
 * answers `CLAWDBOT_ERROR_CLOSED`. The weights stay in memory until the last of its sessions, streams (until their last event is read)
 * and instances is freed; instances go on.
 */
int32_t clawdbot_model_close(const clawdbot_model *model,
                             clawdbot_error **error);

/**
 * Frees a model's handle. Its sessions, streams and instances keep working. The weights stay in memory until the last of these
 * (streams until their last event is read) is freed, also after `clawdbot_model_close`. NULL is allowed.
 */
void clawdbot_model_free(clawdbot_model *model);

/**
 * Changes the most sequences of a forward pass, as the option `max_batch`, also while requests run, whose results stay the
 * same. `CLAWDBOT_ERROR_OUT_OF_BUDGET` without memory for larger passes; nothing changes then.
 */
int32_t clawdbot_model_set_max_batch(const clawdbot_model *model,
                                     uint32_t max_batch,
                                     clawdbot_error **error);

/**
 * Changes the most tokens of a forward pass, as the option `prefill_chunk`; else as `clawdbot_model_set_max_batch`. Prompts
 * that are under way get no more tokens of a pass than before.
 */
int32_t clawdbot_model_set_prefill_chunk(const clawdbot_model *model,
                                         uint32_t prefill_chunk,
                                         clawdbot_error **error);

/**
 * Loads the LoRA adapter in the directory `path`, as PEFT writes it, for requests whose option `adapter` is `name`. It is
 * applied next to the weights, which stay as they are.
 */
int32_t clawdbot_model_load_adapter(const clawdbot_model *model,
                                    const char *name,
                                    const char *path,
                                    clawdbot_error **error);

/**
 * Unloads an adapter. Requests that run keep using it; its memory is freed with the last session that used it.
 */
int32_t clawdbot_model_unload_adapter(const clawdbot_model *model, const char *name, clawdbot_error **error);

/**
 * Generates from a text.
 *
 * `options`: NULL, or with any of these. Options that are not given come from the model's `generation_config.json`. The
 * completion reports the values that were used.
 * - adapter (a name): Name of the loaded LoRA adapter to use. Default: none.
 * - priority (a whole number from 0 to 100): Requests of higher priority are served first, with `driver` thread those
 *   of other models too; among equals, groups share. Default: 50.
 * - group (a name): Name of the group of requests (a user, a job) that this one belongs to. Groups get equal shares,
 *   however many requests each has. Default: none: requests without one share a group.
 * - deadline_ms (a whole number from 0 to 18446744073709551615): Milliseconds from now after which the request ends,
 *   with the finish reason `deadline` and what it has generated. Default: none.
 * - speculation (one of none, ngram, draft, mtp): How tokens are guessed before they are computed, as for a model.
 *   Changes speed, not results. Default: the model's.
 * - n (a whole number from 1 to 128): How many completions of the prompt to generate; the further ones have the seeds
 *   after `seed`. Streams and sessions give one. Default: 1.
 * - best_of (a whole number from 1 to 128): Generate this many, and give the `n` whose tokens have the highest mean
 *   log-probability, best first. Default: `n`, in the order of their seeds.
 * - num_beams (a whole number from 1 to 32): Beams of a beam search, which keeps so many of the most likely texts while
 *   it generates; 1 is off. The best `n` are given, best first. Default: 1.
 * - length_penalty (a finite number): The score of a text in a beam search is its log-probability, divided by its
 *   length to this power: above 0, longer texts gain. Default: the model's, or 1.
 * - early_stopping (one of false, true, never): When a beam search ends: `true`, with `num_beams` finished texts;
 *   `false`, when better ones are unlikely; `never`, when there can be none. Default: the model's, or false.
 * - max_tokens (a whole number from 1 to 4294967295): Maximum number of tokens to generate. Default: the model's, or
 *   until the context is full.
 * - temperature (a finite number, 0 or more): Logits are divided by this before the softmax: lower values favor likely
 *   tokens. 0 is greedy: always the most likely token. Default: the model's (or 1) with `do_sample`, 0 without.
 * - top_k (a whole number from 0 to 4294967295): Sample only from this many of the most likely tokens; 0 is off.
 *   Default: the model's, or else 50 with `do_sample` and 0 without.
 * - top_p (a number above 0, at most 1): Sample only from the smallest set of most likely tokens whose probabilities
 *   add up to this (nucleus sampling); 1 is off. Default: the model's, or 1.
 * - min_p (a number from 0 to 1): Sample only from tokens at least this many times as likely as the most likely token;
 *   0 is off. Default: the model's, or 0.
 * - typical_p (a number above 0, at most 1): Sample only from tokens whose surprisal is closest to the entropy, until
 *   their probabilities add up to this (locally typical sampling); 1 is off. Default: the model's, or 1.
 * - top_n_sigma (a finite number, 0 or more): Sample only from tokens whose logits are at most this many standard
 *   deviations below the largest one; 0 is off. Default: 0.
 * - xtc_probability (a number from 0 to 1): How often (0 to 1) likely tokens are left out: of those at least as likely
 *   as `xtc_threshold`, only the least likely stays (exclude top choices); 0 is off. Default: 0.
 * - xtc_threshold (a number above 0, at most 1): Probability from which on `xtc_probability` leaves tokens out.
 *   Default: 0.1.
 * - dynatemp_range (a finite number, 0 or more): By how much the temperature may be higher or lower: higher where many
 *   tokens are likely, lower where few are; 0 is off. Default: 0.
 * - dynatemp_exponent (a finite number above 0): Power of the normalized entropy that says where in `dynatemp_range`
 *   the temperature is. Default: 1.
 * - mirostat_tau (a finite number above 0): Keep the surprisal of the text near so many bits per token (Mirostat 2), in
 *   place of `top_k`, `top_p` and the other filters. Default: off.
 * - mirostat_eta (a finite number above 0): How fast Mirostat learns. Default: 0.1.
 * - samplers (a list of names, each one of penalties, dry, top_n_sigma, temperature, top_k, top_p, min_p, typ_p, xtc):
 *   The steps of sampling and their order. Those that are left out are not taken. Default: penalties, dry, top_n_sigma,
 *   temperature, top_k, top_p, min_p, typ_p, xtc.
 * - repetition_penalty (a finite number above 0): Divide positive logits of tokens that occur in the prompt or the
 *   output by this, and multiply negative ones; 1 is off. Default: the model's, or 1.
 * - presence_penalty (a finite number): Subtract this from the logits of tokens that occur in the output. Default: 0.
 * - frequency_penalty (a finite number): Subtract this from the logits of tokens in the output, once for each
 *   occurrence. Default: 0.
 * - dry_multiplier (a finite number, 0 or more): Weight of the penalty for tokens that would continue a repetition
 *   (DRY); 0 is off. Default: 0.
 * - dry_base (a finite number, 1 or more): The DRY penalty grows by this factor with each repeated token. Default:
 *   1.75.
 * - dry_allowed_length (a whole number from 1 to 4294967295): Repetitions of fewer tokens than this get no DRY penalty.
 *   Default: 2.
 * - dry_penalty_last_n (a whole number from 1 to 4294967295): How many of the latest tokens DRY looks for repetitions
 *   in. Default: all, those of the prompt included.
 * - dry_sequence_breakers (a list of at most 64 texts): Texts that end a repetition for DRY: tokens that have one of
 *   them in their text are not compared, and get no penalty. Default: a line break, `:`, `"` and `*`.
 * - allowed_token_ids (a list of at most 1048576 token ids): The only tokens that are generated. Without an
 *   end-of-sequence token among them, the text ends at `max_tokens`. Default: all.
 * - suppress_tokens (a list of at most 1048576 token ids): Tokens that are never generated. Default: the model's.
 * - begin_suppress_tokens (a list of at most 1048576 token ids): Tokens that are never generated as the first token.
 *   Default: the model's.
 * - bad_words_ids (a list of at most 10000 lists of token ids): Sequences of tokens that are never generated. One that
 *   is only an end-of-sequence token has no effect. Default: the model's.
 * - bad_words (a list of at most 1024 texts): Texts that are never in the output, whatever tokens spell them. Default:
 *   none.
 * - no_repeat_ngram_size (a whole number from 0 to 4294967295): No sequence of this many tokens occurs twice, counting
 *   the prompt; 0 is off. Default: the model's, or 0.
 * - min_tokens (a whole number from 0 to 4294967295): Generate at least this many tokens before one that ends the
 *   generation. Default: the model's, or 0.
 * - logit_bias (a mapping of token ids to finite numbers): Numbers to add to the logits of tokens, by token id.
 *   Default: none.
 * - seed (a whole number from 0 to 18446744073709551615): Seed of the random numbers. Default: random; the completion
 *   reports it.
 * - stop (a list of at most 64 texts): Texts that end the generation. They are left out of the completion's text.
 *   Default: the model's.
 * - stop_token_ids (a list of token ids): Tokens that end the generation, in addition to the model's end-of-sequence
 *   tokens. Default: none.
 * - ignore_eos (true or false): Treat the model's end-of-sequence tokens as ordinary tokens. Default: false.
 * - json_schema (a JSON Schema (an object, or its text)): Generate JSON that is an instance of this JSON Schema.
 *   Default: none.
 * - json_object (true or false): Generate a JSON object. Default: false.
 * - regex (a text): Generate text that this regular expression matches as a whole. Default: none.
 * - grammar (a text): Generate text of the language of this grammar, in Lark's syntax. Default: none.
 * - choices (a list of at most 4096 texts): Generate one of these texts. Default: none.
 * - logprobs (a whole number from 0 to 64): Report the log-probability of each generated token, and of this many most
 *   likely tokens. Default: nothing is reported.
 * - logprobs_mode (one of raw, masked): Which distribution `logprobs` are of: `raw`, the model's own; `masked`, the
 *   same over the tokens that masks and the constraint allow. Default: raw.
 * - prompt_logprobs (a whole number from 0 to 64): Report the log-probability of each token of the prompt but the
 *   first, and of this many most likely tokens. What is cached of the prompt is computed again. Default: nothing is
 *   reported.
 * - add_special_tokens (true or false): Add the tokenizer's special tokens, such as BOS, to the prompt. A BOS that is
 *   already there is not doubled. Sessions take this when text is appended. Default: true for text, false for a chat,
 *   whose template adds its own.
 * - skip_special_tokens (true or false): Leave special tokens out of the completion's text. Default: true.
 * - tool_choice (a name): In a chat with tools: `auto`, the model decides; `none`, no calls; `required`, at least one;
 *   or the name of the function to call. What is required is enforced, with the schemas. Default: auto.
 * - parallel_tool_calls (true or false): Whether an answer may have several tool calls. Default: true.
 * - tool_format (one of auto, none, harmony, kimi_k2, deepseek_dsml, minimax_m2, deepseek, gemma4, function_gemma,
 *   mistral, command, apertus, lfm2, internlm, gigachat, seed_oss, glm, qwen3_coder, nemotron, longcat, tool_calls,
 *   olmo3, granite, hermes, functionary, pythonic, llama3_json, functools, command_r, xlam, gemma3): Format in which
 *   tool calls are read from the output. `auto`: that of the chat template, in a chat with tools. Default: auto.
 * - reasoning_format (one of auto, none, harmony, gemma4, command, apertus, mistral, seed_oss, apriel, granite,
 *   kimi_vl, hunyuan, ernie, thought, think): Format in which reasoning is told from the answer. `auto`: that of the
 *   chat template, in a chat. Default: auto.
 */
int32_t clawdbot_model_generate_text(const clawdbot_model *model,
                                     const char *text,
                                     size_t length,
                                     const clawdbot_options *options,
                                     clawdbot_completion **out,
                                     clawdbot_error **error);

/**
 * Generates from token ids. `options` as of `clawdbot_model_generate_text`.
 */
int32_t clawdbot_model_generate_tokens(const clawdbot_model *model,
                                       const uint32_t *ids,
                                       size_t count,
                                       const clawdbot_options *options,
                                       clawdbot_completion **out,
                                       clawdbot_error **error);

/**
 * Generates from a text, event by event. `options` as of `clawdbot_model_generate_text`.
 */
int32_t clawdbot_model_stream_text(const clawdbot_model *model,
                                   const char *text,
                                   size_t length,
                                   const clawdbot_options *options,
                                   clawdbot_stream **out,
                                   clawdbot_error **error);

/**
 * Generates from token ids, event by event. `options` as of `clawdbot_model_generate_text`.
 */
int32_t clawdbot_model_stream_tokens(const clawdbot_model *model,
                                     const uint32_t *ids,
                                     size_t count,
                                     const clawdbot_options *options,
                                     clawdbot_stream **out,
                                     clawdbot_error **error);

/**
 * A new pool without models. The runtime's handle may be freed.
 */
int32_t clawdbot_pool_new(const clawdbot_runtime *runtime, clawdbot_pool **out, clawdbot_error **error);

/**
 * Adds a model, which is loaded when it is first asked for. `path` and `options` as of `clawdbot_model_load`.
 *
 * `pin`: not 0 if it stays once it is loaded, whatever others need and however long nobody uses it.
 * `idle_unload`: seconds without a user after which it is unloaded; 0 for never. With the option `driver` `caller` that happens
 * at the next `get`.
 * `instances`: options of `count` further instances, which share the weights and have limits of their own; NULL with 0.
 */
int32_t clawdbot_pool_add(const clawdbot_pool *pool,
                          const char *name,
                          const char *path,
                          const clawdbot_options *options,
                          int32_t pin,
                          uint64_t idle_unload,
                          const clawdbot_options *const *instances,
                          size_t count,
                          clawdbot_error **error);

/**
 * A model, loaded if it is not: of its instances the one that has the fewest users. It stays loaded until the handle, and what
 * was made with it, is freed; `clawdbot_model_close` gives the handle up and cancels nothing.
 *
 * One that does not fit into the budget waits up to `timeout_ms` milliseconds until enough of the others are idle, then fails with
 * `CLAWDBOT_ERROR_OUT_OF_BUDGET`; if the loads of others took all that time, with `CLAWDBOT_ERROR_OVERLOADED`. `cancel`, which may
 * be NULL, stops it.
 */
int32_t clawdbot_pool_get(const clawdbot_pool *pool,
                          const char *name,
                          uint64_t timeout_ms,
                          const clawdbot_cancel_handle *cancel,
                          clawdbot_model **out,
                          clawdbot_error **error);

/**
 * Unloads a model that nobody uses, be it pinned. `unloaded`, which may be NULL, gets 1 if it is not loaded now, otherwise 0.
 */
int32_t clawdbot_pool_unload(const clawdbot_pool *pool,
                             const char *name,
                             int32_t *unloaded,
                             clawdbot_error **error);

/**
 * Forgets a model. Who uses it goes on, and its memory is freed with the last user.
 */
int32_t clawdbot_pool_remove(const clawdbot_pool *pool, const char *name, clawdbot_error **error);

/**
 * All models by name, a JSON array of objects: name, state (unloaded, loading, loaded), pin, bytes, users (of each instance),
 * idle_seconds.
 */
int32_t clawdbot_pool_status_json(const clawdbot_pool *pool,
                                  clawdbot_string **out,
                                  clawdbot_error **error);

/**
 * Frees a pool. Models that it gave stay as long as they are used. NULL is allowed.
 */
void clawdbot_pool_free(clawdbot_pool *pool);

/**
 * Generates from `count` texts, computed together, with the same options.
 *
 * `lengths` may be NULL if all texts are NUL-terminated. `completions` and `errors` have room for `count` handles each.
 * With status 0 every text has given either a completion or an error, to be freed, and NULL stands in the other array. A
 * text that is not UTF-8, or is too long, fails alone: the message of its error begins with `prompt[INDEX]: `, and the detail
 * has the index as `prompt`. A wrong argument, such as an option, fails the whole call.
 */
int32_t clawdbot_model_generate_batch(const clawdbot_model *model,
                                      const char *const *texts,
                                      const size_t *lengths,
                                      size_t count,
                                      const clawdbot_options *options,
                                      clawdbot_completion **completions,
                                      clawdbot_error **errors,
                                      clawdbot_error **error);

/**
 * As `clawdbot_model_generate_batch`, with options for each text: `options` points to `count` pointers. Each may
 * be NULL, and may be the same as others. Options that are wrong fail their text alone. `cancel` may be NULL; what it stops ends
 * with `CLAWDBOT_FINISH_CANCELLED`, what had not begun with `CLAWDBOT_ERROR_CANCELLED`.
 */
int32_t clawdbot_model_generate_batch_with(const clawdbot_model *model,
                                           const char *const *texts,
                                           const size_t *lengths,
                                           const clawdbot_options *const *options,
                                           size_t count,
                                           const clawdbot_cancel_handle *cancel,
                                           clawdbot_completion **completions,
                                           clawdbot_error **errors,
                                           clawdbot_error **error);

/**
 * Logits at every position of `ids`: [count, vocab_size] floats, row-major, copied to `logits`, which has room for
 * `capacity`; their number goes to `needed`, which may be NULL. With `logits` NULL nothing is computed.
 */
int32_t clawdbot_model_logits(const clawdbot_model *model,
                              const uint32_t *ids,
                              size_t count,
                              float *logits,
                              size_t capacity,
                              size_t *needed,
                              clawdbot_error **error);

/**
 * As `clawdbot_model_logits`, with the loaded adapter of that name; none for NULL. `cancel` may be NULL; a call that it stops,
 * within a layer of the model, gives `CLAWDBOT_ERROR_CANCELLED`.
 */
int32_t clawdbot_model_logits_with(const clawdbot_model *model,
                                   const uint32_t *ids,
                                   size_t count,
                                   const char *adapter,
                                   const clawdbot_cancel_handle *cancel,
                                   float *logits,
                                   size_t capacity,
                                   size_t *needed,
                                   clawdbot_error **error);

/**
 * How likely `count` continuations of a prompt are, as JSON: an array with an object for each, which has `token_ids`,
 * `logprobs` (natural logarithms, one for each token), `greedy` (whether each token is the most likely one), `logprob` (their sum),
 * `is_greedy` (all are) and `probability` (of all continuations of the call; they add up to 1). The prompt is computed once, and gets the tokenizer's special tokens; continuations are tokenized
 * together with it.
 *
 * `lengths` may be NULL if all continuations are NUL-terminated. `adapter` is the name of a loaded adapter, or NULL. `cancel` may
 * be NULL; a call that it stops, within a layer of the model, gives `CLAWDBOT_ERROR_CANCELLED`.
 */
int32_t clawdbot_model_score_json(const clawdbot_model *model,
                                  const char *prompt,
                                  size_t prompt_length,
                                  const char *const *continuations,
                                  const size_t *lengths,
                                  size_t count,
                                  const char *adapter,
                                  const clawdbot_cancel_handle *cancel,
                                  clawdbot_string **out,
                                  clawdbot_error **error);

/**
 * Turns `count` texts into vectors, computed together: [count, dimensions] floats, row-major, copied to `vectors`, which has
 * room for `capacity`; their number goes to `needed`, which may be NULL. With `vectors` NULL nothing is computed. The first text
 * that fails fails the call; its error says which one it is.
 *
 * `lengths` may be NULL if all texts are NUL-terminated.
 *
 * `options`: NULL, or with any of these. Options that are not given come from the model's own files.
 * - pooling (one of cls, mean, max, last, weighted_mean, mean_sqrt_len): How to combine the hidden states of a text's
 *   tokens into one vector. Required if the model does not say. Default: the model's.
 * - normalize (true or false): Scale vectors to length 1. Default: the model's.
 * - prompt_name (a name): Name of one of the model's prompts, which is put before each text. Default: the model's
 *   default prompt, if it has one.
 * - prompt (a text): Text that is put before each text, instead of one of the model's prompts. Default: as
 *   `prompt_name` says.
 * - dimensions (a whole number from 1 to 4294967295): Keep only this many leading elements of each vector, for models
 *   trained for it (Matryoshka). Default: all.
 * - truncate (true or false): Cut texts that are too long. Otherwise they are errors. Default: false.
 * - add_special_tokens (true or false): Add the tokenizer's special tokens to each text. Default: true.
 */
int32_t clawdbot_model_embed(const clawdbot_model *model,
                             const char *const *texts,
                             const size_t *lengths,
                             size_t count,
                             const clawdbot_options *options,
                             float *vectors,
                             size_t capacity,
                             size_t *needed,
                             clawdbot_error **error);

/**
 * As `clawdbot_model_embed`, but a text that fails, or is not UTF-8, fails alone: its vector is NaN.
 *
 * `errors` has room for `count` handles: with status 0 each is NULL, or an error to be freed. With `vectors` NULL it is left
 * alone, and may be NULL. `cancel` may be NULL; a call that it stops, within a layer of the model, gives
 * `CLAWDBOT_ERROR_CANCELLED`.
 */
int32_t clawdbot_model_embed_each(const clawdbot_model *model,
                                  const char *const *texts,
                                  const size_t *lengths,
                                  size_t count,
                                  const clawdbot_options *options,
                                  const clawdbot_cancel_handle *cancel,
                                  float *vectors,
                                  size_t capacity,
                                  size_t *needed,
                                  clawdbot_error **errors,
                                  clawdbot_error **error);

/**
 * Scores `count` documents against a query, more is more relevant: `count` floats to `scores`, in their order. The first
 * document that fails fails the call; its error says which one it is.
 *
 * `lengths` may be NULL if all documents are NUL-terminated.
 *
 * `options`: NULL, or with any of these.
 * - sigmoid (true or false): Give scores as probabilities, `1 / (1 + exp(-logit))`, instead of logits. Default: the
 *   model's, or true.
 * - instruction (a text): What makes a document a good answer to the query, for models that take an instruction
 *   (Qwen3-Reranker). Default: the model's.
 * - truncate (true or false): Cut texts that are too long. Otherwise they are errors. Default: false.
 */
int32_t clawdbot_model_rerank(const clawdbot_model *model,
                              const char *query,
                              size_t query_length,
                              const char *const *documents,
                              const size_t *lengths,
                              size_t count,
                              const clawdbot_options *options,
                              float *scores,
                              clawdbot_error **error);

/**
 * As `clawdbot_model_rerank`, but a document that fails, or is not UTF-8, fails alone: its score is NaN.
 *
 * `errors` has room for `count` handles: with status 0 each is NULL, or an error to be freed. `cancel` may be NULL; a call that
 * it stops, within a layer of the model, gives `CLAWDBOT_ERROR_CANCELLED`.
 */
int32_t clawdbot_model_rerank_each(const clawdbot_model *model,
                                   const char *query,
                                   size_t query_length,
                                   const char *const *documents,
                                   const size_t *lengths,
                                   size_t count,
                                   const clawdbot_options *options,
                                   const clawdbot_cancel_handle *cancel,
                                   float *scores,
                                   clawdbot_error **errors,
                                   clawdbot_error **error);

/**
 * Opens a `tokenizer.json`, or the vocabulary in a GGUF file.
 */
int32_t clawdbot_tokenizer_from_file(const char *path, clawdbot_tokenizer **out, clawdbot_error **error);

/**
 * The tokenizer of a model, which it outlives.
 */
int32_t clawdbot_model_tokenizer(const clawdbot_model *model, clawdbot_tokenizer **out, clawdbot_error **error);

/**
 * Token ids of a text: copied to `ids`, which has room for `capacity`, and their number to `count`. `ids` may be NULL
 * to learn the number, `count` may be NULL. `add_special_tokens`: not 0 for special tokens such as BOS.
 */
int32_t clawdbot_tokenizer_encode(const clawdbot_tokenizer *tokenizer,
                                  const char *text,
                                  size_t length,
                                  int32_t add_special_tokens,
                                  uint32_t *ids,
                                  size_t capacity,
                                  size_t *count,
                                  clawdbot_error **error);

/**
 * The text of token ids. `skip_special_tokens`: not 0 to leave special tokens out.
 */
int32_t clawdbot_tokenizer_decode(const clawdbot_tokenizer *tokenizer,
                                  const uint32_t *ids,
                                  size_t count,
                                  int32_t skip_special_tokens,
                                  clawdbot_string **out,
                                  clawdbot_error **error);

/**
 * Number of tokens, added tokens included. 0 for NULL.
 */
size_t clawdbot_tokenizer_vocab_size(const clawdbot_tokenizer *tokenizer);

/**
 * Frees a tokenizer. NULL is allowed.
 */
void clawdbot_tokenizer_free(clawdbot_tokenizer *tokenizer);

/**
 * Compiles a constraint for the tokens of a tokenizer, which it outlives.
 *
 * `options_json`: a JSON object with exactly one of the options json_schema, json_object, regex, grammar and choices of
 * `clawdbot_model_generate_text`, such as {"regex": "[a-z]+"}. One that cannot be enforced exactly is
 * `CLAWDBOT_ERROR_INVALID_CONSTRAINT`, whose message names the place. Tables of the tokenizer's tokens are made with the
 * first constraint, about a second for 130,000 tokens, and are kept with the tokenizer's handle for the next ones.
 */
int32_t clawdbot_constraint_new(const clawdbot_tokenizer *tokenizer,
                                const char *options_json,
                                clawdbot_constraint **out,
                                clawdbot_error **error);

/**
 * Whether a text satisfies the constraint as a whole: 1 or 0 to `out`.
 */
int32_t clawdbot_constraint_accepts(const clawdbot_constraint *constraint,
                                    const char *text,
                                    size_t length,
                                    int32_t *out,
                                    clawdbot_error **error);

/**
 * Where the first token of a text that is forbidden begins, in characters (code points, not bytes), to `out`. -1 if all are
 * allowed: the text is accepted, or the beginning of one that is.
 */
int32_t clawdbot_constraint_forbidden_at(const clawdbot_constraint *constraint,
                                         const char *text,
                                         size_t length,
                                         int64_t *out,
                                         clawdbot_error **error);

/**
 * Frees a constraint. NULL is allowed.
 */
void clawdbot_constraint_free(clawdbot_constraint *constraint);

/**
 * A new conversation without tokens.
 */
int32_t clawdbot_session_new(const clawdbot_model *model, clawdbot_session **out, clawdbot_error **error);

/**
 * Adds text to the conversation; how many tokens that was goes to `count`, which may be NULL.
 *
 * `add_special_tokens`: not 0 for the tokenizer's special tokens, such as BOS; usually for the first text alone, and not
 * for rendered chat templates, which bring their own. A BOS that the text begins with is not doubled.
 */
int32_t clawdbot_session_append_text(clawdbot_session *session,
                                     const char *text,
                                     size_t length,
                                     int32_t add_special_tokens,
                                     size_t *count,
                                     clawdbot_error **error);

/**
 * Adds token ids to the conversation.
 */
int32_t clawdbot_session_append_tokens(clawdbot_session *session,
                                       const uint32_t *ids,
                                       size_t count,
                                       clawdbot_error **error);

/**
 * All tokens of the conversation, prompts and outputs: copied to `ids`, which has room for `capacity`, and their number
 * to `count`. `ids` may be NULL to learn the number, `count` may be NULL.
 */
int32_t clawdbot_session_tokens(clawdbot_session *session,
                                uint32_t *ids,
                                size_t capacity,
                                size_t *count,
                                clawdbot_error **error);

/**
 * A conversation of its own that begins as this one is, to be freed with `clawdbot_session_free`. What is cached is shared,
 * and copied page by page where one of the two goes on.
 */
int32_t clawdbot_session_fork(clawdbot_session *session,
                              clawdbot_session **out,
                              clawdbot_error **error);

/**
 * Writes the conversation to the file `path`, with all that is cached of it. The file appears when it is complete, and
 * replaces an earlier one; on Unix, only its owner may read it. The first call for a model reads all its weights, to know what
 * the file belongs to.
 *
 * `size`: receives the size of the file in bytes; may be NULL.
 */
int32_t clawdbot_session_save(clawdbot_session *session,
                              const char *path,
                              uint64_t *size,
                              clawdbot_error **error);

/**
 * A session from a file that `clawdbot_session_save` has written, to be freed with `clawdbot_session_free`. Nothing is computed,
 * and all that follows has the bits that it would have had. A file of another model, weight type, type of the KV cache or
 * version of the library, and one that was changed, is `CLAWDBOT_ERROR_INVALID_ARGUMENT`. An adapter that the session used has to
 * be loaded, under any name.
 */
int32_t clawdbot_model_restore_session(const clawdbot_model *model,
                                       const char *path,
                                       clawdbot_session **out,
                                       clawdbot_error **error);

/**
 * Forgets all but the first `length` tokens.
 */
int32_t clawdbot_session_truncate(clawdbot_session *session, size_t length, clawdbot_error **error);

/**
 * Generates a continuation, which becomes part of the conversation.
 */
int32_t clawdbot_session_generate(clawdbot_session *session,
                                  const clawdbot_options *options,
                                  clawdbot_completion **out,
                                  clawdbot_error **error);

/**
 * Generates a continuation event by event. Until the stream has ended or is freed, the session takes no other work.
 */
int32_t clawdbot_session_stream(clawdbot_session *session,
                                const clawdbot_options *options,
                                clawdbot_stream **out,
                                clawdbot_error **error);

/**
 * Frees a session, and its part of the cache unless a stream still uses it. NULL is allowed.
 */
void clawdbot_session_free(clawdbot_session *session);

/**
 * Renders a conversation with the model's chat template, after checking it.
 *
 * `messages` is a JSON array of {"role", "content", ...}: roles are system, developer, user, assistant, tool, and what the
 * template names as well. `tools` is a JSON array of functions, or NULL; tools that the template does not use are an error.
 * `variables` is a JSON object of further variables for the template, or NULL. `add_generation_prompt`: not 0 to end with
 * what opens the assistant's answer. When the text goes to the model, a BOS that the template has written is not doubled.
 */
int32_t clawdbot_model_render_chat(const clawdbot_model *model,
                                   const char *messages,
                                   const char *tools,
                                   int32_t add_generation_prompt,
                                   const char *variables,
                                   clawdbot_string **out,
                                   clawdbot_error **error);

/**
 * Generates the next message of a conversation. Arguments as of `clawdbot_model_render_chat`; `options` as of
 * `clawdbot_model_generate_text`. The template brings its special tokens, unless `add_special_tokens` is set.
 */
int32_t clawdbot_model_chat(const clawdbot_model *model,
                            const char *messages,
                            const char *tools,
                            const char *variables,
                            const clawdbot_options *options,
                            clawdbot_completion **out,
                            clawdbot_error **error);

/**
 * As `clawdbot_model_chat`, event by event.
 */
int32_t clawdbot_model_chat_stream(const clawdbot_model *model,
                                   const char *messages,
                                   const char *tools,
                                   const char *variables,
                                   const clawdbot_options *options,
                                   clawdbot_stream **out,
                                   clawdbot_error **error);

/**
 * Generates the next message of a conversation. The session may have computed a part of it already: its tokens become those of
 * the rendered conversation, and only what comes after the first difference is computed. `messages` has the whole
 * conversation each time; the answer is the one that `clawdbot_model_chat` gives.
 */
int32_t clawdbot_session_chat(clawdbot_session *session,
                              const char *messages,
                              const char *tools,
                              const char *variables,
                              const clawdbot_options *options,
                              clawdbot_completion **out,
                              clawdbot_error **error);

/**
 * As `clawdbot_session_chat`, event by event. Until the stream has ended or is freed, the session takes no other work.
 */
int32_t clawdbot_session_chat_stream(clawdbot_session *session,
                                     const char *messages,
                                     const char *tools,
                                     const char *variables,
                                     const clawdbot_options *options,
                                     clawdbot_stream **out,
                                     clawdbot_error **error);

/**
 * Computes up to the next event and gives it to `out`, to be freed; NULL to `out` after the last event.
 */
int32_t clawdbot_stream_next(clawdbot_stream *stream, clawdbot_event **out, clawdbot_error **error);

/**
 * Gives the next event to `out`, to be freed, if there is one, without waiting; else NULL. `ended`, which may be NULL, gets 1
 * after the last event, otherwise 0. `CLAWDBOT_ERROR_INVALID_ARGUMENT` unless the runtime's option `driver` is `thread`, as
 * nobody computes otherwise.
 */
int32_t clawdbot_stream_try_next(clawdbot_stream *stream,
                                 clawdbot_event **out,
                                 int32_t *ended,
                                 clawdbot_error **error);

/**
 * Lets `callback`, in place of an earlier one, be called whenever `clawdbot_stream_try_next` has something new to give, the end
 * included; at once, on this thread, if it has already; otherwise on the thread that computes, or on one that is inside a call for the same model. NULL takes the earlier one
 * away. When this, or `clawdbot_stream_free`, has returned, the earlier one is not called any more. The option `driver` must be
 * `thread`, as for `clawdbot_stream_try_next`.
 */
int32_t clawdbot_stream_on_event(clawdbot_stream *stream,
                                 clawdbot_ready_callback callback,
                                 void *user_data,
                                 clawdbot_error **error);

/**
 * Computes to the end. `callback` may be NULL, and gets every event. `out` may be NULL, and gets the completion, also
 * that of a request which was cancelled. `CLAWDBOT_ERROR_CLOSED` when the last event was taken before.
 *
 * The callback may use any handle but this stream and its session.
 */
int32_t clawdbot_stream_run(clawdbot_stream *stream,
                            clawdbot_event_callback callback,
                            void *user_data,
                            clawdbot_completion **out,
                            clawdbot_error **error);

/**
 * Asks the request to stop; it ends with `CLAWDBOT_FINISH_CANCELLED`. Takes effect within a layer of the model,
 * also while the prompt is computed. May be called from any thread and from a signal handler, while another thread is
 * inside `clawdbot_stream_next` or `clawdbot_stream_run`; not after, or while, the stream is freed. NULL is allowed.
 */
void clawdbot_stream_cancel(const clawdbot_stream *stream);

/**
 * Frees a stream; a request that has not ended is cancelled. NULL is allowed.
 */
void clawdbot_stream_free(clawdbot_stream *stream);

/**
 * The event's kind, one of `CLAWDBOT_EVENT_*`. Kinds may be added: let a program pass over those it does not know.
 * 0 for NULL.
 */
int32_t clawdbot_event_kind(const clawdbot_event *event);

/**
 * Of a progress event: tokens of the prompt that are computed, and all of them.
 */
int32_t clawdbot_event_progress(const clawdbot_event *event, uint64_t *done, uint64_t *total, clawdbot_error **error);

/**
 * Of a token event: the token's id. `id` must not be NULL.
 */
int32_t clawdbot_event_token_id(const clawdbot_event *event, uint32_t *id, clawdbot_error **error);

/**
 * Of a token event: the text that became certain with it, whole characters only, with a NUL after it; its length goes
 * to `length`, which may be NULL. Empty while a character or a possible stop text is open. Of a reasoning event: its text. Valid
 * until the event is freed, or the callback that was given it returns. NULL for other events and for NULL.
 */
const char *clawdbot_event_text(const clawdbot_event *event,
                                size_t *length);

/**
 * Of a tool call event: the call as a JSON object, with index, id, name and arguments (a JSON object as text); its length goes to
 * `length`, which may be NULL. Valid as the text of an event is. NULL for other events and for NULL.
 */
const char *clawdbot_event_tool_call(const clawdbot_event *event,
                                     size_t *length);

/**
 * Of a tool call delta event: what became certain of a call as a JSON object, with index, id and name (null but in the first delta
 * of a call) and arguments (the text that is new); its length goes to `length`, which may be NULL. The arguments of a call's deltas,
 * one after the other, are those of its tool call event, which comes after them; if none with their index comes, it was no call
 * that can be read. Valid as the text of an event is. NULL for other events and for NULL.
 */
const char *clawdbot_event_tool_call_delta(const clawdbot_event *event,
                                           size_t *length);

/**
 * Of a token event: log-probabilities, as `clawdbot_completion_logprobs` gives them.
 */
int32_t clawdbot_event_logprobs(const clawdbot_event *event,
                                clawdbot_logprob *chosen,
                                const clawdbot_logprob **top,
                                size_t *count,
                                clawdbot_error **error);

/**
 * Of the last event: the completion, which belongs to the event. NULL for other events and for NULL.
 */
const clawdbot_completion *clawdbot_event_completion(const clawdbot_event *event);

/**
 * Frees an event that `clawdbot_stream_next` gave. NULL is allowed.
 */
void clawdbot_event_free(clawdbot_event *event);

/**
 * The generated text in UTF-8, with a NUL after it; its length goes to `length`, which may be NULL. Valid until the
 * completion is freed. NULL for NULL.
 */
const char *clawdbot_completion_text(const clawdbot_completion *completion, size_t *length);

/**
 * The reasoning before the answer, as `clawdbot_completion_text` gives the text; empty if there is none.
 */
const char *clawdbot_completion_reasoning(const clawdbot_completion *completion, size_t *length);

/**
 * The functions that the model asks to be called: a JSON array of objects with index, id, name and arguments (a JSON object as
 * text), as `clawdbot_completion_text` gives the text; `[]` if there are none.
 */
const char *clawdbot_completion_tool_calls(const clawdbot_completion *completion,
                                           size_t *length);

/**
 * The generated tokens, a stop token included; their number goes to `count`, which may be NULL. Valid until the
 * completion is freed. NULL for NULL.
 */
const uint32_t *clawdbot_completion_token_ids(const clawdbot_completion *completion, size_t *count);

/**
 * Why the request ended, to `reason`: one of `CLAWDBOT_FINISH_*`.
 */
int32_t clawdbot_completion_finish_reason(const clawdbot_completion *completion,
                                          int32_t *reason,
                                          clawdbot_error **error);

/**
 * Tokens and seconds, to `usage`, whose `struct_size` must be set.
 */
int32_t clawdbot_completion_usage(const clawdbot_completion *completion, clawdbot_usage *usage, clawdbot_error **error);

/**
 * Log-probabilities of the generated token number `index`: its own to `chosen`; an array of the most likely ones, most
 * likely first, to `top`, and its length to `count`. Each of the three may be NULL. The array is valid until the
 * completion is freed. `CLAWDBOT_ERROR_INVALID_ARGUMENT` unless the option `logprobs` was set.
 */
int32_t clawdbot_completion_logprobs(const clawdbot_completion *completion,
                                     size_t index,
                                     clawdbot_logprob *chosen,
                                     const clawdbot_logprob **top,
                                     size_t *count,
                                     clawdbot_error **error);

/**
 * As `clawdbot_completion_logprobs`, of the token of the prompt number `index` + 1: nothing says how likely the first one is.
 * `CLAWDBOT_ERROR_INVALID_ARGUMENT` unless the option `prompt_logprobs` was set.
 */
int32_t clawdbot_completion_prompt_logprobs(const clawdbot_completion *completion,
                                            size_t index,
                                            clawdbot_logprob *chosen,
                                            const clawdbot_logprob **top,
                                            size_t *count,
                                            clawdbot_error **error);

/**
 * All of it as a JSON object: text, reasoning, tool_calls, warnings, token_ids, finish_reason, usage, logprobs, prompt_logprobs, and
 * the options that were in force.
 */
int32_t clawdbot_completion_json(const clawdbot_completion *completion,
                                 clawdbot_string **out,
                                 clawdbot_error **error);

/**
 * Frees a completion. NULL is allowed.
 */
void clawdbot_completion_free(clawdbot_completion *completion);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CLAWDBOT_H */
