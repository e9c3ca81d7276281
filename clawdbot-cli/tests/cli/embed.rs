//! `clawdbot embed` and `clawdbot rerank`.

use std::path::Path;

use serde_json::Value;

use crate::support::{empty_dir, run, run_with};

fn fixture(name: &str) -> String {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/tests/golden/embeddings");
    golden.join(name).display().to_string()
}

fn reference(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(Path::new(&fixture(name)).join("reference.json")).unwrap()).unwrap()
}

fn close(found: &[f64], expected: &Value) {
    let expected: Vec<f64> = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {expected:?}");
}

#[test]
fn texts_become_lines_of_numbers() {
    let (model, expected) = (fixture("bert"), reference("bert"));
    let texts: Vec<String> = serde_json::from_value(expected["texts"].clone()).unwrap();
    let args = ["embed", "--model", &model, "--weights", "f32"];
    let plain = run(&[&args[..], &[&texts[0], &texts[1]]].concat());
    assert!(plain.stderr.contains("2 texts, "), "{}", plain.stderr);
    assert!(run(&[&args[..], &["bread"]].concat()).stderr.starts_with("1 text, "));
    let plain = plain.text();
    for (line, expected) in plain.lines().zip(expected["embeddings"].as_array().unwrap()) {
        let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        close(&numbers, expected);
    }
    let input = texts.join("\n");
    let json = run_with(&[&args[..], &["--input", "-", "--json"]].concat(), input.as_bytes()).text();
    assert_eq!(json.lines().count(), texts.len());
    for (index, line) in json.lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["index"], index);
        close(
            &serde_json::from_value::<Vec<f64>>(line["embedding"].clone()).unwrap(),
            &expected["embeddings"][index],
        );
    }
    let options = ["--prompt-name", "query", "--dimensions", "3", "--pooling", "cls", "--normalize", "false"];
    let short = run(&[&args[..], &options, &["bread", "--quiet"]].concat());
    assert!(short.stderr.is_empty());
    assert_eq!(short.text().split_whitespace().count(), 3);
}

#[test]
fn documents_come_best_first() {
    let (model, expected) = (fixture("bert_score"), reference("bert_score"));
    let documents: Vec<String> = serde_json::from_value(expected["documents"].clone()).unwrap();
    let query = expected["query"].as_str().unwrap();
    let input = documents.join("\n");
    let args = [
        "rerank",
        "--model",
        &model,
        "--weights",
        "f32",
        "--query",
        query,
        "--sigmoid",
        "false",
        "--input",
        "-",
    ];
    let json = run_with(&[&args[..], &["--json"]].concat(), input.as_bytes()).text();
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), documents.len());
    for line in &lines {
        let index = line["index"].as_u64().unwrap() as usize;
        assert_eq!(line["document"], documents[index]);
        close(&[line["score"].as_f64().unwrap()], &Value::from(vec![expected["logits"][index].clone()]));
    }
    assert!(lines.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()));
    let plain = run_with(&args, input.as_bytes()).text();
    assert!(
        plain.lines().zip(&lines).all(|(plain, json)| plain.ends_with(json["document"].as_str().unwrap()))
    );
}

#[test]
fn an_error_says_which_text_it_is_about() {
    let long = "bread ".repeat(400);
    let file = empty_dir("long-texts").join("lines.txt");
    std::fs::write(&file, format!("bread\n\n{long}\n")).unwrap();
    let path = file.to_str().unwrap();
    let (bert, score) = (fixture("bert"), fixture("bert_score"));
    let rank = ["rerank", "-m", &score, "--query", "bread"];
    for args in [&["embed", "-m", &bert][..], &rank] {
        let of_file = run(&[args, &["--input", path]].concat());
        assert_eq!(of_file.code, Some(1));
        let place = format!("error: {path}, line 3: expected a text of at most");
        assert!(of_file.stderr.contains(&place), "{}", of_file.stderr);
        assert!(of_file.stderr.contains("`--truncate` cuts it"), "{}", of_file.stderr);
        let given = run(&[args, &["bread", &long, "--json"]].concat());
        let error: Value = serde_json::from_str(&given.stdout).unwrap();
        assert_eq!(error["error"]["detail"]["text"], 1);
        assert!(error["error"]["message"].as_str().unwrap().contains(" 2: expected a text"), "{error}");
    }
    let stdin = run_with(&["embed", "-m", &bert, "--input", "-"], format!("{long}\n").as_bytes());
    assert!(stdin.stderr.contains("error: stdin, line 1: "), "{}", stdin.stderr);
}

