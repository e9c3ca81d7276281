//! The memory that an evaluation takes.

use super::scores::rows_at_once;
use super::stream::Stream;
use crate::error::{Error, Result};
use crate::forward::scratch::Scratch;
use crate::runtime::{Reservation, Runtime};

/// Bytes of a token besides its residual streams: what is summed up over rows.
const PER_TOKEN: u64 = 64;

/// Takes what an evaluation needs at most out of the budget.
///
/// # Errors
/// `OutOfBudget`; `InvalidModel` for sizes that overflow.
pub(super) fn reserve(
    runtime: &Runtime,
    model: &Stream<'_>,
    reference: Option<&Stream<'_>>,
) -> Result<Reservation> {
    const PURPOSE: &str = "weights and states of the evaluation";
    let overflow = || Error::invalid_model("sizes overflow");
    let streams: Vec<&Stream<'_>> = reference.into_iter().chain([model]).collect();
    let (mut held, mut layers, mut output, mut pages) = (0_u64, 0_u64, 0_u64, 0_u64);
    let plus = |sum: &mut u64, bytes: Option<u64>| -> Result<()> {
        *sum = bytes.and_then(|bytes| sum.checked_add(bytes)).ok_or_else(overflow)?;
        Ok(())
    };
    for stream in &streams {
        let (spec, tokens) = (stream.spec(), stream.tokens() as u64);
        let hidden = tokens.checked_mul(4 * spec.hidden_size as u64 + PER_TOKEN);
        plus(&mut held, hidden)?;
        plus(&mut held, Some(spec.vectors_bytes()))?;
        plus(&mut pages, stream.passes.cache_bytes())?;
        let [embedding, head] = stream.ends();
        let mut most = stream.packed_bytes(&[embedding])?.ok_or_else(overflow)?;
        for layer in 0..stream.layers() {
            most = most.max(stream.packed_bytes(&stream.of_layer(layer))?.ok_or_else(overflow)?);
        }
        // Rows of the embedding are looked up, of all tokens of a pass.
        plus(&mut most, Some(<Scratch>::bytes(spec, stream.passes.most_tokens(), 0, runtime.threads())?))?;
        layers = layers.max(most);
        plus(&mut output, stream.packed_bytes(&[head])?)?;
        let rows = rows_at_once(spec.vocab_size, stream.tokens());
        plus(&mut output, Some(<Scratch>::bytes(spec, rows, rows, runtime.threads())?))?;
    }
    plus(&mut held, Some(layers.max(output)))?;
    let mut reservation = runtime.budget().reserve(held.saturating_add(pages), PURPOSE)?;
    // The caches reserve their own.
    reservation.resize(held, PURPOSE)?;
    Ok(reservation)
}
