//! Functions for the fuzz targets: each parses bytes in memory and reads everything that they describe. No public interface.
#![allow(missing_docs, reason = "for the fuzz targets of this repository only")]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Map, json};
use sha2::{Digest, Sha256};

use crate::api::model::Model;
use crate::error::{Error, ErrorKind, Result};
use crate::load::quantization::parse_spec;
use crate::load::source::Opened;
use crate::load::weights::Weights;
use crate::options::GenerateOptions;
use crate::output::{OutputFormats, Piece, Tools, output_examples};
use crate::spec::config::ModelConfig;
use crate::spec::generation;
use crate::tokenizer::{
    AddGenerationPrompt, AddSpecialTokens, StreamDecoder, Tokenizer, render_chat_template,
};
use crate::weights::{DataFile, Dtype, GgufSource, PackedFile, WeightSource, parse_index};

/// A GGUF file: header, tokenizer, configuration, every norm, and the first row of every matrix.
pub fn gguf(data: &[u8]) -> Result<()> {
    let file = DataFile::from_memory(data.to_vec(), "m.gguf");
    let source = GgufSource::with_first(file, "m.gguf".as_ref())?;
    read_weights(&Opened::of_gguf("m.gguf".to_owned(), source)?)
}

/// A safetensors file: header, and every tensor in each way in which it can be read.
pub fn safetensors(data: &[u8]) -> Result<()> {
    let source = WeightSource::from_file(DataFile::from_memory(data.to_vec(), "m.safetensors"))?;
    let names: Vec<String> = source.names().map(str::to_owned).collect();
    for name in names {
        let Some(tensor) = source.tensor(&name) else { continue };
        let shape = tensor.shape.to_vec();
        tensor.read()?;
        if source.typed(&name, &shape, &[Dtype::U8]).is_ok() {
            continue;
        }
        match *shape.as_slice() {
            [n, k] if n > 0 => {
                let matrix = source.matrix(&name, &[n, k])?;
                let (mut stored, mut row) = (Vec::new(), vec![0.0; k]);
                matrix.fetch(n - 1..n, &mut stored)?;
                matrix.read_row(n - 1, &stored, &mut row);
            }
            _ => source.elements(&name, &shape).map(|_| ())?,
        }
    }
    Ok(())
}

/// `model.safetensors.index.json`.
pub fn index(data: &[u8]) -> Result<()> {
    parse_index(data).map(|_| ())
}

/// `config.json` and `generation_config.json`: the spec, and the names of all tensors.
pub fn config(data: &[u8]) -> Result<()> {
    let config = ModelConfig::parse(data, "config.json")?;
    generation::parse(&config)?;
    let names = parse_spec(&config)?.tensors();
    names.matrices().count();
    names.vectors().count();
    Ok(())
}

/// `tokenizer.json`, and texts encoded and decoded.
pub fn tokenizer(data: &[u8]) -> Result<()> {
    let long = "word \u{e9}a ".repeat(300);
    let texts =
        ["Once upon a time, 12 caf\u{e9}s\n\tsaid \u{1f600}!", "", " a", "<s> b\u{fdfa}\u{301}</s>", &long];
    tokenizer_with(data, &texts)
}

/// `tokenizer.json`, and these texts encoded and decoded, with the same result as with the tables of a packed file. A panic
/// of the tokenizers crate is a finding, although it is caught.
pub fn tokenizer_with(data: &[u8], texts: &[&str]) -> Result<()> {
    let tokenizer = Tokenizer::from_bytes(data).map_err(caught)?;
    if let Ok(tables) = Tokenizer::tables(data).map_err(|error| not_the_same(&error))? {
        let tables =
            Tokenizer::from_tables(tables, data.len() as u64).map_err(|error| not_the_same(&error))?;
        for text in texts {
            let encode = |tokenizer: &Tokenizer| {
                tokenizer.encode(text, AddSpecialTokens::Yes).map_err(|error| error.message().to_owned())
            };
            let (expected, found) = (encode(&tokenizer), encode(&tables));
            if found != expected || tables.at_least(text) != tokenizer.at_least(text) {
                return Err(not_the_same(&format!("{text:?}: expected {expected:?}, found {found:?}")));
            }
        }
    }
    texts_with(&tokenizer, texts)
}

