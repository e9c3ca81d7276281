//! What goes wrong must be a typed error that loses nothing: budgets, closing, cancelling, forks, bad input.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clawdbot_core::{
    AddSpecialTokens, CancelHandle, Driver, ErrorKind, Event, FinishReason, GenerateOptions, Model,
    ModelOptions, Prompt, Runtime, RuntimeOptions, Source,
};

fn runtime(options: RuntimeOptions) -> Runtime {
    Runtime::new(&options.threads(2)).unwrap()
}

fn builtin(options: ModelOptions) -> Model {
    runtime(RuntimeOptions::default()).load(&Source::Builtin, &options).unwrap()
}

fn greedy(tokens: u32) -> GenerateOptions {
    GenerateOptions::default().temperature(0.0).max_tokens(tokens).ignore_eos(true)
}

#[test]
fn the_plan_is_what_loading_takes() {
    let runtime = runtime(RuntimeOptions::default());
    let plan = runtime.plan(&Source::Builtin, &ModelOptions::default()).unwrap();
    assert_eq!(runtime.memory_used(), 0, "a plan costs nothing");
    let model = runtime.load(&Source::Builtin, &ModelOptions::default()).unwrap();
    assert_eq!(runtime.memory_used(), plan.weights_bytes + plan.scratch_bytes);
    let mut session = model.session().unwrap();
    session.append("Once", AddSpecialTokens::Yes).unwrap();
    session.generate(&greedy(3)).unwrap();
    assert_eq!(runtime.memory_used(), plan.load_bytes, "and one page");
    drop(session);
    model.close();
    assert_eq!(runtime.memory_used(), 0);
}

#[test]
fn over_budget_is_an_error_before_anything_is_loaded() {
    let plan = runtime(RuntimeOptions::default()).plan(&Source::Builtin, &ModelOptions::default()).unwrap();
    assert!(plan.fits && plan.memory_budget.is_none() && !plan.verified);
    let tight = runtime(RuntimeOptions::default().memory_budget(plan.load_bytes - 1));
    let plans = |runtime: &Runtime| runtime.plan(&Source::Builtin, &ModelOptions::default()).unwrap();
    assert!(!plans(&tight).fits && plans(&tight).memory_budget == Some(plan.load_bytes - 1));
    let error = tight.load(&Source::Builtin, &ModelOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfBudget);
    assert_eq!(error.detail()["needed"], plan.load_bytes);
    assert_eq!(tight.memory_used(), 0);
    let enough = runtime(RuntimeOptions::default().memory_budget(plan.load_bytes));
    assert!(plans(&enough).fits);
    let model = enough.load(&Source::Builtin, &ModelOptions::default()).unwrap();
    assert!(model.info().plan.fits && !plans(&enough).fits, "there is no room for a second one");
}

#[test]
fn a_small_cache_preempts_and_changes_no_token() {
    let prompts = || {
        (0..6_u32).map(|i| Prompt::Tokens((0..90).map(|j| 3 + (i * 31 + j * 7) % 400).collect())).collect()
    };
    let texts = |model: &Model| -> Vec<Vec<u32>> {
        let completions = model.generate_batch(prompts(), &greedy(60));
        completions.into_iter().map(|completion| completion.unwrap().token_ids).collect()
    };
    let roomy = builtin(ModelOptions::default());
    let plan = &roomy.info().plan;
    // Weights, scratch, and seven pages: six sequences of three pages each must take turns.
    let page = plan.load_bytes - plan.weights_bytes - plan.scratch_bytes;
    let budget = plan.load_bytes + 6 * page;
    let tight = runtime(RuntimeOptions::default().memory_budget(budget));
    let tight = tight.load(&Source::Builtin, &ModelOptions::default()).unwrap();
    assert_eq!(texts(&tight), texts(&roomy));

    // One sequence that can never fit is told so, and the model lives on.
    let error = tight.generate(vec![5; 600], &greedy(5)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfBudget);
    assert_eq!(tight.generate(vec![5; 40], &greedy(5)).unwrap().token_ids.len(), 5);
}

