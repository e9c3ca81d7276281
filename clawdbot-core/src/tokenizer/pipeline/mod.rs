//! The parts of `tokenizer.json` around its model. They are checked before they are built, so that none panics,
//! multiplies text without bound, or takes memory out of proportion to the file.

mod charsmap;
mod class;
mod cursor;
mod decoder;
mod normalizer;
mod oniguruma;
mod post_processor;
mod pre_tokenizer;
mod regex;
mod steps;
#[cfg(test)]
mod tests;
pub(super) mod work;

#[cfg(test)]
pub(super) use charsmap::tests::b_for_a;
pub(super) use decoder::{Decoder, MAX_STRIP, Step as DecoderStep};
pub(super) use normalizer::{Normalizers, Words};
pub(super) use post_processor::post_processor;
pub(super) use pre_tokenizer::PreTokenizers;
pub(super) use steps::{AT_ONCE, Limits};

/// Checks that searches for `pattern` take linear time.
#[cfg(test)]
pub(super) fn check_linear(pattern: &str) {
    let translated = oniguruma::translate(pattern).unwrap().text;
    regex::tests::check_linear(pattern, &translated);
}
