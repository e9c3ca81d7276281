//! The operations that the forward pass is written in.
//!
//! The decoder, its mixers and its MLPs call [`Ops`] to say what is computed; an implementation decides where and how. Each
//! implementation is a folder; today there is one, `cpu/`. Weights, batches and tables of rotations are in host memory, and an
//! implementation may keep copies of them. What a pass computes stays in the implementation's [`Memory`].
//!
//! Buffers may be longer than an operation needs: every operation is given the number of rows and their width.
//! Each row's result depends on its own sequence alone, with the same bits for any batch.

mod args;

use clawdbot_kernels::PackedMatrix;

pub(crate) use self::args::{
    ActivatedMlp, AddedTables, Columns, Convolution, Embedding, ExpertBuffers, ExpertInput, GateFormula,
    GroupNorm, HeadColumns, HeadOps, LatentInput, LayerRef, MlpBuffers, Norm, OutputGate, Recur,
    RecurBuffers, Shape, SharedGate, StateSource, Store, UnitLength, UpdateRule,
};
use super::batch::Batch;
use super::linear::Linear;
use super::recurrence::Recurrence;
use super::routing::{Choice, Choices};
use crate::error::Result;
use crate::spec::mixers::mla::MlaSpec;
use crate::spec::{Activation, DecoderSpec, MoeSpec};

/// Where an implementation of [`Ops`] keeps what a pass computes.
pub(crate) trait Memory {
    /// Rows of f32 values.
    type Rows: Buffer;
    /// Quantized rows, the input of products with quantized weights.
    type Codes: Default;
    /// Buffers that operations use internally.
    type Workspace: Workspace;
    /// Keys, values and recurrent states of all sequences.
    type Cache;
}

/// Room for values, grown as needed.
pub(crate) trait Buffer: Default {
    /// Makes room for `len` values. Their contents are unspecified.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    fn reserve(&mut self, len: usize) -> Result<()>;
}

/// Buffers that operations use internally, see [`Memory::Workspace`].
pub(crate) trait Workspace: Default {
    /// Makes room for passes of `rows` rows on `threads` threads.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    fn reserve(&mut self, spec: &DecoderSpec, rows: usize, threads: usize) -> Result<()>;

    /// Bytes that [`Workspace::reserve`] takes at most; `None` when they exceed the address space.
    fn bytes(spec: &DecoderSpec, rows: usize, threads: usize) -> Option<usize>;
}

/// Rows in the memory of `O`.
pub(crate) type Rows<O> = <<O as Ops>::Memory as Memory>::Rows;
/// Quantized rows in the memory of `O`.
pub(crate) type Codes<O> = <<O as Ops>::Memory as Memory>::Codes;
/// See [`Memory::Workspace`].
pub(crate) type WorkspaceOf<O> = <<O as Ops>::Memory as Memory>::Workspace;
/// See [`Memory::Cache`].
pub(crate) type Cache<O> = <<O as Ops>::Memory as Memory>::Cache;

/// The operations of a forward pass. Once [`Ops::stopped`] is true, results may be incomplete.
///
/// # Errors
/// `OutOfBudget` without memory; `Internal` when the cache lacks a page or a state.
pub(crate) trait Ops: Sized {
    /// Where results are kept.
    type Memory: Memory;
    /// The pages and slots that a batch's keys and values are written to: made once per pass, for all layers.
    type WritePlan;

    /// Whether the pass is to be abandoned.
    fn stopped(&self) -> bool;
    /// Number of threads, for [`Workspace::reserve`].
    fn threads(&self) -> usize;

    // Rows.