#[test]
fn a_dash_reads_stdin() {
    let (bert, score) = (fixture("bert"), fixture("bert_score"));
    let embed = |texts: &[&str], input: &[u8]| {
        run_with(&[&["embed", "-m", &bert, "--quiet"], texts].concat(), input).text()
    };
    let expected = embed(&["bread\nand water", "wine"], b"");
    for input in [&b"bread\nand water\n"[..], b"\xef\xbb\xbfbread\nand water"] {
        assert_eq!(embed(&["-", "wine"], input), expected);
    }
    assert_eq!(embed(&["--", "-"], b""), embed(&["--", "-"], b"bread"));
    assert_ne!(embed(&["--", "-"], b"bread"), embed(&["-"], b"bread"));
    let rank = |args: &[&str], input: &[u8]| {
        run_with(&[&["rerank", "-m", &score, "--quiet"], args].concat(), input).text()
    };
    let expected = rank(&["--query", "bread", "water", "wine"], b"");
    assert_eq!(rank(&["--query", "-", "water", "wine"], b"bread\n"), expected);
    assert_eq!(rank(&["--query", "bread", "-", "wine"], b"water\n"), expected);
    for args in [
        &["embed", "-m", &bert, "-", "-"][..],
        &["rerank", "-m", &score, "--query", "-", "-"],
        &["rerank", "-m", &score, "--query", "-", "--input", "-"],
    ] {
        let refused = run_with(args, b"bread\n");
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
        assert!(refused.stderr.contains("expected `-` once"), "{}", refused.stderr);
    }
}

#[test]
fn a_line_that_is_not_utf8_is_named() {
    let file = empty_dir("not-utf8").join("lines.txt");
    let path = file.to_str().unwrap();
    for (content, place) in [
        (&b"a\nb\xff\nc\n"[..], ", line 2: expected UTF-8, found 0xff as byte 2\n"),
        (b"a\n\xc3", ", line 2: expected UTF-8, found 0xc3 as byte 1\n"),
        (b"b\xff\n", ": expected UTF-8, found 0xff as byte 2\n"),
        (b"\xff\xfea\0\n\0", ": expected UTF-8, found UTF-16\n"),
    ] {
        std::fs::write(&file, content).unwrap();
        let refused = run(&["embed", "-m", &fixture("bert"), "--input", path]);
        assert_eq!((refused.code, refused.stderr), (Some(1), format!("error: {path}{place}")));
    }
}

#[test]
fn mistakes_are_said() {
    let model = fixture("bert");
    assert_eq!(run(&["embed", "--model", &model]).code, Some(2));
    assert_eq!(run(&["embed", "--model", &model, "a", "--pooling", "median"]).code, Some(2));
    assert_eq!(run(&["embed", "a"]).code, Some(2));
    assert_eq!(run(&["embed", "--model", &model, "--input", "no/such/file"]).code, Some(1));
    let refused = run(&["generate", "--model", &model, "--prompt", "a"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("does not generate"), "{}", refused.stderr);
    let refused = run(&["rerank", "--model", &model, "--query", "a", "b", "--json"]);
    assert!(refused.code == Some(1) && refused.stdout.contains("UnsupportedModel"), "{}", refused.stdout);
}
