use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::error::ErrorKind;
use crate::options::{Driver, GenerateOptions, RuntimeOptions};

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(60);

fn options() -> ModelOptions {
    ModelOptions::default().max_batch(4_u32).prefill_chunk(32_u32)
}

fn greedy() -> GenerateOptions {
    GenerateOptions::default().temperature(0.0).ignore_eos(true).max_tokens(12_u32)
}

/// A pool with room for so many halves of a model, and some requests.
fn pool(halves: u64, driver: Driver) -> ModelPool {
    counting_loads(halves, driver, &Arc::default())
}

/// As [`pool`]; counts how often models are loaded.
fn counting_loads(halves: u64, driver: Driver, loads: &Arc<AtomicUsize>) -> ModelPool {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(1_u32)).unwrap();
    let bytes = runtime.plan(&Source::Builtin, &options()).unwrap().load_bytes;
    let budget = bytes * halves / 2 + (1 << 20);
    assert!(bytes / 2 > 1 << 20, "what requests take is no model");
    let options = RuntimeOptions::default().threads(1_u32).driver(driver).memory_budget(budget);
    let loads = Arc::clone(loads);
    let runtime = Runtime::with_log(&options, move |record| {
        loads.fetch_add(usize::from(record.message.contains("loaded")), Ordering::SeqCst);
    });
    ModelPool::new(&runtime.unwrap()).unwrap()
}

fn with_models(halves: u64, names: &[&str]) -> ModelPool {
    let pool = pool(halves, Driver::Caller);
    for name in names {
        pool.add(name, PoolModel::new(Source::Builtin, options())).unwrap();
    }
    pool
}

fn loaded(pool: &ModelPool) -> Vec<String> {
    let there = pool.status().into_iter().filter(|model| model.state == PoolState::Loaded);
    there.map(|model| model.name).collect()
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_was_used_longest_ago_gives_way() {
    let pool = with_models(5, &["a", "b", "c"]);
    for name in ["a", "b", "a"] {
        pool.get(name, NOW).unwrap().generate("Once", &greedy()).unwrap();
    }
    assert_eq!(loaded(&pool), ["a", "b"]);
    let c = pool.get("c", NOW).unwrap();
    assert_eq!(loaded(&pool), ["a", "c"]);
    // What is in use stays: a handle, a session, a stream.
    let session = c.session().unwrap();
    drop(c);
    assert!(pool.get("b", NOW).is_ok());
    assert_eq!(loaded(&pool), ["b", "c"]);
    let stream = pool.get("b", NOW).unwrap().stream("Once", &greedy()).unwrap();
    let error = pool.get("a", NOW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfBudget);
    assert!(error.detail()["needed"].as_u64() > error.detail()["budget"].as_u64().map(|budget| budget / 3));
    assert_eq!(loaded(&pool), ["b", "c"]);
    // One that waits gets the room of the one that ends first.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.get("a", LONG).unwrap().generate("Once", &greedy()).unwrap());
        until("it waits", || pool.status()[0].state == PoolState::Loading);
        assert_eq!(stream.finish().unwrap().token_ids.len(), 12);
        assert_eq!(waiting.join().unwrap().token_ids.len(), 12);
    });
    assert_eq!(loaded(&pool), ["a", "c"]);
    drop(session);
    let runtime = pool.runtime().clone();
    drop(pool);
    assert_eq!(runtime.memory_used(), 0);
}

#[test]
fn pinned_models_stay_andanothers_are_not_unloaded_in_vain() {
    let pool = pool(5, Driver::Caller);
    pool.add("pinned", PoolModel::new(Source::Builtin, options()).pin(true)).unwrap();
    pool.add("other", PoolModel::new(Source::Builtin, options())).unwrap();
    let large = options().max_batch(4096_u32).prefill_chunk(65_536_u32);
    pool.add("large", PoolModel::new(Source::Builtin, large)).unwrap();
    for name in ["pinned", "other"] {
        pool.get(name, NOW).unwrap();
    }
    let error = pool.get("large", LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfBudget);
    assert_eq!(loaded(&pool), ["other", "pinned"]);
    pool.add("third", PoolModel::new(Source::Builtin, options())).unwrap();
    pool.get("third", NOW).unwrap();
    assert_eq!(loaded(&pool), ["pinned", "third"]);
    // By name, it goes.
    let handle = pool.get("pinned", NOW).unwrap();
    assert!(!pool.unload("pinned").unwrap());
    drop(handle);
    assert!(pool.unload("pinned").unwrap());
    assert_eq!(loaded(&pool), ["third"]);
}

