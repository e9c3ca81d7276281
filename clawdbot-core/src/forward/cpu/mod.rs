//! The operations of a forward pass on the CPU: kernels on the threads of a region, in host memory.

mod adapters;
pub(crate) mod attention;
mod experts;
mod heads;
mod products;
mod recurrent;
mod row_ops;
mod states;

use clawdbot_kernels::attention::Workspaces;
use clawdbot_kernels::memory::AlignedBuf;
use clawdbot_kernels::threads::Region;
use clawdbot_kernels::{Epilogue, KernelSet, Lhs, PackedMatrix, QuantizedRows, gemm};

pub(crate) use self::adapters::{AdapterScratch, BatchAdapters};
use self::attention::WritePlan;
use self::heads::HeadScratch;
use super::batch::Batch;
use super::linear::Linear;
use super::ops::{
    ActivatedMlp, Buffer, Columns, Convolution, Embedding, ExpertBuffers, ExpertInput, GateFormula,
    HeadColumns, HeadOps, LatentInput, LayerRef, Memory, MlpBuffers, Norm, Ops, OutputGate, Recur,
    RecurBuffers, Shape, SharedGate, StateSource, Store, Workspace,
};
use super::recurrence::Recurrence;
use super::routing::{Choice, Choices};
use crate::cache::KvCache;
use crate::error::Result;
use crate::spec::mixers::mla::MlaSpec;
use crate::spec::{Activation, DecoderSpec, MoeSpec};

/// Host memory.
pub(crate) struct Host;

impl Memory for Host {
    type Rows = AlignedBuf<f32>;
    type Codes = QuantizedRows;
    type Workspace = CpuWorkspace;
    type Cache = KvCache;
}

impl Buffer for AlignedBuf<f32> {
    fn reserve(&mut self, len: usize) -> Result<()> {
        Ok(AlignedBuf::reserve(self, len)?)
    }
}

/// Buffers that operations use internally.
#[derive(Default)]
pub(crate) struct CpuWorkspace {
    /// Of attention, one for each thread
    pub(crate) attention: Workspaces,
    /// One for each thread, where heads have matrices of their own
    heads: Vec<HeadScratch>,
    /// `[rows]`: the place of each row among those of an expert
    places: Vec<usize>,
    /// Of adapters, in their own reservations. A pass lends them to its [`Cpu`].
    pub(crate) adapters: AdapterScratch,
}

impl Workspace for CpuWorkspace {
    fn reserve(&mut self, spec: &DecoderSpec, rows: usize, threads: usize) -> Result<()> {
        for head_dim in spec.head_dims() {
            self.attention.reserve(threads, head_dim)?;
        }
        let head = spec.head_input();
        if head > 0 {
            self.heads.resize_with(threads, HeadScratch::default);
            self.heads.iter_mut().try_for_each(|buffer| buffer.reserve(rows * head))?;
        }
        Ok(())
    }

    fn bytes(spec: &DecoderSpec, rows: usize, threads: usize) -> Option<usize> {
        // Buffers of one head size serve the smaller ones too.
        let attention = spec.head_dims().into_iter().map(|size| Workspaces::bytes(threads, size)).max();
        // Values, and their quantized form, which takes less than half as much.
        let head = spec.head_input();
        let heads = (head + head.div_ceil(2)).checked_mul(threads)?.checked_mul(rows)?;
        heads.checked_mul(4)?.checked_add(attention.unwrap_or(0))
    }
}

/// The CPU, for one pass.
pub(crate) struct Cpu<'a> {
    pub(crate) kernels: &'static KernelSet,
    pub(crate) region: &'a Region<'a>,
    /// The adapters of the batch's rows
    pub(crate) adapters: Option<BatchAdapters<'a>>,
    /// Who is shown what projections read
    pub(crate) watcher: Option<&'a dyn Watcher>,
}

/// Sees the inputs of projections.
pub(crate) trait Watcher {
    /// Called before the projection `name` reads `x`, `[rows, k]`.
    ///
    /// # Errors
    /// Those that end the pass.
    fn see(&self, cpu: &Cpu<'_>, name: &str, x: &[f32], k: usize) -> Result<()>;
}

impl Cpu<'_> {
    /// Shows what a projection is about to read, `[rows, k]`, to who watches.
    ///
    /// # Errors
    /// The watcher's.
    fn show(&self, linear: &Linear, x: &[f32]) -> Result<()> {
        self.watcher.map_or(Ok(()), |watcher| watcher.see(self, &linear.name, x, linear.weight.k()))
    }

