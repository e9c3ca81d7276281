//! The bridge to candle: results as tensors, weights from a `VarBuilder`, int8 layers.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clawdbot_core::candle::candle_core::{self, D, DType, Device, IndexOp, Tensor, Var};
use clawdbot_core::candle::candle_nn::{self, Linear, Module, VarBuilder, VarMap};
use clawdbot_core::candle::{
    Int8Linear, SmallFiles, from_candle, int8_linear, int8_linear_b, int8_linear_no_bias,
};
use clawdbot_core::{
    EmbedOptions, Error, ErrorKind, GenerateOptions, Model, ModelOptions, Prompt, Runtime, RuntimeOptions,
    Source, WeightType,
};

fn runtime(threads: u32) -> Runtime {
    Runtime::new(&RuntimeOptions::default().threads(threads)).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Numbers of mean 0 and standard deviation `scale`, always the same.
fn numbers(shape: &[usize], scale: f32, salt: u64) -> Tensor {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(salt + 1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let count = shape.iter().product();
    let values: Vec<f32> =
        (0..count).map(|_| (next() + next() + next() + next()) * scale * 3_f32.sqrt()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

#[test]
fn results_are_the_same_numbers_as_tensors() {
    let model = Model::builtin().unwrap();
    let tokens: Vec<u32> = (3..30).collect();
    let logits = model.logits_tensor(&tokens).unwrap();
    assert_eq!((logits.dims(), logits.dtype()), (&[27, model.info().vocab_size][..], DType::F32));
    assert_eq!(bits(&flat(&logits)), bits(&model.logits(&tokens).unwrap()));
    let states = model.hidden_states_tensor(&tokens).unwrap();
    let plain = model.hidden_states(&tokens).unwrap();
    assert_eq!(states.dims(), [27, plain.len() / 27]);
    assert_eq!(bits(&flat(&states)), bits(&plain));
    let options = EmbedOptions::default().pooling(clawdbot_core::Pooling::Mean);
    let texts: Vec<Prompt> = vec!["One day".into(), "a cat".into()];
    let tensor = model.embed_tensor(texts.clone(), &options).unwrap();
    let plain = model.embed(texts, &options).unwrap();
    assert_eq!(tensor.dims(), [2, plain.dimensions]);
    assert_eq!(bits(&flat(&tensor)), bits(&plain.values));
    assert_eq!(model.embed_tensor(Vec::new(), &options).unwrap().dims(), [0, plain.dimensions]);
    assert_eq!(model.logits_tensor(&[]).unwrap_err().kind(), ErrorKind::EmptyPrompt);
    assert_eq!(model.hidden_states_tensor(&[]).unwrap_err().kind(), ErrorKind::EmptyPrompt);
    let unknown = model.logits_tensor_with(&tokens, Some("none")).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::InvalidArgument);
    let unknown = model.hidden_states_tensor_with(&tokens, Some("none")).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::InvalidArgument);
}

/// The tensors of a directory's own safetensors files.
fn tensors(dir: &Path) -> HashMap<String, Tensor> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            all.extend(candle_core::safetensors::load(&path, &Device::Cpu).unwrap());
        }
    }
    all
}

fn builder(tensors: HashMap<String, Tensor>, dtype: DType) -> VarBuilder<'static> {
    VarBuilder::from_tensors(tensors, dtype, &Device::Cpu)
}

fn from_builder(dir: &Path, dtype: DType, weights: WeightType) -> clawdbot_core::Result<Model> {
    let options = ModelOptions::default().weights(weights);
    runtime(2).load_var_builder(&SmallFiles::from(dir), builder(tensors(dir), dtype), &options)
}

fn from_dir(dir: &Path, weights: WeightType) -> Model {
    runtime(2).load(&Source::Path(dir.to_owned()), &ModelOptions::default().weights(weights)).unwrap()
}

