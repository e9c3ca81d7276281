//! How texts become vectors and scores.

use serde::{Deserialize, Serialize};

use super::declare::{names, options, whole};
use super::spec::{OptionType, out_of_range};
use crate::error::Result;

/// How the hidden states of a text's tokens become one vector.
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
    /// How to turn texts into vectors. Options that are not given come from the model's own files.
    pub struct EmbedOptions for "embedding", checked by one_prompt {
        /// How to combine the hidden states of a text's tokens into one vector. Required if the model does not say.
        pooling: Option<Pooling> = None, "the model's";
        /// Scale vectors to length 1.
        normalize: Option<bool> = None, "the model's";
        /// Name of one of the model's prompts, which is put before each text.
        prompt_name: Option<String> [OptionType::Name] = None, "the model's default prompt, if it has one";
        /// Text that is put before each text, instead of one of the model's prompts.
        prompt: Option<String> = None, "as `prompt_name` says";
        /// Keep only this many leading elements of each vector, for models trained for it (Matryoshka).
        dimensions: Option<u32> [whole(1, u32::MAX)] = None, "all";
        /// Cut texts that are too long. Otherwise they are errors.
        truncate: bool = false;
        /// Add the tokenizer's special tokens to each text.
        add_special_tokens: bool = true;
    }
}

fn one_prompt(options: &EmbedOptions) -> Result<()> {
    match (&options.prompt, &options.prompt_name) {
        (Some(_), Some(_)) => Err(out_of_range("prompt", "no prompt_name with it", "both")),
        _ => Ok(()),
    }
}

options! {
    /// How to score documents against a query.
    pub struct RerankOptions for "reranking" {
        /// Give scores as probabilities, `1 / (1 + exp(-logit))`, instead of logits.
        sigmoid: Option<bool> = None, "the model's, or true";
        /// What makes a document a good answer to the query, for models that take an instruction (Qwen3-Reranker).
        instruction: Option<String> = None, "the model's";
        /// Cut texts that are too long. Otherwise they are errors.
        truncate: bool = false;
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
