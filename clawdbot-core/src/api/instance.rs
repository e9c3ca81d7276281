//! Instances of a model: engines of their own over the same weights.

use std::sync::{Arc, Mutex, RwLock, Weak};

use super::bounds::Bounds;
use super::loaded::{Loaded, Shared};
use super::model::{Model, ModelInfo};
use super::mtp::{check_mtp_loaded, mtp_engine};
use super::plan::{self, EmbeddingInfo};
use super::prefix_file;
use super::saved::Numerics;
use super::speculation::{check_guesses, draft_engine};
use crate::cache::KvCache;
use crate::engine::{Engine, reserved_bytes};
use crate::error::{Error, Result};
use crate::metrics::Meter;
use crate::options::{Driver, ModelOptions};
use crate::runtime::{Driven, Holder, LogLevel, Reservation, Runtime};

impl Runtime {
    /// Whether keys and values of requests that have ended are kept.
    ///
    /// # Errors
    /// `InvalidArgument` for a bound of what is not kept.
    pub(super) fn keeps_prefixes(&self, options: &ModelOptions) -> Result<bool> {
        let keeps = options.prefix_cache.unwrap_or(self.driver() == Driver::Thread);
        let bytes = options.prefix_cache_bytes.map(|bytes| ("prefix_cache_bytes", bytes.to_string()));
        let dir =
            options.prefix_cache_dir.as_ref().map(|dir| ("prefix_cache_dir", format!("{:?}", dir.display())));
        match bytes.or(dir).filter(|_| !keeps) {
            None => Ok(keeps),
            Some((option, found)) => {
                let expected = "nothing, or prefix_cache true";
                let message = format!("option {option}: expected {expected}, found {found}");
                let error = Error::invalid_argument(message).with("option", option);
                Err(error.with("expected", expected).with("found", found))
            }
        }
    }

    /// An engine for `shared`, whose buffers are reserved in `scratch`.
    ///
    /// # Errors
    /// `InvalidArgument` for options that contradict each other; `Io` when the driver thread cannot be started, or the directory of
    /// the prefix cache cannot be made.
    pub(super) fn instance(
        &self,
        shared: Arc<Shared>,
        options: &ModelOptions,
        max_context: usize,
        scratch: Reservation,
        meter: Meter,
    ) -> Result<Arc<Loaded>> {
        let (spec, name) = (&shared.decoder.spec, &shared.name);
        let mut cache = KvCache::new(options.kv_type(), &spec.layer_states(), self.budget())?;
        let mut kept_in = None;
        if self.keeps_prefixes(options)? {
            let limit = options.prefix_cache_bytes.unwrap_or_else(|| self.budget().left() / 2);
            match spec.bidirectional {
                false => {
                    cache.keep_prefixes(limit);
                    if let Some(dir) = &options.prefix_cache_dir {
                        let model = shared.fingerprint(self.pool())?;
                        let numerics = Numerics::of(self, model, options.kv_type());
                        let path = prefix_file::path(dir, name, &numerics)?;
                        prefix_file::load(self, &path, &numerics, &mut cache);
                        kept_in = Some(path);
                    }
                }
                true => self.log(LogLevel::Warning, || {
                    format!("{name}: prefix_cache: without effect, as tokens see later ones")
                }),
            }
        }
        let mut engine = Engine::new(cache, reserved_bytes(options.max_batch), self.budget(), meter);
        engine.bound_queue(options.max_queue);
        if let Some(draft) = &shared.draft {
            engine.draft_from(draft_engine(draft)?);
        }
        if let Some(mtp) = &shared.mtp {
            engine.draft_ahead(mtp_engine(mtp, self.budget())?);
        }
        engine.swap_to(self.swap().cloned());
        engine.wake_when_read(self.sleeper());
        engine.keep_pace(options.target_inter_token_ms);
        if options.target_inter_token_ms.is_some() && !spec.generates() {
            self.log(LogLevel::Warning, || {
                format!("{name}: target_inter_token_ms: without effect, as the model does not generate")
            });
        }
        let (urgency, number) = (engine.urgency(), engine.number());
        let loaded = Arc::new(Loaded {
            runtime: self.clone(),
            options: options.clone(),
            max_context,
            users: Arc::default(),
            engine: Mutex::new(engine),
            turn: Mutex::new(()),
            adapters: RwLock::default(),
            prefix_file: kept_in,
            bounds: Bounds::new(options, scratch),
            urgency,
            shared,
        });
        let holder: Weak<dyn Holder> = Arc::<Loaded>::downgrade(&loaded);
        self.budget().holders().add(number, holder);
        let driven: Weak<dyn Driven> = Arc::<Loaded>::downgrade(&loaded);
        self.drive(driven, options.share)?;
        Ok(loaded)
    }
}

