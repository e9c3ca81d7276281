//! What a runtime counts is what its requests report.
#![allow(clippy::unwrap_used, reason = "a test")]

use clawdbot_core::{
    Driver, ErrorKind, GenerateOptions, ModelOptions, Prompt, Runtime, RuntimeOptions, Source,
};

#[test]
fn counts_are_those_of_the_requests() {
    for driver in [Driver::Caller, Driver::Thread] {
        let runtime = Runtime::new(&RuntimeOptions::default().threads(2_u32).driver(driver)).unwrap();
        let options = ModelOptions::default().max_batch(2_u32).max_queue(Some(3)).prefix_cache(Some(true));
        let model = runtime.load(&Source::Builtin, &options).unwrap();
        let other = runtime.load(&Source::Builtin, &ModelOptions::default()).unwrap();
        let options = GenerateOptions::default().temperature(0.0).ignore_eos(true).max_tokens(9_u32);
        let prompt = |salt: u32| Prompt::Tokens((0..100).map(|i| 3 + (i * 7 + salt) % 400).collect());
        let mut prompt_tokens = 0;
        let mut cached = 0;
        for salt in [1, 1, 2] {
            let usage = model.generate(prompt(salt), &options).unwrap().usage;
            prompt_tokens += usage.prompt_tokens as u64;
            cached += usage.cached_tokens as u64;
        }
        assert_eq!(cached, 99);
        let stopped = model.stream(prompt(3), &options).unwrap();
        stopped.cancel_handle().cancel();
        prompt_tokens += stopped.finish().unwrap().usage.prompt_tokens as u64;
        let late = options.clone().deadline_ms(Some(0));
        prompt_tokens += model.generate(prompt(4), &late).unwrap().usage.prompt_tokens as u64;
        let metrics = runtime.metrics();
        assert_eq!((metrics.models.len(), metrics.memory_used), (2, runtime.memory_used()));
        let ids = metrics.models.iter().map(|model| model.id).collect::<Vec<_>>();
        assert_eq!(ids, [model.info().id, other.info().id]);
        assert!(ids[0] < ids[1] && metrics.models[0].model == metrics.models[1].model);
        let found = &metrics.models[0];
        assert_eq!((found.prompt_tokens, found.cached_tokens), (prompt_tokens, cached));
        let outcomes = &found.requests;
        assert_eq!((outcomes.length, outcomes.cancelled, outcomes.deadline, outcomes.failed), (3, 1, 1, 0));
        assert_eq!((found.running, found.waiting, found.preemptions), (0, 0, 0));
        assert!(found.generated_tokens >= 27 && found.generated_tokens <= 28, "{}", found.generated_tokens);
        assert_eq!(
            found.time_to_first_token_seconds.count + found.inter_token_seconds.count,
            found.generated_tokens
        );
        assert!(found.passes >= 27 && found.computed_tokens >= 3 * 100 - 99 + 24);
        assert!(found.prefix_cache_bytes > 0 && found.kv_bytes >= 128 << 10);
        assert!(found.prefix_cache_bytes <= found.kv_bytes, "{found:?}");
        assert!(found.request_seconds.sum >= found.decode_seconds.sum && found.request_seconds.count >= 3);
        assert_eq!(metrics.models[1].passes, 0);
        assert!(serde_json::to_value(&metrics).unwrap()["models"][0]["queue_seconds"]["counts"].is_array());
        // More than may wait, while nobody computes.
        if driver == Driver::Caller {
            let streams: Vec<_> = (0..5).map(|salt| model.stream(prompt(salt), &options)).collect();
            let refused = streams.iter().filter_map(|stream| stream.as_ref().err()).map(|error| error.kind());
            assert_eq!(refused.collect::<Vec<_>>(), [ErrorKind::Overloaded; 2]);
            // Though no pass has been computed since they came.
            let metrics = runtime.metrics();
            let found = &metrics.models[0];
            assert_eq!((found.requests.refused, found.running, found.waiting), (2, 0, 3));
            // What is refused changes nothing.
            let mut session = model.session().unwrap();
            session.append(vec![5, 6, 7], clawdbot_core::AddSpecialTokens::No).unwrap();
            assert_eq!(session.generate(&options).unwrap_err().kind(), ErrorKind::Overloaded);
            assert_eq!(session.tokens().unwrap(), [5, 6, 7]);
            let before = runtime.metrics().models[0].requests.cancelled;
            drop(streams);
            assert_eq!(runtime.metrics().models[0].requests.cancelled, before + 3);
            assert!(session.generate(&options).is_ok());
        }
        drop(other);
        // The driver thread may look at it once more.
        while runtime.metrics().models.len() > 1 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}
