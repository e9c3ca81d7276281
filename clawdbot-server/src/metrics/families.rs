//! What is told of models, under clawdbot's own names.

use clawdbot_core::{Histogram, Metrics, ModelMetrics, Outcomes};

/// A way in which requests end, with how many did.
pub(super) type Outcome = (&'static str, fn(&Outcomes) -> u64);

/// What a model counts.
#[derive(Debug)]
pub(super) enum Count {
    /// It only grows.
    Counter(fn(&ModelMetrics) -> f64),
    /// As it is now.
    Gauge(fn(&ModelMetrics) -> f64),
    /// Times.
    Times(fn(&ModelMetrics) -> Histogram),
    /// As it is now, of what it could be; left out if nobody knows that.
    Share(fn(&Metrics, &ModelMetrics) -> Option<f64>),
    /// Requests by how they ended.
    Outcomes(&'static [Outcome]),
}

/// A family of metrics, with a line for each model.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) count: Count,
}

pub(super) const fn family(name: &'static str, help: &'static str, count: Count) -> Family {
    Family { name, help, count }
}

/// How requests end.
const OUTCOMES: &[Outcome] = &[
    ("stop", |ended| ended.stop),
    ("length", |ended| ended.length),
    ("cancelled", |ended| ended.cancelled),
    ("deadline", |ended| ended.deadline),
    ("failed", |ended| ended.failed),
    ("refused", |ended| ended.refused),
];

/// All families.
pub(super) const FAMILIES: &[Family] = &[
    family("requests", "Requests that have ended, by outcome", Count::Outcomes(OUTCOMES)),
    family("requests_running", "Requests that have begun and not ended", Count::Gauge(|m| m.running as f64)),
    family("requests_waiting", "Requests that have not begun", Count::Gauge(|m| m.waiting as f64)),
    family(
        "prompt_tokens",
        "Tokens of the prompts of requests that have ended",
        Count::Counter(|m| m.prompt_tokens as f64),
    ),
    family("cached_tokens", "Prompt tokens that were cached", Count::Counter(|m| m.cached_tokens as f64)),
    family("generated_tokens", "Tokens that were generated", Count::Counter(|m| m.generated_tokens as f64)),
    family("draft_tokens", "Tokens that were guessed", Count::Counter(|m| m.draft_tokens as f64)),
    family("accepted_tokens", "Guessed tokens that were right", Count::Counter(|m| m.accepted_tokens as f64)),
    family("passes", "Forward passes", Count::Counter(|m| m.passes as f64)),
    family("computed_tokens", "Tokens of all forward passes", Count::Counter(|m| m.computed_tokens as f64)),
    family(
        "preemptions",
        "How often a running request lost its pages",
        Count::Counter(|m| m.preemptions as f64),
    ),
    family(
        "swap_outs",
        "How often pages were written to the swap space",
        Count::Counter(|m| m.swap_outs as f64),
    ),
    family("swap_ins", "How often they were read back", Count::Counter(|m| m.swap_ins as f64)),
    family("swap_failures", "How often that failed", Count::Counter(|m| m.swap_failures as f64)),
    family("swapped_bytes", "Bytes of a model in the swap space", Count::Gauge(|m| m.swapped_bytes as f64)),
    family("kv_bytes", "Bytes of keys, values and states", Count::Gauge(|m| m.kv_bytes as f64)),
    family(
        "prefix_cache_bytes",
        "Those that the prefix cache keeps",
        Count::Gauge(|m| m.prefix_cache_bytes as f64),
    ),
    family("queue_seconds", "Before a request's first pass", Count::Times(|m| m.queue_seconds)),
    family("prefill_seconds", "From the first pass to the first token", Count::Times(|m| m.prefill_seconds)),
    family(
        "time_to_first_token_seconds",
        "From a request to its first token",
        Count::Times(|m| m.time_to_first_token_seconds),
    ),
    family("inter_token_seconds", "From one token to the next", Count::Times(|m| m.inter_token_seconds)),
    family("decode_seconds", "From the first token to the end", Count::Times(|m| m.decode_seconds)),
    family("request_seconds", "From a request to its end", Count::Times(|m| m.request_seconds)),
];
