//! Small files that claim to be large: typed errors, and no memory for what is not there.
#![allow(clippy::unwrap_used, reason = "a test")]

#[cfg(target_os = "linux")]
#[path = "support/child.rs"]
#[allow(unsafe_code, unreachable_pub, clippy::print_stdout, reason = "limits and waiting are system calls")]
mod child;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(target_os = "linux")]
use child::{Limits, in_child};
use clawdbot_core::{
    AddSpecialTokens, Error, ErrorKind, ModelOptions, PackOptions, Runtime, RuntimeOptions, Source, Tokenizer,
};
use serde_json::{Value, json};

/// What is claimed.
const FOUR_GB: u64 = 1 << 32;

/// What was asked of the system, in bytes.
struct Counting {
    /// The largest of all allocations.
    largest: AtomicUsize,
    /// All of them together.
    sum: AtomicUsize,
    /// Those that are there now, and most of them at a time.
    live: AtomicUsize,
    peak: AtomicUsize,
}

/// Memory that refusing a file may take, in bytes: at once, in all, and at a time.
const MOST: [usize; 3] = [2 << 20, 32 << 20, 8 << 20];

/// Tests of this file run one after another, each in a process of its own.
static ONE: Mutex<()> = Mutex::new(());

impl Counting {
    fn add(&self, size: usize) {
        self.largest.fetch_max(size, Ordering::Relaxed);
        self.sum.fetch_add(size, Ordering::Relaxed);
        let live = self.live.fetch_add(size, Ordering::Relaxed) + size;
        self.peak.fetch_max(live, Ordering::Relaxed);
    }

    fn remove(&self, size: usize) {
        self.live.fetch_sub(size, Ordering::Relaxed);
    }

