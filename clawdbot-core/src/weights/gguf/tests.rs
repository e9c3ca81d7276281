//! The header: what is read, and what is refused.

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::api::tests::support::child::{Limits, in_child};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::DataFile;

fn read(bytes: Vec<u8>) -> Result<GgufHeader> {
    GgufHeader::read(&DataFile::from_memory(bytes, "m.gguf"))
}

#[track_caller]
fn refused(bytes: Vec<u8>, kind: ErrorKind, parts: &[&str]) {
    let error: Error = read(bytes).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for part in std::iter::once(&"m.gguf: ").chain(parts) {
        assert!(error.message().contains(part), "{error:?} should contain {part:?}");
    }
}

/// Every type of value, nested arrays, tensors of two types.
fn sample() -> Writer {
    let inner =
        [&4_u32.to_le_bytes()[..], &2_u64.to_le_bytes(), &7_u32.to_le_bytes(), &8_u32.to_le_bytes()].concat();
    Writer::new()
        .pair("u8", [0, 0, 0, 0, 200].into())
        .pair("i8", [1, 0, 0, 0, 0xfe].into())
        .pair("u16", [2, 0, 0, 0, 1, 2].into())
        .pair("i16", [3, 0, 0, 0, 0xff, 0xff].into())
        .pair("u32", typed_u32(70_000))
        .pair("i32", [5_u32.to_le_bytes(), (-3_i32).to_le_bytes()].concat())
        .pair("f32", typed_f32(0.5))
        .pair("bool", typed_bool(true))
        .pair("text", typed_string("größe"))
        .pair("u64", [&10_u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat())
        .pair("i64", [&11_u32.to_le_bytes()[..], &i64::MIN.to_le_bytes()].concat())
        .pair("f64", [&12_u32.to_le_bytes()[..], &0.1_f64.to_le_bytes()].concat())
        .pair("texts", typed_strings(&["a", "", "ccc"]))
        .pair("i32s", typed_array(5, 2, &[(-1_i32).to_le_bytes(), 9_i32.to_le_bytes()].concat()))
        .pair("nested", typed_array(9, 2, &[inner.clone(), inner].concat()))
        .tensor("q", 2, &[32, 3], vec![1; 3 * 18])
        .tensor("f", 0, &[5], vec![2; 20])
}

#[test]
fn all_types_are_read() {
    for version in [2, 3] {
        let header = read(Writer { version, ..sample() }.bytes()).unwrap();
        let metadata = &header.metadata;
        let value = |key: &str| metadata.get(key).unwrap().clone();
        assert_eq!(value("u8"), Value::Unsigned(200));
        assert_eq!(value("i8"), Value::Signed(-2));
        assert_eq!(value("u16"), Value::Unsigned(0x201));
        assert_eq!(value("i16"), Value::Signed(-1));
        assert_eq!(metadata.u64("u32").unwrap(), 70_000);
        assert_eq!(value("i32"), Value::Signed(-3));
        assert_eq!(metadata.opt_f64("f32").unwrap(), Some(0.5));
        assert_eq!(metadata.opt_bool("bool").unwrap(), Some(true));
        assert_eq!(metadata.str("text").unwrap(), "größe");
        assert_eq!(value("u64"), Value::Unsigned(u64::MAX));
        assert_eq!(value("i64"), Value::Signed(i64::MIN));
        assert_eq!(value("f64"), Value::Float(0.1));
        let texts = metadata.opt_array("texts").unwrap().unwrap();
        assert_eq!((texts.len(), texts.strings().unwrap().collect::<Vec<_>>()), (3, vec!["a", "", "ccc"]));
        assert!(texts.scalars().is_none());
        let numbers = metadata.opt_array("i32s").unwrap().unwrap();
        let numbers: Vec<Value> = numbers.scalars().unwrap().collect();
        assert_eq!(numbers, [Value::Signed(-1), Value::Signed(9)]);
        assert_eq!(metadata.opt_array("nested").unwrap().unwrap().len(), 2);
        assert_eq!(metadata.keys().count(), 15);

        let [q, f] = header.tensors.as_slice() else { panic!("{:?}", header.tensors) };
        assert_eq!((q.name.as_str(), q.kind, q.shape.as_slice()), ("q", TensorType::Q4_0, &[3, 32][..]));
        assert_eq!((f.name.as_str(), f.kind, f.shape.as_slice()), ("f", TensorType::F32, &[5][..]));
        let start = header.header_bytes.next_multiple_of(32);
        assert_eq!((q.range.clone(), f.range.clone()), (start..start + 54, start + 64..start + 84));
    }
}

#[test]
fn values_of_another_type_are_errors_that_say_both() {
    let metadata = read(sample().bytes()).unwrap().metadata;
    let error = metadata.u64("text").unwrap_err();
    assert_eq!(error.message(), "m.gguf: \"text\": expected an integer >= 0, found \"größe\"");
    assert!(metadata.u64("i8").unwrap_err().message().ends_with("found -2"));
    assert!(metadata.u64("none").unwrap_err().message().ends_with("found nothing"));
    assert!(metadata.opt_str("texts").unwrap_err().message().ends_with("found an array of 3 x string"));
    assert!(metadata.opt_f64("u32").unwrap_err().message().ends_with("found 70000"));
    assert_eq!(metadata.opt_u64("none").unwrap(), None);
    assert_eq!(metadata.opt_u64("i8").unwrap_err().kind(), ErrorKind::InvalidModel);
}

#[test]
fn other_files_and_versions_are_refused() {
    use ErrorKind::{InvalidModel, UnsupportedModel};
    refused(b"GG".to_vec(), InvalidModel, &["4 more bytes", "found 2", "truncated"]);
    refused(b"GGML1234".to_vec(), InvalidModel, &["begins with GGUF", "[71, 71, 77, 76]"]);
    refused(Writer { version: 1, ..sample() }.bytes(), UnsupportedModel, &["2 or 3, found 1"]);
    refused(Writer { version: 4, ..sample() }.bytes(), UnsupportedModel, &["2 or 3, found 4"]);
    let big_endian = Writer { version: 3_u32.swap_bytes(), ..sample() };
    refused(big_endian.bytes(), UnsupportedModel, &["little-endian", "big-endian (version 3)"]);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    in_child(Limits::default(), || {
        a_file_cut_anywhere();
    });
}

fn a_file_cut_anywhere() {
    let bytes = sample().bytes();
    for len in 0..bytes.len() {
        let error = read(bytes[..len].to_vec()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{len}: {error}");
    }
}

#[test]
fn counts_that_cannot_be_are_refused_before_anything_is_allocated() {
    in_child(Limits::default(), || {
        counts_that_cannot_be();
    });
}

fn counts_that_cannot_be() {
    let counts = |tensors: u64, pairs: u64| {
        [b"GGUF\x03\0\0\0".to_vec(), tensors.to_le_bytes().into(), pairs.to_le_bytes().into(), vec![0; 40]]
            .concat()
    };
    for huge in [1 << 32, u64::MAX] {
        refused(counts(huge, 0), ErrorKind::InvalidModel, &["tensors", &format!("found {huge}")]);
        refused(counts(0, huge), ErrorKind::InvalidModel, &["metadata pairs", &format!("found {huge}")]);
    }
    refused(counts(1 << 20, 0), ErrorKind::InvalidModel, &["at most 1 tensors", "40 bytes remain"]);
    refused(counts(0, 4), ErrorKind::InvalidModel, &["at most 3 metadata pairs"]);
}

#[test]
fn values_that_cannot_be_are_refused() {
    in_child(Limits::default(), || {
        values_that_cannot_be();
    });
}

fn values_that_cannot_be() {
    let pair = |value: Vec<u8>| Writer::new().pair("k", value).bytes();
    let invalid = |value: Vec<u8>, parts: &[&str]| {
        let parts: Vec<&str> = parts.iter().copied().chain(["metadata \"k\""]).collect();
        refused(pair(value), ErrorKind::InvalidModel, &parts);
    };
    invalid(13_u32.to_le_bytes().into(), &["a value type from 0 to 12", "found 13"]);
    invalid([7, 0, 0, 0, 2].into(), &["a bool, 0 or 1, found 2"]);
    invalid(typed_array(7, 2, &[1, 3]), &["bools, 0 or 1, found 3"]);
    let claim = |len: u64| [&8_u32.to_le_bytes()[..], &len.to_le_bytes()].concat();
    invalid(claim(1 << 32), &["a string of at most 67108864 bytes", "4294967296"]);
    invalid(claim(9), &["0 bytes remain", "found 9"]);
    invalid([&8_u32.to_le_bytes()[..], &2_u64.to_le_bytes(), b"a\xff"].concat(), &["UTF-8", "from 1 on"]);
    let bad_text = [&1_u64.to_le_bytes()[..], b"\xff"].concat();
    invalid(typed_array(8, 1, &bad_text), &["UTF-8"]);
    for element in [0, 4, 8, 9, 12] {
        invalid(typed_array(element, 1 << 32, &[0; 24]), &["elements of type", "24 bytes remain"]);
    }
    let mut deep = typed_array(0, 0, &[])[4..].to_vec();
    for _ in 0..4 {
        deep = typed_array(9, 1, &deep)[4..].to_vec();
    }
    invalid([&9_u32.to_le_bytes()[..], &deep].concat(), &["nested at most 4 deep"]);
    let empty = typed_array(0, 0, &[])[4..].to_vec();
    invalid(typed_array(9, 70_000, &empty.repeat(70_000)), &["at most 65536 arrays"]);
    let twice = Writer::new().pair("k", typed_u32(1)).pair("k", typed_u32(2));
    refused(twice.bytes(), ErrorKind::InvalidModel, &["metadata \"k\"", "twice"]);
    let mut long_key = Writer::new().pair(&"k".repeat(70_000), typed_u32(1)).bytes();
    refused(long_key.clone(), ErrorKind::InvalidModel, &["a metadata key", "65535", "70000"]);
    long_key[24..32].copy_from_slice(&1_u64.to_le_bytes());
    read(long_key).unwrap_err();
}

#[test]
fn tensors_that_cannot_be_are_refused() {
    in_child(Limits::default(), || {
        tensors_that_cannot_be();
    });
}

fn tensors_that_cannot_be() {
    let one =
        |kind: u32, dims: &[u64], bytes: usize| Writer::new().tensor("t", kind, dims, vec![0; bytes]).bytes();
    let invalid = |bytes: Vec<u8>, parts: &[&str]| {
        let parts: Vec<&str> = parts.iter().copied().chain(["tensor \"t\""]).collect();
        refused(bytes, ErrorKind::InvalidModel, &parts);
    };
    invalid(one(0, &[1; 5], 4), &["at most 4 dimensions, found 5"]);
    invalid(one(200, &[4], 16), &["found the unknown type 200"]);
    refused(one(16, &[256], 66), ErrorKind::UnsupportedModel, &["tensor \"t\"", "found IQ2_XXS"]);
    invalid(one(2, &[48, 2], 54), &["a multiple of 32 weights, as Q4_0", "found 48"]);
    invalid(one(14, &[32], 210), &["a multiple of 256 weights, as Q6_K"]);
    invalid(one(0, &[1 << 40, 1 << 40], 4), &["the size of F32 [1099511627776, 1099511627776] overflows"]);
    // A zero does not hide the overflow.
    invalid(one(0, &[1 << 40, 1 << 40, 0], 4), &["overflows"]);
    invalid(one(0, &[1 << 30], 4), &["4294967296 bytes of data within the 4", "offset 0"]);
    let at = |offset: u64| Writer::new().tensor_at("t", 0, &[4], vec![0; 16], offset).bytes();
    invalid(at(8), &["a multiple of 32, found 8"]);
    invalid(at(32), &["16 bytes of data within the 16", "offset 32"]);
    invalid(at(u64::MAX - 31), &["16 bytes of data within the 16"]);
    let overlap = Writer::new().tensor("t", 0, &[16], vec![0; 64]).tensor_at("u", 0, &[8], vec![0; 64], 32);
    refused(overlap.bytes(), ErrorKind::InvalidModel, &["tensor \"u\"", "after that of \"t\""]);
    let twice = Writer::new().tensor("t", 0, &[4], vec![0; 16]).tensor("t", 0, &[4], vec![0; 16]);
    refused(twice.bytes(), ErrorKind::InvalidModel, &["tensor \"t\"", "twice"]);
}

#[test]
fn alignment_is_what_the_file_says() {
    for (alignment, good) in [(1, true), (64, true), (4096, true), (0, false), (24, false)] {
        let writer = Writer { alignment: (alignment as usize).max(1), ..Writer::new() };
        let writer = writer
            .pair("general.alignment", typed_u32(alignment))
            .tensor("a", 0, &[1], 1_f32.to_le_bytes().into())
            .tensor("b", 0, &[1], 2_f32.to_le_bytes().into());
        if good {
            let bytes = writer.bytes();
            let header = read(bytes.clone()).unwrap();
            assert_eq!(bytes[header.tensors[1].range.clone()], 2_f32.to_le_bytes(), "{alignment}");
        } else {
            refused(writer.bytes(), ErrorKind::InvalidModel, &["general.alignment", "a power of two"]);
        }
    }
    let huge = [&10_u32.to_le_bytes()[..], &(1_u64 << 63).to_le_bytes()].concat();
    let writer = Writer::new().pair("general.alignment", huge).tensor("a", 0, &[1], vec![0; 4]);
    refused(writer.bytes(), ErrorKind::InvalidModel, &["truncated"]);
}

#[test]
fn every_type_has_the_size_of_its_blocks() {
    for &kind in TensorType::ALL {
        let dims = [kind.block() as u64 * 2, 3];
        let writer = Writer::new().tensor("t", kind.id(), &dims, vec![0; 6 * kind.block_bytes()]);
        let header = read(writer.bytes()).unwrap();
        assert_eq!((header.tensors[0].kind, header.tensors[0].range.len()), (kind, 6 * kind.block_bytes()));
    }
}

#[test]
fn no_bytes_make_it_panic() {
    in_child(Limits { cpu: 20, ..Limits::default() }, || {
        changed_bytes();
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    fn changed_bytes(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        words in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 0..2),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample().bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for (at, word) in words {
            let at = at.index(bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        let len = bytes.len();
        bytes.truncate(len - cut.index(len) / 8);
        let len = bytes.len();
        if let Ok(header) = read(bytes) {
            for tensor in header.tensors {
                prop_assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= len);
            }
        }
    }
}
