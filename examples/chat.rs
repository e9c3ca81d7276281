//! A conversation on stdin, one message per line. The session keeps its state, so each turn computes only the new tokens:
//! `cargo run --release -p clawdbot-core --example chat -- [MODEL]`.
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::io::{BufRead, Write};

use clawdbot_core::{Chat, Event, GenerateOptions, Model, Result};
use serde_json::json;

fn main() -> Result<()> {
    let model = match std::env::args().nth(1) {
        Some(directory) => Model::from_pretrained(directory)?,
        None => Model::builtin()?,
    };
    let options = GenerateOptions::default().max_tokens(200_u32);
    let mut session = model.session()?;
    let mut messages = Vec::new();
    for line in std::io::stdin().lock().lines().map_while(std::io::Result::ok) {
        messages.push(json!({"role": "user", "content": line}));
        let mut stream = session.chat_stream(&Chat::new(messages.clone()), &options)?;
        while let Some(event) = stream.next_event()? {
            match event {
                Event::Token { text, .. } => print!("{text}"),
                Event::Done(completion) => {
                    messages.push(json!({"role": "assistant", "content": completion.text}));
                    println!();
                }
                _ => {}
            }
            // A closed terminal is not our concern.
            let _ = std::io::stdout().flush();
        }
    }
    Ok(())
}
