//! Rotary frequencies compared with the published formulas; errors.

use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;

fn parse(config: Value, head_dim: usize) -> Result<RopeSpec> {
    let config = ModelConfig::parse(config.to_string().as_bytes(), "config.json").unwrap();
    RopeSpec::parse(&config, head_dim, RopeDefaults::LLAMA)
}

/// Expected values: the formulas in Python's doubles, printed with nine digits.
fn assert_freqs(rope: &RopeSpec, expected: &[(usize, f64)]) {
    assert_eq!(rope.inv_freq.len() * 2, rope.rotary_dim);
    for &(i, expected) in expected {
        let found = f64::from(rope.inv_freq[i]);
        assert!((found - expected).abs() <= 1e-7 * expected, "{i}: {found} instead of {expected}");
    }
}

fn numbered(values: &[f64]) -> Vec<(usize, f64)> {
    values.iter().copied().enumerate().collect()
}

#[test]
fn default_and_linear() {
    let expected = [1.0, 0.316227766, 0.1, 0.0316227766, 0.01, 0.00316227766, 0.001, 0.000316227766];
    for config in [
        json!({}),
        json!({"rope_theta": 10000}),
        json!({"rope_scaling": null}),
        json!({
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    ] {
        let rope = parse(config, 16).unwrap();
        assert_freqs(&rope, &numbered(&expected));
        assert_eq!((rope.attention_scaling, rope.rotary_dim), (1.0, 16));
    }
    let linear = parse(json!({"rope_scaling": {"type": "linear", "factor": 4}}), 16).unwrap();
    assert_freqs(&linear, &numbered(&expected.map(|freq| freq / 4.0)));
    assert_eq!(linear.attention_scaling, 1.0);
}

#[test]
fn llama3() {
    let mut scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
    let rope = parse(json!({"rope_theta": 500000.0, "rope_scaling": scaling}), 24).unwrap();
    let expected = [
        1.0,
        0.277632774,
        0.0187231963,
        0.00470075387,
        0.00157490131,
        0.000527641781,
        0.000176776695,
        5.92257875e-05,
        1.98425131e-05,
        6.64786987e-06,
        2.2272468e-06,
        7.46198163e-07,
    ];
    assert_freqs(&rope, &numbered(&expected));
    // Without a ramp: wavelengths of 6.3, 18.8 and 56, then 167 and more.
    let step = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0,
        "original_max_position_embeddings": 64});
    let stepped = parse(json!({"rope_theta": 500000.0, "rope_scaling": step}), 24).unwrap();
    let plain = parse(json!({"rope_theta": 500000.0}), 24).unwrap();
    for (i, (found, freq)) in stepped.inv_freq.iter().zip(&plain.inv_freq).enumerate() {
        assert_eq!(*found, if i < 3 { *freq } else { freq / 8.0 }, "{i}");
    }
    // The published model's values.
    scaling["original_max_position_embeddings"] = json!(8192);
    let rope = parse(json!({"rope_theta": 500000.0, "rope_scaling": scaling}), 128).unwrap();
    assert_freqs(
        &rope,
        &[
            (0, 1.0),
            (20, 0.0165604401),
            (28, 0.00321144599),
            (30, 0.00137189357),
            (32, 0.000524846161),
            (36, 7.78465527e-05),
            (63, 3.06892599e-07),
        ],
    );
}

