//! `cargo xtask bench-compare`: whether the working tree is faster or slower than another revision.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{cargo_command, execute, target};

pub(crate) const USAGE: &str = "  bench-compare REV [--pairs N] [--threshold RATIO] [-- BENCH ARGUMENTS]
                     builds REV and the working tree, runs `clawdbot bench` of both in turn, N times (default 5;
                     0 only builds), and prints ratios; fails when a median is below RATIO (default: never)
                     e.g. cargo xtask bench-compare main --threshold 0.97 -- --shape qwen2.5-0.5b --batch 8";

/// A number in the report of `clawdbot bench`.
struct Metric {
    name: &'static str,
    better: Better,
}

#[derive(Clone, Copy)]
enum Better {
    More,
    Less,
}

const METRICS: &[Metric] = &[
    Metric { name: "prefill_tokens_per_s", better: Better::More },
    Metric { name: "decode_tokens_per_s", better: Better::More },
    Metric { name: "load_seconds", better: Better::Less },
    Metric { name: "peak_rss_bytes", better: Better::Less },
];

#[derive(Debug, PartialEq)]
struct Options<'a> {
    revision: &'a str,
    pairs: usize,
    threshold: Option<f64>,
    bench: Vec<&'a str>,
}

impl<'a> Options<'a> {
    fn parse(arguments: &[&'a str]) -> Result<Self, String> {
        let split = arguments.iter().position(|argument| *argument == "--").unwrap_or(arguments.len());
        let bench = arguments.get(split + 1..).unwrap_or_default().to_vec();
        let mut rest = arguments[..split].iter();
        let (mut revision, mut pairs, mut threshold) = (None, 5, None);
        while let Some(&argument) = rest.next() {
            let mut value = || rest.next().copied().ok_or(format!("{argument}: a value is missing"));
            match argument {
                "--pairs" => pairs = parse(argument, value()?)?,
                "--threshold" => threshold = Some(parse(argument, value()?)?),
                _ if argument.starts_with('-') || revision.is_some() => {
                    return Err(format!("{argument:?} is unknown\n{USAGE}"));
                }
                _ => revision = Some(argument),
            }
        }
        let revision = revision.ok_or(format!("a revision is missing\n{USAGE}"))?;
        let bench = if bench.is_empty() { vec!["--shape", "qwen2.5-0.5b"] } else { bench };
        Ok(Options { revision, pairs, threshold, bench })
    }
}

fn parse<T: std::str::FromStr>(option: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{option}: expected a number, found {value:?}"))
}

pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let options = Options::parse(arguments)?;
    let programs = [build_revision(root, options.revision)?, build(root, &target(root))?];
    // ratios[metric][pair]
    let mut ratios = vec![Vec::new(); METRICS.len()];
    for pair in 0..options.pairs {
        let mut reports = [String::new(), String::new()];
        // What runs first changes from pair to pair.
        for which in [pair % 2, 1 - pair % 2] {
            reports[which] = bench(&programs[which], &options.bench)?;
        }
        let mut line = format!("pair {} of {}:", pair + 1, options.pairs);
        for (&Metric { name, better }, ratios) in METRICS.iter().zip(&mut ratios) {
            let [old, new] = [number(&reports[0], name)?, number(&reports[1], name)?];
            ratios.push(match better {
                Better::More => new / old,
                Better::Less => old / new,
            });
            line += &format!("  {name} {old:.4} -> {new:.4}");
        }
        eprintln!("{line}");
    }
    if options.pairs == 0 {
        return Ok(());
    }
    println!("working tree against {}: above 1 is better, {} pairs", options.revision, options.pairs);
    println!("{:<24}{:>10}{:>10}{:>10}", "", "median", "min", "max");
    let mut slower = Vec::new();
    for (&Metric { name, .. }, ratios) in METRICS.iter().zip(&mut ratios) {
        let [min, median, max] = spread(ratios);
        println!("{name:<24}{median:>10.3}{min:>10.3}{max:>10.3}");
        if options.threshold.is_some_and(|threshold| median < threshold) {
            slower.push(format!("{name}: {median:.3}"));
        }
    }
    match slower.is_empty() {
        true => Ok(()),
        false => Err(format!("below the threshold: {}", slower.join(", "))),
    }
}

