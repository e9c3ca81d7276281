//! Small valid files to begin with, made here.

use std::path::PathBuf;

use clawdbot_core::{
    AddSpecialTokens, GenerateOptions, Model, PackOptions, Runtime, RuntimeOptions, Source, WeightType,
};
use serde_json::{Value, json};

const HIDDEN: usize = 32;
const VOCAB: usize = 24;

/// A tensor of a Llama with one layer.
struct Tensor {
    /// In safetensors files.
    name: &'static str,
    gguf_name: &'static str,
    shape: &'static [usize],
}

const fn tensor(name: &'static str, gguf_name: &'static str, shape: &'static [usize]) -> Tensor {
    Tensor { name, gguf_name, shape }
}

const TENSORS: &[Tensor] = &[
    tensor("model.embed_tokens.weight", "token_embd.weight", &[VOCAB, HIDDEN]),
    tensor("model.norm.weight", "output_norm.weight", &[HIDDEN]),
    tensor("model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight", &[HIDDEN]),
    tensor("model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", &[HIDDEN, HIDDEN]),
    tensor("model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight", &[16, HIDDEN]),
    tensor("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight", &[16, HIDDEN]),
    tensor("model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight", &[HIDDEN, HIDDEN]),
    tensor("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight", &[HIDDEN]),
    tensor("model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight", &[32, HIDDEN]),
    tensor("model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight", &[32, HIDDEN]),
    tensor("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight", &[HIDDEN, 32]),
];

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": HIDDEN,
        "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 16, "rms_norm_eps": 1e-5, "hidden_act": "silu", "max_position_embeddings": 64,
        "rope_theta": 10000.0, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": [2, 3],
    })
}

fn with(changes: Value) -> Vec<u8> {
    let mut config = llama();
    if let (Value::Object(config), Value::Object(changes)) = (&mut config, changes) {
        config.extend(changes);
    }
    config.to_string().into_bytes()
}

