//! Every family, converted from a directory as llama.cpp's converter does it: the same bits.
//!
//! With `CLAWDBOT_GGUF_OUT` the files stay in that folder, where other programs can read them, each with the bits of the
//! logits of 20 tokens. Token i is `(37 i + 5) % vocab_size`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::tests::{logits, save};
use crate::api::tests::support;
use crate::error::ErrorKind;
use crate::load::source::Source;
use crate::options::{ModelOptions, RuntimeOptions, WeightType};
use crate::runtime::Runtime;
use crate::weights::gguf_testing::{typed_array, typed_bool, typed_f32, typed_string, typed_u32};
use crate::weights::testing::{TempDir, check, f32_bytes};
use crate::weights::{GgufWriter, TensorType, WeightSource};

/// Fixture, architecture in GGUF files, rows of queries and keys in pairs, norms stored less one, what to change in the
/// configuration first: what the format cannot say.
type Case = (&'static str, &'static str, bool, bool, fn(&mut Value));

const CASES: &[Case] = &[
    ("llama", "llama", true, false, |_| {}),
    ("llama_yarn", "llama", true, false, |_| {}),
    ("mistral", "llama", true, false, |_| {}),
    ("mixtral", "llama", true, false, |_| {}),
    ("qwen2", "qwen2", false, false, |_| {}),
    ("qwen3", "qwen3", false, false, |_| {}),
    ("qwen2_moe", "qwen2moe", false, false, |_| {}),
    ("qwen3_moe", "qwen3moe", false, false, |_| {}),
    ("qwen3_next", "qwen3next", false, true, |_| {}),
    ("gemma", "gemma", false, true, |_| {}),
    ("gemma2", "gemma2", false, true, |_| {}),
    ("gemma3", "gemma3", false, true, |_| {}),
    ("phi3", "phi3", false, false, |_| {}),
    ("phi3", "phi3", false, false, longrope),
    ("phi3_partial", "phi3", false, false, |_| {}),
    // Every fourth layer is not rotated, in files of this format always.
    ("smollm3", "smollm3", true, false, |config| config["no_rope_layers"] = Value::Null),
    ("olmo2", "olmo2", false, false, |_| {}),
    ("granite", "granite", true, false, |_| {}),
    ("cohere2", "cohere2", false, false, |_| {}),
    ("glm4", "glm4", false, false, |_| {}),
    ("gpt_oss", "gpt-oss", false, false, |_| {}),
    ("gpt_oss", "gpt-oss", false, false, |config| {
        config["rope_parameters"] = plain_rope();
    }),
    ("deepseek_v3", "deepseek2", false, false, |_| {}),
    ("deepseek_v3", "deepseek2", false, false, |config| {
        config["rope_parameters"] = json!({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0,
            "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 64});
    }),
    ("deepseek_v3", "deepseek2", false, false, |config| deepseek_v2(config, "greedy")),
    ("deepseek_v3", "deepseek2", false, false, |config| deepseek_v2(config, "group_limited_greedy")),
    ("lfm2", "lfm2", false, false, |_| {}),
    ("qwen3_5", "qwen35", false, true, |_| {}),
    ("qwen3_5_moe", "qwen35moe", false, true, |_| {}),
    ("gemma3n", "gemma3n", false, false, |_| {}),
    // The factors are stored in any case, and files do not say that they are not used.
    ("gemma3n_two_streams", "gemma3n", false, false, |config| config["altup_correct_scale"] = json!(true)),
    ("gemma4", "gemma4", false, false, |_| {}),
    ("gemma4_moe", "gemma4", false, false, |_| {}),
    ("ministral3", "mistral3", true, false, |_| {}),
    // As published: an attention factor that is also the one that follows from the factor.
    ("olmo3", "olmo2", false, false, |config| {
        let rope = config["rope_parameters"]["full_attention"].as_object_mut().unwrap();
        rope.retain(|key, _| !key.starts_with("mscale"));
        rope.insert("attention_factor".to_owned(), json!(1.277_258_872_223_978_2));
    }),
    ("granite4", "granitehybrid", true, false, |_| {}),
    ("granite4_dense", "granitehybrid", true, false, |_| {}),
    ("seed_oss", "seed_oss", false, false, |_| {}),
    ("stablelm2", "stablelm", false, false, |_| {}),
    ("stablelm2_parallel", "stablelm", false, false, |_| {}),
    ("exaone4", "exaone4", false, false, |_| {}),
    ("exaone4_small", "exaone4", false, false, |_| {}),
    ("ernie4_5", "ernie4_5", false, false, |_| {}),
    ("starcoder2", "starcoder2", false, false, |_| {}),
    ("phi2", "phi2", false, false, |_| {}),
    ("gpt2", "gpt2", false, false, |_| {}),
    ("apertus", "apertus", false, false, |config| config["rope_parameters"] = plain_rope()),
    // Files have the base that follows from `alpha`, rounded.
    ("hunyuan", "hunyuan-dense", false, false, |config| config["rope_parameters"] = plain_rope()),
    ("glm4_moe", "glm4moe", false, false, |_| {}),
    ("minimax_m2", "minimax-m2", false, false, |_| {}),
    ("qwen3_vl", "qwen3vl", false, false, |_| {}),
    ("nemotron_h", "nemotron_h", false, false, |_| {}),
    ("nemotron_h_moe", "nemotron_h_moe", false, false, |_| {}),
    // Every fourth layer is not rotated, and the sizes are those of the published models, in files of this format always.
    ("llama4", "llama4", false, false, |config| {
        let config = &mut config["text_config"];
        for key in ["no_rope_layers", "layer_types", "attn_scale", "floor_scale"] {
            config[key] = Value::Null;
        }
        config["attention_chunk_size"] = json!(8192);
        config["rope_parameters"] = plain_rope();
    }),
];

fn plain_rope() -> Value {
    json!({"rope_type": "default", "rope_theta": 150_000.0})
}

/// The model as one of the second version, whose choice has no corrections.
fn deepseek_v2(config: &mut Value, method: &str) {
    config["architectures"] = json!(["DeepseekV2ForCausalLM"]);
    config["scoring_func"] = json!("softmax");
    config["topk_method"] = json!(method);
    config["norm_topk_prob"] = json!(false);
    if method == "greedy" {
        (config["n_group"], config["topk_group"]) = (json!(1), json!(1));
    }
}

fn longrope(config: &mut Value) {
    let factors = |factor: f32| (0..8_u8).map(|i| 1.0 + factor * f32::from(i)).collect::<Vec<_>>();
    config["rope_parameters"] = Value::Null;
    config["rope_theta"] = json!(10000.0);
    config["original_max_position_embeddings"] = json!(16);
    config["rope_scaling"] =
        json!({"type": "longrope", "short_factor": factors(0.125), "long_factor": factors(1.5)});
}

/// A tensor of a checkpoint.
#[derive(Clone)]
struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Tensor {
    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks_exact(if self.shape.len() > 1 { *self.shape.last().unwrap() } else { 1 })
    }

    /// Its rows in another order, or some of them.
    fn pick(&self, rows: impl Iterator<Item = usize>) -> Tensor {
        let all: Vec<&[f32]> = self.rows().collect();
        let picked: Vec<&[f32]> = rows.map(|row| all[row]).collect();
        let mut shape = vec![picked.len()];
        shape.extend(self.shape.last().filter(|_| self.shape.len() > 1));
        Tensor { shape, data: picked.concat() }
    }

    /// Its last two dimensions exchanged.
    fn transposed(&self) -> Tensor {
        let [.., n, k] = *self.shape.as_slice() else { panic!() };
        let turn = |matrix: &[f32]| (0..n * k).map(|i| matrix[i % n * k + i / n]).collect::<Vec<_>>();
        let mut shape = self.shape.clone();
        let rank = shape.len();
        shape.swap(rank - 1, rank - 2);
        Tensor { shape, data: self.data.chunks_exact(n * k).flat_map(turn).collect() }
    }

    /// A vector as a matrix of one column.
    fn column(&self) -> Tensor {
        self.reshaped(&[self.data.len(), 1])
    }

    fn map(&self, change: impl Fn(f32) -> f32) -> Tensor {
        Tensor { shape: self.shape.clone(), data: self.data.iter().map(|&x| change(x)).collect() }
    }

    fn reshaped(&self, shape: &[usize]) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), self.data.len());
        Tensor { shape: shape.to_vec(), data: self.data.clone() }
    }

    /// Several of one shape, one after another.
    fn stacked(parts: &[&Tensor]) -> Tensor {
        let shape = [&[parts.len()], parts[0].shape.as_slice()].concat();
        Tensor { shape, data: parts.iter().flat_map(|part| part.data.clone()).collect() }
    }
}