/// Dense models, mixtures of experts in each layout, and mixers of every kind.
#[test]
fn models_of_a_var_builder_have_the_bits_of_their_directories() {
    let tokens: Vec<u32> = (3..40).collect();
    let mut compared = 0;
    for (name, dir) in support::families() {
        // Whatever type a checkpoint is of, f32 has its values.
        for weights in [WeightType::Int8, WeightType::F32] {
            let found =
                from_builder(&dir, DType::F32, weights).unwrap_or_else(|error| panic!("{name}: {error}"));
            let expected = from_dir(&dir, weights);
            let (found, expected) = (found.logits(&tokens).unwrap(), expected.logits(&tokens).unwrap());
            assert_eq!(bits(&found), bits(&expected), "{name}: {weights}");
            compared += 1;
        }
    }
    println!("{compared} compared");
    // Those that are part of the project.
    assert!(compared >= 20, "{compared}");
}

#[test]
fn a_head_of_its_own_counts_as_in_directories() {
    let copy = support::Copy::of(&support::family("qwen3_5_moe"), "own-head");
    let tokens: Vec<u32> = (3..20).collect();
    let apart = from_dir(copy.path(), WeightType::F32).logits(&tokens).unwrap();
    copy.edit("config.json", |config| {
        config["tie_word_embeddings"] = true.into();
        if let Some(text) = config.get_mut("text_config") {
            text["tie_word_embeddings"] = true.into();
        }
    });
    let all = tensors(copy.path());
    let logits = |tensors: HashMap<String, Tensor>| {
        let files = SmallFiles::from(copy.path());
        let options = ModelOptions::default().weights(WeightType::F32);
        let model = runtime(2).load_var_builder(&files, builder(tensors, DType::F32), &options).unwrap();
        model.logits(&tokens).unwrap()
    };
    assert_eq!(bits(&logits(all.clone())), bits(&apart), "its own head");
    let embedding = all.keys().find(|name| name.ends_with("embed_tokens.weight")).unwrap().clone();
    let (mut head_only, mut table_only) = (all.clone(), all);
    head_only.remove(&embedding);
    let head = table_only.remove("lm_head.weight").unwrap();
    table_only.insert(embedding, head);
    assert_eq!(bits(&logits(head_only)), bits(&logits(table_only)), "the head is the embedding too");
}

#[test]
fn weights_may_be_of_any_float_type_and_rounding_them_is_the_builders_affair() {
    let dir = support::family("qwen3_5_moe");
    let tokens: Vec<u32> = (3..20).collect();
    let logits = |dtype| bits(&from_builder(&dir, dtype, WeightType::F32).unwrap().logits(&tokens).unwrap());
    let plain = logits(DType::F32);
    for dtype in [DType::F16, DType::BF16] {
        // What a directory with weights of that type gives.
        let rounded = support::Copy::of(&dir, &format!("rounded-{dtype:?}"));
        let tensors = tensors(&dir);
        let tensors: HashMap<String, Tensor> =
            tensors.into_iter().map(|(name, tensor)| (name, tensor.to_dtype(dtype).unwrap())).collect();
        candle_core::safetensors::save(&tensors, rounded.path().join("model.safetensors")).unwrap();
        let expected = bits(&from_dir(rounded.path(), WeightType::F32).logits(&tokens).unwrap());
        assert_eq!(logits(dtype), expected, "{dtype:?}");
        assert!(dtype == DType::BF16 || expected != plain, "f16 does not round");
    }
}

#[test]
fn encoders_and_the_modules_behind_them_come_from_a_var_builder() {
    let golden = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/embeddings"));
    let texts = || vec![Prompt::from("a cat sat on the mat"), "and then".into()];
    for name in ["bert", "xlm_roberta", "distilbert", "modernbert", "qwen3", "gemma3"] {
        let dir = golden.join(name);
        let found = from_builder(&dir, DType::F32, WeightType::Int8).unwrap();
        let expected = from_dir(&dir, WeightType::Int8);
        let vectors = |model: &Model| bits(&model.embed(texts(), &EmbedOptions::default()).unwrap().values);
        assert_eq!(vectors(&found), vectors(&expected), "{name}");
    }
    for name in ["bert_score", "xlm_roberta_score", "distilbert_score", "modernbert_score", "qwen3_score"] {
        let dir = golden.join(name);
        let found = from_builder(&dir, DType::F32, WeightType::Int8).unwrap();
        let expected = from_dir(&dir, WeightType::Int8);
        let scores =
            |model: &Model| bits(&model.rerank("a cat", &["b", "c d"], &Default::default()).unwrap());
        assert_eq!(scores(&found), scores(&expected), "{name}");
    }
}

