//! Prompts that begin as earlier ones did: less is computed, and the bits are those of a prompt that is computed alone.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

#[path = "support/requests.rs"]
mod requests;
mod support;

use std::sync::{Arc, Mutex};

use clawdbot_core::{
    AddSpecialTokens, Completion, ErrorKind, GenerateOptions, KvType, LogRecord, Model, ModelOptions, Prompt,
    Runtime, RuntimeOptions, Source,
};
use requests::{bits, greedy, load, prompt};

/// Tokens of a page.
const PAGE: usize = 64;

/// Families by how they attend: everything, windows, shared keys, experts, latent attention.
const FAMILIES: [&str; 8] =
    ["llama_yarn", "mistral", "gemma2", "gpt_oss", "deepseek_v3", "gemma4", "cohere2", "qwen3"];

fn sources() -> Vec<Source> {
    let families = FAMILIES.map(|name| Source::Path(support::family(name)));
    std::iter::once(Source::Builtin).chain(families).collect()
}

fn options() -> GenerateOptions {
    greedy(7)
}

fn together(model: &Model, prompts: &[Vec<u32>]) -> Vec<Completion> {
    let prompts = prompts.iter().map(|prompt| Prompt::Tokens(prompt.clone())).collect();
    model.generate_batch(prompts, &options()).into_iter().map(Result::unwrap).collect()
}

#[test]
fn what_is_known_is_not_computed_again() {
    for source in sources() {
        for kv in [KvType::Auto, KvType::Int8] {
            let cold = load(&source, None, &ModelOptions::default().kv(kv));
            let begun = prompt(2 * PAGE + 20, 1);
            let prompts: Vec<Vec<u32>> =
                (2..8).map(|salt| [begun.clone(), prompt(30 * salt as usize, salt)].concat()).collect();
            let expected: Vec<_> = prompts
                .iter()
                .map(|prompt| bits(&cold.generate(prompt.clone(), &options()).unwrap()))
                .collect();
            let load =
                || load(&source, None, &ModelOptions::default().kv(kv).prefix_cache(true).max_batch(4_u32));
            // One after the other.
            let warm = load();
            for (index, (prompt, expected)) in prompts.iter().zip(&expected).enumerate() {
                let found = warm.generate(prompt.clone(), &options()).unwrap();
                assert!(bits(&found) == *expected, "{source:?} {kv} {index}");
                let known = if index == 0 { 0 } else { begun.len() };
                assert_eq!(found.usage.cached_tokens, known, "{source:?} {kv} {index}");
            }
            // The same again: all but the last token.
            let last = prompts.last().unwrap();
            let found = warm.generate(last.clone(), &options()).unwrap();
            assert_eq!(found.usage.cached_tokens, last.len() - 1, "{source:?} {kv}");
            assert!(bits(&found) == *expected.last().unwrap(), "{source:?} {kv}");
            // At the same time: the others wait for the first one's pages.
            let found = together(&load(), &prompts);
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(bits(found) == *expected, "{source:?} {kv} {index} of a batch");
            }
            let known: Vec<usize> = found.iter().map(|found| found.usage.cached_tokens).collect();
            let shared = known[1..].iter().all(|&known| (2 * PAGE..=begun.len()).contains(&known));
            assert!(known[0] == 0 && shared, "{source:?} {kv} {known:?}");
        }
    }
}

/// Requests with one prompt that arrive together share all of it, as those do that come one after another.
#[test]
fn a_burst_shares_the_last_page_too() {
    for source in sources() {
        let cold = load(&source, None, &ModelOptions::default());
        let same = prompt(2 * PAGE + 54, 1);
        // One parts from the others in the last page, and one goes on.
        let other = [prompt(2 * PAGE + 30, 1), prompt(24, 9)].concat();
        let longer = [same.clone(), prompt(40, 5)].concat();
        let prompts = [same.clone(), same.clone(), other, longer, same.clone()];
        let expected: Vec<_> =
            prompts.iter().map(|prompt| bits(&cold.generate(prompt.clone(), &options()).unwrap())).collect();
        for chunk in [512_u32, 100] {
            let options = ModelOptions::default().prefix_cache(true).prefill_chunk(chunk).max_batch(8_u32);
            let found = together(&load(&source, None, &options), &prompts);
            assert!(found.iter().map(bits).eq(expected.iter().cloned()), "{source:?} {chunk}");
            let known: Vec<usize> = found.iter().map(|found| found.usage.cached_tokens).collect();
            let all = same.len() - 1;
            assert_eq!(known, [0, all, 2 * PAGE + 30, all + 1, all], "{source:?} {chunk}");
        }
    }
}

