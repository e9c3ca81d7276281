//! `clawdbot serve`

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{command, run};

/// A server on a free port.
struct Server {
    child: Child,
    address: String,
    /// What it prints after its address.
    stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut child =
            command(&[&["serve", "--port", "0", "--threads", "1"], args].concat()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address =
            line.trim_end().split_once(" at http://").unwrap_or_else(|| panic!("{line:?}")).1.to_owned();
        Server { child, address, stdout }
    }

    /// Sends a request, and reads its answer to the end.
    fn post(&self, path: &str, body: &Value) -> String {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
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
