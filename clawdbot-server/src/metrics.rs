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
use crate::counters::Counters;
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

/// What the server itself counts.
struct OfServer {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// It is left out if there is none.
    value: fn(&Counters) -> Option<u64>,
}

const fn of_server(
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    value: fn(&Counters) -> Option<u64>,
) -> OfServer {
    OfServer { name, help, kind, value }
}

/// All that the server itself counts.
const OF_SERVER: &[OfServer] = &[
    of_server("connections", "Connections that were accepted", MetricType::Counter, |c| {
        Some(c.connections.get())
    }),
    of_server("connections_open", "Those that are open", MetricType::Gauge, |c| {
        Some(c.connections_open.get())
    }),
    of_server(
        "tls_handshakes_failed",
        "Connections that were closed without a TLS handshake",
        MetricType::Counter,
        |c| Some(c.tls_handshakes_failed.get()),
    ),
    of_server("access_log_lost", "Requests that the access log could not take", MetricType::Counter, |c| {
        Some(c.access_log_lost.get())
    }),
    of_server("tls_reloads", "How often certificates were read again", MetricType::Counter, |c| {
        Some(c.tls_reloads.get())
    }),
    of_server(
        "tls_reloads_failed",
        "How often they could not be used, and the old ones stayed",
        MetricType::Counter,
        |c| Some(c.tls_reloads_failed.get()),
    ),
    of_server(
        "tls_certificate_expires_seconds",
        "When the certificate ends, in seconds since 1970",
        MetricType::Gauge,
        |c| Some(c.tls_certificate_expires.get()).filter(|seconds| *seconds > 0),
    ),
];

/// The numbers of the core and the server, as they are when they are asked for.
#[derive(Debug)]
struct Now {
    core: Metrics,
    app: App,
}

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
        used?.encode_gauge(&(self.core.memory_used as f64))?;
        if let Some(budget) = self.core.memory_budget {
            let of = encoder.encode_descriptor(
                "memory_budget_bytes",
                "The memory budget",
                None,
                MetricType::Gauge,
            );
            of?.encode_gauge(&(budget as f64))?;
        }
        for OfServer { name, help, kind, value } in OF_SERVER {
            let Some(value) = value(self.app.counters()) else { continue };
            let mut line = encoder.encode_descriptor(name, help, None, *kind)?;
            match kind {
                MetricType::Counter => line.encode_counter::<NoLabelSet, u64, f64>(&value, None)?,
                _ => line.encode_gauge(&(value as f64))?,
            }
        }
        for Family { name, help, count } in FAMILIES {
            let kind = match count {
                Count::Counter(_) | Count::Outcomes => MetricType::Counter,
                Count::Gauge(_) => MetricType::Gauge,
                Count::Times(_) => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for model in &self.core.models {
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
    registry.register_collector(Box::new(Now { core: app.pool().runtime().metrics(), app }));
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|error| clawdbot_core::Error::new(ErrorKind::Internal, format!("metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