/// Files of `dir`, in memory.
fn in_memory(dir: &Path, names: &[&str]) -> SmallFiles {
    let file = |name: &&str| ((*name).to_owned(), std::fs::read(dir.join(name)).unwrap());
    SmallFiles::Memory(names.iter().map(file).collect())
}

#[test]
fn files_may_be_in_memory_and_a_tokenizer_may_be_missing() {
    let runtime = runtime(2);
    let dir = support::family("qwen3_5_moe");
    let load = |names: &[&str]| {
        let files = in_memory(&dir, names);
        let weights = builder(tensors(&dir), DType::F32);
        runtime.load_var_builder(&files, weights, &ModelOptions::default()).unwrap()
    };
    let (full, bare) = (load(&["config.json", "tokenizer.json"]), load(&["config.json"]));
    let tokens: Vec<u32> = (3..20).collect();
    assert_eq!(bits(&full.logits(&tokens).unwrap()), bits(&bare.logits(&tokens).unwrap()));
    let greedy = GenerateOptions::default().max_tokens(5_u32).temperature(0.0).ignore_eos(true);
    assert_eq!(full.generate("Once upon a time", &greedy).unwrap().token_ids.len(), 5);
    assert_eq!(bare.generate(tokens, &greedy).unwrap().token_ids.len(), 5);
    check(
        &bare.generate("text", &greedy).unwrap_err(),
        ErrorKind::InvalidTokenizer,
        &["no tokenizer", "token ids"],
    );
    // Nothing of the builder is kept, and everything counts.
    assert!(runtime.memory_used() >= 2 * full.info().plan.weights_bytes);
    drop((full, bare));
    assert_eq!(runtime.memory_used(), 0);
}

/// A backend that counts how often each tensor is asked for.
struct Counting(HashMap<String, Tensor>, Arc<Mutex<BTreeMap<String, usize>>>);

impl candle_nn::var_builder::SimpleBackend for Counting {
    fn get(
        &self,
        shape: candle_core::Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        assert_eq!(*self.0[name].shape(), shape);
        *self.1.lock().unwrap().entry(name.to_owned()).or_default() += 1;
        self.0[name].to_dtype(dtype)
    }
    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        panic!("{name} without a shape")
    }
    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

#[test]
fn tensors_are_fetched_once_and_the_builder_is_let_go() {
    for name in ["qwen3_5_moe", "gemma4_moe", "granite4", "phi4_mini", "ministral3"] {
        let dir = support::family(name);
        let fetched = Arc::new(Mutex::new(BTreeMap::new()));
        let backend = Box::new(Counting(tensors(&dir), Arc::clone(&fetched)));
        let weights = VarBuilder::from_backend(backend, DType::F32, Device::Cpu);
        let files = SmallFiles::from(dir.as_path());
        let model = runtime(2).load_var_builder(&files, weights, &ModelOptions::default()).unwrap();
        assert_eq!(Arc::strong_count(&fetched), 1, "{name}: the backend is held");
        let fetched = fetched.lock().unwrap();
        let again: Vec<_> = fetched.iter().filter(|(_, count)| **count > 1).collect();
        assert!(fetched.len() > 10 && again.is_empty(), "{name}: {again:?}");
        drop(model);
    }
}

/// A backend that gives what it likes.
struct Liar(HashMap<String, Tensor>, Lie);

/// What it makes of the tensor that is wanted.
type Lie = fn(Tensor) -> candle_core::Result<Tensor>;

impl candle_nn::var_builder::SimpleBackend for Liar {
    fn get(
        &self,
        _: candle_core::Shape,
        name: &str,
        _: candle_nn::Init,
        _: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        (self.1)(self.0[name].clone())
    }
    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        (self.1)(self.0[name].clone())
    }
    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

fn check(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.message().contains(part), "{part:?} in {error}");
    }
}

