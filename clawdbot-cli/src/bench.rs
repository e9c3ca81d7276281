//! `clawdbot bench`

use std::time::Instant;

use clawdbot_core::{
    AddSpecialTokens, Error, ErrorKind, Event, GenerateOptions, Limits, Model, Plan, Result, Session, Stream,
};
use serde_json::{Map, Value, json};

use crate::args::{BenchArgs, CommonArgs};
use crate::hub::source;
use crate::interrupt::Work;
use crate::load::load_on;
use crate::output::{Failure, Outcome, print, print_line};
use crate::progress::StatusLine;
use crate::report::{bytes, counted, peak_rss_bytes};

/// What every repeat measures, by its name in JSON.
const MEASURES: [&str; 3] = ["prefill_tokens_per_s", "decode_tokens_per_s", "time_to_first_token"];

/// The value of each of [`MEASURES`] in each repeat.
type Samples = [Vec<f64>; 3];

/// The measurements.
struct Outcomes {
    load_seconds: f64,
    samples: Samples,
    peak_rss_bytes: Option<u64>,
    /// One for each repeat, measured next to its decode; none with `--no-limits`.
    limits: Vec<Limits>,
}

pub(crate) fn run(args: &BenchArgs) -> Result<Outcome, Failure> {
    let CommonArgs { hub, load, runtime, output } = &args.common;
    let (runtime, options) = (runtime.runtime(output)?, load.options()?);
    let source = source(&runtime, args.model.as_ref(), args.shape.as_ref(), hub, output)?;
    check_context(args, &runtime.plan(&source, &options)?)?;
    check_batch(args, options.max_batch)?;
    let start = Instant::now();
    let model = load_on(&runtime, &source, &options, output)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let work = Work::begin();
    let mut line = StatusLine::new(output);
    let mut random = Random(0x5eed);
    let (mut samples, mut limits, mut peak_rss) = (Samples::default(), Vec::new(), None);
    for repeat in 1..=args.repeat {
        line.show(&format!("repeat {repeat} of {}", args.repeat));
        let prefill = measure_prefill(&model, args, &mut random, &work)?;
        let decode = measure_decode(&model, args, &mut random, &work)?;
        for (list, value) in samples.iter_mut().zip([prefill.tokens_per_second, decode, prefill.first_token])
        {
            list.push(value);
        }
        // The buffer of the first measurement of limits must not count.
        if repeat == 1 || args.no_limits {
            peak_rss = peak_rss_bytes();
        }
        if !args.no_limits {
            line.show(&format!("repeat {repeat} of {}: measuring the machine's limits", args.repeat));
            limits.push(runtime.measure_limits()?);
        }
    }
    drop(line);
    let outcomes = Outcomes { load_seconds, samples, peak_rss_bytes: peak_rss, limits };
    let plan = &model.info().plan;
    if output.json {
        print_line(&report_json(args, plan, &outcomes))?;
    } else {
        print(&table(args, plan, &outcomes))?;
    }
    Ok(if work.interrupted() { Outcome::Interrupted } else { Outcome::Done })
}

/// Checks that everything fits into the context, before a large model is loaded in vain.
fn check_context(args: &BenchArgs, plan: &Plan) -> Result<()> {
    let prefill = u64::from(args.prompt) + 1;
    let decode = u64::from(args.depth.max(1)) + 1 + u64::from(args.generate) + 1;
    let (needed, context) = (prefill.max(decode), plan.max_context);
    if needed <= context as u64 {
        return Ok(());
    }
    let message = format!(
        "expected at most {context} tokens, the model's context, found {needed} in these measurements: reduce --prompt, --depth \
         or --generate"
    );
    Err(Error::new(ErrorKind::ContextOverflow, message).with("expected", context).with("found", needed))
}

/// Sequences that have to wait would count as slow ones.
fn check_batch(args: &BenchArgs, most: u32) -> Result<()> {
    if args.batch <= most {
        return Ok(());
    }
    let message =
        format!("option batch: expected at most {most}, the option max_batch, found {}", args.batch);
    Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "batch"))
}

/// Token ids that depend only on their number: splitmix64.
struct Random(u64);

