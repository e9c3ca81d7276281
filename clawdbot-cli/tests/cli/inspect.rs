//! `clawdbot inspect`

use crate::support::{model_with_template, run};

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
    let builtin = run(&["inspect", "--json"]).json();
    copy["name"] = "builtin".into();
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
fn the_table_is_for_people() {
    let table =
        run(&["inspect", "--shape", "qwen2.5-0.5b", "--memory-budget", "2GiB", "--threads", "1"]).text();
    for words in ["Qwen2ForCausalLM", "494.03 M", "as int8", "2.00 GiB", "scalar", "32768 tokens"] {
        assert!(table.contains(words), "{words} is not in\n{table}");
    }
}
