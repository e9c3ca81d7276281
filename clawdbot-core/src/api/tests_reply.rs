//! Free text with calls in it (`tool_choice` `auto`, `strict` functions): whatever a model writes, the calls that are read
//! follow their schemas.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::reply::Reply;
use crate::constraint::tests::Random;
use crate::constraint::tests_calls::{END, MARKS, tools, valid, vocabulary};
use crate::constraint::{Accepted, Grammar, Guide, Lead, Vocabulary};
use crate::options::GenerateOptions;
use crate::output::{OutputFormats, Piece, output_examples};

/// The functions, one of them strict.
fn strict_tools() -> Value {
    let mut tools = tools();
    tools[1]["function"]["strict"] = Value::Bool(true);
    tools
}

/// An output of at most `most` tokens: tokens of `script` and random ones, wherever they are allowed.
fn write(
    guide: &mut Guide,
    vocabulary: &Vocabulary,
    script: &[&str],
    most: usize,
    random: &mut Random,
) -> String {
    let (mut bytes, mut left) = (Vec::new(), most);
    while left > 0 {
        let tokens = match guide.mask(left).expect("a mask") {
            Some(mask) if random.below(2) == 0 => {
                let allowed: Vec<u32> = mask.ids().collect();
                vec![allowed[random.below(allowed.len())]]
            }
            _ => {
                let text = script[random.below(script.len())];
                vocabulary.tokenizer().encode(text, false.into()).expect("encodes")
            }
        };
        for token in tokens {
            let allowed = left > 0 && guide.mask(left).expect("a mask").is_none_or(|mask| mask.allows(token));
            if !allowed || guide.accept(token, left).expect("allowed") == Accepted::Refused {
                break;
            }
            if token == END {
                return String::from_utf8_lossy(&bytes).into_owned();
            }
            bytes.extend(vocabulary.text_of(token));
            left -= 1;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn calls_in_free_text_follow_their_schemas() {
    let mut random = Random(11);
    for (format, reasoning_format, example) in output_examples() {
        let options = GenerateOptions {
            tool_format: format.to_owned(),
            reasoning_format: reasoning_format.to_owned(),
            ..GenerateOptions::default()
        };
        let reply = Reply::to(Some(&strict_tools()), &options).expect(format);
        let formats = OutputFormats::new(format, reasoning_format).expect("known").expect("formats");
        let source = reply.source.expect("a constraint");
        let calls = source.calls.clone().expect("calls");
        let openings: Vec<&str> = calls.opening.iter().chain(&calls.others).map(|one| one.mark).collect();
        // It calls a function that there is not, and one that there is, with arguments that it has not.
        let wrong = example.replace("f", "look_again").replace("\"a\"", "\"x\"").replace("a=", "x=");
        let mut script: Vec<&str> =
            vec![&example, &wrong, "so ", " ", "\n", "look", "{\"name\": \"stop\"", "x"];
        script.extend(MARKS.iter().chain(&openings).chain(&calls.marks));
        let (mut called, mut said) = (0, 0);
        for special in [true, false] {
            let vocabulary = vocabulary(&calls, special);
            let grammar = Arc::new(Grammar::compile_source(&source, &vocabulary).expect(format));
            for tail in ["<|start|>assistant", "<think>"] {
                let tail = if reasoning_format == "harmony" { "<|start|>assistant" } else { tail };
                for round in 0..12 {
                    let lead = Lead {
                        reasoning: formats.reasoning_marks(tail),
                        free: reply.free.clone(),
                        refused: reply.refused.clone(),
                    };
                    let mut guide = Guide::new(&grammar, &[END], true, lead).expect("a guide");
                    let text = write(&mut guide, &vocabulary, &script, 150 + 20 * round, &mut random);
                    let mut parser = formats.parser(reply.tools.clone(), 0, tail);
                    let mut pieces = parser.push(&text);
                    pieces.extend(parser.finish());
                    for piece in pieces {
                        match piece {
                            Piece::Call(call) => {
                                let arguments: Map<String, Value> =
                                    serde_json::from_str(&call.arguments).expect("JSON");
                                assert!(
                                    valid(&call.name, &arguments),
                                    "{format}, {reasoning_format}: {text:?} {call:?}"
                                );
                                called += 1;
                            }
                            Piece::Text(_) => said += 1,
                            _ => {}
                        }
                    }
                }
            }
        }
        assert!(called > 4 && said > 4, "{format}, {reasoning_format}: {called} calls, {said} texts");
    }
}

#[test]
fn formats_without_a_mark_of_their_own_enforce_too() {
    for format in ["llama3_json", "pythonic", "xlam", "harmony"] {
        let options = GenerateOptions { tool_format: format.to_owned(), ..GenerateOptions::default() };
        let reply = Reply::to(Some(&strict_tools()), &options).expect(format);
        assert!(reply.source.is_some(), "{format}");
        assert_eq!(reply.free.is_none(), format == "harmony", "{format}");
    }
}
