//! What a forward pass would be with other numbers of threads: its steps, and how each matrix is divided.

use std::time::Instant;

use clawdbot_kernels::threads::{Region, Steps, ThreadPool};
use clawdbot_kernels::{KernelSet, PackedMatrix, Shares, select, takes_gated};

use crate::cache::{KvCache, PageTables};
use crate::error::{Error, Result};
use crate::forward::batch::Batch;
use crate::forward::blocks::Mlp;
use crate::forward::cpu::Cpu;
use crate::forward::decoder::{Decoder, ForwardContext};
use crate::forward::scratch::Scratch;
use crate::load::build::Builder;
use crate::load::source::{Opened, Source};
use crate::load::weights::Weights;
use crate::options::{KvType, WeightType};
use crate::runtime::{Budget, Cpus};

/// The first two layers of a shape, with embedding and head, in int8.
pub struct Scaling {
    kernels: &'static KernelSet,
    decoder: Decoder,
    layers: usize,
}

/// A pass through all layers.
pub struct PassSteps {
    /// Steps at whose end threads wait for each other.
    pub steps: usize,
    /// Milliseconds that one thread takes for all of it.
    pub milliseconds: f64,
    /// Of them, those in which other threads would have nothing to do.
    pub serial: f64,
}

/// A matrix of a layer, or the head.
pub struct MatrixShares {
    pub name: &'static str,
    pub tasks: usize,
    /// Bytes of the matrix.
    pub bytes: u64,
    /// The largest share of a thread relative to the mean.
    pub imbalance: f64,
    /// How many there are of it.
    pub count: usize,
}

impl Scaling {
    /// # Errors
    /// `InvalidArgument` for an unknown shape or `CLAWDBOT_ISA`, `OutOfBudget` if memory runs out.
    pub fn new(shape: &str) -> Result<Self> {
        let kernels = select(None)?;
        let mut spec = Opened::open(&Source::Shape(shape.to_owned()))?.spec;
        let layers = spec.num_hidden_layers;
        spec.layers.truncate(2);
        spec.num_hidden_layers = 2;
        let pool = ThreadPool::new(Cpus::detect().threads());
        let mut builder = Builder {
            kernels,
            pool: &pool,
            weights: &Weights::Random,
            last: None,
            mapped: None,
            weight_type: WeightType::Int8,
            progress: &mut |_, _| true,
            done: 0,
            total: 0,
            ready: Default::default(),
            vectors: Default::default(),
        };
        let decoder = builder.build(spec)?;
        Ok(Scaling { kernels, decoder, layers })
    }

    /// A pass over `rows` tokens after `depth`, with as many steps as with `threads` threads.
    ///
    /// # Errors
    /// `OutOfBudget` if memory runs out.
    pub fn pass(&mut self, threads: usize, rows: usize, depth: usize) -> Result<PassSteps> {
        let (two, serial_two, all_two) = self.run(threads, rows, depth)?;
        let last = self.decoder.layers.pop().ok_or_else(|| Error::internal("two layers"))?;
        let one = self.run(threads, rows, depth);
        self.decoder.layers.push(last);
        let (one, serial_one, all_one) = one?;
        // The other layers are as the second.
        let more = self.layers - 2;
        let whole = |two: f64, one: f64| (two + more as f64 * (two - one).max(0.0)) * 1e3;
        Ok(PassSteps {
            steps: two + more * (two - one),
            milliseconds: whole(all_two, all_one),
            serial: whole(serial_two, serial_one),
        })
    }

    /// Steps, the least seconds between them, and the least of all.
    fn run(&self, threads: usize, rows: usize, depth: usize) -> Result<(usize, f64, f64)> {
        let spec = &self.decoder.spec;
        let mut cache = KvCache::new(KvType::Bf16, &spec.layer_states(), &Budget::new(None))?;
        let mut tables = PageTables::default();
        cache.grow(&mut tables, depth + rows)?;
        let mut batch = Batch::new();
        batch.push(&vec![5; rows], depth, 1, &tables);
        let (mut scratch, mut found) = (Scratch::default(), (0, f64::MAX, f64::MAX));
        for _ in 0..if rows == 1 { 20 } else { 3 } {
            let steps = Steps::default();
            let region = &Region::simulated(threads, &steps);
            let ops = &Cpu { kernels: self.kernels, region, adapters: None, watcher: None };
            let start = Instant::now();
            let context = ForwardContext {
                ops,
                cache: &mut cache,
                scratch: &mut scratch,
                #[cfg(test)]
                trap: None,
            };
            self.decoder.forward(context, &batch)?;
            let all = start.elapsed().as_secs_f64();
            let steps = steps.borrow();
            let parallel: f64 = steps.iter().map(|(_, time)| time.as_secs_f64()).sum();
            found = (steps.len(), found.1.min(all - parallel), found.2.min(all));
        }
        Ok(found)
    }

    /// How each matrix is divided among `threads` threads in a pass of `rows` rows.
    pub fn matrices(&self, threads: usize, rows: usize) -> Vec<MatrixShares> {
        let layer = &self.decoder.layers[0];
        let mut found: Vec<(&str, &PackedMatrix, Shares, usize)> = Vec::new();
        let plain = |matrix, rows| Shares::of(self.kernels, threads, rows, matrix, false);
        let mixer = layer.mixer.matrices();
        found.extend(mixer.into_iter().map(|matrix| ("qkv", matrix, plain(matrix, rows), self.layers)));
        found.push(("o", &layer.o.weight, plain(&layer.o.weight, rows), self.layers));
        if let Mlp::Dense(mlp) = &layer.mlp {
            let (gate_up, down) = (&mlp.gate_up.weight, &mlp.down.weight);
            let shares = match takes_gated(self.kernels, rows, gate_up, down) {
                true => Shares::of_gated(rows, down.k(), threads),
                false => Shares::of(self.kernels, threads, rows, gate_up, true),
            };
            found.push(("gate, up", gate_up, shares, self.layers));
            found.push(("down", down, plain(down, rows), self.layers));
        }
        // Logits of the last token.
        let head = self.decoder.lm_head.as_ref().unwrap_or(&self.decoder.embedding);
        found.push(("head", head, plain(head, 1), 1));
        let shares = found.into_iter().map(|(name, matrix, shares, count)| MatrixShares {
            name,
            tasks: shares.tasks,
            bytes: matrix.part_bytes().iter().map(|part| part.len() as u64).sum(),
            imbalance: shares.imbalance(),
            count,
        });
        shares.collect()
    }
}
