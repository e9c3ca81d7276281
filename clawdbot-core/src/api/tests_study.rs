//! The accuracy study that the group sizes and the int4 quantizer follow from: prints the tables of `docs/numerics.md`.
//!
//! `cargo test -p clawdbot-core --lib study -- --ignored --nocapture`
//!
//! A variant rounds the weights of an f32 decoder, group by group, to codes and scales. In *coded* variants the int8
//! kernels multiply the codes with activations that are quantized in groups of the same size, as in earnest; in
//! *weight-only* ones the f32 kernels multiply the rounded weights with exact activations.
#![allow(clippy::print_stdout, reason = "printing is the purpose")]

use clawdbot_kernels::{
    ComputeFormat, Epilogue, GroupScales, KernelSet, Lhs, PackedMatrix, QuantizedRows, RowSource,
    StoredScale, gemm,
};
use half::bf16;

use super::tests::support;
use crate::cache::{KvCache, PageTables};
use crate::forward::batch::Batch;
use crate::forward::blocks::Mlp;
use crate::forward::cpu::Cpu;
use crate::forward::decoder::{Decoder, DecoderLayer, ForwardContext, Pass};
use crate::forward::linear::{GatedMlp, InputTables, Linear};
use crate::forward::mixers::Mixer;
use crate::forward::mixers::attention::AttentionWeights;
use crate::forward::scratch::Scratch;
use crate::load::build::Builder;
use crate::load::source::{Opened, Source};
use crate::options::{GenerateOptions, KvType, ModelOptions, WeightType};
use crate::runtime::{Budget, Runtime};

/// Rounds a group of weights: codes, and the bf16 scale they are multiplied with.
type Coder = fn(&[f32], &mut [i8]) -> bf16;
/// Rounds a group of weights in place.
type Rounder = fn(&mut [f32]);

#[derive(Clone, Copy)]
enum Variant {
    Coded(usize, Coder),
    WeightOnly(usize, Rounder),
    Packed(ComputeFormat),
}

/// The smallest bf16 not below `x`, which is not negative.
fn up(x: f32) -> bf16 {
    bf16::from_bits((x.to_bits().wrapping_add(0xffff) >> 16) as u16)
}

fn amax(w: &[f32]) -> f32 {
    w.iter().fold(0.0, |a, w| a.max(w.abs()))
}

/// Codes `w / scale`, rounded half to even, in `low..=high`; the squared error.
fn code(w: &[f32], scale: f32, low: f32, high: f32, codes: &mut [i8]) -> f64 {
    let mut error = 0.0;
    for (code, &w) in codes.iter_mut().zip(w) {
        let rounded = if scale == 0.0 { 0.0 } else { (w / scale).round_ties_even().clamp(low, high) };
        *code = rounded as i8;
        error += f64::from(w - rounded * scale).powi(2);
    }
    error
}

/// The scale of least squared error among those of `scales`.
fn search(w: &[f32], scales: impl Iterator<Item = f32>, low: f32, high: f32, codes: &mut [i8]) -> bf16 {
    let mut best = (f64::MAX, bf16::ZERO);
    for scale in scales.map(bf16::from_f32) {
        let error = code(w, scale.to_f32(), low, high, codes);
        if error < best.0 {
            best = (error, scale);
        }
    }
    code(w, best.1.to_f32(), low, high, codes);
    best.1
}

fn int8_amax(w: &[f32], codes: &mut [i8]) -> bf16 {
    let scale = up(amax(w) / 127.0);
    code(w, scale.to_f32(), -127.0, 127.0, codes);
    scale
}

fn int8_weights(w: &mut [f32]) {
    let mut codes = vec![0; w.len()];
    let scale = int8_amax(w, &mut codes).to_f32();
    w.iter_mut().zip(codes).for_each(|(w, code)| *w = f32::from(code) * scale);
}

fn int8_search(w: &[f32], codes: &mut [i8]) -> bf16 {
    let a = amax(w);
    search(w, (0..32).map(|i| a / (127.0 + i as f32 * 0.5)), -127.0, 127.0, codes)
}

