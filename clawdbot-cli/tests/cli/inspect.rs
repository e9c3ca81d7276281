//! `clawdbot inspect`

use std::path::Path;
#[cfg(target_os = "linux")]
use std::process::Command;

#[cfg(target_os = "linux")]
use crate::support::Run;
use crate::support::{empty_dir, model_with_template, run};

#[test]
fn json_has_the_plan_and_the_machine() {
    let json = run(&["inspect", "--json"]).json();
    assert_eq!((json["name"].as_str(), json["weights"].as_str()), (Some("builtin"), Some("int8")));
    for key in [
        "parameters",
        "block_parameters",
        "stored_bytes",
        "weights_bytes",
        "weights_bytes_per_pass",
        "kv_bytes_per_token",
        "max_context",
        "kv_bytes_full_context",
        "scratch_bytes",
        "load_bytes",
        "threads",
    ] {
        assert!(json[key].as_u64().is_some_and(|n| n > 0), "{key}: {}", json[key]);
    }
    let tiers = json["available_kernels"].as_array().unwrap();
    assert!(tiers.contains(&json["kernels"]), "{json}");
    assert_eq!(tiers.last().unwrap(), "scalar");
    assert!(json["refused_kernels"].as_array().unwrap().is_empty(), "{json}");
    assert!(json["cpus"]["available"].as_u64().unwrap() >= 1);
    assert!(json["memory_budget"].is_null());
}

#[test]
fn a_tier_can_be_chosen() {
    let json = run(&["inspect", "--kernels", "scalar", "--json"]).json();
    assert_eq!(json["kernels"], "scalar");
    assert!(
        json["kernel_names"].as_array().unwrap().iter().all(|name| name.as_str().unwrap().contains("scalar"))
    );
}

#[test]
fn a_directory_is_described_like_the_model_it_is() {
    let dir = model_with_template("inspected", None);
    let mut copy = run(&["inspect", dir.to_str().unwrap(), "--json"]).json();
    assert_eq!(run(&["inspect", "-m", dir.to_str().unwrap(), "--json"]).json(), copy);
    let builtin = run(&["inspect", "--json"]).json();
    copy["name"] = "builtin".into();
    copy["has_chat_template"] = true.into();
    assert_eq!(copy, builtin);
}

#[test]
fn shapes_cost_nothing_to_look_at() {
    let json = run(&["inspect", "--shape", "llama-3.1-8b", "--weights", "bf16", "--json"]).json();
    assert_eq!(json["parameters"], 8_030_261_248_u64);
    // Embedding and output head are two matrices of 128256 x 4096, and the embedding is looked up.
    let embedding = 128_256 * 4096;
    let vectors = 4096 * (2 * 32 + 1);
    assert_eq!(json["block_parameters"], 8_030_261_248_u64 - 2 * embedding - vectors);
    let unread = json["weights_bytes"].as_u64().unwrap() - json["weights_bytes_per_pass"].as_u64().unwrap();
    assert_eq!(unread, 2 * embedding);
}

