//! The bits of the built-in model's logits, written down: so that machines that cannot be compared with one another in
//! one process (x86-64 and AArch64) are compared with the file.
//!
//! When the built-in model or the arithmetic changes on purpose, write the file again:
//! `CLAWDBOT_WRITE_GOLDEN=1 cargo test -p clawdbot-core --test pinned_bits`.
#![allow(clippy::unwrap_used, reason = "a test")]

use clawdbot_core::{KvType, ModelOptions, Runtime, RuntimeOptions, Source, WeightType};
use serde_json::{Map, Value, json};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pinned_bits.json");
const REGENERATE: &str = "CLAWDBOT_WRITE_GOLDEN=1 cargo test -p clawdbot-core --test pinned_bits";
const TYPES: [(&str, WeightType, KvType); 5] = [
    ("int8", WeightType::Int8, KvType::Bf16),
    ("int8, kv int8", WeightType::Int8, KvType::Int8),
    ("int4", WeightType::Int4, KvType::Bf16),
    ("bf16", WeightType::Bf16, KvType::Bf16),
    ("f32", WeightType::F32, KvType::F32),
];
/// Few rows and many: both kinds of matrix kernels, and more than a page of keys.
const LENGTHS: [u32; 2] = [5, 75];

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>), in hexadecimal.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> String {
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

fn model_hash() -> String {
    let files: [&[u8]; 2] = [
        include_bytes!("../assets/builtin/config.json"),
        include_bytes!("../assets/builtin/model.safetensors"),
    ];
    fnv1a(files.concat().into_iter())
}

/// One hash of all logits for each prompt, by types of weights and KV cache.
fn hashes(kernels: &str, threads: u32) -> Map<String, Value> {
    let options = RuntimeOptions::default().threads(threads).kernels(kernels.to_owned());
    let runtime = Runtime::new(&options).unwrap();
    let of_type = |(name, weights, kv): (&str, WeightType, KvType)| {
        let options = ModelOptions::default().weights(weights).kv(kv);
        let model = runtime.load(&Source::Builtin, &options).unwrap();
        let of_prompt = |length: u32| {
            let prompt: Vec<u32> = (0..length).map(|i| 3 + (i * 41 + length) % 900).collect();
            let logits = model.logits(&prompt).unwrap();
            assert!(logits.iter().all(|x| x.is_finite()), "{kernels} {name}");
            fnv1a(logits.iter().flat_map(|x| x.to_bits().to_le_bytes()))
        };
        (name.to_owned(), json!(LENGTHS.map(of_prompt)))
    };
    TYPES.into_iter().map(of_type).collect()
}

#[test]
fn logits_have_the_pinned_bits() {
    if std::env::var_os("CLAWDBOT_WRITE_GOLDEN").is_some() {
        let golden = json!({
            "written by": REGENERATE,
            "model": model_hash(),
            "prompt lengths": LENGTHS,
            "logits": hashes("scalar", 1),
        });
        let text = serde_json::to_string_pretty(&golden).unwrap();
        std::fs::write(GOLDEN, text + "\n").unwrap();
    }
    let text = std::fs::read_to_string(GOLDEN).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(golden["model"], model_hash(), "the built-in model changed; regenerate: {REGENERATE}");
    for kernels in Runtime::available_kernels() {
        let found = Value::Object(hashes(kernels, 2));
        assert_eq!(found, golden["logits"], "{kernels}, on {}", std::env::consts::ARCH);
    }
}