    /// Begins to count.
    fn start(&self) {
        self.largest.store(0, Ordering::Relaxed);
        self.sum.store(0, Ordering::Relaxed);
        self.peak.store(self.live.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is that of `System` too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`, which is that of `System` too.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.remove(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`, which is that of `System` too.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The old and the new one may be there at the same time.
        self.add(size);
        self.remove(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`, which is that of `System` too.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting {
    largest: AtomicUsize::new(0),
    sum: AtomicUsize::new(0),
    live: AtomicUsize::new(0),
    peak: AtomicUsize::new(0),
};

#[cfg(not(target_os = "linux"))]
#[derive(Default)]
struct Limits;

/// Elsewhere without limits.
#[cfg(not(target_os = "linux"))]
fn in_child<F: FnOnce()>(_limits: Limits, body: F) {
    body();
}

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("clawdbot-hostile-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Checks that `attempt` is refused, as malformed or not supported, with little memory.
#[track_caller]
fn refused(what: &str, attempt: impl FnOnce() -> Result<(), Error>) -> Error {
    let before = ALLOCATOR.live.load(Ordering::Relaxed);
    ALLOCATOR.start();
    let error = attempt().expect_err(what);
    let peak = ALLOCATOR.peak.load(Ordering::Relaxed) - before;
    let taken = [ALLOCATOR.largest.load(Ordering::Relaxed), ALLOCATOR.sum.load(Ordering::Relaxed), peak];
    let fits = taken.iter().zip(MOST).all(|(taken, most)| *taken < most);
    assert!(fits, "{what}: {taken:?} bytes at once, in all and at a time, at most {MOST:?}, for: {error}");
    let expected = [ErrorKind::InvalidModel, ErrorKind::UnsupportedModel, ErrorKind::InvalidTokenizer];
    assert!(expected.contains(&error.kind()), "{what}: {error:?}");
    error
}

#[test]
fn allocations_are_counted() {
    let _one = ONE.lock().unwrap();
    ALLOCATOR.start();
    let before = ALLOCATOR.live.load(Ordering::Relaxed);
    for _ in 0..10 {
        drop(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
    let mut grown = std::hint::black_box(vec![1_u8; 3 << 20]);
    grown.reserve_exact(1 << 20);
    let taken = [&ALLOCATOR.largest, &ALLOCATOR.sum, &ALLOCATOR.peak]
        .map(|count| count.load(Ordering::Relaxed) >> 20);
    assert_eq!(taken[0], 4);
    assert!((17..19).contains(&taken[1]), "{taken:?}");
    assert!((7..9).contains(&(taken[2] - (before >> 20))), "{taken:?}");
}

fn plan(path: PathBuf) -> Result<(), Error> {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(1))?;
    runtime.plan(&Source::Path(path), &ModelOptions::default()).map(|_| ())
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

/// A GGUF file: how many tensors and pairs it says it has, and what follows.
fn gguf(tensors: u64, pairs: u64, rest: &[&[u8]]) -> Vec<u8> {
    [b"GGUF\x03\0\0\0".as_slice(), &tensors.to_le_bytes(), &pairs.to_le_bytes(), &rest.concat()].concat()
}

/// A pair of metadata: key, type, value.
fn pair(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key), &kind.to_le_bytes()[..], value].concat()
}

#[test]
fn gguf_files_that_claim_gigabytes_are_refused() {
    in_child(Limits::default(), || {
        gguf_files();
    });
}

fn gguf_files() {
    let _one = ONE.lock().unwrap();
    let folder = Folder::new("gguf");
    let long = FOUR_GB.to_le_bytes();
    let architecture = pair("general.architecture", 8, &text("llama"));
    let array = |element: u32, len: u64| {
        pair("tokenizer.ggml.tokens", 9, &[&element.to_le_bytes()[..], &len.to_le_bytes()].concat())
    };
    let nested = |depth: usize| {
        let inner = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat();
        let last = [&0_u32.to_le_bytes()[..], &long].concat();
        pair("a", 9, &[inner.repeat(depth), last].concat())
    };
    let tensor = |dims: &[u64], kind: u32, offset: u64| {
        let dims_bytes: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
        let parts: [&[u8]; 5] = [
            &text("token_embd.weight"),
            &(dims.len() as u32).to_le_bytes(),
            &dims_bytes,
            &kind.to_le_bytes(),
            &offset.to_le_bytes(),
        ];
        parts.concat()
    };
    let alignment = |to: u64| pair("general.alignment", 10, &to.to_le_bytes());
    let cases: &[(&str, Vec<u8>)] = &[
        ("4 G tensors", gguf(FOUR_GB, 0, &[])),
        ("2^20 tensors", gguf(1 << 20, 0, &[])),
        ("2^64 - 1 tensors", gguf(u64::MAX, 0, &[])),
        ("4 G pairs", gguf(0, FOUR_GB, &[])),
        ("2^16 pairs", gguf(0, 1 << 16, &[])),
        ("a key of 4 GB", gguf(0, 1, &[&long, b"general"])),
        ("a string of 4 GB", gguf(0, 1, &[&pair("general.architecture", 8, &long), b"llama"])),
        ("a string of 60 MB", gguf(0, 1, &[&pair("general.name", 8, &(60_u64 << 20).to_le_bytes()), b"x"])),
        ("4 G strings", gguf(0, 1, &[&array(8, FOUR_GB)])),
        ("4 G bytes", gguf(0, 1, &[&array(0, FOUR_GB)])),
        ("2^61 numbers of 8 bytes", gguf(0, 1, &[&array(10, 1 << 61)])),
        ("4 G arrays", gguf(0, 1, &[&array(9, FOUR_GB)])),
        ("a string of 4 GB in an array", gguf(0, 1, &[&array(8, 1), &long, b"a"])),
        ("arrays in arrays", gguf(0, 1, &[&nested(2)])),
        ("arrays in arrays in arrays in arrays", gguf(0, 1, &[&nested(400)])),
        ("a tensor name of 4 GB", gguf(1, 0, &[&long, b"token_embd.weight"])),
        ("4 G dimensions", gguf(1, 0, &[&text("t"), &u32::MAX.to_le_bytes(), &[0; 64]])),
        ("a tensor of 4 GB", gguf(1, 0, &[&tensor(&[1 << 16, 1 << 16], 24, 0), &[0; 64]])),
        ("a tensor of 16 GB", gguf(1, 0, &[&tensor(&[FOUR_GB], 0, 0), &[0; 64]])),
        ("a tensor of 2^64 weights", gguf(1, 0, &[&tensor(&[FOUR_GB, FOUR_GB], 0, 0), &[0; 64]])),
        ("one with a zero among them", gguf(1, 0, &[&tensor(&[FOUR_GB, FOUR_GB, 0], 0, 0), &[0; 64]])),
        ("blocks of 4 GB", gguf(1, 0, &[&tensor(&[256, FOUR_GB / 144], 12, 0), &[0; 64]])),
        ("an offset of 4 GB", gguf(1, 0, &[&tensor(&[8], 0, FOUR_GB), &[0; 64]])),
        ("an offset before the end of numbers", gguf(1, 0, &[&tensor(&[8], 0, u64::MAX - 31), &[0; 64]])),
        ("an alignment of 2^63", gguf(1, 1, &[&alignment(1 << 63), &tensor(&[8], 0, 0), &[0; 64]])),
        ("an alignment of 4 GB", gguf(1, 1, &[&alignment(FOUR_GB), &tensor(&[8], 0, 0), &[0; 64]])),
    ];
    for (what, bytes) in cases {
        let path = folder.write("m.gguf", bytes);
        refused(what, || plan(path.clone()));
        refused(what, || Tokenizer::from_file(&path).map(|_| ()));
    }
    // Sizes of the model that the metadata claim.
    for (key, value) in [
        ("block_count", u32::MAX),
        ("block_count", 4096),
        ("embedding_length", u32::MAX),
        ("attention.head_count", u32::MAX),
        ("attention.key_length", u32::MAX),
        ("feed_forward_length", u32::MAX),
        ("context_length", u32::MAX),
    ] {
        let mut pairs = vec![architecture.clone()];
        let sizes = [
            ("block_count", 1),
            ("embedding_length", 32),
            ("attention.head_count", 2),
            ("feed_forward_length", 32),
            ("context_length", 64),
        ];
        let others = sizes.iter().filter(|(other, _)| *other != key).copied();
        for (key, size) in others.chain([(key, value)]) {
            pairs.push(pair(&format!("llama.{key}"), 4, &size.to_le_bytes()));
        }
        pairs.push(pair("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes()));
        let path = folder.write("m.gguf", &gguf(0, pairs.len() as u64, &[&pairs.concat()]));
        refused(&format!("{key} = {value}"), || plan(path.clone()));
    }
    // Parts that are not there.
    let parts = [architecture, pair("split.count", 10, &FOUR_GB.to_le_bytes())].concat();
    let path = folder.write("m-00001-of-4294967296.gguf", &gguf(0, 2, &[&parts]));
    refused("4 G parts", || plan(path.clone()));
}

fn safetensors(header: &Value, data: usize) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 16, "hidden_size": 32, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "max_position_embeddings": 64, "tie_word_embeddings": true,
    })
}

/// A tokenizer without tokens.
fn tokenizer() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
    })
}

#[test]
fn directories_that_claim_gigabytes_are_refused() {
    in_child(Limits::default(), || {
        directories();
    });
}

fn directories() {
    let _one = ONE.lock().unwrap();
    let folder = Folder::new("directory");
    folder.write("config.json", config().to_string().as_bytes());
    folder.write("tokenizer.json", tokenizer().to_string().as_bytes());
    let entry = |shape: &[u64], end: u64| json!({"model.embed_tokens.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}});
    let length = |length: u64| [&length.to_le_bytes()[..], b"{\"a\": 1}"].concat();
    let cases: &[(&str, Vec<u8>)] = &[
        ("a header of 4 GB", length(FOUR_GB)),
        ("a header of 90 MB", length(90 << 20)),
        ("a header of 2^64 - 1 bytes", length(u64::MAX)),
        ("a tensor of 4 GB", safetensors(&entry(&[1 << 15, 1 << 15], FOUR_GB), 64)),
        ("a tensor of 2^64 bytes", safetensors(&entry(&[1 << 31, 1 << 31], u64::MAX), 64)),
        ("a shape that overflows", safetensors(&entry(&[FOUR_GB, FOUR_GB, FOUR_GB], 64), 64)),
        ("a shape of 4 GB for 64 bytes", safetensors(&entry(&[1 << 15, 1 << 15], 64), 64)),
    ];
    for (what, bytes) in cases {
        folder.write("model.safetensors", bytes);
        refused(what, || plan(folder.0.clone()));
    }
    // And as what a packed file begins with.
    for (what, bytes) in &cases[3..] {
        let metadata = json!({"format": "clawdbot-packed", "format_version": "1"});
        let mut bytes = bytes.clone();
        let header = bytes[8..].iter().position(|&byte| byte == 0).unwrap();
        let mut json: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        json["__metadata__"] = metadata;
        bytes = safetensors(&json, 64);
        let path = folder.write("m.clawdbot", &bytes);
        refused(what, || plan(path.clone()));
    }
    // Sizes that the configuration claims.
    folder.write("model.safetensors", &safetensors(&entry(&[2, 2], 16), 16));
    for (change, what) in [
        (json!({"vocab_size": 1 << 24}), "vocab_size"),
        (json!({"hidden_size": 1 << 20, "head_dim": 1 << 16}), "hidden_size"),
        (json!({"num_hidden_layers": 1 << 31}), "num_hidden_layers"),
        (json!({"head_dim": FOUR_GB}), "head_dim"),
        (json!({"max_position_embeddings": FOUR_GB}), "max_position_embeddings"),
        (
            json!({"architectures": ["Qwen3MoeForCausalLM"], "num_experts": FOUR_GB, "num_experts_per_tok": 2,
            "moe_intermediate_size": 8}),
            "num_experts",
        ),
        (
            json!({"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 1 << 16, "num_experts_per_tok": 2,
            "moe_intermediate_size": 8, "num_hidden_layers": 64}),
            "experts",
        ),
        (
            json!({"architectures": ["DeepseekV3ForCausalLM"], "kv_lora_rank": 8, "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 1 << 24, "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2,
            "moe_intermediate_size": 8}),
            "qk_rope_head_dim",
        ),
    ] {
        let mut changed = config();
        changed.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        folder.write("config.json", changed.to_string().as_bytes());
        refused(what, || plan(folder.0.clone()));
    }
}

#[test]
fn tokenizers_that_claim_gigabytes_are_refused() {
    in_child(Limits::default(), || {
        tokenizers();
    });
}

fn tokenizers() {
    let _one = ONE.lock().unwrap();
    for (what, model) in [
        ("ids", json!({"type": "BPE", "vocab": {"a": FOUR_GB}, "merges": []})),
        ("the last id", json!({"type": "BPE", "vocab": {"a": u32::MAX}, "merges": []})),
        ("merges of what is not there", json!({"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]})),
        ("the unknown token", json!({"type": "Unigram", "unk_id": FOUR_GB, "vocab": [["a", 0.0]]})),
    ] {
        let mut json = tokenizer();
        json["model"] = model;
        refused(what, || Tokenizer::from_bytes(json.to_string().as_bytes()).map(|_| ()));
    }
    // The table of a normalizer's rules, in files that go on with nonsense, or with another normalizer.
    let rules = r#"{"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////wAAAAAA"}"#;
    for behind in ["", ", ?", ", \"normalizer\": null}", "}\u{fffd}"] {
        let json = format!("{rules}{behind}");
        refused("the rules of a normalizer", || Tokenizer::from_bytes(json.as_bytes()).map(|_| ()));
    }
}

/// JSON of many values, and what is not looked at: refused, or passed over, without building it.
#[cfg(target_os = "linux")]
#[test]
fn json_of_millions_of_values_takes_little_memory() {
    let limits = Limits { peak: 150, ..Limits::default() };
    in_child(limits, || {
        let folder = Folder::new("json");
        let list = format!("[{}0]", "0,".repeat(7_500_000));
        let with = |file: &Value| format!("{{\"unused\":{list},{}", &file.to_string()[1..]).into_bytes();
        let good = [("config.json", config()), ("tokenizer.json", tokenizer())];
        folder.write("tokenizer_config.json", &with(&json!({"bos_token": "a"})));
        for (name, file) in &good {
            folder.write(name, file.to_string().as_bytes());
        }
        let kind = |word: &str| {
            let error = plan(folder.0.clone()).unwrap_err();
            assert!(error.message().contains(word), "{error}");
            error.kind()
        };
        // The file for settings of the tokenizer is in order: weights are what is missing.
        assert_eq!(kind("model.safetensors"), ErrorKind::NotFound);
        folder.write("config.json", &with(&good[0].1));
        assert_eq!(kind("unused: expected at most 524288 values"), ErrorKind::InvalidModel);
        let deep = "[".repeat(1 << 20);
        folder.write("config.json", format!("{{\"x\":{deep}").as_bytes());
        assert_eq!(kind("config.json"), ErrorKind::InvalidModel);
        folder.write("config.json", good[0].1.to_string().as_bytes());
        for part in [
            "normalizer",
            "pre_tokenizer",
            "post_processor",
            "decoder",
            "model",
            "added_tokens",
            "truncation",
        ] {
            let mut file = tokenizer();
            file.as_object_mut().unwrap().remove(part);
            let text = format!("{{\"{part}\":{list},{}", &file.to_string()[1..]);
            folder.write("tokenizer.json", text.as_bytes());
            assert_eq!(kind(&format!("{part}: expected at most")), ErrorKind::InvalidTokenizer);
        }
        folder.write("tokenizer.json", good[1].1.to_string().as_bytes());
        folder.write("model.safetensors.index.json", format!("{{\"weight_map\":{list}}}").as_bytes());
        assert_eq!(kind("weight_map: expected at most"), ErrorKind::InvalidModel);
    });
}

/// The bound in docs/memory.md, for one long word that cannot be split, in maps and in tables.
#[test]
fn long_words_take_bounded_memory() {
    let _one = ONE.lock().unwrap();
    let folder = Folder::new("words");
    let builtin = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/builtin");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(builtin.join(name), folder.0.join(name)).unwrap();
    }
    let runtime = Runtime::new(&RuntimeOptions::default().threads(1)).unwrap();
    let text = "ab".repeat(1 << 19);
    for (merges, tokens) in [(json!([]), text.len()), (json!(["b a"]), text.len() / 2 + 1)] {
        let model = json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "ba": 3}, "merges": merges});
        folder.write("tokenizer.json", json!({"version": "1.0", "model": model}).to_string().as_bytes());
        let packed = folder.0.join("packed");
        let options = PackOptions::default().overwrite(true);
        runtime.pack(&Source::Path(folder.0.clone()), &packed, &options).unwrap();
        for source in [folder.0.clone(), packed] {
            let model = runtime.load(&Source::Path(source), &ModelOptions::default()).unwrap();
            let tokenizer = model.tokenizer().unwrap();
            let before = ALLOCATOR.live.load(Ordering::Relaxed);
            ALLOCATOR.start();
            let ids = tokenizer.encode(&text, AddSpecialTokens::No).unwrap();
            let taken = ALLOCATOR.peak.load(Ordering::Relaxed) - before;
            assert_eq!(ids.len(), tokens);
            let each = taken / text.len();
            assert!(each <= 160, "{each} bytes for each byte of the text");
        }
    }
}
