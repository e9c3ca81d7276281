//! Top-k, top-p, min-p, typical-p, and the draw from what they keep.

use std::cmp::Ordering;

use crate::options::Resolved;

/// Candidates that top-p sorts first; most distributions need no more.
const FIRST_LOOK: usize = 1024;

/// Draws an id by inverse transform sampling: `draw` in [0, 1) selects among the kept tokens, most likely first.
pub(super) fn draw(logits: &[f32], options: &Resolved, draw: f64) -> u32 {
    let keep_all = options.top_k == 0 || options.top_k as usize >= logits.len();
    let count = if keep_all { logits.len() } else { options.top_k as usize };
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let key = |id: u32| logits[id as usize];
    if !keep_all {
        sort_first(&mut ids, count, key);
        ids.truncate(count);
    }
    let max = f64::from(ids.iter().map(|&id| key(id)).fold(f32::NEG_INFINITY, f32::max));
    let temperature = f64::from(options.temperature);
    // Computed once: over a whole vocabulary, exponentials are most of the work.
    let mut weights = vec![0.0; logits.len()];
    for &id in &ids {
        weights[id as usize] = libm::exp((f64::from(key(id)) - max) / temperature);
    }
    let weight = |id: u32| weights[id as usize];
    if options.min_p > 0.0 && options.top_p >= 1.0 {
        // The most likely token has weight 1, so min-p is a threshold on the weight.
        ids.retain(|&id| weight(id) >= f64::from(options.min_p));
    }
    let total: f64 = ids.iter().map(|&id| weight(id)).sum();
    if options.top_p < 1.0 {
        keep_top_p(&mut ids, f64::from(options.top_p) * total, key, weight);
        ids.retain(|&id| weight(id) >= f64::from(options.min_p));
    }
    if options.typical_p < 1.0 {
        keep_typical(&mut ids, f64::from(options.typical_p), &weights);
    }
    let kept: f64 = ids.iter().map(|&id| weight(id)).sum();
    let mut left = draw * kept;
    for &id in &ids {
        left -= weight(id);
        if left < 0.0 {
            return id;
        }
    }
    // Rounding may leave a remainder after the last token. Masked tokens have weight 0.
    ids.iter().rev().copied().find(|&id| weight(id) > 0.0).unwrap_or(0)
}

/// Keeps the shortest prefix, most likely first, whose weights reach `mass`.
fn keep_top_p(ids: &mut Vec<u32>, mass: f64, key: impl Fn(u32) -> f32 + Copy, weight: impl Fn(u32) -> f64) {
    let mut look = FIRST_LOOK.min(ids.len());
    loop {
        sort_first(ids, look, key);
        let mut sum = 0.0;
        for (rank, &id) in ids[..look].iter().enumerate() {
            sum += weight(id);
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

/// Locally typical sampling (Meister et al., <https://arxiv.org/abs/2202.00666>): keeps the tokens whose information is
/// closest to the entropy, closest first, until their probabilities reach `mass`, with all that tie with the last.
/// ```text
/// p = weight / sum of weights;  entropy = -sum p ln p;  distance = |-ln p - entropy|
/// ```
fn keep_typical(ids: &mut Vec<u32>, mass: f64, weights: &[f64]) {
    let weight = |id: u32| weights[id as usize];
    let total: f64 = ids.iter().map(|&id| weight(id)).sum();
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
        sum >= mass * total
    });
    if let Some(farthest) = last.map(distance) {
        ids.retain(|&id| distance(id) <= farthest);
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
