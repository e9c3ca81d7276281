//! int4 codes that make the least error in a product, not in the weights.
//!
//! With inputs `x` of a matrix, the error of a row's outputs is `e H e^T`: `e` are the errors of its weights, and `H` is the
//! mean of `x^T x` ([`Gram`]). Columns are rounded one after another, and what rounding one of them does to the outputs is
//! made up for by the columns that follow:
//!
//! ```text
//! H = U D U^T                              U unit upper triangular           Factors
//! c[j] = w[j] + sum over i < j of e[i] U[i][j]      e[i] = w[i] - rounded[i]
//! rounded[j] = scale * round(c[j] / scale)
//! e H e^T = sum over j of D[j] (c[j] - rounded[j])^2
//! ```
//! The last line is why a group's scale is searched with the weights `D`. Without anything but the diagonal of `H`
//! ([`Factors::diagonal`]), that is rounding to nearest with a search of the scales weighted by the mean squares of inputs.
//!
//! From the papers on GPTQ (<https://arxiv.org/abs/2210.17323>) and QuIP (<https://arxiv.org/abs/2307.13304>), whose
//! formulation of the same feedback this is: it needs no inverse.
//!
//! Columns are taken in the order of the mean squares of their inputs, groups in the order of their sums, so that the largest
//! errors are made up for by most columns. All sums have a fixed order: codes and scales are the same for any number of
//! threads and any ISA.

mod drift;
mod factors;
mod gram;
mod round;
mod rows;
mod slab;

pub use drift::Drift;
pub use factors::Factors;
pub use gram::{Gram, MeanSquares};
pub(super) use round::RoundBlock;
pub use rows::{Aim, CodedRows, Rounding};

/// Columns that are rounded at a time: their feedback goes from weight to weight, that to later blocks by a product.
const BLOCK: usize = 128;

/// Weights that share a scale.
const GROUP: usize = 32;
