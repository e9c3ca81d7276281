//! Embeds texts and prints their cosines with the first one:
//! `cargo run --release -p clawdbot-core --example embed -- [MODEL [QUERY TEXT...]]`.
#![allow(clippy::print_stdout, reason = "an example prints")]

use clawdbot_core::{EmbedOptions, Model, Prompt, Result};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    // The built-in story model is not an embedding model, but any model can embed.
    let (model, options) = match arguments.next() {
        Some(directory) => (Model::from_pretrained(directory)?, EmbedOptions::default()),
        None => {
            (Model::builtin()?, EmbedOptions::default().pooling(clawdbot_core::Pooling::Mean).normalize(true))
        }
    };
    let mut texts: Vec<String> = arguments.collect();
    if texts.is_empty() {
        texts = ["A cat sat.", "The cat was sitting.", "Rain fell on the sea."].map(str::to_owned).to_vec();
    }
    let found = model.embed(texts.iter().cloned().map(Prompt::Text).collect(), &options)?;
    let vectors: Vec<&[f32]> = found.rows().collect();
    for (text, vector) in texts.iter().zip(&vectors).skip(1) {
        // The dot product of vectors of length 1 is their cosine.
        let cosine: f32 = vector.iter().zip(vectors[0]).map(|(a, b)| a * b).sum();
        println!("{cosine:.4} {text:?}");
    }
    Ok(())
}