impl Loaded {
    /// `options` of another instance, with what the weights are from this one.
    ///
    /// # Errors
    /// `InvalidArgument` for one that would need other weights.
    fn options_of_instance(&self, options: &ModelOptions) -> Result<ModelOptions> {
        let (own, unset) = (&self.options, &ModelOptions::default());
        let ModelOptions { weights, merge_adapters, draft_model, chat_template, mmap, verify, cache, .. } =
            options;
        let fixed = [
            ("weights", *weights == own.weights || *weights == unset.weights),
            ("merge_adapters", *merge_adapters == own.merge_adapters || merge_adapters.is_empty()),
            ("draft_model", *draft_model == own.draft_model || draft_model.is_none()),
            ("chat_template", *chat_template == own.chat_template || chat_template.is_none()),
            ("mmap", *mmap == own.mmap || mmap.is_none()),
            ("verify", *verify == own.verify || !verify),
            ("cache", *cache == own.cache || *cache == unset.cache),
        ];
        if let Some((name, _)) = fixed.into_iter().find(|(_, same)| !same) {
            let expected = "what the model was loaded with, or nothing";
            let found = options.to_json().remove(name).unwrap_or_default();
            let message = format!("option {name} of an instance: expected {expected}, found {found}");
            return Err(Error::invalid_argument(message)
                .with("option", name)
                .with("expected", expected)
                .with("found", found));
        }
        let options = ModelOptions {
            weights: own.weights,
            merge_adapters: own.merge_adapters.clone(),
            draft_model: own.draft_model.clone(),
            chat_template: own.chat_template.clone(),
            mmap: own.mmap,
            verify: own.verify,
            cache: own.cache.clone(),
            ..options.clone()
        };
        // With the model's own: it may guess with a draft model that is not named again.
        options.validate()?;
        Ok(options)
    }

    /// Another engine over the same weights, and what there is to know of it; `info`: of this one.
    pub(super) fn another(
        &self,
        options: &ModelOptions,
        info: &ModelInfo,
    ) -> Result<(Arc<Loaded>, ModelInfo)> {
        self.runtime.pool().check_fork()?;
        let options = &self.options_of_instance(options)?;
        self.runtime.keeps_prefixes(options)?;
        let spec = &self.decoder.spec;
        check_guesses(spec, options)?;
        check_mtp_loaded(options.speculation, self.mtp.is_some(), self.draft.is_some())?;
        let (max_context, threads) = (plan::max_context(spec, options)?, self.runtime.threads());
        let cache = KvCache::new(options.kv_type(), &spec.layer_states(), self.runtime.budget())?;
        let scratch = plan::buffers(spec, max_context, options.max_batch, options.prefill_chunk, threads)?
            .saturating_add(reserved_bytes(options.max_batch));
        let first = plan::first_bytes(&cache);
        // What drafts is there; its buffers are not.
        let draft_bytes = self.draft.as_ref().map_or(0, |draft| draft.scratch);
        let draft_bytes = draft_bytes.saturating_add(self.mtp.as_ref().map_or(0, |mtp| mtp.parts.scratch));
        let load_bytes = scratch.saturating_add(first).saturating_add(draft_bytes);
        let available = self.runtime.budget().reserve(load_bytes, "scratch and a page of KV cache")?;
        drop(available);
        let reservation = self.runtime.budget().reserve(scratch, "scratch")?;
        let mut info = info.clone();
        let plan = &mut info.plan;
        plan.kv = options.kv_type().name();
        plan.kv_bytes_per_token = cache.bytes_per_token();
        plan.kv_bytes_full_context = plan::kv_bytes(&cache, max_context);
        (plan.max_context, plan.scratch_bytes, plan.load_bytes) = (max_context, scratch, load_bytes);
        plan.draft_bytes = draft_bytes;
        plan.embedding = EmbeddingInfo::new(&self.embedding, spec.pooled_size(), max_context);
        drop(cache);
        let (shared, meter) = (Arc::clone(&self.shared), self.runtime.meter(&self.name));
        info.id = meter.id();
        let loaded = self.runtime.instance(shared, options, max_context, reservation, meter)?;
        Ok((loaded, info))
    }
}

