//! What is wrong is said, and the exit code tells usage from failure.

use serde_json::Value;

use crate::support::{command, empty_dir, model_with_template, run, run_with};

/// Fails with exit code `code`; stderr names every one of `words`.
fn fails(args: &[&str], code: i32, words: &[&str]) {
    let run = run(args);
    assert_eq!(run.code, Some(code), "{args:?}: {}", run.stderr);
    assert_eq!(run.stdout, "", "{args:?}");
    assert!(run.stderr.starts_with("error: "), "{args:?}: {}", run.stderr);
    for word in words {
        assert!(run.stderr.contains(word), "{args:?}: {word} is not in {}", run.stderr);
    }
}

#[test]
fn wrong_usage() {
    fails(&["generate", "--max-token", "5"], 2, &["--max-token", "--max-tokens"]);
    fails(
        &["generate", "--max-tokens", "-1"],
        2,
        &["-1", "--max-tokens", "a whole number from 1 to 4294967295"],
    );
    fails(
        &["generate", "--max-tokens", "0"],
        2,
        &["--max-tokens: expected a whole number from 1 to 4294967295, found 0"],
    );
    fails(
        &["generate", "--max-tokens", "many"],
        2,
        &["many", "--max-tokens <N>", "a whole number from 1 to 4294967295"],
    );
    fails(&["generate", "--temperature", "-0.5"], 2, &["temperature", "0 or more", "-0.5"]);
    fails(&["generate", "--temperature", "nan"], 2, &["finite"]);
    fails(&["generate", "--top-p", "1.5"], 2, &["--top-p", "1.5"]);
    fails(&["generate", "--min-p", "1e39"], 2, &["finite"]);
    fails(&["generate", "--stop", ""], 2, &["stop"]);
    fails(&["generate", "--logit-bias", "5:1"], 2, &["ID=BIAS"]);
    fails(&["generate", "--logit-bias", "99999=1"], 2, &["--logit-bias", "99999"]);
    fails(&["generate", "--logprobs", "1"], 2, &["--json"]);
    fails(&["chat", "--template-variable", "thinking"], 2, &["NAME=VALUE"]);
    let twice = ["chat", "--template-variable", "a=1", "--template-variable", "a=2"];
    fails(&twice, 2, &["--template-variable: expected a once"]);
    fails(&["generate", "--weights", "int9"], 2, &["int9", "int8, int4, int4-mixed, bf16, f32"]);
    fails(&["generate", "--kv", "int4"], 2, &["int4", "auto, int8, bf16, f32"]);
    fails(&["generate", "--threads", "0"], 2, &["threads", "1 to 1024"]);
    fails(&["generate", "--kernels", "mmx"], 2, &["mmx", "scalar"]);
    fails(&["generate", "--numa", "near"], 2, &["near", "off, interleave, local"]);
    fails(&["generate", "--memory-budget", "lots"], 2, &["lots", "1.5GiB"]);
    fails(&["generate", "--max-context", "100000"], 2, &["--max-context", "1024", "100000"]);
    fails(&["generate", "--prompt", "a", "--prompt-file", "b"], 2, &["--prompt-file"]);
    fails(&["generate", "--model", "somewhere"], 2, &["--prompt"]);
    fails(&["bench", "--shape", "gpt-5"], 2, &["gpt-5", "llama-3.2-1b"]);
    fails(&["bench", "--model", "x", "--shape", "llama-3.2-1b"], 2, &["--shape"]);
    fails(&["bench", "--batch", "65"], 2, &["--batch: expected at most 64, --max-batch, found 65"]);
    fails(&["bench", "--repeat", "0"], 2, &["a whole number from 1 to 1000"]);
    fails(&["train"], 2, &["train"]);
}