/// One configuration for each kind of thing that is read.
pub fn config() -> Vec<Vec<u8>> {
    let experts = json!({"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16, "norm_topk_prob": true, "decoder_sparse_step": 1,
        "mlp_only_layers": []});
    let all = |name: &str, changes: Value| {
        let mut changes = changes;
        changes["architectures"] = json!([name]);
        with(changes)
    };
    let joined = |mut a: Value, b: Value| {
        if let (Value::Object(a), Value::Object(b)) = (&mut a, b) {
            a.extend(b);
        }
        a
    };
    vec![
        with(json!({})),
        with(json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32}})),
        with(json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.7,
            "beta_fast": 32, "beta_slow": 1, "original_max_position_embeddings": 32}})),
        with(json!({"temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": 0.0, "do_sample": true,
            "repetition_penalty": 1.1, "pad_token_id": -1, "max_new_tokens": 20})),
        all("MistralForCausalLM", json!({"sliding_window": 16})),
        all(
            "Qwen2ForCausalLM",
            json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 0}),
        ),
        all("Qwen3MoeForCausalLM", experts.clone()),
        all(
            "Qwen3NextForCausalLM",
            joined(
                experts,
                json!({"full_attention_interval": 4,
            "linear_conv_kernel_dim": 4, "linear_key_head_dim": 8, "linear_num_key_heads": 2,
            "linear_num_value_heads": 4, "linear_value_head_dim": 8, "partial_rotary_factor": 0.25}),
            ),
        ),
        all("MixtralForCausalLM", json!({"num_local_experts": 4, "num_experts_per_tok": 2})),
        all(
            "Gemma2ForCausalLM",
            json!({"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
            "query_pre_attn_scalar": 24, "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 8}),
        ),
        all(
            "Gemma3ForCausalLM",
            json!({"rope_local_base_freq": 10000.0, "sliding_window_pattern": 6,
            "hidden_activation": "gelu_pytorch_tanh", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
        ),
        all(
            "Phi3ForCausalLM",
            json!({"original_max_position_embeddings": 32, "rope_scaling": {"type": "longrope",
            "short_factor": [1, 1, 1, 1, 1, 1, 1, 1], "long_factor": [1, 2, 3, 4, 5, 6, 7, 8]}}),
        ),
        all("SmolLM3ForCausalLM", json!({"no_rope_layers": [1]})),
        all("Cohere2ForCausalLM", json!({"layer_norm_eps": 1e-5, "logit_scale": 0.25, "sliding_window": 8})),
        all(
            "GptOssForCausalLM",
            json!({"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8,
            "layer_types": ["sliding_attention"], "swiglu_limit": 7.0,
            "quantization_config": {"quant_method": "mxfp4"}}),
        ),
        all(
            "DeepseekV3ForCausalLM",
            json!({"q_lora_rank": 8, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2,
            "n_shared_experts": 1, "moe_intermediate_size": 16, "n_group": 2, "topk_group": 1,
            "first_k_dense_replace": 0, "routed_scaling_factor": 2.5}),
        ),
        all(
            "Lfm2ForCausalLM",
            json!({"norm_eps": 1e-5, "conv_L_cache": 3, "layer_types": ["conv"],
            "block_auto_adjust_ff_dim": true, "block_multiple_of": 32, "block_ffn_dim_multiplier": 1.0}),
        ),
    ]
}

fn tokens() -> Vec<String> {
    let named =
        ["<unk>", "<s>", "</s>", "<|end|>", "\u{2581}", "a", "b", "ab", "\u{2581}a", "\u{120}", "\u{120}a"];
    (0..VOCAB).map(|i| named.get(i).map_or_else(|| format!("t{i}"), |&name| name.to_owned())).collect()
}

fn tokenizer_json(model: Value, pre: Value, decoder: Value) -> Vec<u8> {
    let special = |id: usize, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(1, "<s>"), special(2, "</s>"), special(3, "<|end|>")],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"},
            {"type": "Replace", "pattern": {"String": "x"}, "content": "y"}]},
        "pre_tokenizer": pre,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": decoder, "model": model,
    })
    .to_string()
    .into_bytes()
}

/// One of each kind of model, and some with fields of other kinds, which have no effect.
pub fn tokenizer() -> Vec<Vec<u8>> {
    let vocab: Value = tokens().into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect();
    let bpe = json!({"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": false,
        "ignore_merges": false, "vocab": vocab, "merges": [["a", "b"], ["\u{2581}", "a"], ["\u{120}", "a"]]});
    let scored: Vec<Value> =
        tokens().into_iter().enumerate().map(|(i, token)| json!([token, -(i as f64)])).collect();
    let split = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}| ?\\p{L}+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated",
            "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]});
    let meta =
        json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    let bert = json!({"type": "BertPreTokenizer"});
    let word_piece = json!({"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": vocab});
    let unigram = json!({"type": "Unigram", "unk_id": 0, "vocab": scored, "byte_fallback": false});
    let plain = |model: &Value, changes: Value| {
        let mut model = model.clone();
        if let (Value::Object(model), Value::Object(changes)) = (&mut model, changes) {
            model.extend(changes);
        }
        tokenizer_json(model, json!({"type": "WhitespaceSplit"}), json!({"type": "Fuse"}))
    };
    let merges = json!({"merges": ["no such"], "continuing_subword_prefix": "##"});
    vec![
        tokenizer_json(
            bpe.clone(),
            split,
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
            "use_regex": false}),
        ),
        tokenizer_json(unigram.clone(), meta.clone(), meta),
        tokenizer_json(
            word_piece.clone(),
            bert,
            json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        ),
        plain(&bpe, json!({"max_input_chars_per_word": 1000, "unk_id": 1000})),
        plain(&unigram, merges.clone()),
        plain(&word_piece, merges.clone()),
        plain(&json!({"type": "WordLevel", "unk_token": "<unk>", "vocab": vocab}), merges),
    ]
}