#[test]
fn lengths_are_checked_before_computing() {
    let model = builtin(ModelOptions::default().max_context(100_u32));
    let error = model.generate(vec![5; 101], &greedy(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContextOverflow);
    let error = model.generate(vec![5; 60], &greedy(41)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContextOverflow);
    assert_eq!(error.detail()["max_context"], 100);
    let full = model.generate(vec![5; 60], &greedy(40)).unwrap();
    assert_eq!((full.token_ids.len(), full.finish_reason), (40, FinishReason::Length));
    let open = greedy(1).max_tokens(None::<u32>);
    assert_eq!(model.generate(vec![5; 60], &open).unwrap().token_ids.len(), 40, "until the context is full");
    let vocab = model.info().vocab_size as u32;
    assert_eq!(model.generate(vec![vocab], &greedy(1)).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(model.logits(&[]).unwrap_err().kind(), ErrorKind::EmptyPrompt);
    let too_long = runtime(RuntimeOptions::default())
        .load(&Source::Builtin, &ModelOptions::default().max_context(1 << 30));
    assert_eq!(too_long.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_closed_model_says_so() {
    let model = builtin(ModelOptions::default());
    let other = model.clone();
    let mut stream = model.stream("Once", &greedy(500)).unwrap();
    assert!(matches!(stream.next_event().unwrap(), Some(Event::Token { .. })));
    other.close();
    assert_eq!(model.generate("Once", &greedy(1)).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(model.tokenizer().unwrap_err().kind(), ErrorKind::Closed);
    let end = stream.last().unwrap().unwrap();
    let Event::Done(completion) = end else { panic!("expected the end, found {end:?}") };
    assert_eq!(completion.finish_reason, FinishReason::Cancelled);
}

#[test]
fn cancelling_ends_a_prefill_and_the_model_goes_on() {
    // A long prompt in one chunk, cancelled before and during its pass. (That the pass ends within a layer: `decoder`.)
    let model = runtime(RuntimeOptions::default())
        .load(&Source::Builtin, &ModelOptions::default().prefill_chunk(1024_u32))
        .unwrap();
    let length = model.info().plan.max_context as u32 - 8;
    let prompt: Vec<u32> = (0..length).map(|i| 3 + i * 7 % 400).collect();
    let mut stream = model.stream(prompt.clone(), &greedy(4)).unwrap();
    let handle = stream.cancel_handle();
    handle.cancel();
    let Some(Event::Done(completion)) = stream.next_event().unwrap() else {
        panic!("cancelled before it began")
    };
    assert_eq!((completion.finish_reason, completion.token_ids.len()), (FinishReason::Cancelled, 0));

    let mut stream = model.stream(prompt, &greedy(4)).unwrap();
    let handle = stream.cancel_handle();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(2));
        handle.cancel();
    });
    let mut last = None;
    while let Some(event) = stream.next_event().unwrap() {
        last = Some(event);
    }
    canceller.join().unwrap();
    let Some(Event::Done(completion)) = last else { panic!("the last event is the completion") };
    // Either came first: the cancel, or the four tokens.
    let whole = completion.finish_reason == FinishReason::Length && completion.token_ids.len() == 4;
    let cut = completion.finish_reason == FinishReason::Cancelled && completion.token_ids.len() < 4;
    assert!(whole || cut, "{completion:?}");
    // The model goes on as if nothing had been.
    assert_eq!(model.generate("Once", &greedy(3)).unwrap().token_ids.len(), 3);
}

#[test]
fn logits_can_be_cancelled() {
    let model = builtin(ModelOptions::default());
    let tokens: Vec<u32> = (0..900).map(|i| 3 + i * 7 % 400).collect();
    let cancel = CancelHandle::default();
    cancel.cancel();
    let error = model.logits_until(&tokens, None, &cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    // From another thread, as often as it takes to come in between.
    let cancelled = (0..200).any(|round| {
        let cancel = CancelHandle::default();
        let other = cancel.clone();
        let canceller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(100 * round));
            other.cancel();
        });
        let outcome = model.logits_until(&tokens, None, &cancel).map_err(|error| error.kind());
        canceller.join().unwrap();
        outcome == Err(ErrorKind::Cancelled)
    });
    assert!(cancelled);
    assert_eq!(model.logits(&tokens).unwrap().len(), 900 * model.info().vocab_size);
}