    /// `out = multiplier * table[token]`, plus the rows for the token's position and type.
    fn embed(&self, embedding: &Embedding<'_>, batch: &Batch<'_>, out: &mut Rows<Self>);
    /// `out = x`
    fn copy(&self, x: &Rows<Self>, shape: Shape, out: &mut Rows<Self>);
    /// `x = 0`
    fn zero(&self, x: &mut Rows<Self>, shape: Shape);
    /// `out = norm(x)`
    fn norm(&self, x: &Rows<Self>, norm: Norm<'_>, shape: Shape, out: &mut Rows<Self>);
    /// `x = rms_norm(x)`
    fn norm_in_place(&self, x: &mut Rows<Self>, gains: &[f32], eps: f32, shape: Shape);
    /// `out = rms_norm(x)` of as many columns as there are gains.
    fn norm_columns(
        &self,
        x: Columns<'_, Rows<Self>>,
        gains: &[f32],
        eps: f32,
        rows: usize,
        out: &mut Rows<Self>,
    );
    /// The rows `taken` of `x`, normed where there is a norm.
    fn take_rows(
        &self,
        x: &Rows<Self>,
        taken: &[usize],
        norm: Option<Norm<'_>>,
        width: usize,
        out: &mut Rows<Self>,
    );
    /// `out = [norm(x), norm(state)]` with the states of `batch`: rows of twice `width`.
    fn join_states(
        &self,
        x: &Rows<Self>,
        batch: &Batch<'_>,
        norms: [Norm<'_>; 2],
        width: usize,
        out: &mut Rows<Self>,
    );
    /// `x += factor * y`
    fn add_scaled(&self, y: &Rows<Self>, factor: f32, shape: Shape, x: &mut Rows<Self>);
    /// `x = cap * tanh(factor * x / cap)`; without a cap `factor * x`.
    fn scale_and_cap(&self, x: &mut Rows<Self>, factor: f32, cap: Option<f32>, shape: Shape);
    /// `x = act(x)`
    fn activate(&self, x: &mut Rows<Self>, activation: Activation, shape: Shape);
    /// `x *= factors`, row by row, `[width]`.
    fn scale_columns(&self, x: &mut Rows<Self>, factors: &[f32], shape: Shape);
    /// `x += sum over i of weights[i] * ys[i]`, in this order, with as many columns of weights as there are `ys`.
    fn add_weighted(
        &self,
        ys: &[Rows<Self>],
        weights: Columns<'_, Rows<Self>>,
        shape: Shape,
        x: &mut Rows<Self>,
    );
    /// `x *= sqrt(mean(like^2)) / sqrt(max(mean(x^2), 1e-5))`, row by row.
    fn level(&self, like: &Rows<Self>, shape: Shape, x: &mut Rows<Self>);
    /// `x *= sigmoid(gates)`
    fn sigmoid_mul(&self, gates: &Rows<Self>, shape: Shape, x: &mut Rows<Self>);

    // Products.

    /// `out = x * weight + bias`, or `out += ...`, and what adapters add: `x` is `[rows, k]`, `out` `[rows, n]`.
    fn linear(
        &self,
        x: &Rows<Self>,
        rows: usize,
        linear: &Linear,
        store: Store,
        out: &mut Rows<Self>,
        codes: &mut Codes<Self>,
    ) -> Result<()>;
    /// `out = x * weight + bias`, without adapters.
    fn matmul(
        &self,
        x: &Rows<Self>,
        rows: usize,
        weight: &PackedMatrix,
        bias: Option<&[f32]>,
        out: &mut Rows<Self>,
        codes: &mut Codes<Self>,
    ) -> Result<()>;
    /// `out = x * weight + bias` with weights in f32: routers and gates.
    fn matmul_f32(
        &self,
        x: &Rows<Self>,
        rows: usize,
        weight: &PackedMatrix,
        bias: Option<&[f32]>,
        out: &mut Rows<Self>,
    );
    /// `out = down(act(gate(x)) * up(x))`, or `out += ...`.
    fn gated_mlp(
        &self,
        mlp: ActivatedMlp<'_>,
        x: &Rows<Self>,
        rows: usize,
        store: Store,
        out: &mut Rows<Self>,
        buffers: MlpBuffers<'_, Self::Memory>,
    ) -> Result<()>;

    /// `out = act(cut(gate)) * up` of rows with the gate before up, twice `shape.width`; `cut` subtracts the mean of the gate
    /// and `deviations` standard deviations, and what is then below 0 becomes 0.
    fn cut_off_gate(
        &self,
        gate_up: &Rows<Self>,
        deviations: f32,
        activation: Activation,
        shape: Shape,
        out: &mut Rows<Self>,
    );

    // Per-layer embeddings, see `layer_inputs.rs`.

    /// `x = (norm(x / sqrt(hidden_size)) + looked_up) / sqrt(2)`, normed in pieces as long as `gains`; `shape` is that of `x`.
    fn combine_layer_inputs(
        &self,
        x: &mut Rows<Self>,
        looked_up: &Rows<Self>,
        gains: &[f32],
        spec: &DecoderSpec,
        shape: Shape,
    );
    /// `out = act(gates) * inputs`
    fn gate_columns(
        &self,
        inputs: Columns<'_, Rows<Self>>,
        gates: &Rows<Self>,
        activation: Activation,
        shape: Shape,
        out: &mut Rows<Self>,
    );

    // Experts, see `moe.rs`.

    /// The experts of each row by the router's `logits`, in ascending order of experts, then rows. `scales` multiply the
    /// experts' weights.
    fn choose_experts(
        &self,
        moe: &MoeSpec,
        logits: Columns<'_, Rows<Self>>,
        rows: usize,
        correction: Option<&[f32]>,
        scales: Option<&[f32]>,
        choices: &mut Choices,
    ) -> Result<()>;
    /// Invalidates the quantized input of a layer.
    fn clear_codes(&self, codes: &mut Codes<Self>);
    /// One expert's result for the rows that chose it: `[taken, hidden_size]`.
    fn expert(
        &self,
        expert: ActivatedMlp<'_>,
        input: ExpertInput<'_, Rows<Self>>,
        out: &mut Rows<Self>,
        buffers: ExpertBuffers<'_, Self::Memory>,
    ) -> Result<()>;
    /// `out[choice.row] += choice.weight * y[place]`, for each choice at its place.
    fn scatter_add(
        &self,
        y: &Rows<Self>,
        choices: &[Choice],
        shape: Shape,
        out: &mut Rows<Self>,
        workspace: &mut WorkspaceOf<Self>,
    );
    /// `out += y`, or `sigmoid(gate) * y`.
    fn add_shared_expert(
        &self,
        y: &Rows<Self>,
        gate: SharedGate<'_, Rows<Self>>,
        shape: Shape,
        out: &mut Rows<Self>,
    );

    // Attention.

    /// The plan by which [`Ops::attend`] writes the keys and values of `batch`.
    fn write_plan(&self, cache: &Cache<Self>, batch: &Batch<'_>) -> Result<Self::WritePlan>;
    /// Copies rows of `width` values to rows of all heads, where a layer computes only some: its values equal its keys, or its keys
    /// and values are those of another layer.
    fn complete_heads(
        &self,
        x: &Rows<Self>,
        width: usize,
        layer: LayerRef<'_>,
        rows: usize,
        qkv: &mut Rows<Self>,
    );
    /// Norms and rotates heads, in place.
    fn rotate_heads(&self, heads: HeadOps<'_>, rows: usize, qkv: &mut Rows<Self>);
    /// Writes keys and values into the cache, unless the layer shares those of another, and attends. Heads may have `sinks`.
    #[expect(clippy::too_many_arguments, reason = "what attention reads, and where it writes")]
    fn attend(
        &self,
        layer: LayerRef<'_>,
        sinks: Option<&[f32]>,
        cache: &mut Cache<Self>,
        batch: &Batch<'_>,
        plan: &Self::WritePlan,
        qkv: &Rows<Self>,
        out: &mut Rows<Self>,
        workspace: &mut WorkspaceOf<Self>,
    ) -> Result<()>;

    // Latent attention, see `mixers/mla.rs`.

    /// Rows of query heads, one key and one value: the parts of queries that are rotated, and the normed latents.
    /// [`Ops::place_latent_queries`] adds the rest of the queries.
    fn latent_heads(&self, input: &LatentInput<'_, Rows<Self>>, rows: usize, qkv: &mut Rows<Self>);
    /// Each head's columns times the head's matrix: `[heads, rows, n]`.
    fn head_matmul(
        &self,
        input: HeadColumns<'_, Rows<Self>>,
        rows: usize,
        weights: &[PackedMatrix],
        out: &mut Rows<Self>,
        workspace: &mut WorkspaceOf<Self>,
    ) -> Result<()>;
    /// The latent parts of queries, `[heads, rows, kv_lora_rank]`, into rows of heads.
    fn place_latent_queries(
        &self,
        queries: &Rows<Self>,
        mla: &MlaSpec,
        heads: usize,
        rows: usize,
        qkv: &mut Rows<Self>,
    );
    /// `[heads, rows, width]` to `[rows, heads * width]`; `shape` is that of a head.
    fn transpose_heads(&self, x: &Rows<Self>, heads: usize, shape: Shape, out: &mut Rows<Self>);

    // Recurrent layers.

    /// A gated short convolution: rows of `bcx` are B, C, x, `out = C * conv(B * x)`; `inputs` is scratch. All have
    /// `width` channels.
    fn short_conv(
        &self,
        states: StateSource<'_, Cache<Self>>,
        conv: Convolution<'_>,
        bcx: &Rows<Self>,
        width: usize,
        inputs: &mut Rows<Self>,
        out: &mut Rows<Self>,
    ) -> Result<()>;
    /// `[heads, rows, 2]`: decay and weight of each head's tokens. `shape` has the heads as its width.
    fn recurrence_gates(
        &self,
        formula: GateFormula<'_>,
        logits: &Rows<Self>,
        shape: Shape,
        gates: &mut Rows<Self>,
    );
    /// Convolves with SiLU, then runs a state over the rows of each sequence and head, token after token: the state decays,
    /// gets the key and value of the token by the update rule, and is read with its query.
    fn recur(
        &self,
        states: StateSource<'_, Cache<Self>>,
        recur: &Recur<'_, Rows<Self>>,
        buffers: RecurBuffers<'_, Rows<Self>>,
    ) -> Result<()>;
    /// The results of [`Ops::recur`] as rows, gated and normed.
    fn gather_results(
        &self,
        recurrence: Recurrence,
        batch: &Batch<'_>,
        results: &Rows<Self>,
        gate: &OutputGate<'_, Rows<Self>>,
        out: &mut Rows<Self>,
    );
}
