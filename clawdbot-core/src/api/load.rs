//! From a source to a loaded model.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use super::constrain::Constraints;
use super::loaded::{DraftLoaded, MtpLoaded, Shared};
use super::model::{Model, ModelInfo};
use super::mtp::MtpOpened;
use super::plan::{Plan, Sizes};
use super::speculation::{Draft, Role};
use super::spellings::Spellings;
use crate::cancel::{Progress, reporting};
use crate::error::{Error, ErrorKind, Result};
use crate::load::build::Builder;
use crate::load::fingerprint::Fingerprint;
use crate::load::load_cache::CacheEntry;
use crate::load::source::{Opened, Source};
use crate::load::weights::Weights;
use crate::metrics::Meter;
use crate::options::{ModelOptions, Numa};
use crate::runtime::{LogLevel, Runtime};
use crate::sampling::Drawable;
use sha2::Digest;

impl Runtime {
    /// What loading `source` with `options` would cost. Opens and checks the files, but reads no weights, unless asked to
    /// `verify` them.
    ///
    /// # Errors
    /// As [`Runtime::load`], but for the budget.
    pub fn plan(&self, source: &Source, options: &ModelOptions) -> Result<Plan> {
        options.validate()?;
        self.maps(options)?;
        self.keeps_prefixes(options)?;
        let mut opened =
            Opened::open_with(source, options, &mut |_, _| true)?.merged(&options.merge_adapters)?;
        let draft = Draft::open(&opened, options)?;
        let mtp = MtpOpened::open(self, &mut opened, options)?.map_or(0, |mtp| mtp.bytes);
        let verified = opened.verify(options, &mut |_, _| true)?;
        let options = opened.resolve(options)?;
        let draft = draft.map(|draft| Plan::new(self, &draft.opened, &draft.options)).transpose()?;
        let plan = Plan { verified, ..Plan::new(self, &opened, &options)? };
        let draft = draft.map_or(0, |draft| draft.load_bytes);
        Ok(plan.with_draft(draft.saturating_add(mtp), self.budget()))
    }

    /// Loads a model.
    ///
    /// # Errors
    /// `NotFound`, `Io`, `InvalidModel`, `UnsupportedModel`, `InvalidTokenizer`, `InvalidTemplate` for what is wrong
    /// with the files; `InvalidArgument` for options; `OutOfBudget` before anything is allocated.
    pub fn load(&self, source: &Source, options: &ModelOptions) -> Result<Model> {
        self.load_with_progress(source, options, |_| ControlFlow::Continue(()))
    }

