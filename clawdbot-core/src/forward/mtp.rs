//! A head for multi-token prediction over hidden states of its model: `spec/mtp.rs` has the formula.

use super::batch::Batch;
use super::decoder::{Decoder, DecoderLayer, ForwardContext, Layers, Pass};
use super::head::Head;
use super::linear::Linear;
use super::ops::{Buffer, Embedding, Norm, Ops, Store};
use super::scratch::{PassSize, Scratch};
use crate::error::Result;
use crate::spec::DecoderSpec;

/// The weights of a head.
pub(crate) struct MtpHead {
    /// Of its layer
    pub(crate) spec: DecoderSpec,
    /// Norms of the embedding and of the state, `[hidden_size]` each
    pub(crate) norms: [Vec<f32>; 2],
    /// 2 * hidden_size -> hidden_size
    pub(crate) fc: Linear,
    pub(crate) layer: DecoderLayer,
    /// `[hidden_size]`
    pub(crate) norm: Vec<f32>,
}

/// Bytes that passes of `rows` rows take besides [`Scratch::bytes`]: their states, these next to the embeddings, and both
/// quantized.
pub(crate) fn more_bytes(spec: &DecoderSpec, rows: usize) -> u64 {
    (rows as u64).saturating_mul(spec.hidden_size as u64).saturating_mul(4 * (1 + 2 + 1))
}

