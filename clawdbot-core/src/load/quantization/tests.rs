//! Fixtures of `tests/golden/quantized` against what they stand for, and configurations and tensors that are refused.

use std::path::{Path, PathBuf};

use clawdbot_kernels::{ComputeFormat, PackedMatrix, RowSource};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{FileWeights, Quantization};
use crate::error::{ErrorKind, Result};
use crate::load::parts;
use crate::load::source::{Opened, Source};
use crate::load::weights::Weights;
use crate::options::{ModelOptions, PackOptions, RuntimeOptions, WeightType};
use crate::runtime::Runtime;
use crate::spec::config::ModelConfig;
use crate::spec::tensors::{MatrixName, Part, PartStorage, VectorName};
use crate::weights::testing::{TempDir, Tensor, check, f32_bytes, safetensors};
use crate::weights::{WeightSource, hex};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/quantized");

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(Path::new(GOLDEN).join("expected.json")).unwrap()).unwrap()
}

fn names() -> Vec<String> {
    golden()["models"].as_object().unwrap().keys().cloned().collect()
}

/// A fixture with the tokenizer that all share.
fn directory(name: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new();
    for file in [&format!("{name}/config.json"), &format!("{name}/model.safetensors"), "tokenizer.json"] {
        let from = Path::new(GOLDEN).join(file);
        std::fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
    }
    let path = dir.path().to_owned();
    (dir, path)
}

fn runtime() -> Runtime {
    Runtime::new(&RuntimeOptions::default().threads(2)).unwrap()
}

fn row(rows: &dyn RowSource, index: usize) -> Vec<f32> {
    let (mut stored, mut out) = (Vec::new(), vec![f32::NAN; rows.cols()]);
    rows.fetch(index..index + 1, &mut stored).unwrap();
    rows.read_row(index, &stored, &mut out);
    out
}

#[test]
fn matrices_are_dequantized_bit_for_bit() {
    for name in names() {
        let (_dir, path) = directory(&name);
        let opened = Opened::open(&Source::Path(path)).unwrap();
        let expected = &golden()["models"][&name]["sha256"];
        let tensors = opened.spec.tensors();
        let mut seen = 0;
        for matrix in tensors.matrices() {
            let rows = opened.weights.matrix(matrix, &mut None).unwrap();
            let mut sha256 = Sha256::new();
            for index in 0..matrix.n {
                // Zeros without a sign.
                let row = row(&*rows, index).into_iter();
                row.for_each(|x| sha256.update((x + 0.0).to_le_bytes()));
            }
            assert_eq!(hex(&sha256.finalize()), expected[&matrix.name], "{name}: {}", matrix.name);
            seen += 1;
        }
        assert_eq!(seen, expected.as_object().unwrap().len());
        // Biases of GPTQ, which are zeros.
        assert!(opened.unused.iter().all(|unused| unused.ends_with(".bias")), "{:?}", opened.unused);
    }
}