fn not_the_same(what: &dyn std::fmt::Display) -> Error {
    Error::internal(format!("tables: {what}"))
}

/// The tables of a tokenizer, and texts encoded and decoded.
pub fn tables(data: &[u8]) -> Result<()> {
    let json_bytes =
        data.get(24..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let tokenizer = Tokenizer::from_tables(data.to_vec(), json_bytes).map_err(caught)?;
    let long = "word \u{e9}a ".repeat(2000);
    texts_with(&tokenizer, &["Once upon a time, 12 caf\u{e9}s\n\tsaid \u{1f600}!", "", "<s> ab b</s>", &long])
}

/// The tables of the tokenizer in `json`, as seeds.
pub fn tables_of(json: &[u8]) -> Option<Vec<u8>> {
    Tokenizer::tables(json).ok()?.ok()
}

fn caught(error: Error) -> Error {
    match error.message().contains("panicked") {
        true => Error::internal(error.message().to_owned()),
        false => error,
    }
}

/// These texts encoded and decoded.
fn texts_with(tokenizer: &Tokenizer, texts: &[&str]) -> Result<()> {
    // A text that cannot be encoded says nothing about the others.
    fn said<T>(result: Result<T>, last: &mut Result<()>) -> Result<Option<T>> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == ErrorKind::Internal => Err(error),
            Err(error) => {
                *last = Err(error);
                Ok(None)
            }
        }
    }
    let mut last = Ok(());
    if let [first, .., second] = texts {
        said(
            tokenizer.encode_within(first, Some(second), AddSpecialTokens::Yes, 40).map_err(caught),
            &mut last,
        )?;
    }
    for text in texts {
        let Some(ids) = said(tokenizer.encode(text, AddSpecialTokens::Yes).map_err(caught), &mut last)?
        else {
            continue;
        };
        let ids = &ids[..ids.len().min(64)];
        for skip in [true, false] {
            let Some(whole) = said(tokenizer.decode(ids, skip.into()).map_err(caught), &mut Ok(()))? else {
                continue;
            };
            let mut stream = StreamDecoder::new(tokenizer, skip.into());
            let mut pieces = String::new();
            let streamed =
                ids.iter().try_for_each(|&id| stream.push(id).map(|piece| pieces.push_str(&piece)));
            let streamed = streamed.and_then(|()| stream.finish().map(|piece| pieces.push_str(&piece)));
            if said(streamed.map_err(caught), &mut Ok(()))?.is_some() && pieces != whole {
                return Err(Error::internal(format!("expected {whole:?}, streamed {pieces:?}")));
            }
        }
    }
    last
}

/// Runs `work` on a stack that is large enough for parsers, so that they start no thread.
pub fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    crate::large_stack::on_large_stack("clawdbot-fuzz", || Error::internal("panicked"), || Ok(work()))
}

/// A packed model file: header, small files, texts, every norm.
pub fn packed(data: &[u8]) -> Result<()> {
    let file = PackedFile::open(DataFile::from_memory(data.to_vec(), "m.clawdbot"))?;
    let opened = Opened::open_packed("m.clawdbot".to_owned(), file)?;
    read_weights(&opened)?;
    if let Some(text) = &opened.text {
        texts_with(&text.tokenizer, &["ab \u{e9} word</s>", &"word ".repeat(100)])?;
    }
    match &opened.weights {
        Weights::Packed(file) => file.verify(&mut |_, _| true),
        _ => Ok(()),
    }
}