pub fn index() -> Vec<Vec<u8>> {
    let names = TENSORS.iter().map(|tensor| (tensor.name, "model-00001-of-00002.safetensors"));
    let map: Value = names.map(|(name, file)| (name.to_owned(), json!(file))).collect();
    vec![json!({"metadata": {"total_size": 4096}, "weight_map": map}).to_string().into_bytes()]
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.01).collect()
}

/// A tensor as a safetensors file has it.
struct Stored {
    name: &'static str,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn stored(name: &'static str, dtype: &'static str, shape: &[usize], bytes: Vec<u8>) -> Stored {
    Stored { name, dtype, shape: shape.to_vec(), bytes }
}

fn safetensors_file(tensors: &[Stored], metadata: Value) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    header.insert("__metadata__".to_owned(), metadata);
    for Stored { name, dtype, shape, bytes } in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        header.insert(
            (*name).to_owned(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]}),
        );
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn model_safetensors() -> Vec<u8> {
    let all = TENSORS.iter().map(|&Tensor { name, shape, .. }| {
        stored(name, "F32", shape, bytes(&values(shape.iter().product())))
    });
    safetensors_file(&all.collect::<Vec<_>>(), json!({"format": "pt"}))
}

pub fn safetensors() -> Vec<Vec<u8>> {
    let int8 = safetensors_file(
        &[
            stored("w", "I8", &[4, 8], (0..32).collect()),
            stored("w.scales", "BF16", &[4, 2], vec![0x80, 0x3f].repeat(8)),
            stored("b", "BF16", &[4], vec![0; 8]),
            stored("c", "F16", &[2, 2], vec![0; 8]),
            stored("e", "F32", &[0, 4], Vec::new()),
        ],
        json!({"format": "clawdbot-int8", "group_size": "4"}),
    );
    vec![model_safetensors(), int8]
}

/// GGUF metadata and tensors as they are written.
struct Gguf {
    pairs: Vec<Vec<u8>>,
    tensors: Vec<(String, u32, Vec<usize>, Vec<u8>)>,
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

impl Gguf {
    fn pair(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.pairs.push([&text(key), &kind.to_le_bytes()[..], value].concat());
    }

    fn number(&mut self, key: &str, value: usize) {
        self.pair(key, 4, &(value as u32).to_le_bytes());
    }

