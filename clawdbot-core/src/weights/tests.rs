//! Weight files, good and hostile.

use proptest::prelude::*;

use super::file::DataFile;
use super::safetensors::{Header, MAX_HEADER_BYTES};
use super::testing::{TempDir, bf16_bytes, check, f32_bytes, raw_file, safetensors};
use super::*;
use crate::api::tests::support::child::{Limits, in_child};
use crate::error::{Error, ErrorKind};

/// One tensor `a`, F32 `[2]`, 8 bytes of data.
const VALID: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

fn source(bytes: Vec<u8>) -> WeightSource {
    WeightSource::from_static(bytes.leak(), "test").unwrap()
}

fn parse(bytes: &[u8], file: &str) -> Result<Header, Error> {
    DataFile::from_memory(bytes.to_vec(), file).header()
}

/// Row `row` of a matrix.
fn row<const K: usize>(matrix: &MatrixView<'_>, row: usize) -> [f32; K] {
    let mut stored = Vec::new();
    matrix.fetch(row..row + 1, &mut stored).unwrap();
    let mut out = [f32::NAN; K];
    matrix.read_row(row, &stored, &mut out);
    out
}

fn codes(matrix: &MatrixView<'_>, row: usize) -> Result<[i8; 5], Error> {
    let (mut stored, mut out) = (Vec::new(), [0; 5]);
    matrix.fetch(row..row + 1, &mut stored)?;
    matrix.read_codes(row, &stored, &mut out)?;
    Ok(out)
}

fn refused(bytes: &[u8], kind: ErrorKind, parts: &[&str]) {
    let error = parse(bytes, "m.safetensors").unwrap_err();
    check(&error, kind, parts);
    check(&error, kind, &["m.safetensors"]);
}

#[test]
fn a_valid_file_is_read() {
    let header = parse(&raw_file(VALID, &[0; 8]), "m").unwrap();
    assert_eq!(header.tensors.len(), 1);
    assert_eq!(header.tensors[0].range, 8 + VALID.len()..16 + VALID.len());
    // Scalars, empty tensors, metadata, trailing spaces, and any order are allowed.
    let text = r#"{"s":{"data_offsets":[2,6],"shape":[],"dtype":"F32"},"e":{"dtype":"BF16","shape":[3,0],
        "data_offsets":[2,2]},"__metadata__":{"k":"v"},"x":{"dtype":"I8","shape":[2],"data_offsets":[0,2]}}   "#;
    let header = parse(&raw_file(text, &[0; 6]), "m").unwrap();
    assert_eq!(header.tensors.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["x", "e", "s"]);
    assert_eq!(header.metadata["k"], "v");
    assert!(parse(&raw_file("{}", &[]), "m").unwrap().tensors.is_empty());
}

#[test]
fn broken_framing_is_refused() {
    in_child(Limits::default(), || {
        broken_framing();
    });
}

fn broken_framing() {
    let invalid = ErrorKind::InvalidModel;
    refused(&[], invalid, &["expected at least 8 bytes", "found 0"]);
    refused(&[1; 7], invalid, &["found 7"]);
    refused(&100_u64.to_le_bytes(), invalid, &["claims 100 bytes", "found 0"]);
    refused(&(1_u64 << 32).to_le_bytes(), invalid, &["4294967296"]);
    refused(&u64::MAX.to_le_bytes(), invalid, &["18446744073709551615"]);
    let mut file = (MAX_HEADER_BYTES - 1).to_le_bytes().to_vec();
    file.extend([b'{'; 64]);
    refused(&file, invalid, &["claims 99999999 bytes", "found 64"]);
    refused(&raw_file("", &[]), invalid, &["must begin with"]);
    refused(&raw_file(" {}", &[]), invalid, &["must begin with"]);
    refused(&raw_file("{\"a\":", &[]), invalid, &["malformed"]);
    refused(&raw_file("{}{}", &[]), invalid, &["malformed"]);
    refused(&raw_file(&"{\"a\":".repeat(100_000), &[]), invalid, &["malformed"]);
    let many: String = (0..=1 << 20).map(|i| format!("\"{i}\":\"\",")).collect();
    refused(&raw_file(&format!("{{\"__metadata__\":{{{many}"), &[]), invalid, &["at most 1048576 keys"]);
    let mut file = raw_file("{\"ab\"}", &[]);
    file[10] = 0xff;
    refused(&file, invalid, &["not UTF-8 from byte 2"]);
}

