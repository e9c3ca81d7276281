//! How texts become vectors and scores.

use serde::{Deserialize, Serialize};

use super::{check_whole, names, options, out_of_range};
use crate::error::Result;

/// How the states of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Pooling {
    /// That of the first token.
    Cls,
    /// Their mean.
    Mean,
    /// The largest value of each element.
    Max,
    /// That of the last token.
    Last,
    /// Their mean with weights 1, 2, 3, ...
    WeightedMean,
    /// Their sum, divided by the square root of their number.
    MeanSqrtLen,
}

names!(
    Pooling: Cls = "cls",
    Mean = "mean",
    Max = "max",
    Last = "last",
    WeightedMean = "weighted_mean",
    MeanSqrtLen = "mean_sqrt_len"
);

options! {
    /// How texts become vectors. What is `None` comes from the model's own files (those of sentence-transformers).
    pub struct EmbedOptions {
        /// How the states of a text's tokens become one; must be given for a model that does not say.
        pooling: Option<Pooling> = None,
        /// Whether vectors are scaled to length 1.
        normalize: Option<bool> = None,
        /// Name of the prompt, of those that the model has, to put before each text.
        prompt_name: Option<String> = None,
        /// Text to put before each text, instead of a prompt of the model.
        prompt: Option<String> = None,
        /// Keep this many first elements of each vector, for models that are trained for it (Matryoshka).
        dimensions: Option<u32> = None,
        /// Whether texts that are too long are cut; otherwise they are errors.
        truncate: bool = false,
        /// Whether texts get the tokenizer's special tokens.
        add_special_tokens: bool = true,
    }
}

impl EmbedOptions {
    /// Checks every value that can be checked without a model.
    pub(crate) fn validate(&self) -> Result<()> {
        check_whole("dimensions", self.dimensions)?;
        if self.prompt.is_some() && self.prompt_name.is_some() {
            return Err(out_of_range("prompt", "nothing beside prompt_name", "both"));
        }
        Ok(())
    }
}

options! {
    /// How documents are scored against a query.
    pub struct RerankOptions {
        /// Whether scores are probabilities, `1 / (1 + exp(-logit))`, instead of logits; `None`: as the model's files say, or
        /// else yes.
        sigmoid: Option<bool> = None,
        /// What the query asks for, of models that are told (Qwen3-Reranker); `None`: the model's default.
        instruction: Option<String> = None,
        /// Whether texts that are too long are cut; otherwise they are errors.
        truncate: bool = false,
    }
}

impl RerankOptions {
    /// Checks every value that can be checked without a model.
    pub(crate) fn validate(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn names_are_the_same_everywhere() {
        for pooling in Pooling::ALL {
            assert_eq!(json!(pooling), json!(pooling.name()));
            assert_eq!(pooling.name().parse::<Pooling>().unwrap(), pooling);
        }
        assert!("median".parse::<Pooling>().unwrap_err().message().contains("weighted_mean"));
    }

    #[test]
    fn bad_options_name_themselves() {
        let parse =
            |value: serde_json::Value| EmbedOptions::from_json(value.as_object().unwrap()).unwrap_err();
        for (name, bad) in [
            ("pooling", json!({"pooling": "median"})),
            ("dimensions", json!({"dimensions": 0})),
            ("prompt", json!({"prompt": "a", "prompt_name": "b"})),
        ] {
            let error = parse(bad);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().contains(name), "{error}");
        }
        assert_eq!(parse(json!({"pool": "mean"})).kind(), ErrorKind::UnknownOption);
    }
}
