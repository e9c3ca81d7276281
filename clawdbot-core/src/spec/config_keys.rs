//! Keys of `config.json` without effect here. All others that are never read can then be reported to whoever loads the
//! model. `docs/config-keys.md` is generated from this.

use serde_json::Value;

use super::config::ModelConfig;
use crate::error::Result;

/// Keys without effect, grouped by reason.
pub(crate) const WITHOUT_EFFECT: &[(&str, &[&str])] = &[
    (
        "training alone",
        &[
            "altup_coef_clip",
            "attention_dropout",
            "attention_probs_dropout_prob",
            "attn_pdrop",
            "aux_loss_alpha",
            "classifier_dropout",
            "dropout",
            "embd_pdrop",
            "embedding_dropout",
            "gradient_checkpointing",
            "hidden_dropout",
            "hidden_dropout_prob",
            "initializer_cutoff_factor",
            "initializer_range",
            "mlp_dropout",
            "output_router_logits",
            "pretraining_tp",
            "problem_type",
            "qa_dropout",
            "resid_pdrop",
            "residual_dropout",
            "router_aux_loss_coef",
            "router_jitter_noise",
            "rescale_prenorm_residual",
            "seq_aux",
            "seq_classif_dropout",
            "sinusoidal_pos_embds",
            "sparse_pred_ignore_index",
            "sparse_prediction",
            "time_step_floor",
            "time_step_max",
        ],
    ),
    (
        "how transformers computes, and what it returns",
        &[
            "_attn_implementation",
            "_attn_implementation_autoset",
            "attn_implementation",
            "cache_implementation",
            "chunk_size",
            "chunk_size_feed_forward",
            "deterministic_flash_attn",
            "ep_size",
            "mamba_chunk_size",
            "mamba_ssm_cache_dtype",
            "mamba_ssm_dtype",
            "num_logits_to_keep",
            "output_attentions",
            "output_hidden_states",
            "reorder_and_upcast_attn",
            "reference_compile",
            "repad_logits_with_grad",
            "residual_in_fp32",
            "return_dict",
            "time_step_min",
            "torchscript",
            "use_cache",
            "use_mamba_kernels",
        ],
    ),
    (
        "who wrote it, with which class, and names of labels",
        &[
            "_name_or_path",
            "auto_map",
            "finetuning_task",
            "id2label",
            "init_method",
            "is_llama_config",
            "label2id",
            "model_type",
            "num_labels",
            "task_specific_params",
            "tokenizer_class",
            "transformers.js_config",
            "transformers_version",
            "unsloth_fixed",
            "unsloth_version",
        ],
    ),
    (
        "special tokens: the tokenizer's files say which are added",
        &[
            "audio_token_id",
            "boa_token_id",
            "boi_token_id",
            "boi_token_index",
            "cls_token_id",
            "eoa_token_id",
            "eoa_token_index",
            "eod_token_id",
            "eoi_token_id",
            "eoi_token_index",
            "image_token_id",
            "image_token_index",
            "pad_token_id",
            "sep_token_id",
            "video_token_id",
            "vision_end_token_id",
            "vision_start_token_id",
            "vision_token_id",
        ],
    ),
    (
        "part of something that is not loaded: vision, audio, another head",
        &[
            "audio_config",
            "audio_soft_tokens_per_image",
            "classifier_activation",
            "classifier_bias",
            "classifier_pooling",
            "decoder_bias",
            "language_model_only",
            "mm_tokens_per_image",
            "multimodal_projector_bias",
            "projector_hidden_act",
            "spatial_merge_size",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
            "vision_config",
            "vision_feature_layer",
            "vision_soft_tokens_per_image",
        ],
    ),
    (
        "the tensors say whether there is a head for multi-token prediction",
        &[
            "mtp_hybrid_override_pattern",
            "mtp_layers_block_type",
            "mtp_num_hidden_layers",
            "mtp_use_dedicated_embeddings",
            "num_mtp_layers",
            "num_nextn_predict_layers",
        ],
    ),
    ("follows from other keys", &["expand", "initial_context_length", "qk_head_dim", "tie_weights_"]),
    (
        "another key stands for it, or switches it off",
        &[
            "block_ffn_dim_multiplier",
            "block_multiple_of",
            "full_attention_interval",
            "full_attn_idxs",
            "hidden_act",
            "layer_norm_epsilon",
            "n_ctx",
            "no_rope_layer_interval",
            "num_global_key_value_heads",
            "original_max_position_embeddings",
            "rope_parameters",
            "rope_scaling",
            "rope_theta",
        ],
    ),
];

/// Keys that may only have this value in any family; with another one transformers would compute something else.
const ONLY: &[(&str, bool)] = &[("is_encoder_decoder", false)];

/// The reason why `key` has no effect, if it has none.
pub(crate) fn without_effect(key: &str) -> Option<&'static str> {
    WITHOUT_EFFECT.iter().find(|(_, keys)| keys.contains(&key)).map(|&(reason, _)| reason)
}

impl ModelConfig {
    /// Refuses settings that no family reads but that would change the result.
    ///
    /// # Errors
    /// `UnsupportedModel` naming the key.
    pub(crate) fn refuse_foreign(&self) -> Result<()> {
        for &(key, value) in ONLY {
            if self.opt_bool(key)?.is_some_and(|found| found != value) {
                return Err(self.unsupported(key, &value.to_string()));
            }
        }
        // The weights would be in another file.
        const WEIGHTS: &str = "transformers_weights";
        match self.get(WEIGHTS) {
            Some(name) if name != "model.safetensors" => Err(self.unsupported(WEIGHTS, "no other file")),
            _ => Ok(()),
        }
    }

    /// Keys that were never read and are not known to be without effect, except those that are off: null, false, or
    /// empty.
    pub(crate) fn unread(&self) -> Vec<String> {
        const TEXT: &str = "text_config";
        let asked = self.asked();
        let in_text = |key: &str| asked.contains(&format!("{TEXT}.{key}")) || without_effect(key).is_some();
        // Keys that a text model lacks are read outside of it.
        let is_read = |key: &str| asked.contains(key) || in_text(key);
        let off = |config: &ModelConfig, key: &str| match config.get(key) {
            None | Some(Value::Bool(false)) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(_) => false,
        };
        let mut unread: Vec<String> =
            self.keys().filter(|key| !is_read(key) && !off(self, key)).map(str::to_owned).collect();
        if let (true, Ok(Some(text))) = (asked.contains(TEXT), self.object(TEXT)) {
            let keys = text.keys().filter(|key| !in_text(key) && !off(&text, key));
            unread.extend(keys.map(|key| format!("{TEXT}.{key}")));
        }
        unread
    }

    /// Records a note about [`unread`](Self::unread) keys.
    pub(crate) fn note_unread(&self) {
        const SHOWN: usize = 8;
        let unread = self.unread();
        if let [first, rest @ ..] = unread.as_slice() {
            let mut others = rest.iter().take(SHOWN - 1).cloned().collect::<Vec<_>>().join(", ");
            if rest.len() >= SHOWN {
                others.push_str(", ...");
            }
            let also = if others.is_empty() { String::new() } else { format!("; so are {others}") };
            self.note(first, &format!("is not read{also}"));
        }
    }
}

#[cfg(test)]
mod tests;
