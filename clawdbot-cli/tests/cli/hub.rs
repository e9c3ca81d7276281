//! Models by name, from a server that behaves like the hub.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{Run, command, empty_dir};
use server::{COMMIT, Fault, Hub};

#[path = "../../../clawdbot-hub/tests/support/mod.rs"]
#[allow(dead_code, reason = "the tests of the downloads themselves use the rest")]
mod server;

/// The built-in model as a repository, with its weights under `weights`.
fn repository(weights: &str) -> Hub {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/assets/builtin");
    let read = |name: &str| std::fs::read(assets.join(name)).unwrap();
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
        .into_iter()
        .fold(Hub::start(), |hub, name| hub.git_file(name, read(name)))
        .file(weights, read("model.safetensors"))
}

/// A user with a cache of their own.
struct User {
    home: PathBuf,
    endpoint: String,
}

impl User {
    fn new(name: &str, hub: &Hub) -> Self {
        User { home: empty_dir(name), endpoint: hub.url.clone() }
    }

    fn run(&self, args: &[&str], variables: &[(&str, &str)]) -> Run {
        self.command(args, variables).output().unwrap().into()
    }

    fn command(&self, args: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = command(args);
        for name in [
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "TRANSFORMERS_OFFLINE",
            "CLAWDBOT_HUB",
        ] {
            command.env_remove(name);
        }
        command.env("HF_HOME", &self.home).env("HF_ENDPOINT", &self.endpoint).env("NO_PROXY", "127.0.0.1");
        command.envs(variables.iter().copied());
        command
    }
}

const PROMPT: [&str; 7] = ["--prompt", "Once", "--max-tokens", "4", "--temperature", "0", "--json"];

#[test]
fn every_command_takes_a_name() {
    let hub = repository("model.safetensors");
    let user = User::new("hub_commands", &hub);
    let generate = [&["generate", "--model", "org/model"], &PROMPT[..]].concat();
    let text = user.run(&generate, &[]).json()["text"].clone();
    let builtin = user.run(&[&["generate"], &PROMPT[..]].concat(), &[]).json()["text"].clone();
    assert_eq!(text, builtin);
    assert!(
        user.home.join("hub/models--org--model/snapshots").join(COMMIT).join("model.safetensors").exists()
    );
    hub.seen();

    let run = user.run(&["inspect", "org/model", "--revision", COMMIT], &[]);
    assert!(run.text().contains("LlamaForCausalLM"));
    assert_eq!(hub.seen().len(), 0, "a commit that is there");
    let packed = user.home.join("model.clawdbot");
    user.run(&["pack", "hf://org/model", packed.to_str().unwrap()], &[]).text();
    let chat = user.run(&["chat", "org/model", "--json"], &[]);
    assert_eq!((chat.code, chat.stderr.as_str()), (Some(0), ""));
    assert_eq!(hub.seen().len(), 2);

    // Without a network.
    let bench =
        ["bench", "--model", "org/model", "--prompt", "4", "--generate", "4", "--repeat", "1", "--no-limits"];
    user.run(&[&bench[..], &["--offline"]].concat(), &[]).text();
    user.run(&generate, &[("HF_HUB_OFFLINE", "1")]).json();
    assert_eq!(hub.seen().len(), 0);
}