/// Of recurrent layers, states are kept where passes end, and where prompts part.
#[test]
fn recurrent_layers_go_on_from_states_that_are_kept() {
    for family in ["lfm2", "qwen3_next", "qwen3_5_moe", "granite4"] {
        let source = Source::Path(support::family(family));
        for chunk in [512_u32, 100] {
            let cold = load(&source, None, &ModelOptions::default());
            let options = ModelOptions::default().prefix_cache(true).prefill_chunk(chunk).max_batch(4_u32);
            let begun = prompt(2 * PAGE + 20, 1);
            let prompts: Vec<Vec<u32>> =
                (2..8).map(|salt| [begun.clone(), prompt(30 * salt as usize, salt)].concat()).collect();
            let expected: Vec<_> = prompts
                .iter()
                .map(|prompt| bits(&cold.generate(prompt.clone(), &self::options()).unwrap()))
                .collect();
            let warm = load(&source, None, &options);
            let mut known = Vec::new();
            for (prompt, expected) in prompts.iter().zip(&expected) {
                let found = warm.generate(prompt.clone(), &self::options()).unwrap();
                assert!(bits(&found) == *expected, "{family} {chunk} {}", known.len());
                known.push(found.usage.cached_tokens);
            }
            // The second one finds where they part, and leaves a state there.
            assert_eq!(known[2..], [2 * PAGE; 4], "{family} {chunk}");
            // The same again, until its own last state is kept.
            let last = prompts.last().unwrap();
            for round in 0..3 {
                let found = warm.generate(last.clone(), &self::options()).unwrap();
                assert!(bits(&found) == *expected.last().unwrap(), "{family} {chunk} again {round}");
                known.push(found.usage.cached_tokens);
            }
            assert_eq!(known.last(), Some(&((last.len() - 1) / PAGE * PAGE)), "{family} {chunk}");
            let found = together(&load(&source, None, &options), &prompts);
            assert!(found.iter().map(bits).eq(expected.iter().cloned()), "{family} {chunk} together");
            // Forks, and a prompt that is cut and goes on.
            let mut session = warm.session().unwrap();
            session.append(last.clone(), AddSpecialTokens::No).unwrap();
            session.generate(&self::options()).unwrap();
            let mut fork = session.fork().unwrap();
            for session in [&mut session, &mut fork] {
                session.truncate(last.len()).unwrap();
                assert!(bits(&session.generate(&self::options()).unwrap()) == *expected.last().unwrap());
            }
        }
    }
}

