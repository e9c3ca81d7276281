//! Generates from a prompt and prints the text as it arrives:
//! `cargo run --release -p clawdbot-core --example generate -- [PROMPT [MODEL]]`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::io::Write;

use clawdbot_core::{Event, GenerateOptions, Model, Result};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let prompt = arguments.next().unwrap_or_else(|| "Once upon a time".to_owned());
    let model = match arguments.next() {
        Some(directory) => Model::from_pretrained(directory)?,
        None => Model::builtin()?,
    };
    let options = GenerateOptions::default().max_tokens(80_u32).temperature(0.0);
    for event in model.stream(prompt, &options)? {
        match event? {
            Event::Token { text, .. } => {
                print!("{text}");
                // A closed terminal is not our concern.
                let _ = std::io::stdout().flush();
            }
            Event::Done(completion) => {
                println!();
                eprintln!("{:.0} tokens per second", completion.usage.decode_tokens_per_s());
            }
            _ => {}
        }
    }
    Ok(())
}
