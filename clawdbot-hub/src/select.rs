//! Selects the files that make a model from a repository's files.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result};
use crate::id::check_relative;
use crate::json::{Distinct, Indexed, Keys};

const CONFIG: &str = "config.json";
pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
const MODULES: &str = "modules.json";
/// Most names that an error lists.
const MAX_SHOWN: usize = 40;
/// Endings of weights that are never downloaded: they are programs, or in unsupported formats.
const OTHER_WEIGHTS: [&str; 7] = [".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx"];
/// Endings of files that are complete models.
const MODEL_FILES: [&str; 2] = [".gguf", ".clawdbot"];

/// The files of a model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) names: Vec<String>,
    /// The file to load, unless it is the directory.
    pub(crate) file: Option<String>,
    /// Files that would be used, or preferred, if the repository had them.
    pub(crate) absent: Vec<String>,
}

/// What a request says about files.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// A model file.
    pub(crate) file: Option<&'a str>,
    /// The quantization of a GGUF file.
    pub(crate) quantization: Option<&'a str>,
}

/// Selects from `names`, all files of a repository: the requested file, with the other parts if it is split; or the
/// GGUF file of a quantization; or `small` and safetensors; or else the only GGUF file.
///
/// A single file of weights takes precedence over an index of shards, as in transformers; but one that lacks tensors of
/// the index is a leftover.
///
/// `index` returns the content of the shards' index; `both` returns it together with the header of the single file, if
/// both exist.
///
/// # Errors
/// `NotFound` for a missing file; `InvalidArgument` if there are several GGUF files and none is named; `Unsupported` if
/// there are no weights in a supported format; `BadContent` for a malformed index.
pub(crate) fn select(
    names: &BTreeSet<&str>,
    wish: Wish<'_>,
    small: &[&str],
    index: impl FnOnce() -> Result<Vec<u8>>,
    both: impl FnOnce() -> Result<(Vec<u8>, Vec<u8>)>,
) -> Result<Selection> {
    let has = |name: &str| names.contains(name);
    let named = match wish {
        Wish { file: Some(file), quantization: None } => Some(file),
        Wish { file: None, quantization: Some(quantization) } => Some(of_quantization(names, quantization)?),
        Wish { file: None, quantization: None } => None,
        Wish { file: Some(file), quantization: Some(quantization) } => {
            let message =
                format!("expected a file or a quantization, found both: {file:?} and {quantization:?}");
            return Err(Error::invalid(message));
        }
    };
    if let Some(file) = named {
        let names = parts(names, file)?;
        return Ok(Selection { file: names.first().cloned(), names, absent: Vec::new() });
    }
    let weights = match (has(SINGLE), has(INDEX)) {
        (true, true) => both().map(|(index, header)| instead_of_single(names, &index, &header))?,
        (true, false) => None,
        (false, true) => Some(shards(names, &index()?).map_err(|error| error.context(INDEX))?),
        (false, false) => return only_gguf(names),
    };
    let weights = match weights {
        Some(shards) => std::iter::once(INDEX.to_owned()).chain(shards).collect(),
        None => vec![SINGLE.to_owned()],
    };
    if !has(CONFIG) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("expected {CONFIG} with the weights, found none"),
        ));
    }
    let (mut found, mut absent): (Vec<String>, Vec<String>) =
        small.iter().map(|&name| name.to_owned()).partition(|name| has(name));
    if small.contains(&MODULES) && has(MODULES) {
        found.extend(names.iter().filter(|name| is_of_module(name)).map(|&name| name.to_owned()));
    }
    if !has(SINGLE) {
        absent.push(SINGLE.to_owned());
    }
    Ok(Selection { names: found.into_iter().chain(weights).collect(), file: None, absent })
}

/// Whether a file belongs to a sentence-transformers module, such as `1_Pooling/config.json`.
fn is_of_module(name: &str) -> bool {
    let Some((folder, file)) = name.split_once('/') else { return false };
    let Some((number, kind)) = folder.split_once('_') else { return false };
    let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    plain && kind.bytes().all(|byte| byte.is_ascii_alphanumeric()) && [CONFIG, SINGLE].contains(&file)
}

/// `file`, or all parts of the split file that it belongs to.
fn parts(names: &BTreeSet<&str>, file: &str) -> Result<Vec<String>> {
    check_relative("a file", file)?;
    if !is_model_file(file) {
        return Err(Error::invalid(format!("expected a GGUF file or a packed model, found {file:?}")));
    }
    let wanted = match split_name(file) {
        Some(SplitName { stem, count, .. }) => {
            (1..=count).map(|part| format!("{stem}-{part:05}-of-{count:05}.gguf")).collect()
        }
        None => vec![file.to_owned()],
    };
    match wanted.iter().find(|name| !names.contains(name.as_str())) {
        Some(missing) => {
            let models = names.iter().copied().filter(|name| is_model_file(name));
            let message = format!("expected {missing}, found {}", shown(models));
            Err(Error::new(ErrorKind::NotFound, message))
        }
        None => Ok(wanted),
    }
}