#[test]
fn a_dropped_stream_leaves_others_alone() {
    let model = builtin(ModelOptions::default());
    let expected = model.generate("The fox", &greedy(30)).unwrap().token_ids;
    let mut kept = model.stream("The fox", &greedy(30)).unwrap();
    let mut dropped = model.stream("The dog", &greedy(300)).unwrap();
    kept.next_event().unwrap();
    dropped.next_event().unwrap();
    drop(dropped);
    assert_eq!(kept.finish().unwrap().token_ids, expected);
}

#[test]
fn many_threads_share_one_model() {
    let model = builtin(ModelOptions::default());
    let prompts = ["Once upon a time", "The fox", "Mia had", "In the forest"];
    let alone: Vec<_> = prompts.map(|prompt| model.generate(prompt, &greedy(40)).unwrap().token_ids).to_vec();
    std::thread::scope(|scope| {
        for (prompt, expected) in prompts.iter().zip(&alone) {
            let model = model.clone();
            scope.spawn(move || {
                for _ in 0..3 {
                    assert_eq!(&model.generate(*prompt, &greedy(40)).unwrap().token_ids, expected);
                }
            });
        }
    });
}

#[test]
fn seeds_repeat_and_stop_texts_end() {
    let model = builtin(ModelOptions::default());
    let sampled = GenerateOptions::default().temperature(0.9).seed(11).max_tokens(60_u32);
    let first = model.generate("Once upon a time", &sampled).unwrap();
    let again = model.generate("Once upon a time", &sampled).unwrap();
    assert_eq!((&first.text, &first.token_ids), (&again.text, &again.token_ids));
    assert_eq!(first.options["seed"], 11);
    // A seed that nobody gave is reported, and repeats the text.
    let open = sampled.clone().seed(None::<u64>);
    let drawn = model.generate("Once upon a time", &open).unwrap();
    let seed = drawn.options["seed"].as_u64().unwrap();
    assert_eq!(model.generate("Once upon a time", &sampled.clone().seed(seed)).unwrap().text, drawn.text);

    let words: Vec<&str> = first.text.split_inclusive(' ').collect();
    let stop = words[4..6].concat();
    let stopped = model.generate("Once upon a time", &sampled.stop(vec![stop.clone()])).unwrap();
    assert_eq!(stopped.finish_reason, FinishReason::Stop);
    assert_eq!(stopped.text, first.text[..first.text.find(&stop).unwrap()]);
}

#[test]
fn loading_can_be_cancelled_and_reports_progress() {
    let runtime = runtime(RuntimeOptions::default());
    let mut calls = Vec::new();
    let loaded = runtime.load_with_progress(&Source::Builtin, &ModelOptions::default(), |now| {
        calls.push((now.done, now.total));
        if calls.len() < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!(loaded.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(calls.len(), 3);
    assert!(calls.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[1].0 <= pair[1].1));
    assert_eq!(runtime.memory_used(), 0);
}

type Log = Arc<Mutex<Vec<String>>>;

/// A runtime, and what it logs.
fn logged() -> (Runtime, Log) {
    let log = Log::default();
    let hook = Arc::clone(&log);
    let runtime = Runtime::with_log(&RuntimeOptions::default().threads(2), move |record| {
        hook.lock().unwrap().push(record.message.clone());
    });
    (runtime.unwrap(), log)
}

/// The permission is of the process: in one of its own, looking at the CPU must not have asked for it.
#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn a_runtime_asks_for_no_tile_registers() {
    const ARCH_GET_XCOMP_PERM: libc::c_int = 0x1022;
    let permissions = || {
        let mut states = 0_u64;
        // SAFETY: the system call writes one u64 to where the pointer says, which is `states`.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &raw mut states) };
        states >> 18 & 1
    };
    support::child::in_child(support::child::Limits::default(), || {
        Runtime::available_kernels();
        Runtime::new(&RuntimeOptions::default().threads(1)).unwrap();
        assert_eq!(permissions(), 0);
    });
}

/// In a child, whose stderr must stay empty, and which says itself what else it wrote to stdout.
#[cfg(target_os = "linux")]
#[test]
fn the_log_hook_hears_and_nothing_is_printed() {
    use std::io::{Read, Seek};
    use std::os::fd::AsRawFd;

    support::child::in_child(support::child::Limits::default(), || {
        // Stdout goes into a file meanwhile.
        let path = std::env::temp_dir().join(format!("clawdbot-stdout-{}", std::process::id()));
        let mut file =
            std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        // SAFETY: both descriptors are open, and nothing else in this child process uses stdout meanwhile.
        #[allow(unsafe_code, reason = "descriptors are what is tested")]
        let stdout = unsafe {
            let stdout = libc::dup(1);
            libc::dup2(file.as_raw_fd(), 1);
            stdout
        };
        let (runtime, log) = logged();
        let model = runtime.load(&Source::Builtin, &ModelOptions::default()).unwrap();
        model.generate("Once", &greedy(3)).unwrap();
        model.generate(vec![u32::MAX], &greedy(1)).unwrap_err();
        runtime.load(&Source::Path("nowhere".into()), &ModelOptions::default()).unwrap_err();
        assert!(log.lock().unwrap().iter().any(|line| line.contains("2 threads")));
        let mut printed = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut printed).unwrap();
        // SAFETY: `stdout` is open since `dup`, and nothing else in this child process uses descriptor 1 meanwhile.
        #[allow(unsafe_code, reason = "descriptors are what is tested")]
        unsafe {
            libc::dup2(stdout, 1);
        }
        assert_eq!(printed, "");
    });
}

