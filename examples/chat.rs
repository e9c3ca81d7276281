//! A conversation on one session: `cargo run --release -p clawdbot-core --example chat -- [DIR]`.
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::io::{BufRead, Write};

use clawdbot_core::{Event, GenerateOptions, Model, Result};
use serde_json::{Map, json};

fn main() -> Result<()> {
    let model = match std::env::args().nth(1) {
        Some(directory) => Model::from_pretrained(directory)?,
        None => Model::builtin()?,
    };
    let options = GenerateOptions::default().max_tokens(200_u32);
    let mut messages = Vec::new();
    for line in std::io::stdin().lock().lines().map_while(std::io::Result::ok) {
        messages.push(json!({"role": "user", "content": line}));
        let prompt = model.render_chat(&json!(messages), None, true, &Map::new())?;
        // The template brings its own special tokens.
        let mut stream = model.stream(prompt, &options.clone().add_special_tokens(false))?;
        while let Some(event) = stream.next_event()? {
            match event {
                Event::Token { text, .. } => print!("{text}"),
                Event::Done(completion) => {
                    messages.push(json!({"role": "assistant", "content": completion.text}));
                    println!();
                }
                _ => {}
            }
            // Nobody can do anything about a closed terminal here.
            let _ = std::io::stdout().flush();
        }
    }
    Ok(())
}