/// A name `STEM-PART-of-COUNT.gguf`.
#[derive(Debug, PartialEq, Eq)]
struct SplitName<'a> {
    stem: &'a str,
    part: u32,
    count: u32,
}

/// The parts of the name of a part of a model.
fn split_name(name: &str) -> Option<SplitName<'_>> {
    let number = |text: &str| match text.len() {
        5 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, part) = rest.rsplit_once('-')?;
    let (part, count) = (number(part)?, number(count)?);
    (1..=count).contains(&part).then_some(SplitName { stem, part, count })
}

/// Whether a file is a complete model, by its ending.
pub(crate) fn is_model_file(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    MODEL_FILES.iter().any(|ending| lower.ends_with(ending))
}

/// The GGUF files; of split ones the first part.
fn gguf_files<'a>(names: &BTreeSet<&'a str>) -> Vec<&'a str> {
    // Projectors of multimodal models in the same folder are not models.
    let projector = |name: &str| name.rsplit('/').next().is_some_and(|name| name.starts_with("mmproj"));
    let first = |name: &str| split_name(name).is_none_or(|name| name.part == 1);
    let gguf = |name: &&str| name.ends_with(".gguf") && !projector(name) && first(name);
    names.iter().copied().filter(gguf).collect()
}

/// The GGUF file whose name ends with `quantization`, or whose folder has this name.
fn of_quantization<'a>(names: &BTreeSet<&'a str>, quantization: &str) -> Result<&'a str> {
    let all = gguf_files(names);
    let wanted = quantization.to_ascii_lowercase();
    // `M` is the end of `Q4_K_M`, but not a quantization.
    let whole = wanted.starts_with(|c: char| c.is_ascii_alphabetic())
        && wanted.contains(|c: char| c.is_ascii_digit());
    let is_meant = |name: &&str| {
        let name = split_name(name)
            .map_or_else(|| name.trim_end_matches(".gguf"), |split| split.stem)
            .to_ascii_lowercase();
        let (folder, stem) = name.rsplit_once('/').unwrap_or(("", &name));
        let ends =
            stem.strip_suffix(&wanted).is_some_and(|rest| rest.is_empty() || rest.ends_with(['-', '.', '_']));
        whole && (ends || folder == wanted)
    };
    match all.iter().copied().filter(|name| is_meant(name)).collect::<Vec<_>>().as_slice() {
        [only] => Ok(only),
        [] => {
            let message = format!(
                "expected a GGUF file of the quantization {quantization}, found {}",
                shown(all.into_iter())
            );
            Err(Error::new(ErrorKind::NotFound, message))
        }
        several => {
            let found = shown(several.iter().copied());
            Err(Error::invalid(format!(
                "expected one GGUF file of the quantization {quantization}, found {found}"
            )))
        }
    }
}

fn only_gguf(names: &BTreeSet<&str>) -> Result<Selection> {
    let found = gguf_files(names);
    match found.as_slice() {
        [only] => {
            let names = parts(names, only)?;
            let absent = vec![SINGLE.to_owned(), INDEX.to_owned()];
            Ok(Selection { file: names.first().cloned(), names, absent })
        }
        [] => {
            let other = |name: &&&str| OTHER_WEIGHTS.iter().any(|ending| name.ends_with(ending));
            let message = match names.iter().find(other) {
                Some(name) => {
                    format!("expected safetensors or GGUF, found weights as {name}, which are not loaded")
                }
                None => format!("expected {SINGLE}, {INDEX} or a GGUF file, found none of them"),
            };
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        several => Err(Error::invalid(format!(
            "expected the name of one of the GGUF files: {}",
            shown(several.iter().copied())
        ))),
    }
}

fn shown<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.len() {
        0 => "none".to_owned(),
        n if n <= MAX_SHOWN => names.join(", "),
        n => format!("{} and {} more", names[..MAX_SHOWN].join(", "), n - MAX_SHOWN),
    }
}

/// The shards, if the single file lacks a tensor of the index.
fn instead_of_single(names: &BTreeSet<&str>, index: &[u8], header: &[u8]) -> Option<Vec<String>> {
    // The index may be the leftover as well.
    let shards = shards(names, index).ok()?;
    let wanted: Indexed = serde_json::from_slice(index).ok()?;
    let there: Keys = serde_json::from_slice(header).ok()?;
    (!wanted.tensors.0.is_subset(&there.0)).then_some(shards)
}