#[test]
fn those_who_ask_together_load_it_once() {
    let loads = Arc::default();
    let pool = counting_loads(4, Driver::Caller, &loads);
    pool.add("a", PoolModel::new(Source::Builtin, options())).unwrap();
    pool.add("missing", PoolModel::new(Source::Path("/no/such/model".into()), options())).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| pool.get("a", LONG).unwrap().generate("Once", &greedy()).unwrap());
            scope.spawn(|| assert_eq!(pool.get("missing", LONG).unwrap_err().kind(), ErrorKind::NotFound));
        }
    });
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert_eq!(pool.status()[1].state, PoolState::Unloaded);
}

#[test]
fn instances_share_the_weights_and_the_requests() {
    let pool = pool(20, Driver::Caller);
    let model = PoolModel::new(Source::Builtin, options());
    pool.add("a", model.instance(options().max_batch(1_u32)).instance(options().max_queue(1_u32))).unwrap();
    let handles: Vec<Model> = (0..4).map(|_| pool.get("a", NOW).unwrap()).collect();
    let status = pool.status().remove(0);
    assert_eq!(status.users.iter().sum::<u64>(), 4);
    assert_eq!((status.users.len(), *status.users.iter().min().unwrap()), (3, 1));
    let plan = &handles[0].info().plan;
    assert!(status.bytes < plan.weights_bytes + 3 * plan.scratch_bytes + (1 << 20));
    let mut batches: Vec<u32> = handles[..3].iter().map(|model| model.max_batch().unwrap()).collect();
    batches.sort_unstable();
    assert_eq!(batches, [1, 4, 4]);
    let texts: Vec<_> =
        handles.iter().map(|model| model.generate("Once", &greedy()).unwrap().token_ids).collect();
    assert!(texts.windows(2).all(|pair| pair[0] == pair[1]));
    // Metrics tell them from each other, and say where they are from.
    let another = pool.runtime().load(&Source::Builtin, &options()).unwrap();
    let found = pool.runtime().metrics().models;
    let of_pool = |id| found.iter().find(|model| model.id == id).unwrap().pool_name.as_deref();
    assert!(handles.iter().all(|model| of_pool(model.info().id) == Some("a")));
    let ids: Vec<u64> = found.iter().map(|model| model.id).collect();
    assert_eq!((ids, of_pool(another.info().id)), (vec![1, 2, 3, 4], None));
    drop(another);
    // Closing gives up the handle, not the model.
    handles[0].close();
    assert_eq!(handles[0].session().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(pool.status()[0].users.iter().sum::<u64>(), 3);
    assert!(handles.iter().skip(1).all(|model| model.session().is_ok()));
}

#[test]
fn models_that_nobody_uses_are_unloaded() {
    let soon = Duration::from_millis(30);
    let model = || PoolModel::new(Source::Builtin, options()).idle_unload(soon);
    for driver in [Driver::Thread, Driver::Caller] {
        let pool = pool(9, driver);
        pool.add("a", model()).unwrap();
        pool.add("pinned", model().pin(true)).unwrap();
        pool.add("b", PoolModel::new(Source::Builtin, options())).unwrap();
        let used = pool.get("a", NOW).unwrap();
        for name in ["b", "pinned"] {
            drop(pool.get(name, NOW).unwrap());
        }
        std::thread::sleep(soon * 3);
        assert_eq!(loaded(&pool), ["a", "b", "pinned"]);
        drop(used);
        if driver == Driver::Caller {
            std::thread::sleep(soon * 3);
            pool.get("b", NOW).unwrap();
            assert_eq!(loaded(&pool), ["b", "pinned"]);
        }
        until("it is unloaded", || loaded(&pool) == ["b", "pinned"]);
        assert!(pool.get("a", NOW).unwrap().generate("Once", &greedy()).is_ok());
    }
}

#[test]
fn who_waits_can_be_cancelled_and_comes_to_an_end() {
    let pool = with_models(3, &["a", "b", "c"]);
    let _used = pool.get("a", NOW).unwrap();
    let cancel = CancelHandle::default();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.get_until("b", LONG, &cancel).unwrap_err().kind());
        until("it waits", || pool.status()[1].state == PoolState::Loading);
        // After it: another model, and the same.
        let short = Duration::from_millis(50);
        let error = pool.get("c", short).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(error.detail()["retry_after_ms"].as_u64() > Some(0));
        assert_eq!(pool.get("b", short).unwrap_err().kind(), ErrorKind::Overloaded);
        let same = scope.spawn(|| pool.get("b", LONG).unwrap().generate("Once", &greedy()).is_ok());
        std::thread::sleep(short);
        cancel.cancel();
        assert_eq!(waiting.join().unwrap(), ErrorKind::Cancelled);
        // It waits on, in place of the one that has gone.
        until("it waits", || pool.status()[1].state == PoolState::Loading);
        pool.remove("a").unwrap();
        drop(_used);
        assert!(same.join().unwrap());
    });
    assert_eq!(pool.get("d", NOW).unwrap_err().kind(), ErrorKind::InvalidArgument);
    for (name, model) in [
        ("", PoolModel::new(Source::Builtin, options())),
        ("b", PoolModel::new(Source::Builtin, options())),
        ("e", PoolModel { instances: Vec::new(), ..PoolModel::new(Source::Builtin, options()) }),
        ("e", PoolModel::new(Source::Builtin, options().max_batch(0_u32))),
    ] {
        assert_eq!(pool.add(name, model).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

/// Threads that ask for models in any order, with room for two and a half of four.
#[test]
fn everybody_is_served_within_the_budget() {
    let names = ["a", "b", "c", "d"];
    for driver in [Driver::Caller, Driver::Thread] {
        let loads = Arc::default();
        let pool = counting_loads(5, driver, &loads);
        let bytes = pool.runtime().plan(&Source::Builtin, &options()).unwrap().load_bytes;
        for name in names {
            let idle = (name == "d").then_some(Duration::from_millis(1));
            pool.add(name, PoolModel::new(Source::Builtin, options()).idle_unload(idle)).unwrap();
        }
        let expected = Model::builtin().unwrap().generate("The dog", &greedy()).unwrap().token_ids;
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let (pool, expected) = (&pool, &expected);
                scope.spawn(move || {
                    for round in 0..12_usize {
                        let name = names[(thread * 7 + round * (thread + 1) + round * round) % 4];
                        let model = pool.get(name, LONG * 5).unwrap();
                        let stream = model.stream("The dog", &greedy()).unwrap();
                        drop(model);
                        // As the models say themselves, while some of them are loaded and unloaded.
                        let status = pool.status();
                        let there = status.iter().filter(|model| model.state == PoolState::Loaded);
                        let held: Vec<u64> = there.map(|model| model.bytes).collect();
                        assert!(held.len() <= 2 && held.iter().all(|&held| held > bytes / 2), "{held:?}");
                        assert!(held.iter().sum::<u64>() <= pool.runtime().memory_budget().unwrap());
                        assert!(&stream.finish().unwrap().token_ids == expected);
                    }
                });
            }
        });
        assert!(pool.status().iter().all(|model| model.state != PoolState::Loading));
        assert!(loads.load(Ordering::SeqCst) > 4, "some gave way to others");
        let runtime = pool.runtime().clone();
        drop(pool);
        until("all is freed", || runtime.memory_used() == 0);
    }
}

