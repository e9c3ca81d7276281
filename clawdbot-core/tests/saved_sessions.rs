//! Sessions in files: what is restored goes on with the same bits and computes nothing again, and what is not whole is refused.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

#[path = "support/requests.rs"]
mod requests;
mod support;

use std::io::{self, Read, Write};
use std::path::Path;

use clawdbot_core::{
    AddSpecialTokens, Error, ErrorKind, KvType, Model, ModelOptions, Session, Source, WeightType,
};
use requests::{bits, greedy, load, prompt};
use support::child::{Limits, in_child};

/// Full attention; windows; shared keys; latent attention; recurrent states of four kinds.
const FAMILIES: [&str; 8] =
    ["llama_yarn", "gemma2", "gpt_oss", "deepseek_v3", "gemma4", "lfm2", "qwen3_5_moe", "granite4"];

fn sources() -> Vec<Source> {
    let families = FAMILIES.map(|name| Source::Path(support::family(name)));
    std::iter::once(Source::Builtin).chain(families).collect()
}

/// A conversation of `length` tokens and seven of an answer.
fn conversation(model: &Model, length: usize) -> Session {
    let mut session = model.session().unwrap();
    session.append(prompt(length, 1), AddSpecialTokens::No).unwrap();
    session.generate(&greedy(7)).unwrap();
    session
}

fn saved(session: &Session) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = session.save_to(&mut bytes).unwrap();
    assert_eq!(written, bytes.len() as u64);
    bytes
}

fn refused(model: &Model, bytes: &[u8]) -> Error {
    let used = model.runtime().memory_used();
    let error = model.restore_session_from(bytes).unwrap_err();
    assert_eq!(model.runtime().memory_used(), used, "nothing is kept: {error}");
    error
}

#[test]
fn what_is_restored_goes_on_with_the_same_bits() {
    for source in sources() {
        for kv in [KvType::Auto, KvType::Int8] {
            let options = ModelOptions::default().kv(kv).prefill_chunk(50_u32);
            let model = load(&source, None, &options);
            for length in [1, 57, 64, 150] {
                let mut session = conversation(&model, length);
                let bytes = saved(&session);
                assert!(bytes == saved(&session), "{source:?}: the same bytes each time");
                // Another model of the same files stands for another process.
                let restored = load(&source, None, &options);
                let mut reader = bytes.as_slice();
                let mut again = restored.restore_session_from(&mut reader).unwrap();
                assert_eq!((again.tokens().unwrap(), reader.len()), (session.tokens().unwrap(), 0));
                assert!(saved(&again) == bytes, "{source:?} {kv} {length}");
                for round in 0..2 {
                    session.append(prompt(20, 5), AddSpecialTokens::No).unwrap();
                    again.append(prompt(20, 5), AddSpecialTokens::No).unwrap();
                    let (expected, found) = (session.generate(&greedy(5)), again.generate(&greedy(5)));
                    let (expected, found) = (expected.unwrap(), found.unwrap());
                    assert!(bits(&expected) == bits(&found), "{source:?} {kv} {length} {round}");
                    let cached = [&expected, &found].map(|completion| completion.usage.cached_tokens);
                    assert_eq!(cached[0], cached[1], "{source:?} {kv} {length} {round}: no prefill");
                    assert!(cached[0] >= length + 6);
                }
            }
        }
    }
}

