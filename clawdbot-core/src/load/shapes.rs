//! Random weights in the shapes of published models, for measuring speed.

use clawdbot_kernels::RowSource;

use crate::error::{Error, Result};

/// hidden, layers, heads, KV heads, intermediate, vocabulary, context, head_dim; tied; experts, those of each token, their
/// size
struct Shape(&'static str, &'static str, [usize; 8], bool, [usize; 3]);

const DENSE: [usize; 3] = [0; 3];
const A3B: [usize; 3] = [128, 8, 768];

/// Shapes of published models, from their `config.json`.
const TABLE: [Shape; 10] = [
    Shape("qwen2.5-0.5b", "Qwen2ForCausalLM", [896, 24, 14, 2, 4864, 151_936, 32_768, 64], true, DENSE),
    Shape("qwen2.5-1.5b", "Qwen2ForCausalLM", [1536, 28, 12, 2, 8960, 151_936, 32_768, 128], true, DENSE),
    Shape("qwen3-0.6b", "Qwen3ForCausalLM", [1024, 28, 16, 8, 3072, 151_936, 40_960, 128], true, DENSE),
    Shape("qwen3-1.7b", "Qwen3ForCausalLM", [2048, 28, 16, 8, 6144, 151_936, 40_960, 128], true, DENSE),
    Shape("llama-3.2-1b", "LlamaForCausalLM", [2048, 16, 32, 8, 8192, 128_256, 131_072, 64], true, DENSE),
    Shape("llama-3.2-3b", "LlamaForCausalLM", [3072, 28, 24, 8, 8192, 128_256, 131_072, 128], true, DENSE),
    Shape("llama-3.1-8b", "LlamaForCausalLM", [4096, 32, 32, 8, 14_336, 128_256, 131_072, 128], false, DENSE),
    Shape("mistral-7b", "MistralForCausalLM", [4096, 32, 32, 8, 14_336, 32_768, 32_768, 128], false, DENSE),
    Shape("qwen3-30b-a3b", "Qwen3MoeForCausalLM", [2048, 48, 32, 4, 6144, 151_936, 40_960, 128], false, A3B),
    // The same with fewer layers, for machines that it is too large for.
    Shape(
        "qwen3-30b-a3b-8l",
        "Qwen3MoeForCausalLM",
        [2048, 8, 32, 4, 6144, 151_936, 40_960, 128],
        false,
        A3B,
    ),
];
/// Their names.
pub(super) const NAMES: [&str; TABLE.len()] = {
    let mut names = [""; TABLE.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = TABLE[i].0;
        i += 1;
    }
    names
};

/// The configuration of a shape.
pub(super) fn config(name: &str) -> Result<serde_json::Value> {
    let Some(Shape(_, architecture, sizes, tied, experts)) = TABLE.iter().find(|shape| shape.0 == name)
    else {
        let message = format!("expected a shape, one of {}; found {name:?}", NAMES.join(", "));
        return Err(Error::invalid_argument(message).with("found", name));
    };
    let [hidden, layers, heads, kv_heads, intermediate, vocab, context, head_dim] = sizes;
    Ok(serde_json::json!({
        "architectures": [architecture], "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "intermediate_size": intermediate,
        "vocab_size": vocab, "max_position_embeddings": context, "head_dim": head_dim,
        "tie_word_embeddings": tied, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "num_experts": experts[0], "num_experts_per_tok": experts[1], "moe_intermediate_size": experts[2],
        "norm_topk_prob": true,
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