/// A saved session of the built-in model, with the checksum that it should have: whatever it says then is read, and gone on
/// with.
pub fn session(data: &[u8]) -> Result<()> {
    static MODEL: OnceLock<Model> = OnceLock::new();
    let model = match MODEL.get() {
        Some(model) => model,
        None => {
            let made = Model::builtin()?;
            MODEL.get_or_init(|| made)
        }
    };
    let body = &data[..data.len().saturating_sub(32)];
    let whole = [body, Sha256::digest(body).as_slice()].concat();
    let mut session = model.restore_session_from(whole.as_slice())?;
    session.append(vec![5], AddSpecialTokens::No)?;
    let options = GenerateOptions::default().max_tokens(2_u32).temperature(0.0);
    session.generate(&options).map(|_| ())
}

/// A chat template, rendered.
pub fn template(data: &[u8]) -> Result<()> {
    let source = String::from_utf8_lossy(data);
    let messages = json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]);
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let mut variables = Map::new();
    variables.insert("bos_token".to_owned(), "<s>".into());
    render_chat_template(&source, &messages, Some(&tools), AddGenerationPrompt::Yes, &variables).map(|_| ())
}

/// Lines: a format of calls, one of reasoning, how the prompt ends; the rest is an output, which is read whole and by the
/// character, with the same result. Nothing that it says may get lost or be made up, and calls say what their deltas said.
pub fn output(data: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(4, '\n');
    let mut next = || parts.next().unwrap_or_default();
    let (tool, reasoning, tail, output) = (next(), next(), next(), next());
    let invalid = |what| Error::invalid_argument(format!("expected formats and an output, found {what}"));
    let formats = OutputFormats::new(tool, reasoning)?.ok_or_else(|| invalid("no format"))?;
    let tools = json!([{"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}]);
    let read = |pieces: &mut dyn Iterator<Item = &str>| {
        let mut parser = formats.parser(Tools::new(Some(&tools)), 1, tail);
        let mut parts: Vec<Piece> = pieces.flat_map(|piece| parser.push(piece)).collect();
        parts.extend(parser.finish());
        // Where text is cut says nothing.
        parts.into_iter().fold(
            (String::new(), String::new(), BTreeMap::<usize, String>::new(), Vec::new()),
            |mut all, part| {
                match part {
                    Piece::Text(text) => all.0.push_str(&text),
                    Piece::Reasoning(text) => all.1.push_str(&text),
                    Piece::Delta(delta) => all.2.entry(delta.index).or_default().push_str(&delta.arguments),
                    other => all.3.push(other),
                }
                all
            },
        )
    };
    let whole = read(&mut std::iter::once(output));
    let cut = read(&mut output.char_indices().map(|(at, c)| &output[at..at + c.len_utf8()]));
    let same = |part: &Piece| match part {
        Piece::Call(call) => whole.2.get(&call.index) == Some(&call.arguments),
        _ => true,
    };
    match whole == cut && whole.3.iter().all(same) {
        true => Ok(()),
        false => Err(Error::internal(format!("output: expected {whole:?}, found {cut:?}"))),
    }
}

/// Outputs in every format.
pub fn output_seeds() -> Vec<Vec<u8>> {
    let seeds = output_examples().map(|(tool, reasoning, output)| {
        format!("{tool}\n{reasoning}\n<|start|>assistant\n{output} then\n{output}").into_bytes()
    });
    seeds.collect()
}

fn read_weights(opened: &Opened) -> Result<()> {
    let names = opened.spec.tensors();
    for name in names.vectors() {
        opened.weights.vector(name)?;
    }
    if matches!(opened.weights, Weights::Packed(_)) {
        return Ok(());
    }
    for name in names.matrices() {
        let rows = opened.weights.matrix(name, &mut None)?;
        let (mut stored, mut row) = (Vec::new(), vec![0.0; name.k]);
        rows.fetch(0..1, &mut stored)?;
        rows.read_row(0, &stored, &mut row);
    }
    Ok(())
}
