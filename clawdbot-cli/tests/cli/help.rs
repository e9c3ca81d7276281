//! What the help shows works: its examples, the completions, the manual pages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Run, copy_dir, empty_dir, model_with_template, run};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/tests/golden").join(name)
}

/// The lines below `title`, until a line that is not indented.
fn block<'a>(help: &'a str, title: &str) -> Vec<&'a str> {
    let lines = help.lines().skip_while(|line| *line != title).skip(1);
    lines.take_while(|line| line.starts_with("  ")).map(str::trim).collect()
}

/// The names of all commands.
fn commands() -> Vec<String> {
    let help = run(&["--help"]).text();
    let names: Vec<String> =
        block(&help, "Commands:").iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert!(names.len() > 8, "{names:?}");
    names
}

/// A directory with all that examples name. `DIR` is a model for the command.
fn stage(command: &str) -> PathBuf {
    let dir = empty_dir(&format!("examples-{command}"));
    let model = dir.join("DIR");
    match command {
        "embed" => copy_dir(&golden("embeddings/bert"), &model),
        "rerank" => copy_dir(&golden("embeddings/bert_score"), &model),
        _ => {
            let template = "{% for m in messages %}{{ m.content }}\n{% endfor %}";
            std::fs::rename(model_with_template(&format!("example-{command}"), Some(template)), &model)
                .unwrap();
            // So that no text gets long.
            let path = model.join("config.json");
            let mut config: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            config["max_position_embeddings"] = 80.into();
            std::fs::write(&path, config.to_string()).unwrap();
        }
    }
    let long = "Once upon a time there was a dog. It was big and red. ".repeat(400);
    for (name, text) in [
        ("letter.txt", "Once\n"),
        ("lines.txt", "bread\nwater\n"),
        ("passages.txt", "a\nb\n"),
        ("text.txt", long.as_str()),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    if command == "inspect" {
        let packed = dir.join("model.clawdbot");
        run(&["pack", model.to_str().unwrap(), packed.to_str().unwrap(), "--quiet"]).text();
    }
    if command == "evaluate" {
        let packed = dir.join("int4.clawdbot");
        let paths = [model.to_str().unwrap(), packed.to_str().unwrap()];
        run(&["pack", paths[0], paths[1], "--weights", "int4", "--quiet"]).text();
    }
    dir
}

/// Runs a line as a user would type it.
fn type_in(line: &str, dir: &Path) -> Run {
    let program = Path::new(env!("CARGO_BIN_EXE_clawdbot"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-c", &format!("set -o pipefail; {line}")])
        .current_dir(dir)
        .env("PATH", path)
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HUB_CACHE", dir.join("cache"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    output.into()
}

#[cfg(unix)]
#[test]
fn examples_can_be_typed_in() {
    let mut count = 0;
    for command in std::iter::once(String::new()).chain(commands()).filter(|name| name != "help") {
        let help =
            run(&[command.as_str(), "--help"].into_iter().filter(|arg| !arg.is_empty()).collect::<Vec<_>>());
        let help = help.text();
        let dir = stage(if command.is_empty() { "program" } else { &command });
        for example in block(&help, "Examples:") {
            // The program's own examples are followed by what they do.
            let line = example.split("   ").next().unwrap();
            // Those that would take minutes, a network or another model are only parsed, and manual pages not shown.
            let heavy = [
                "clawdbot bench",
                "clawdbot pack --shape",
                "clawdbot evaluate --shape",
                "chat Qwen/",
                "clawdbot serve",
            ];
            let heavy = heavy.iter().any(|part| line.contains(part))
                || (command.is_empty() && line.contains("clawdbot embed"));
            // They go on until they are stopped, and have tests of their own.
            if line.starts_with("man ") || line.starts_with("curl ") {
                continue;
            }
            let line = if heavy { format!("{line} --help") } else { line.to_owned() };
            let run = type_in(&line, &dir);
            assert_eq!(run.code, Some(0), "{line}: {}", run.stderr);
            count += 1;
        }
    }
    assert!(count > 25, "{count} examples");
}

#[test]
fn shells_get_completions() {
    for (shell, words) in
        [("bash", "complete -F"), ("zsh", "#compdef clawdbot"), ("fish", "complete -c clawdbot")]
    {
        let script = run(&["completions", shell]).text();
        assert!(script.contains(words) && script.contains("max-tokens"), "{shell}");
    }
    let unknown = run(&["completions", "tcsh"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("bash, zsh, fish"), "{}", unknown.stderr);
}

#[cfg(unix)]
#[test]
fn bash_completes_options() {
    let script = "source <(clawdbot completions bash); COMP_WORDS=(clawdbot generate --max-t); COMP_CWORD=2; \
                  _clawdbot clawdbot --max-t generate; echo ${COMPREPLY[@]}";
    assert_eq!(type_in(script, &empty_dir("completions")).text(), "--max-tokens\n");
}

#[cfg(unix)]
#[test]
fn bash_completes_values() {
    for (command, option, values) in [
        ("generate", "--weights", "int8 int4 int4-mixed bf16 f32 stored"),
        ("pack", "--weights", "int8 int4 int4-mixed bf16 f32 stored"),
        ("chat", "--kv", "auto int8 bf16 f32"),
        ("embed", "--pooling", "cls mean max last weighted_mean mean_sqrt_len"),
        ("embed", "--normalize", "true false"),
    ] {
        let script = format!(
            "source <(clawdbot completions bash); COMP_WORDS=(clawdbot {command} {option} ''); COMP_CWORD=3; \
             _clawdbot clawdbot '' {option}; echo ${{COMPREPLY[@]}}"
        );
        let found = type_in(&script, &empty_dir("completed-values")).text();
        assert_eq!(found.trim(), values, "{command} {option}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = empty_dir("man");
    run(&["man", dir.to_str().unwrap()]).text();
    for command in commands().iter().filter(|name| *name != "help") {
        let page = std::fs::read_to_string(dir.join(format!("clawdbot-{command}.1"))).unwrap();
        assert!(page.contains(".TH"), "{command}");
    }
    let page = std::fs::read_to_string(dir.join("clawdbot.1")).unwrap();
    assert!(page.contains("Qwen/Qwen3"), "examples belong to the page");
    // Each example keeps its line, with all that is written in it; the text around them is filled.
    let page = std::fs::read_to_string(dir.join("clawdbot-generate.1")).unwrap();
    let (_, examples) = page.split_once(".SH EXAMPLES\n.nf\n").unwrap();
    let (examples, rest) = examples.split_once(".fi\n").unwrap();
    assert_eq!(examples.lines().count(), 5, "{examples}");
    assert!(examples.contains(r"\-\-stop \(aq\en\en\(aq"), "{examples}");
    assert!(rest.starts_with(".PP\nA prompt is taken as it is"), "{rest}");
}