impl MtpHead {
    /// Runs `batch`, which has states of `model`, through the head. Leaves logits and states as [`Decoder::forward`] does.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub(crate) fn forward<O: Ops>(
        &self,
        model: &Decoder,
        context: ForwardContext<'_, O>,
        batch: &Batch<'_>,
    ) -> Result<Pass> {
        let ForwardContext {
            ops,
            cache,
            scratch,
            #[cfg(test)]
            trap,
        } = context;
        let (spec, rows) = (&self.spec, batch.rows());
        let width = spec.hidden_size;
        let size = PassSize { rows, logits: batch.logits_rows.len(), states: batch.state_rows.len() };
        scratch.reserve(spec, size, ops.threads())?;
        let Scratch { hidden, joined, codes, .. } = &mut *scratch;
        joined.reserve(2 * rows * width)?;
        let multiplier = spec.embedding_multiplier;
        ops.embed(&Embedding { table: &model.embedding, multiplier, added: None }, batch, hidden);
        let norms = [&self.norms[0], &self.norms[1]].map(|gains| Norm::of(spec, gains));
        ops.join_states(hidden, batch, norms, width, joined);
        ops.linear(joined, rows, &self.fc, Store::Overwrite, hidden, codes)?;

        let layers = Layers { spec, layers: std::slice::from_ref(&self.layer), first: 0 };
        let context = ForwardContext {
            ops,
            cache,
            scratch: &mut *scratch,
            #[cfg(test)]
            trap,
        };
        if layers.forward(context, batch)? == Pass::Cancelled {
            return Ok(Pass::Cancelled);
        }
        let norm = Some(Norm::of(spec, &self.norm));
        ops.take_rows(&scratch.hidden, &batch.state_rows, norm, width, &mut scratch.states);
        let head = Head { spec, ..model.head(Some(&self.norm)) };
        head.forward(ops, &batch.logits_rows, scratch)?;
        Ok(if ops.stopped() { Pass::Cancelled } else { Pass::Done })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::tests::support;
    use crate::api::tests::support::mtp::{Guesses, Tensor};
    use crate::cache::{KvCache, PageTables};
    use crate::engine::{Resources, Served};
    use crate::load::source::Source;
    use crate::options::{KvType, ModelOptions, RuntimeOptions, Speculation, WeightType};
    use crate::runtime::{Budget, Runtime};

    const HIDDEN: usize = 64;
    const HEADS: usize = 4;
    const KV_HEADS: usize = 2;
    const DIM: usize = 32;
    /// Elements of a head that are rotated, and the base of the rotation.
    const ROTATED: usize = 8;
    const THETA: f32 = 10000.0;

    /// The formula again, row by row, over the tensors as they are stored.
    struct Plain(BTreeMap<String, Tensor>);

    impl Plain {
        fn values(&self, name: &str) -> &[f32] {
            &self.0[&format!("{name}.weight")].1
        }

        fn norm(&self, x: &[f32], name: &str) -> Vec<f32> {
            let mean = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
            let root = (mean + 1e-6).sqrt();
            x.iter().zip(self.values(name)).map(|(x, gain)| x / root * (1.0 + gain)).collect()
        }

        fn linear(&self, x: &[f32], name: &str) -> Vec<f32> {
            let dot = |row: &[f32]| row.iter().zip(x).map(|(a, b)| a * b).sum();
            self.values(name).chunks_exact(x.len()).map(dot).collect()
        }

        /// Normed and rotated, of a head.
        fn head(&self, x: &[f32], name: &str, position: usize) -> Vec<f32> {
            let mut x = self.norm(x, name);
            for i in 0..ROTATED / 2 {
                let angle = position as f32 / THETA.powf(2.0 * i as f32 / ROTATED as f32);
                let (a, b) = (x[i], x[i + ROTATED / 2]);
                x[i] = a * angle.cos() - b * angle.sin();
                x[i + ROTATED / 2] = b * angle.cos() + a * angle.sin();
            }
            x
        }

        /// State and logits of each row.
        fn forward(&self, tokens: &[u32], states: &[f32]) -> Vec<(Vec<f32>, Vec<f32>)> {
            const LAYER: &str = "mtp.layers.0";
            let of = |module: &str| format!("{LAYER}.{module}");
            let embedding = "model.language_model.embed_tokens";
            let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
            let (mut keys, mut values) = (Vec::<Vec<f32>>::new(), Vec::<Vec<f32>>::new());
            let rows = tokens.iter().zip(states.chunks_exact(HIDDEN)).enumerate();
            rows.map(|(position, (&token, state))| {
                let embedded = &self.values(embedding)[token as usize * HIDDEN..][..HIDDEN];
                let mut both = self.norm(embedded, "mtp.pre_fc_norm_embedding");
                both.extend(self.norm(state, "mtp.pre_fc_norm_hidden"));
                let mut x = self.linear(&both, "mtp.fc");
                let normed = self.norm(&x, &of("input_layernorm"));
                let queries = self.linear(&normed, &of("self_attn.q_proj"));
                let of_keys = self.linear(&normed, &of("self_attn.k_proj"));
                let k_norm = of("self_attn.k_norm");
                keys.push(of_keys.chunks(DIM).flat_map(|key| self.head(key, &k_norm, position)).collect());
                values.push(self.linear(&normed, &of("self_attn.v_proj")));
                let mut mixed = Vec::new();
                for (head, query) in queries.chunks_exact(2 * DIM).enumerate() {
                    let (query, gate) = query.split_at(DIM);
                    let query = self.head(query, &of("self_attn.q_norm"), position);
                    let columns = head / (HEADS / KV_HEADS) * DIM..(head / (HEADS / KV_HEADS) + 1) * DIM;
                    let scores = keys.iter().map(|key| {
                        let dot: f32 = key[columns.clone()].iter().zip(&query).map(|(a, b)| a * b).sum();
                        (dot / (DIM as f32).sqrt()).exp()
                    });
                    let scores: Vec<f32> = scores.collect();
                    let sum: f32 = scores.iter().sum();
                    for (i, column) in columns.enumerate() {
                        let value: f32 = scores
                            .iter()
                            .zip(&values)
                            .map(|(score, value)| score / sum * value[column])
                            .sum();
                        mixed.push(value * sigmoid(gate[i]));
                    }
                }
                let add = |x: &mut Vec<f32>, y: Vec<f32>| x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
                add(&mut x, self.linear(&mixed, &of("self_attn.o_proj")));
                let normed = self.norm(&x, &of("post_attention_layernorm"));
                let gates = self.linear(&normed, &of("mlp.gate_proj"));
                let ups = self.linear(&normed, &of("mlp.up_proj"));
                let gated: Vec<f32> = gates.iter().zip(ups).map(|(x, up)| x * sigmoid(*x) * up).collect();
                add(&mut x, self.linear(&gated, &of("mlp.down_proj")));
                let state = self.norm(&x, "mtp.norm");
                let logits = self.linear(&state, embedding);
                (state, logits)
            })
            .collect()
        }
    }

    #[test]
    fn it_computes_the_formula() {
        let dir = support::mtp::with_head("qwen3_5", Guesses::Any, "formula");
        let tokens: Vec<u32> = (0..70).map(|at| 3 + at * 37 % 500).collect();
        let states: Vec<f32> = (0..tokens.len() * HIDDEN).map(|at| ((at * at) as f32 * 0.7).sin()).collect();
        let plain = Plain(support::mtp::read(&dir.path().join("model.safetensors")));
        let expected = plain.forward(&tokens, &states);

        let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
        let options = ModelOptions::default().weights(WeightType::F32).kv(KvType::F32);
        let options = options.speculation(Speculation::Mtp);
        let model = runtime.load(&Source::Path(dir.path().to_owned()), &options).unwrap();
        let loaded = model.loaded().unwrap();
        let head = loaded.mtp_head().unwrap();
        let spec = &loaded.mtp.as_ref().unwrap().parts.head.spec;
        // At once, and in pieces.
        for piece in [70, 33, 1] {
            let mut cache = KvCache::new(KvType::F32, &spec.layer_states(), &Budget::new(None)).unwrap();
            let mut tables = PageTables::default();
            cache.grow(&mut tables, tokens.len()).unwrap();
            let (mut scratch, mut found) = (Scratch::default(), Vec::new());
            for start in (0..tokens.len()).step_by(piece) {
                let rows = piece.min(tokens.len() - start);
                let mut batch = Batch::new();
                batch.push(&tokens[start..start + rows], start, rows, &tables);
                batch.state_rows.extend(0..rows);
                batch.given_states = &states[start * HIDDEN..][..rows * HIDDEN];
                let resources =
                    Resources { cache: &mut cache, scratch: &mut scratch, stop: &|| false, trap: None };
                assert_eq!(head.forward(resources, &batch).unwrap(), Pass::Done);
                let rows =
                    scratch.states.chunks_exact(HIDDEN).zip(scratch.logits.chunks_exact(512)).take(rows);
                found.extend(rows.map(|(state, logits)| (state.to_vec(), logits.to_vec())));
            }
            assert_eq!(found.len(), expected.len());
            for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let pairs = [(&found.0, &expected.0), (&found.1, &expected.1)];
                for (found, expected) in pairs.into_iter().flat_map(|(a, b)| a.iter().zip(b)) {
                    assert!((found - expected).abs() < 1e-3, "row {row}: {found} {expected}");
                }
            }
        }
    }
}