#[test]
fn what_generation_config_rules_out_is_not_generated() {
    let copy = support::Copy::of(&support::family("granite4_dense"), "generation");
    let generate = |keys: serde_json::Value, options: &GenerateOptions| {
        std::fs::write(copy.path().join("generation_config.json"), keys.to_string()).unwrap();
        let (runtime, log) = logged();
        let model = runtime.load(&Source::Path(copy.path().into()), &ModelOptions::default()).unwrap();
        let completion = model.generate(vec![1, 5, 9], options).unwrap();
        let said: Vec<String> =
            log.lock().unwrap().iter().filter(|line| line.contains("effect")).cloned().collect();
        (completion, said)
    };
    let (plain, said) = generate(serde_json::json!({}), &greedy(8));
    assert_eq!(said, Vec::<String>::new());
    let first = plain.token_ids[0];
    let key =
        |name: &str, value: serde_json::Value| generate(serde_json::json!({ name: value }), &greedy(8)).0;
    for (name, value) in
        [("suppress_tokens", serde_json::json!([first])), ("bad_words_ids", serde_json::json!([[first]]))]
    {
        let found = key(name, value.clone());
        assert!(!found.token_ids.contains(&first), "{name}: {:?}", found.token_ids);
        assert_eq!(found.options[name], value);
        // What a request says itself counts.
        let off = GenerateOptions::from_json(serde_json::json!({ name: [] }).as_object().unwrap()).unwrap();
        let off = off.temperature(0.0).max_tokens(8).ignore_eos(true);
        let (found, _) = generate(serde_json::json!({ name: value }), &off);
        assert_eq!(found.token_ids, plain.token_ids, "{name}");
    }
    assert_ne!(key("begin_suppress_tokens", serde_json::json!([first])).token_ids[0], first);
    let distinct = key("no_repeat_ngram_size", serde_json::json!(1)).token_ids;
    let mut sorted = distinct.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), 8, "{distinct:?}");
    let (found, said) = generate(serde_json::json!({"num_beams": 4}), &greedy(8));
    assert_eq!(found.token_ids, plain.token_ids);
    assert!(said.len() == 1 && said[0].contains("num_beams"), "{said:?}");
    // Options of a draw, without one.
    let open = GenerateOptions::default().max_tokens(1).seed(3).top_k(5);
    let (_, said) = generate(serde_json::json!({}), &open);
    assert!(said.len() == 1 && said[0].contains("top_k, seed"), "{said:?}");
    let (_, said) = generate(serde_json::json!({}), &open.temperature(0.0));
    assert_eq!(said, Vec::<String>::new());
}

