//! What a model is compared with, and which models can be compared.

use super::report::Reference;
use super::stream::Wished;
use crate::error::{Error, Result};
use crate::load::calibration::{self, BUILTIN, Most, Text, Wanted};
use crate::load::source::{Opened, Source};
use crate::load::weights::Weights;
use crate::options::{EvaluateOptions, ModelOptions, ReferenceType, WeightType};

const OPTION: &str = "reference_model";

/// Refuses a model to compare with where nothing is compared.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn check(options: &EvaluateOptions) -> Result<()> {
    match (&options.reference_model, options.reference) {
        (Some(path), ReferenceType::None) => Err(Error::invalid_argument(format!(
            "option {OPTION}: expected none, as the option reference is none, found {}",
            path.display()
        ))
        .with("option", OPTION)),
        _ => Ok(()),
    }
}

/// Refuses models that predict no tokens.
///
/// # Errors
/// `UnsupportedModel`.
pub(super) fn check_generates(opened: &Opened) -> Result<()> {
    let spec = &opened.spec;
    if spec.generates() {
        return Ok(());
    }
    let (architecture, tasks) = (spec.architecture, spec.tasks().join(" and "));
    let message = format!(
        "{}: expected a model that generates, found {architecture}, which has no output layer and can only {tasks}",
        opened.name
    );
    Err(Error::unsupported_model(message)
        .with("expected", "generate")
        .with("found", spec.tasks())
        .with("architecture", architecture))
}

/// What a model is compared with.
pub(super) struct Other {
    /// None: the model that is evaluated
    opened: Option<Opened>,
    weights: WeightType,
}

impl Other {
    /// The reference of `model`, if there is to be one.
    ///
    /// # Errors
    /// As [`Opened::open`]; `InvalidArgument` for a model that cannot be compared with `model`.
    pub(super) fn open(model: &Opened, text: &Text, options: &EvaluateOptions) -> Result<Option<Self>> {
        let weights = match options.reference {
            ReferenceType::F32 => WeightType::F32,
            ReferenceType::Bf16 => WeightType::Bf16,
            ReferenceType::None => return Ok(None),
        };
        let Some(path) = &options.reference_model else { return Ok(Some(Other { opened: None, weights })) };
        let opened = Opened::open(&Source::Path(path.clone()))
            .map_err(|error| error.context(format_args!("option {OPTION}")).with("option", OPTION))?;
        let sizes = |opened: &Opened| {
            let spec = &opened.spec;
            format!(
                "{} layers, a hidden size of {} and a vocabulary of {}",
                spec.layers.len(),
                spec.hidden_size,
                spec.vocab_size
            )
        };
        let (expected, found) = (sizes(model), sizes(&opened));
        if expected != found || !opened.spec.generates() {
            return Err(refused(&expected, &format!("{found} in {}", opened.name)));
        }
        // Arbitrary tokens are those of the vocabulary.
        if model.text.is_some() {
            let sequences = text.tokens.len() / text.length;
            let wanted = Wanted { option: "text", most: Most::Sequences(sequences), least: 2 };
            let path = options.text.as_deref().unwrap_or(BUILTIN.as_ref());
            let own = calibration::read(&opened, path, wanted)?;
            if own.tokens != text.tokens {
                return Err(refused("a model with the same tokens", &format!("others in {}", opened.name)));
            }
        }
        Ok(Some(Other { opened: Some(opened), weights }))
    }

    /// The model, which may be the one that is evaluated.
    pub(super) fn opened<'a>(&'a self, model: &'a Opened) -> &'a Opened {
        self.opened.as_ref().unwrap_or(model)
    }

    /// As what it is computed.
    pub(super) fn wished(&self) -> Wished {
        let options = ModelOptions::default().weights(self.weights);
        Wished { weights: self.weights, kv: options.kv_type() }
    }

    /// What a report says about it.
    pub(super) fn report(&self, model: &Opened, perplexity: f64) -> Reference {
        let opened = self.opened(model);
        let Wished { weights, kv } = self.wished();
        let quantized = quantized(opened);
        let packed = matches!(opened.weights, Weights::Packed(_));
        let whose = match (&self.opened, packed) {
            (None, true) => "the packed file's own weights".to_owned(),
            (None, false) => "the same weights".to_owned(),
            (Some(opened), _) => format!("the weights of {}", opened.name),
        };
        let dequantized = if quantized { ", dequantized" } else { "" };
        Reference {
            model: opened.name.clone(),
            weights: weights.name(),
            kv: kv.name(),
            dequantized: quantized,
            description: format!("{whose}{dequantized}, in {weights}"),
            perplexity,
        }
    }
}

fn refused(expected: &str, found: &str) -> Error {
    Error::invalid_argument(format!("option {OPTION}: expected {expected}, found {found}"))
        .with("option", OPTION)
        .with("expected", expected)
        .with("found", found)
}

/// Whether some matrices are stored as codes.
fn quantized(opened: &Opened) -> bool {
    match opened.weights.base() {
        Weights::Packed(file) => !["bf16", "f32"].contains(&file.info().weights.as_str()),
        Weights::Files(files) => files.quantization.is_some() || files.source.stored_int8_group().is_some(),
        Weights::Gguf(_) => opened.spec.tensors().matrices().any(|matrix| {
            let format = opened.weights.stored_format(matrix);
            !matches!(format.ok().flatten().as_deref(), Some("F32" | "F16" | "BF16"))
        }),
        Weights::Random | Weights::Merged { .. } => false,
    }
}