#[test]
fn it_says_whether_the_model_fits() {
    let inspect = |more: &[&str]| run(&[&["inspect"], more].concat());
    let json = inspect(&["--json", "--check"]).json();
    assert_eq!((&json["fits"], &json["memory_budget"]), (&true.into(), &().into()));
    let needed = json["load_bytes"].as_u64().unwrap();
    for (budget, code, words) in
        [(needed, 0, ": fits into the budget of"), (needed - 1, 1, "does not fit into the budget of")]
    {
        let budget = budget.to_string();
        let budget = ["--memory-budget", &budget];
        let checked = inspect(&[&["--check", "--json"], &budget[..]].concat());
        assert_eq!(checked.code, Some(code));
        let json: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
        assert_eq!(json["fits"], code == 0);
        // Without --check it is said, and no failure.
        assert!(inspect(&budget).text().contains(words));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_budget_the_memory_of_the_process_counts() {
    let check = |limit: &str, more: &str| -> Run {
        let script =
            format!("ulimit -v {limit}; exec \"$0\" inspect --shape llama-3.1-8b --threads 1 {more}");
        Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_clawdbot")]).output().unwrap().into()
    };
    let small = check("4000000", "--check");
    assert_eq!(small.code, Some(1), "{}", small.stderr);
    assert!(
        small.stdout.contains("no budget is set; does not fit into the memory of 3."),
        "{}",
        small.stdout
    );
    let json = check("4000000", "--json").json();
    assert_eq!(json["fits"], false);
    assert!((3_000_000_000..=4_096_000_000).contains(&json["system_memory"].as_u64().unwrap()), "{json}");
    assert!(run(&["inspect", "--check"]).text().contains("no budget is set; fits into the memory of "));
}

#[test]
fn it_says_whether_it_verified() {
    let packed = empty_dir("verified").join("m");
    let packed = packed.to_str().unwrap();
    run(&["pack", model_with_template("verified-source", None).to_str().unwrap(), packed]).text();
    for (more, verified) in [(&["--verify"][..], true), (&[], false)] {
        assert_eq!(run(&[&["inspect", packed, "--json"], more].concat()).json()["verified"], verified);
        assert_eq!(
            run(&[&["inspect", packed], more].concat()).text().contains("checksum verified"),
            verified
        );
    }
}

#[test]
fn it_says_what_the_model_can_do() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/tests/golden/embeddings");
    let model = |name: &str| golden.join(name).display().to_string();
    let plain = model_with_template("cannot-chat", None).display().to_string();
    for (args, tasks, line) in [
        (&[][..], &["generate", "embed"][..], "generate, chat, embed (with --pooling)"),
        (&[&plain], &["generate", "embed"], "generate, chat (with --chat-template), embed (with --pooling)"),
        (&[&model("bert")], &["embed"], "embed"),
        (&[&model("bert_score")], &["rerank"], "rerank"),
    ] {
        let args: Vec<&str> = args.iter().map(|arg| arg.as_str()).collect();
        assert_eq!(
            run(&[&["inspect", "--json"], &args[..]].concat()).json()["tasks"],
            serde_json::json!(tasks)
        );
        let table = run(&[&["inspect"], &args[..]].concat()).text();
        assert!(table.lines().any(|found| found == format!("{:<13}{line}", "can")), "{table}");
    }
}

#[test]
fn it_says_what_embedding_takes() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/tests/golden/embeddings");
    let inspect = |name: &str| {
        let dir = golden.join(name).display().to_string();
        (run(&["inspect", &dir, "--json"]).json(), run(&["inspect", &dir]).text())
    };
    let (json, table) = inspect("bert");
    let info = &json["embedding"];
    let line = table.lines().find(|line| line.starts_with("texts ")).unwrap();
    for words in [
        format!("{} dimensions, pooling {}", info["dimensions"], info["pooling"].as_str().unwrap()),
        format!("texts of at most {} tokens", info["max_tokens"]),
        "prompts: ".to_owned(),
        info["prompts"][0].as_str().unwrap().to_owned(),
    ] {
        assert!(line.contains(&words), "{words} is not in {line}");
    }
    let (json, table) = inspect("bert_score");
    let line = format!("{:<13}texts of at most {} tokens\n", "texts", json["embedding"]["max_tokens"]);
    assert!(table.contains(&line), "{table}");
    // Made to generate.
    assert!(!run(&["inspect"]).text().contains("texts "));
}

#[test]
fn what_has_no_effect_is_shown() {
    let dir = model_with_template("warned", None);
    std::fs::write(dir.join("generation_config.json"), r#"{"num_beams": 4}"#).unwrap();
    let dir = dir.to_str().unwrap();
    let plan = run(&["inspect", dir, "--json"]).json();
    let warning = plan["warnings"][0].as_str().unwrap();
    assert!(warning.contains("num_beams"), "{warning}");
    assert!(run(&["inspect", dir]).text().contains(&format!("{:<13}{warning}\n", "warning")));
    let loaded = run(&["generate", "-m", dir, "-n", "1", "Once"]).stderr;
    assert!(loaded.contains(&format!("warning: {warning}\n")), "{loaded}");
    assert_eq!(run(&["inspect", "--json"]).json()["warnings"], serde_json::json!([]));
}

#[test]
fn the_table_is_for_people() {
    let table =
        run(&["inspect", "--shape", "qwen2.5-0.5b", "--memory-budget", "2GiB", "--threads", "1"]).text();
    for words in ["Qwen2ForCausalLM", "494.03 M", "as int8", "2.00 GiB", "scalar", "32768 tokens"] {
        assert!(table.contains(words), "{words} is not in\n{table}");
    }
}
