//! The head for multi-token prediction in a model's files.

use super::check::used_tensors;
use super::quantization::FileWeights;
use super::source::Opened;
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::spec::DecoderSpec;
use crate::spec::mtp::{FC, MtpSpec, OWN_EMBEDDING, OWN_LM_HEAD, SECOND_LAYER};
use crate::spec::tensors::LM_HEAD;

/// What the option `speculation` needs for `mtp`.
const NEEDS: &str =
    "mtp needs a directory whose safetensors have a head for multi-token prediction (docs/speculation.md)";

/// Renames the tensors of a head that is stored as a further layer: they get the names that they have in other checkpoints.
///
/// # Errors
/// `InvalidModel` for files with both.
pub(super) fn name_as_others(files: &mut FileWeights, spec: &DecoderSpec) -> Result<()> {
    let first = spec.mtp_as_layer();
    match files.source.tensor(&first).is_some() || files.is_quantized(&first) {
        true => files.source.rename_some(|name| spec.mtp_name(name)),
        false => Ok(()),
    }
}

impl Opened {
    /// The head for multi-token prediction. Its tensors count as used from now on.
    ///
    /// # Errors
    /// `InvalidArgument` for a model without one; `UnsupportedModel` for one of another kind; as `check_tensors`.
    pub(crate) fn mtp(&mut self) -> Result<MtpSpec> {
        let refused = |found: String| {
            let message = format!("option speculation: {NEEDS}, found {found}");
            Error::invalid_argument(message).with("option", "speculation").with("found", found)
        };
        let files = match self.weights.base() {
            Weights::Files(files) => files,
            Weights::Packed(_) => return Err(refused("a packed file, which keeps none".to_owned())),
            Weights::Gguf(_) => return Err(refused("a GGUF file, whose head is not read".to_owned())),
            Weights::Random | Weights::Merged { .. } => return Err(refused("random weights".to_owned())),
        };
        let source = &files.source;
        let mtp = MtpSpec::of(&self.spec, |name| source.tensor(name).is_some());
        let mtp =
            mtp.ok_or_else(|| refused(format!("{}, for which none is read", self.spec.architecture)))?;
        if source.tensor(FC).is_none() && !files.is_quantized(FC) {
            return Err(refused(format!("none in {}", self.name)));
        }
        let unsupported = |expected: &str, found: &str| {
            let message = format!("{}: expected {expected}, found {found}", self.name);
            Err(Error::unsupported_model(message).with("tensor", found))
        };
        if let Some(further) = source.names().find(|name| name.starts_with(SECOND_LAYER)) {
            return unsupported("a head for multi-token prediction with one layer", further);
        }
        let names = mtp.tensors();
        let mut used = used_tensors(names.matrices(), names.vectors(), files)?;
        let embedding = self.spec.embedding_tensor();
        let head = if self.spec.tie_word_embeddings { embedding.as_str() } else { LM_HEAD };
        for (own, model) in [(OWN_EMBEDDING, embedding.as_str()), (OWN_LM_HEAD, head)] {
            if files.is_quantized(own) || source.tensor(own).is_some() && !source.same(own, model)? {
                let expected = format!("a head for multi-token prediction that has {model} of the model");
                return unsupported(&expected, own);
            }
            used.insert(own.to_owned());
        }
        self.unused.retain(|name| !used.contains(name));
        Ok(mtp)
    }
}
