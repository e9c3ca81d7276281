//! Text on stdin that nobody asked for: it is not read, and that is said.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Stdio;

use crate::support::{Run, command, empty_dir, run_with};

const WARNING: &str = "warning: ignoring the text on stdin";
const SHORT: [&str; 6] = ["generate", "--temperature", "0", "-n", "4", "--json"];

fn with_stdin(args: &[&str], stdin: impl Into<Stdio>) -> Run {
    command(args).stdin(stdin).output().unwrap().into()
}

#[test]
fn a_text_beside_the_prompt_is_not_ignored_silently() {
    let prompt = [&SHORT[..], &["Summarize"]].concat();
    let piped = run_with(&prompt, b"A long letter\n");
    assert!(piped.stderr.contains(WARNING) && piped.stderr.contains("`-` reads it"), "{}", piped.stderr);
    let silent = with_stdin(&prompt, Stdio::null());
    assert_eq!(silent.stderr, "");
    assert_eq!(silent.json()["token_ids"], piped.json()["token_ids"]);
    let quiet = run_with(&[&prompt[..], &["--quiet"]].concat(), b"A long letter\n");
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
    // The built-in model's own prompt, too.
    assert!(run_with(&SHORT, b"Once").stderr.contains(WARNING));
    assert_eq!(run_with(&[&SHORT[..], &["-"]].concat(), b"Once").stderr, "");
}

#[test]
fn it_is_said_of_files_and_not_where_there_is_nothing() {
    let prompt = [&SHORT[..], &["Summarize"]].concat();
    let path = empty_dir("stdin").join("letter.txt");
    std::fs::write(&path, "A long letter").unwrap();
    let mut file = File::open(&path).unwrap();
    assert!(with_stdin(&prompt, file.try_clone().unwrap()).stderr.contains(WARNING));
    // As after a loop that has read all lines.
    file.seek(SeekFrom::End(0)).unwrap();
    assert_eq!(with_stdin(&prompt, file).stderr, "");
    assert_eq!(run_with(&prompt, b"").stderr, "");
    // A pipe that stays open, as programs leave it to those that they start.
    let mut child = command(&prompt).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(pipe.write_all(b"late").is_err());
    assert_eq!(Run::from(output).stderr, "");
}

#[test]
fn texts_to_embed_and_to_rank_are_treated_the_same() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/tests/golden/embeddings");
    let model = |name: &str| golden.join(name).display().to_string();
    let (bert, score) = (model("bert"), model("bert_score"));
    for args in [&["embed", "-m", &bert, "bread"][..], &["rerank", "-m", &score, "--query", "bread", "water"]]
    {
        let piped = run_with(args, b"more\n");
        assert!(piped.stderr.contains(WARNING) && piped.stderr.contains("--input -"), "{}", piped.stderr);
        assert!(!run_with(args, b"").stderr.contains(WARNING));
    }
}