/// Symmetric -7..=7 from the largest weight.
fn int4_seven(w: &[f32], codes: &mut [i8]) -> bf16 {
    let scale = up(amax(w) / 7.0);
    code(w, scale.to_f32(), -7.0, 7.0, codes);
    scale
}

/// The weight of largest magnitude becomes -8: the scale may be negative.
fn int4_eight(w: &[f32], codes: &mut [i8]) -> bf16 {
    let extreme = w.iter().fold(0.0_f32, |a, &w| if w.abs() > a.abs() { w } else { a });
    let scale = bf16::from_f32(extreme / -8.0);
    code(w, scale.to_f32(), -8.0, 7.0, codes);
    scale
}

fn int4_seven_search(w: &[f32], codes: &mut [i8]) -> bf16 {
    let a = amax(w);
    search(w, (0..24).map(|i| a / (6.5 + i as f32 * 0.15)), -7.0, 7.0, codes)
}

fn int4_eight_search(w: &[f32], codes: &mut [i8]) -> bf16 {
    let a = amax(w);
    let scales = (0..32).map(|i| a / (6.5 + i as f32 * 0.1));
    search(w, scales.flat_map(|s| [s, -s]), -8.0, 7.0, codes)
}

/// Scale and minimum for codes 0..=15 over `low..=high`, `cut` of the range taken off at both ends; the squared error.
fn affine(w: &mut [f32], low: f32, high: f32, write: bool) -> f64 {
    let scale = bf16::from_f32((high - low) / 15.0).to_f32();
    let min = bf16::from_f32(low).to_f32();
    let mut error = 0.0;
    for w in w {
        let q = if scale == 0.0 { 0.0 } else { ((*w - min) / scale).round_ties_even().clamp(0.0, 15.0) };
        let rounded = q.mul_add(scale, min);
        error += f64::from(*w - rounded).powi(2);
        if write {
            *w = rounded;
        }
    }
    error
}

fn int4_affine(w: &mut [f32]) {
    let (low, high) = w.iter().fold((f32::MAX, f32::MIN), |(l, h), &w| (l.min(w), h.max(w)));
    affine(w, low, high, true);
}

fn int4_affine_search(w: &mut [f32]) {
    let (low, high) = w.iter().fold((f32::MAX, f32::MIN), |(l, h), &w| (l.min(w), h.max(w)));
    let mut best = (f64::MAX, low, high);
    for i in -2..8 {
        for j in -2..8 {
            let (l, h) = (low + i as f32 * 0.02 * (high - low), high - j as f32 * 0.02 * (high - low));
            let error = affine(w, l, h, false);
            if error < best.0 {
                best = (error, l, h);
            }
        }
    }
    affine(w, best.1, best.2, true);
}

/// The rows of a matrix, rounded.
struct Rounded<'a>(&'static KernelSet, &'a PackedMatrix, Variant);

impl RowSource for Rounded<'_> {
    fn rows(&self) -> usize {
        self.1.n()
    }
    fn cols(&self) -> usize {
        self.1.k()
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        self.1.read_row(self.0, row, out);
        if let Variant::WeightOnly(group, round) = self.2 {
            out.chunks_mut(group).for_each(round);
        }
    }
    fn own_format(&self) -> Option<ComputeFormat> {
        if let Variant::Coded(group, _) = self.2 {
            Some(ComputeFormat::Int8 { group, rotated: false })
        } else {
            None
        }
    }
    fn read_codes(
        &self,
        row: usize,
        _: &[u8],
        codes: &mut [i8],
        scales: &mut Vec<StoredScale>,
    ) -> clawdbot_kernels::Result<()> {
        let Variant::Coded(group, coder) = self.2 else { unreachable!("own_format") };
        let mut exact = vec![0.0; self.1.k()];
        self.1.read_row(self.0, row, &mut exact);
        let groups = exact.chunks(group).zip(codes.chunks_mut(group));
        scales.extend(groups.map(|(w, codes)| StoredScale::One(coder(w, codes).to_bits())));
        Ok(())
    }
}