/// The distinct files of an index, in order.
fn shards(names: &BTreeSet<&str>, json: &[u8]) -> Result<Vec<String>> {
    let index: Distinct = serde_json::from_slice(json).map_err(|error| {
        Error::bad_content(format!("expected a weight_map from tensors to files: {error}"))
    })?;
    let shards: Vec<String> = index.files.into_iter().collect();
    if shards.is_empty() {
        return Err(Error::bad_content("weight_map: expected tensors, found none"));
    }
    for name in &shards {
        check_relative("a file", name).map_err(|error| Error::bad_content(error.message()))?;
        if !name.ends_with(".safetensors") || !names.contains(name.as_str()) {
            let message = format!("expected a safetensors file of the repository, found {name:?}");
            return Err(Error::bad_content(message));
        }
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: [&str; 3] = [CONFIG, "tokenizer.json", "chat_template.jinja"];
    /// Header of the single file.
    const HEADER: &str = r#"{"__metadata__": {}, "x": {"dtype": "F32"}, "y": {}}"#;

    fn none() -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn neither() -> Result<(Vec<u8>, Vec<u8>)> {
        Ok((Vec::new(), Vec::new()))
    }

    fn selected(names: &[&str], file: Option<&str>, index: &str) -> Result<Selection> {
        let wish = Wish { file, quantization: None };
        let index = || Ok(index.as_bytes().to_vec());
        select(&names.iter().copied().collect(), wish, &SMALL, index, || Ok((index()?, HEADER.into())))
    }

    #[test]
    fn safetensors() {
        let names = [
            CONFIG,
            SINGLE,
            INDEX,
            "README.md",
            "pytorch_model.bin",
            "tokenizer.json",
            "x.gguf",
            "x.safetensors",
        ];
        let found = selected(&names, None, "").unwrap();
        assert_eq!(found.names, [CONFIG, "tokenizer.json", SINGLE]);
        assert_eq!((found.file, found.absent), (None, vec!["chat_template.jinja".to_owned()]));

        let names = [CONFIG, INDEX, "a.safetensors", "b.safetensors", "consolidated.safetensors"];
        let index = r#"{"metadata": {}, "weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}"#;
        let found = selected(&names, None, index).unwrap();
        assert_eq!(found.names, [CONFIG, INDEX, "a.safetensors", "b.safetensors"]);
        assert_eq!(found.absent, ["tokenizer.json", "chat_template.jinja", SINGLE]);
    }

    #[test]
    fn a_single_file_next_to_an_index() {
        let names = [CONFIG, SINGLE, INDEX, "a.safetensors"];
        let weights = |tensors: &[&str], file: &str| {
            let map: serde_json::Map<String, serde_json::Value> =
                tensors.iter().map(|&tensor| (tensor.to_owned(), file.into())).collect();
            let index = serde_json::json!({ "weight_map": map }).to_string();
            selected(&names, None, &index).unwrap().names[1..].to_vec()
        };
        assert_eq!(weights(&["x", "y"], "a.safetensors"), [SINGLE]);
        assert_eq!(weights(&["x", "y", "z"], "a.safetensors"), [INDEX, "a.safetensors"]);
        // The index may be the leftover as well.
        assert_eq!(weights(&["x", "y", "z"], "gone.safetensors"), [SINGLE]);
    }

    #[test]
    fn modules_of_sentence_transformers() {
        let modules = ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"];
        let others =
            ["2_Dense/pytorch_model.bin", "onnx/config.json", "1_Pooling/x/config.json", "_x/config.json"];
        let names: Vec<&str> = [CONFIG, SINGLE, MODULES].into_iter().chain(modules).chain(others).collect();
        let found =
            select(&names.iter().copied().collect(), Wish::default(), &[CONFIG, MODULES], none, neither)
                .unwrap();
        let expected: Vec<&str> = [CONFIG, MODULES].into_iter().chain(modules).chain([SINGLE]).collect();
        assert_eq!(found.names, expected);
        assert_eq!(selected(&names, None, "").unwrap().names, [CONFIG, SINGLE]);
    }

    #[test]
    fn gguf() {
        let split = ["q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf"];
        let found = selected(&["mmproj-f16.gguf", split[1], split[0], CONFIG], None, "").unwrap();
        assert_eq!(
            (found.file.as_deref(), found.names.as_slice()),
            (Some(split[0]), &split.map(str::to_owned)[..])
        );
        assert_eq!(found.absent, [SINGLE, INDEX]);
        let found = selected(&[split[0], split[1], "other.gguf"], Some(split[1]), "").unwrap();
        assert_eq!(found.file.as_deref(), Some(split[0]));
        assert_eq!(selected(&["a.gguf", SINGLE], Some("a.gguf"), "").unwrap().names, ["a.gguf"]);
    }

    #[test]
    fn quantizations() {
        let names = [
            "m-Q4_K_M.gguf",
            "m-Q4_K_S.gguf",
            "M.q8_0.gguf",
            "m-f16-00001-of-00002.gguf",
            "m-f16-00002-of-00002.gguf",
            "BF16/m.gguf",
            "mmproj-Q8_0.gguf",
            SINGLE,
            CONFIG,
        ];
        let found = |quantization| {
            let wish = Wish { file: None, quantization: Some(quantization) };
            select(&names.iter().copied().collect(), wish, &SMALL, none, neither)
        };
        for (quantization, file) in [
            ("Q4_K_M", "m-Q4_K_M.gguf"),
            ("q4_k_s", "m-Q4_K_S.gguf"),
            ("Q8_0", "M.q8_0.gguf"),
            ("F16", "m-f16-00001-of-00002.gguf"),
            ("bf16", "BF16/m.gguf"),
        ] {
            assert_eq!(found(quantization).unwrap().file.as_deref(), Some(file));
        }
        assert_eq!(found("f16").unwrap().names.len(), 2);
        for missing in ["Q4", "Q4_K", "M", "Q5_0"] {
            let error = found(missing).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(error.message().contains("m-Q4_K_M.gguf, m-Q4_K_S.gguf"), "{error}");
        }
        let wish = Wish { file: Some("a.gguf"), quantization: Some("Q8_0") };
        let error = select(&["a.gguf"].into(), wish, &SMALL, none, neither).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let wish = Wish { file: None, quantization: Some("Q8_0") };
        let error = select(&["a-Q8_0.gguf", "b-Q8_0.gguf"].into(), wish, &SMALL, none, neither).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn refusals() {
        /// Names in the repository, requested file, index, kind of the error, part of its message.
        type Case = (&'static [&'static str], Option<&'static str>, &'static str, ErrorKind, &'static str);
        let cases: [Case; 10] = [
            (&["a.gguf", "b.gguf"], None, "", ErrorKind::InvalidArgument, "a.gguf, b.gguf"),
            (&["a.gguf"], Some("b.gguf"), "", ErrorKind::NotFound, "found a.gguf"),
            (&["m-00001-of-00002.gguf"], None, "", ErrorKind::NotFound, "m-00002-of-00002.gguf"),
            (&["m.bin"], Some("m.bin"), "", ErrorKind::InvalidArgument, "m.bin"),
            (&["a.gguf"], Some("../a.gguf"), "", ErrorKind::InvalidArgument, "inside the repository"),
            (&[CONFIG, "pytorch_model.bin"], None, "", ErrorKind::Unsupported, "pytorch_model.bin"),
            (&[SINGLE], None, "", ErrorKind::Unsupported, CONFIG),
            (&[CONFIG, INDEX], None, "[]", ErrorKind::BadContent, "weight_map"),
            (
                &[CONFIG, INDEX],
                None,
                r#"{"weight_map": {"x": "../x.safetensors"}}"#,
                ErrorKind::BadContent,
                "inside",
            ),
            (
                &[CONFIG, INDEX, "x.bin"],
                None,
                r#"{"weight_map": {"x": "x.bin"}}"#,
                ErrorKind::BadContent,
                "x.bin",
            ),
        ];
        for (names, file, index, kind, text) in cases {
            let error = selected(names, file, index).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.message().contains(text), "{error}");
        }
    }

    proptest! {
        #[test]
        fn selected_files_exist(
            names in prop::collection::vec("(config.json|model.safetensors|model.safetensors.index.json|[a-c].gguf|\
                a-0000[0-3]-of-0000[0-3].gguf|[a-c].safetensors|[a-c].bin)", 0..8),
            file in prop::option::of("[a-c](-0000[0-3]-of-0000[0-3])?.gguf"),
            index in r#"\{"weight_map": \{("[a-c]": "[a-c/.]{1,3}.safetensors")?\}\}"#,
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if let Ok(selection) = selected(&names, file.as_deref(), &index) {
                prop_assert!(selection.names.iter().all(|name| names.contains(&name.as_str())));
                prop_assert!(selection.absent.iter().all(|name| !names.contains(&name.as_str())));
                prop_assert!(selection.names.iter().all(|name| !name.ends_with(".bin")));
                prop_assert!(!selection.names.is_empty());
            }
        }
    }
}