/// Builds the program of a revision. All revisions share a worktree and a target directory: what does not change is built
/// once.
fn build_revision(root: &Path, revision: &str) -> Result<PathBuf, String> {
    let directory = target(root).join("bench-compare");
    let tree = directory.join("tree");
    let tree_text = tree.display().to_string();
    if tree.join(".git").exists() {
        execute(git(&tree).args(["checkout", "--quiet", "--detach", revision]))?;
    } else {
        // A tree that was deleted is still registered.
        execute(git(root).args(["worktree", "prune"]))?;
        execute(git(root).args(["worktree", "add", "--quiet", "--detach", &tree_text, revision]))?;
    }
    build(&tree, &directory.join("target"))
}

fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory);
    command
}

/// Builds `clawdbot` of a tree and says where it is.
fn build(tree: &Path, target: &Path) -> Result<PathBuf, String> {
    let mut command = cargo_command(tree, &["build", "--release", "--quiet", "--package", "clawdbot-cli"]);
    execute(command.env("CARGO_TARGET_DIR", target))?;
    Ok(target.join("release").join("clawdbot"))
}

/// The report of one run.
fn bench(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("bench").args(arguments).args(["--repeat", "1", "--no-limits", "--json"]);
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{command:?}: {}\n{}", output.status, message.trim_end()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The number of a field of the outermost JSON object.
fn number(json: &str, field: &str) -> Result<f64, String> {
    let (mut depth, mut rest) = (0_usize, json);
    while let Some(at) = rest.find(['{', '}', '[', ']', '"']) {
        let (found, after) = (rest.as_bytes()[at], &rest[at + 1..]);
        rest = after;
        match found {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {
                let end = string_end(after);
                rest = after.get(end + 1..).unwrap_or_default();
                let value = rest.trim_start().strip_prefix(':').map(str::trim_start);
                if let (1, true, Some(value)) = (depth, &after[..end] == field, value) {
                    let end = value.find([',', '}', '\n', ' ']).unwrap_or(value.len());
                    return parse(field, &value[..end]);
                }
            }
        }
    }
    Err(format!("the report has no field {field:?}"))
}

/// Where the string ends whose first character is that of `text`: at a quotation mark without a backslash.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return at,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Smallest, middle and largest value. The median of an even number is the mean of the two in the middle.
fn spread(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    [values[0], (low + high) / 2.0, values[values.len() - 1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_parsed() {
        let parsed = Options::parse(&["main", "--pairs", "3", "--threshold", "0.9", "--", "--batch", "8"]);
        let expected =
            Options { revision: "main", pairs: 3, threshold: Some(0.9), bench: vec!["--batch", "8"] };
        assert_eq!(parsed, Ok(expected));
        let default =
            Options { revision: "HEAD~1", pairs: 5, threshold: None, bench: vec!["--shape", "qwen2.5-0.5b"] };
        assert_eq!(Options::parse(&["HEAD~1"]), Ok(default));
        for (wrong, message) in [
            (&[][..], "a revision is missing"),
            (&["a", "b"], "\"b\" is unknown"),
            (&["a", "--pair", "1"], "\"--pair\" is unknown"),
            (&["a", "--pairs"], "a value is missing"),
            (&["a", "--pairs", "x"], "expected a number, found \"x\""),
        ] {
            let error = Options::parse(wrong).expect_err("wrong usage");
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn numbers_are_those_of_the_outermost_object() {
        let json = r#"{ "a\"x": "{", "max": {"x": 1, "y": [2, {"x": 3}]}, "s": "x", "x": 4.5, "e": 1e3,
            "n": null, "last": -7}"#;
        assert_eq!(number(json, "x"), Ok(4.5));
        assert_eq!(number(json, "e"), Ok(1000.0));
        assert_eq!(number(json, "last"), Ok(-7.0));
        assert!(number(json, "y").is_err());
        assert!(number(json, "n").is_err());
        assert!(number("{\"x", "x").is_err());
    }

    #[test]
    fn spreads() {
        assert_eq!(spread(&mut [4.0, 1.0, 2.0, 10.0]), [1.0, 3.0, 10.0]);
        assert_eq!(spread(&mut [5.0]), [5.0; 3]);
    }
}