#[cfg(unix)]
#[test]
fn a_forked_child_gets_an_error_and_no_hang() {
    let model = builtin(ModelOptions::default());
    model.generate("Once", &greedy(2)).unwrap();
    let session = model.session().unwrap();
    // SAFETY: the child calls only what is tested, and leaves by `_exit`.
    #[allow(unsafe_code, reason = "fork is what is tested")]
    let status = unsafe {
        match libc::fork() {
            0 => {
                let generate = model.generate("Once", &greedy(2)).map_err(|error| error.kind());
                let open = model.session().map_err(|error| error.kind()).err();
                drop(session);
                let expected = Some(ErrorKind::ForkedRuntime);
                libc::_exit(i32::from(!(generate.err() == expected && open == expected)))
            }
            child => {
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                status
            }
        }
    };
    assert_eq!(status, 0, "the child's answer");
    assert_eq!(model.generate("Once", &greedy(2)).unwrap().token_ids.len(), 2, "the parent goes on");
}

#[cfg(unix)]
#[test]
fn a_forked_child_knows_what_was_cancelled() {
    for driver in [Driver::Caller, Driver::Thread] {
        let runtime = runtime(RuntimeOptions::default().driver(driver));
        let model = runtime.load(&Source::Builtin, &ModelOptions::default()).unwrap();
        let mut running = model.stream("Once", &greedy(900)).unwrap();
        let mut stopped = model.stream("Once", &greedy(900)).unwrap();
        let mut ended = model.stream("Once", &greedy(2)).unwrap();
        while ended.next_event().unwrap().is_some() {}
        stopped.cancel_handle().cancel();
        let expected = |error: clawdbot_core::Error| {
            error.kind() == ErrorKind::Cancelled && error.message().starts_with("the request was cancelled")
        };
        // SAFETY: the child calls only what is tested, and leaves by `_exit`.
        #[allow(unsafe_code, reason = "fork is what is tested")]
        let status = unsafe {
            match libc::fork() {
                0 => {
                    let forked = running.next_event().map_err(|error| error.kind());
                    let cancelled = stopped.next_event().is_err_and(expected);
                    let end = ended.next_event();
                    let right =
                        forked == Err(ErrorKind::ForkedRuntime) && cancelled && matches!(end, Ok(None));
                    libc::_exit(i32::from(!right))
                }
                child => {
                    let mut status = 0;
                    assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                    status
                }
            }
        };
        assert_eq!(status, 0, "the child's answer with {driver}");
        assert_eq!(stopped.finish().unwrap().finish_reason, FinishReason::Cancelled);
        assert!(running.next_event().unwrap().is_some());
    }
}

/// A model whose budget leaves room for its weights, scratch and `pages` pages.
fn tight(pages: u64, more: u64) -> Model {
    let plan = runtime(RuntimeOptions::default()).plan(&Source::Builtin, &ModelOptions::default()).unwrap();
    let page = plan.load_bytes - plan.weights_bytes - plan.scratch_bytes;
    let budget = plan.load_bytes + (pages - 1) * page + more;
    runtime(RuntimeOptions::default().memory_budget(budget))
        .load(&Source::Builtin, &ModelOptions::default())
        .unwrap()
}

#[test]
fn a_consumer_that_stalls_stalls_nobody_else() {
    let model = tight(12, 0);
    let mut slow = model.stream(vec![5; 300], &greedy(400)).unwrap();
    slow.next_event().unwrap();
    // Driving these fills the queue of the one that nobody reads, and then wants its pages.
    assert_eq!(model.generate(vec![7; 100], &greedy(500)).unwrap().token_ids.len(), 500);
    assert_eq!(model.generate(vec![7; 100], &greedy(500)).unwrap().token_ids.len(), 500);
    assert_eq!(slow.finish().unwrap().token_ids.len(), 400);
}

#[test]
fn logits_come_back_whole_from_a_small_cache() {
    let tokens: Vec<u32> = (0..300).map(|i| 3 + i * 7 % 400).collect();
    let expected = builtin(ModelOptions::default()).logits(&tokens).unwrap();
    let bytes = 4 * expected.len() as u64;
    let model = tight(7, bytes);
    let mut first = model.stream(vec![5; 100], &greedy(200)).unwrap();
    first.next_event().unwrap();
    std::thread::scope(|scope| {
        let logits = scope.spawn(|| model.logits(&tokens).unwrap());
        assert_eq!(first.finish().unwrap().token_ids.len(), 200);
        assert!(logits.join().unwrap() == expected);
    });
    let error = tight(7, bytes / 2).logits(&tokens).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfBudget);
}