    /// Calls `f(row, values)` for each row of `data` (`[rows, width]`), some rows at a time on each thread.
    fn by_rows(&self, data: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        let rows = data.len() / width;
        let chunk = rows.div_ceil(4 * self.region.threads()).max(1);
        // Few rows are computed sooner than another thread wakes up.
        let chunk = if rows < 4 { rows.max(1) } else { chunk };
        self.region.parallel_chunks_mut(data, chunk * width, |index, part| {
            for (offset, values) in part.chunks_exact_mut(width).enumerate() {
                f(index * chunk + offset, values);
            }
        });
    }
}

impl<R: std::ops::Deref<Target = [f32]>> Columns<'_, R> {
    /// `width` columns of row `row`.
    fn of_row(&self, row: usize, width: usize) -> &[f32] {
        &self.rows[row * self.stride + self.first..][..width]
    }
}

type Values = AlignedBuf<f32>;

impl Ops for Cpu<'_> {
    type Memory = Host;
    type WritePlan = WritePlan;

    fn stopped(&self) -> bool {
        self.region.stop().is_set()
    }

    fn threads(&self) -> usize {
        self.region.threads()
    }

    fn embed(&self, embedding: &Embedding<'_>, batch: &Batch<'_>, out: &mut Values) {
        row_ops::embed(self, embedding, batch, out);
    }

    fn copy(&self, x: &Values, shape: Shape, out: &mut Values) {
        self.by_rows(&mut out[..shape.len()], shape.width, |row, out| {
            out.copy_from_slice(&x[row * shape.width..][..shape.width]);
        });
    }

    fn zero(&self, x: &mut Values, shape: Shape) {
        x[..shape.len()].fill(0.0);
    }

    fn norm(&self, x: &Values, norm: Norm<'_>, shape: Shape, out: &mut Values) {
        self.by_rows(&mut out[..shape.len()], shape.width, |row, out| {
            row_ops::norm_row(self.kernels, norm, &x[row * shape.width..][..shape.width], out);
        });
    }

    fn norm_in_place(&self, x: &mut Values, gains: &[f32], eps: f32, shape: Shape) {
        self.by_rows(&mut x[..shape.len()], shape.width, |_, row| {
            self.kernels.norm_in_place(row, gains, eps);
        });
    }

    fn norm_columns(&self, x: Columns<'_, Values>, gains: &[f32], eps: f32, rows: usize, out: &mut Values) {
        let width = gains.len();
        self.by_rows(&mut out[..rows * width], width, |row, out| {
            self.kernels.rms_norm(x.of_row(row, width), gains, eps, out);
        });
    }

    fn take_rows(&self, x: &Values, taken: &[usize], norm: Option<Norm<'_>>, width: usize, out: &mut Values) {
        self.by_rows(&mut out[..taken.len() * width], width, |row, out| {
            let x = &x[taken[row] * width..][..width];
            match norm {
                Some(norm) => row_ops::norm_row(self.kernels, norm, x, out),
                None => out.copy_from_slice(x),
            }
        });
    }

    fn join_states(
        &self,
        x: &Values,
        batch: &Batch<'_>,
        norms: [Norm<'_>; 2],
        width: usize,
        out: &mut Values,
    ) {
        self.by_rows(&mut out[..2 * batch.rows() * width], 2 * width, |row, out| {
            let halves = [&x[..], batch.given_states].map(|values| &values[row * width..][..width]);
            for ((half, norm), out) in halves.into_iter().zip(norms).zip(out.chunks_exact_mut(width)) {
                row_ops::norm_row(self.kernels, norm, half, out);
            }
        });
    }

    fn add_scaled(&self, y: &Values, factor: f32, shape: Shape, x: &mut Values) {
        self.by_rows(&mut x[..shape.len()], shape.width, |row, x| {
            self.kernels.add_scaled(&y[row * shape.width..][..shape.width], factor, x);
        });
    }

    fn scale_and_cap(&self, x: &mut Values, factor: f32, cap: Option<f32>, shape: Shape) {
        self.by_rows(&mut x[..shape.len()], shape.width, |_, row| {
            self.kernels.scale_and_cap(factor, cap, row);
        });
    }

    fn activate(&self, x: &mut Values, activation: Activation, shape: Shape) {
        self.by_rows(&mut x[..shape.len()], shape.width, |_, row| {
            self.kernels.activate_in_place(activation, row);
        });
    }

    fn scale_columns(&self, x: &mut Values, factors: &[f32], shape: Shape) {
        self.by_rows(&mut x[..shape.len()], shape.width, |_, row| self.kernels.multiply(factors, row));
    }

    fn add_weighted(&self, ys: &[Values], weights: Columns<'_, Values>, shape: Shape, x: &mut Values) {
        row_ops::add_weighted(self, ys, weights, shape, x);
    }

    fn level(&self, like: &Values, shape: Shape, x: &mut Values) {
        row_ops::level(self, like, shape, x);
    }

    fn sigmoid_mul(&self, gates: &Values, shape: Shape, x: &mut Values) {
        self.by_rows(&mut x[..shape.len()], shape.width, |row, x| {
            self.kernels.sigmoid_mul(&gates[row * shape.width..][..shape.width], x);
        });
    }

    fn linear(
        &self,
        x: &Values,
        rows: usize,
        linear: &Linear,
        store: Store,
        out: &mut Values,
        codes: &mut QuantizedRows,
    ) -> Result<()> {
        let (x, out) = (&x[..rows * linear.weight.k()], &mut out[..rows * linear.weight.n()]);
        products::linear(self, x, rows, linear, store, out, codes)
    }

    fn matmul(
        &self,
        x: &Values,
        rows: usize,
        weight: &PackedMatrix,
        bias: Option<&[f32]>,
        out: &mut Values,
        codes: &mut QuantizedRows,
    ) -> Result<()> {
        let (x, out) = (&x[..rows * weight.k()], &mut out[..rows * weight.n()]);
        products::matmul(self, x, rows, weight, out, Epilogue { bias, ..Epilogue::default() }, codes)
    }

    fn matmul_f32(
        &self,
        x: &Values,
        rows: usize,
        weight: &PackedMatrix,
        bias: Option<&[f32]>,
        out: &mut Values,
    ) {
        let (x, out) = (&x[..rows * weight.k()], &mut out[..rows * weight.n()]);
        let epilogue = Epilogue { bias, ..Epilogue::default() };
        gemm(self.kernels, self.region, Lhs::F32(x), rows, weight, out, epilogue);
    }

    fn gated_mlp(
        &self,
        mlp: ActivatedMlp<'_>,
        x: &Values,
        rows: usize,
        store: Store,
        out: &mut Values,
        buffers: MlpBuffers<'_, Host>,
    ) -> Result<()> {
        let (x, out) =
            (&x[..rows * mlp.weights.gate_up.weight.k()], &mut out[..rows * mlp.weights.down.weight.n()]);
        self.show(&mlp.weights.gate_up, x)?;
        products::gated_mlp(self, mlp, x, rows, store, out, buffers)
    }

    fn cut_off_gate(
        &self,
        gate_up: &Values,
        deviations: f32,
        activation: Activation,
        shape: Shape,
        out: &mut Values,
    ) {
        row_ops::cut_off_gate(self, gate_up, deviations, activation, shape, out);
    }

    fn combine_layer_inputs(
        &self,
        x: &mut Values,
        looked_up: &Values,
        gains: &[f32],
        spec: &DecoderSpec,
        shape: Shape,
    ) {
        row_ops::combine_layer_inputs(self, &mut x[..shape.len()], looked_up, gains, spec, shape.width);
    }

    fn gate_columns(
        &self,
        inputs: Columns<'_, Values>,
        gates: &Values,
        activation: Activation,
        shape: Shape,
        out: &mut Values,
    ) {
        self.by_rows(&mut out[..shape.len()], shape.width, |row, out| {
            out.copy_from_slice(inputs.of_row(row, shape.width));
            self.kernels.activate(activation, &gates[row * shape.width..][..shape.width], out);
        });
    }

    fn choose_experts(
        &self,
        moe: &MoeSpec,
        logits: Columns<'_, Values>,
        rows: usize,
        correction: Option<&[f32]>,
        scales: Option<&[f32]>,
        choices: &mut Choices,
    ) -> Result<()> {
        experts::choose(self, moe, logits, rows, correction, scales, choices)
    }

    fn clear_codes(&self, codes: &mut QuantizedRows) {
        codes.clear();
    }

    fn expert(
        &self,
        expert: ActivatedMlp<'_>,
        input: ExpertInput<'_, Values>,
        out: &mut Values,
        buffers: ExpertBuffers<'_, Host>,
    ) -> Result<()> {
        experts::forward(self, expert, input, out, buffers)
    }

    fn scatter_add(
        &self,
        y: &Values,
        choices: &[Choice],
        shape: Shape,
        out: &mut Values,
        workspace: &mut CpuWorkspace,
    ) {
        experts::scatter_add(self, y, choices, shape, out, &mut workspace.places);
    }

    fn add_shared_expert(&self, y: &Values, gate: SharedGate<'_, Values>, shape: Shape, out: &mut Values) {
        experts::add_shared(self, y, gate, shape, out);
    }

    fn write_plan(&self, cache: &KvCache, batch: &Batch<'_>) -> Result<WritePlan> {
        WritePlan::new(cache, batch)
    }

    fn complete_heads(&self, x: &Values, width: usize, layer: LayerRef<'_>, rows: usize, qkv: &mut Values) {
        heads::complete(self, x, width, layer, rows, qkv);
    }

    fn rotate_heads(&self, heads: HeadOps<'_>, rows: usize, qkv: &mut Values) {
        heads::rotate(self, heads, rows, qkv);
    }

    fn attend(
        &self,
        layer: LayerRef<'_>,
        sinks: Option<&[f32]>,
        cache: &mut KvCache,
        batch: &Batch<'_>,
        plan: &WritePlan,
        qkv: &Values,
        out: &mut Values,
        workspace: &mut CpuWorkspace,
    ) -> Result<()> {
        let (rows, size) = (batch.rows(), layer.spec.qkv_size(layer.layer));
        let width = layer.spec.num_attention_heads * layer.spec.heads(layer.layer).head_dim;
        let (qkv, out) = (&qkv[..rows * size], &mut out[..rows * width]);
        let buffers = attention::AttendBuffers { qkv, out, workspaces: &mut workspace.attention };
        attention::attend(self, layer, sinks, cache, batch, plan, buffers)
    }

    fn latent_heads(&self, input: &LatentInput<'_, Values>, rows: usize, qkv: &mut Values) {
        heads::latent(self, input, rows, qkv);
    }

    fn head_matmul(
        &self,
        input: HeadColumns<'_, Values>,
        rows: usize,
        weights: &[PackedMatrix],
        out: &mut Values,
        workspace: &mut CpuWorkspace,
    ) -> Result<()> {
        heads::matmul(self, input, rows, weights, out, &mut workspace.heads)
    }

    fn place_latent_queries(
        &self,
        queries: &Values,
        mla: &MlaSpec,
        heads: usize,
        rows: usize,
        qkv: &mut Values,
    ) {
        heads::place_latent_queries(self, queries, mla, heads, rows, qkv);
    }

    fn transpose_heads(&self, x: &Values, heads: usize, shape: Shape, out: &mut Values) {
        let Shape { rows, width } = shape;
        self.by_rows(&mut out[..heads * shape.len()], heads * width, |row, out| {
            for (head, out) in out.chunks_exact_mut(width).enumerate() {
                out.copy_from_slice(&x[(head * rows + row) * width..][..width]);
            }
        });
    }

    fn short_conv(
        &self,
        states: StateSource<'_, KvCache>,
        conv: Convolution<'_>,
        bcx: &Values,
        width: usize,
        inputs: &mut Values,
        out: &mut Values,
    ) -> Result<()> {
        recurrent::short_conv(self, states, conv, bcx, width, inputs, out)
    }

    fn recurrence_gates(&self, formula: GateFormula<'_>, logits: &Values, shape: Shape, gates: &mut Values) {
        recurrent::gates(self, formula, logits, shape, gates);
    }

    fn recur(
        &self,
        states: StateSource<'_, KvCache>,
        recur: &Recur<'_, Values>,
        buffers: RecurBuffers<'_, Values>,
    ) -> Result<()> {
        recurrent::recur(self, states, recur, buffers)
    }

    fn gather_results(
        &self,
        recurrence: Recurrence,
        batch: &Batch<'_>,
        results: &Values,
        gate: &OutputGate<'_, Values>,
        out: &mut Values,
    ) {
        recurrent::gather(self, recurrence, batch, results, gate, out);
    }
}