#[test]
fn yarn() {
    let rope = parse(
        json!({"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
            "original_max_position_embeddings": 64}}),
        16,
    )
    .unwrap();
    let expected = [1.0, 0.237170825, 0.05, 0.00790569415, 0.0025, 0.000790569415, 0.00025, 7.90569415e-05];
    assert_freqs(&rope, &numbered(&expected));
    assert_eq!(rope.attention_scaling, 1.138_629_4);

    let qwen = json!({"rope_theta": 1000000.0, "max_position_embeddings": 131072,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}});
    let expected =
        [(0, 1.0), (20, 0.0133352143), (24, 0.00537532149), (32, 0.000602941176), (63, 3.1023444e-07)];
    assert_freqs(&parse(qwen, 128).unwrap(), &expected);

    let untruncated = json!({"rope_parameters": {"rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0,
        "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false, "original_max_position_embeddings": 4096}});
    let rope = parse(untruncated, 64).unwrap();
    let expected = [1.0, 0.225418, 0.0508132748, 0.00679495949, 0.000456483919, 1.81883367e-05];
    let expected: Vec<_> = expected.iter().enumerate().map(|(i, &freq)| (4 * i, freq)).collect();
    for (i, freq) in expected {
        assert!((f64::from(rope.inv_freq[i]) - freq).abs() < 1e-6 * freq, "{i}");
    }
    assert_eq!(rope.attention_scaling, 1.346_573_6);
}

#[test]
fn longrope() {
    let scaling = |name: &str| json!({"type": name, "short_factor": [1.0, 1.0, 2.0, 4.0], "long_factor": [1.0, 2.0, 4.0, 8]});
    let config = |name| {
        json!({"rope_theta": 10000.0, "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096, "rope_scaling": scaling(name)})
    };
    let rope = parse(config("longrope"), 8).unwrap();
    assert_freqs(&rope, &numbered(&[1.0, 0.1, 0.005, 0.00025]));
    // sqrt(1 + ln(32) / ln(4096))
    assert!((rope.attention_scaling - 1.190_238_1).abs() < 1e-6);
    let long = rope.long.as_ref().unwrap();
    assert_eq!((long.from, long.inv_freq.as_slice()), (4096, &[1.0, 0.05, 0.0025, 0.000_125][..]));
    assert_eq!(
        (rope.inv_freq(4096), rope.inv_freq(4097)),
        (rope.inv_freq.as_slice(), long.inv_freq.as_slice())
    );
    assert_eq!(parse(config("su"), 8).unwrap(), rope);
    let mut new = scaling("x");
    new["rope_type"] = json!("longrope");
    new["rope_theta"] = json!(10000.0);
    new["factor"] = json!(32.0);
    new["original_max_position_embeddings"] = json!(4096);
    new.as_object_mut().unwrap().remove("type");
    assert_eq!(parse(json!({"rope_parameters": new}), 8).unwrap(), rope);
    for bad in [json!([1.0, 1.0]), json!([1, 1, 1, 0]), json!(null)] {
        let mut config = config("longrope");
        config["rope_scaling"]["long_factor"] = bad;
        let error = parse(config, 8).unwrap_err();
        assert!(error.message().contains("rope_scaling.long_factor: expected 4 numbers"), "{error}");
    }
}

#[test]
fn partial_and_nested_settings() {
    let parse = |config: Value, defaults: RopeDefaults| {
        let config = ModelConfig::parse(config.to_string().as_bytes(), "config.json").unwrap();
        RopeSpec::parse(&config, 32, defaults)
    };
    let half = RopeDefaults { theta: 5e5, partial: Some(0.5), extras: Extras::NONE };
    let rope = parse(json!({}), half).unwrap();
    assert_eq!((rope.rotary_dim, rope.inv_freq.len()), (16, 8));
    assert!((f64::from(rope.inv_freq[1]) - 1.0 / 5e5_f64.powf(0.125)).abs() < 1e-7);
    assert_eq!(parse(json!({"partial_rotary_factor": 0.25}), half).unwrap().rotary_dim, 8);
    for bad in [0.0, 1.5, 0.01, 0.1] {
        let error = parse(json!({"partial_rotary_factor": bad}), half).unwrap_err();
        assert!(error.message().contains("partial_rotary_factor"), "{error}");
    }
    let layer = |layer_type, theta_key, default_theta, scaled| LayerRope {
        layer_type,
        theta_key,
        default_theta,
        scaled,
        extras: Extras::NONE,
    };
    let (global, local) = (
        layer("full_attention", "rope_theta", 1e6, true),
        layer("sliding_attention", "rope_local_base_freq", 1e4, false),
    );
    let of = |config: &Value, layer: &LayerRope| {
        let config = ModelConfig::parse(config.to_string().as_bytes(), "config.json").unwrap();
        RopeSpec::parse_layers(&config, 16, layer)
    };
    let new = json!({"rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}});
    let old = json!({"rope_theta": 1e6, "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    for layer in [&global, &local] {
        assert_eq!(of(&new, layer).unwrap(), of(&old, layer).unwrap());
    }
    assert!((f64::from(of(&new, &global).unwrap().inv_freq[0]) - 0.125).abs() < 1e-7);
    assert_eq!(of(&json!({}), &local).unwrap(), of(&new, &local).unwrap());
    let unknown = json!({"rope_parameters": {"chunked_attention": {}}});
    assert!(of(&unknown, &local).unwrap_err().message().contains("chunked_attention"));
}

#[test]
fn yarns_attention_factor() {
    let scaling = |extra: Value| {
        let mut yarn = json!({"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096});
        for (key, value) in extra.as_object().unwrap() {
            yarn[key] = value.clone();
        }
        parse(json!({"rope_scaling": yarn}), 64).unwrap().attention_scaling
    };
    assert_eq!(scaling(json!({"mscale": 1.0, "mscale_all_dim": 0.5})), 1.155_722);
    assert_eq!(scaling(json!({"mscale": 1.0, "mscale_all_dim": 1.0})), 1.0);
    assert_eq!(scaling(json!({"mscale": 1.0, "mscale_all_dim": 0})), scaling(json!({})));
    assert_eq!(scaling(json!({"attention_factor": 0.75, "mscale": 1.0, "mscale_all_dim": 0.5})), 0.75);
}

#[test]
fn the_original_length_defaults_to_the_context() {
    let yarn = |config: Value| parse(config, 64).unwrap();
    let nested = json!({"type": "yarn", "factor": 2, "original_max_position_embeddings": 512});
    let expected = yarn(json!({"rope_scaling": nested}));
    let short = json!({"type": "yarn", "factor": 2});
    assert_eq!(yarn(json!({"rope_scaling": short, "max_position_embeddings": 512})), expected);
    let top =
        json!({"rope_scaling": short, "max_position_embeddings": 9, "original_max_position_embeddings": 512});
    assert_eq!(yarn(top), expected);
}

#[test]
fn contradictions_and_unknowns_are_refused() {
    let refused = |config: Value, kind, parts: &[&str]| {
        let error = parse(config, 16).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        for part in parts {
            assert!(error.message().contains(part), "{part:?} is not in: {error}");
        }
    };
    let unread = json!({"type": "linear", "factor": 2, "beta_fast": null});
    assert!(parse(json!({"rope_scaling": unread}), 16).is_ok());
    let (invalid, unsupported) = (ErrorKind::InvalidModel, ErrorKind::UnsupportedModel);
    let new = json!({"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0});
    let old = json!({"type": "linear", "factor": 2.0});
    let same = json!({"rope_parameters": new, "rope_scaling": old, "rope_theta": 500});
    assert_eq!(parse(same, 16).unwrap(), parse(json!({"rope_parameters": new}), 16).unwrap());
    refused(json!({"rope_parameters": new, "rope_theta": 600.0}), invalid, &["rope_theta", "500", "600"]);
    let other = json!({"type": "linear", "factor": 3.0});
    refused(
        json!({"rope_parameters": new, "rope_scaling": other}),
        invalid,
        &["rope_scaling.factor", "2", "3"],
    );
    let other = json!({"type": "yarn", "factor": 2.0});
    refused(
        json!({"rope_parameters": new, "rope_scaling": other}),
        invalid,
        &["rope_scaling.type", "linear"],
    );
    let both = json!({"type": "yarn", "rope_type": "linear", "factor": 2.0});
    refused(json!({"rope_scaling": both}), invalid, &["rope_scaling.type", "linear", "yarn"]);

    for name in ["dynamic", "proportional", ""] {
        let supported = "default, linear, llama3, yarn, longrope";
        refused(json!({"rope_scaling": {"type": name, "factor": 2}}), unsupported, &[name, supported]);
    }
    let partial = json!({"rope_type": "default", "partial_rotary_factor": 0.5});
    refused(json!({"rope_parameters": partial}), unsupported, &["rope_parameters.partial_rotary_factor"]);

    refused(json!({"rope_scaling": 2}), invalid, &["rope_scaling", "an object or null, found 2"]);
    refused(json!({"rope_scaling": {"type": "linear"}}), invalid, &["rope_scaling.factor", "found nothing"]);
    refused(
        json!({"rope_scaling": {"type": "linear", "factor": 0.5}}),
        invalid,
        &["factor", ">= 1, found 0.5"],
    );
    refused(
        json!({"rope_scaling": {"type": 3}}),
        invalid,
        &["rope_scaling.type: expected a string, found 3"],
    );
    for theta in [json!(0), json!(1), json!(-5), json!("10000")] {
        refused(json!({"rope_theta": theta}), invalid, &["rope_theta", &theta.to_string()]);
    }
    let llama3 = json!({"type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 3,
        "original_max_position_embeddings": 64});
    refused(json!({"rope_scaling": llama3}), invalid, &["high_freq_factor"]);
    let yarn = json!({"type": "yarn", "factor": 2, "original_max_position_embeddings": 0});
    refused(json!({"rope_scaling": yarn}), invalid, &["original_max_position_embeddings", "found 0"]);
    let yarn = json!({"type": "yarn", "factor": 2, "beta_fast": 1, "beta_slow": 2,
        "original_max_position_embeddings": 64});
    refused(
        json!({"rope_scaling": yarn}),
        invalid,
        &["beta_fast: expected at least beta_slow, which is 2, found 1"],
    );
    let yarn = json!({"type": "yarn", "factor": 2, "attention_factor": 1e300,
        "original_max_position_embeddings": 64});
    refused(json!({"rope_scaling": yarn}), invalid, &["finite"]);
}

#[test]
fn keys_without_effect_are_noted() {
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
    for (scaling, key, value) in [
        (json!({"type": "linear", "factor": 2}), "mrope_section", json!([4, 2, 2])),
        (json!({"type": "linear", "factor": 2}), "beta_fast", json!(32)),
        (json!({}), "factor", json!(2)),
        (json!({"rope_type": "default"}), "low_freq_factor", json!(1)),
        (yarn.clone(), "finetuned", json!(true)),
        // Models trained with it also have attention_factor, if anything.
        (yarn, "attn_factor", json!(0.8782488562869419)),
    ] {
        let read = |scaling: &Value| {
            let json = json!({"max_position_embeddings": 256, "rope_scaling": scaling}).to_string();
            let config = ModelConfig::parse(json.as_bytes(), "config.json").unwrap();
            (RopeSpec::parse(&config, 16, RopeDefaults::LLAMA).unwrap(), config.notes())
        };
        let (without, silent) = read(&scaling);
        let mut scaling = scaling;
        scaling[key] = value;
        let (with, notes) = read(&scaling);
        assert_eq!((with, silent.len(), notes.len()), (without, 0, 1), "{key}: {notes:?}");
        assert!(notes[0].starts_with(&format!("config.json: rope_scaling.{key}: ")), "{}", notes[0]);
        scaling[key] = Value::Null;
        assert!(read(&scaling).1.is_empty());
    }
}
