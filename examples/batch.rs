//! Reads prompts from stdin, one per line, and generates for all of them in one batch:
//! `cargo run --release -p clawdbot-core --example batch -- [MODEL] < prompts.txt`.
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::io::BufRead;

use clawdbot_core::{GenerateOptions, Model, Prompt, Result};

fn main() -> Result<()> {
    let model = match std::env::args().nth(1) {
        Some(directory) => Model::from_pretrained(directory)?,
        None => Model::builtin()?,
    };
    let lines = std::io::stdin().lock().lines().map_while(std::io::Result::ok);
    let prompts: Vec<String> = lines.filter(|line| !line.trim().is_empty()).collect();
    let options = GenerateOptions::default().max_tokens(50_u32).seed(0);
    let completions = model.generate_batch(prompts.iter().cloned().map(Prompt::Text).collect(), &options);
    for (prompt, completion) in prompts.iter().zip(completions) {
        let completion = completion?;
        println!("{prompt:?} -> {:?} ({})", completion.text, completion.finish_reason.name());
    }
    Ok(())
}
