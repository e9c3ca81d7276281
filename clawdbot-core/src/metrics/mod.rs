//! Counts and times of requests, inside the process. Each runtime has its own; nothing is global.

mod energy;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use serde::Serialize;

pub(crate) use energy::Parts;
use energy::{Energy, POWERCAP};

/// Upper ends of the intervals of a [`Histogram`], in seconds. Above the last one there is one more interval.
pub const BOUNDS: [f64; 16] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// Most drafts of a sequence in a pass.
pub const MAX_DRAFTS: usize = 15;

/// How often times fell into intervals.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct Histogram {
    /// Times of at most `BOUNDS[i]` seconds, and more than the bound before; the last one: more than all bounds.
    pub counts: [u64; BOUNDS.len() + 1],
    /// Number of times.
    pub count: u64,
    /// Their sum in seconds.
    pub sum: f64,
}

impl Histogram {
    fn add(&mut self, seconds: f64) {
        self.counts[BOUNDS.partition_point(|&bound| bound < seconds)] += 1;
        self.count += 1;
        self.sum += seconds;
    }

    /// The least bound that a share `share` of the times is not above; `None` without times, or above the last bound.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut sum = 0;
        let found = self.counts.iter().position(|count| {
            sum += count;
            sum >= wanted
        });
        BOUNDS.get(found?).copied().filter(|_| self.count > 0)
    }
}

/// How requests have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Outcomes {
    /// By a stop token or a stop text.
    pub stop: u64,
    /// By a limit of tokens.
    pub length: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// By their deadlines.
    pub deadline: u64,
    /// With an error.
    pub failed: u64,
    /// Not begun: as many waited as may (`max_queue`).
    pub refused: u64,
}

/// What a model has done since it was loaded, and what it does now.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct ModelMetrics {
    /// Name of the model.
    pub model: String,
    /// Its number among the models and instances that the runtime has loaded, from 1: also that of its `ModelInfo`.
    pub id: u64,
    /// The name under which a pool has loaded it.
    pub pool_name: Option<String>,
    /// How requests have ended.
    pub requests: Outcomes,
    /// Requests that have begun and not ended, now (see [`Runtime::metrics`](crate::Runtime::metrics)).
    pub running: u64,
    /// Requests that have not begun, now.
    pub waiting: u64,
    /// Tokens of the prompts of requests that have ended.
    pub prompt_tokens: u64,
    /// Those of them that were cached already.
    pub cached_tokens: u64,
    /// Tokens that were generated.
    pub generated_tokens: u64,
    /// Tokens that were guessed and then computed (`speculation`).
    pub draft_tokens: u64,
    /// Those of them that were right.
    pub accepted_tokens: u64,
    /// `draft_tokens` by their places behind a sequence's last token.
    pub drafts_by_position: [u64; MAX_DRAFTS],
    /// `accepted_tokens` by their places behind a sequence's last token.
    pub accepted_by_position: [u64; MAX_DRAFTS],
    /// Forward passes.
    pub passes: u64,
    /// Tokens of all passes together, drafts included.
    pub computed_tokens: u64,
    /// How often a running request lost its pages, which it then read back or computed again.
    pub preemptions: u64,
    /// Bytes of keys, values and states in the swap space, now.
    pub swapped_bytes: u64,
    /// How often pages of a sequence were written to the swap space.
    pub swap_outs: u64,
    /// How often they were read back.
    pub swap_ins: u64,
    /// Pages of the prefix cache that were written to the swap space.
    pub prefix_swap_outs: u64,
    /// Those that were read back.
    pub prefix_swap_ins: u64,
    /// How often writing or reading failed, or what was read was not what was written: its tokens were computed again.
    pub swap_failures: u64,
    /// Bytes of keys, values and states, in use or in reserve, and of the entries of the prefix cache, now.
    pub kv_bytes: u64,
    /// Bytes among them that the prefix cache keeps, its entries included; requests may use some of these pages, too.
    pub prefix_cache_bytes: u64,
    /// Joules that the processors and their memories took while passes computed prompts, other processes included; a pass with
    /// tokens of both kinds is divided. `None` where the system does not tell (`docs/requests.md`).
    pub prefill_joules: Option<f64>,
    /// Joules while passes computed further tokens.
    pub decode_joules: Option<f64>,
    /// Seconds before a request's first pass.
    pub queue_seconds: Histogram,
    /// Seconds from a request's first pass to its first token.
    pub prefill_seconds: Histogram,
    /// Seconds from a request to its first token.
    pub time_to_first_token_seconds: Histogram,
    /// Seconds from one token to the next.
    pub inter_token_seconds: Histogram,
    /// Seconds from a request's first token to its end.
    pub decode_seconds: Histogram,
    /// Seconds from a request to its end.
    pub request_seconds: Histogram,
}

