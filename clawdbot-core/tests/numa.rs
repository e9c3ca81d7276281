//! Threads and weights on memory nodes: the same bits, and an error for what cannot be.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clawdbot_core::{
    ErrorKind, Model, ModelOptions, Numa, PackOptions, Runtime, RuntimeOptions, Source, WeightType,
};
use serde_json::json;

const PROMPT: [u32; 5] = [1, 40, 50, 60, 70];

/// A runtime that places threads and weights; `None` where the system does not let it.
fn placed(numa: Numa, threads: u32) -> Option<Runtime> {
    match Runtime::new(&RuntimeOptions::default().threads(threads).numa(numa)) {
        Ok(runtime) => Some(runtime),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert_eq!(error.detail()["option"], "numa");
            assert!(error.message().starts_with("option numa: expected a value that this machine can do"));
            support::skipped(&format!("numa {numa}: {error}"));
            None
        }
    }
}

fn bits(model: &Model) -> Vec<u32> {
    model.logits(&PROMPT).unwrap().iter().map(|x| x.to_bits()).collect()
}

/// A temporary directory with a model, removed in the end.
struct Dir(PathBuf);

impl Dir {
    /// A model of one layer whose matrices are large enough for pages of their own, in f32: 8 MiB, and 4 MiB of embedding.
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("clawdbot-numa-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let builtin = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/builtin/tokenizer.json");
        std::fs::copy(builtin, dir.join("tokenizer.json")).unwrap();
        let (hidden, wide, tokens) = (256, 4096, 4096);
        let config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
            "intermediate_size": wide, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4,
            "head_dim": 64, "vocab_size": tokens, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu", "torch_dtype": "bfloat16"});
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![tokens, hidden])];
        for (name, rows, columns) in [
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", hidden, hidden),
            ("self_attn.v_proj", hidden, hidden),
            ("self_attn.o_proj", hidden, hidden),
            ("mlp.gate_proj", wide, hidden),
            ("mlp.up_proj", wide, hidden),
            ("mlp.down_proj", hidden, wide),
        ] {
            tensors.push((format!("model.layers.0.{name}.weight"), vec![rows, columns]));
        }
        for name in ["layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"] {
            tensors.push((format!("model.{name}.weight"), vec![hidden]));
        }
        let (mut header, mut end) = (serde_json::Map::new(), 0);
        for (name, shape) in tensors {
            let bytes = shape.iter().product::<usize>() * 2;
            header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [end, end + bytes]}));
            end += bytes;
        }
        let header = serde_json::Value::Object(header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        // Between 2^-5 and 2^-4, of either sign.
        file.extend(
            (0..end / 2)
                .flat_map(|at: usize| [(at * 37 % 128) as u8, 0x3d | (u8::from(at.is_multiple_of(3))) << 7]),
        );
        std::fs::write(dir.join("model.safetensors"), file).unwrap();
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Policies of this process's mappings, as Linux writes them.
fn policies() -> String {
    std::fs::read_to_string("/proc/self/numa_maps").unwrap_or_default()
}

#[test]
fn placing_changes_no_bits() {
    let dir = Dir::new("bits");
    let source = Source::from(dir.0.as_path());
    for weights in [WeightType::Int8, WeightType::F32] {
        let options = ModelOptions::default().weights(weights);
        let plain = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
        let expected = bits(&plain.load(&source, &options).unwrap());
        for (numa, policy) in [(Numa::Interleave, " interleave"), (Numa::Local, " prefer")] {
            for threads in [1, 2, 5] {
                let Some(runtime) = placed(numa, threads) else { return };
                assert_eq!((runtime.numa(), runtime.threads()), (numa, threads as usize));
                let model = runtime.load(&source, &options).unwrap();
                assert!(bits(&model) == expected, "{weights}, {numa}, {threads} threads");
                let policies = policies();
                // Neighbours with one policy are one mapping.
                let placed = policies.lines().filter(|line| line.contains(policy)).count();
                assert!(
                    policies.is_empty() || weights == WeightType::Int8 || placed >= 3,
                    "{numa}: {policies}"
                );
            }
        }
    }
}

#[test]
fn a_packed_file_is_read_where_pages_are_placed() {
    let dir = Dir::new("read");
    let packed = dir.0.join("model.clawdbot");
    let plain = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
    plain.pack(&Source::from(dir.0.as_path()), &packed, &PackOptions::default()).unwrap();
    let source = Source::from(packed.as_path());
    let mapped = plain.load(&source, &ModelOptions::default()).unwrap();
    let expected = bits(&mapped);
    let is_mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        Some(maps.contains(packed.to_str()?))
    };
    assert_ne!(is_mapped(), Some(false));
    drop(mapped);
    for numa in [Numa::Interleave, Numa::Local] {
        let Some(runtime) = placed(numa, 2) else { return };
        for options in [ModelOptions::default(), ModelOptions::default().mmap(false)] {
            let model = runtime.load(&source, &options).unwrap();
            assert!(bits(&model) == expected, "{numa}");
            assert_ne!(is_mapped(), Some(true), "{numa}");
        }
        let asked = ModelOptions::default().mmap(true);
        for error in
            [runtime.load(&source, &asked).map(drop).unwrap_err(), runtime.plan(&source, &asked).unwrap_err()]
        {
            assert_eq!(
                (error.kind(), &error.detail()["option"]),
                (ErrorKind::InvalidArgument, &"mmap".into())
            );
            let expected = format!(
                "option mmap: expected false, as pages of mapped files cannot be placed, with numa {numa}, found true"
            );
            assert_eq!(error.message(), expected);
        }
    }
}

#[test]
fn the_log_says_where() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&log);
    if placed(Numa::Local, 2).is_none() {
        return;
    }
    let options = RuntimeOptions::default().threads(2).numa(Numa::Local);
    Runtime::with_log(&options, move |record| to.lock().unwrap().push(record.message.clone())).unwrap();
    let log = log.lock().unwrap();
    let line = log.iter().find(|line| line.starts_with("numa local: ")).unwrap();
    assert!(line.contains("threads on node "), "{line}");
}

#[cfg(not(target_os = "linux"))]
#[test]
fn elsewhere_it_is_an_error() {
    for numa in [Numa::Interleave, Numa::Local] {
        assert!(placed(numa, 1).is_none());
    }
}
