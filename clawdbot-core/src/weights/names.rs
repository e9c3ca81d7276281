//! What checkpoints of models with more than text call their text model's tensors.

/// How checkpoints begin the names of a text model's tensors, and how those of a text model alone begin.
const PREFIXES: &[(&str, &str)] = &[
    ("model.language_model.", "model."),
    // As transformers 4 wrote them.
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
];

/// How the names of tensors begin that are of something else than the text model: towers for images and sounds, what joins
/// them to it, and layers that guess several tokens at once.
const OTHERS: &[&str] = &[
    "audio_tower.",
    "embed_audio.",
    "embed_vision.",
    "mtp.",
    "multi_modal_projector.",
    "vision_embedder.",
    "vision_model.",
    "vision_tower.",
    "visual.",
];

/// Whether the tensor is of another part than the text model.
pub(crate) fn outside_text(name: &str) -> bool {
    let name = name.strip_prefix("model.").unwrap_or(name);
    OTHERS.iter().any(|prefix| name.starts_with(prefix))
}

/// The name that the tensor has in a checkpoint of the text model alone.
pub(crate) fn text_name(name: &str) -> String {
    let found = PREFIXES.iter().find_map(|(prefix, text)| Some((text, name.strip_prefix(prefix)?)));
    found.map_or_else(|| name.to_owned(), |(text, rest)| format!("{text}{rest}"))
}

/// The names that a module of a text model may have in checkpoints: first the one that it has alone.
pub(crate) fn stored_names(module: &str) -> Vec<String> {
    let stored = |(prefix, text): &(&str, &str)| Some(format!("{prefix}{}", module.strip_prefix(text)?));
    std::iter::once(module.to_owned()).chain(PREFIXES.iter().filter_map(stored)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_models_are_found_in_larger_ones() {
        for (stored, name) in [
            ("model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
            ("language_model.model.norm.weight", "model.norm.weight"),
            ("language_model.lm_head.weight", "lm_head.weight"),
            ("model.embed_tokens.weight", "model.embed_tokens.weight"),
            ("model.visual.blocks.0.norm1.bias", "model.visual.blocks.0.norm1.bias"),
        ] {
            assert_eq!(text_name(stored), name);
            assert_eq!(outside_text(name), stored.contains("visual"));
        }
    }
}
