//! What becomes of pages that are on their way back, and of those that come from files.

use super::tests_swap::{bench, prompt};
use super::*;
use crate::runtime::Faults;

/// Who gives up pages that are being read, or are to be read, gives up their memory: the next one does not find it missing.
#[test]
fn what_is_given_up_while_it_is_read_is_free() {
    let mut bench = bench(80, 64, 64 << 20);
    bench.space.set_faults(Faults { slow: true, ..Faults::default() });
    let evict = |engine: &mut Engine, id| assert!(engine.evict(id));
    let ways: [fn(&mut Engine, SequenceId); 3] = [Engine::close, evict, Engine::discard];
    for give_up in ways {
        // The thread reads the first one's pages; the second one waits for that.
        let ids = [(); 2].map(|()| bench.engine.open().unwrap());
        for id in ids {
            let running = bench.start(id, &prompt(600, 1), 5);
            bench.finish(&running);
            assert!(bench.engine.evict(id));
        }
        bench.engine.cache.trim_reserve();
        assert_eq!(bench.budget.used(), 0);
        ids.iter().for_each(|&id| drop(bench.start(id, &[3], 5)));
        bench.step();
        assert!(bench.engine.reading_bytes() > 0 && bench.budget.used() >= bench.engine.reading_bytes());
        ids.iter().for_each(|&id| give_up(&mut bench.engine, id));
        bench.engine.cache.trim_reserve();
        assert_eq!((bench.engine.reading_bytes(), bench.budget.used()), (0, 0));
        ids.iter().for_each(|&id| bench.engine.close(id));
    }
    bench.end();
}

#[derive(Debug, Default)]
struct Woken(std::sync::atomic::AtomicU32);

impl Sleeper for Woken {
    fn wake(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }

    fn is_gone(&self) -> bool {
        false
    }
}

/// The thread that computes for several models does not wait for the pages of one; it is woken when they are there.
#[test]
fn who_has_other_work_is_woken_when_pages_are_there() {
    let mut bench = bench(80, 64, 64 << 20);
    let woken = Arc::new(Woken::default());
    bench.engine.wake_when_read(Some(Arc::<Woken>::clone(&woken)));
    let count = || woken.0.load(std::sync::atomic::Ordering::SeqCst);
    let id = bench.engine.open().unwrap();
    let running = bench.start(id, &prompt(600, 1), 5);
    bench.finish(&running);
    assert!(!bench.engine.waits_for_pages() && bench.engine.evict(id));
    bench.space.set_faults(Faults { slow: true, unreadable: true, ..Faults::default() });
    for round in 1..3 {
        let running = bench.start(id, &[3], 5);
        assert!(bench.engine.step_at_once(&bench.model).unwrap());
        assert!(bench.engine.waits_for_pages(), "{round}");
        while count() < round {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        // Also where they cannot be read.
        assert!(bench.engine.step_at_once(&bench.model).unwrap() && !bench.engine.waits_for_pages());
        assert_eq!(bench.metrics().swap_failures, 1);
        bench.finish(&running);
        assert!(bench.engine.evict(id));
        bench.space.set_faults(Faults { slow: true, ..Faults::default() });
    }
    bench.end();
}

/// What a file says of a sequence is that sequence's matter: others with the same tokens get what they compute.
#[test]
fn what_was_restored_is_not_given_to_others() {
    let mut bench = bench(200, 200, 64 << 20);
    bench.engine.cache.keep_prefixes(1 << 30);
    let id = bench.engine.open().unwrap();
    let running = bench.start(id, &prompt(200, 1), 5);
    bench.finish(&running);
    let held = bench.engine.hold(id).unwrap();
    let Held { tokens, computed, image: Image::Cached(pages), .. } = bench.engine.held(held).unwrap() else {
        panic!("swapped out")
    };
    let page = |page| bench.engine.cache.page_bytes_of(page).unwrap().concat();
    let bytes: Vec<u8> = pages.into_iter().flat_map(page).collect();
    [id, held].into_iter().for_each(|id| bench.engine.close(id));
    bench.engine.cache.forget_prefixes();
    // The tokens that somebody wants others to have seen.
    let floats = bytes.as_chunks().0.iter().map(|float| f32::from_le_bytes(*float));
    let forged: Vec<u8> = floats.flat_map(|float| (float + 1.0).to_le_bytes()).collect();
    let restored = bench.engine.open().unwrap();
    let pages = bench.engine.lend_pages(computed).unwrap();
    pages.read(&mut forged.as_slice()).unwrap();
    bench.engine.append(restored, &tokens).unwrap();
    bench.engine.restore(restored, Some(pages), None, false).unwrap();
    let fork = bench.engine.fork(restored).unwrap();
    for id in [restored, fork] {
        let running = bench.start(id, &prompt(100, 2), 5);
        while bench.ended(&running).is_none() {
            bench.step();
        }
        assert!(bench.engine.evict(id));
    }
    let running = bench.start(restored, &prompt(100, 2), 5);
    while bench.ended(&running).is_none() {
        bench.step();
    }
    // They do not even wait for one whose pages they will not get.
    let other = bench.engine.open().unwrap();
    let running = bench.start(other, &[&tokens[..], &prompt(100, 2)].concat(), 5);
    assert_eq!(bench.finish(&running).usage.cached_tokens, 0);
    // Once it has computed all again, they do.
    bench.engine.discard(restored);
    bench.engine.cache.forget_prefixes();
    let running = bench.start(restored, &prompt(10, 4), 5);
    while bench.ended(&running).is_none() {
        bench.step();
    }
    let known = bench.engine.tokens(restored).unwrap()[..300].to_vec();
    let last = bench.engine.open().unwrap();
    let running = bench.start(last, &known, 5);
    assert_eq!(bench.finish(&running).usage.cached_tokens, 192);
    bench.engine.cache.forget_prefixes();
    bench.end();
}
