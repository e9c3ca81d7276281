//! What `in_child` must notice: a check of hostile cases that cannot fail would be worth nothing.
#![cfg(target_os = "linux")]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

#[path = "support/child.rs"]
#[allow(unsafe_code, reason = "limits of a process")]
mod child;

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use child::{Limits, in_child};

const SMALL: Limits = Limits { address_space: 2000, peak: 100, cpu: 1 };

/// Checks that `in_child` fails for `body`, and with which words.
#[track_caller]
fn noticed<F: FnOnce()>(words: &[&str], body: F) {
    if child::is_child() {
        return in_child(SMALL, body);
    }
    let panic = catch_unwind(AssertUnwindSafe(|| in_child(SMALL, body))).expect_err("nothing was noticed");
    let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(words.iter().any(|words| message.contains(words)), "expected {words:?}, found {message:?}");
}

/// Takes `mib` MiB of memory and writes to each page.
fn touch(mib: usize) -> Vec<u8> {
    black_box(vec![1; mib << 20])
}

#[test]
fn what_ends_well_passes() {
    in_child(SMALL, || println!("{}", touch(20).len()));
}

#[test]
fn memory_of_the_parent_does_not_count() {
    let held = if child::is_child() { Vec::new() } else { touch(200) };
    in_child(SMALL, || ());
    drop(black_box(held));
}

#[test]
fn a_panic_is_noticed() {
    noticed(&["exit status: 101"], || panic!("on purpose"));
}

#[test]
fn an_abort_is_noticed() {
    noticed(&["ended by signal Some(6)"], || std::process::abort());
}

#[test]
fn memory_that_is_not_there_is_noticed() {
    noticed(&["ended by signal Some(6)"], || drop(black_box(Vec::<u8>::with_capacity(3 << 30))));
}

#[test]
fn much_memory_is_noticed() {
    noticed(&["100 are allowed"], || drop(touch(150)));
}

#[test]
fn a_loop_without_end_is_noticed() {
    // By the limit of its time, or on a machine that gives it none, by that of ours.
    noticed(&["ended by signal Some(24)", "no end"], || while black_box(true) {});
}

#[test]
fn a_wait_without_end_is_noticed() {
    noticed(&["no end"], || std::thread::sleep(Duration::from_secs(3600)));
}

#[test]
fn words_on_stderr_are_noticed() {
    noticed(&["on stderr: a word"], || eprintln!("a word"));
}

#[test]
fn a_panic_that_was_caught_is_noticed() {
    noticed(&["on stderr:"], || drop(catch_unwind(|| panic!("on purpose"))));
}

#[test]
fn an_early_exit_is_noticed() {
    noticed(&["the child ran no test"], || std::process::exit(0));
}

#[test]
fn a_body_of_no_test_is_noticed() {
    fn no_test() {
        in_child(SMALL, || ());
    }
    let panic = catch_unwind(no_test).expect_err("nothing was noticed");
    assert!(panic.downcast_ref::<String>().unwrap().contains("the child ran no test"));
}