/// What a runtime's models have done, and what they do now.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// Bytes reserved in the memory budget.
    pub memory_used: u64,
    /// The memory budget in bytes, if there is one.
    pub memory_budget: Option<u64>,
    /// Bytes of the swap space that its models use.
    pub swap_used: u64,
    /// Upper ends of the intervals of histograms, in seconds.
    pub histogram_bounds: [f64; BOUNDS.len()],
    /// Those that are loaded, in the order in which they were.
    pub models: Vec<ModelMetrics>,
}

/// Where a model counts. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter {
    model: Arc<Mutex<ModelMetrics>>,
    energy: Option<Arc<Energy>>,
}

/// Times of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) queue: f64,
    pub(crate) prefill: f64,
    pub(crate) decode: f64,
}

impl Meter {
    /// Changes what is counted.
    pub(crate) fn count(&self, change: impl FnOnce(&mut ModelMetrics)) {
        change(&mut self.model.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The number of its model; 0 for one that is not listed.
    pub(crate) fn id(&self) -> u64 {
        self.model.lock().unwrap_or_else(PoisonError::into_inner).id
    }

    /// A pass begins.
    pub(crate) fn begin_pass(&self, now: Instant) {
        self.energy.iter().for_each(|energy| energy.begin(now));
    }

    /// A pass has ended, which took so many seconds.
    pub(crate) fn end_pass(&self, seconds: Parts, now: Instant) {
        self.energy.iter().for_each(|energy| energy.end(&self.model, seconds, now));
    }

    /// A token was generated, so many seconds after the one before it; after the request, if it was its first.
    pub(crate) fn token(&self, first: bool, seconds: f64) {
        self.count(|metrics| {
            metrics.generated_tokens += 1;
            match first {
                true => metrics.time_to_first_token_seconds.add(seconds),
                false => metrics.inter_token_seconds.add(seconds),
            }
        });
    }

    /// A request that has computed something has ended.
    pub(crate) fn times(&self, times: Times) {
        self.count(|metrics| {
            metrics.queue_seconds.add(times.queue);
            metrics.prefill_seconds.add(times.prefill);
            metrics.decode_seconds.add(times.decode);
            metrics.request_seconds.add(times.queue + times.prefill + times.decode);
        });
    }
}

/// The meters of a runtime's models.
#[derive(Debug)]
pub(crate) struct Meters {
    models: Mutex<Vec<Weak<Mutex<ModelMetrics>>>>,
    /// How many there were.
    count: AtomicU64,
    energy: Option<Arc<Energy>>,
}

impl Meters {
    /// Without models.
    pub(crate) fn new() -> Self {
        Self::with_energy(Energy::open(Path::new(POWERCAP)))
    }

    fn with_energy(energy: Option<Energy>) -> Self {
        Meters { models: Mutex::default(), count: AtomicU64::new(0), energy: energy.map(Arc::new) }
    }

    /// A meter for a model of that name, which is listed as long as the model is there.
    pub(crate) fn add(&self, model: &str) -> Meter {
        let meter = Meter { energy: self.energy.clone(), ..Meter::default() };
        let mut all = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that they are listed by their numbers.
        let id = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        meter.count(|metrics| (metrics.model, metrics.id) = (model.to_owned(), id));
        all.retain(|meter| meter.strong_count() > 0);
        all.push(Arc::downgrade(&meter.model));
        meter
    }

    /// What all of them have counted.
    pub(crate) fn read(&self) -> Vec<ModelMetrics> {
        let energy = self.energy.as_ref().filter(|energy| energy.settle(Instant::now()));
        let all = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let there = all.iter().filter_map(Weak::upgrade);
        let joules = |joules: Option<f64>| energy.map(|_| joules.unwrap_or(0.0));
        let read = |meter: Arc<Mutex<ModelMetrics>>| {
            let mut metrics = meter.lock().unwrap_or_else(PoisonError::into_inner).clone();
            metrics.prefill_joules = joules(metrics.prefill_joules);
            metrics.decode_joules = joules(metrics.decode_joules);
            metrics
        };
        there.map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_intervals() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for seconds in [0.0, 0.001, 0.0011, 0.3, 0.5, 99.0, 1e9] {
            histogram.add(seconds);
        }
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[8]), (2, 1, 2));
        assert_eq!((histogram.counts[15], histogram.counts[16], histogram.count), (1, 1, 7));
        let quantiles = [0.0, 0.3, 0.5, 0.8, 1.0].map(|share| histogram.quantile(share));
        assert_eq!(quantiles, [Some(0.001), Some(0.002), Some(0.5), Some(100.0), None]);
    }

    #[test]
    fn models_are_listed_while_they_are_there() {
        let meters = Meters::with_energy(None);
        let (a, b) = (meters.add("a"), meters.add("b"));
        a.token(true, 0.25);
        a.clone().token(false, 0.01);
        b.count(|metrics| metrics.requests.failed += 1);
        let read = meters.read();
        assert_eq!(read.iter().map(|model| model.model.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((read[0].generated_tokens, read[0].inter_token_seconds.count), (2, 1));
        drop(a);
        // Numbers are not given again.
        let _c = meters.add("b");
        assert_eq!(meters.read().iter().map(|model| model.id).collect::<Vec<_>>(), [2, 3]);
    }
}
