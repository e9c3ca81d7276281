//! A loaded model, as its engine sees it.

use std::sync::atomic::Ordering;
use std::sync::{PoisonError, TryLockError};

use clawdbot_kernels::threads::ThreadPool;

use super::loaded::{Loaded, MtpLoaded};
use crate::engine::{Limits, Resources, Served};
use crate::error::Result;
use crate::forward::batch::Batch;
use crate::forward::cpu::{BatchAdapters, Cpu};
use crate::forward::decoder::{ForwardContext, Pass};
use crate::runtime::{Driven, Holder, Next};
use crate::sampling::Drawable;

impl Driven for Loaded {
    fn drive(&self) -> Next {
        let failed = match self.engine() {
            Ok(mut engine) => match engine.step_at_once(self) {
                Ok(true) if !engine.waits_for_pages() => {
                    self.ask_others(engine);
                    return Next::Now;
                }
                // Those that are left have paused, or wait for pages, whose coming wakes the thread.
                Ok(_) => return engine.next_deadline().map_or(Next::Woken, Next::At),
                Err(error) => error,
            },
            Err(error) => error,
        };
        // After a panic too: what waits has to end.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).fail_all(&failed);
        Next::Woken
    }

    fn urgency(&self) -> u32 {
        self.urgency.load(Ordering::Relaxed)
    }
}

impl Holder for Loaded {
    fn give_way(&self, bytes: u64, waits: bool) -> Option<u64> {
        if waits {
            // One that is in an unknown state gives nothing.
            return Some(self.engine().map_or(0, |mut engine| engine.give_way(bytes)));
        }
        match self.engine.try_lock() {
            Ok(mut engine) => Some(engine.give_way(bytes)),
            Err(TryLockError::Poisoned(_)) => Some(0),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn report(&self) {
        if let Ok(engine) = self.engine.try_lock() {
            engine.measure();
        }
    }
}

impl Served for Loaded {
    fn limits(&self) -> Limits {
        Limits {
            rows: self.bounds.prefill_chunk() as usize,
            sequences: self.bounds.max_batch() as usize,
            whole: self.decoder.spec.bidirectional,
            prompts: usize::MAX,
        }
    }

    fn max_context(&self) -> usize {
        self.max_context
    }

    fn vocab_size(&self) -> usize {
        self.decoder.spec.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.decoder.spec.hidden_size
    }

    fn longrope_from(&self) -> Option<usize> {
        self.decoder.spec.longrope_from()
    }

    fn drawable(&self) -> &Drawable {
        &self.drawable
    }

    fn pool(&self) -> &ThreadPool {
        self.runtime.pool()
    }

    fn draft_model(&self) -> Option<&dyn Served> {
        self.draft.as_ref().map(|draft| &*draft.loaded as &dyn Served)
    }

    fn mtp_head(&self) -> Option<&dyn Served> {
        self.mtp.as_ref().map(|mtp| mtp as &dyn Served)
    }

    fn forward(&self, resources: Resources<'_>, batch: &Batch<'_>) -> Result<Pass> {
        let Resources { cache, scratch, stop, .. } = resources;
        #[cfg(test)]
        let trap = resources.trap;
        self.runtime.pool().region_until(stop, |region| {
            #[cfg(test)]
            if let Some(trap) = trap {
                region.parallel(8, |task| drop(trap(crate::forward::trap::Place::Task(task))));
            }
            // Lent to the operations for this pass; lost with a panic, and made again.
            let mut lent = std::mem::take(&mut scratch.workspace.adapters);
            let adapters = BatchAdapters::new(batch.rows(), &batch.adapters, &mut lent)?;
            let ops = &Cpu { kernels: self.runtime.kernel_set(), region, adapters, watcher: None };
            let context = ForwardContext {
                ops,
                cache,
                scratch: &mut *scratch,
                #[cfg(test)]
                trap,
            };
            let pass = self.decoder.forward(context, batch);
            scratch.workspace.adapters = lent;
            pass
        })?
    }
}

/// As a model whose batches have states of the model.
impl Served for MtpLoaded {
    fn limits(&self) -> Limits {
        self.parts.limits
    }

    fn max_context(&self) -> usize {
        self.decoder.spec.max_position_embeddings
    }

    fn vocab_size(&self) -> usize {
        self.decoder.spec.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.decoder.spec.hidden_size
    }

    fn longrope_from(&self) -> Option<usize> {
        None
    }

    fn drawable(&self) -> &Drawable {
        &self.drawable
    }

    fn pool(&self) -> &ThreadPool {
        self.runtime.pool()
    }

    fn forward(
        &self,
        Resources { cache, scratch, stop, .. }: Resources<'_>,
        batch: &Batch<'_>,
    ) -> Result<Pass> {
        self.runtime.pool().region_until(stop, |region| {
            let ops = &Cpu { kernels: self.runtime.kernel_set(), region, adapters: None, watcher: None };
            let context = ForwardContext {
                ops,
                cache,
                scratch,
                #[cfg(test)]
                trap: None,
            };
            self.parts.head.forward(&self.decoder, context, batch)
        })?
    }
}