#[test]
fn var_builders_that_do_not_fit_are_errors() {
    use ErrorKind::{InvalidArgument, InvalidModel, NotFound, UnsupportedModel};
    let runtime = runtime(2);
    let dir = support::family("qwen3_5_moe");
    let files = SmallFiles::from(dir.as_path());
    let all = tensors(&dir);
    let plain = ModelOptions::default();
    let refuse = |files: &SmallFiles, builder, options: &ModelOptions| {
        let error = runtime.load_var_builder(files, builder, options).unwrap_err();
        assert_eq!(runtime.memory_used(), 0, "{error}");
        error
    };
    let of = |tensors: &HashMap<String, Tensor>| builder(tensors.clone(), DType::F32);

    let down = all.keys().filter(|name| name.ends_with("o_proj.weight")).min().unwrap().clone();
    let text = down.replace("model.language_model.", "model.");
    let mut fewer = all.clone();
    let tensor = fewer.remove(&down).unwrap();
    check(&refuse(&files, of(&fewer), &plain), InvalidModel, &[&text, "expected a tensor"]);
    fewer.insert(down.clone(), tensor.t().unwrap().narrow(0, 0, 8).unwrap());
    check(&refuse(&files, of(&fewer), &plain), InvalidModel, &[&down, "expected shape"]);
    let nan = (tensor.zeros_like().unwrap() / 0.0).unwrap();
    fewer.insert(down.clone(), nan);
    check(&refuse(&files, of(&fewer), &plain), InvalidModel, &[&text]);
    // Below a prefix that nothing has.
    check(&refuse(&files, of(&all).pp("other"), &plain), InvalidModel, &["embed_tokens.weight"]);

    check(&refuse(&files, builder(all.clone(), DType::F64), &plain), InvalidArgument, &["dtype", "f64"]);
    let cached = plain.clone().cache(std::env::temp_dir());
    check(&refuse(&files, of(&all), &cached), InvalidArgument, &["cache"]);
    check(&refuse(&files, of(&all), &plain.clone().verify(true)), InvalidArgument, &["verify"]);

    let lies: [(Lie, &str); 4] = [
        (|tensor| tensor.to_dtype(DType::F64), "found f64"),
        (|tensor| tensor.flatten_all(), "expected f32 ["),
        (|_| Err(candle_core::Error::Msg("the store is away".to_owned())), "the store is away"),
        (|tensor| tensor.unsqueeze(0), "expected f32 ["),
    ];
    for (lie, part) in lies {
        let backend = Box::new(Liar(all.clone(), lie));
        let builder = VarBuilder::from_backend(backend, DType::F32, Device::Cpu);
        check(&refuse(&files, builder, &plain), InvalidModel, &["tensor", part]);
    }

    let missing = SmallFiles::Dir(dir.join("none"));
    check(&refuse(&missing, of(&all), &plain), NotFound, &["none", "expected a directory"]);
    let unknown = SmallFiles::Memory(vec![("model.safetensors".to_owned(), Vec::new())]);
    check(&refuse(&unknown, of(&all), &plain), InvalidArgument, &["model.safetensors", "config.json"]);
    let empty = SmallFiles::Memory(Vec::new());
    check(&refuse(&empty, of(&all), &plain), NotFound, &["config.json"]);
    let twice = in_memory(&dir, &["config.json"; 2]);
    check(&refuse(&twice, of(&all), &plain), InvalidArgument, &["config.json", "twice"]);

    let quantized = support::Copy::of(&dir, "candle-quantized");
    quantized.edit("config.json", |config| {
        let fp8 = serde_json::json!({"quant_method": "fp8", "weight_block_size": [128, 128]});
        config["quantization_config"] = fp8;
    });
    let files = SmallFiles::from(quantized.path());
    check(&refuse(&files, of(&all), &plain), UnsupportedModel, &["quantization_config"]);

    let tight = Runtime::new(&RuntimeOptions::default().memory_budget(10_000)).unwrap();
    let files = SmallFiles::from(dir.as_path());
    let error = tight.load_var_builder(&files, of(&all), &plain).unwrap_err();
    check(&error, ErrorKind::OutOfBudget, &["budget"]);
}

