//! A loaded model, as its engine sees it.

use clawdbot_kernels::threads::ThreadPool;

use super::model::Loaded;
use crate::engine::{Limits, Resources, Served};
use crate::error::Result;
use crate::forward::batch::Batch;
use crate::forward::decoder::{ForwardContext, Pass};
use crate::sampling::Drawable;

impl Served for Loaded {
    fn limits(&self) -> Limits {
        Limits {
            rows: self.options.prefill_chunk as usize,
            sequences: self.options.max_batch as usize,
            whole: self.decoder.spec.bidirectional,
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

    fn forward(&self, resources: Resources<'_>, batch: &Batch<'_>) -> Result<Pass> {
        let Resources { cache, scratch, stop, .. } = resources;
        #[cfg(test)]
        let trap = resources.trap;
        self.runtime.pool().region_until(stop, |region| {
            #[cfg(test)]
            if let Some(trap) = trap {
                region.parallel(8, |task| drop(trap(crate::forward::trap::Place::Task(task))));
            }
            let mut context = ForwardContext {
                kernels: self.runtime.kernel_set(),
                region,
                cache,
                scratch,
                #[cfg(test)]
                trap,
            };
            self.decoder.forward(&mut context, batch)
        })?
    }
}
