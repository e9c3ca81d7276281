//! `GET /metrics`: what the core counts, in the text format of OpenMetrics, which Prometheus reads.

use std::fmt;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use clawdbot_core::{ErrorKind, HISTOGRAM_BOUNDS, Histogram, Metrics, ModelMetrics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::app::App;
use crate::fault::Fault;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a model counts.
enum Count {
    /// It only grows.
    Counter(fn(&ModelMetrics) -> f64),
    /// As it is now.
    Gauge(fn(&ModelMetrics) -> f64),
    /// Times.
    Times(fn(&ModelMetrics) -> Histogram),
    /// Requests by how they ended.
    Outcomes,
}

/// A family of metrics, with a line for each model.
struct Family {
    name: &'static str,
    help: &'static str,
    count: Count,
}

const fn family(name: &'static str, help: &'static str, count: Count) -> Family {
    Family { name, help, count }
}

/// All families.
const FAMILIES: &[Family] = &[
    family("requests", "Requests that have ended, by outcome", Count::Outcomes),
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

/// The core's numbers, as they are when they are asked for.
#[derive(Debug)]
struct Now(Metrics);

/// The names of a model: for clients, and the number that tells instances from each other.
fn labels(model: &ModelMetrics) -> [(&'static str, String); 2] {
    let name = model.pool_name.as_ref().unwrap_or(&model.model);
    [("model", name.clone()), ("instance", model.id.to_string())]
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let used = encoder.encode_descriptor(
            "memory_used_bytes",
            "Bytes reserved in the budget",
            None,
            MetricType::Gauge,
        );
        used?.encode_gauge(&(self.0.memory_used as f64))?;
        if let Some(budget) = self.0.memory_budget {
            let of = encoder.encode_descriptor(
                "memory_budget_bytes",
                "The memory budget",
                None,
                MetricType::Gauge,
            );
            of?.encode_gauge(&(budget as f64))?;
        }
        for Family { name, help, count } in FAMILIES {
            let kind = match count {
                Count::Counter(_) | Count::Outcomes => MetricType::Counter,
                Count::Gauge(_) => MetricType::Gauge,
                Count::Times(_) => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for model in &self.0.models {
                let labels = labels(model);
                match count {
                    Count::Counter(of) => {
                        let mut line = metric.encode_family(&labels)?;
                        line.encode_counter::<NoLabelSet, f64, f64>(&of(model), None)?;
                    }
                    Count::Gauge(of) => metric.encode_family(&labels)?.encode_gauge(&of(model))?,
                    Count::Times(of) => {
                        let times = of(model);
                        let bounds = HISTOGRAM_BOUNDS.into_iter().chain([f64::INFINITY]);
                        let buckets: Vec<(f64, u64)> = bounds.zip(times.counts).collect();
                        let mut line = metric.encode_family(&labels)?;
                        line.encode_histogram::<NoLabelSet>(times.sum, times.count, &buckets, None)?;
                    }
                    Count::Outcomes => {
                        let ended = &model.requests;
                        for (outcome, count) in [
                            ("stop", ended.stop),
                            ("length", ended.length),
                            ("cancelled", ended.cancelled),
                            ("deadline", ended.deadline),
                            ("failed", ended.failed),
                            ("refused", ended.refused),
                        ] {
                            let [name, instance] = labels.clone();
                            let labels = [name, instance, ("outcome", outcome.to_owned())];
                            let mut line = metric.encode_family(&labels)?;
                            line.encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// `GET /metrics`
pub(crate) async fn metrics(State(app): State<App>) -> Result<Response, Fault> {
    let mut registry = Registry::with_prefix("clawdbot");
    registry.register_collector(Box::new(Now(app.pool().runtime().metrics())));
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|error| clawdbot_core::Error::new(ErrorKind::Internal, format!("metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