#[test]
fn a_stream_that_was_read_to_its_end_uses_no_model() {
    for driver in [Driver::Caller, Driver::Thread] {
        let pool = pool(3, driver);
        for name in ["a", "b"] {
            pool.add(name, PoolModel::new(Source::Builtin, options())).unwrap();
        }
        let mut stream = pool.get("a", NOW).unwrap().stream("Once", &greedy()).unwrap();
        assert_eq!(pool.status()[0].users, [1]);
        while stream.next_event().unwrap().is_some() {}
        assert_eq!(pool.status()[0].users, [0]);
        // Its memory is free, though the stream is there.
        let b = pool.get("b", LONG).unwrap();
        assert_eq!(loaded(&pool), ["b"]);
        assert!(stream.next_event().unwrap().is_none());
        // A session goes on using its model, whatever its streams do.
        let mut session = b.session().unwrap();
        drop(b);
        session.append("Once", crate::tokenizer::AddSpecialTokens::No).unwrap();
        let mut of_session = session.stream(&greedy()).unwrap();
        while of_session.next_event().unwrap().is_some() {}
        assert_eq!(pool.status()[1].users, [1]);
        drop(session);
        assert_eq!(pool.status()[1].users, [0]);
        drop((stream, of_session));
        pool.get("a", LONG).unwrap().generate("Once", &greedy()).unwrap();
    }
}