impl Random {
    fn tokens(&mut self, count: u32, vocab_size: usize) -> Vec<u32> {
        let mut next = || {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        (0..count).map(|_| (next() % vocab_size.max(1) as u64) as u32).collect()
    }
}

fn sessions(model: &Model, count: u32, tokens: u32, random: &mut Random) -> Result<Vec<Session>> {
    let session = |_| {
        let mut session = model.session()?;
        session.append(random.tokens(tokens, model.info().vocab_size), AddSpecialTokens::No)?;
        Ok(session)
    };
    (0..count).map(session).collect()
}

/// Starts all streams before waiting for the first, so that they are computed together.
fn start(sessions: &mut [Session], tokens: u32, work: &Work) -> Result<Vec<Stream>> {
    let options = GenerateOptions::default()
        .max_tokens(tokens)
        .temperature(0.0)
        .repetition_penalty(1.0)
        .ignore_eos(true);
    let stream = |session: &mut Session| {
        let stream = session.stream(&options)?;
        work.cancels(stream.cancel_handle());
        Ok(stream)
    };
    sessions.iter_mut().map(stream).collect()
}

/// Waits for the next token of each stream. (Taking turns keeps the sequences in step.)
fn next_tokens(streams: &mut [Stream]) -> Result<()> {
    for stream in streams {
        loop {
            match stream.next_event()? {
                Some(Event::Token { .. }) => break,
                Some(Event::Progress { .. }) => {}
                _ => return Err(Error::new(ErrorKind::Cancelled, "interrupted")),
            }
        }
    }
    Ok(())
}

/// How fast prompts are computed.
struct Prefill {
    /// Of all sequences together.
    tokens_per_second: f64,
    /// Seconds to the first token of the last one.
    first_token: f64,
}

fn measure_prefill(model: &Model, args: &BenchArgs, random: &mut Random, work: &Work) -> Result<Prefill> {
    let mut sessions = sessions(model, args.batch, args.prompt, random)?;
    let start_time = Instant::now();
    next_tokens(&mut start(&mut sessions, 1, work)?)?;
    let seconds = start_time.elapsed().as_secs_f64();
    let tokens = f64::from(args.batch) * f64::from(args.prompt);
    Ok(Prefill { tokens_per_second: tokens / seconds, first_token: seconds })
}

/// Tokens per second of all sequences together, after `depth` tokens of context and a first token.
fn measure_decode(model: &Model, args: &BenchArgs, random: &mut Random, work: &Work) -> Result<f64> {
    let mut sessions = sessions(model, args.batch, args.depth.max(1), random)?;
    next_tokens(&mut start(&mut sessions, 1, work)?)?;
    let mut streams = start(&mut sessions, args.generate + 1, work)?;
    next_tokens(&mut streams)?;
    let start_time = Instant::now();
    for _ in 0..args.generate {
        next_tokens(&mut streams)?;
    }
    let seconds = start_time.elapsed().as_secs_f64();
    Ok(f64::from(args.batch) * f64::from(args.generate) / seconds)
}

/// Smallest, median and largest value. The median of an even number of values is the mean of the middle two.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    [sorted[0], (low + high) / 2.0, sorted[sorted.len() - 1]]
}

impl Outcomes {
    fn medians(&self) -> [f64; 3] {
        self.samples.each_ref().map(|values| spread(values)[1])
    }

    /// The median of one of the limits.
    fn limit(&self, limit: impl Fn(&Limits) -> f64) -> Option<f64> {
        let values: Vec<f64> = self.limits.iter().map(limit).collect();
        (!values.is_empty()).then(|| spread(&values)[1])
    }

    /// Memory in GB/s, int8 in GOP/s, f32 in GFLOP/s: medians.
    fn median_limits(&self) -> Option<[f64; 3]> {
        let memory = self.limit(|limits| limits.dram_gb_per_s)?;
        Some([
            memory,
            self.limit(|limits| limits.int8_gop_per_s)?,
            self.limit(|limits| limits.f32_gflop_per_s)?,
        ])
    }

    /// Fraction of the int8 peak that prefill reaches in the layers' matrices; `None` for other weights.
    fn prefill_share(&self, plan: &Plan) -> Option<f64> {
        let [prefill, ..] = self.medians();
        let limit = self.limit(|limits| limits.int8_gop_per_s).filter(|_| plan.weights == "int8")?;
        Some(2.0 * plan.block_parameters as f64 * prefill / 1e9 / limit)
    }