#[test]
fn conversations_and_single_requests_know_what_the_others_computed() {
    let model = load(&Source::Builtin, None, &ModelOptions::default().prefix_cache(true));
    let mut session = model.session().unwrap();
    session.append(prompt(100, 1), AddSpecialTokens::No).unwrap();
    let first = session.generate(&options()).unwrap();
    let mut fork = session.fork().unwrap();
    session.append(prompt(100, 2), AddSpecialTokens::No).unwrap();
    session.generate(&options()).unwrap();
    let so_far = session.tokens().unwrap();
    drop(session);
    // What a session generated is known too.
    let again = model.generate([so_far.clone(), vec![5]].concat(), &options()).unwrap();
    assert_eq!(again.usage.cached_tokens, so_far.len() - 1);
    fork.append(prompt(100, 2), AddSpecialTokens::No).unwrap();
    let forked = fork.generate(&options()).unwrap();
    // More than the fork had itself.
    assert!(forked.usage.cached_tokens > 100 + first.token_ids.len());
    assert_eq!(forked.usage.cached_tokens, 100 + first.token_ids.len() + 100 - 1);
    assert_eq!(fork.tokens().unwrap(), so_far);
    // Logits of every token need every token.
    let logits = model.logits(&so_far).unwrap();
    let cold = load(&Source::Builtin, None, &ModelOptions::default());
    assert!(logits.iter().zip(&cold.logits(&so_far).unwrap()).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn what_is_kept_is_bounded_and_gives_way() {
    let cold = load(&Source::Builtin, None, &ModelOptions::default());
    let plan = cold.info().plan.clone();
    let page = plan.kv_bytes_per_token * PAGE as u64;
    // Five pages are kept, entries included.
    let limit = 5 * (page + 1024);
    let options = ModelOptions::default().prefix_cache(true).prefix_cache_bytes(Some(limit));
    let warm = load(&Source::Builtin, None, &options);
    let idle = warm.runtime().memory_used();
    for salt in 0..10 {
        let long = prompt(5 * PAGE + 1, salt);
        assert!(
            bits(&warm.generate(long.clone(), &self::options()).unwrap())
                == bits(&cold.generate(long, &self::options()).unwrap())
        );
        // And the pages in reserve.
        assert!(warm.runtime().memory_used() <= idle + limit + 5 * page, "{salt}");
    }
    // The latest is still known, the first is not.
    let cached =
        |salt| warm.generate(prompt(5 * PAGE + 1, salt), &self::options()).unwrap().usage.cached_tokens;
    assert_eq!([cached(9), cached(0)], [5 * PAGE, 0]);
    // Under a budget for little more than one request, nothing is lost but what is kept.
    let budget = plan.load_bytes + 8 * page;
    let small = load(&Source::Builtin, Some(budget), &ModelOptions::default().prefix_cache(true));
    for salt in 0..6 {
        let long = prompt(6 * PAGE, salt);
        assert!(
            bits(&small.generate(long.clone(), &self::options()).unwrap())
                == bits(&cold.generate(long, &self::options()).unwrap())
        );
        assert!(small.runtime().memory_used() <= budget);
    }
    let refused = ModelOptions::default().prefix_cache_bytes(Some(1));
    let error =
        Runtime::new(&RuntimeOptions::default()).unwrap().load(&Source::Builtin, &refused).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(error.detail()["option"], "prefix_cache_bytes");
}

/// What is kept gives way to a request that needs all memory, and an index that is full can be used again.
#[test]
fn a_request_that_fits_alone_fits_with_what_is_kept() {
    for family in ["mistral", "gemma2", "llama_yarn", "lfm2"] {
        let source = Source::Path(support::family(family));
        let cold = load(&source, None, &ModelOptions::default());
        let plan = cold.info().plan.clone();
        let page = plan.kv_bytes_per_token * PAGE as u64;
        let options = self::options().max_tokens(80_u32);
        let succeeds = |budget: u64, model: &ModelOptions| {
            let runtime = RuntimeOptions::default().threads(2_u32).memory_budget(Some(budget));
            let model = Runtime::new(&runtime).unwrap().load(&source, model);
            // Not the first request: what earlier ones left has to go.
            model.and_then(|model| {
                model.generate(prompt(90, 7), &self::options())?;
                model.generate(prompt(330, 1), &options)?;
                model.generate(prompt(330, 2), &options)
            })
        };
        let budgets = (0..400).map(|step| plan.load_bytes + step * page / 4);
        let fewest = budgets.into_iter().find(|&budget| succeeds(budget, &ModelOptions::default()).is_ok());
        let fewest = fewest.unwrap();
        for limit in [None, Some(3 * page + 2048), Some(u64::MAX)] {
            let warm = ModelOptions::default().prefix_cache(true).prefix_cache_bytes(limit);
            let found = succeeds(fewest, &warm).unwrap();
            assert!(bits(&found) == bits(&cold.generate(prompt(330, 2), &options).unwrap()), "{family}");
        }
        let warm = ModelOptions::default().prefix_cache(true).prefix_cache_bytes(Some(4 * page + 4096));
        let warm = load(&source, None, &warm.prefill_chunk(200_u32));
        for salt in 0..4 {
            warm.generate(prompt(500, salt), &self::options()).unwrap();
        }
        (0..3).for_each(|_| drop(warm.generate(prompt(2 * PAGE + 9, 50), &self::options()).unwrap()));
        let again = warm.generate(prompt(2 * PAGE + 9, 50), &self::options()).unwrap();
        assert!(again.usage.cached_tokens >= 2 * PAGE, "{family}: {}", again.usage.cached_tokens);
    }
}

/// A beginning of several passes is computed once too.
#[test]
fn long_beginnings_are_shared_as_they_are_computed() {
    let options = ModelOptions::default().prefix_cache(true).prefill_chunk(128_u32);
    let warm = load(&Source::Builtin, None, &options);
    let begun = prompt(8 * PAGE, 1);
    let prompts: Vec<Vec<u32>> = (2..6).map(|salt| [begun.clone(), prompt(20, salt)].concat()).collect();
    let known: Vec<usize> = together(&warm, &prompts).iter().map(|found| found.usage.cached_tokens).collect();
    assert_eq!(known, [0, 8 * PAGE, 8 * PAGE, 8 * PAGE]);
}

/// Requests in random order from several threads, with forks, truncation and cancelling, under a tight budget: each has the
/// bits that it has alone, and in the end everything is given back.
#[test]
fn any_mix_has_the_bits_of_single_requests() {
    any_mix(&Source::Builtin);
    for family in ["gemma2", "lfm2", "qwen3_next"] {
        any_mix(&Source::Path(support::family(family)));
    }
}

fn any_mix(source: &Source) {
    let cold = load(source, None, &ModelOptions::default());
    let plan = cold.info().plan.clone();
    let page = plan.kv_bytes_per_token * PAGE as u64;
    let states = plan.kv_bytes_full_context.saturating_sub(plan.max_context as u64 * plan.kv_bytes_per_token);
    let budget = plan.load_bytes + 10 * page + 4 * states;
    let options = ModelOptions::default().prefix_cache(true).prefill_chunk(100_u32).max_batch(5_u32);
    let warm = load(source, Some(budget), &options);
    let idle = warm.runtime().memory_used();
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (cold, warm) = (&cold, &warm);
            scope.spawn(move || {
                let mut state = thread.wrapping_mul(2_654_435_761) | 1;
                let mut random = |below: u32| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) % below
                };
                for _ in 0..40 {
                    // Few beginnings, of lengths around the ends of pages.
                    let begun = prompt(60 + 64 * random(4) as usize, random(3));
                    let mut tokens = [begun, prompt(1 + random(90) as usize, random(50))].concat();
                    let mut session = warm.session().unwrap();
                    session.append(tokens.clone(), AddSpecialTokens::No).unwrap();
                    for _ in 0..random(3) {
                        match random(4) {
                            0 => {
                                let mut stream = session.stream(&self::options()).unwrap();
                                stream.next_event().unwrap();
                                drop(stream);
                                tokens = session.tokens().unwrap();
                            }
                            1 => {
                                tokens.truncate(1 + random(tokens.len() as u32) as usize);
                                session.truncate(tokens.len()).unwrap();
                            }
                            2 => session = session.fork().unwrap(),
                            _ => {
                                let more = prompt(1 + random(70) as usize, random(50));
                                session.append(more.clone(), AddSpecialTokens::No).unwrap();
                                tokens.extend(more);
                            }
                        }
                    }
                    let found = session.generate(&self::options()).unwrap();
                    let expected = cold.generate(tokens, &self::options()).unwrap();
                    assert!(bits(&found) == bits(&expected), "thread {thread}");
                    assert!(warm.runtime().memory_used() <= budget);
                }
            });
        }
    });
    // What is kept gives way to a request that needs all.
    let long = prompt(500, 99);
    warm.generate(long, &self::options()).unwrap();
    assert!(warm.runtime().memory_used() <= budget);
    warm.close();
    assert!(warm.runtime().memory_used() < idle);
}

