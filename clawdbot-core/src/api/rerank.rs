//! Decoders that are asked whether a document is what a query asks for.

use clawdbot_kernels::PackedMatrix;

use super::embed_plan::{Longer, overflow, too_long};
use super::loaded::Loaded;
use crate::error::{Error, ErrorKind, Result};
use crate::options::RerankOptions;
use crate::tokenizer::{AddSpecialTokens, Tokenizer};

/// Asks a decoder whether a document is what a query asks for, as Qwen3-Reranker was trained to be asked
/// (<https://huggingface.co/Qwen/Qwen3-Reranker-0.6B>).
pub(crate) struct DecoderReranker {
    before: Vec<u32>,
    query: String,
    after: Vec<u32>,
    /// Rows of the output head: "yes" less "no". `[hidden_size]`
    direction: Vec<f32>,
}

/// The architecture that is asked.
const ARCHITECTURE: &str = "Qwen3ForCausalLM";
const PREFIX: &str = "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the \
    Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n";
const SUFFIX: &str = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
const INSTRUCTION: &str = "Given a web search query, retrieve relevant passages that answer the query";

impl DecoderReranker {
    pub(crate) fn new(loaded: &Loaded, query: &str, options: &RerankOptions) -> Result<Self> {
        let decoder = &loaded.decoder;
        let architecture = decoder.spec.architecture;
        if architecture != ARCHITECTURE || !decoder.spec.generates() {
            let message = format!(
                "{architecture} gives no scores: expected a ...ForSequenceClassification with one label, or {ARCHITECTURE}"
            );
            return Err(Error::unsupported_model(message));
        }
        let tokenizer = &loaded.text()?.tokenizer;
        let head = decoder.lm_head.as_ref().unwrap_or(&decoder.embedding);
        let row = |answer: &str| {
            let id = answer_id(tokenizer, answer)?;
            Ok::<_, Error>(read_row(loaded, head, id))
        };
        let (mut direction, no) = (row("yes")?, row("no")?);
        direction.iter_mut().zip(no).for_each(|(yes, no)| *yes -= no);
        let instruction = options.instruction.as_deref().unwrap_or(INSTRUCTION);
        Ok(DecoderReranker {
            before: tokenizer.encode(PREFIX, AddSpecialTokens::No)?,
            query: format!("<Instruct>: {instruction}\n<Query>: {query}\n<Document>: "),
            after: tokenizer.encode(SUFFIX, AddSpecialTokens::No)?,
            direction,
        })
    }

    pub(crate) fn tokens(
        &self,
        loaded: &Loaded,
        document: &str,
        most: usize,
        longer_texts: Longer,
    ) -> Result<Vec<u32>> {
        let text = format!("{}{document}", self.query);
        let around = self.before.len() + self.after.len();
        let room = most.saturating_sub(around);
        let middle = loaded.encode_fitting(&text, None, AddSpecialTokens::No, room, longer_texts)?.tokens;
        let tokens = [&self.before[..], &middle, &self.after].concat();
        if tokens.len() > most { Err(too_long(tokens.len(), most)) } else { Ok(tokens) }
    }

    /// Checks that the query leaves room for a document: it is in front of the document, and texts are cut at the end.
    pub(crate) fn query_fits(&self, loaded: &Loaded, most: usize, longer_texts: Longer) -> Result<()> {
        match self.tokens(loaded, "", most, Longer::Refused) {
            Err(error) if longer_texts == Longer::Cut && error.kind() == ErrorKind::ContextOverflow => {
                let message = format!("expected a text that leaves room for a document in {most} tokens");
                let found = error.detail().get("tokens").and_then(serde_json::Value::as_u64).unwrap_or(0);
                Err(overflow(&message, found as usize, most))
            }
            found => found.map(drop),
        }
    }

    /// The difference of the two logits, from states `[documents, hidden_size]`.
    pub(crate) fn scores(&self, states: &[f32]) -> Vec<f32> {
        let rows = states.chunks_exact(self.direction.len());
        let dot = |row: &[f32]| -> f64 {
            row.iter().zip(&self.direction).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
        };
        rows.map(|row| dot(row) as f32).collect()
    }
}

fn answer_id(tokenizer: &Tokenizer, answer: &str) -> Result<u32> {
    tokenizer.token_to_id(answer).ok_or_else(|| {
        Error::invalid_tokenizer(format!(
            "expected a token {answer:?}, with which the model answers, found none"
        ))
    })
}

fn read_row(loaded: &Loaded, matrix: &PackedMatrix, row: u32) -> Vec<f32> {
    let mut out = vec![0.0; matrix.k()];
    matrix.read_row(loaded.runtime.kernel_set(), row as usize, &mut out);
    out
}
