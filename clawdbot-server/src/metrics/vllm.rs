//! The same numbers under vLLM's names, for dashboards and gateways that were made for it
//! (<https://docs.vllm.ai/en/latest/design/metrics>).

use clawdbot_core::{Metrics, ModelMetrics};

use super::families::{Count, Family, Outcome, family};

/// How requests end, in vLLM's words.
const REASONS: &[Outcome] = &[
    ("stop", |ended| ended.stop),
    ("length", |ended| ended.length + ended.deadline),
    ("abort", |ended| ended.cancelled),
    ("error", |ended| ended.failed),
];

/// All families.
pub(super) const FAMILIES: &[Family] = &[
    family("vllm:num_requests_running", "Requests that have begun", Count::Gauge(|m| m.running as f64)),
    family("vllm:num_requests_waiting", "Requests that have not begun", Count::Gauge(|m| m.waiting as f64)),
    family(
        "vllm:kv_cache_usage_perc",
        "Share of the KV cache that is in use, 0 to 1",
        Count::Share(kv_usage),
    ),
    family("vllm:prefix_cache_queries", "Tokens of prompts", Count::Counter(|m| m.prompt_tokens as f64)),
    family("vllm:prefix_cache_hits", "Those that were cached", Count::Counter(|m| m.cached_tokens as f64)),
    family("vllm:prompt_tokens", "Tokens of prompts", Count::Counter(|m| m.prompt_tokens as f64)),
    family(
        "vllm:generation_tokens",
        "Tokens that were generated",
        Count::Counter(|m| m.generated_tokens as f64),
    ),
    family("vllm:num_preemptions", "Preemptions", Count::Counter(|m| m.preemptions as f64)),
    family("vllm:request_success", "Requests that have ended, by reason", Count::Outcomes(REASONS)),
    family(
        "vllm:time_to_first_token_seconds",
        "From a request to its first token",
        Count::Times(|m| m.time_to_first_token_seconds),
    ),
    family(
        "vllm:inter_token_latency_seconds",
        "From one token to the next",
        Count::Times(|m| m.inter_token_seconds),
    ),
    family(
        "vllm:e2e_request_latency_seconds",
        "From a request to its end",
        Count::Times(|m| m.request_seconds),
    ),
    family(
        "vllm:request_queue_time_seconds",
        "Before a request's first pass",
        Count::Times(|m| m.queue_seconds),
    ),
    family(
        "vllm:request_prefill_time_seconds",
        "From the first pass to the first token",
        Count::Times(|m| m.prefill_seconds),
    ),
    family(
        "vllm:request_decode_time_seconds",
        "From the first token to the end",
        Count::Times(|m| m.decode_seconds),
    ),
];

/// What requests hold of what they could: what the prefix cache keeps is given to them when they need it.
fn kv_usage(all: &Metrics, model: &ModelMetrics) -> Option<f64> {
    let free = all.memory_budget?.saturating_sub(all.memory_used);
    let most = model.kv_bytes + free;
    let used = model.kv_bytes.saturating_sub(model.prefix_cache_bytes);
    (most > 0).then(|| used as f64 / most as f64)
}