#[test]
fn broken_entries_are_refused() {
    in_child(Limits::default(), || {
        broken_entries();
    });
}

fn broken_entries() {
    let invalid = ErrorKind::InvalidModel;
    let one = |fields: &str| raw_file(&format!("{{\"a\":{fields}}}"), &[0; 8]);
    let cases: &[(&str, &[&str])] = &[
        (r#"{"dtype":"F32","shape":[2]}"#, &["\"a\"", "data_offsets is missing"]),
        (r#"{"dtype":"F32","data_offsets":[0,8]}"#, &["shape is missing"]),
        (r#"{"shape":[2],"data_offsets":[0,8]}"#, &["dtype is missing"]),
        (r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":"y"}"#, &["found \"x\""]),
        (r#"{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}"#, &["\"dtype\" occurs twice"]),
        (r#"{"dtype":[1],"shape":[2],"data_offsets":[0,8]}"#, &["dtype: expected a string, found a list"]),
        (r#"{"dtype":"F32","shape":"2","data_offsets":[0,8]}"#, &["shape: expected a list of integers"]),
        (r#"{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#, &["malformed", "-2"]),
        (r#"{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}"#, &["malformed"]),
        (r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}"#, &["expected two integers, found 3"]),
        (r#"{"dtype":"F32","shape":[2],"data_offsets":[8,0]}"#, &["begin 8 comes after end 0"]),
        (r#"{"dtype":"F32","shape":[4],"data_offsets":[0,16]}"#, &["within the 8 bytes", "found 16"]),
        (r#"{"dtype":"F32","shape":[2],"data_offsets":[0,7]}"#, &["expected 8 bytes for F32 [2], found 7"]),
        (r#"{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]}"#, &["overflows"]),
        (r#"{"dtype":"I8","shape":[4294967296,4294967296],"data_offsets":[0,8]}"#, &["overflows"]),
        (r#"{"dtype":"I8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}"#, &["overflows"]),
        (r#"{"dtype":"F4","shape":[3],"data_offsets":[0,1]}"#, &["whole bytes"]),
        (
            r#"{"dtype":"I8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,8],"data_offsets":[0,8]}"#,
            &["more than 16 numbers"],
        ),
        (r#"["F32",[2],[0,8]]"#, &["malformed", "expected an object"]),
        ("7", &["malformed"]),
    ];
    for (fields, parts) in cases {
        refused(&one(fields), invalid, parts);
    }
    let unknown = one(r#"{"dtype":"F31","shape":[2],"data_offsets":[0,8]}"#);
    refused(&unknown, ErrorKind::UnsupportedModel, &["\"a\"", "\"F31\"", "BF16"]);
    refused(&raw_file(r#"{"__metadata__":{"k":[1]}}"#, &[]), invalid, &["__metadata__", "\"k\""]);
    let twice = format!("{},{}", &VALID[..VALID.len() - 1], &VALID[1..]);
    refused(&raw_file(&twice, &[0; 8]), invalid, &["\"a\" occurs twice"]);
}

#[test]
fn holes_overlaps_and_leftovers_are_refused() {
    let two = |a: [usize; 2], b: [usize; 2]| {
        let entry = |[begin, end]: [usize; 2]| {
            format!(r#"{{"dtype":"I8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end - begin)
        };
        raw_file(&format!("{{\"a\":{},\"b\":{}}}", entry(a), entry(b)), &[0; 8])
    };
    assert!(parse(&two([4, 8], [0, 4]), "m").is_ok());
    let invalid = ErrorKind::InvalidModel;
    refused(&two([0, 5], [4, 8]), invalid, &["\"b\" overlaps", "begin at byte 5, found 4"]);
    refused(&two([0, 8], [0, 8]), invalid, &["overlaps"]);
    refused(&two([0, 3], [4, 8]), invalid, &["\"b\" leaves a hole", "begin at byte 3, found 4"]);
    refused(&two([1, 4], [4, 8]), invalid, &["\"a\" leaves a hole"]);
    refused(&two([0, 4], [4, 7]), invalid, &["expected 7 bytes of tensor data, found 8"]);
    refused(&raw_file("{}", &[0]), invalid, &["expected 0 bytes of tensor data, found 1"]);
}

#[test]
fn floats_are_read_at_any_alignment() {
    // An odd number of bytes in front of every later tensor.
    let values = [1.0, -2.5, 0.0, 3.0e30, -1.0e-30, 7.0];
    let bytes = safetensors(
        "{}",
        &[
            ("odd", "U8", &[1], vec![9]),
            ("f", "F32", &[2, 3], f32_bytes(&values)),
            ("h", "F16", &[2], vec![0x00, 0x3c, 0x00, 0xc1]),
            ("b", "BF16", &[2], bf16_bytes(&[1.5, -3.0])),
        ],
    );
    let weights = source(bytes);
    assert_eq!(weights.total_bytes(), 1 + 24 + 4 + 4);
    assert_eq!(weights.names().collect::<Vec<_>>(), ["b", "f", "h", "odd"]);
    assert_eq!(row::<3>(&weights.matrix("f", &[2, 3]).unwrap(), 1), values[3..]);
    assert_eq!(weights.vector("h", 2).unwrap(), [1.0, -2.5]);
    assert_eq!(weights.vector("b", 2).unwrap(), [1.5, -3.0]);
    check(
        &weights.vector("odd", 1).unwrap_err(),
        ErrorKind::UnsupportedModel,
        &["\"odd\"", "F32", "found U8"],
    );
}

#[test]
fn wrong_shapes_and_missing_tensors_are_named() {
    let name = "model.layers.0.self_attn.q_proj.weight";
    let weights =
        source(safetensors("{}", &[(name, "F32", &[2, 1], vec![0; 8]), ("z", "I64", &[1, 1], vec![0; 8])]));
    let invalid = ErrorKind::InvalidModel;
    let error = weights.matrix(name, &[1, 2]).unwrap_err();
    check(&error, invalid, &["test", name, "expected shape [1, 2], found [2, 1]"]);
    check(&weights.vector(name, 2).unwrap_err(), invalid, &["expected shape [2], found [2, 1]"]);
    let error = weights.matrix("layers.0.self_attn.q_proj.weight", &[2, 1]).unwrap_err();
    check(&error, invalid, &["\"layers.0.self_attn.q_proj.weight\"", "similar", name]);
    let error = weights.matrix("model.norm", &[2, 1]).unwrap_err();
    check(&error, invalid, &["\"model.norm\"", "found none"]);
    assert!(!error.message().contains("similar"), "{error}");
    check(
        &weights.matrix("z", &[1, 1]).unwrap_err(),
        ErrorKind::UnsupportedModel,
        &["I8 with scales, found I64"],
    );
}

/// An int8 matrix `[2, 5]` in groups of 2, the last of 1.
fn int8_file(metadata: &str, codes: [i8; 10], scales: &[f32]) -> Vec<u8> {
    let codes = codes.map(|code| code as u8).to_vec();
    safetensors(
        metadata,
        &[("w", "I8", &[2, 5], codes), ("w.scales", "BF16", &[2, scales.len() / 2], bf16_bytes(scales))],
    )
}

const INT8: &str = r#"{"format":"clawdbot-int8","group_size":"2"}"#;
const CODES: [i8; 10] = [1, -2, 3, -4, 5, 127, -127, 0, 7, -8];
const SCALES: [f32; 6] = [0.5, 2.0, 0.0, 1.0, 0.25, 4.0];

#[test]
fn int8_is_code_times_scale() {
    let weights = source(int8_file(INT8, CODES, &SCALES));
    let matrix = weights.matrix("w", &[2, 5]).unwrap();
    assert_eq!(matrix.dtype(), Dtype::I8);
    assert_eq!(row::<5>(&matrix, 0), [0.5, -1.0, 6.0, -8.0, 0.0]);
    assert_eq!(row::<5>(&matrix, 1), [127.0, -127.0, 0.0, 1.75, -32.0]);
    let MatrixFormat::Int8(scales) = &matrix.format else { panic!("{matrix:?}") };
    assert_eq!((scales.group(), scales.row(1).len(), scales.scale(1, 2)), (2, 3, 4.0));
    assert_eq!(codes(&matrix, 1).unwrap(), CODES[5..]);
}

#[test]
fn unusable_int8_is_refused() {
    let refused = |bytes: Vec<u8>, kind, parts: &[&str]| {
        check(&source(bytes).matrix("w", &[2, 5]).unwrap_err(), kind, parts);
    };
    let (invalid, unsupported) = (ErrorKind::InvalidModel, ErrorKind::UnsupportedModel);
    refused(int8_file("{}", CODES, &SCALES), unsupported, &["\"w\"", "format=clawdbot-int8", "found none"]);
    refused(int8_file(r#"{"format":"pt"}"#, CODES, &SCALES), unsupported, &["found \"pt\""]);
    for group in ["", "0", "-2", "2.0", "99999999999999999999999"] {
        let metadata = format!(r#"{{"format":"clawdbot-int8","group_size":"{group}"}}"#);
        refused(
            int8_file(&metadata, CODES, &SCALES),
            invalid,
            &["group_size: expected a positive integer", group],
        );
    }
    refused(int8_file(INT8, CODES, &SCALES[..4]), invalid, &["w.scales", "[2, 3], found [2, 2]"]);
    for bad in [-1.0, f32::NAN, f32::INFINITY] {
        let mut scales = SCALES;
        scales[4] = bad;
        refused(int8_file(INT8, CODES, &scales), invalid, &["w.scales", "row 1, group 1"]);
    }
    let missing = safetensors(INT8, &[("w", "I8", &[2, 5], vec![0; 10])]);
    refused(missing, invalid, &["\"w.scales\"", "found none"]);
    let f32_scales = safetensors(
        INT8,
        &[("w", "I8", &[2, 5], vec![0; 10]), ("w.scales", "F32", &[2, 3], f32_bytes(&SCALES))],
    );
    refused(f32_scales, unsupported, &["w.scales", "found F32"]);

    let mut with_lowest = CODES;
    with_lowest[9] = -128;
    let weights = source(int8_file(INT8, with_lowest, &SCALES));
    let matrix = weights.matrix("w", &[2, 5]).unwrap();
    assert!(codes(&matrix, 0).is_ok());
    check(&codes(&matrix, 1).unwrap_err(), invalid, &["test", "\"w\"", "-128 in row 1"]);
}

#[test]
fn directories_without_weights_say_what_was_looked_for() {
    let dir = TempDir::new();
    let error = WeightSource::open_dir(dir.path()).unwrap_err();
    check(&error, ErrorKind::NotFound, &["model.safetensors or model.safetensors.index.json"]);
    assert!(!error.message().contains("not supported"), "{error}");
    dir.write("m.Q8_0.gguf", "GGUF");
    dir.write("pytorch_model.bin", "");
    let error = WeightSource::open_dir(dir.path()).unwrap_err();
    check(
        &error,
        ErrorKind::NotFound,
        &["pytorch_model.bin", "not supported yet", "by its own path", "m.Q8_0.gguf"],
    );
    let error = WeightSource::open_dir(&dir.path().join("none")).unwrap_err();
    check(&error, ErrorKind::NotFound, &["none"]);
    dir.write("model.safetensors", "");
    check(&WeightSource::open_dir(dir.path()).unwrap_err(), ErrorKind::InvalidModel, &["found 0"]);
}

fn shard(names: &[&str]) -> Vec<u8> {
    let tensors: Vec<_> = names.iter().map(|&name| (name, "F32", &[1][..], f32_bytes(&[1.0]))).collect();
    safetensors("{}", &tensors)
}

#[test]
fn shards_are_read_as_one() {
    let dir = TempDir::new();
    dir.write("1.safetensors", shard(&["a", "b"]));
    dir.write("2.safetensors", shard(&["c", "b"]));
    let index = |map: &str| dir.write("model.safetensors.index.json", format!("{{\"weight_map\":{map}}}"));
    index(r#"{"a":"1.safetensors","b":"2.safetensors","c":"2.safetensors"}"#);
    let weights = WeightSource::open_dir(dir.path()).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(weights.tensor("b").unwrap().file.name().ends_with("2.safetensors"));
    assert_eq!(weights.total_bytes(), 12);

    let refused = |map: &str, kind, parts: &[&str]| {
        index(map);
        check(&WeightSource::open_dir(dir.path()).unwrap_err(), kind, parts);
    };
    let invalid = ErrorKind::InvalidModel;
    refused(r#"{"a":"1.safetensors","c":"2.safetensors"}"#, invalid, &["\"b\" is in both"]);
    refused(
        r#"{"a":"1.safetensors","b":"3.safetensors","c":"2.safetensors"}"#,
        ErrorKind::NotFound,
        &["3.safetensors"],
    );
    refused(r#"{"a":"3.safetensors"}"#, ErrorKind::NotFound, &["3.safetensors"]);
    refused(r#"{"a":"1.safetensors","a":"1.safetensors"}"#, invalid, &["\"a\" occurs twice"]);
    refused("{}", invalid, &["between 1 and 10000 shards, found 0"]);
    refused("[]", invalid, &["index is malformed"]);
    for path in
        ["", ".", "..", "../1.safetensors", "/etc/passwd", "./1.safetensors", "a/b", "a\\\\b", "C:x", "a/"]
    {
        refused(&format!("{{\"a\":\"{path}\"}}"), invalid, &["weight_map of \"a\"", "plain file name"]);
    }
}

#[test]
fn an_index_may_name_what_is_elsewhere_or_nowhere() {
    let dir = TempDir::new();
    dir.write("1.safetensors", shard(&["a", "b"]));
    dir.write("2.safetensors", shard(&["c", "d"]));
    let open = |map: &str| {
        dir.write(
            "model.safetensors.index.json",
            format!("\u{feff}{{\"metadata\":{{\"x\":NaN}},\"weight_map\":{map}}}"),
        );
        WeightSource::open_dir(dir.path()).unwrap()
    };
    let right = open(r#"{"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors","d":"2.safetensors"}"#);
    assert!(right.notes().is_empty());
    let wrong =
        open(r#"{"a":"2.safetensors","b":"1.safetensors","mtp.x":"2.safetensors","mtp.y":"2.safetensors"}"#);
    assert_eq!(wrong.names().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert!(wrong.tensor("a").unwrap().file.name().ends_with("1.safetensors"));
    assert!(wrong.tensor("mtp.x").is_none());
    let [moved, absent] = wrong.notes() else { panic!("{:?}", wrong.notes()) };
    assert!(moved.contains("1 tensors are in another shard") && moved.contains("\"a\" in"), "{moved}");
    assert!(absent.contains("2 tensors that no shard has: \"mtp.x\""), "{absent}");
    check(&wrong.elements("mtp.x", &[1]).unwrap_err(), ErrorKind::InvalidModel, &["mtp.x", "found none"]);

    // In several shards, and in none of those that the index says.
    dir.write("3.safetensors", shard(&["a"]));
    dir.write(
        "model.safetensors.index.json",
        r#"{"weight_map":{"a":"2.safetensors","b":"1.safetensors","x":"3.safetensors"}}"#,
    );
    check(&WeightSource::open_dir(dir.path()).unwrap_err(), ErrorKind::InvalidModel, &["\"a\" is in both"]);
}

#[test]
fn a_single_file_beside_an_index_is_taken_if_it_is_whole() {
    let dir = TempDir::new();
    dir.write("1.safetensors", shard(&["a"]));
    dir.write("2.safetensors", shard(&["b"]));
    let index = r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#;
    dir.write("model.safetensors.index.json", index);
    let from = |names: &[&str]| {
        dir.write("model.safetensors", shard(names));
        let source = WeightSource::open_dir(dir.path()).unwrap();
        let [note] = source.notes() else { panic!("{:?}", source.notes()) };
        (source.tensor("a").unwrap().file.name().to_owned(), note.clone())
    };
    let (file, note) = from(&["a", "b"]);
    assert!(file.ends_with("model.safetensors") && note.contains("index.json is not used"), "{file}: {note}");
    let (file, note) = from(&["a"]);
    assert!(file.ends_with("1.safetensors") && note.contains("lacks \"b\""), "{file}: {note}");
    // A leftover may be the index as well.
    dir.write("model.safetensors.index.json", "{");
    let (file, _) = from(&["a"]);
    assert!(file.ends_with("model.safetensors"));
}

#[test]
fn tensors_are_compared_to_the_bit() {
    let long = |last: f32| [vec![0.5; 300_000], vec![last]].concat();
    let row = |name: &'static str, last: f32| (name, "F32", &[300_001][..], f32_bytes(&long(last)));
    let weights = source(safetensors(
        "{}",
        &[row("a", 1.0), row("b", 1.0), row("c", 1.5), ("d", "F32", &[1, 300_001], f32_bytes(&long(1.0)))],
    ));
    assert!(weights.same("a", "b").unwrap());
    assert!(!weights.same("a", "c").unwrap());
    assert!(!weights.same("a", "d").unwrap(), "of another shape");

    let codes = |name: &'static str| (name, "I8", &[1, 2][..], vec![1, 2]);
    let scales = |name: &'static str, scale: f32| (name, "BF16", &[1, 1][..], bf16_bytes(&[scale]));
    let mut weights = source(safetensors(
        r#"{"format":"clawdbot-int8","group_size":"2"}"#,
        &[codes("a"), scales("a.scales", 1.0), codes("b"), scales("b.scales", 2.0)],
    ));
    assert!(!weights.same("a", "b").unwrap(), "with other scales");
    weights.call("b", "c");
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "a.scales", "c", "c.scales"]);
    assert!(weights.matrix("c", &[1, 2]).is_ok());
}

#[test]
fn long_names_are_cut_in_messages() {
    let name = "é".repeat(1000);
    assert!(quoted(&name).len() < 300);
    assert_eq!(quoted("a\nb"), "\"a\\nb\"");
}

/// What every accepted file must satisfy.
fn assert_sound(bytes: &[u8]) {
    let Ok(header) = parse(bytes, "m") else { return };
    let mut covered = 0;
    for entry in &header.tensors {
        assert!(entry.range.start <= entry.range.end && entry.range.end <= bytes.len(), "{entry:?}");
        let elements: usize = entry.shape.iter().product();
        assert_eq!(entry.range.len() * 8, elements * entry.dtype.bitsize(), "{entry:?}");
        covered += entry.range.len();
    }
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(covered as u64, bytes.len() as u64 - 8 - length);
    // The reference implementation reads the same.
    let reference = ::safetensors::SafeTensors::deserialize(bytes).unwrap();
    assert_eq!(reference.len(), header.tensors.len());
    for entry in &header.tensors {
        let tensor = reference.tensor(&entry.name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (entry.dtype, entry.shape.as_slice()), "{entry:?}");
        assert_eq!(tensor.data().as_ptr(), bytes[entry.range.clone()].as_ptr(), "{entry:?}");
    }
}

#[test]
fn no_bytes_panic() {
    in_child(Limits { cpu: 20, ..Limits::default() }, || {
        random_bytes();
        random_headers();
        mutated_files();
        mutated_numbers();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        assert_sound(&bytes);
    }

    fn random_headers(text in "[\\{\\}\\[\\]\",:a0-9\\-\\. ]{0,80}", data in 0_usize..20) {
        assert_sound(&raw_file(&format!("{{{text}"), &vec![0; data]));
    }

    fn mutated_files(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = int8_file(INT8, CODES, &SCALES);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        assert_sound(&bytes);
    }

    /// Numbers of the header replaced by others, so that the JSON stays valid and the checks after it are reached.
    fn mutated_numbers(
        numbers in prop::collection::vec(
            prop_oneof![0_u64..12, any::<u64>(), Just(u64::MAX), Just(1_u64 << 32), Just(1_u64 << 63)], 6),
        dtype in prop::sample::select(super::dtype::dtype_named("").unwrap_err()),
        data in 0_usize..24,
    ) {
        let [a, b, c, d, e, f] = numbers[..] else { unreachable!() };
        let (first, second) = (dtype, "U8");
        assert_sound(&raw_file(&format!(
            r#"{{"a":{{"dtype":"{first}","shape":[{a},{b}],"data_offsets":[0,{c}]}},"b":{{"dtype":"{second}","shape":[{d}],"data_offsets":[{e},{f}]}}}}"#
        ), &vec![0; data]));
    }
}