    fn array(&mut self, key: &str, kind: u32, elements: &[Vec<u8>]) {
        let head = [&kind.to_le_bytes()[..], &(elements.len() as u64).to_le_bytes()].concat();
        self.pair(key, 9, &[head, elements.concat()].concat());
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        out.extend(self.pairs.concat());
        let mut data = Vec::new();
        for (name, kind, shape, bytes) in &self.tensors {
            data.resize(data.len().next_multiple_of(32), 0);
            out.extend(text(name));
            out.extend((shape.len() as u32).to_le_bytes());
            out.extend(shape.iter().rev().flat_map(|&size| (size as u64).to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }
}

/// `kind`: F32, or Q8_0 of matrices. `model`: of the tokenizer.
fn gguf_file(kind: u32, model: &str) -> Gguf {
    let mut file = Gguf { pairs: Vec::new(), tensors: Vec::new() };
    file.pair("general.architecture", 8, &text("llama"));
    for (key, value) in [
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", 32),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("rope.dimension_count", 16),
    ] {
        file.number(&format!("llama.{key}"), value);
    }
    file.pair("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes());
    file.pair("llama.rope.freq_base", 6, &1e4_f32.to_le_bytes());
    file.pair("tokenizer.ggml.model", 8, &text(model));
    file.array("tokenizer.ggml.tokens", 8, &tokens().iter().map(|token| text(token)).collect::<Vec<_>>());
    let types: Vec<i32> = (0..VOCAB)
        .map(|id| {
            if id == 0 {
                2
            } else if id < 4 {
                3
            } else {
                1
            }
        })
        .collect();
    file.array(
        "tokenizer.ggml.token_type",
        5,
        &types.iter().map(|kind| kind.to_le_bytes().to_vec()).collect::<Vec<_>>(),
    );
    if model == "gpt2" {
        file.pair("tokenizer.ggml.pre", 8, &text("llama-bpe"));
        file.array("tokenizer.ggml.merges", 8, &[text("a b"), text("\u{120} a")]);
    } else {
        let scores: Vec<Vec<u8>> = (0..VOCAB).map(|id| (-(id as f32)).to_le_bytes().to_vec()).collect();
        file.array("tokenizer.ggml.scores", 6, &scores);
    }
    file.number("tokenizer.ggml.bos_token_id", 1);
    file.number("tokenizer.ggml.eos_token_id", 2);
    file.pair("tokenizer.chat_template", 8, &text("{{ messages[0].content }}"));
    for Tensor { gguf_name, shape, .. } in TENSORS {
        let count: usize = shape.iter().product();
        let (kind, data) = match kind {
            8 if shape.len() > 1 => {
                (8, [0x00, 0x10].iter().copied().chain(1..33).collect::<Vec<u8>>().repeat(count / 32))
            }
            _ => (0, bytes(&values(count))),
        };
        file.tensors.push(((*gguf_name).to_owned(), kind, shape.to_vec(), data));
    }
    file
}

/// Qwen3-MoE: tensors of three dimensions.
fn gguf_experts() -> Gguf {
    let mut file = gguf_file(0, "none");
    let key = |pair: &Vec<u8>| String::from_utf8_lossy(pair).into_owned();
    file.pairs.retain(|pair| !key(pair).contains("tokenizer") && !key(pair).contains("general."));
    for pair in &mut file.pairs {
        let text = pair.windows(5).position(|part| part == b"llama").unwrap_or(0);
        pair.splice(text..text + 5, *b"qwen3moe");
        pair[0] += 3;
    }
    file.pairs
        .insert(0, [text("general.architecture"), 8_u32.to_le_bytes().to_vec(), text("qwen3moe")].concat());
    file.number("qwen3moe.expert_count", 4);
    file.number("qwen3moe.expert_used_count", 2);
    file.number("qwen3moe.expert_feed_forward_length", 8);
    file.tensors.retain(|(name, ..)| !name.contains("ffn_") || name.contains("norm"));
    for (name, shape) in [
        ("attn_q_norm", vec![16]),
        ("attn_k_norm", vec![16]),
        ("ffn_gate_inp", vec![4, HIDDEN]),
        ("ffn_gate_exps", vec![4, 8, HIDDEN]),
        ("ffn_up_exps", vec![4, 8, HIDDEN]),
        ("ffn_down_exps", vec![4, HIDDEN, 8]),
    ] {
        let data = bytes(&values(shape.iter().product()));
        file.tensors.push((format!("blk.0.{name}.weight"), 0, shape, data));
    }
    file
}

fn unigram() -> Vec<u8> {
    let mut file = gguf_file(0, "t5");
    // A unit of the table may lead to any of 256.
    let table = [0; 1024];
    let rules = [&(table.len() as u32).to_le_bytes()[..], &table, b"b\0"].concat();
    let rules: Vec<Vec<u8>> = rules.iter().map(|&byte| vec![byte]).collect();
    file.array("tokenizer.ggml.precompiled_charsmap", 0, &rules);
    file.bytes()
}

pub fn gguf() -> Vec<Vec<u8>> {
    vec![
        gguf_file(0, "llama").bytes(),
        gguf_file(8, "gpt2").bytes(),
        gguf_file(0, "bert").bytes(),
        unigram(),
        gguf_experts().bytes(),
    ]
}

/// Saved sessions of the built-in model: without tokens, with tokens alone, and with what was computed of them.
pub fn session() -> Vec<Vec<u8>> {
    let made = (|| -> clawdbot_core::Result<Vec<Vec<u8>>> {
        let model = Model::builtin()?;
        let mut session = model.session()?;
        let mut files = vec![Vec::new(), Vec::new(), Vec::new()];
        session.save_to(&mut files[0])?;
        session.append(vec![5, 6, 7], AddSpecialTokens::No)?;
        session.save_to(&mut files[1])?;
        session.generate(&GenerateOptions::default().max_tokens(2_u32).temperature(0.0))?;
        session.save_to(&mut files[2])?;
        Ok(files)
    })();
    made.unwrap_or_else(|error| panic!("the seeds of sessions: {error}"))
}

pub fn packed() -> Vec<Vec<u8>> {
    let dir: PathBuf = std::env::temp_dir().join(format!("clawdbot-fuzz-{}", std::process::id()));
    let made = (|| -> std::io::Result<Vec<Vec<u8>>> {
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("config.json"), llama().to_string())?;
        std::fs::write(dir.join("tokenizer.json"), &tokenizer()[0])?;
        std::fs::write(dir.join("model.safetensors"), model_safetensors())?;
        std::fs::write(dir.join("m.gguf"), gguf_file(8, "gpt2").bytes())?;
        let runtime = Runtime::new(&RuntimeOptions::default().threads(1)).map_err(std::io::Error::other)?;
        let mut files = Vec::new();
        for (source, weights) in [
            (dir.clone(), WeightType::Int8),
            (dir.clone(), WeightType::Bf16),
            (dir.join("m.gguf"), WeightType::Stored),
        ] {
            let out = dir.join(format!("{weights}.clawdbot"));
            let options = PackOptions::default().weights(weights);
            runtime.pack(&Source::Path(source), &out, &options).map_err(std::io::Error::other)?;
            files.push(std::fs::read(out)?);
        }
        Ok(files)
    })();
    // What cannot be removed is left to the system.
    let _ = std::fs::remove_dir_all(&dir);
    made.unwrap_or_else(|error| panic!("the seeds of packed files: {error}"))
}

/// Of tokenizers that have tables.
pub fn tables() -> Vec<Vec<u8>> {
    tokenizer().iter().filter_map(|json| clawdbot_core::fuzz_support::tables_of(json)).collect()
}

pub fn template() -> Vec<Vec<u8>> {
    vec![
        b"{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}\n{% endfor %}"
            .to_vec(),
        b"{%- if tools %}{{ tools | tojson(indent=4) }}{%- endif %}{%- set ns = namespace(x=1) %}\
          {%- for m in messages[::-1] %}{%- set ns.x = ns.x + loop.index0 %}{{ m.content.split(' ')[-1] }}\
          {%- endfor %}{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f(ns.x) }}\
          {%- if not add_generation_prompt is defined %}{{ raise_exception('no') }}{% endif %}"
            .to_vec(),
        b"{% set ns = namespace(x=[1], s='a') %}{% for i in range(6) %}{% set ns.x = ns.x + ns.x * 2 %}\
          {% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.x|reverse|list|tojson }}{{ ns.x|join }}{{ ns.x == ns.x[::-1] }}\
          {{ 1 in ns.x }}{% set a, b = ns.x[:2] %}{{ ns.s[1:] + ns.s.replace('a', ns.s) }}"
            .to_vec(),
        b"{{ '%5.2f|%-8s' % (1, [none, 'x']) }}{{ '{:>9}{!r}'.format('y', 'x') }}\
          {{ (messages|map(attribute='role')|list) * 3 }}{{ (tools or [])|selectattr('type', 'in', ['f'])|list }}\
          {{ messages|groupby('role')|sort(attribute='0')|map(attribute='list')|sum(start=[])|length }}{{ 'a b'|wordwrap(1)|truncate(3, true) }}\
          {{ 2 ** 64 // -3 % 7 if 1 < 2 < 3 else -'x' }}{{ dict([('a', 1)], b=range(9)[::2])|dictsort|join(', ') }}"
            .to_vec(),
    ]
}