impl Variant {
    fn pack(self, runtime: &Runtime, exact: &PackedMatrix) -> PackedMatrix {
        let format = match self {
            Variant::Coded(group, _) => ComputeFormat::Int8 { group, rotated: false },
            Variant::WeightOnly(..) => ComputeFormat::F32,
            Variant::Packed(format) => format,
        };
        let source = Rounded(runtime.kernel_set(), exact, self);
        let kernels = runtime.kernel_set();
        runtime
            .pool()
            .region(|region| PackedMatrix::pack(kernels, region, format, &[&source]).unwrap())
            .unwrap()
    }
}

/// Which matrices a variant is applied to.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Head,
    Qkv,
    O,
    GateUp,
    Down,
}

const LAYERS: &[Part] = &[Part::Qkv, Part::O, Part::GateUp, Part::Down];

/// An f32 decoder and the texts it is judged on.
struct Subject {
    name: String,
    runtime: Runtime,
    decoder: Decoder,
    texts: Vec<Vec<u32>>,
    reference: Vec<Vec<f32>>,
}

fn f32_decoder(runtime: &Runtime, source: &Source) -> Decoder {
    let Opened { spec, weights, .. } = Opened::open(source).unwrap();
    Builder {
        kernels: runtime.kernel_set(),
        pool: runtime.pool(),
        weights: &weights,
        last: None,
        mapped: None,
        weight_type: WeightType::F32,
        progress: &mut |_, _| true,
        done: 0,
        total: 0,
        ready: Default::default(),
        vectors: Default::default(),
    }
    .build(spec)
    .unwrap()
}

fn logits(runtime: &Runtime, decoder: &Decoder, kv: KvType, tokens: &[u32]) -> Vec<f32> {
    let mut cache = KvCache::new(kv, &decoder.spec.layer_states(), &Budget::new(None)).unwrap();
    let mut tables = PageTables::default();
    cache.grow(&mut tables, tokens.len()).unwrap();
    let mut batch = Batch::new();
    batch.push(tokens, 0, tokens.len(), &tables);
    let mut scratch = Scratch::default();
    let pass = runtime.pool().region(|region| {
        let (kernels, scratch) = (runtime.kernel_set(), &mut scratch);
        let ops = &Cpu { kernels, region, adapters: None, watcher: None };
        let context = ForwardContext { ops, cache: &mut cache, scratch, trap: None };
        decoder.forward(context, &batch).unwrap()
    });
    assert_eq!(pass.unwrap(), Pass::Done);
    scratch.logits[..tokens.len() * decoder.spec.vocab_size].to_vec()
}

