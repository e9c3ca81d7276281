//! `clawdbot serve`

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{command, empty_dir, run};

/// A server on a free port.
struct Server {
    child: Child,
    address: String,
    /// What it prints after its address.
    stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        Self::run(&[&["--threads", "1"], args].concat())
    }

    fn run(args: &[&str]) -> Self {
        let mut child = command(&[&["serve", "--port", "0"], args].concat()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address =
            line.trim_end().split_once(" at http://").unwrap_or_else(|| panic!("{line:?}")).1.to_owned();
        Server { child, address, stdout }
    }

    /// Sends a request, and reads its answer to the end.
    fn post(&self, path: &str, body: &Value) -> String {
        self.post_with(path, "", body)
    }

    /// As `post`, with more lines of the head.
    fn post_with(&self, path: &str, lines: &str, body: &Value) -> String {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Asks it to end, and returns its exit code.
    fn stop(mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

#[test]
fn the_built_in_model_is_served() {
    let mut server = Server::start(&[]);
    let mut curl = String::new();
    server.stdout.read_line(&mut curl).unwrap();
    assert!(curl.starts_with(&format!("curl http://{}/v1/generate", server.address)), "{curl}");
    let body = json!({"prompt": "Once upon a time", "max_tokens": 5, "temperature": 0});
    let answer = server.post("/v1/generate", &body);
    let json = answer.split_once("\r\n\r\n").unwrap().1;
    let answer: Value = serde_json::from_str(json).unwrap();
    let args = ["generate", "--json", "--max-tokens", "5", "--temperature", "0", "Once upon a time"];
    assert_eq!(answer["token_ids"], run(&args).json()["token_ids"]);
    assert_eq!(server.stop(Signal::SIGTERM), Some(0));
}

#[test]
fn requests_end_before_the_server_does() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Server::start(&["--name", "story", "--quiet"]);
        let body = json!({"model": "story", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 60, "ignore_eos": true, "stream": true});
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| server.post("/v1/chat/completions", &body));
            let answer = asked.join().unwrap();
            assert!(answer.contains("data: [DONE]"), "{answer}");
        });
        assert_eq!(server.stop(signal), Some(0));
    }
}

#[test]
fn what_cannot_be_served_is_said_before() {
    let open = run(&["serve", "--host", "0.0.0.0"]);
    assert_eq!(open.code, Some(2));
    assert!(open.stderr.contains("--insecure"), "{}", open.stderr);
    let none = run(&["serve", "no/such/model.gguf"]);
    assert_eq!(none.code, Some(1), "{}", none.stderr);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let run_there = run(&["serve", "--port", &port]);
    assert_eq!(run_there.code, Some(1));
    assert!(run_there.stderr.contains(&port), "{}", run_there.stderr);
    let check = run(&["serve", "--check"]).text();
    assert!(check.starts_with("builtin: ") && check.contains("it fits"), "{check}");
}

