//! `clawdbot evaluate`

use std::path::Path;

use crate::support::{empty_dir, run};

fn evaluate(more: &[&str]) -> crate::support::Run {
    run(&[&["evaluate", "--sequences", "2"], more].concat())
}

#[test]
fn json_has_the_evaluation() {
    let json = evaluate(&["--weights", "int4", "--kv", "int8", "--json"]).json();
    assert_eq!((json["model"].as_str(), json["weights"].as_str()), (Some("builtin"), Some("int4")));
    assert_eq!((json["kv"].as_str(), json["text"].as_str()), (Some("int8"), Some("builtin")));
    assert_eq!(
        (&json["sequences"], &json["tokens"], &json["predicted"]),
        (&2.into(), &1024.into(), &1022.into())
    );
    let reference = &json["reference"];
    assert_eq!((reference["weights"].as_str(), reference["kv"].as_str()), (Some("f32"), Some("f32")));
    assert_eq!(reference["description"], "the same weights, dequantized, in f32");
    assert_eq!((&reference["dequantized"], &reference["model"]), (&true.into(), &"builtin".into()));
    for key in ["perplexity", "kl_divergence", "kl_standard_error", "kl_p99", "tokens_per_s", "seconds"] {
        assert!(json[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {}", json[key]);
    }
    assert!((0.6..1.0).contains(&json["top1_agreement"].as_f64().unwrap()), "{json}");
    let layers = json["layers"].as_array().unwrap();
    assert_eq!((layers.len(), &layers[4]["layer"]), (5, &4.into()));
    assert!(layers[4]["relative_error"].as_f64().unwrap() > layers[1]["relative_error"].as_f64().unwrap());
    assert!(layers[4]["mean_token_error"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_table_is_for_people() {
    let table = evaluate(&["--weights", "int8", "--threads", "1"]).text();
    for words in [
        "model        builtin, int8 weights, bf16 KV cache, ",
        ", 1 thread\ntext         builtin, 2 sequences, 1024 tokens\n",
        "reference    the same weights, dequantized, in f32, f32 KV cache\nperplexity   ",
        " (reference: ",
        "divergence   ",
        " nats (standard error ",
        "same top-1   ",
        "speed        ",
        "\nlayer      all tokens  mean of tokens\n    0        0.0000 %        0.0000 %\n    1 ",
    ] {
        assert!(table.contains(words), "{words:?} is not in\n{table}");
    }
    let alone = evaluate(&["--reference", "none"]).text();
    assert!(alone.contains("\nperplexity   ") && alone.lines().count() == 5, "{alone}");
    // Large figures are explained.
    assert!(alone.lines().last().unwrap().starts_with("The built-in model is a tiny one"), "{alone}");
}

#[test]
fn packed_files_say_what_they_are_compared_with() {
    let dir = empty_dir("evaluated");
    let (file, text) = (dir.join("m"), dir.join("text.txt"));
    let (file, text) = (file.to_str().unwrap(), text.to_str().unwrap());
    std::fs::write(text, "Once upon a time there was a dog. It was big and red.").unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/assets/builtin");
    let source = source.to_str().unwrap();
    run(&["pack", source, file, "--weights", "int4"]).text();
    let own = evaluate(&[file, "--text", text]).text();
    assert!(own.contains("reference    the packed file's own weights, dequantized, in f32, "), "{own}");
    assert!(own.contains(&format!("text         {text}, 1 sequence, ")), "{own}");
    let compared = evaluate(&["-m", file, "--text", text, "--reference-model", source]).text();
    assert!(
        compared.contains(&format!("reference    the weights of {source}, dequantized, in f32")),
        "{compared}"
    );
}

/// What took long to compute is shown, whatever becomes of it.
#[test]
fn a_report_that_cannot_be_stored_is_printed() {
    let dir = empty_dir("not-stored");
    // A name that leaves no room for that of the file which is written first.
    let (file, long) = (dir.join("m"), dir.join("m".repeat(250)));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/assets/builtin");
    run(&["pack", source.to_str().unwrap(), file.to_str().unwrap(), "--weights", "int4"]).text();
    std::fs::rename(&file, &long).unwrap();
    let long = long.to_str().unwrap();
    for json in [&["--json"][..], &[]] {
        let ended = evaluate(&[&[long, "--store", "--reference", "none"], json].concat());
        assert_ne!(ended.code, Some(0), "{}", ended.stderr);
        let expected = if json.is_empty() { "\nperplexity   " } else { "\"perplexity\":" };
        assert!(ended.stdout.contains(expected), "{}", ended.stdout);
        let told = if json.is_empty() { &ended.stderr } else { &ended.stdout };
        assert!(told.contains(if json.is_empty() { "error: " } else { "{\"error\":" }), "{told}");
    }
}

#[test]
fn errors_name_options_and_say_what_was_expected() {
    let dir = empty_dir("not-evaluated");
    let short = dir.join("short.txt");
    std::fs::write(&short, "").unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/tests/golden/embeddings/bert");
    for (args, code, words) in [
        (
            &["--text", short.to_str().unwrap()][..],
            2,
            "--text: expected a text of at least 2 tokens, found 0",
        ),
        (&["--reference", "int8"], 2, "[possible values: f32, bf16, none]"),
        (
            &["--reference", "none", "--reference-model", golden.to_str().unwrap()],
            2,
            "--reference-model: expected none, as --reference is none",
        ),
        (&["--sequences", "0"], 2, "--sequences: expected a whole number from 1 to 4096, found 0"),
        (&["--weight", "int4"], 2, "--weights"),
        (&["--prefill-chunk", "4"], 2, "unexpected argument '--prefill-chunk'"),
        (&["--memory-budget", "1M"], 1, "weights and states of the evaluation need "),
        (
            &[golden.to_str().unwrap()],
            1,
            "expected a model that generates, found BertModel, which has no output layer",
        ),
    ] {
        let run = run(&[&["evaluate"], args].concat());
        assert_eq!(run.code, Some(code), "{}", run.stderr);
        assert!(run.stderr.contains(words), "{words:?} is not in {}", run.stderr);
    }
    let json = run(&["evaluate", golden.to_str().unwrap(), "--json"]);
    let error: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&error["error"]["kind"], &error["error"]["detail"]["expected"]),
        (&"UnsupportedModel".into(), &"generate".into())
    );
}