#[test]
fn sessions_without_anything_computed_and_forks() {
    let model = Model::builtin().unwrap();
    let mut empty = model.restore_session_from(saved(&model.session().unwrap()).as_slice()).unwrap();
    assert!(empty.tokens().unwrap().is_empty());
    empty.append(prompt(90, 1), AddSpecialTokens::No).unwrap();
    let mut early = model.restore_session_from(saved(&empty).as_slice()).unwrap();
    let (expected, found) = (empty.generate(&greedy(3)).unwrap(), early.generate(&greedy(3)).unwrap());
    assert!(bits(&expected) == bits(&found));
    // A fork and what it was forked from, and a shorter one.
    let mut fork = empty.fork().unwrap();
    fork.append(prompt(10, 9), AddSpecialTokens::No).unwrap();
    fork.generate(&greedy(3)).unwrap();
    for session in [&empty, &fork] {
        assert!(saved(&model.restore_session_from(saved(session).as_slice()).unwrap()) == saved(session));
    }
    // Two that are cut where they were the same: nothing is left of what came after.
    empty.truncate(92).unwrap();
    fork.truncate(92).unwrap();
    assert!(saved(&fork) == saved(&empty));
}

#[test]
fn an_adapter_must_be_loaded() {
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/adapters"));
    let copy = support::Copy::of(&golden.join("base"), "saved-adapters");
    std::fs::copy(golden.join("../quantized/tokenizer.json"), copy.path().join("tokenizer.json")).unwrap();
    copy.edit("config.json", |config| config["max_position_embeddings"] = 256.into());
    let load = || load(&Source::from(copy.path()), None, &ModelOptions::default());
    let (model, other) = (load(), load());
    model.load_adapter("a", golden.join("everything")).unwrap();
    let options = greedy(5).adapter("a".to_owned());
    let mut session = model.session().unwrap();
    let prompt: Vec<u32> = (0..100).map(|i| 3 + i * 7 % 29).collect();
    session.append(prompt, AddSpecialTokens::No).unwrap();
    session.generate(&options).unwrap();
    let bytes = saved(&session);
    other.load_adapter("some", golden.join("some")).unwrap();
    let error = refused(&other, &bytes);
    assert!(error.message().contains("expected the adapter of the session to be loaded"), "{error}");
    other.load_adapter("of another name", golden.join("everything")).unwrap();
    let mut restored = other.restore_session_from(bytes.as_slice()).unwrap();
    let expected = session.generate(&options).unwrap();
    let found = restored.generate(&greedy(5).adapter("of another name".to_owned())).unwrap();
    assert!(bits(&expected) == bits(&found));
    assert_eq!((expected.usage.cached_tokens, found.usage.cached_tokens), (104, 104));
}

#[test]
fn what_belongs_to_something_else_is_refused() {
    let source = Source::Path(support::family("qwen3"));
    let model = load(&source, None, &ModelOptions::default());
    let session = conversation(&model, 70);
    let bytes = saved(&session);
    let others = [
        (load(&Source::Builtin, None, &ModelOptions::default()), "expected one of this model"),
        (
            load(&source, None, &ModelOptions::default().weights(WeightType::Bf16)),
            "expected one of this model",
        ),
        (
            load(&source, None, &ModelOptions::default().kv(KvType::Int8)),
            "of type int8 (option kv), found bf16",
        ),
    ];
    for (other, expected) in others {
        let error = refused(&other, &bytes);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains(expected), "{error}");
    }
    let small = load(&source, None, &ModelOptions::default().max_context(50_u32));
    assert_eq!(refused(&small, &bytes).kind(), ErrorKind::ContextOverflow);
    let error = refused(&model, b"{\"config\": \"of something else\"}");
    assert!(error.message().contains("expected a saved session, found something else"), "{error}");
    for (bytes, found) in
        [(&b""[..], "an empty file"), (b"x", "a file of 1 byte"), (b"xyz", "a file of 3 bytes")]
    {
        let error = refused(&model, bytes);
        assert!(error.message().ends_with(&format!("expected a saved session, found {found}")), "{error}");
    }
    let newer = [&bytes[..8], &9_u32.to_le_bytes(), &bytes[12..]].concat();
    let error = refused(&model, &newer);
    assert!(error.message().contains("version 1 of the format, found 9"), "{error}");
    // A packed file of the same weights is the same model.
    let dir = tempdir();
    let packed = dir.path("model.clawdbot");
    model.runtime().pack(&source, &packed, &Default::default()).unwrap();
    let packed = load(&Source::Path(packed), None, &ModelOptions::default());
    assert!(saved(&packed.restore_session_from(bytes.as_slice()).unwrap()) == bytes);
}