#[test]
fn what_is_not_there() {
    fails(&["generate", "--model", "no/such/dir", "--prompt", "x"], 1, &["no/such/dir"]);
    fails(&["inspect", "no/such/dir"], 1, &["no/such/dir"]);
    let empty = empty_dir("empty");
    fails(&["inspect", empty.to_str().unwrap()], 1, &["config.json", "expected a model directory"]);
    fails(&["generate", "--prompt-file", "no/such/file"], 1, &["no/such/file: No such file or directory\n"]);
    // A packed file is written under another name first, which is nobody's business.
    let builtin = model_with_template("packed-to-nowhere", None);
    let args = ["pack", builtin.to_str().unwrap(), "no/such/dir/m"];
    fails(&args, 1, &["error: no/such/dir/m: "]);
    let dir = model_with_template("without_template", None);
    fails(&["chat", "--model", dir.to_str().unwrap()], 1, &["chat template"]);
}

#[test]
fn what_does_not_fit() {
    fails(&["generate", "--max-tokens", "5000"], 1, &["1024", "5000"]);
    fails(&["generate", "--memory-budget", "1MiB"], 1, &["1048576"]);
    fails(&["bench", "--prompt", "1024"], 1, &["1024", "1025"]);
    let run = run_with(&["generate", "--prompt", "-"], b"\xff\xfe");
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("UTF-8"), "{}", run.stderr);
}

#[test]
fn an_unknown_tier_is_refused() {
    let output = command(&["generate"]).env("CLAWDBOT_ISA", "mmx").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("CLAWDBOT_ISA") && stderr.contains("scalar"), "{stderr}");
}

#[test]
fn errors_in_json() {
    for (args, code, kind, number) in [
        (&["generate", "--json", "--top-p", "7"][..], 2, "InvalidArgument", 1),
        (&["inspect", "--json", "no/such/dir"], 1, "NotFound", 3),
        (&["generate", "--json", "--memory-budget", "1K"], 1, "OutOfBudget", 13),
    ] {
        let run = run(args);
        assert_eq!((run.code, run.stderr.as_str()), (Some(code), ""), "{args:?}");
        let error: Value = serde_json::from_str::<Value>(&run.stdout).unwrap()["error"].take();
        assert_eq!((&error["kind"], &error["code"]), (&kind.into(), &number.into()), "{args:?}");
        assert!(error["message"].is_string() && error["detail"].is_object(), "{error}");
    }
}

#[test]
fn usage_errors_in_json() {
    for (args, kind, option, words) in [
        (&["generate", "--json", "--temp", "1"][..], "UnknownOption", "--temp", "--temperature"),
        (
            &["generate", "--max-tokens", "many", "--json"],
            "InvalidArgument",
            "--max-tokens",
            "a whole number",
        ),
        (&["embed", "--json", "a"], "InvalidArgument", "command line", "--model"),
        (&["generate", "--json", "tell", "me"], "InvalidArgument", "me", "needs quotes"),
        (&["bench", "--json", "--prompt", "a"], "InvalidArgument", "--prompt", "a whole number"),
    ] {
        let run = run(args);
        assert_eq!((run.code, run.stderr.as_str()), (Some(2), ""), "{args:?}");
        let error: Value = serde_json::from_str::<Value>(&run.stdout).unwrap()["error"].take();
        assert_eq!(error["kind"], kind, "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(error["detail"]["option"].as_str().unwrap().starts_with(option), "{error}");
        assert!(
            message.contains(words) && !message.contains("Usage") && !message.contains("error:"),
            "{message}"
        );
    }
    // After `--` it is a text.
    fails(&["generate", "--temp", "--", "--json"], 2, &["--temp"]);
    assert!(run(&["generate", "--json", "--help"]).text().contains("Examples:"));
}

#[test]
fn help_and_version() {
    let version = run(&["--version"]).text();
    assert_eq!(version.trim(), concat!("clawdbot ", env!("CARGO_PKG_VERSION")));
    for command in ["generate", "chat", "inspect", "bench"] {
        assert!(run(&["--help"]).text().contains(command));
        assert!(run(&[command, "--help"]).text().contains("--memory-budget"), "{command}");
    }
}