#[test]
fn two_processes_download_once() {
    let hub = repository("model.safetensors").delay(Duration::from_millis(200));
    let user = User::new("hub_processes", &hub);
    let both = [(); 2].map(|()| user.command(&["inspect", "org/model"], &[]).spawn().unwrap());
    for one in both {
        let run = Run::from(one.wait_with_output().unwrap());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
    assert_eq!(hub.seen().iter().filter(|seen| seen.target.contains("resolve")).count(), 5);
}

#[test]
fn nothing_shows_where_nobody_looks() {
    let hub = repository("model.safetensors");
    let run = User::new("hub_quiet", &hub)
        .run(&["generate", "--model", "org/model", "--quiet", "--prompt", "x"], &[]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
}

#[test]
fn failures_say_what_to_do() {
    let hub = repository("model.safetensors").token("hf_right");
    let user = User::new("hub_failures", &hub);
    let inspect = ["inspect", "org/model", "--json"];
    let error = |run: Run| -> serde_json::Value {
        assert_eq!(run.code, Some(1), "{}", run.stdout);
        serde_json::from_str::<serde_json::Value>(&run.stdout).unwrap()["error"].clone()
    };
    let denied = error(user.run(&inspect, &[]));
    assert_eq!((&denied["kind"], &denied["detail"]["status"]), (&"AccessDenied".into(), &401.into()));
    assert!(denied["message"].as_str().unwrap().contains("HF_TOKEN"), "{denied}");
    let offline = error(user.run(&[&inspect[..], &["--offline"]].concat(), &[]));
    assert_eq!(offline["kind"], "NotFound");

    let right = [("HF_TOKEN", "hf_right")];
    let missing = error(user.run(&["inspect", "org/other", "--json"], &right));
    assert_eq!(missing["kind"], "NotFound");
    hub.fault("model.safetensors", 1, Fault::Corrupt);
    let corrupt = error(user.run(&inspect, &right));
    assert_eq!(corrupt["kind"], "Download");
    hub.fault("model.safetensors", 1, Fault::Cut(1000));
    assert_eq!(user.run(&inspect, &right).code, Some(0));
}

#[test]
fn a_name_is_not_a_path() {
    let hub = repository("model.safetensors");
    let user = User::new("hub_paths", &hub);
    for (args, code, word) in [
        (
            &["inspect", "src/model"][..],
            1,
            "src/model: no such file or directory; for the repository of that name, write hf://src/model",
        ),
        (&["inspect", "models/model.gguf"], 1, "models/model.gguf"),
        (&["inspect", "src", "--revision", "main"], 2, "revision"),
        (&["inspect", "--file", "x.gguf"], 2, "file"),
        (&["inspect", "s3://org/model"], 1, "hf://"),
    ] {
        let run = user.run(args, &[]);
        assert_eq!(run.code, Some(code), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(word), "{args:?}: {}", run.stderr);
    }
    assert_eq!(hub.seen().len(), 0);
}

#[test]
fn names_are_what_people_paste() {
    let hub = repository("model.safetensors");
    let user = User::new("hub_pasted", &hub);
    for name in
        ["https://huggingface.co/org/model/tree/main", "huggingface.co/org/model", "hf.co/org/model:latest"]
    {
        let run = user.run(&["inspect", name, "--json"], &[]);
        assert_eq!(run.json()["architecture"], "LlamaForCausalLM", "{name}");
    }
    hub.seen();
    let generate = [&["generate", "-m", "org/model"], &PROMPT[..]].concat();
    for offline in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
        user.run(&generate, &[(offline, "1")]).json();
    }
    let (home, path) = (user.home.parent().unwrap(), user.home.file_name().unwrap());
    let path = format!("$WHERE/{}", path.to_str().unwrap());
    let moved = [("HF_HOME", path.as_str()), ("WHERE", home.to_str().unwrap()), ("HF_HUB_OFFLINE", "1")];
    user.run(&generate, &moved).json();
    assert_eq!(hub.seen().len(), 0);
    for (name, word) in [
        ("Qwen3-0.6B", "perhaps Qwen/Qwen3-0.6B"),
        ("qwen3:0.6b", "OWNER/NAME:QUANTIZATION"),
        ("https://example.com/a/b", "huggingface.co"),
        ("org/model:Q4_K_M", "expected a GGUF file of the quantization Q4_K_M, found none"),
    ] {
        let run = user.run(&["inspect", name], &[]);
        assert_eq!(run.code, Some(1), "{name}");
        assert!(run.stderr.contains(word), "{name}: {}", run.stderr);
    }
}

#[test]
fn without_a_network_it_says_so_at_once_and_what_helps() {
    let hub = repository("model.safetensors");
    let user = User::new("hub_no_network", &hub);
    user.run(&["inspect", "org/model"], &[]).text();
    let nobody = [("HF_ENDPOINT", "http://127.0.0.1:1")];
    let run = user.run(&["inspect", "org/model"], &nobody);
    assert_eq!(run.code, Some(1));
    assert_eq!(run.stderr.matches("warning: ").count(), 2, "{}", run.stderr);
    assert!(run.stderr.starts_with("looking for org/model\n"), "{}", run.stderr);
    assert!(run.stderr.contains("trying again in 0.5 s (1 of 2)"), "{}", run.stderr);
    assert!(run.stderr.contains("error: ") && run.stderr.contains("--offline"), "{}", run.stderr);
    let quiet = user.run(&["embed", "-m", "org/other", "x", "--quiet"], &nobody);
    assert_eq!((quiet.code, quiet.stderr.lines().count()), (Some(1), 1), "{}", quiet.stderr);
    assert!(!quiet.stderr.contains("--offline"), "{}", quiet.stderr);
}