/// Root of the mean square of the differences, relative to that of `expected`.
fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (flat(found), flat(expected));
    assert_eq!(found.len(), expected.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = found.iter().zip(&expected).map(|(a, b)| square(a - b)).sum();
    (error / expected.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}

#[test]
fn layers_agree_with_candle_within_the_error_of_int8() {
    let runtime = runtime(2);
    for (n, k, m) in [(896, 896, 5), (4864, 896, 1), (33, 130, 20), (1, 1, 3), (16, 4, 9), (70, 1000, 40)] {
        let (weight, bias) = (numbers(&[n, k], 0.05, 1), numbers(&[n], 0.5, 2));
        let x = numbers(&[m, k], 1.0, 3);
        for bias in [None, Some(bias)] {
            let linear = Linear::new(weight.clone(), bias);
            let layer = Int8Linear::from_linear(&runtime, &linear).unwrap();
            assert_eq!((layer.in_dim(), layer.out_dim()), (k, n));
            let error = relative_error(&layer.forward(&x).unwrap(), &linear.forward(&x).unwrap());
            // Two operands, each rounded to about 1/220 of the largest of 128 normal numbers.
            println!("[{m}, {k}] x [{n}, {k}]: {error:.2e}");
            assert!(error < 0.015, "[{m}, {k}] x [{n}, {k}]: {error}");
        }
    }
}

#[test]
fn rows_have_the_same_bits_in_any_batch_on_any_threads_and_instruction_set() {
    let (n, k) = (100, 300);
    let (weight, bias) = (numbers(&[n, k], 0.05, 1), numbers(&[n], 0.5, 2));
    let x = numbers(&[37, k], 1.0, 3);
    let mut expected: Option<Vec<u32>> = None;
    for kernels in Runtime::available_kernels() {
        for threads in [1, 3] {
            let options = RuntimeOptions::default().threads(threads).kernels(kernels.to_owned());
            let layer = Int8Linear::new(&Runtime::new(&options).unwrap(), &weight, Some(&bias)).unwrap();
            let all = bits(&flat(&layer.forward(&x).unwrap()));
            for row in 0..37 {
                let one = layer.forward(&x.i(row).unwrap()).unwrap();
                assert_eq!(one.dims(), [n]);
                assert_eq!(bits(&flat(&one)), all[row * n..][..n], "row {row}");
            }
            assert_eq!(*expected.get_or_insert_with(|| all.clone()), all, "{kernels}, {threads} threads");
        }
    }
}

#[test]
fn inputs_may_have_any_rank_strides_and_float_type() {
    let runtime = runtime(2);
    let (n, k) = (24, 130);
    let layer = Int8Linear::new(&runtime, &numbers(&[n, k], 0.05, 1), None).unwrap();
    let x = numbers(&[2, 3, 5, k], 1.0, 3);
    let whole = layer.forward(&x).unwrap();
    assert_eq!(whole.dims(), [2, 3, 5, n]);
    let flattened = layer.forward(&x.reshape((30, k)).unwrap()).unwrap();
    assert_eq!(bits(&flat(&whole)), bits(&flat(&flattened)));
    // Transposed, narrowed, broadcast.
    let swapped = layer.forward(&x.transpose(1, 2).unwrap()).unwrap().transpose(1, 2).unwrap();
    assert_eq!(bits(&flat(&swapped.contiguous().unwrap())), bits(&flat(&whole)));
    let part = layer.forward(&x.narrow(2, 1, 2).unwrap()).unwrap();
    assert_eq!(bits(&flat(&part)), bits(&flat(&whole.narrow(2, 1, 2).unwrap().contiguous().unwrap())));
    let wide = numbers(&[7, 2 * k], 1.0, 4);
    let columns = wide.narrow(D::Minus1, k, k).unwrap();
    let copied = layer.forward(&columns.copy().unwrap()).unwrap();
    assert_eq!(bits(&flat(&layer.forward(&columns).unwrap())), bits(&flat(&copied)));
    let same = numbers(&[1, k], 1.0, 5);
    let rows = layer.forward(&same.broadcast_as((4, k)).unwrap()).unwrap();
    let row = bits(&flat(&layer.forward(&same).unwrap()));
    assert_eq!(bits(&flat(&rows)), row.repeat(4));
    for dtype in [DType::F16, DType::BF16] {
        let x = x.to_dtype(dtype).unwrap();
        let found = layer.forward(&x).unwrap();
        assert_eq!(found.dtype(), dtype);
        let widened = layer.forward(&x.to_dtype(DType::F32).unwrap()).unwrap();
        assert_eq!(bits(&flat(&found)), bits(&flat(&widened.to_dtype(dtype).unwrap())));
        // Weights of that type are widened in the same way.
        let weight = numbers(&[n, k], 0.05, 1).to_dtype(dtype).unwrap();
        let layer = Int8Linear::new(&runtime, &weight, None).unwrap();
        let wide = Int8Linear::new(&runtime, &weight.to_dtype(DType::F32).unwrap(), None).unwrap();
        assert_eq!(bits(&flat(&layer.forward(&x).unwrap())), bits(&flat(&wide.forward(&x).unwrap())));
    }
    assert_eq!(layer.forward(&x.narrow(0, 0, 0).unwrap()).unwrap().dims(), [0, 3, 5, n]);
}

#[test]
fn layers_of_a_var_builder_are_those_of_its_linear_layers() {
    let runtime = runtime(2);
    let (n, k) = (48, 64);
    let weights = VarMap::new();
    let vb = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
    let x = numbers(&[3, k], 1.0, 3);
    let with_bias = candle_nn::linear(k, n, vb.pp("a")).unwrap();
    let without = candle_nn::linear_no_bias(k, n, vb.pp("b")).unwrap();
    for (layer, linear) in [
        (int8_linear(k, n, vb.pp("a"), &runtime).unwrap(), &with_bias),
        (int8_linear_b(k, n, true, vb.pp("a"), &runtime).unwrap(), &with_bias),
        (int8_linear_no_bias(k, n, vb.pp("b"), &runtime).unwrap(), &without),
        (int8_linear_b(k, n, false, vb.pp("b"), &runtime).unwrap(), &without),
    ] {
        let expected = Int8Linear::from_linear(&runtime, linear).unwrap();
        assert_eq!(bits(&flat(&layer.forward(&x).unwrap())), bits(&flat(&expected.forward(&x).unwrap())));
    }
    let stored = builder(HashMap::from([("c.weight".to_owned(), numbers(&[n, k], 1.0, 1))]), DType::F32);
    check(&int8_linear(k, n, stored.pp("c"), &runtime).unwrap_err(), ErrorKind::InvalidModel, &["c.bias"]);
    let shape = int8_linear_no_bias(n, k, stored.pp("c"), &runtime).unwrap_err();
    check(&shape, ErrorKind::InvalidArgument, &["c.weight", "[64, 48]", "[48, 64]"]);
}

#[test]
fn layers_count_in_the_budget_and_what_does_not_fit_is_refused() {
    use ErrorKind::{InvalidArgument, InvalidModel, OutOfBudget};
    let budget = Runtime::new(&RuntimeOptions::default().threads(2).memory_budget(100_000)).unwrap();
    let weight = numbers(&[128, 256], 0.05, 1);
    let layer = Int8Linear::new(&budget, &weight, Some(&numbers(&[128], 1.0, 2))).unwrap();
    assert_eq!(budget.memory_used(), layer.bytes());
    assert_eq!(layer.bytes(), 128 * 256 + 128 * 2 * 2 + 128 * 4);
    layer.forward(&numbers(&[20, 256], 1.0, 3)).unwrap();
    let used = budget.memory_used();
    assert!(used > layer.bytes());
    layer.forward(&numbers(&[3, 256], 1.0, 3)).unwrap();
    assert_eq!(budget.memory_used(), used, "scratch is kept");
    let error = from_candle(layer.forward(&numbers(&[1000, 256], 1.0, 3)).unwrap_err());
    check(&error, OutOfBudget, &["activations"]);
    check(
        &Int8Linear::new(&budget, &numbers(&[512, 256], 0.1, 1), None).unwrap_err(),
        OutOfBudget,
        &["weights"],
    );
    layer.forward(&numbers(&[2, 256], 1.0, 3)).unwrap();
    let other = layer.clone();
    drop(layer);
    other.forward(&numbers(&[2, 256], 1.0, 3)).unwrap();
    drop(other);
    assert_eq!(budget.memory_used(), 0);

    let refuse = |weight: &Tensor, bias: Option<&Tensor>| Int8Linear::new(&budget, weight, bias).unwrap_err();
    check(&refuse(&numbers(&[4], 1.0, 1), None), InvalidArgument, &["weight", "[n, k]", "[4]"]);
    check(&refuse(&numbers(&[0, 4], 1.0, 1), None), InvalidArgument, &["weight", "[0, 4]"]);
    check(&refuse(&numbers(&[4, 0], 1.0, 1), None), InvalidArgument, &["weight", "[4, 0]"]);
    check(&refuse(&weight.to_dtype(DType::F64).unwrap(), None), InvalidArgument, &["weight", "f64"]);
    check(&refuse(&weight, Some(&numbers(&[127], 1.0, 1))), InvalidArgument, &["bias", "[128]", "[127]"]);
    let ints = Tensor::zeros(128, DType::U32, &Device::Cpu).unwrap();
    check(&refuse(&weight, Some(&ints)), InvalidArgument, &["bias", "u32"]);
    let infinite = (weight.ones_like().unwrap() / 0.0).unwrap();
    check(&refuse(&infinite, None), InvalidModel, &["weight"]);
    assert_eq!(budget.memory_used(), 0);
}

#[test]
fn inputs_that_do_not_fit_and_gradients_are_errors() {
    let runtime = runtime(1);
    let layer = Int8Linear::new(&runtime, &numbers(&[8, 16], 0.05, 1), None).unwrap();
    let refuse = |x: &Tensor| from_candle(layer.forward(x).unwrap_err());
    for (shape, found) in [(&[3, 15][..], "[3, 15]"), (&[16, 3], "[16, 3]"), (&[], "[]")] {
        let error = refuse(&numbers(shape, 1.0, 1));
        check(&error, ErrorKind::InvalidArgument, &["Int8Linear", "[.., 16]", found]);
    }
    let error = refuse(&Tensor::zeros((2, 16), DType::F64, &Device::Cpu).unwrap());
    check(&error, ErrorKind::InvalidArgument, &["Int8Linear", "f64"]);
    let x = Var::from_tensor(&numbers(&[2, 16], 1.0, 1)).unwrap();
    let error = layer.forward(&x).unwrap().sum_all().unwrap().backward().unwrap_err();
    assert!(error.to_string().contains("backward is not supported for clawdbot-int8-linear"), "{error}");
}

#[test]
fn layers_are_used_from_several_threads_at_once() {
    let runtime = runtime(2);
    let layers: Vec<Int8Linear> = [(96, 200), (64, 500)]
        .into_iter()
        .map(|(n, k)| Int8Linear::new(&runtime, &numbers(&[n, k], 0.05, 1), None).unwrap())
        .collect();
    let model = runtime.load(&Source::Builtin, &ModelOptions::default()).unwrap();
    let tokens: Vec<u32> = (3..30).collect();
    let inputs: Vec<(usize, Tensor)> =
        (0..8).map(|i| (i % 2, numbers(&[1 + 5 * i, layers[i % 2].in_dim()], 1.0, i as u64))).collect();
    let expected: Vec<_> =
        inputs.iter().map(|(layer, x)| bits(&flat(&layers[*layer].forward(x).unwrap()))).collect();
    let logits = bits(&model.logits(&tokens).unwrap());
    std::thread::scope(|scope| {
        for (input, expected) in inputs.iter().zip(&expected) {
            let layers = &layers;
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(bits(&flat(&layers[input.0].forward(&input.1).unwrap())), *expected);
                }
            });
        }
        scope.spawn(|| assert_eq!(bits(&model.logits(&tokens).unwrap()), logits));
    });
}