/// A runtime that keeps what it logs.
fn logged(lines: &Arc<Mutex<Vec<String>>>) -> Runtime {
    let lines = Arc::clone(lines);
    let keep = move |record: &LogRecord| lines.lock().unwrap().push(record.message.clone());
    Runtime::with_log(&RuntimeOptions::default().threads(2_u32), keep).unwrap()
}

/// What a model leaves in a directory is known to the next one, whatever ends the first; what is wrong there is not used.
#[test]
fn a_directory_keeps_prefixes_over_a_restart() {
    let dir = std::env::temp_dir().join(format!("clawdbot-prefixes-{}", std::process::id()));
    let lines = Arc::default();
    let runtime = logged(&lines);
    let options = ModelOptions::default().prefix_cache(true).prefix_cache_dir(dir.clone());
    let mut sources = vec![Source::Builtin];
    sources.extend(["gemma4", "lfm2", "deepseek_v3"].map(|name| Source::Path(support::family(name))));
    for (index, source) in sources.iter().enumerate() {
        for kv in [KvType::Auto, KvType::Int8] {
            let options = options.clone().kv(kv);
            let cold = load(source, None, &ModelOptions::default().kv(kv));
            let expected = bits(&cold.generate(prompt(209, 1), &self::options()).unwrap());
            let files = || std::fs::read_dir(&dir).map_or(0, |entries| entries.count());
            let before = files();
            let first = runtime.load(source, &options).unwrap();
            let cached =
                |model: &Model| model.generate(prompt(209, 1), &self::options()).unwrap().usage.cached_tokens;
            assert_eq!(cached(&first), 0);
            // In the last page, too, which is not full, but for recurrent layers.
            let known = cached(&first);
            assert_eq!(known, if index == 2 { 192 } else { 208 }, "{source:?} {kv}");
            // By closing it, or by dropping it.
            if index % 2 == 0 {
                first.close();
            } else {
                drop(first);
            }
            assert_eq!(files(), before + 1, "{source:?} {kv}");
            for _ in 0..2 {
                let second = runtime.load(source, &options).unwrap();
                let found = second.generate(prompt(209, 1), &self::options()).unwrap();
                assert_eq!(found.usage.cached_tokens, known, "{source:?} {kv}");
                assert!(bits(&found) == expected, "{source:?} {kv}");
            }
            assert_eq!(files(), before + 1);
        }
    }
    let warnings = || lines.lock().unwrap().iter().filter(|line| line.contains("prefix_cache_dir:")).count();
    assert_eq!(warnings(), 0);
    // Another byte, a shorter file, something else: said, and not used.
    let largest = || {
        let entries = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.to_string_lossy().contains("builtin")).max().unwrap()
    };
    let path = largest();
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let changed = [flipped, whole[..whole.len() - 5].to_vec(), b"something else".to_vec(), Vec::new()];
    for (index, changed) in changed.into_iter().enumerate() {
        std::fs::write(&path, changed).unwrap();
        let mut known = Vec::new();
        for kv in [KvType::Auto, KvType::Int8] {
            let model = runtime.load(&Source::Builtin, &options.clone().kv(kv)).unwrap();
            known.push(model.generate(prompt(209, 1), &self::options()).unwrap().usage.cached_tokens);
        }
        known.sort_unstable();
        assert_eq!((known.as_slice(), warnings()), (&[0, 208][..], index + 1));
    }
    std::fs::remove_dir_all(&dir).unwrap();
    // A directory that cannot be made, and one without a prefix cache.
    std::fs::write(&dir, "a file").unwrap();
    let error = runtime.load(&Source::Builtin, &options).unwrap_err();
    assert_eq!((error.kind(), error.detail()["option"].as_str()), (ErrorKind::Io, Some("prefix_cache_dir")));
    std::fs::remove_file(&dir).unwrap();
    let error = runtime.load(&Source::Builtin, &options.prefix_cache(false)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(
        error.message().starts_with("option prefix_cache_dir: expected nothing, or prefix_cache true"),
        "{error}"
    );
}
