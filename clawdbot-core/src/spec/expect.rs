//! Limits of sizes, and the error that names what was expected.

use crate::error::{Error, Result};

/// Most experts (and heads with projections of their own) in all layers together: the names of their tensors take up to
/// 60 MB. Real models stay below.
pub(super) const MAX_EXPERTS: usize = 1 << 15;

/// Largest of the sizes that must be small: products of three sizes of a mixer must not overflow. Real models stay below.
const MAX_SIZE: usize = 1 << 16;

/// An error that names `key`, expected and found, unless `holds`.
pub(super) fn expect(holds: bool, key: &str, expected: &str, found: impl std::fmt::Display) -> Result<()> {
    if holds {
        return Ok(());
    }
    let message = format!("{key}: expected {expected}, found {found}");
    Err(Error::invalid_model(message).with("key", key).with("found", found.to_string()))
}

/// Checks a size that must be small: from 1 to 65,536.
pub(super) fn expect_size(key: &str, size: usize) -> Result<()> {
    let expected = format!("an integer from 1 to {MAX_SIZE}");
    expect(size > 0 && size <= MAX_SIZE, key, &expected, size)
}