#[test]
fn own_codes_are_packed_without_rounding() {
    let runtime = runtime();
    let mut own = std::collections::BTreeSet::new();
    for name in names() {
        let (_dir, path) = directory(&name);
        let opened = Opened::open(&Source::Path(path)).unwrap();
        for matrix in opened.spec.tensors().matrices() {
            let Some(format) = opened.weights.own_format(matrix).unwrap() else { continue };
            let stored = opened.weights.stored_format(matrix).unwrap().unwrap();
            own.insert(format!("{stored} as {}", format.name()));
            let rows = opened.weights.matrix(matrix, &mut None).unwrap();
            let kernels = runtime.kernel_set();
            let packed = runtime
                .pool()
                .region(|region| PackedMatrix::pack(kernels, region, format, &[&*rows]))
                .unwrap()
                .unwrap();
            assert_eq!(packed.format(), format);
            let mut found = vec![f32::NAN; matrix.k];
            for index in 0..matrix.n {
                packed.read_row(kernels, index, &mut found);
                assert_eq!(found, row(&*rows, index), "{name}: {} row {index}", matrix.name);
            }
        }
    }
    let expected = [
        "AWQ int4/32 with zero points as int4/32/f32min",
        "GPTQ int4/32 as int4/32/f16",
        "GPTQ int4/32 with zero points as int4/32/f32min",
        "GPTQ int8/channel with zero points as int8/128/f32min",
        "MXFP4 as int8/32/bf16",
        "NVFP4 as int8/16/f32",
        "int4/32 as int4/32/bf16",
        "int4/32 as int4/32/f16",
        "int4/32 as int4/32/f32",
        "int4/32 with zero points as int4/32/f32min",
        "int4/channel as int4/128/bf16",
        "int8/16 with zero points as int8/16/f32min",
        "int8/channel as int8/128/bf16",
        "int8/channel as int8/128/f32",
        "int8/channel with zero points as int8/128/f32min",
        "int8/tensor as int8/128/f16",
    ];
    assert_eq!(own.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn models_compute_what_they_stand_for() {
    let runtime = runtime();
    let golden = golden();
    let tokens: Vec<u32> = serde_json::from_value(golden["tokens"].clone()).unwrap();
    for name in names() {
        let (_dir, path) = directory(&name);
        let expected: Vec<f32> = serde_json::from_value(golden["models"][&name]["logits"].clone()).unwrap();
        let largest = expected.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let source = Source::Path(path.clone());
        let error = |weights: Option<WeightType>, source: &Source| {
            let options = ModelOptions { weights, ..ModelOptions::default() };
            let logits = runtime.load(source, &options).unwrap().logits(&tokens).unwrap();
            let last = &logits[logits.len() - expected.len()..];
            let errors = last.iter().zip(&expected).map(|(a, b)| (a - b).abs() / largest);
            (errors.fold(0.0_f32, f32::max), logits)
        };
        let (f32_error, _) = error(Some(WeightType::F32), &source);
        assert!(f32_error < 1e-5, "{name}: {f32_error}");
        let (stored_error, stored) = error(None, &source);
        assert!(stored_error < 0.05, "{name}: {stored_error}");
        for weights in [WeightType::Int8, WeightType::Bf16] {
            let (rounded, _) = error(Some(weights), &source);
            assert!(rounded < 0.1, "{name} as {weights}: {rounded}");
        }
        let packed = path.join("packed");
        runtime.pack(&source, &packed, &PackOptions::default()).unwrap();
        assert!(error(None, &Source::Path(packed)).1 == stored, "{name} packed");
    }
}

#[test]
fn plans_say_what_is_computed_from_its_own_codes() {
    let (_dir, path) = directory("w8a8");
    let plan = runtime().plan(&Source::Path(path), &ModelOptions::default()).unwrap();
    assert_eq!(plan.weights, "stored");
    let found: Vec<_> = plan
        .stored
        .iter()
        .map(|stored| (stored.format.as_str(), stored.matrices, stored.computed.as_str(), stored.own_codes))
        .collect();
    // A gate and an up projection are one, so where one is not quantized both are converted.
    assert_eq!(
        found,
        [
            ("BF16", 2, "int8/128/bf16/rotated", false),
            ("int8/channel", 2, "int8/128/bf16", true),
            ("int8/channel", 1, "int8/128/bf16/rotated", false),
            ("int8/channel with zero points", 1, "int8/128/f32min", true),
            ("int8/tensor", 2, "int8/128/f16", true),
        ]
    );
    let (_dir, path) = directory("gptq4-ordered");
    let plan = runtime().plan(&Source::Path(path), &ModelOptions::default()).unwrap();
    let ordered: Vec<_> =
        plan.stored.iter().filter(|stored| stored.format.ends_with(", ordered inputs")).collect();
    assert!(ordered.iter().all(|stored| !stored.own_codes) && ordered.iter().any(|s| s.matrices == 6));
}

fn parse(quantization: Value) -> Result<Option<Quantization>> {
    let text = json!({ "quantization_config": quantization }).to_string();
    Quantization::parse(&ModelConfig::parse(text.as_bytes(), "config.json").unwrap(), &["mxfp4"])
}

fn compressed(format: &str, weights: Value) -> Value {
    json!({"quant_method": "compressed-tensors", "format": format,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}})
}

#[track_caller]
fn refused(quantization: Value, kind: ErrorKind, words: &[&str]) {
    check(&parse(quantization).unwrap_err(), kind, words);
}

#[test]
fn other_configurations_are_refused_by_name() {
    let (invalid, unsupported) = (ErrorKind::InvalidModel, ErrorKind::UnsupportedModel);
    assert!(parse(json!(null)).unwrap().is_none());
    assert!(parse(json!({"quant_method": "mxfp4"})).unwrap().is_none());
    for method in ["bitsandbytes", "hqq", "quanto"] {
        refused(json!({"quant_method": method}), unsupported, &["quant_method", "gptq, awq", method]);
    }
    refused(json!({"bits": 4}), unsupported, &["quant_method", "nothing"]);
    refused(json!("gptq"), invalid, &["quantization_config"]);

    let gptq = |change: Value| {
        let mut base = json!({"quant_method": "gptq", "bits": 4, "group_size": 128});
        change.as_object().unwrap().iter().for_each(|(key, value)| base[key] = value.clone());
        base
    };
    parse(gptq(json!({"dynamic": {"-:.*mlp": {}}}))).unwrap().unwrap();
    refused(gptq(json!({"bits": 3})), unsupported, &["bits: expected 4 or 8, found 3"]);
    refused(gptq(json!({"checkpoint_format": "marlin"})), unsupported, &["gptq_v2", "marlin"]);
    refused(gptq(json!({"is_marlin_format": true})), unsupported, &["is_marlin_format"]);
    refused(gptq(json!({"dynamic": {"+:.*mlp": {"bits": 8}}})), unsupported, &["dynamic"]);
    refused(gptq(json!({"group_size": 0})), invalid, &["group_size"]);
    refused(gptq(json!({"desc_act": "yes"})), invalid, &["desc_act"]);
    refused(json!({"quant_method": "awq", "bits": 8, "group_size": 128}), unsupported, &["bits"]);
    refused(
        json!({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv"}),
        unsupported,
        &["gemm", "gemv"],
    );
    refused(
        json!({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": false}),
        unsupported,
        &["zero_point"],
    );
    refused(json!({"quant_method": "fp8", "fmt": "e5m2"}), unsupported, &["fmt", "e4m3"]);
    refused(json!({"quant_method": "fp8", "weight_block_size": [0, 128]}), invalid, &["weight_block_size"]);

    let int4 = json!({"num_bits": 4, "group_size": 32, "strategy": "group"});
    parse(compressed("pack-quantized", int4.clone())).unwrap().unwrap();
    for (format, weights) in [
        ("marlin-24", int4.clone()),
        ("int-quantized", int4.clone()),
        ("pack-quantized", json!({"num_bits": 3})),
        ("float-quantized", json!({"num_bits": 8})),
        ("float-quantized", json!({"num_bits": 8, "type": "float", "symmetric": false})),
    ] {
        refused(compressed(format, weights), unsupported, &["pack-quantized of 4 or 8", format]);
    }
    refused(compressed("pack-quantized", json!({"num_bits": 4, "dynamic": true})), unsupported, &["dynamic"]);
    refused(
        compressed("pack-quantized", json!({"num_bits": 4, "strategy": "group", "group_size": 0})),
        invalid,
        &["group_size"],
    );
    refused(
        compressed("pack-quantized", json!({"num_bits": 4, "strategy": "block", "block_structure": [1]})),
        invalid,
        &["block_structure"],
    );
    let with = |key: &str, value: Value| {
        let mut base = compressed("pack-quantized", int4.clone());
        base[key] = value;
        base
    };
    refused(with("quantization_status", json!("calibration")), unsupported, &["frozen", "calibration"]);
    refused(with("sparsity_config", json!({"format": "sparse-24-bitmask"})), unsupported, &["sparse-24"]);
    refused(
        with("transform_config", json!({"config_groups": {"u": {}}})),
        unsupported,
        &["transform_config.config_groups"],
    );
    refused(with("config_groups", json!(null)), invalid, &["config_groups"]);
    refused(with("ignore", json!(["re:("])), invalid, &["ignore", "regular expressions"]);
    refused(with("format", json!(null)), invalid, &["format"]);
}

fn weights(quantization: Value, tensors: &[Tensor<'_>]) -> FileWeights {
    let source = WeightSource::from_static(safetensors("{}", tensors).leak(), "test").unwrap();
    FileWeights { source, quantization: parse(quantization).unwrap() }
}

/// A GPTQ matrix of 8 outputs and 16 inputs in groups of 8.
fn gptq(sym: bool, zeros: u32, g_idx: [i32; 16]) -> FileWeights {
    let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let g_idx = g_idx.iter().flat_map(|group| group.to_le_bytes()).collect();
    let codes: Vec<u32> = (0..16).map(|i| 0x1234_5678_u32.rotate_left(i)).collect();
    weights(
        json!({"quant_method": "gptq", "bits": 4, "group_size": 8, "sym": sym}),
        &[
            ("m.qweight", "I32", &[2, 8], bytes(&codes)),
            ("m.qzeros", "I32", &[2, 1], bytes(&[zeros; 2])),
            ("m.scales", "F32", &[2, 8], f32_bytes(&[0.5; 16])),
            ("m.g_idx", "I32", &[16], g_idx),
        ],
    )
}

fn plain(index: usize) -> i32 {
    (index / 8) as i32
}

fn pack(weights: &FileWeights) -> Result<()> {
    let name = MatrixName { name: "m.weight".to_owned(), n: 8, k: 16, part: None, sensitive: false };
    let format = weights.compute_format(&name)?.unwrap();
    let rows = weights.rows("m.weight", &[8, 16])?.unwrap();
    let runtime = runtime();
    let kernels = runtime.kernel_set();
    let packed =
        runtime.pool().region(|region| PackedMatrix::pack(kernels, region, format, &[&*rows]).map(|_| ()));
    Ok(packed.unwrap()?)
}

#[test]
fn contradictions_between_configuration_and_tensors_are_errors() {
    let invalid = ErrorKind::InvalidModel;
    let sequence = std::array::from_fn(plain);
    pack(&gptq(true, 0x7777_7777, sequence)).unwrap();
    let swapped = std::array::from_fn(|i| plain(15 - i));
    check(&pack(&gptq(true, 0x7777_7777, swapped)).unwrap_err(), invalid, &["order", "weight type"]);
    check(&pack(&gptq(true, 0x7777_7787, sequence)).unwrap_err(), invalid, &["zero point", "weight type"]);
    // Converted, they are what they are.
    let rows = gptq(true, 0x7777_7787, swapped);
    assert_eq!(row(&*rows.rows("m.weight", &[8, 16]).unwrap().unwrap(), 0)[0], (8.0 - 8.0) * 0.5);
    for group in [2, -2] {
        let mut outside = sequence;
        outside[3] = group;
        let error = gptq(true, 0, outside).rows("m.weight", &[8, 16]).map(|_| ()).unwrap_err();
        check(&error, invalid, &["m.g_idx", "from 0 to 1", &group.to_string()]);
    }
    let error = gptq(true, 0, sequence).rows("m.weight", &[8, 32]).map(|_| ()).unwrap_err();
    check(&error, invalid, &["m.qweight", "[4, 8]", "[2, 8]"]);

    let int8 = json!({"num_bits": 8, "strategy": "channel"});
    let tensors = |scale: f32, dtype: &'static str| -> Vec<Tensor<'static>> {
        let scale = if dtype == "F32" { f32_bytes(&[0.5, scale]) } else { vec![0; 4] };
        let shape: &[usize] = if dtype == "F32" { &[2, 1] } else { &[4, 1] };
        vec![("m.weight", "I8", &[2, 4], vec![0x80; 8]), ("m.weight_scale", dtype, shape, scale)]
    };
    let open = |config: Value, tensors: &[Tensor<'_>]| {
        weights(config, tensors).rows("m.weight", &[2, 4]).map(|rows| rows.map(|rows| row(&*rows, 1)))
    };
    let good = compressed("int-quantized", int8.clone());
    assert_eq!(open(good.clone(), &tensors(0.5, "F32")).unwrap().unwrap(), [-64.0; 4]);
    check(&open(good.clone(), &tensors(f32::NAN, "F32")).unwrap_err(), invalid, &["finite scales", "NaN"]);
    check(&open(good.clone(), &tensors(0.0, "I8")).unwrap_err(), invalid, &["m.weight_scale", "[2, 1]"]);
    let mut ignored = good.clone();
    ignored["ignore"] = json!(["m"]);
    check(&open(ignored, &tensors(0.5, "F32")).unwrap_err(), invalid, &["ignore has module \"m\""]);
    let mut other = good.clone();
    other["config_groups"]["group_0"]["targets"] = json!(["re:n"]);
    check(&open(other, &tensors(0.5, "F32")).unwrap_err(), invalid, &["no group has module \"m\""]);
    // The text model of several is called otherwise.
    let mut of_several = good.clone();
    of_several["config_groups"]["group_0"]["targets"] = json!(["re:language_model.model.layers.*m$"]);
    let of_several = parse(of_several).unwrap().unwrap();
    of_several.scheme("model.layers.0.m").unwrap();
    assert!(of_several.scheme("model.layers.0.n").is_err());
    // Scales next to a weight that is not quantized.
    let floats: Vec<Tensor<'_>> = vec![
        ("m.weight", "F32", &[2, 4], f32_bytes(&[1.0; 8])),
        ("m.weight_scale", "F32", &[2, 1], f32_bytes(&[1.0; 2])),
    ];
    check(&open(good.clone(), &floats).unwrap_err(), ErrorKind::UnsupportedModel, &["module \"m\"", "F32"]);
    assert!(open(good, &floats[..1]).unwrap().is_none());
}

/// Phi-3 and others store projections as one; routers are vectors here.
#[test]
fn parts_of_quantized_tensors_are_read() {
    let part = |tensor: &str, first, storage| Part {
        tensor: tensor.to_owned(),
        shape: vec![8, 16],
        first,
        run: 2,
        stride: 4,
        storage,
    };
    let swapped = std::array::from_fn(|i| plain(15 - i));
    let whole = gptq(true, 0x7777_7777, swapped);
    let all = whole.rows("m.weight", &[8, 16]).unwrap().unwrap();
    let own = gptq(true, 0x7777_7777, std::array::from_fn(plain));
    let name = |n, k, storage| MatrixName {
        name: "some".to_owned(),
        n,
        k,
        part: Some(Box::new(part("m.weight", 2, storage))),
        sensitive: false,
    };
    // Rows 2, 3, 6 and 7.
    let some = name(4, 16, PartStorage::Rows);
    let format = own.compute_format(&some).unwrap().unwrap();
    assert_eq!(own.stored_format(&some).unwrap(), "GPTQ int4/8");
    let rows = parts::rows(&own, &some, some.part.as_deref().unwrap(), &mut None).unwrap();
    let runtime = runtime();
    let kernels = runtime.kernel_set();
    let packed = runtime
        .pool()
        .region(|region| PackedMatrix::pack(kernels, region, format, &[&*rows]))
        .unwrap()
        .unwrap();
    let of_all = own.rows("m.weight", &[8, 16]).unwrap().unwrap();
    let mut found = vec![f32::NAN; 16];
    for (index, from) in [2, 3, 6, 7].into_iter().enumerate() {
        packed.read_row(kernels, index, &mut found);
        assert_eq!(found, row(&*of_all, from));
        assert_eq!(row(&*rows, index), found);
    }
    // Columns 2, 3, 6 and 7 of rows 1, 2 and 3: in no format of their own.
    let columns = name(4, 3, PartStorage::Columns { from: 1 });
    assert!(whole.compute_format(&columns).unwrap().is_none());
    let columns = parts::rows(&whole, &columns, columns.part.as_deref().unwrap(), &mut None).unwrap();
    for (index, from) in [2, 3, 6, 7].into_iter().enumerate() {
        let expected: Vec<f32> = (1..4).map(|i| row(&*all, i)[from]).collect();
        assert_eq!(row(&*columns, index), expected);
    }
    let vector = VectorName {
        name: "v".to_owned(),
        len: 128,
        part: Some(Box::new(Part {
            first: 0,
            run: usize::MAX,
            stride: 0,
            ..part("m.weight", 0, PartStorage::Rows)
        })),
        offset: 0.0,
        k: Some(16),
    };
    let expected: Vec<f32> = (0..8).flat_map(|index| row(&*all, index)).collect();
    assert_eq!(parts::vector(&whole, &vector).unwrap(), expected);
}

#[test]
fn a_bias_that_the_model_does_not_have_must_be_zeros() {
    let (_dir, path) = directory("gptq4");
    let file = path.join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let offset = header["model.layers.0.mlp.up_proj.bias"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + length + offset + 1] = 0x3c;
    std::fs::write(&file, bytes).unwrap();
    let error = Opened::open(&Source::Path(path)).map(|_| ()).unwrap_err();
    check(&error, ErrorKind::UnsupportedModel, &["up_proj.bias", "zeros"]);
}

#[test]
fn quantized_sources_are_stored_unless_asked_otherwise() {
    let (_dir, path) = directory("awq");
    let opened = Opened::open(&Source::Path(path)).unwrap();
    assert!(matches!(opened.weights, Weights::Files(_)));
    assert_eq!(opened.weight_type(None), WeightType::Stored);
    assert_eq!(opened.weight_type(Some(WeightType::Int4)), WeightType::Int4);
    assert!(matches!(opened.format(WeightType::Stored), ComputeFormat::Int8 { rotated: true, .. }));
}

proptest::proptest! {
    #[test]
    fn any_configuration_is_read_or_refused(
        keys in proptest::collection::vec(0_usize..24, 0..8),
        values in proptest::collection::vec(0_usize..12, 8),
    ) {
        const KEYS: [&str; 24] = [
            "bits", "group_size", "sym", "desc_act", "checkpoint_format", "dynamic", "version", "zero_point", "fmt",
            "weight_block_size", "format", "ignore", "config_groups", "quantization_status", "sparsity_config",
            "transform_config", "num_bits", "strategy", "block_structure", "actorder", "type", "symmetric", "targets",
            "weights",
        ];
        for method in ["gptq", "awq", "fp8", "compressed-tensors"] {
            let options = [
                json!(4), json!(8), json!(-1), json!(0), json!(1e300), json!(true), json!("gptq"), json!(["re:.*["]),
                json!({"a": {"targets": ["Linear"], "weights": {"num_bits": 4}}}), json!([128, 128]), json!(null),
                json!("pack-quantized"),
            ];
            let mut object = json!({"quant_method": method});
            for (key, value) in keys.iter().zip(&values) {
                object[KEYS[*key]] = options[*value].clone();
            }
            if let Err(error) = parse(object) {
                let kind = error.kind();
                assert!(matches!(kind, ErrorKind::InvalidModel | ErrorKind::UnsupportedModel), "{error}");
            }
        }
    }

    #[test]
    fn tensors_of_any_shape_are_read_or_refused(
        rows in 0_usize..4, columns in 0_usize..4, groups in 0_usize..3, dtype in 0_usize..4, n in 0_usize..20,
        k in 0_usize..40, method in 0_usize..6,
    ) {
        let int = |bits: usize, format: &str| {
            compressed(format, json!({"num_bits": bits, "strategy": "group", "group_size": 8, "symmetric": false}))
        };
        let float = |format: &str| compressed(format, json!({"num_bits": 4, "type": "float"}));
        let configs = [
            json!({"quant_method": "gptq", "bits": 4, "group_size": 8}),
            json!({"quant_method": "awq", "bits": 4, "group_size": 8}),
            json!({"quant_method": "fp8", "weight_block_size": [8, 8]}),
            int(4, "pack-quantized"), int(8, "int-quantized"), float("nvfp4-pack-quantized"),
        ];
        let (name, size) = [("I32", 4), ("I8", 1), ("F16", 2), ("F8_E4M3", 1)][dtype];
        let (rows, columns) = (rows * 4, columns * 4);
        let shape = [rows, columns];
        let scales = [groups, columns];
        let data = || vec![1; rows * columns * size];
        let mut tensors: Vec<Tensor<'_>> = ["m.qweight", "m.weight", "m.weight_packed"]
            .map(|tensor| (tensor, name, &shape[..], data())).into();
        for scale in ["m.scales", "m.weight_scale", "m.weight_scale_inv"] {
            tensors.push((scale, "F16", &scales, vec![1; 2 * groups * columns]));
        }
        tensors.push(("m.qzeros", "I32", &scales, vec![3; 4 * groups * columns]));
        let weights = weights(configs[method].clone(), &tensors);
        match weights.rows("m.weight", &[n, k]) {
            Ok(None) => {}
            Ok(Some(found)) if n > 0 => assert_eq!(row(&*found, n - 1).len(), k),
            Ok(Some(_)) => {}
            Err(error) => {
                let kind = error.kind();
                assert!(matches!(kind, ErrorKind::InvalidModel | ErrorKind::UnsupportedModel), "{error}");
            }
        }
    }
}
