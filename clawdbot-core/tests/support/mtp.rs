//! Small models with a head for multi-token prediction, made of models without one.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Copy, family};

/// A tensor: shape and values.
pub type Tensor = (Vec<usize>, Vec<f32>);

/// What the head guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guesses {
    /// Anything.
    Any,
    /// What the model says, which looks at the last token alone.
    Right,
}

/// The model `name` with a head; `copy` is a name for the copy.
pub fn with_head(name: &str, guesses: Guesses, copy: &str) -> Copy {
    let dir = Copy::of(&family(name), copy);
    let file = dir.path().join("model.safetensors");
    let mut tensors = read(&file);
    // Checkpoints of this family store it as the layer after the last one.
    let as_layer = name == "deepseek_v3";
    let module = |own: &str, layer: &str| match as_layer {
        true => format!("model.layers.2.{layer}.weight"),
        false => format!("mtp.{own}.weight"),
    };
    let zeros = |tensors: &mut BTreeMap<String, Tensor>| {
        let ends = ["o_proj.weight", "out_proj.weight", "down_proj.weight"];
        let of_layers = tensors.iter_mut().filter(|(name, _)| ends.iter().any(|end| name.ends_with(end)));
        of_layers.for_each(|(_, (_, values))| values.fill(0.0));
    };
    if guesses == Guesses::Right {
        zeros(&mut tensors);
    }
    // Its layer has the values of the last one, in another order.
    let last = if name == "qwen3_next" { "layers.3." } else { "layers.1." };
    let mut head = BTreeMap::new();
    for (stored, (shape, values)) in &tensors {
        if let Some((_, rest)) = stored.split_once(last).filter(|_| !stored.contains("visual")) {
            let layer = if as_layer { "model.layers.2" } else { "mtp.layers.0" };
            let values = values.iter().rev().copied().collect();
            head.insert(format!("{layer}.{rest}"), (shape.clone(), values));
        }
    }
    let norm = tensors.iter().find(|(name, _)| {
        name.ends_with("model.norm.weight") || name.ends_with("language_model.norm.weight")
    });
    let (_, norm) = norm.unwrap();
    let width = norm.1.len();
    let offset = if as_layer { 1.0 } else { 0.0 };
    let (fc, gains): (Vec<f32>, Vec<f32>) = match guesses {
        Guesses::Any => {
            let random = |seed: u64, at: usize| {
                let bits = (at as u64 + 1).wrapping_mul(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                bits as f32 / (1_u32 << 23) as f32 - 1.0
            };
            let fc = (0..2 * width * width).map(|at| random(3, at) / 4.0).collect();
            (fc, (0..width).map(|at| offset + random(5, at) / 4.0).collect())
        }
        Guesses::Right => {
            let same = |at: usize| f32::from(u8::from(at / (2 * width) == at % (2 * width)));
            ((0..2 * width * width).map(same).collect(), vec![offset; width])
        }
    };
    head.insert(module("fc", "eh_proj"), (vec![width, 2 * width], fc));
    let reversed = gains.iter().rev().copied().collect();
    head.insert(module("pre_fc_norm_hidden", "hnorm"), (vec![width], reversed));
    head.insert(module("pre_fc_norm_embedding", "enorm"), (vec![width], gains));
    head.insert(module("norm", "shared_head.norm"), norm.clone());
    if as_layer {
        let of_model = |name: &str| tensors[name].clone();
        head.insert("model.layers.2.embed_tokens.weight".into(), of_model("model.embed_tokens.weight"));
        head.insert("model.layers.2.shared_head.head.weight".into(), of_model("lm_head.weight"));
    }
    tensors.extend(head);
    write(&file, &tensors);
    dir
}

/// Changes the tensors of a model directory.
pub fn change(dir: &Path, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
    let file = dir.join("model.safetensors");
    let mut tensors = read(&file);
    change(&mut tensors);
    write(&file, &tensors);
}

/// The tensors of a file in bf16 or f32.
pub fn read(file: &Path) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, data) = bytes[8..].split_at(header);
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).unwrap();
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    let tensors = tensors.map(|(name, entry)| {
        let numbers = |key: &str| -> Vec<usize> { serde_json::from_value(entry[key].clone()).unwrap() };
        let data = &data[numbers("data_offsets")[0]..numbers("data_offsets")[1]];
        let values = match entry["dtype"].as_str().unwrap() {
            "BF16" => {
                let bits = |two: &[u8]| u32::from(u16::from_le_bytes([two[0], two[1]])) << 16;
                data.chunks_exact(2).map(|two| f32::from_bits(bits(two))).collect()
            }
            _ => data.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect(),
        };
        (name, (numbers("shape"), values))
    });
    tensors.collect()
}

/// Writes tensors in f32.
fn write(file: &Path, tensors: &BTreeMap<String, Tensor>) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (shape, values)) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend(data);
    std::fs::write(file, bytes).unwrap();
}
