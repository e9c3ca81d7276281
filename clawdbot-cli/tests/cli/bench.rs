//! `clawdbot bench`

use crate::support::run;

const SMALL: [&str; 9] = ["bench", "--prompt", "24", "--generate", "6", "--depth", "10", "--repeat", "2"];

#[test]
fn json_has_every_figure() {
    let json = run(&[&SMALL[..], &["--json", "--batch", "3", "--threads", "1"]].concat()).json();
    for (key, value) in
        [("batch", 3), ("prompt", 24), ("generate", 6), ("depth", 10), ("repeat", 2), ("threads", 1)]
    {
        assert_eq!(json[key], value, "{key}");
    }
    assert_eq!(json["model"], "builtin");
    assert_eq!((json["weights"].as_str(), json["kv"].as_str()), (Some("int8"), Some("bf16")));
    for key in ["prefill_tokens_per_s", "decode_tokens_per_s", "time_to_first_token"] {
        let samples: Vec<f64> =
            json["samples"][key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!(samples.len(), 2, "{key}");
        assert!(samples.iter().all(|&x| x > 0.0), "{key}: {samples:?}");
        let (min, median, max) = (&json["min"][key], &json[key], &json["max"][key]);
        let middle = (samples[0] + samples[1]) / 2.0;
        assert!((median.as_f64().unwrap() / middle - 1.0).abs() < 1e-12, "{key}");
        assert_eq!(min.as_f64().unwrap(), samples[0].min(samples[1]), "{key}");
        assert_eq!(max.as_f64().unwrap(), samples[0].max(samples[1]), "{key}");
    }
    assert_eq!(json["limits_samples"].as_array().unwrap().len(), 2);
    for key in ["dram_gb_per_s", "int8_gop_per_s", "f32_gflop_per_s"] {
        assert!(json["limits"][key].as_f64().unwrap() > 0.0, "{key}");
    }
    for key in ["prefill_share_of_int8_peak", "decode_share_of_dram", "load_seconds"] {
        assert!(json[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert_eq!(json["peak_rss_bytes"].is_u64(), cfg!(target_os = "linux"));
    assert!(json["kernels"].is_string());
}

#[test]
fn limits_can_be_left_out() {
    let json = run(&[&SMALL[..], &["--json", "--no-limits", "--weights", "bf16"]].concat()).json();
    assert_eq!(json["weights"], "bf16");
    for key in ["limits", "prefill_share_of_int8_peak", "decode_share_of_dram"] {
        assert!(json[key].is_null(), "{key}");
    }
    let table = run(&[&SMALL[..], &["--no-limits"]].concat()).text();
    for words in ["median", "prefill 24", "decode 6", "time to first token", "peak memory"] {
        assert!(table.contains(words), "{words} is not in\n{table}");
    }
    assert!(!table.contains("GB/s"));
}
