//! How long opening a model takes, from its directory and packed, with a tokenizer as large as published ones.
//!
//! `cargo bench -p clawdbot-core --bench open -- [TOKENS] [REPEATS] [FILE...]`: 128 000 tokens and 21 repeats by default;
//! packed files named after them are measured too, taking turns with the others.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clawdbot_core::{
    AddSpecialTokens, ModelOptions, PackOptions, Runtime, RuntimeOptions, Source, Tokenizer,
};
use serde_json::json;

#[path = "../tests/support/large_tokenizer.rs"]
mod large_tokenizer;

const HIDDEN: usize = 64;

/// Writes a Llama of one small layer with a vocabulary of `tokens`.
fn write_model(dir: &Path, tokens: usize) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("tokenizer.json"), large_tokenizer::tokenizer_json(tokens)).unwrap();
    let config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
        "head_dim": HIDDEN, "vocab_size": tokens, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu", "torch_dtype": "bfloat16"});
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let names = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ];
    let mut tensors: Vec<(String, Vec<usize>)> =
        names.iter().map(|name| (format!("model.layers.0.{name}.weight"), vec![HIDDEN, HIDDEN])).collect();
    for name in ["layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"] {
        tensors.push((format!("model.{name}.weight"), vec![HIDDEN]));
    }
    tensors.push(("model.embed_tokens.weight".to_owned(), vec![tokens, HIDDEN]));
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let bytes = shape.iter().product::<usize>() * 2;
        header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [end, end + bytes]}));
        end += bytes;
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    // Ones and halves.
    file.extend((0..end / 2).flat_map(|at| [[0x80, 0x3f], [0, 0x3f]][at % 2]));
    std::fs::write(dir.join("model.safetensors"), file).unwrap();
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let number = |at: usize, default: usize| args.get(at).and_then(|arg| arg.parse().ok()).unwrap_or(default);
    let (tokens, repeats) = (number(0, 128_000), number(1, 21));
    let dir = std::env::temp_dir().join(format!("clawdbot-open-{}-{tokens}", std::process::id()));
    let packed = dir.join("model.clawdbot");
    write_model(&dir, tokens);
    let runtime = Runtime::new(&RuntimeOptions::default()).unwrap();
    runtime.pack(&Source::Path(dir.clone()), &packed, &PackOptions::default().overwrite(true)).unwrap();
    let mut sources = vec![("directory".to_owned(), dir.clone()), ("packed".to_owned(), packed)];
    sources.extend(args.iter().skip(2).map(|file| (file.clone(), PathBuf::from(file))));
    let mut times = vec![Vec::<Duration>::new(); sources.len()];
    for _ in 0..repeats {
        for ((_, source), times) in sources.iter().zip(&mut times) {
            let start = Instant::now();
            let model = runtime.load(&Source::Path(source.clone()), &ModelOptions::default()).unwrap();
            times.push(start.elapsed());
            drop(model);
        }
    }
    println!("{tokens} tokens, {repeats} repeats: opening in ms");
    for ((name, _), times) in sources.iter().zip(&mut times) {
        times.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!("{name:<12} least {:7.2}, median {:7.2}", ms(times[0]), ms(times[times.len() / 2]));
    }
    for (name, source) in &sources {
        let model = runtime.load(&Source::Path(source.clone()), &ModelOptions::default()).unwrap();
        encode(name, &model.tokenizer().unwrap(), repeats);
    }
    std::fs::remove_dir_all(dir).unwrap();
}

/// How fast texts become tokens.
fn encode(name: &str, tokenizer: &Tokenizer, repeats: usize) {
    let text = include_str!("../src/tokenizer/mod.rs").repeat(20);
    let times = (0..repeats).map(|_| {
        let start = Instant::now();
        let tokens = tokenizer.encode(&text, AddSpecialTokens::No).unwrap();
        (start.elapsed(), tokens.len())
    });
    let (time, count) = times.min().unwrap();
    println!("{name:<12} encodes {count} tokens, {:.0} per ms", count as f64 / time.as_secs_f64() / 1e3);
}
