//! Threads and weights on memory nodes: the same bits, and an error for what cannot be.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clawdbot_core::{
    ErrorKind, Model, ModelOptions, Numa, PackOptions, Runtime, RuntimeOptions, Source, WeightType,
};

const PROMPT: [u32; 5] = [1, 40, 50, 60, 70];

/// A runtime that places threads and weights; `None` where the system does not let it.
fn placed(numa: Numa, threads: u32) -> Option<Runtime> {
    match Runtime::new(&RuntimeOptions::default().threads(threads).numa(numa)) {
        Ok(runtime) => Some(runtime),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert_eq!(error.detail()["option"], "numa");
            assert!(error.message().starts_with("option numa: expected a value that this machine can do"));
            support::skipped(&format!("numa {numa}: {error}"));
            None
        }
    }
}

fn bits(model: &Model) -> Vec<u32> {
    model.logits(&PROMPT).unwrap().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn placing_changes_no_bits() {
    // In f32, some of the built-in model's matrices have pages of their own.
    for weights in [WeightType::Int8, WeightType::F32] {
        let options = ModelOptions::default().weights(weights);
        let plain = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
        let expected = bits(&plain.load(&Source::Builtin, &options).unwrap());
        for numa in [Numa::Interleave, Numa::Local] {
            for threads in [1, 2, 5] {
                let Some(runtime) = placed(numa, threads) else { return };
                assert_eq!((runtime.numa(), runtime.threads()), (numa, threads as usize));
                let found = bits(&runtime.load(&Source::Builtin, &options).unwrap());
                assert!(found == expected, "{weights}, {numa}, {threads} threads");
            }
        }
    }
}

/// A packed file, removed in the end.
struct Packed(PathBuf);

impl Packed {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("clawdbot-numa-{}-{name}", std::process::id()));
        let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
        runtime.pack(&Source::Builtin, &path, &PackOptions::default()).unwrap();
        Packed(path)
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_packed_file_is_read_where_pages_are_placed() {
    let packed = Packed::new("read");
    let source = Source::from(packed.0.as_path());
    let plain = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
    let mapped = plain.load(&source, &ModelOptions::default()).unwrap();
    let expected = bits(&mapped);
    let is_mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        Some(maps.contains(packed.0.file_name()?.to_str()?))
    };
    assert_ne!(is_mapped(), Some(false));
    drop(mapped);
    for numa in [Numa::Interleave, Numa::Local] {
        let Some(runtime) = placed(numa, 2) else { return };
        for options in [ModelOptions::default(), ModelOptions::default().mmap(false)] {
            let model = runtime.load(&source, &options).unwrap();
            assert!(bits(&model) == expected, "{numa}");
            assert_ne!(is_mapped(), Some(true), "{numa}");
        }
        let asked = ModelOptions::default().mmap(true);
        for error in
            [runtime.load(&source, &asked).map(drop).unwrap_err(), runtime.plan(&source, &asked).unwrap_err()]
        {
            assert_eq!(
                (error.kind(), &error.detail()["option"]),
                (ErrorKind::InvalidArgument, &"mmap".into())
            );
            let expected = format!(
                "option mmap: expected false, as pages of mapped files cannot be placed, with numa {numa}, found true"
            );
            assert_eq!(error.message(), expected);
        }
    }
}

#[test]
fn the_log_says_where() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&log);
    if placed(Numa::Local, 2).is_none() {
        return;
    }
    let options = RuntimeOptions::default().threads(2).numa(Numa::Local);
    Runtime::with_log(&options, move |record| to.lock().unwrap().push(record.message.clone())).unwrap();
    let log = log.lock().unwrap();
    let line = log.iter().find(|line| line.starts_with("numa local: ")).unwrap();
    assert!(line.contains("threads on node "), "{line}");
}

#[cfg(not(target_os = "linux"))]
#[test]
fn elsewhere_it_is_an_error() {
    for numa in [Numa::Interleave, Numa::Local] {
        assert!(placed(numa, 1).is_none());
    }
}
