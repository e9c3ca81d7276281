//! `clawdbot pack`, and packed files wherever a model is expected.

use crate::support::{empty_dir, model_with_template, run};

#[test]
fn a_packed_file_is_used_like_a_directory() {
    let dir = model_with_template("packed-source", None);
    let dir = dir.to_str().unwrap();
    let out = empty_dir("packed").join("model.clawdbot");
    let out = out.to_str().unwrap();
    for weights in ["int8", "bf16", "f32"] {
        let json = run(&["pack", dir, out, "--weights", weights, "--overwrite", "--json"]).json();
        assert_eq!((json["path"].as_str(), json["weights"].as_str()), (Some(out), Some(weights)));
        assert_eq!(json["bytes"], std::fs::metadata(out).unwrap().len());
        let plan = run(&["inspect", out, "--verify", "--json"]).json();
        assert_eq!((plan["weights"].as_str(), &plan["packed"]), (Some(weights), &true.into()));
        let options = ["--seed", "5", "--max-tokens", "16", "--quiet", "--prompt", "The"];
        let packed = run(&[&["generate", "--model", out], &options[..]].concat()).text();
        let read = run(&[&["generate", "--model", out, "--mmap", "false"], &options[..]].concat()).text();
        let source =
            run(&[&["generate", "--model", dir, "--weights", weights], &options[..]].concat()).text();
        assert_eq!((&packed, &read), (&source, &source));
        let bench = ["bench", "--model", out, "--prompt", "8", "--generate", "2", "--no-limits", "--json"];
        assert_eq!(run(&bench).json()["weights"], weights);
    }
    assert!(run(&["inspect", out]).text().contains("in a packed file"));
}

#[test]
fn the_built_in_model_has_a_name() {
    let out = empty_dir("packed-builtin").join("model.clawdbot");
    let out = out.to_str().unwrap();
    run(&["pack", "builtin", out]).text();
    let options = ["--seed", "5", "--max-tokens", "16", "--quiet", "--prompt", "The"];
    let texts = [&["--model", out][..], &["--model", "builtin"], &[]]
        .map(|model| run(&[&["generate"], model, &options[..]].concat()).text());
    assert!(texts[0] == texts[2] && texts[1] == texts[2], "{texts:?}");
    let refused = run(&["inspect", "builtin", "--revision", "main"]);
    assert!(refused.stderr.contains("expected with a model OWNER/NAME"), "{}", refused.stderr);
}

#[test]
fn calibrated_weights_are_said_and_refused() {
    let dir = model_with_template("calibrated-source", None);
    let dir = dir.to_str().unwrap();
    let own = empty_dir("calibrated");
    let (out, short, text) = (own.join("model.clawdbot"), own.join("short.txt"), own.join("text.txt"));
    let (out, short, text) = (out.to_str().unwrap(), short.to_str().unwrap(), text.to_str().unwrap());
    std::fs::write(short, "Once upon a time").unwrap();
    std::fs::write(text, "Once upon a time there was a dog. It was big and red. ".repeat(400)).unwrap();
    let pack =
        |weights: &'static str, text| run(&["pack", dir, out, "--weights", weights, "--calibrate", text]);
    for (weights, text, words) in [
        ("int8", text, "--calibrate: expected weights int4 or int4-mixed, found int8"),
        ("int4", short, "--calibrate: expected a text of at least 4096 tokens, found "),
    ] {
        let refused = pack(weights, text);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    let done = pack("int4-mixed", text).text();
    assert!(done.contains("int4-mixed weights, packed in"), "{done}");
    let plan = run(&["inspect", out]).text();
    assert!(plan.contains(
        "as int4-mixed (int8: embedding, output layer, first and last down projection), calibrated on "
    ));
    assert!(run(&["inspect", out, "--json"]).json()["calibrated_tokens"].as_u64().unwrap() >= 4096);
}

#[test]
fn the_text_of_a_calibration_may_be_the_built_in_one() {
    let dir = model_with_template("calibrated-builtin-source", None);
    let dir = dir.to_str().unwrap();
    let own = empty_dir("calibrated-builtin");
    let (out, text) = (own.join("model.clawdbot"), own.join("text.txt"));
    let (out, text) = (out.to_str().unwrap(), text.to_str().unwrap());
    let builtin = include_str!("../../../clawdbot-core/assets/calibration/text.txt");
    std::fs::write(text, builtin).unwrap();
    let pack = |text| {
        run(&["pack", dir, out, "--weights", "int4", "--calibrate", text, "--overwrite"]).text();
        std::fs::read(out).unwrap()
    };
    assert!(pack("builtin") == pack(text));
    let tokens = run(&["inspect", out, "--json"]).json()["calibrated_tokens"].as_u64().unwrap();
    assert!(tokens > 16_000, "{tokens}");
    let written = run(&["generate", "--model", out, "--prompt", "Once upon a time", "--max-tokens", "16"]);
    assert!(!written.text().is_empty());
}

#[test]
fn files_are_kept_unless_told() {
    let dir = empty_dir("kept");
    let out = dir.join("m");
    std::fs::write(&out, "mine").unwrap();
    let source = model_with_template("kept-source", None);
    let args = ["pack", source.to_str().unwrap(), out.to_str().unwrap()];
    let refused = run(&args);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("overwrite"), "{}", refused.stderr);
    assert_eq!(std::fs::read(&out).unwrap(), b"mine");
    let done = run(&[&args[..], &["--overwrite"]].concat()).text();
    assert!(done.contains("int8 weights, packed in"), "{done}");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(run(&["pack", "one", "--weights", "int9"]).code, Some(2));
    for (args, words) in [
        (&["pack", "one"][..], "clawdbot pack MODEL FILE), found one\n"),
        (
            &["pack", "one", "two", "--shape", "qwen2.5-0.5b"],
            "--shape qwen2.5-0.5b is the model: expected only the file to write after it, found one and two\n",
        ),
    ] {
        let run = run(args);
        assert_eq!(run.code, Some(2));
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
}

#[test]
fn a_changed_file_is_found() {
    let out = empty_dir("changed").join("m");
    let source = model_with_template("changed-source", None);
    run(&["pack", source.to_str().unwrap(), out.to_str().unwrap()]).text();
    let mut bytes = std::fs::read(&out).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&out, bytes).unwrap();
    let path = out.to_str().unwrap();
    run(&["inspect", path]).text();
    let refused = run(&["inspect", path, "--verify"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("SHA-256"), "{}", refused.stderr);
}
