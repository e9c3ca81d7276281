//! The tokens that may be drawn, what each sampler keeps of them, and the draw.

use std::cmp::Ordering;

use crate::options::Resolved;

/// Candidates that top-p sorts first; most distributions need no more.
const FIRST_LOOK: usize = 1024;

/// Tokens that may be drawn. There is always one.
pub(super) struct Candidates<'a> {
    /// Of all tokens; minus infinity for those that are masked.
    logits: &'a [f32],
    pub(super) ids: Vec<u32>,
    /// What logits are divided by.
    temperature: f64,
    /// exp((logit - largest) / temperature) by id; empty until they are needed.
    weights: Vec<f64>,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(logits: &'a [f32]) -> Self {
        let ids = (0..logits.len() as u32).collect();
        Candidates { logits, ids, temperature: 1.0, weights: Vec::new() }
    }

    fn logit(&self, id: u32) -> f32 {
        self.logits[id as usize]
    }

    /// Computes the weights once: over a whole vocabulary, exponentials are most of the work.
    fn weigh(&mut self) {
        if !self.weights.is_empty() {
            return;
        }
        let largest = f64::from(self.ids.iter().map(|&id| self.logit(id)).fold(f32::NEG_INFINITY, f32::max));
        self.weights = vec![0.0; self.logits.len()];
        for &id in &self.ids {
            self.weights[id as usize] = libm::exp((f64::from(self.logit(id)) - largest) / self.temperature);
        }
    }

    /// Proportional to the probability of `id`, once they are weighed.
    pub(super) fn weight(&self, id: u32) -> f64 {
        self.weights[id as usize]
    }

    /// The sum of the weights.
    pub(super) fn total(&mut self) -> f64 {
        self.weigh();
        self.ids.iter().map(|&id| self.weight(id)).sum()
    }

    /// Sets the temperature; a dynamic one (Zhu et al. 2024, <https://arxiv.org/abs/2309.02772>, in the form of llama.cpp) is
    /// ```text
    /// p = softmax(logit);  h = -sum p ln p / ln(number of candidates);  temperature = low + (high - low) h^exponent
    /// low = max(0, temperature - range);  high = temperature + range
    /// ```
    pub(super) fn heat(&mut self, options: &Resolved) {
        let mut temperature = f64::from(options.temperature);
        let range = f64::from(options.dynatemp_range);
        if range > 0.0 {
            let total = self.total();
            let probabilities = self.ids.iter().map(|&id| self.weight(id) / total).filter(|&p| p > 0.0);
            let (count, entropy) =
                probabilities.fold((0_u32, 0.0), |(count, sum), p| (count + 1, sum - p * libm::log(p)));
            let (low, high) = ((temperature - range).max(0.0), temperature + range);
            let share = if count > 1 { (entropy / libm::log(f64::from(count))).clamp(0.0, 1.0) } else { 0.0 };
            temperature = low + (high - low) * libm::pow(share, f64::from(options.dynatemp_exponent));
        }
        self.weights.clear();
        if temperature > 0.0 {
            self.temperature = temperature;
        } else {
            self.keep_top_k(1);
        }
    }

    /// Keeps the `n` most likely tokens, most likely first.
    pub(super) fn keep_top_k(&mut self, n: usize) {
        if n < self.ids.len() {
            let logits = self.logits;
            sort_first(&mut self.ids, n, |id| logits[id as usize]);
            self.ids.truncate(n);
        }
    }

    /// Keeps the tokens within `n` standard deviations of the largest logit (Tang et al. 2024,
    /// <https://arxiv.org/abs/2411.07641>); the temperature changes nothing about it.
    /// ```text
    /// mean = sum logit / count;  sigma^2 = sum (logit - mean)^2 / count;  logit >= largest - n sigma
    /// ```
    pub(super) fn keep_top_n_sigma(&mut self, n: f32) {
        // Masked tokens are no part of the distribution.
        self.ids.retain(|&id| self.logits[id as usize] > f32::NEG_INFINITY);
        let logits = || self.ids.iter().map(|&id| f64::from(self.logit(id)));
        let count = self.ids.len() as f64;
        let (mean, largest) = (logits().sum::<f64>() / count, logits().fold(f64::NEG_INFINITY, f64::max));
        let variance = logits().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
        let least = largest - f64::from(n) * variance.sqrt();
        self.ids.retain(|&id| f64::from(self.logits[id as usize]) >= least);
    }

    /// Keeps the most likely tokens whose probabilities reach `p`, most likely first (nucleus sampling, Holtzman et al. 2019,
    /// <https://arxiv.org/abs/1904.09751>).
    pub(super) fn keep_top_p(&mut self, p: f32) {
        let mass = f64::from(p) * self.total();
        let (logits, weights) = (self.logits, &self.weights);
        let ids = &mut self.ids;
        let mut look = FIRST_LOOK.min(ids.len());
        loop {
            sort_first(ids, look, |id| logits[id as usize]);
            let mut sum = 0.0;
            for (rank, &id) in ids[..look].iter().enumerate() {
                sum += weights[id as usize];
                if sum >= mass {
                    return ids.truncate(rank + 1);
                }
            }
            if look == ids.len() {
                return;
            }
            look = ids.len();
        }
    }

    /// Keeps the tokens that are at least `p` times as likely as the most likely one (Nguyen et al. 2024,
    /// <https://arxiv.org/abs/2407.01082>).
    pub(super) fn keep_min_p(&mut self, p: f32) {
        self.weigh();
        let least = f64::from(p) * self.ids.iter().map(|&id| self.weight(id)).fold(0.0, f64::max);
        self.ids.retain(|&id| self.weights[id as usize] >= least);
    }

    /// Locally typical sampling (Meister et al., <https://arxiv.org/abs/2202.00666>): keeps the tokens whose information is
    /// closest to the entropy, closest first, until their probabilities reach `p`, with all that tie with the last.
    /// ```text
    /// p = weight / sum of weights;  entropy = -sum p ln p;  distance = |-ln p - entropy|
    /// ```
    pub(super) fn keep_typical(&mut self, p: f32) {
        let total = self.total();
        let Candidates { ids, weights, .. } = self;
        let weight = |id: u32| weights[id as usize];
        // Masked tokens have weight 0.
        ids.retain(|&id| weight(id) > 0.0);
        let mut distances = vec![0.0; weights.len()];
        let mut entropy = 0.0;
        for &id in ids.iter() {
            let information = -libm::log(weight(id) / total);
            distances[id as usize] = information;
            entropy += weight(id) / total * information;
        }
        ids.iter().for_each(|&id| distances[id as usize] = (distances[id as usize] - entropy).abs());
        let distance = |id: u32| distances[id as usize];
        let mut nearest = ids.clone();
        nearest.sort_unstable_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(a.cmp(&b)));
        let mut sum = 0.0;
        let last = nearest.into_iter().find(|&id| {
            sum += weight(id);
            sum >= f64::from(p) * total
        });
        if let Some(farthest) = last.map(distance) {
            ids.retain(|&id| distance(id) <= farthest);
        }
    }

    /// Exclude top choices (XTC, <https://github.com/oobabooga/text-generation-webui/pull/6335>): of the tokens with at least
    /// the probability `threshold`, keeps only the least likely; the one with the highest id, where some are equally likely.
    pub(super) fn exclude_top_choices(&mut self, threshold: f32) {
        let least = f64::from(threshold) * self.total();
        let top = self.ids.iter().copied().filter(|&id| self.weight(id) >= least);
        let kept = top.max_by(|&a, &b| self.weight(b).total_cmp(&self.weight(a)).then(a.cmp(&b)));
        let weights = &self.weights;
        self.ids.retain(|&id| weights[id as usize] < least || Some(id) == kept);
    }

    /// Keeps the most likely token and those that `keep` says, by weight.
    pub(super) fn keep_first_and(&mut self, keep: impl Fn(f64) -> bool) {
        self.weigh();
        let weights = &self.weights;
        let by_weight =
            |a: &u32, b: &u32| weights[*a as usize].total_cmp(&weights[*b as usize]).then(b.cmp(a));
        let first = self.ids.iter().copied().max_by(by_weight);
        self.ids.retain(|&id| Some(id) == first || keep(weights[id as usize]));
    }

    /// The token for `draw` in [0, 1).
    pub(super) fn draw(&mut self, draw: f64) -> u32 {
        let mut left = draw * self.total();
        for &id in &self.ids {
            left -= self.weight(id);
            if left < 0.0 {
                return id;
            }
        }
        // Rounding may leave a remainder after the last token. Masked tokens have weight 0.
        self.ids.iter().rev().copied().find(|&id| self.weight(id) > 0.0).unwrap_or(0)
    }
}

/// Moves the `n` ids with the largest keys to the front, sorted: largest first, ties by lower id.
pub(super) fn sort_first(ids: &mut [u32], n: usize, key: impl Fn(u32) -> f32) {
    let order = |a: &u32, b: &u32| -> Ordering { key(*b).total_cmp(&key(*a)).then(a.cmp(b)) };
    let n = n.min(ids.len());
    if n == 0 {
        return;
    }
    if n < ids.len() {
        ids.select_nth_unstable_by(n - 1, order);
    }
    ids[..n].sort_unstable_by(order);
}