#[test]
fn every_cut_and_every_flipped_bit_is_an_error() {
    for (family, kv) in [("qwen3", KvType::Auto), ("lfm2", KvType::Int8)] {
        let model = load(&Source::Path(support::family(family)), None, &ModelOptions::default().kv(kv));
        let bytes = saved(&conversation(&model, 3));
        let step = (bytes.len() / 400).max(1);
        let places =
            (0..200.min(bytes.len())).chain((200..bytes.len()).step_by(step)).chain([bytes.len() - 1]);
        for at in places {
            let error = refused(&model, &bytes[..at]);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "cut at {at}: {error}");
            let mut forged = bytes.clone();
            forged[at] ^= 1 << (at % 8);
            let error = refused(&model, &forged);
            // A count may be more than the context holds.
            let expected = [ErrorKind::InvalidArgument, ErrorKind::ContextOverflow];
            assert!(expected.contains(&error.kind()), "flipped at {at}: {error}");
        }
        // The length of a file says that no such session is in it.
        let dir = tempdir();
        let path = dir.path("session");
        for bit in 0..8 * 200 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, forged).unwrap();
            let error = model.restore_session(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "bit {bit}: {error}");
        }
    }
}

struct TempDir(std::path::PathBuf);

impl TempDir {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn tempdir() -> TempDir {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("clawdbot-saved-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    TempDir(dir)
}

#[test]
fn files_are_whole_or_not_there() {
    let model = Model::builtin().unwrap();
    let session = conversation(&model, 100);
    let dir = tempdir();
    let path = dir.path("session");
    let bytes = session.save(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
    assert!(std::fs::read(&path).unwrap() == saved(&session));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // It replaces an earlier one, and nothing else.
    conversation(&model, 20).save(&path).unwrap();
    assert_eq!(model.restore_session(&path).unwrap().tokens().unwrap().len(), 27);
    let other = dir.path("notes.txt");
    std::fs::write(&other, "precious").unwrap();
    let error = session.save(&other).unwrap_err();
    assert_eq!(
        (error.kind(), error.detail()["found"].as_str()),
        (ErrorKind::InvalidArgument, Some("another file"))
    );
    assert_eq!(std::fs::read(&other).unwrap(), b"precious");
    // A prefix cache begins as a saved session does, and is none.
    let prefixes = ModelOptions::default().prefix_cache(true).prefix_cache_dir(dir.path("prefixes"));
    let kept = load(&Source::Builtin, None, &prefixes);
    kept.generate(prompt(100, 1), &greedy(1)).unwrap();
    kept.close();
    let file = std::fs::read_dir(dir.path("prefixes")).unwrap().next().unwrap().unwrap().path();
    let before = std::fs::read(&file).unwrap();
    assert_eq!(session.save(&file).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(std::fs::read(&file).unwrap() == before);
    let error = model.restore_session(&file).unwrap_err();
    assert!(error.message().contains("expected a saved session, found a prefix cache"), "{error}");
    std::fs::remove_dir_all(dir.path("prefixes")).unwrap();
    assert_eq!(session.save(dir.path("")).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(session.save(dir.path("none/session")).unwrap_err().kind(), ErrorKind::NotFound);
    #[cfg(unix)]
    {
        let link = dir.path("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(session.save(&link).unwrap_err().kind(), ErrorKind::InvalidArgument);
        std::fs::remove_file(link).unwrap();
    }
    // What is read: a file whose length is as it says.
    assert_eq!(model.restore_session(dir.path("none")).unwrap_err().kind(), ErrorKind::NotFound);
    let whole = std::fs::read(&path).unwrap();
    for changed in [whole[..whole.len() - 1].to_vec(), [&whole[..], b"x"].concat(), Vec::new()] {
        std::fs::write(&path, changed).unwrap();
        let error = model.restore_session(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.message().contains("session: expected"), "{error}");
    }
    let mut names: Vec<_> =
        std::fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["notes.txt", "session"], "no temporary file is left");
}

/// Fails, or stops taking bytes, after some.
struct Breaks(usize);

impl Write for Breaks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken == 0 { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives a byte at a time, and then an error.
struct Drips<'a>(&'a [u8]);

impl Read for Drips<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (self.0.split_first(), buffer.first_mut()) {
            (Some((&byte, rest)), Some(to)) => {
                *to = byte;
                self.0 = rest;
                Ok(1)
            }
            _ => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        }
    }
}

#[test]
fn readers_and_writers_may_fail() {
    let model = Model::builtin().unwrap();
    let session = conversation(&model, 30);
    let whole = saved(&session);
    for room in [0, 5, 100, whole.len() - 1] {
        let used = model.runtime().memory_used();
        assert_eq!(session.save_to(Breaks(room)).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(model.runtime().memory_used(), used);
        assert_eq!(model.restore_session_from(Drips(&whole[..room])).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(model.runtime().memory_used(), used);
    }
    assert!(saved(&model.restore_session_from(Drips(&whole)).unwrap()) == whole);
    // While a stream runs, there is nothing to save.
    let mut session = session;
    let stream = session.stream(&greedy(50)).unwrap();
    assert_eq!(session.save_to(Vec::new()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    drop(stream);
    session.save_to(Vec::new()).unwrap();
    model.close();
    assert_eq!(session.save_to(Vec::new()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(model.restore_session_from(whole.as_slice()).unwrap_err().kind(), ErrorKind::Closed);
}

/// Saves and restores while others need the memory: nobody fails, and all have the bits that they have alone.
#[test]
fn a_tight_budget() {
    let free = load(&Source::Builtin, None, &ModelOptions::default());
    let fixed = free.runtime().memory_used();
    let kept = saved(&conversation(&free, 300));
    let expected = free.restore_session_from(kept.as_slice()).unwrap().generate(&greedy(6)).unwrap();
    let pages = |tokens: u64| tokens.div_ceil(64) * 64 * free.info().plan.kv_bytes_per_token;
    let model = load(&Source::Builtin, Some(fixed + pages(640) + (64 << 10)), &ModelOptions::default());
    let alone: Vec<_> = (0..4).map(|i| bits(&free.generate(prompt(200, i), &greedy(9)).unwrap())).collect();
    for _ in 0..3 {
        let streams: Vec<_> = (0..4).map(|i| model.stream(prompt(200, i), &greedy(9)).unwrap()).collect();
        let mut restored = model.restore_session_from(kept.as_slice()).unwrap();
        let again = saved(&restored);
        for (stream, alone) in streams.into_iter().zip(&alone) {
            assert!(bits(&stream.finish().unwrap()) == *alone);
        }
        assert!(bits(&restored.generate(&greedy(6)).unwrap()) == bits(&expected));
        // With what was cached then, or with tokens alone.
        let mut again = model.restore_session_from(again.as_slice()).unwrap();
        assert!(bits(&again.generate(&greedy(6)).unwrap()) == bits(&expected));
    }
    let tiny = load(&Source::Builtin, Some(fixed + pages(128)), &ModelOptions::default());
    assert_eq!(refused(&tiny, &kept).kind(), ErrorKind::OutOfBudget);
}

/// Calls `f` before its last byte is read.
struct Meanwhile<'a, F>(&'a [u8], Option<F>);

impl<F: FnOnce()> Read for Meanwhile<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (last, first) = (self.0.len().saturating_sub(1), self.0);
        if last == 0
            && let Some(f) = self.1.take()
        {
            f();
        }
        let len = buffer.len().min(if last == 0 { first.len() } else { last });
        buffer[..len].copy_from_slice(&first[..len]);
        self.0 = &first[len..];
        Ok(len)
    }
}

/// Calls its function with the number of bytes that it has, before it takes more.
struct Calls<F>(Vec<u8>, F);

impl<F: FnMut(usize)> Write for Calls<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1(self.0.len());
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Nobody waits for the reader or writer of a session: who needs its memory gets it, and what was restored is computed again.
#[test]
fn slow_readers_and_writers_hinder_nobody() {
    let free = load(&Source::Builtin, None, &ModelOptions::default());
    let fixed = free.runtime().memory_used();
    let kept = saved(&conversation(&free, 500));
    let expected = free.restore_session_from(kept.as_slice()).unwrap().generate(&greedy(6)).unwrap();
    let pages = |tokens: u64| tokens.div_ceil(64) * 64 * free.info().plan.kv_bytes_per_token;
    let model = load(&Source::Builtin, Some(fixed + pages(640) + (64 << 10)), &ModelOptions::default());
    let alone = bits(&free.generate(prompt(400, 1), &greedy(9)).unwrap());
    let request = || assert!(bits(&model.generate(prompt(400, 1), &greedy(9)).unwrap()) == alone);
    let mut restored = model.restore_session_from(Meanwhile(&kept, Some(request))).unwrap();
    let answer = restored.generate(&greedy(6)).unwrap();
    assert!(bits(&answer) == bits(&expected) && answer.usage.cached_tokens == 0);
    // Another session that is restored needs the memory too, and keeps it.
    let mut other = None;
    let restore = || other = Some(model.restore_session_from(kept.as_slice()).unwrap());
    let mut restored = model.restore_session_from(Meanwhile(&kept, Some(restore))).unwrap();
    for (session, cached) in [(other.as_mut().unwrap(), true), (&mut restored, false)] {
        let answer = session.generate(&greedy(6)).unwrap();
        assert_eq!(answer.usage.cached_tokens > 0, cached);
        assert!(bits(&answer) == bits(&expected));
    }
    drop(other);
    let used = model.runtime().memory_used();
    // What a file says is checked also then.
    let mut damaged = kept.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(model.restore_session_from(Meanwhile(&damaged, Some(request))).is_err());
    assert!(model.runtime().memory_used() <= used);
    // A writer that is slow, in memory for a page more than the session has.
    let session = conversation(&model, 500);
    let tokens = session.tokens().unwrap();
    let whole = saved(&session);
    let mut asked = false;
    let mut slow = Calls(Vec::new(), |written| {
        if written > whole.len() / 2 && !std::mem::replace(&mut asked, true) {
            request();
        }
    });
    match session.save_to(&mut slow) {
        Ok(_) => assert!(slow.0 == whole),
        // Its pages were what the request needed.
        Err(error) => assert_eq!(error.kind(), ErrorKind::OutOfBudget),
    }
    assert!(asked);
    assert_eq!(session.tokens().unwrap(), tokens);
}

/// A file that claims much costs little.
#[test]
fn what_a_file_claims_is_not_allocated() {
    in_child(Limits { cpu: 20, ..Limits::default() }, || {
        let model = Model::builtin().unwrap();
        let bytes = saved(&conversation(&model, 3));
        let tokens = bytes.windows(8).position(|eight| eight == 10_u64.to_le_bytes()).unwrap();
        for claimed in [11, 200, u64::from(u32::MAX), u64::MAX] {
            let mut forged = bytes.clone();
            forged[tokens..tokens + 8].copy_from_slice(&claimed.to_le_bytes());
            forged[tokens + 8..tokens + 16].copy_from_slice(&claimed.to_le_bytes());
            let error = model.restore_session_from(forged.as_slice()).unwrap_err();
            assert!(
                [ErrorKind::InvalidArgument, ErrorKind::ContextOverflow].contains(&error.kind()),
                "{error}"
            );
        }
    });
}