fn softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::MIN, f32::max);
    let weights: Vec<f64> = row.iter().map(|&x| f64::from(x - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

fn argmax(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

impl Subject {
    /// Trained models are judged on four texts of 400 tokens that they write themselves, others on arbitrary tokens.
    fn new(name: &str, source: &Source, trained: bool) -> Self {
        let runtime = Runtime::new(&Default::default()).unwrap();
        let decoder = f32_decoder(&runtime, source);
        let texts: Vec<Vec<u32>> = if trained {
            let options = ModelOptions::default().weights(WeightType::F32);
            let model = runtime.load(source, &options).unwrap();
            let write = |seed: u64| {
                let mut session = model.session().unwrap();
                let options = GenerateOptions::default().temperature(1.0).top_p(1.0).top_k(0_u32);
                session.generate(&options.seed(seed).max_tokens(400_u32).ignore_eos(true)).unwrap();
                session.tokens().unwrap()
            };
            (7..11).map(write).collect()
        } else {
            vec![(0..300_u32).map(|i| 3 + (i * 37 + i * i * 11) % 500).collect()]
        };
        let reference = texts.iter().map(|text| logits(&runtime, &decoder, KvType::F32, text)).collect();
        Subject { name: name.to_owned(), runtime, decoder, texts, reference }
    }

    fn all() -> Vec<Self> {
        let mut all = vec![Self::new("built-in", &Source::Builtin, true)];
        if let Some(dir) = support::shared("real-models/stories260k") {
            all.push(Self::new("stories260k", &Source::Path(dir), true));
        }
        for family in ["llama", "mistral", "qwen2", "qwen3"] {
            all.push(Self::new(family, &Source::Path(support::family(family)), false));
        }
        all
    }

    /// Mean KL divergence (nats) from f32 with the weights of `variant`, and the share of equal most likely tokens.
    fn measure(&self, variant: impl Fn(Part) -> Variant, kv: KvType) -> (f64, f64) {
        let source = repacked(&self.decoder, |part, exact| variant(part).pack(&self.runtime, exact));
        let (mut kl, mut same, mut count) = (0.0, 0.0, 0.0);
        for (text, reference) in self.texts.iter().zip(&self.reference) {
            let found = logits(&self.runtime, &source, kv, text);
            let vocab = self.decoder.spec.vocab_size;
            for (a, b) in reference.chunks_exact(vocab).zip(found.chunks_exact(vocab)) {
                let terms = softmax(a).into_iter().zip(softmax(b));
                kl += terms.map(|(p, q)| if p > 0.0 { p * (p / q).ln() } else { 0.0 }).sum::<f64>();
                same += f64::from(u8::from(argmax(a) == argmax(b)));
                count += 1.0;
            }
        }
        (kl / count, same / count)
    }
}

/// The decoder with every matrix packed again by `pack(part, f32 panels)`.
fn repacked(from: &Decoder, pack: impl Fn(Part, &PackedMatrix) -> PackedMatrix) -> Decoder {
    let linear = |part, from: &Linear| Linear {
        name: from.name.clone(),
        weight: pack(part, &from.weight),
        bias: from.bias.clone(),
    };
    Decoder {
        layer_inputs: None,
        streams: None,
        spec: from.spec.clone(),
        embedding: pack(Part::Head, &from.embedding),
        input: InputTables { positions: None, token_types: None, norm: None },
        dense_head: Vec::new(),
        layers: from
            .layers
            .iter()
            .map(|layer| {
                let (Mlp::Dense(mlp), Mixer::Attention(attention)) = (&layer.mlp, &layer.mixer) else {
                    panic!("the studied models are plain")
                };
                DecoderLayer {
                    input_norm: layer.input_norm.clone(),
                    mixer: Mixer::Attention(Box::new(AttentionWeights {
                        qkv: linear(Part::Qkv, &attention.qkv),
                        gate: None,
                        qk_norms: attention.qk_norms.clone(),
                        value_norm: None,
                        sinks: attention.sinks.clone(),
                    })),
                    o: linear(Part::O, &layer.o),
                    attention_out_norm: layer.attention_out_norm.clone(),
                    attention_sum_norm: None,
                    mlp_norm: layer.mlp_norm.clone(),
                    mlp: Mlp::Dense(GatedMlp {
                        gate_up: linear(Part::GateUp, &mlp.gate_up),
                        gated: mlp.gated,
                        down: linear(Part::Down, &mlp.down),
                    }),
                    mlp_out_norm: layer.mlp_out_norm.clone(),
                    mlp_sum_norm: None,
                    low_rank: None,
                    streams: None,
                    input: None,
                    scalar: None,
                }
            })
            .collect(),
        norm: from.norm.clone(),
        lm_head_bias: from.lm_head_bias.clone(),
        lm_head: from.lm_head.as_ref().map(|head| pack(Part::Head, head)),
    }
}

/// A row of a table: its name, and the variant of each part.
type Line<'a> = (String, Box<dyn Fn(Part) -> Variant + 'a>);

/// `variant` for the `parts`, `other` for the rest.
fn mixed(name: &str, parts: &'static [Part], variant: Variant, other: Variant) -> Line<'static> {
    (name.to_owned(), Box::new(move |part| if parts.contains(&part) { variant } else { other }))
}

fn all(name: &str, variant: Variant) -> Line<'static> {
    mixed(name, &[], variant, variant)
}

fn table(subjects: &[Subject], kv: KvType, lines: &[Line<'_>]) {
    print!("| {} KV |", kv.name());
    subjects.iter().for_each(|subject| print!(" {} |", subject.name));
    println!("\n|---|{}", "--:|".repeat(subjects.len()));
    for (name, variant) in lines {
        print!("| {name} |");
        for subject in subjects {
            let (kl, same) = subject.measure(variant, kv);
            print!(" {kl:.2e} {:.1} % |", 100.0 * same);
        }
        println!();
    }
}

const EXACT: Variant = Variant::Packed(ComputeFormat::F32);

const fn int8_rotated(group: usize) -> Variant {
    Variant::Packed(ComputeFormat::Int8 { group, rotated: true })
}

/// int4 as models are loaded.
const fn built_in(group: usize, rotated: bool) -> Variant {
    Variant::Packed(ComputeFormat::Int4 { group, scales: GroupScales::Bf16, rotated })
}

const fn int8(group: usize) -> Variant {
    Variant::Coded(group, int8_amax)
}

#[test]
#[ignore = "prints tables, takes minutes"]
fn study_of_int8_groups() {
    let subjects = Subject::all();
    let mut lines = vec![all("bf16", Variant::Packed(ComputeFormat::Bf16))];
    for group in [32, 64, 128, 256] {
        lines.push(all(&format!("group {group}"), int8(group)));
    }
    for group in [32, 64, 128, 256] {
        lines.push(all(&format!("group {group}, rotated"), int8_rotated(group)));
    }
    for group in [32, 64, 128] {
        let searched = Variant::Coded(group, int8_search);
        lines.push(all(&format!("group {group}, least squares scale"), searched));
    }
    lines.push(all("group 64 weights, f32 activations", Variant::WeightOnly(64, int8_weights)));
    lines.push(mixed("head group 32, layers 64", &[Part::Head], int8(32), int8(64)));
    lines.push(mixed("head group 32, layers 128", &[Part::Head], int8(32), int8(128)));
    lines.push(mixed("gate_up 64, others 32", &[Part::GateUp], int8(64), int8(32)));
    table(&subjects, KvType::F32, &lines);
    table(&subjects, KvType::Bf16, &lines);
    let parts: [(&str, &'static [Part]); 5] = [
        ("head", &[Part::Head]),
        ("qkv", &[Part::Qkv]),
        ("o", &[Part::O]),
        ("gate_up", &[Part::GateUp]),
        ("down", &[Part::Down]),
    ];
    let mut lines = Vec::new();
    for (name, parts) in parts {
        for group in [32, 64, 128] {
            lines.push(mixed(&format!("{name} group {group}, the rest f32"), parts, int8(group), EXACT));
        }
    }
    table(&subjects, KvType::F32, &lines);
    if let Some(file) = std::env::var_os("CLAWDBOT_STUDY_TOKENS") {
        let texts: Vec<_> = subjects.iter().map(|s| (s.name.clone(), s.texts.clone())).collect();
        std::fs::write(file, serde_json::json!(texts).to_string()).unwrap();
    }
}

#[test]
#[ignore = "prints tables, takes minutes"]
fn study_of_int4() {
    let subjects = Subject::all();
    let mut lines = Vec::new();
    for (name, group, coder) in [
        ("-7..7, group 32", 32, int4_seven as Coder),
        ("-8..7, group 32", 32, int4_eight),
        ("-7..7, group 32, least squares scale", 32, int4_seven_search),
        ("-8..7, group 32, least squares scale", 32, int4_eight_search),
        ("-8..7, group 64, least squares scale", 64, int4_eight_search),
        ("-8..7, group 128, least squares scale", 128, int4_eight_search),
    ] {
        lines.push(all(name, Variant::Coded(group, coder)));
    }
    for (name, group, rounder) in [
        ("0..15 with minimum, group 32", 32, int4_affine as Rounder),
        ("0..15 with minimum, group 32, least squares", 32, int4_affine_search),
        ("0..15 with minimum, group 64, least squares", 64, int4_affine_search),
    ] {
        lines.push(all(name, Variant::WeightOnly(group, rounder)));
    }
    for (name, group, rotated) in [
        ("as built in, not rotated, group 32", 32, false),
        ("as built in, group 32", 32, true),
        ("as built in, group 64", 64, true),
        ("as built in, group 128", 128, true),
    ] {
        lines.push(all(name, built_in(group, rotated)));
    }
    lines.push(mixed("layers as built in, head int8", LAYERS, built_in(32, true), int8_rotated(64)));
    lines.push(mixed("layers as built in, head f32", LAYERS, built_in(32, true), EXACT));
    let int4 = Variant::Coded(32, int4_eight_search);
    let head = Variant::WeightOnly(32, int4_affine_search);
    lines.push(mixed("layers -8..7 group 32, head f32", LAYERS, int4, EXACT));
    lines.push(mixed("layers -8..7 group 32, head int8", LAYERS, int4, int8(64)));
    lines.push(mixed("layers -8..7 group 32, head with minimum", LAYERS, int4, head));
    lines.push(mixed("head -8..7 group 32, layers f32", LAYERS, EXACT, int4));
    lines.push(mixed("head with minimum, layers f32", LAYERS, EXACT, head));
    table(&subjects, KvType::F32, &lines);
}

/// Normal numbers by Box and Muller.
struct Normal(u64);

impl Normal {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }
    fn next(&mut self) -> f32 {
        ((-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()) as f32
    }
}

/// Relative error of products of normal weights and activations, of which one channel in 128 is `outlier` times as large.
#[test]
#[ignore = "prints a table, takes minutes"]
fn study_of_outliers() {
    let (m, n, k) = (64, 256, 2048);
    let runtime = Runtime::new(&Default::default()).unwrap();
    let kernels = runtime.kernel_set();
    let mut variants = Vec::new();
    for group in [32, 64, 128, 256] {
        variants.push((format!("{group}"), int8(group)));
        variants.push((format!("{group} rotated"), int8_rotated(group)));
    }
    for (name, rotated) in [("int4 32", false), ("int4 32 rotated", true)] {
        variants.push((name.to_owned(), built_in(32, rotated)));
    }
    print!("| outliers ");
    variants.iter().for_each(|(name, _)| print!("| {name} "));
    println!("|\n|---{}|", "|--:".repeat(variants.len()));
    for (weights_by, x_by) in [(1.0, 1.0), (1.0, 10.0), (1.0, 50.0), (10.0, 1.0), (10.0, 10.0)] {
        let mut normal = Normal(42);
        let outlier: Vec<bool> = (0..k).map(|_| normal.uniform() < 1.0 / 128.0).collect();
        let by = |at: usize, factor: f32| if outlier[at % k] { factor } else { 1.0 };
        let weights: Vec<f32> = (0..n * k).map(|at| normal.next() * by(at, weights_by)).collect();
        let x: Vec<f32> = (0..m * k).map(|at| normal.next() * by(at, x_by)).collect();
        let source = Dense { cols: k, data: &weights };
        let exact = runtime
            .pool()
            .region(|region| PackedMatrix::pack(kernels, region, ComputeFormat::F32, &[&source]).unwrap());
        let exact = exact.unwrap();
        print!("| weights x {weights_by}, activations x {x_by} |");
        for &(_, variant) in &variants {
            let packed = variant.pack(&runtime, &exact);
            let format = packed.format().activations().unwrap();
            let mut out = vec![0.0; m * n];
            let mut quantized = QuantizedRows::default();
            let product = runtime.pool().region(|region| {
                quantized.quantize(kernels, region, &x, m, k, format).unwrap();
                gemm(kernels, region, Lhs::Int8(&quantized), m, &packed, &mut out, Epilogue::default());
            });
            product.unwrap();
            let (mut error, mut power) = (0.0, 0.0);
            for (row, out) in x.chunks(k).zip(out.chunks(n)) {
                for (w, &out) in weights.chunks(k).zip(out) {
                    let expected: f64 = row.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                    error += (f64::from(out) - expected).powi(2);
                    power += expected.powi(2);
                }
            }
            print!(" {:.2} % |", 100.0 * (error / power).sqrt());
        }
        println!();
    }
}

struct Dense<'a> {
    cols: usize,
    data: &'a [f32],
}

impl RowSource for Dense<'_> {
    fn rows(&self) -> usize {
        self.data.len() / self.cols
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        out.copy_from_slice(&self.data[row * self.cols..][..self.cols]);
    }
}
