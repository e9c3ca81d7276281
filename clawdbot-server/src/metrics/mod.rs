//! `GET /metrics`: what the core counts, in the text format of OpenMetrics, which Prometheus reads.

mod families;
mod vllm;

use std::fmt;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use clawdbot_core::{ErrorKind, HISTOGRAM_BOUNDS, Metrics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::app::App;
use crate::counters::Counters;
use crate::fault::Fault;
use crate::settings::MetricsDialect;
use families::{Count, Family};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
        Ok(())
    }
}

/// Names of labels.
#[derive(Debug, Clone, Copy)]
struct Labels {
    model: &'static str,
    instance: &'static str,
    outcome: &'static str,
}

/// What is told of models, under one set of names.
#[derive(Debug, Clone, Copy)]
struct Dialect {
    families: &'static [Family],
    labels: Labels,
}

const OWN: Dialect = Dialect {
    families: families::FAMILIES,
    labels: Labels { model: "model", instance: "instance", outcome: "outcome" },
};
const VLLM: Dialect = Dialect {
    families: vllm::FAMILIES,
    labels: Labels { model: "model_name", instance: "engine", outcome: "finished_reason" },
};

/// The numbers of models in a dialect.
#[derive(Debug)]
struct OfModels {
    core: Metrics,
    dialect: Dialect,
}

impl Collector for OfModels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, count } in self.dialect.families {
            let kind = match count {
                Count::Counter(_) | Count::Outcomes(_) => MetricType::Counter,
                Count::Gauge(_) | Count::Share(_) => MetricType::Gauge,
                Count::Times(_) => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for model in &self.core.models {
                let name = model.pool_name.as_ref().unwrap_or(&model.model);
                let of = self.dialect.labels;
                // The number tells instances from each other.
                let labels = [(of.model, name.clone()), (of.instance, model.id.to_string())];
                match count {
                    Count::Counter(of) => {
                        let mut line = metric.encode_family(&labels)?;
                        line.encode_counter::<NoLabelSet, f64, f64>(&of(model), None)?;
                    }
                    Count::Gauge(of) => metric.encode_family(&labels)?.encode_gauge(&of(model))?,
                    Count::Share(of) => {
                        if let Some(share) = of(&self.core, model) {
                            metric.encode_family(&labels)?.encode_gauge(&share)?;
                        }
                    }
                    Count::Times(of) => {
                        let times = of(model);
                        let bounds = HISTOGRAM_BOUNDS.into_iter().chain([f64::INFINITY]);
                        let buckets: Vec<(f64, u64)> = bounds.zip(times.counts).collect();
                        let mut line = metric.encode_family(&labels)?;
                        line.encode_histogram::<NoLabelSet>(times.sum, times.count, &buckets, None)?;
                    }
                    Count::Outcomes(outcomes) => {
                        for (outcome, count) in *outcomes {
                            let [name, instance] = labels.clone();
                            let labels = [name, instance, (of.outcome, (*outcome).to_owned())];
                            let mut line = metric.encode_family(&labels)?;
                            line.encode_counter::<NoLabelSet, u64, f64>(&count(&model.requests), None)?;
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
    let mut registry = Registry::default();
    let (core, dialect) = (app.pool().runtime().metrics(), app.settings().metrics_dialect);
    let own = registry.sub_registry_with_prefix("clawdbot");
    own.register_collector(Box::new(OfModels { core: core.clone(), dialect: OWN }));
    own.register_collector(Box::new(Now { core: core.clone(), app }));
    if dialect == Some(MetricsDialect::Vllm) {
        registry.register_collector(Box::new(OfModels { core, dialect: VLLM }));
    }
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|error| clawdbot_core::Error::new(ErrorKind::Internal, format!("metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
