//! Changing the bounds of forward passes while requests run.

use std::sync::PoisonError;

use super::loaded::{Adapters, Loaded};
use super::model::Model;
use super::plan;
use crate::engine::{Engine, reserved_bytes};
use crate::error::Result;
use crate::load::adapter::more_buffers;
use crate::options::ModelOptions;
use crate::runtime::Budget;

impl Loaded {
    /// Changes the bounds of passes, and what is reserved for them.
    ///
    /// # Errors
    /// `OutOfBudget`; nothing changes then.
    fn rebound(&self, engine: &mut Engine, adapters: &Adapters, options: &ModelOptions) -> Result<()> {
        let ModelOptions { max_batch, prefill_chunk, .. } = *options;
        let (spec, threads) = (&self.decoder.spec, self.runtime.threads());
        let buffers = plan::buffers(spec, self.max_context, max_batch, prefill_chunk, threads)?;
        let rows = max_batch.max(prefill_chunk).into();
        // Sequences may have adapters that were unloaded.
        let mut counted: Vec<_> = adapters.values().chain(engine.adapters()).collect();
        counted.sort_by_key(|adapter| adapter.id);
        counted.dedup_by_key(|adapter| adapter.id);
        let adapters = counted.into_iter().map(|adapter| more_buffers(adapter, rows));
        let requests = engine.reserves(reserved_bytes(max_batch));
        let bytes = adapters.chain([requests]).fold(buffers, u64::saturating_add);
        self.bounds.grow(bytes)?;
        engine.rebound(requests);
        // What smaller ones do not need is given back once nothing uses it.
        self.bounds.set(options, bytes);
        Ok(())
    }
}

impl Model {
    /// Most sequences of a forward pass, as the option `max_batch` or [`Model::set_max_batch`] says.
    ///
    /// # Errors
    /// `Closed`.
    pub fn max_batch(&self) -> Result<u32> {
        Ok(self.loaded()?.bounds.max_batch())
    }

    /// Changes `max_batch`, also while requests run, whose results stay the same. Waits for the pass that is computed.
    ///
    /// # Errors
    /// `InvalidArgument` for a number out of range; `OutOfBudget` if there is no memory for larger passes, and nothing
    /// changes; `Closed`, `ForkedRuntime`.
    pub fn set_max_batch(&self, max_batch: u32) -> Result<()> {
        self.rebound(|options| options.max_batch = max_batch)
    }

    /// Most tokens of a forward pass, as the option `prefill_chunk` or [`Model::set_prefill_chunk`] says.
    ///
    /// # Errors
    /// `Closed`.
    pub fn prefill_chunk(&self) -> Result<u32> {
        Ok(self.loaded()?.bounds.prefill_chunk())
    }

    /// Changes `prefill_chunk`, also while requests run, whose results stay the same. Prompts that are under way get no more
    /// tokens of a pass than before. Waits for the pass that is computed.
    ///
    /// # Errors
    /// As [`Model::set_max_batch`].
    pub fn set_prefill_chunk(&self, prefill_chunk: u32) -> Result<()> {
        self.rebound(|options| options.prefill_chunk = prefill_chunk)
    }

