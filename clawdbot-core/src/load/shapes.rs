//! Random weights in the shapes of published models, for measuring speed.

use clawdbot_kernels::RowSource;

use crate::error::{Error, Result};

/// What the output projection is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    /// The embedding.
    Tied,
    /// A matrix of its own.
    Own,
}

/// The experts of a mixture.
#[derive(Clone, Copy)]
struct Experts {
    count: usize,
    /// Those that a token is sent to.
    per_token: usize,
    intermediate: usize,
}

/// Sizes of a model, as in its `config.json`.
struct Shape {
    name: &'static str,
    architecture: &'static str,
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    intermediate: usize,
    vocab: usize,
    context: usize,
    head: Head,
    experts: Option<Experts>,
}

const A3B: Experts = Experts { count: 128, per_token: 8, intermediate: 768 };

const QWEN3_30B_A3B: Shape = Shape {
    name: "qwen3-30b-a3b",
    architecture: "Qwen3MoeForCausalLM",
    hidden: 2048,
    layers: 48,
    heads: 32,
    kv_heads: 4,
    head_dim: 128,
    intermediate: 6144,
    vocab: 151_936,
    context: 40_960,
    head: Head::Own,
    experts: Some(A3B),
};

/// Published models, from their `config.json`.
const TABLE: [Shape; 10] = [
    Shape {
        name: "qwen2.5-0.5b",
        architecture: "Qwen2ForCausalLM",
        hidden: 896,
        layers: 24,
        heads: 14,
        kv_heads: 2,
        head_dim: 64,
        intermediate: 4864,
        vocab: 151_936,
        context: 32_768,
        head: Head::Tied,
        experts: None,
    },
    Shape {
        name: "qwen2.5-1.5b",
        architecture: "Qwen2ForCausalLM",
        hidden: 1536,
        layers: 28,
        heads: 12,
        kv_heads: 2,
        head_dim: 128,
        intermediate: 8960,
        vocab: 151_936,
        context: 32_768,
        head: Head::Tied,
        experts: None,
    },
    Shape {
        name: "qwen3-0.6b",
        architecture: "Qwen3ForCausalLM",
        hidden: 1024,
        layers: 28,
        heads: 16,
        kv_heads: 8,
        head_dim: 128,
        intermediate: 3072,
        vocab: 151_936,
        context: 40_960,
        head: Head::Tied,
        experts: None,
    },
    Shape {
        name: "qwen3-1.7b",
        architecture: "Qwen3ForCausalLM",
        hidden: 2048,
        layers: 28,
        heads: 16,
        kv_heads: 8,
        head_dim: 128,
        intermediate: 6144,
        vocab: 151_936,
        context: 40_960,
        head: Head::Tied,
        experts: None,
    },
    Shape {
        name: "llama-3.2-1b",
        architecture: "LlamaForCausalLM",
        hidden: 2048,
        layers: 16,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        intermediate: 8192,
        vocab: 128_256,
        context: 131_072,
        head: Head::Tied,
        experts: None,
    },
    Shape {
        name: "llama-3.2-3b",
        architecture: "LlamaForCausalLM",
        hidden: 3072,
        layers: 28,
        heads: 24,
        kv_heads: 8,
        head_dim: 128,
        intermediate: 8192,
        vocab: 128_256,
        context: 131_072,
        head: Head::Tied,
        experts: None,
    },
    Shape {
        name: "llama-3.1-8b",
        architecture: "LlamaForCausalLM",
        hidden: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        intermediate: 14_336,
        vocab: 128_256,
        context: 131_072,
        head: Head::Own,
        experts: None,
    },
    Shape {
        name: "mistral-7b",
        architecture: "MistralForCausalLM",
        hidden: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        intermediate: 14_336,
        vocab: 32_768,
        context: 32_768,
        head: Head::Own,
        experts: None,
    },
    QWEN3_30B_A3B,
    // The same with fewer layers, for machines that it is too large for.
    Shape { name: "qwen3-30b-a3b-8l", layers: 8, ..QWEN3_30B_A3B },
];

/// Their names.
pub(super) const NAMES: [&str; TABLE.len()] = {
    let mut names = [""; TABLE.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = TABLE[i].name;
        i += 1;
    }
    names
};

/// The configuration of a shape.
///
/// # Errors
/// `InvalidArgument` for a name that is not in [`NAMES`].
pub(super) fn config(name: &str) -> Result<serde_json::Value> {
    let shape = TABLE.iter().find(|shape| shape.name == name).ok_or_else(|| {
        let message = format!("expected a shape, one of {}; found {name:?}", NAMES.join(", "));
        Error::invalid_argument(message).with("found", name)
    })?;
    let experts = shape.experts.unwrap_or(Experts { count: 0, per_token: 0, intermediate: 0 });
    Ok(serde_json::json!({
        "architectures": [shape.architecture], "hidden_size": shape.hidden, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.intermediate, "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context, "head_dim": shape.head_dim,
        "tie_word_embeddings": shape.head == Head::Tied, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "num_experts": experts.count, "num_experts_per_tok": experts.per_token,
        "moe_intermediate_size": experts.intermediate, "norm_topk_prob": true,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    }))
}

/// Nearly normal weights of standard deviation 0.02, a function of name and position.
pub(super) struct RandomRows {
    seed: u64,
    rows: usize,
    cols: usize,
}

impl RandomRows {
    /// Of the matrix `name`.
    pub(super) fn new(name: &str, rows: usize, cols: usize) -> Self {
        RandomRows { seed: seed(name), rows, cols }
    }
}

/// FNV-1a.
fn seed(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl RowSource for RandomRows {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        // Sixteen xorshift generators side by side (Marsaglia, "Xorshift RNGs", 2003), which compilers turn into vectors.
        const LANES: usize = 16;
        let mut state = [0_u32; LANES];
        for (lane, state) in state.iter_mut().enumerate() {
            // SplitMix64 keeps neighbouring rows and lanes apart. Zero is the one state that has no successor.
            let mut x =
                self.seed.wrapping_add(((row * LANES + lane + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *state = ((x >> 32) as u32).max(1);
        }
        let mut next = |values: &mut [f32; LANES]| {
            for (state, value) in state.iter_mut().zip(values) {
                *state ^= *state << 13;
                *state ^= *state >> 17;
                *state ^= *state << 5;
                // The sum of four uniform bytes: mean 510, variance 4 * (256^2 - 1) / 12.
                let bits = *state;
                let sum = (bits & 0xff) + ((bits >> 8) & 0xff) + ((bits >> 16) & 0xff) + (bits >> 24);
                *value = (sum as i32 - 510) as f32 * (0.02 / 147.8);
            }
        };
        let (chunks, tail) = out.as_chunks_mut::<LANES>();
        chunks.iter_mut().for_each(&mut next);
        let mut last = [0.0; LANES];
        next(&mut last);
        tail.copy_from_slice(&last[..tail.len()]);
    }
}