/// A directory of that name with a file `clawdbot.toml`.
fn configured(name: &str, text: &str) -> (PathBuf, String) {
    let dir = empty_dir(name);
    let path = dir.join("clawdbot.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path.to_str().unwrap().to_owned())
}

const CONFIG: &str = "\
[runtime]
threads = 1

[models.story]
model = \"builtin\"
aliases = [\"gpt-4o\"]

[models.tale]
model = \"builtin\"
idle_unload = 60
";

#[test]
fn a_file_configures_models_and_keys() {
    let made = run(&["key", "team a"]).text();
    let (key, lines) = made.split_once("\n\n").unwrap();
    let key = key.strip_prefix("key: ").unwrap();
    let (dir, path) = configured("serve_config", &format!("{CONFIG}\n{lines}"));
    let log = dir.join("access.log");
    let server = Server::run(&["--config", &path, "--access-log", log.to_str().unwrap()]);
    let ask = |model: &str, line: &str| {
        server.post_with("/v1/generate", line, &json!({"model": model, "prompt": "Once", "max_tokens": 2}))
    };
    let bearer = format!("Authorization: Bearer {key}\r\n");
    for model in ["story", "tale", "gpt-4o"] {
        assert!(ask(model, &bearer).starts_with("HTTP/1.1 200"), "{model}");
    }
    assert!(ask("story", "").starts_with("HTTP/1.1 401"));
    // The file changes: a model more, one less, and another key.
    let other = run(&["key", "b"]).text();
    let (other, lines) = other.split_once("\n\n").unwrap();
    let other = format!("Authorization: Bearer {}\r\n", other.strip_prefix("key: ").unwrap());
    let changed = format!("{}\n{lines}", CONFIG.replace("models.tale", "models.saga"));
    std::fs::write(&path, changed).unwrap();
    std::fs::rename(&log, dir.join("access.log.1")).unwrap();
    kill(Pid::from_raw(i32::try_from(server.child.id()).unwrap()), Signal::SIGHUP).unwrap();
    let begun = std::time::Instant::now();
    while !ask("saga", &other).starts_with("HTTP/1.1 200") {
        assert!(begun.elapsed().as_secs() < 60, "{}", ask("saga", &other));
    }
    assert!(ask("tale", &other).starts_with("HTTP/1.1 404"));
    assert!(ask("story", &bearer).starts_with("HTTP/1.1 401"));
    assert_eq!(server.stop(Signal::SIGTERM), Some(0));
    let old = std::fs::read_to_string(dir.join("access.log.1")).unwrap();
    let first: Value = serde_json::from_str(old.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["key"], &first["model"], &first["status"]),
        (&json!("team a"), &json!("story"), &json!(200))
    );
    assert!(!old.contains(key) && std::fs::read_to_string(&log).unwrap().contains("saga"), "{old}");
}

#[test]
fn a_wrong_file_is_named_with_its_line() {
    let (_dir, path) = configured("serve_wrong", &CONFIG.replace("threads = 1", "threads = 0"));
    let wrong = run(&["serve", "--config", &path]);
    assert_eq!(wrong.code, Some(1), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("clawdbot.toml, line 2, key runtime.threads"), "{}", wrong.stderr);
    let (_dir, path) = configured("serve_check", CONFIG);
    let both = run(&["serve", "--config", &path, "--max-batch", "3"]);
    assert!(both.code == Some(2) && both.stderr.contains("--max-batch"), "{}", both.stderr);
    let check = run(&["serve", "--config", &path, "--check"]).text();
    assert!(check.starts_with("story: ") && check.contains("\ntale: "), "{check}");
    // A file that is wrong later changes nothing.
    let server = Server::run(&["--config", &path]);
    std::fs::write(&path, "[models").unwrap();
    kill(Pid::from_raw(i32::try_from(server.child.id()).unwrap()), Signal::SIGHUP).unwrap();
    let body = json!({"model": "story", "prompt": "Once", "max_tokens": 2});
    assert!(server.post("/v1/generate", &body).starts_with("HTTP/1.1 200"));
    assert_eq!(server.stop(Signal::SIGTERM), Some(0));
}

#[test]
fn keys_of_a_file_are_asked_for() {
    let (dir, _) = configured("serve_keys", "");
    let file = dir.join("keys");
    std::fs::write(&file, "# ours\nshort\n").unwrap();
    let short = run(&["serve", "--api-key-file", file.to_str().unwrap()]);
    assert!(short.code == Some(2) && short.stderr.contains("line 2"), "{}", short.stderr);
    std::fs::write(&file, "# ours\n0123456789abcdef\n").unwrap();
    let mut server = Server::start(&["--api-key-file", file.to_str().unwrap()]);
    let mut curl = String::new();
    server.stdout.read_line(&mut curl).unwrap();
    assert!(curl.contains("-H 'Authorization: Bearer KEY'"), "{curl}");
    let body = json!({"prompt": "Once", "max_tokens": 2});
    assert!(server.post("/v1/completions", &body).starts_with("HTTP/1.1 401"));
    let right = server.post_with("/v1/completions", "x-api-key: 0123456789abcdef\r\n", &body);
    assert!(right.starts_with("HTTP/1.1 200"), "{right}");
    assert_eq!(server.stop(Signal::SIGTERM), Some(0));
}

/// Python's own TLS talks to a server for trying.
#[cfg(feature = "tls")]
#[test]
fn a_certificate_for_trying_encrypts() {
    let mut child = command(&[
        "serve",
        "--port",
        "0",
        "--threads",
        "1",
        "--tls-self-signed",
        "--host",
        "0.0.0.0",
        "--insecure",
    ])
    .spawn()
    .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let port = line.trim_end().rsplit_once(':').unwrap().1;
    assert!(line.contains("https://"), "{line}");
    let script = format!(
        "import json, ssl, urllib.request\n\
         context = ssl._create_unverified_context()\n\
         print(json.load(urllib.request.urlopen('https://127.0.0.1:{port}/version', context=context))['kernels'])\n\
         context.maximum_version = ssl.TLSVersion.TLSv1_2\n\
         try:\n    urllib.request.urlopen('https://127.0.0.1:{port}/version', context=context)\n\
         except OSError as error:\n    print('refused')\n"
    );
    let python = std::process::Command::new("python3").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8(python.stdout).unwrap();
    assert!(said.ends_with("\nrefused\n"), "{said}{}", String::from_utf8_lossy(&python.stderr));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