/// A layer's modules.
const MODULES: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("operator_norm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.out_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("norm", "attn_norm"),
    ("mixer.in_proj", "ssm_in"),
    ("mixer.conv1d", "ssm_conv1d"),
    ("mixer.norm", "ssm_norm"),
    ("mixer.out_proj", "ssm_out"),
    ("mixer.q_proj", "attn_q"),
    ("mixer.k_proj", "attn_k"),
    ("mixer.v_proj", "attn_v"),
    ("mixer.o_proj", "attn_output"),
    ("mixer.up_proj", "ffn_up"),
    ("mixer.down_proj", "ffn_down"),
    ("mixer.gate", "ffn_gate_inp"),
    ("mixer.shared_experts.up_proj", "ffn_up_shexp"),
    ("mixer.shared_experts.down_proj", "ffn_down_shexp"),
    ("self_attn.q_layernorm", "attn_q_norm"),
    ("self_attn.query_layernorm", "attn_q_norm"),
    ("self_attn.key_layernorm", "attn_k_norm"),
    ("self_attn.dense", "attn_output"),
    ("attn.c_attn", "attn_qkv"),
    ("attn.c_proj", "attn_output"),
    ("ln_1", "attn_norm"),
    ("ln_2", "ffn_norm"),
    ("attention_layernorm", "attn_norm"),
    ("feedforward_layernorm", "ffn_norm"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
    ("mlp.fc1", "ffn_up"),
    ("mlp.fc2", "ffn_down"),
    ("self_attn.k_layernorm", "attn_k_norm"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("post_self_attn_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("post_mlp_layernorm", "post_ffw_norm"),
    ("ffn_norm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("feed_forward.w1", "ffn_gate"),
    ("feed_forward.w3", "ffn_up"),
    ("feed_forward.w2", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("conv.in_proj", "shortconv.in_proj"),
    ("conv.out_proj", "shortconv.out_proj"),
    ("conv.conv", "shortconv.conv"),
    ("linear_attn.conv1d", "ssm_conv1d"),
    ("linear_attn.norm", "ssm_norm"),
    ("linear_attn.out_proj", "ssm_out"),
    ("linear_attn.in_proj_ba", "ssm_ba"),
    ("linear_attn.in_proj_qkv", "attn_qkv"),
    ("linear_attn.in_proj_z", "attn_gate"),
    ("linear_attn.in_proj_b", "ssm_beta"),
    ("linear_attn.in_proj_a", "ssm_alpha"),
    ("mamba.in_proj", "ssm_in"),
    ("mamba.conv1d", "ssm_conv1d"),
    ("mamba.norm", "ssm_norm"),
    ("mamba.out_proj", "ssm_out"),
    ("block_sparse_moe.router.layer", "ffn_gate_inp"),
    ("per_layer_input_gate", "inp_gate"),
    ("per_layer_projection", "proj"),
    ("post_per_layer_input_norm", "post_norm"),
    ("altup.correction_coefs", "altup_correct_coef"),
    ("altup.prediction_coefs", "altup_predict_coef"),
    ("altup.modality_router", "altup_router"),
    ("altup.router_norm", "altup_router_norm"),
    ("laurel.linear_left", "laurel_l"),
    ("laurel.linear_right", "laurel_r"),
    ("laurel.post_laurel_norm", "laurel_post_norm"),
    ("router.proj", "ffn_gate_inp"),
    ("post_feedforward_layernorm_1", "post_ffw_norm_1"),
    ("pre_feedforward_layernorm_2", "pre_ffw_norm_2"),
    ("post_feedforward_layernorm_2", "post_ffw_norm_2"),
    ("feed_forward.gate_proj", "ffn_gate"),
    ("feed_forward.up_proj", "ffn_up"),
    ("feed_forward.down_proj", "ffn_down"),
    ("feed_forward.router", "ffn_gate_inp"),
    ("feed_forward.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("feed_forward.shared_expert.up_proj", "ffn_up_shexp"),
    ("feed_forward.shared_expert.down_proj", "ffn_down_shexp"),
];

/// Families whose norm after attention is not the MLP's.
const SANDWICH: [&str; 12] = [
    "glm4moe",
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "olmo2",
    "gpt-oss",
    "qwen3next",
    "qwen35",
    "qwen35moe",
    "seed_oss",
    "exaone4",
];

struct Converter {
    /// Names and shapes that older and newer converters write.
    others: bool,
    family: &'static str,
    pairs: bool,
    plus_one: bool,
    config: Value,
    /// Layer, projection -> number and weights of each expert.
    experts: BTreeMap<(String, String), BTreeMap<usize, Tensor>>,
    /// Tensor outside of layers -> number and weights of each matrix in it.
    stacked: BTreeMap<&'static str, BTreeMap<usize, Tensor>>,
    /// Parameter of activations -> those of all layers.
    activation: BTreeMap<String, Vec<f32>>,
    out: Vec<(String, Tensor)>,
}

impl Converter {
    fn size(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap_or_else(|| panic!("{key}")) as usize
    }

    fn head_dim(&self) -> usize {
        match self.config["head_dim"].as_u64() {
            Some(size) => size as usize,
            None => self.size("hidden_size") / self.size("num_attention_heads"),
        }
    }

    fn layer_types(&self) -> &[Value] {
        self.config["layer_types"].as_array().unwrap()
    }

    /// Elements of a head of the last layer, which has no window.
    fn size_of_last_head(&self) -> usize {
        let last = (self.size("num_hidden_layers") - 1).to_string();
        self.config["per_layer_config"][last]["head_dim"].as_u64().unwrap() as usize
    }

    fn tensor(&mut self, name: &str, mut tensor: Tensor) {
        if self.plus_one && name.ends_with("norm.weight") && !name.contains("linear_attn") {
            tensor = tensor.map(|x| x + 1.0);
        }
        let of_layer = name.strip_prefix("model.layers.").or(name.strip_prefix("transformer.h."));
        let of_layer = of_layer.or(name.strip_prefix("backbone.layers."));
        let Some((layer, rest)) = of_layer.and_then(|rest| rest.split_once('.')) else {
            // llama.cpp has no tied output in this family.
            if name == "model.embed_tokens.weight"
                && self.family == "olmo2"
                && self.config["tie_word_embeddings"] == true
            {
                self.out.push(("output.weight".to_owned(), tensor.clone()));
            }
            for (module, stored) in [
                ("model.altup_projections.", "altup_proj.weight"),
                ("model.altup_unembed_projections.", "altup_unembd_proj.weight"),
            ] {
                let number = name.strip_prefix(module).and_then(|rest| rest.strip_suffix(".weight"));
                if let Some(number) = number.map(|number| number.parse().unwrap()) {
                    self.stacked.entry(stored).or_default().insert(number, tensor);
                    return;
                }
            }
            let stored = match name {
                "model.embed_tokens.weight" => "token_embd.weight",
                "model.norm.weight" => "output_norm.weight",
                "model.norm.bias" => "output_norm.bias",
                "model.embedding_norm.weight" if self.others => "output_norm.weight",
                "model.embedding_norm.weight" => "token_embd_norm.weight",
                "lm_head.weight" => "output.weight",
                "lm_head.bias" => "output.bias",
                "model.final_layernorm.weight" | "transformer.ln_f.weight" => "output_norm.weight",
                "model.final_layernorm.bias" | "transformer.ln_f.bias" => "output_norm.bias",
                "backbone.embeddings.weight" => "token_embd.weight",
                "backbone.norm_f.weight" => "output_norm.weight",
                "transformer.wte.weight" => "token_embd.weight",
                "transformer.wpe.weight" => "position_embd.weight",
                "model.embed_tokens_per_layer.weight" => "per_layer_token_embd.weight",
                "model.per_layer_model_projection.weight" => "per_layer_model_proj.weight",
                "model.per_layer_projection_norm.weight" => "per_layer_proj_norm.weight",
                _ => panic!("{name}"),
            };
            return self.out.push((stored.to_owned(), tensor));
        };
        if self.config["linear_conv_kernel_dim"].is_u64() && self.family != "qwen3next" {
            tensor = self.tiled(rest, &tensor);
        }
        let (module, kind) = rest.rsplit_once('.').unwrap_or((rest, ""));
        if let Some(parameter) = rest.strip_prefix("mlp.act_fn.") {
            return self.activation.entry(parameter.to_owned()).or_default().push(tensor.data[0]);
        }
        if self.family == "gpt2" && kind == "weight" && tensor.shape.len() == 2 {
            tensor = tensor.transposed();
        }
        let mut put = |stored: &str, tensor: Tensor| self.out.push((format!("blk.{layer}.{stored}"), tensor));
        match rest {
            "self_attn.sinks" => return put("attn_sinks.weight", tensor),
            "linear_attn.A_log" => return put("ssm_a", tensor.map(|x| -libm::expf(x))),
            "linear_attn.dt_bias" => return put("ssm_dt.bias", tensor),
            "mamba.A_log" | "mixer.A_log" => return put("ssm_a", tensor.map(|x| -libm::expf(x)).column()),
            "mamba.D" | "mixer.D" => return put("ssm_d", tensor.column()),
            "mamba.dt_bias" | "mixer.dt_bias" => return put("ssm_dt.bias", tensor),
            "altup.correct_output_scale" => return put("altup_correct_scale.weight", tensor),
            "layer_scalar" => return put("layer_output_scale.weight", tensor),
            "router.scale" => return put("ffn_gate_inp.scale", tensor),
            "router.per_expert_scale" => return put("ffn_down_exps.scale", tensor),
            "experts.gate_up_proj" => return put("ffn_gate_up_exps.weight", tensor),
            "experts.down_proj" | "block_sparse_moe.output_linear.weight" => {
                return put("ffn_down_exps.weight", tensor);
            }
            "block_sparse_moe.input_linear.weight" => {
                let [experts, rows, k] = *tensor.shape.as_slice() else { panic!() };
                for (first, what) in [(0, "gate"), (rows / 2, "up")] {
                    let part =
                        (0..experts * rows).filter(|row| row % rows / (rows / 2) * (rows / 2) == first);
                    let part = tensor.pick(part).reshaped(&[experts, rows / 2, k]);
                    put(&format!("ffn_{what}_exps.weight"), part);
                }
                return;
            }
            "shared_mlp.input_linear.weight" | "shared_mlp.output_linear.weight" => {
                let shared = if self.config["num_local_experts"] == 0 { "" } else { "_shexp" };
                if rest.contains("output") {
                    return put(&format!("ffn_down{shared}.weight"), tensor);
                }
                let rows = tensor.shape[0];
                put(&format!("ffn_gate{shared}.weight"), tensor.pick(0..rows / 2));
                return put(&format!("ffn_up{shared}.weight"), tensor.pick(rows / 2..rows));
            }
            "mlp.gate.e_score_correction_bias" if self.config["scoring_func"] == "softmax" => return,
            "mlp.gate.e_score_correction_bias"
            | "mixer.gate.e_score_correction_bias"
            | "block_sparse_moe.e_score_correction_bias" => {
                return put("exp_probs_b.bias", tensor);
            }
            "post_attention_layernorm.weight" | "post_attention_layernorm.bias" => {
                let sandwich = SANDWICH.contains(&self.family);
                let module = if sandwich { "post_attention_norm" } else { "ffn_norm" };
                return put(&rest.replace("post_attention_layernorm", module), tensor);
            }
            "linear_attn.in_proj_qkvz.weight" if self.others => return put("ssm_in.weight", tensor),
            "linear_attn.in_proj_qkvz.weight" => return self.qkvz(layer, &tensor),
            "self_attn.kv_b_proj.weight" if self.others => return put("attn_kv_b.weight", tensor),
            "self_attn.kv_b_proj.weight" => return self.kv_b(layer, &tensor),
            // gpt-oss: `[experts, inputs, outputs]`, gate and up in turn.
            "mlp.experts.gate_up_proj" | "mlp.experts.gate_up_proj_bias" => {
                let (rows, kind) = if rest.ends_with("bias") {
                    (tensor.reshaped(&[tensor.data.len(), 1]), "bias")
                } else {
                    (tensor.transposed(), "weight")
                };
                let shape: Vec<usize> = rows.shape[..rows.shape.len() - 1].to_vec();
                let all: usize = shape.iter().product();
                for (first, what) in [(0, "gate"), (1, "up")] {
                    let part = rows.pick((first..all).step_by(2));
                    let shape = match kind {
                        "weight" => vec![tensor.shape[0], tensor.shape[2] / 2, tensor.shape[1]],
                        _ => vec![tensor.shape[0], tensor.shape[1] / 2],
                    };
                    put(&format!("ffn_{what}_exps.{kind}"), part.reshaped(&shape));
                }
                return;
            }
            // Llama 4: the same, but gate before up.
            "feed_forward.experts.gate_up_proj" => {
                let [experts, k, both] = *tensor.shape.as_slice() else { panic!() };
                let rows = tensor.transposed();
                for (first, what) in [(0, "gate"), (both / 2, "up")] {
                    let of_expert = |expert: usize| (0..both / 2).map(move |row| expert * both + first + row);
                    let part = rows.pick((0..experts).flat_map(of_expert));
                    put(&format!("ffn_{what}_exps.weight"), part.reshaped(&[experts, both / 2, k]));
                }
                return;
            }
            "feed_forward.experts.down_proj" | "mlp.experts.down_proj" => {
                return put("ffn_down_exps.weight", tensor.transposed());
            }
            "mlp.experts.down_proj_bias" => return put("ffn_down_exps.bias", tensor),
            _ => {}
        }
        if let Some((_, expert)) = module.split_once(".experts.") {
            let (number, module) = expert.split_once('.').unwrap();
            let what = match module {
                "gate_proj" | "w1" => "gate",
                "up_proj" | "w3" => "up",
                "down_proj" | "w2" => "down",
                _ => panic!("{name}"),
            };
            let key = (layer.to_owned(), what.to_owned());
            self.experts.entry(key).or_default().insert(number.parse().unwrap(), tensor);
            return;
        }
        if self.pairs && (module == "self_attn.q_proj" || module == "self_attn.k_proj") {
            // Row `2 i + half` of a head was row `half * head/2 + i`.
            let head = self.head_dim();
            let from = move |row: usize| row / head * head + row % 2 * (head / 2) + row % head / 2;
            tensor = tensor.pick((0..tensor.shape[0]).map(from));
        }
        if module.contains("conv") && tensor.shape.len() == 3 {
            tensor = tensor.reshaped(&[tensor.shape[0], tensor.shape[2]]);
        }
        if module == "mamba.norm" || module == "mixer.norm" {
            let groups = self.size("mamba_n_groups");
            tensor = tensor.reshaped(&[groups, tensor.data.len() / groups]);
        }
        if module == "mlp.shared_expert_gate" {
            tensor = tensor.reshaped(&[tensor.data.len()]);
        }
        let stored = MODULES.iter().find(|(known, _)| *known == module).unwrap_or_else(|| panic!("{name}")).1;
        self.out.push((format!("blk.{layer}.{stored}.{kind}"), tensor));
    }

    /// Qwen3.5's value heads: those of each key head side by side. Stored with those of all key heads in turn.
    fn tiled(&self, rest: &str, tensor: &Tensor) -> Tensor {
        let (keys, heads) = (self.size("linear_num_key_heads"), self.size("linear_num_value_heads"));
        let per_key = heads / keys;
        // In heads of `size` rows after the first `fixed` ones.
        let order = |fixed: usize, size: usize| {
            let from = move |row: usize| {
                let (head, at) = (row / size, row % size);
                fixed + (head % keys * per_key + head / keys) * size + at
            };
            (0..fixed).chain((0..heads * size).map(from))
        };
        let (size, fixed) = (self.size("linear_value_head_dim"), 2 * keys * self.size("linear_key_head_dim"));
        match rest.strip_prefix("linear_attn.") {
            Some("in_proj_qkv.weight") => tensor.pick(order(fixed, size)),
            Some("in_proj_z.weight") => tensor.pick(order(0, size)),
            Some("in_proj_b.weight" | "in_proj_a.weight" | "A_log" | "dt_bias") => tensor.pick(order(0, 1)),
            Some("conv1d.weight") => {
                let kernel_size = tensor.shape[2];
                tensor.reshaped(&[tensor.shape[0], kernel_size]).pick(order(fixed, size))
            }
            Some("out_proj.weight") => tensor.transposed().pick(order(0, size)).transposed(),
            _ => tensor.clone(),
        }
    }

    /// Group by group: queries, keys, values, gates. Stored kind by kind.
    fn qkvz(&mut self, layer: &str, all: &Tensor) {
        let (groups, k) = (self.size("linear_num_key_heads"), self.size("linear_key_head_dim"));
        let v = self.size("linear_num_value_heads") * self.size("linear_value_head_dim") / groups;
        let part = |first: usize, count: usize| {
            (0..groups).flat_map(move |group| (0..count).map(move |i| group * 2 * (k + v) + first + i))
        };
        let qkv = all.pick(part(0, k).chain(part(k, k)).chain(part(2 * k, v)));
        self.out.push((format!("blk.{layer}.attn_qkv.weight"), qkv));
        self.out.push((format!("blk.{layer}.attn_gate.weight"), all.pick(part(2 * k + v, v))));
    }

    /// Head by head: keys, which are stored turned round, and values.
    fn kv_b(&mut self, layer: &str, all: &Tensor) {
        let (heads, k, v) =
            (self.size("num_attention_heads"), self.size("qk_nope_head_dim"), self.size("v_head_dim"));
        let (rank, of_head) = (self.size("kv_lora_rank"), k + v);
        let part = |first: usize, count: usize| {
            let rows = (0..heads).flat_map(move |head| (0..count).map(move |i| head * of_head + first + i));
            all.pick(rows).reshaped(&[heads, count, rank])
        };
        self.out.push((format!("blk.{layer}.attn_k_b.weight"), part(0, k).transposed()));
        self.out.push((format!("blk.{layer}.attn_v_b.weight"), part(k, v)));
    }

    fn finish(mut self) -> GgufWriter {
        let mut experts = std::mem::take(&mut self.experts);
        if self.others {
            // Gate and up of each in one.
            let gates: Vec<_> = experts.keys().filter(|(_, what)| what == "gate").cloned().collect();
            for key in gates {
                let ups = experts.remove(&(key.0.clone(), "up".to_owned())).unwrap();
                let gates = experts.remove(&key).unwrap();
                let joined = gates.into_iter().map(|(number, gate)| {
                    let joined = Tensor::stacked(&[&gate, &ups[&number]]);
                    (number, joined.reshaped(&[2 * gate.shape[0], gate.shape[1]]))
                });
                experts.insert((key.0, "gate_up".to_owned()), joined.collect());
            }
        }
        for ((layer, what), experts) in experts {
            let experts: Vec<&Tensor> = experts.values().collect();
            self.out.push((format!("blk.{layer}.ffn_{what}_exps.weight"), Tensor::stacked(&experts)));
        }
        for (name, matrices) in std::mem::take(&mut self.stacked) {
            let matrices: Vec<&Tensor> = matrices.values().collect();
            self.out.push((name.to_owned(), Tensor::stacked(&matrices)));
        }
        let mut writer = self.metadata();
        for (name, tensor) in &self.out {
            let dims: Vec<u64> = tensor.shape.iter().rev().map(|&size| size as u64).collect();
            writer = writer.tensor(name, 0, &dims, f32_bytes(&tensor.data));
        }
        writer
    }

    fn metadata(&self) -> GgufWriter {
        let config = &self.config;
        let mut writer = GgufWriter::new()
            .pair("general.architecture", typed_string(self.family))
            .pair("tokenizer.ggml.model", typed_string("no_vocab"));
        for (parameter, numbers) in &self.activation {
            let numbers = typed_array(6, numbers.len() as u64, &f32_bytes(numbers));
            writer = writer.pair(&format!("xielu.{parameter}"), numbers);
        }
        let mut pair = |key: &str, value: Vec<u8>| {
            writer = std::mem::replace(&mut writer, GgufWriter::new())
                .pair(&format!("{}.{key}", self.family), value);
        };
        for (key, field) in [
            ("vocab_size", "vocab_size"),
            ("context_length", "max_position_embeddings"),
            ("embedding_length", "hidden_size"),
            ("attention.head_count", "num_attention_heads"),
            ("attention.sliding_window", "sliding_window"),
            ("expert_count", "num_experts"),
            ("expert_count", "num_local_experts"),
            ("expert_count", "n_routed_experts"),
            ("expert_used_count", "num_experts_per_tok"),
            ("expert_used_count", "top_k_experts"),
            ("expert_feed_forward_length", "moe_intermediate_size"),
            ("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
            ("attention.q_lora_rank", "q_lora_rank"),
            ("attention.kv_lora_rank", "kv_lora_rank"),
            ("attention.key_length_mla", "qk_head_dim"),
            ("attention.value_length_mla", "v_head_dim"),
            ("leading_dense_block_count", "first_k_dense_replace"),
            ("expert_shared_count", "n_shared_experts"),
            ("expert_group_count", "n_group"),
            ("expert_group_used_count", "topk_group"),
            ("shortconv.l_cache", "conv_L_cache"),
            ("ssm.conv_kernel", "linear_conv_kernel_dim"),
            ("ssm.state_size", "linear_key_head_dim"),
            ("ssm.group_count", "linear_num_key_heads"),
            ("ssm.time_step_rank", "linear_num_value_heads"),
            ("ssm.conv_kernel", "mamba_d_conv"),
            ("ssm.state_size", "mamba_d_state"),
            ("ssm.group_count", "mamba_n_groups"),
            ("ssm.time_step_rank", "mamba_n_heads"),
            ("expert_shared_feed_forward_length", "shared_intermediate_size"),
            ("attention.shared_kv_layers", "num_kv_shared_layers"),
            ("altup.active_idx", "altup_active_idx"),
            ("altup.num_inputs", "altup_num_inputs"),
        ] {
            if self.others && key.ends_with("_mla") {
                continue;
            }
            let none = self.family == "gemma3n";
            if let Some(size) = config[field].as_u64().filter(|&size| size > 0 || none) {
                pair(key, typed_u32(size as u32));
            }
        }
        for (key, field) in [
            ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
            ("attention.layer_norm_rms_epsilon", "norm_eps"),
            ("attention.layer_norm_epsilon", "layer_norm_eps"),
            ("attention.layer_norm_epsilon", "norm_epsilon"),
            ("attention.layer_norm_epsilon", "layer_norm_epsilon"),
            ("attn_logit_softcapping", "attn_logit_softcapping"),
            ("final_logit_softcapping", "final_logit_softcapping"),
            ("attention.scale", "attention_multiplier"),
            ("embedding_scale", "embedding_multiplier"),
            ("residual_scale", "residual_multiplier"),
            ("logit_scale", "logits_scaling"),
            ("logit_scale", "logit_scale"),
            ("expert_weights_scale", "routed_scaling_factor"),
        ] {
            if let Some(number) = config[field].as_f64() {
                pair(key, typed_f32(number as f32));
            }
        }
        // With a layer that predicts, which is not read.
        let predicting = u32::from(self.others && self.family == "qwen35");
        pair("block_count", typed_u32(self.size("num_hidden_layers") as u32 + predicting));
        if predicting > 0 {
            pair("nextn_predict_layers", typed_u32(predicting));
        }
        let (head, mla) = (self.head_dim(), config["kv_lora_rank"].as_u64());
        let kv_heads = self.size("num_key_value_heads") as u32;
        match (mla, self.family) {
            (Some(rank), _) => {
                let rotated = self.size("qk_rope_head_dim") as u32;
                if self.others {
                    // Older files: as before they are compressed.
                    pair("attention.head_count_kv", typed_u32(kv_heads));
                    pair("attention.key_length", typed_u32(self.size("qk_nope_head_dim") as u32 + rotated));
                    pair("attention.value_length", typed_u32(self.size("v_head_dim") as u32));
                } else {
                    pair("attention.head_count_kv", typed_u32(1));
                    pair("attention.key_length", typed_u32(rank as u32 + rotated));
                    pair("attention.value_length", typed_u32(rank as u32));
                }
                pair("rope.dimension_count", typed_u32(rotated));
                let softmax = config["scoring_func"] == "softmax";
                pair("expert_weights_norm", typed_bool(!softmax));
                pair("expert_gating_func", typed_u32(if softmax { 1 } else { 2 }));
            }
            (None, "lfm2" | "granitehybrid") => {
                let heads = |kind: &Value| {
                    if kind == "conv" || kind == "linear_attention" { 0 } else { kv_heads }
                };
                pair("attention.head_count_kv", u32s(self.layer_types().iter().map(heads)));
            }
            (None, "nemotron_h" | "nemotron_h_moe") => {
                let kinds = config["layers_block_type"].as_array().unwrap();
                let heads = |kind: &Value| if kind == "full_attention" { kv_heads } else { 0 };
                pair("attention.head_count_kv", u32s(kinds.iter().map(heads)));
                pair("attention.key_length", typed_u32(head as u32));
                pair("attention.value_length", typed_u32(head as u32));
                let size = self.size("intermediate_size") as u32;
                let sizes = |kind: &Value| if kind == "mlp" || kind == "moe" { size } else { 0 };
                pair("feed_forward_length", u32s(kinds.iter().map(sizes)));
                pair(
                    "ssm.inner_size",
                    typed_u32((self.size("mamba_n_heads") * self.size("mamba_head_dim")) as u32),
                );
            }
            (None, "gemma4") => {
                let overrides = |layer: usize, key: &str| {
                    let value = config["per_layer_config"][layer.to_string()][key].as_u64();
                    value.or(config[key].as_u64()).unwrap() as u32
                };
                let layers = self.size("num_hidden_layers");
                let global = overrides(layers - 1, "head_dim");
                for (key, size) in [
                    ("attention.key_length", global),
                    ("attention.value_length", global),
                    ("rope.dimension_count", global),
                    ("attention.key_length_swa", head as u32),
                    ("attention.value_length_swa", head as u32),
                    ("rope.dimension_count_swa", head as u32),
                ] {
                    pair(key, typed_u32(size));
                }
                let inputs = self.size("hidden_size_per_layer_input") as u32;
                pair("embedding_length_per_layer_input", typed_u32(inputs));
                let heads = (0..layers).map(|layer| overrides(layer, "num_key_value_heads"));
                pair("attention.head_count_kv", u32s(heads));
            }
            _ => {
                pair("attention.head_count_kv", typed_u32(kv_heads));
                pair("attention.key_length", typed_u32(head as u32));
                pair("attention.value_length", typed_u32(head as u32));
                let partial = config["rope_parameters"]["partial_rotary_factor"].as_f64().unwrap_or(1.0);
                pair("rope.dimension_count", typed_u32((head as f64 * partial) as u32));
            }
        }
        if self.family == "gemma3n" {
            let inputs = self.size("hidden_size_per_layer_input") as u32;
            pair("embedding_length_per_layer_input", typed_u32(inputs));
            // Standard deviations that a part of all numbers is below.
            let cutoff = |part: &Value| match part.as_f64().unwrap() {
                0.0 => f32::NEG_INFINITY,
                0.3 => -0.524_400_53,
                0.5 => 0.0,
                0.8 => 0.841_621_2,
                0.95 => 1.644_853_6,
                1.0 => f32::INFINITY,
                2.0 => f32::NAN,
                part => panic!("{part}"),
            };
            let cutoffs = config["activation_sparsity_pattern"].as_array().unwrap();
            let cutoffs: Vec<f32> = cutoffs.iter().map(cutoff).collect();
            pair("activation_sparsity_scale", typed_array(6, cutoffs.len() as u64, &f32_bytes(&cutoffs)));
        }
        if self.family == "granitehybrid" {
            let inner = self.size("mamba_expand") * self.size("hidden_size");
            pair("ssm.inner_size", typed_u32(inner as u32));
            pair("rope.dimension_count", typed_u32(head as u32));
            pair("rope.scaling.finetuned", typed_bool(config["position_embedding_type"] == "rope"));
        }
        if self.family == "qwen3vl" {
            pair("rope.dimension_sections", u32s([3, 3, 2, 0]));
            pair("n_deepstack_layers", typed_u32(1));
        }
        if self.family.starts_with("qwen35") {
            pair("rope.dimension_sections", u32s([2, 1, 1, 0]));
            let recurrent = self.layer_types().iter().map(|kind| u8::from(kind == "linear_attention"));
            let marks: Vec<u8> = recurrent.chain((0..predicting).map(|_| 0)).collect();
            pair("attention.recurrent_layers", typed_array(7, marks.len() as u64, &marks));
        }
        // As the model adjusts it.
        let size = match self.family {
            "lfm2" => 256,
            "llama4" => self.size("intermediate_size_mlp"),
            "gemma3n" => 0,
            _ => self.size("intermediate_size"),
        };
        if let Some(sizes) = config["intermediate_size"].as_array() {
            pair("feed_forward_length", u32s(sizes.iter().map(|size| size.as_u64().unwrap() as u32)));
        } else if config["use_double_wide_mlp"] == true {
            let layers = self.size("num_hidden_layers");
            let own = layers - self.size("num_kv_shared_layers");
            let sizes = (0..layers).map(|layer| size as u32 * if layer < own { 1 } else { 2 });
            pair("feed_forward_length", u32s(sizes));
        } else if self.family != "qwen35moe" && !self.family.starts_with("nemotron") {
            pair("feed_forward_length", typed_u32(size as u32));
        }
        if ["glm4moe", "minimax-m2", "nemotron_h_moe"].contains(&self.family) {
            pair("expert_gating_func", typed_u32(2));
            pair("expert_weights_norm", typed_bool(true));
        }
        if ["gpt-oss", "minimax-m2"].contains(&self.family) {
            pair("expert_feed_forward_length", typed_u32(size as u32));
        }
        if self.family == "llama4" {
            pair("expert_feed_forward_length", typed_u32(self.size("intermediate_size") as u32));
            pair("interleave_moe_layer_step", typed_u32(self.size("interleave_moe_layer_step") as u32));
        }
        if let Some(delta) = config["linear_value_head_dim"].as_u64() {
            pair("ssm.inner_size", typed_u32((delta as usize * self.size("linear_num_value_heads")) as u32));
        }
        let windowed = config["sliding_window"].is_u64();
        if ["gemma3", "gemma3n", "cohere2", "gemma4"].contains(&self.family)
            || (windowed && ["olmo2", "exaone4"].contains(&self.family))
        {
            let marks: Vec<u8> =
                self.layer_types().iter().map(|kind| u8::from(kind == "sliding_attention")).collect();
            pair("attention.sliding_window_pattern", typed_array(7, marks.len() as u64, &marks));
        }
        let mut rope = config["rope_parameters"].clone();
        if let Some(global) = rope.get("full_attention") {
            pair(
                "rope.freq_base_swa",
                typed_f32(rope["sliding_attention"]["rope_theta"].as_f64().unwrap() as f32),
            );
            rope = global.clone();
        }
        let theta = rope["rope_theta"].as_f64().or(config["rope_theta"].as_f64()).unwrap();
        pair("rope.freq_base", typed_f32(theta as f32));
        if let Some(beta) = rope["llama_4_scaling_beta"].as_f64() {
            pair("attention.temperature_scale", typed_f32(beta as f32));
        }
        if rope["rope_type"] == "yarn" {
            if let Some(factor) = rope["attention_factor"].as_f64() {
                pair("rope.scaling.yarn_attn_factor", typed_f32(factor as f32));
            }
            for side in ["fast", "slow"] {
                if let Some(beta) = rope[format!("beta_{side}")].as_f64() {
                    pair(&format!("rope.scaling.yarn_beta_{side}"), typed_f32(beta as f32));
                }
            }
            pair("rope.scaling.type", typed_string("yarn"));
            pair("rope.scaling.factor", typed_f32(rope["factor"].as_f64().unwrap() as f32));
            let original = rope["original_max_position_embeddings"].as_u64().unwrap();
            pair("rope.scaling.original_context_length", typed_u32(original as u32));
            if let Some(mscale) = rope["mscale_all_dim"].as_f64() {
                // A tenth of it by DeepSeek's converter alone.
                let factor = if mla.is_some() { 0.1 } else { 1.0 };
                pair("rope.scaling.yarn_log_multiplier", typed_f32((factor * mscale) as f32));
            }
        }
        if config["rope_scaling"]["type"] == "longrope" {
            let original = config["original_max_position_embeddings"].as_u64().unwrap();
            let factor = self.size("max_position_embeddings") as f64 / original as f64;
            let attention = libm::sqrt(1.0 + libm::log(factor) / libm::log(original as f64));
            pair("rope.scaling.attn_factor", typed_f32(attention as f32));
            pair("rope.scaling.original_context_length", typed_u32(original as u32));
            for kind in ["short", "long"] {
                let factors: Vec<f32> =
                    serde_json::from_value(config["rope_scaling"][format!("{kind}_factor")].clone()).unwrap();
                let name = format!("rope_factors_{kind}.weight");
                writer = writer.tensor(&name, 0, &[factors.len() as u64], f32_bytes(&factors));
            }
        }
        if self.family == "gemma4" {
            // Frequencies beyond the part of heads that is turned are divided by much.
            let pairs = self.size_of_last_head() / 2;
            let turned = (pairs as f64 * rope["partial_rotary_factor"].as_f64().unwrap()) as usize;
            let factors: Vec<f32> = (0..pairs).map(|i| if i < turned { 1.0 } else { 1e30 }).collect();
            writer = writer.tensor("rope_freqs.weight", 0, &[pairs as u64], f32_bytes(&factors));
        }
        writer
    }
}

/// An array of integers with its type in front.
fn u32s(numbers: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let numbers: Vec<u32> = numbers.into_iter().collect();
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    typed_array(4, numbers.len() as u64, &bytes)
}

/// Gives GPT-2's settings the keys that other families have for them.
fn usual_keys(config: &mut Value) {
    for (own, usual) in [
        ("n_embd", "hidden_size"),
        ("n_layer", "num_hidden_layers"),
        ("n_head", "num_attention_heads"),
        ("n_head", "num_key_value_heads"),
        ("n_positions", "max_position_embeddings"),
        ("n_inner", "intermediate_size"),
    ] {
        config[usual] = config[own].clone();
    }
    config["rope_parameters"] = plain_rope();
}

/// Gives Nemotron's settings the keys that Granite has for them.
fn keys_of_granite(config: &mut Value) {
    for (own, usual) in [
        ("layer_norm_epsilon", "rms_norm_eps"),
        ("conv_kernel", "mamba_d_conv"),
        ("ssm_state_size", "mamba_d_state"),
        ("n_groups", "mamba_n_groups"),
        ("mamba_num_heads", "mamba_n_heads"),
        ("moe_shared_expert_intermediate_size", "shared_expert_intermediate_size"),
    ] {
        config[usual] = config[own].take();
    }
    let kinds = config["layers_block_type"].as_array().unwrap();
    let (count, experts) = (kinds.len(), kinds.iter().any(|kind| kind == "moe"));
    config["num_hidden_layers"] = count.into();
    config["rope_parameters"] = plain_rope();
    if experts {
        config["intermediate_size"] = config["moe_intermediate_size"].clone();
    } else {
        // Those of the class.
        let of_experts = [
            "n_routed_experts",
            "num_experts_per_tok",
            "moe_intermediate_size",
            "n_group",
            "topk_group",
            "n_shared_experts",
            "routed_scaling_factor",
            "shared_expert_intermediate_size",
        ];
        of_experts.iter().for_each(|&key| config[key] = Value::Null);
    }
}

fn convert(dir: &Path, case: &Case, others: bool) -> GgufWriter {
    let (_, family, pairs, plus_one, _) = *case;
    let config: Value = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    let mut config = config.get("text_config").cloned().unwrap_or(config);
    match family {
        "gpt2" => usual_keys(&mut config),
        "nemotron_h" | "nemotron_h_moe" => keys_of_granite(&mut config),
        _ => {}
    }
    let mut converter = Converter {
        others,
        family,
        pairs,
        plus_one,
        config,
        experts: BTreeMap::new(),
        stacked: BTreeMap::new(),
        activation: BTreeMap::new(),
        out: Vec::new(),
    };
    let source = WeightSource::open_dir(dir).unwrap();
    for name in source.names() {
        if ["visual", "vision", "multi_modal"].iter().any(|part| name.contains(part)) {
            continue;
        }
        let shape = source.tensor(name).unwrap().shape.to_vec();
        let data = source.elements(name, &shape).unwrap();
        let text = name.replace("language_model.model.", "model.").replace("model.language_model.", "model.");
        converter.tensor(&text, Tensor { shape, data });
    }
    converter.finish()
}

#[test]
fn every_family_computes_what_it_does_from_its_directory() {
    let dir = TempDir::new();
    for (number, case) in CASES.iter().enumerate() {
        let (folder, family, .., change) = case;
        let model = support::family(folder);
        let copy = support::Copy::of(&model, "gguf");
        copy.edit("config.json", change);
        let source = Source::Path(copy.path().to_owned());
        let writer = convert(copy.path(), case, false);
        if let Some(out) = std::env::var_os("CLAWDBOT_GGUF_OUT") {
            let path = |kind: &str| Path::new(&out).join(format!("{number}-{folder}.{kind}"));
            std::fs::write(path("gguf"), writer.bytes()).unwrap();
            let bits = logits(&source, WeightType::F32);
            std::fs::write(path("json"), serde_json::to_vec(&bits).unwrap()).unwrap();
        }
        let file = save(&dir, "m.gguf", &writer);
        let opened =
            crate::load::source::Opened::open(&file).unwrap_or_else(|error| panic!("{folder}: {error}"));
        assert!(opened.unused.is_empty(), "{folder}: {:?}", opened.unused);
        for weights in [WeightType::F32, WeightType::Int8] {
            let (found, expected) = (logits(&file, weights), logits(&source, weights));
            if family.starts_with("qwen35") {
                // Value heads are in another order, in which their results are added up.
                close(folder, &found, &expected, if weights == WeightType::F32 { 1e-5 } else { 0.05 });
                continue;
            }
            // Not `assert_eq`, which prints thousands of numbers.
            let others = found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
            assert!(
                found == expected,
                "{folder} as {family}, {weights}: {others} of {} differ",
                expected.len()
            );
        }
    }
}

/// Checks that numbers are as expected up to a part of the largest.
#[track_caller]
fn close(what: &str, found: &[u32], expected: &[u32], part: f32) {
    let values = |bits: &[u32]| bits.iter().map(|&bits| f32::from_bits(bits)).collect::<Vec<_>>();
    let (found, expected) = (values(found), values(expected));
    assert_eq!(found.len(), expected.len(), "{what}");
    let range = expected.iter().fold(0.0_f32, |range, x| range.max(x.abs()));
    let error = found.iter().zip(&expected).fold(0.0_f32, |error, (a, b)| error.max((a - b).abs()));
    assert!(error <= part * range, "{what}: off by {error} of {range}");
}

#[test]
fn what_older_and_newer_converters_write_is_read_too() {
    let dir = TempDir::new();
    for name in ["deepseek_v3", "qwen3_next", "qwen3_moe", "lfm2", "qwen3_5"] {
        let case = CASES.iter().find(|case| case.0 == name).unwrap();
        let path = support::family(name);
        let file = save(&dir, "m.gguf", &convert(&path, case, true));
        let source = Source::Path(path);
        let (found, expected) = (logits(&file, WeightType::F32), logits(&source, WeightType::F32));
        close(name, &found, &expected, if name == "qwen3_5" { 1e-5 } else { 0.0 });
    }
}

#[test]
fn damaged_numbers_of_gemma3n_are_refused() {
    let case = CASES.iter().find(|case| case.0 == "gemma3n").unwrap();
    let (dir, runtime) = (TempDir::new(), Runtime::new(&RuntimeOptions::default()).unwrap());
    for (field, value, part) in [
        ("altup_num_inputs", json!(0), "altup_num_inputs"),
        ("altup_num_inputs", json!(u32::MAX), "altup_num_inputs"),
        ("altup_num_inputs", json!(5), "altup_"),
        ("altup_active_idx", json!(4), "altup_active_idx"),
        ("num_kv_shared_layers", json!(5), "num_kv_shared_layers"),
        ("activation_sparsity_pattern", json!([0.5]), "activation_sparsity_scale"),
        ("activation_sparsity_pattern", json!([2.0, 0.0, 0.0, 0.0, 0.0]), "activation_sparsity_scale"),
        ("activation_sparsity_pattern", json!([1.0, 0.0, 0.0, 0.0, 0.0]), "activation_sparsity_pattern"),
    ] {
        let copy = support::Copy::of(&support::family("gemma3n"), "gguf-damaged");
        copy.edit("config.json", |config| config[field] = value.clone());
        let file = save(&dir, "m.gguf", &convert(copy.path(), case, false));
        check(&runtime.plan(&file, &ModelOptions::default()).unwrap_err(), ErrorKind::InvalidModel, &[part]);
    }
}

/// Elsewhere llama.cpp multiplies it with what follows from the kind of rotation.
#[test]
fn a_magnitude_is_for_longrope() {
    let case = CASES.iter().find(|case| case.0 == "llama").unwrap();
    let path = support::family("llama");
    let (dir, runtime) = (TempDir::new(), Runtime::new(&RuntimeOptions::default()).unwrap());
    let plan = |factor: f32| {
        let writer = convert(&path, case, false).pair("llama.rope.scaling.attn_factor", typed_f32(factor));
        runtime.plan(&save(&dir, "m.gguf", &writer), &ModelOptions::default())
    };
    plan(1.0).unwrap();
    check(&plan(1.2).unwrap_err(), ErrorKind::UnsupportedModel, &["rope.scaling.attn_factor"]);
}

#[test]
fn stacked_matrices_in_blocks_are_the_values_of_the_blocks() {
    let dir = TempDir::new();
    for (name, kind) in [
        ("gpt_oss", TensorType::Mxfp4),
        ("mixtral", TensorType::Q4_0),
        ("qwen3_next", TensorType::Q8_0),
        ("deepseek_v3", TensorType::Q8_0),
        ("gemma3n", TensorType::Q8_0),
    ] {
        let case = CASES.iter().find(|case| case.0 == name).unwrap();
        let plain = convert(&support::family(name), case, false);
        let in_parts = |name: &str| {
            ["_exps", "_b.weight", "altup_proj", "altup_unembd"].iter().any(|part| name.contains(part))
        };
        let blocks = plain.requantized(kind, in_parts);
        let file = save(&dir, "blocks.gguf", &blocks);
        let values = save(&dir, "values.gguf", &blocks.decoded());
        assert!(logits(&file, WeightType::F32) == logits(&values, WeightType::F32), "{name}");
        let runtime = Runtime::new(&RuntimeOptions::default()).unwrap();
        let plan = runtime.plan(&file, &ModelOptions::default()).unwrap();
        let stored = plan.stored.iter().find(|stored| stored.format == kind.name()).unwrap();
        assert!(stored.own_codes, "{name}: {stored:?}");
        assert!(logits(&file, WeightType::Stored).iter().all(|&bits| f32::from_bits(bits).is_finite()));
    }
}
