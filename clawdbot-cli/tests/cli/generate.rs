//! `clawdbot generate`

use serde_json::json;

use crate::support::{command, empty_dir, model_with_template, run, run_with};

#[test]
fn a_seed_gives_the_same_text_every_time() {
    let args = ["generate", "--seed", "7", "--temperature", "1", "--max-tokens", "40"];
    let text = run(&args).text();
    assert!(!text.is_empty());
    assert_eq!(run(&args).text(), text);
    let other = run(&["generate", "--seed", "8", "--temperature", "1", "--max-tokens", "40"]).text();
    assert_ne!(other, text);
}

#[test]
fn quiet_text_and_json_text_are_the_same() {
    let args = ["generate", "--temperature", "0", "--max-tokens", "30", "--prompt", "The little dog"];
    let quiet = run(&[&args[..], &["--quiet"]].concat());
    assert_eq!(quiet.stderr, "");
    let plain = run(&args);
    assert!(plain.stderr.contains("tokens/s") && plain.stderr.contains("length"), "{}", plain.stderr);
    assert_eq!(plain.stdout, quiet.stdout);
    let json = run(&[&args[..], &["--json", "--logprobs", "2"]].concat()).json();
    assert_eq!(json["text"], quiet.stdout);
    assert_eq!(json["model"], "builtin");
    assert_eq!(json["finish_reason"], "length");
    assert_eq!(json["token_ids"].as_array().unwrap().len(), 30);
    assert_eq!(json["usage"]["completion_tokens"], 30);
    assert_eq!(json["options"]["max_tokens"], 30);
    assert_eq!(json["options"]["temperature"], 0.0);
    let logprobs = json["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), 30);
    // Greedy takes the most likely token.
    for key in ["id", "logprob"] {
        assert_eq!(logprobs[0][key], logprobs[0]["top"][0][key]);
    }
    assert_eq!(logprobs[0]["top"].as_array().unwrap().len(), 2);
    for key in ["prefill_tokens_per_s", "decode_tokens_per_s", "time_to_first_token"] {
        assert!(json["usage"][key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert_eq!(json["peak_rss_bytes"].is_u64(), cfg!(target_os = "linux"));
    assert!(json["threads"].as_u64().unwrap() >= 1 && json["kernels"].is_string());
}

#[test]
fn options_change_what_is_computed() {
    let base = ["generate", "--temperature", "0", "--max-tokens", "8", "--json"];
    let with = |more: &[&str]| run(&[&base[..], more].concat()).json();
    let plain = with(&[]);
    assert_eq!(with(&["--threads", "1", "--prefill-chunk", "2"])["token_ids"], plain["token_ids"]);
    let first = plain["token_ids"][0].as_u64().unwrap();
    let banned = with(&["--logit-bias", &format!("{first}=-1000")]);
    assert_ne!(banned["token_ids"][0], first);
    let stopped = with(&["--stop-token-ids", &first.to_string()]);
    assert_eq!((&stopped["finish_reason"], &stopped["text"]), (&json!("stop"), &json!("")));
    let precise =
        with(&["--weights", "f32", "--kv", "f32", "--memory-budget", "1GiB", "--max-context", "100"]);
    assert_eq!((&precise["weights"], &precise["kv"]), (&json!("f32"), &json!("f32")));
}

#[test]
fn beams_and_several_completions_are_printed_when_they_are_all_there() {
    let args = ["generate", "--temperature", "0", "--max-tokens", "8", "--quiet"];
    let texts = |more: &[&str]| run(&[&args[..], more].concat()).text();
    let json = |more: &[&str]| run(&[&args[..], &["--json"], more].concat()).json();
    let best = json(&["--num-beams", "3", "--n", "2"]);
    let other = &best["alternatives"][0]["text"];
    assert_eq!(best["options"]["num_beams"], 3);
    assert_ne!(best["text"], *other);
    let expected = format!("{}\n\n{}", best["text"].as_str().unwrap(), other.as_str().unwrap());
    assert_eq!(texts(&["--num-beams", "3", "--n", "2"]), expected);
    let error = run(&[&args[..], &["--num-beams", "2", "--n", "3"]].concat());
    assert_eq!(error.code, Some(2));
    assert!(error.stderr.contains("--n: expected at most num_beams, 2"), "{}", error.stderr);
}

#[test]
fn stop_texts_end_the_text() {
    let args = ["generate", "--temperature", "0", "--max-tokens", "60", "--json"];
    let text = run(&args).json()["text"].as_str().unwrap().to_owned();
    let stop: String = text.chars().skip(text.chars().count() / 2).take(3).collect();
    let found = run(&[&args[..], &["--stop", "never written", "--stop", &stop]].concat()).json();
    assert_eq!(found["text"], text[..text.find(&stop).unwrap()]);
    assert_eq!(found["finish_reason"], "stop");
}

#[test]
fn prompts_come_from_files_and_stdin() {
    let base = ["generate", "--temperature", "0", "--max-tokens", "12", "--quiet"];
    let with = |more: &[&str], input: &str| run_with(&[&base[..], more].concat(), input.as_bytes()).text();
    let prompt = "A little cat ran to";
    let expected = with(&["--prompt", prompt], "");
    let file = empty_dir("prompt").join("prompt.txt");
    std::fs::write(&file, prompt).unwrap();
    assert_eq!(with(&["--prompt-file", file.to_str().unwrap()], ""), expected);
    assert_eq!(with(&["--prompt-file", "-"], prompt), expected);
    assert_eq!(with(&["--prompt", "-"], prompt), expected);
    assert_eq!(with(&[], ""), with(&["--prompt", "Once upon a time"], ""));
}

#[test]
fn without_a_limit_it_ends_by_itself() {
    let json = run(&["generate", "--seed", "3", "--ignore-eos", "--max-context", "64", "--json"]).json();
    assert_eq!(json["finish_reason"], "length");
    let usage = &json["usage"];
    let tokens = usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(tokens, 64);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    use std::io::Read;
    let mut child = command(&["generate", "--seed", "1", "--ignore-eos", "--quiet"]).spawn().unwrap();
    let mut first = [0; 10];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn warnings_of_the_library_are_shown() {
    let dir = model_with_template("greedy", None);
    std::fs::write(dir.join("generation_config.json"), r#"{"do_sample": false}"#).unwrap();
    let args = ["generate", "-m", dir.to_str().unwrap(), "-n", "2", "--top-p", "0.9", "Once"];
    let plain = run(&args);
    assert!(
        plain.stderr.contains("warning: ") && plain.stderr.contains("temperature is 0"),
        "{}",
        plain.stderr
    );
    let quiet = run(&[&args[..], &["--quiet"]].concat());
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
}
