//! The same bits, and an end, where threads get less of the processor than they ask for. Nothing here looks at time.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clawdbot_core::{GenerateOptions, Model, ModelOptions, Prompt, Runtime, RuntimeOptions, Source};

fn load(threads: u32) -> Model {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(threads)).unwrap();
    runtime.load(&Source::Builtin, &ModelOptions::default()).unwrap()
}

/// Tokens of several prompts of different lengths, decoded together, and the logits of one.
fn results(model: &Model) -> (Vec<Vec<u32>>, Vec<u32>) {
    let options = GenerateOptions::default().max_tokens(24_u32).temperature(0.0).ignore_eos(true);
    let prompt = |length: u32| Prompt::Tokens((0..length).map(|i| 3 + i * 37 % 500).collect());
    let completions = model.generate_batch([1, 9, 70, 150].map(prompt).to_vec(), &options);
    let tokens = completions.into_iter().map(|completion| completion.unwrap().token_ids).collect();
    let logits = model.logits(&[5, 6, 7, 8, 9]).unwrap();
    (tokens, logits.iter().map(|x| x.to_bits()).collect())
}

/// Ends the busy threads, whatever happens.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn beside_busy_threads() {
    let expected = results(&load(1));
    let done = AtomicBool::new(false);
    let cores = thread::available_parallelism().unwrap().get();
    thread::scope(|scope| {
        let _ends = Ends(&done);
        for _ in 0..2 * cores {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        // As many threads as cores, and four times as many.
        for threads in [cores, 4 * cores] {
            assert!(results(&load(threads as u32)) == expected, "{threads} threads");
        }
    });
}

/// As under a quota of one core: whoever spins keeps the others from working.
#[cfg(target_os = "linux")]
#[test]
fn all_threads_on_one_core() {
    let expected = results(&load(1));
    let pinned = thread::spawn(|| {
        // SAFETY: the set is all zeros before a core is put into it, and outlives the calls.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            let size = std::mem::size_of_val(&set);
            assert_eq!(libc::sched_getaffinity(0, size, &raw mut set), 0);
            let first = (0..libc::CPU_SETSIZE as usize).find(|&core| libc::CPU_ISSET(core, &set)).unwrap();
            libc::CPU_ZERO(&mut set);
            libc::CPU_SET(first, &mut set);
            assert_eq!(libc::sched_setaffinity(0, size, &raw const set), 0);
        }
        // Threads inherit it; where they are counted, there is one core.
        let counted = Runtime::new(&RuntimeOptions::default()).unwrap().threads();
        (counted, [2, 5].map(|threads| results(&load(threads))))
    });
    let (counted, found) = pinned.join().unwrap();
    assert_eq!(counted, 1);
    assert!(found.iter().all(|found| *found == expected));
}