    fn rebound(&self, change: impl Fn(&mut ModelOptions)) -> Result<()> {
        let loaded = self.loaded()?;
        // So that no adapter comes that knows nothing of it.
        let adapters = loaded.adapters.write().unwrap_or_else(PoisonError::into_inner);
        let mut engine = loaded.engine()?;
        loop {
            let mut options = ModelOptions::default()
                .max_batch(loaded.bounds.max_batch())
                .prefill_chunk(loaded.bounds.prefill_chunk());
            change(&mut options);
            options.validate()?;
            match loaded.rebound(&mut engine, &adapters, &options) {
                // What is kept for nobody gives way, but not in vain.
                Err(error)
                    if Budget::lacking(&error).is_some_and(|lacking| lacking <= engine.held_bytes())
                        && engine.free_some() => {}
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::support;
    use crate::error::ErrorKind;
    use crate::event::Event;
    use crate::load::source::Source;
    use crate::options::{GenerateOptions, RuntimeOptions};
    use crate::runtime::Runtime;

    const PROMPTS: [&str; 5] =
        ["Once upon a time there was a little dog", "The dog", "A long day", "Tom", "One day"];

    fn load(source: &Source, budget: Option<u64>, options: &ModelOptions) -> Model {
        let mut of_runtime = RuntimeOptions::default().threads(2_u32);
        of_runtime.memory_budget = budget;
        Runtime::new(&of_runtime).unwrap().load(source, options).unwrap()
    }

    fn greedy() -> GenerateOptions {
        GenerateOptions::default().temperature(0.0).ignore_eos(true).max_tokens(24_u32)
    }

    /// Windows, recurrent layers, and neither.
    #[test]
    fn requests_that_run_keep_their_bits() {
        let families = ["gemma3", "qwen3_5"].map(|name| Source::Path(support::family(name)));
        for source in families.into_iter().chain([Source::Builtin]) {
            let model = load(&source, None, &ModelOptions::default());
            let prompts = || (0..5_u32).map(|i| (3..30 + 9 * i).map(|id| id + i).collect::<Vec<u32>>());
            let expected: Vec<Vec<u32>> =
                prompts().map(|prompt| model.generate(prompt, &greedy()).unwrap().token_ids).collect();
            let small = ModelOptions::default().max_batch(2_u32).prefill_chunk(4_u32);
            let model = load(&source, None, &small);
            let mut streams: Vec<_> =
                prompts().map(|prompt| model.stream(prompt, &greedy()).unwrap()).collect();
            let mut found = vec![Vec::new(); streams.len()];
            let mut round = 0;
            while found.iter().any(|tokens| tokens.len() < 24) {
                let chunk = [5, 300, 1, 16, 64][round % 5];
                model.set_prefill_chunk(chunk).unwrap();
                model.set_max_batch([1, 7, 64][round % 3]).unwrap();
                assert_eq!(model.prefill_chunk().unwrap(), chunk);
                round += 1;
                for (stream, found) in streams.iter_mut().zip(&mut found) {
                    if let Some(Event::Token { id, .. }) = stream.next_event().unwrap() {
                        found.push(id);
                    }
                }
            }
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn larger_passes_are_reserved_first() {
        let small = ModelOptions::default().max_batch(4_u32).prefill_chunk(8_u32);
        let free = load(&Source::Builtin, None, &small);
        let large = small.clone().max_batch(64_u32).prefill_chunk(256_u32);
        let runtime = free.runtime();
        let (small_plan, large_plan) = (
            runtime.plan(&Source::Builtin, &small).unwrap(),
            runtime.plan(&Source::Builtin, &large).unwrap(),
        );
        let model = load(&Source::Builtin, Some(large_plan.load_bytes + (1 << 20)), &small);
        let used = || model.runtime().memory_used();
        let before = used();
        assert_eq!(before, small_plan.weights_bytes + small_plan.scratch_bytes);
        // What loading with the larger ones reserves.
        model.set_max_batch(64).unwrap();
        model.set_prefill_chunk(256).unwrap();
        assert_eq!(used(), large_plan.weights_bytes + large_plan.scratch_bytes);
        for set in [Model::set_max_batch, Model::set_prefill_chunk] {
            let error = set(&model, 4096).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfBudget);
            let error = set(&model, 0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        assert_eq!((model.max_batch().unwrap(), model.prefill_chunk().unwrap()), (64, 256));
        assert_eq!(used(), large_plan.weights_bytes + large_plan.scratch_bytes);
        let texts = |model: &Model| {
            let prompts = PROMPTS.map(crate::api::session::Prompt::from).to_vec();
            let found = model.generate_batch(prompts, &greedy());
            found.into_iter().map(|completion| completion.unwrap().token_ids).collect::<Vec<_>>()
        };
        assert_eq!(texts(&model), texts(&free));
        model.set_prefill_chunk(8).unwrap();
        model.set_max_batch(4).unwrap();
        assert_eq!(used(), before);
        model.close();
        assert_eq!(model.set_max_batch(4).unwrap_err().kind(), ErrorKind::Closed);
    }

    /// Pages that a session keeps give way, and what waits in mailboxes stays counted.
    #[test]
    fn what_is_kept_for_nobody_gives_way() {
        let small = ModelOptions::default().max_batch(1_u32).prefill_chunk(8_u32).prefix_cache(true);
        let plan = load(&Source::Builtin, None, &small).info().plan.clone();
        let model = load(&Source::Builtin, Some(plan.load_bytes + (4 << 20)), &small);
        let used = || model.runtime().memory_used();
        let before = used();
        let options = GenerateOptions::default().ignore_eos(true).max_tokens(100_u32).seed(1_u64);
        (0..30).for_each(|i| drop(model.generate(vec![i + 5; 100], &options).unwrap()));
        let kept = used();
        assert!(kept > before);
        // As large as fits without what is kept.
        let fits = |batch: &u32| {
            let plan = model.runtime().plan(&Source::Builtin, &small.clone().max_batch(*batch)).unwrap();
            plan.weights_bytes + plan.scratch_bytes <= model.runtime().memory_budget().unwrap()
        };
        let most = (1..4096).rev().find(fits).unwrap();
        model.set_max_batch(most).unwrap();
        assert!(model.set_max_batch(most + 1).is_err());
        model.set_max_batch(1).unwrap();
        assert_eq!(used(), before);
    }

    #[test]
    fn a_pace_changes_no_bit() {
        let options = ModelOptions::default().target_inter_token_ms(1_u32);
        let (free, paced) =
            [ModelOptions::default(), options].map(|options| load(&Source::Builtin, None, &options)).into();
        let prompt: Vec<u32> = (3..200).collect();
        let expected = free.generate(prompt.clone(), &greedy()).unwrap().token_ids;
        let mut first = paced.stream("Once upon a time", &greedy()).unwrap();
        while !matches!(first.next_event().unwrap(), Some(Event::Token { .. })) {}
        // Cut into floors while the other one decodes.
        let mut second = paced.stream(prompt, &greedy()).unwrap();
        let mut steps = 0;
        let mut found = Vec::new();
        while let Some(event) = second.next_event().unwrap() {
            match event {
                Event::Progress { .. } => steps += 1,
                Event::Token { id, .. } => found.push(id),
                _ => {}
            }
        }
        assert_eq!(found, expected);
        assert!(steps >= 1, "{steps}");
    }
}