    /// Fraction of the memory bandwidth that decode uses to read weights: the median over the repeats, each compared with the
    /// bandwidth measured next to it, because that of a shared machine changes.
    fn decode_share(&self, args: &BenchArgs, plan: &Plan) -> Option<f64> {
        let [_, decode, _] = &self.samples;
        let bytes_per_token = plan.weights_bytes_per_pass as f64 / f64::from(args.batch);
        let shares = decode
            .iter()
            .zip(&self.limits)
            .map(|(decode, limits)| decode * bytes_per_token / 1e9 / limits.dram_gb_per_s);
        let shares: Vec<f64> = shares.collect();
        (!shares.is_empty()).then(|| spread(&shares)[1])
    }
}

fn report_json(args: &BenchArgs, plan: &Plan, outcomes: &Outcomes) -> Value {
    let named = |values: [Value; 3]| -> Map<String, Value> {
        MEASURES.iter().map(|&name| name.to_owned()).zip(values).collect()
    };
    let spreads = outcomes.samples.each_ref().map(|values| spread(values));
    let mut report = json!({
        "model": plan.name,
        "weights": plan.weights,
        "kv": plan.kv,
        "threads": plan.threads,
        "batch": args.batch,
        "depth": args.depth,
        "prompt": args.prompt,
        "generate": args.generate,
        "repeat": args.repeat,
    });
    if let Value::Object(report) = &mut report {
        report.extend(named(spreads.map(|[_, median, _]| json!(median))));
    }
    report["min"] = named(spreads.map(|[min, ..]| json!(min))).into();
    report["max"] = named(spreads.map(|[.., max]| json!(max))).into();
    report["samples"] = named(outcomes.samples.each_ref().map(|values| json!(values))).into();
    report["peak_rss_bytes"] = json!(outcomes.peak_rss_bytes);
    report["kernels"] = json!(plan.kernels);
    report["load_seconds"] = json!(outcomes.load_seconds);
    report["limits"] = outcomes.median_limits().map_or(Value::Null, |[memory, int8, f32]| {
        json!({ "dram_gb_per_s": memory, "int8_gop_per_s": int8, "f32_gflop_per_s": f32 })
    });
    report["limits_samples"] = json!(outcomes.limits);
    report["prefill_share_of_int8_peak"] = json!(outcomes.prefill_share(plan));
    report["decode_share_of_dram"] = json!(outcomes.decode_share(args, plan));
    report
}

fn table(args: &BenchArgs, plan: &Plan, outcomes: &Outcomes) -> String {
    let Plan { name, weights, kv, kernels, threads, .. } = plan;
    let memory = outcomes.peak_rss_bytes.map_or_else(|| "unknown".to_owned(), bytes);
    let mut text = format!(
        "{name}, {weights} weights, {kv} KV cache, {kernels}, {}\n\
         batch {}, depth {}, {}; loaded in {:.2} s, peak memory {memory}\n\n",
        counted(*threads, "thread"),
        args.batch,
        args.depth,
        counted(args.repeat as usize, "repeat"),
        outcomes.load_seconds,
    );
    text += &format!("{:<28}{:>12}{:>12}{:>12}\n", "", "median", "min", "max");
    let titles = [
        format!("prefill {}, tokens/s", args.prompt),
        format!("decode {}, tokens/s", args.generate),
        "time to first token, ms".to_owned(),
    ];
    for ((title, values), scale) in titles.iter().zip(&outcomes.samples).zip([1.0, 1.0, 1e3]) {
        let [min, median, max] = spread(values).map(|value| value * scale);
        text += &format!("{title:<28}{median:>12.2}{min:>12.2}{max:>12.2}\n");
    }
    if let Some([memory, int8, f32]) = outcomes.median_limits() {
        text += &format!("\nlimits: memory {memory:.1} GB/s, int8 {int8:.0} GOP/s, f32 {f32:.0} GFLOP/s\n");
    }
    let shares = [
        ("prefill reaches", outcomes.prefill_share(plan), "of the int8 peak"),
        ("decode reads weights at", outcomes.decode_share(args, plan), "of the memory bandwidth"),
    ];
    for (what, share, whole) in shares {
        if let Some(share) = share {
            text += &format!("{what} {:.1} % {whole}\n", share * 100.0);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        assert_eq!(spread(&[4.0, 1.0, 2.0, 10.0]), [1.0, 3.0, 10.0]);
        assert_eq!(spread(&[5.0]), [5.0; 3]);
    }

    #[test]
    fn tokens_are_valid_and_the_same_every_time() {
        let tokens = Random(1).tokens(1000, 17);
        assert_eq!(tokens, Random(1).tokens(1000, 17));
        assert!(tokens.iter().all(|&token| token < 17));
        assert!((0..17).all(|id| tokens.contains(&id)));
    }
}