impl Model {
    /// Another model over the same weights, which are in memory once: with limits, requests, sessions, a prefix cache and
    /// adapters of its own. `options`: as for loading; those that say what the weights are (`weights`, `merge_adapters`,
    /// `draft_model`, `chat_template`, `mmap`, `verify`, `cache`) are this model's. `load_bytes` in its plan is what it takes beyond the
    /// weights, which are freed with the last instance.
    ///
    /// # Errors
    /// `InvalidArgument`; `OutOfBudget` before anything is allocated; `Closed`, `ForkedRuntime`.
    pub fn instance(&self, options: &ModelOptions) -> Result<Model> {
        let (loaded, info) = self.loaded()?.another(options, self.info())?;
        Ok(Model::new(loaded, info))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::load::source::Source;
    use crate::options::{GenerateOptions, KvType, RuntimeOptions, WeightType};

    #[test]
    fn instances_share_weights_and_nothing_else() {
        let runtime = Runtime::new(&RuntimeOptions::default().threads(2_u32)).unwrap();
        let model = runtime.load(&Source::Builtin, &ModelOptions::default()).unwrap();
        let plan = model.info().plan.clone();
        assert_eq!(runtime.memory_used(), plan.weights_bytes + plan.scratch_bytes);
        let options = ModelOptions::default().max_batch(2_u32).prefill_chunk(16_u32).max_queue(1_u32);
        let small = model.instance(&options.clone().max_context(100_u32)).unwrap();
        let of_small = &small.info().plan;
        assert_eq!((of_small.max_context, small.max_batch().unwrap()), (100, 2));
        assert_eq!(runtime.memory_used(), plan.weights_bytes + plan.scratch_bytes + of_small.scratch_bytes);
        let greedy = GenerateOptions::default().temperature(0.0).max_tokens(20_u32);
        let expected = model.generate("Once upon a time", &greedy).unwrap().token_ids;
        assert_eq!(small.generate("Once upon a time", &greedy).unwrap().token_ids, expected);
        let _waits = small.stream("Once", &greedy).unwrap();
        assert_eq!(small.stream("Once", &greedy).unwrap_err().kind(), ErrorKind::Overloaded);
        assert!(model.stream("Once", &greedy).is_ok());
        assert!(small.generate(vec![5; 101], &greedy).is_err());
        // The weights stay for the others.
        model.close();
        drop(model);
        assert_eq!(
            small.generate("Once upon a time", &greedy.clone().max_tokens(1_u32)).unwrap_err().kind(),
            ErrorKind::Overloaded
        );
        drop(_waits);
        assert_eq!(small.generate("Once upon a time", &greedy).unwrap().token_ids, expected);
        let of_f32 = small.instance(&ModelOptions::default().kv(KvType::F32)).unwrap();
        assert_eq!((of_f32.info().plan.kv, small.info().plan.kv), ("f32", "bf16"));
        for (name, options) in [
            ("weights", ModelOptions::default().weights(WeightType::F32)),
            ("verify", ModelOptions::default().verify(true)),
            ("max_batch", ModelOptions::default().max_batch(0_u32)),
            ("max_context", ModelOptions::default().max_context(u32::MAX)),
        ] {
            let error = small.instance(&options).unwrap_err();
            assert_eq!((error.kind(), &error.detail()["option"]), (ErrorKind::InvalidArgument, &name.into()));
        }
        drop((small, of_f32));
        assert_eq!(runtime.memory_used(), 0);
    }
}