    /// Loads a model and calls `progress` with the weights that are done, and all of them, now and then; a break cancels.
    ///
    /// # Errors
    /// As [`Runtime::load`]; `Cancelled`.
    pub fn load_with_progress(
        &self,
        source: &Source,
        options: &ModelOptions,
        progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Model> {
        self.pool().check_fork()?;
        let mut progress = reporting(progress);
        options.validate()?;
        let opened = Opened::open_with(source, options, &mut progress)?.merged(&options.merge_adapters)?;
        self.load_opened(opened, options, progress)
    }

    /// Whether a packed file is mapped. The pages of a mapped file lie where they were read first, whatever `numa` says.
    ///
    /// # Errors
    /// `InvalidArgument` for a file that is to be mapped, and placed.
    fn maps(&self, options: &ModelOptions) -> Result<bool> {
        let placed = self.numa() != Numa::Off;
        if placed && options.mmap == Some(true) {
            let (numa, expected) = (self.numa(), "false, as pages of mapped files cannot be placed");
            let message = format!("option mmap: expected {expected}, with numa {numa}, found true");
            let error = Error::invalid_argument(message).with("option", "mmap");
            return Err(error.with("expected", expected).with("found", "true"));
        }
        Ok(options.mmap.unwrap_or(!placed))
    }

    /// Loads what is opened, with options that are validated.
    ///
    /// # Errors
    /// As [`Runtime::load_with_progress`].
    pub(crate) fn load_opened(
        &self,
        mut opened: Opened,
        options: &ModelOptions,
        mut progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<Model> {
        let mtp = MtpOpened::open(self, &mut opened, options)?;
        // The smaller model comes first: what is wrong with it is known soon.
        let draft = match Draft::open(&opened, options)? {
            Some(Draft { opened, options }) => {
                let model = self.load_as(Role::Drafts, opened, &options, &mut progress)?;
                let (plan, loaded) = (&model.info().plan, model.loaded()?);
                Some(DraftLoaded { loaded, bytes: plan.load_bytes, scratch: plan.scratch_bytes })
            }
            None => None,
        };
        let mtp = mtp.map(|mtp| mtp.load(self, &opened, &mut progress).map(Box::new)).transpose()?;
        self.load_as(Role::Requests(draft, mtp), opened, options, &mut progress)
    }

    /// # Errors
    /// As [`Runtime::load_with_progress`].
    fn load_as(
        &self,
        role: Role,
        mut opened: Opened,
        options: &ModelOptions,
        mut progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Model> {
        let maps = self.maps(options)?;
        self.keeps_prefixes(options)?;
        let options = &opened.resolve(options)?;
        let mut plan = Plan::new(self, &opened, options)?;
        let sizes = Sizes::of(&opened, options, self.threads())?;
        let available = self.budget().reserve(plan.load_bytes, "weights, scratch and a page of KV cache")?;
        drop(available);
        self.prove_kernels();
        let reservation = self.budget().reserve(sizes.weights, "weights")?;
        // Each engine that drafts has its own buffers.
        let scratch = if matches!(role, Role::Drafts) { 0 } else { sizes.scratch };
        let scratch = self.budget().reserve(scratch, "scratch")?;
        let weight_type = options.weight_type();
        let mut entry = CacheEntry::of(&opened, &options.cache, weight_type)
            .inspect_err(|error| CacheEntry::complain(self, &opened, error))
            .unwrap_or_default();
        if let Some(cached) = &entry {
            match cached.lookup(&mut opened, weight_type) {
                Ok(true) => entry = None,
                Ok(false) => {}
                Err(error) => CacheEntry::complain(self, &opened, &error),
            }
        }
        plan.verified = opened.verify(options, &mut progress)?;
        let mapped = match &opened.weights {
            Weights::Packed(file) if maps => Some(file.map()?),
            _ => None,
        };
        for warning in &plan.warnings {
            self.log(LogLevel::Warning, || warning.clone());
        }
        if let Some(others) = opened.left_out() {
            self.log(LogLevel::Info, || others);
        }
        let spec = opened.spec.clone();
        let mut builder = Builder {
            kernels: self.kernel_set(),
            pool: self.pool(),
            weights: &opened.weights,
            last: None,
            mapped,
            weight_type,
            progress: &mut progress,
            done: 0,
            total: 0,
            ready: Default::default(),
            vectors: Default::default(),
        };
        let decoder = builder.build(spec)?;
        let total = builder.total;
        let vectors: Fingerprint = builder.vectors.take().finalize().into();
        drop(builder);
        if let Some(entry) = entry {
            match entry.store(self, &opened, &decoder, weight_type, &mut || progress(total, total)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => CacheEntry::complain(self, &opened, &error),
            }
        }
        let Opened { defaults, text, name, embedding, .. } = opened;
        let spec = &decoder.spec;
        let eos =
            if defaults.eos_token_id.is_empty() { spec.eos.clone() } else { defaults.eos_token_id.clone() };
        let bos = defaults.bos_token_id.or(spec.bos);
        let draft_bytes = role.draft_bytes();
        let plan = Plan { draft_bytes, load_bytes: plan.load_bytes.saturating_add(draft_bytes), ..plan };
        self.log(LogLevel::Info, || format!("{name}: loaded {} parameters", plan.parameters));
        let every = || Drawable::all(spec.vocab_size);
        let drawable =
            text.as_ref().map_or_else(every, |text| Drawable::of(&text.tokenizer, spec.vocab_size));
        let (draft, mtp, meter) = match role {
            Role::Requests(draft, mtp) => (draft, mtp, self.meter(&name)),
            Role::Drafts => (None, None, Meter::default()),
        };
        let (vocab_size, eos_token_ids) = (spec.vocab_size, eos.clone());
        let info = ModelInfo { id: meter.id(), vocab_size, bos_token_id: bos, eos_token_ids, plan };
        let decoder = Arc::new(decoder);
        let mtp = mtp.map(|parts| {
            let (decoder, drawable) = (Arc::clone(&decoder), drawable.clone());
            MtpLoaded { runtime: self.clone(), decoder, drawable, parts: *parts }
        });
        let shared = Shared {
            name,
            decoder,
            embedding,
            defaults,
            eos,
            bos,
            text,
            drawable,
            draft,
            mtp,
            vectors,
            fingerprint: Mutex::default(),
            constraints: Constraints::default(),
            spellings: Spellings::default(),
            reservation,
        };
        let loaded = self.instance(Arc::new(shared), options, sizes.max_context, scratch, meter)?;
        Ok(Model::new(loaded, info))
    }
}
