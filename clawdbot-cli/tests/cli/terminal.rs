//! `clawdbot chat` on a terminal: editing, history, Ctrl-C.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};

use crate::support::empty_dir;

/// The program, and the other side of its terminal.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
    /// How much of the screen was looked at.
    seen: usize,
}

impl Terminal {
    fn start(args: &[&str]) -> Self {
        let size = Winsize { ws_row: 40, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let end = |fd: &OwnedFd| fd.try_clone().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_clawdbot"))
            .args(args)
            .env("TERM", "xterm")
            .stdin(end(&pty.slave))
            .stdout(end(&pty.slave))
            .stderr(pty.slave)
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut source, sink) = (File::from(end(&pty.master)), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // At the end of the program reading fails.
            while let Ok(n @ 1..) = source.read(&mut buffer) {
                sink.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Terminal { child, keyboard: File::from(pty.master), screen, seen: 0 }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for `text` on what was not looked at yet, and returns what came before it.
    fn wait(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen.lock().unwrap().clone();
            if let Some(at) = screen[self.seen..].find(text) {
                let before = screen[self.seen..self.seen + at].to_owned();
                self.seen += at + text.len();
                return before;
            }
            assert!(
                start.elapsed() < Duration::from_secs(120),
                "{text:?} does not come in {:?}",
                &screen[self.seen..]
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

const CHAT: [&str; 7] = ["chat", "--temperature", "0", "--max-tokens", "4", "--threads", "1"];

#[test]
fn lines_can_be_edited_and_come_back() {
    let history = empty_dir("history").join("lines.txt");
    let history = history.to_str().unwrap();
    let args = [&CHAT[..], &["--history", history]].concat();
    let mut chat = Terminal::start(&args);
    chat.wait("/help lists the commands");
    chat.wait("> ");
    // Home, the missing letter, Enter.
    chat.press("ello\x01H\r");
    chat.wait("tokens/s");
    chat.wait("> ");
    // The line before.
    chat.press("\x1b[A");
    chat.wait("Hello");
    chat.press(" again\r");
    chat.wait("tokens/s");
    chat.wait("> ");
    // Several lines, with a prompt of their own.
    chat.press("one\\\r");
    chat.wait("... ");
    chat.press("two\r");
    chat.wait("tokens/s");
    chat.wait("> ");
    let file = empty_dir("saved").join("talk.json");
    chat.press(&format!("/save {}\r", file.display()));
    chat.wait("6 messages to ");
    chat.press("/quit\r");
    assert_eq!(chat.code(), Some(0));
    let talk: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let said: Vec<&str> = (0..3).map(|turn| talk[2 * turn]["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["Hello", "Hello again", "one\ntwo"]);

    let kept = std::fs::read_to_string(history).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(history).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(kept.starts_with("Hello\nHello again\none\\\\\ntwo\n/save "), "{kept}");
    let mut next = Terminal::start(&args);
    next.wait("> ");
    // Up five times: past /quit and /save.
    next.press(&"\x1b[A".repeat(5));
    next.wait("Hello again");
    // Ctrl-C leaves at the prompt.
    next.press("\x03");
    assert_eq!(next.code(), Some(130));
}

#[test]
fn lines_that_arrive_together_are_all_read() {
    let file = empty_dir("together").join("talk.json");
    let mut chat = Terminal::start(&CHAT);
    chat.wait("> ");
    let save = format!("/save {}\r", file.display());
    chat.press(&["One\r", "two\\\rthree\r", "\"\"\"four\rfive\"\"\"\r", &save, "/quit\r"].concat());
    assert_eq!(chat.code(), Some(0));
    let talk: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let said: Vec<&str> = (0..3).map(|turn| talk[2 * turn]["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["One", "two\nthree", "four\nfive"]);
}

#[test]
fn keys_at_the_prompt() {
    let mut chat = Terminal::start(&CHAT);
    chat.wait("> ");
    // Ctrl-C gives up a message that is not complete, and what follows is another one.
    chat.press("\"\"\"one\r");
    chat.wait("... ");
    chat.press("\x03");
    chat.wait("> ");
    chat.press("/what\r");
    chat.wait("error: unknown command \"/what\"; known: /help, /reset, /system, /save, /quit");
    chat.wait("> ");
    // The end of input.
    chat.press("\x04");
    assert_eq!(chat.code(), Some(1));
}
