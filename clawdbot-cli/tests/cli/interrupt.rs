//! Ctrl-C.

use std::io::{Read, Write};
use std::process::{Child, Command};

use crate::support::{Run, command};

/// A model that takes its time.
fn slow(args: &[&str]) -> Child {
    let more = ["--weights", "f32", "--threads", "1", "--ignore-eos", "--seed", "1"];
    command(&[args, &more].concat()).env("CLAWDBOT_ISA", "scalar").spawn().unwrap()
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

/// The first byte of stdout: something is being generated.
fn first_byte(child: &mut Child) -> u8 {
    let mut byte = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    byte[0]
}

#[test]
fn generate_prints_what_there_is() {
    let mut child = slow(&["generate", "--prompt", "Once upon a time"]);
    let first = first_byte(&mut child);
    interrupt(&child);
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!(run.code, Some(130), "{}", run.stderr);
    assert!(run.stderr.contains("cancelled"), "{}", run.stderr);
    let whole: Run = slow(&["generate", "--prompt", "Once upon a time", "--max-tokens", "20"])
        .wait_with_output()
        .unwrap()
        .into();
    let text = format!("{}{}", char::from(first), run.stdout);
    let common = text.len().min(whole.stdout.len());
    assert_eq!(text[..common], whole.stdout[..common]);
}

#[test]
fn chat_stops_the_answer_and_goes_on() {
    let mut child = slow(&["chat"]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"Tell me a story.\n").unwrap();
    first_byte(&mut child);
    interrupt(&child);
    stdin.write_all(b"/help\n").unwrap();
    drop(stdin);
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let (cancelled, help) = (run.stderr.find("cancelled"), run.stderr.find("/reset"));
    assert!(cancelled.is_some() && help > cancelled, "{}", run.stderr);
}

/// Waits until the program handles SIGINT.
#[cfg(target_os = "linux")]
fn ready(child: &Child) {
    let path = format!("/proc/{}/status", child.id());
    loop {
        let status = std::fs::read_to_string(&path).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        // SIGINT is signal 2.
        if u64::from_str_radix(caught.trim(), 16).unwrap() & 2 != 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn chat_leaves_at_the_prompt() {
    let mut child = command(&["chat"]).spawn().unwrap();
    let stdin = child.stdin.take().unwrap();
    ready(&child);
    interrupt(&child);
    let run: Run = child.wait_with_output().unwrap().into();
    drop(stdin);
    assert_eq!(run.code, Some(130), "{}", run.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn bench_ends() {
    let child = command(&["bench", "--repeat", "1000", "--no-limits"]).spawn().unwrap();
    ready(&child);
    interrupt(&child);
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!((run.code, run.stdout.as_str()), (Some(130), ""), "{}", run.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn pack_leaves_nothing_behind() {
    let dir = crate::support::empty_dir("interrupted-pack");
    let out = dir.join("m");
    let child = command(&["pack", "--shape", "llama-3.2-1b", out.to_str().unwrap(), "--threads", "1"])
        .spawn()
        .unwrap();
    // As soon as there is something that could be left.
    while std::fs::read_dir(&dir).unwrap().count() == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    interrupt(&child);
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!(run.code, Some(130), "{}", run.stderr);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}
