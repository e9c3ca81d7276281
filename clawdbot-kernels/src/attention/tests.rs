//! Every kind of page x every available ISA x ragged shapes: the same bits for any ISA, batch, tiling and number of
//! threads; and close to a model in f64.

use super::KEY_GROUP;
use super::float::Element;
use super::*;
use crate::simd::Scalar;
use crate::threads::ThreadPool;
use crate::tiles::Model;
use crate::{available, isa};

/// Reproducible numbers in -1..1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Pages of a kind outside of a cache.
trait TestKind: KvSlots {
    type Storage: Sync;
    fn page(kv_heads: usize, head_dim: usize) -> Self::Storage;
    fn head(page: &mut Self::Storage, head: usize, head_dim: usize) -> Self::HeadMut<'_>;
    fn read(page: &Self::Storage) -> Self::Page<'_>;
    /// What is left of a query, or of one head of a key or value.
    fn rounded(x: &[f32], part: Part) -> Vec<f64>;
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Query,
    Key,
    Value,
}

fn stride(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

impl<E: Element + Default> TestKind for Float<E> {
    type Storage = Vec<E>;
    fn page(kv_heads: usize, head_dim: usize) -> Vec<E> {
        vec![E::default(); kv_heads * PAGE_TOKENS * (head_dim + stride(head_dim))]
    }
    fn head(page: &mut Vec<E>, head: usize, head_dim: usize) -> &mut [E] {
        page.chunks_exact_mut(PAGE_TOKENS * (head_dim + stride(head_dim))).nth(head).unwrap()
    }
    fn read(page: &Vec<E>) -> &[E] {
        page
    }
    fn rounded(x: &[f32], part: Part) -> Vec<f64> {
        let narrow = E::NARROW && part != Part::Query;
        x.iter().map(|&x| f64::from(if narrow { half::bf16::from_f32(x).to_f32() } else { x })).collect()
    }
}

impl TestKind for Int8 {
    type Storage = (Vec<i8>, Vec<f32>);
    fn page(kv_heads: usize, head_dim: usize) -> (Vec<i8>, Vec<f32>) {
        let codes = PAGE_TOKENS * (head_dim.next_multiple_of(4) + stride(head_dim));
        // What nobody has written yet must not matter.
        let scales = PAGE_TOKENS * (head_dim.div_ceil(KEY_GROUP) + 1);
        (vec![77; kv_heads * codes], vec![f32::NAN; kv_heads * scales])
    }
    fn head((codes, scales): &mut (Vec<i8>, Vec<f32>), head: usize, head_dim: usize) -> Int8Head<'_> {
        let len = PAGE_TOKENS * (head_dim.next_multiple_of(4) + stride(head_dim));
        let codes = codes.chunks_exact_mut(len).nth(head).unwrap();
        let scales =
            scales.chunks_exact_mut(PAGE_TOKENS * (head_dim.div_ceil(KEY_GROUP) + 1)).nth(head).unwrap();
        Int8Head { codes, scales }
    }
    fn read((codes, scales): &(Vec<i8>, Vec<f32>)) -> Int8Page<'_> {
        Int8Page { codes, scales }
    }
    fn rounded(x: &[f32], part: Part) -> Vec<f64> {
        let mut x = x.to_vec();
        let rotate = |x: &mut [f32]| available()[0].hadamard(x);
        if part != Part::Value {
            rotate(&mut x);
        }
        let group = if part == Part::Key { KEY_GROUP } else { x.len() };
        let codes = x.chunks(group).flat_map(|x| {
            let amax = x.iter().fold(0.0_f32, |amax, x| amax.max(x.abs()));
            let (inv, scale) = if amax > 0.0 { (127.0 / amax, amax / 127.0) } else { (0.0, 0.0) };
            x.iter().map(move |x| f64::from((x * inv).round_ties_even()) * f64::from(scale))
        });
        // Products of what is rotated are those of what is not.
        codes.collect()
    }
}

/// Some sequences: their rows are the last of their tokens.
struct Case {
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    window: Option<usize>,
    /// With a bidirectional one, all tokens are rows.
    mask: Mask,
    /// Tokens, and how many of them are rows.
    sequences: Vec<(usize, usize)>,
    softcap: Option<f32>,
    /// Whether heads have sinks: [`sink`].
    sinks: bool,
    seed: u64,
}

/// The sink of a head: below, between and above the scores.
fn sink(head: usize) -> f32 {
    (head as f32 - 1.0) * 4.0
}

/// `[tokens, heads + 2 kv_heads, head_dim]`
fn tokens(case: &Case, sequence: usize) -> Vec<f32> {
    let mut noise = Noise(case.seed * 1000 + sequence as u64);
    let width = case.kv_heads * (case.group + 2) * case.head_dim;
    let queries = case.kv_heads * case.group * case.head_dim;
    let all = 0..case.sequences[sequence].0 * width;
    // Scores of several units, so that some weights are large and most are not.
    all.map(|i| noise.next() * if i % width < queries { 4.0 } else { 1.0 }).collect()
}

/// Rows of all sequences, `rows_at_once` of each in one batch; `[rows, heads, head_dim]` per sequence.
fn run<K: TestKind>(case: &Case, kernels: &KernelSet, threads: usize, rows_at_once: usize) -> Vec<Vec<f32>> {
    let Case { kv_heads, group, head_dim: d, window, .. } = *case;
    let (heads, width) = (kv_heads * group, kv_heads * (group + 2) * d);
    let data: Vec<Vec<f32>> = (0..case.sequences.len()).map(|sequence| tokens(case, sequence)).collect();
    let mut pages: Vec<Vec<K::Storage>> = Vec::new();
    for (data, &(length, rows)) in data.iter().zip(&case.sequences) {
        let count = length.div_ceil(PAGE_TOKENS);
        let mut of_sequence: Vec<_> = (0..count).map(|_| K::page(kv_heads, d)).collect();
        // The rows' own keys come with their batch, further down.
        for token in 0..length - rows {
            write::<K>(kernels, case, &mut of_sequence, &data[token * width..][..width], token);
        }
        pages.push(of_sequence);
    }
    let sinks: Option<Vec<f32>> = case.sinks.then(|| (0..heads).map(sink).collect());
    let mut done: Vec<usize> = case.sequences.iter().map(|(length, rows)| length - rows).collect();
    let mut results: Vec<Vec<f32>> = vec![Vec::new(); data.len()];
    let mut workspaces = Workspaces::default();
    workspaces.reserve(threads, d).unwrap();
    while done.iter().zip(&case.sequences).any(|(&done, &(length, _))| done < length) {
        let (mut qkv, mut positions, mut shares) = (Vec::new(), Vec::new(), Vec::new());
        for (index, data) in data.iter().enumerate() {
            let count = rows_at_once.min(case.sequences[index].0 - done[index]);
            for token in done[index]..done[index] + count {
                write::<K>(kernels, case, &mut pages[index], &data[token * width..][..width], token);
                qkv.extend_from_slice(&data[token * width..][..width]);
                positions.push(token);
            }
            shares.push((index, count));
        }
        let mut row = 0;
        let mut sequences = Vec::new();
        for &(index, count) in shares.iter().filter(|share| share.1 > 0) {
            let (first, last) = (positions[row], positions[row + count - 1]);
            let first_page = window.map_or(0, |window| (first + 1).saturating_sub(window) / PAGE_TOKENS);
            let pages = pages[index][first_page..=last / PAGE_TOKENS].iter().map(K::read).collect();
            sequences.push(KvSequence { rows: row..row + count, first_page, pages });
            row += count;
        }
        let problem = Attention {
            qkv: &qkv,
            positions: &positions,
            heads,
            kv_heads,
            head_dim: d,
            window,
            mask: case.mask,
            scores: Scores { softcap: case.softcap, sinks: sinks.as_deref(), ..Scores::plain(d) },
            sequences: &sequences,
        };
        let mut out = vec![f32::NAN; row * heads * d];
        let pool = ThreadPool::new(threads);
        pool.region(|region| attend::<K>(kernels, region, &problem, &mut out, &mut workspaces)).unwrap();
        let mut out = out.as_slice();
        for (index, count) in shares {
            let (of_sequence, rest) = out.split_at(count * heads * d);
            results[index].extend_from_slice(of_sequence);
            done[index] += count;
            out = rest;
        }
    }
    results
}

fn write<K: TestKind>(
    kernels: &KernelSet,
    case: &Case,
    pages: &mut [K::Storage],
    token: &[f32],
    position: usize,
) {
    let Case { kv_heads, group, head_dim, .. } = *case;
    for head in 0..kv_heads {
        let keys = &token[(kv_heads * group + head) * head_dim..];
        K::slots(kernels).write.call(WriteArgs {
            head: K::head(&mut pages[position / PAGE_TOKENS], head, head_dim),
            slot: position % PAGE_TOKENS,
            tokens: 1,
            head_dim,
            keys,
            values: &keys[kv_heads * head_dim..],
            stride: token.len(),
        });
    }
}

/// The definition in f64, of what is left of queries, keys and values.
fn naive<K: TestKind>(case: &Case, sequence: usize) -> Vec<f64> {
    let Case { kv_heads, group, head_dim: d, window, .. } = *case;
    let (heads, width) = (kv_heads * group, kv_heads * (group + 2) * d);
    let (length, rows) = case.sequences[sequence];
    let data = tokens(case, sequence);
    let part = |token: usize, head: usize, part| K::rounded(&data[token * width + head * d..][..d], part);
    let mut out = Vec::new();
    for row in length - rows..length {
        for head in 0..heads {
            let query = part(row, head, Part::Query);
            let first = window.map_or(0, |window| match case.mask {
                Mask::Chunked => row / window * window,
                _ => (row + 1).saturating_sub(window),
            });
            let end = match case.mask {
                Mask::Bidirectional => window.map_or(length, |window| (row + window).min(length)),
                Mask::Causal | Mask::Chunked => row + 1,
            };
            let scores: Vec<f64> = (first..end)
                .map(|token| {
                    let key = part(token, heads + head / group, Part::Key);
                    let score = query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() / (d as f64).sqrt();
                    case.softcap.map(f64::from).map_or(score, |cap| cap * (score / cap).tanh())
                })
                .collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let mut sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
            if case.sinks {
                sum += (f64::from(sink(head)) - max).exp();
            }
            let mut result = vec![0.0; d];
            for (token, score) in (first..end).zip(scores) {
                let value = part(token, heads + kv_heads + head / group, Part::Value);
                let weight = (score - max).exp() / sum;
                result.iter_mut().zip(value).for_each(|(out, v)| *out += weight * v);
            }
            out.extend(result);
        }
    }
    out
}

fn bits(x: &[Vec<f32>]) -> Vec<Vec<u32>> {
    x.iter().map(|x| x.iter().map(|x| x.to_bits()).collect()).collect()
}

fn check<K: TestKind>(case: &Case, bound: f64) {
    let name = std::any::type_name::<K>();
    let Case { kv_heads, group, head_dim, window, ref sequences, .. } = *case;
    let what = format!("{name} {kv_heads} x {group} x {head_dim} {window:?} {sequences:?}");
    let sets = available();
    let expected = run::<K>(case, sets.last().unwrap(), 1, usize::MAX);
    for (sequence, found) in expected.iter().enumerate() {
        let reference = naive::<K>(case, sequence);
        assert_eq!(found.len(), reference.len());
        for (at, (found, reference)) in found.iter().zip(reference).enumerate() {
            let error = (f64::from(*found) - reference).abs();
            assert!(
                error <= bound,
                "{what}: sequence {sequence} element {at}: {found}, expected {reference}"
            );
        }
    }
    let expected = bits(&expected);
    for set in sets {
        for (threads, rows) in [(1, usize::MAX), (2, 5), (3, 1)] {
            let rows = if case.mask == Mask::Bidirectional { usize::MAX } else { rows };
            assert!(
                bits(&run::<K>(case, set, threads, rows)) == expected,
                "{what}: {} x {threads} threads, {rows} rows",
                set.name
            );
        }
    }
}

fn check_all(case: &Case) {
    check::<Float<f32>>(case, 3e-6);
    check::<Float<u16>>(case, 3e-6);
    check::<Int8>(case, 3e-4);
}

fn case(
    seed: u64,
    heads: (usize, usize),
    head_dim: usize,
    window: Option<usize>,
    sequences: &[(usize, usize)],
) -> Case {
    Case {
        kv_heads: heads.0,
        group: heads.1,
        head_dim,
        window,
        mask: Mask::Causal,
        sequences: sequences.to_vec(),
        softcap: None,
        sinks: false,
        seed,
    }
}

#[test]
fn head_dims_and_groups() {
    for (seed, head_dim) in [2, 24, 40, 64, 66, 80, 96, 128, 256].into_iter().enumerate() {
        let seed = seed as u64;
        check_all(&case(seed, (1, 1 + seed as usize % 8), head_dim, None, &[(70, 9)]));
    }
    for group in 1..=8 {
        check_all(&case(group as u64, (2, group), 16, None, &[(66, 6), (3, 3)]));
    }
    // More heads than a tile has rows.
    check_all(&case(1, (1, 70), 8, None, &[(5, 3)]));
    check_all(&case(2, (1, 20), 256, None, &[(5, 3)]));
}

#[test]
fn ranges_and_windows() {
    check_all(&case(1, (1, 2), 32, None, &[(1100, 3), (513, 4), (512, 2), (64, 64), (1, 1)]));
    for window in [1, 7, 64, 65, 500, 600] {
        check_all(&case(window as u64, (1, 2), 16, Some(window), &[(1030, 12), (70, 70)]));
    }
}

#[test]
fn chunks() {
    for chunk in [1, 7, 64, 65, 100, 500, 2000] {
        let case = case(chunk as u64, (1, 2), 16, Some(chunk), &[(1030, 40), (70, 70), (1, 1)]);
        check_all(&Case { mask: Mask::Chunked, ..case });
    }
}

#[test]
fn soft_caps_and_sinks() {
    for (softcap, sinks) in [(Some(1.5), false), (None, true), (Some(3.0), true)] {
        let case = |seed, heads, head_dim, window, sequences| Case {
            softcap,
            sinks,
            ..case(seed, heads, head_dim, window, sequences)
        };
        check_all(&case(1, (2, 3), 24, None, &[(600, 4), (70, 9)]));
        check_all(&case(2, (1, 4), 64, Some(20), &[(150, 33), (1, 1)]));
    }
}

#[test]
fn bidirectional() {
    let both = |seed, heads, head_dim, window, lengths: &[usize]| {
        let sequences: Vec<_> = lengths.iter().map(|&length| (length, length)).collect();
        check_all(&Case { mask: Mask::Bidirectional, ..case(seed, heads, head_dim, window, &sequences) });
    };
    both(1, (3, 1), 32, None, &[70, 1, 64, 5, 128, 63]);
    both(2, (2, 3), 24, None, &[600]);
    for window in [1, 2, 33, 64, 65, 200] {
        both(window as u64, (2, 1), 16, Some(window), &[150, 3, 65]);
    }
    both(3, (1, 2), 64, Some(65), &[700]);
}

/// What a row gets does not depend on what else is in the batch, nor on what was in its pages before.
#[test]
fn bidirectional_alone_and_together() {
    let all =
        Case { mask: Mask::Bidirectional, ..case(7, (2, 1), 32, Some(20), &[(40, 40), (9, 9), (100, 100)]) };
    let together = run::<Float<u16>>(&all, available()[0], 2, usize::MAX);
    for (sequence, (length, _)) in all.sequences.iter().enumerate() {
        let mut sequences = vec![(1, 1); sequence];
        sequences.push((*length, *length));
        let alone =
            Case { sequences, ..Case { mask: Mask::Bidirectional, ..case(7, (2, 1), 32, Some(20), &[]) } };
        let found = run::<Float<u16>>(&alone, available()[0], 1, usize::MAX);
        assert!(bits(&found[sequence..]) == bits(&together[sequence..=sequence]), "{sequence}");
    }
}

#[test]
fn many_rows_are_the_same_as_few() {
    check_all(&case(3, (2, 4), 64, None, &[(150, 140), (30, 30)]));
    check_all(&case(4, (2, 3), 128, Some(50), &[(130, 100)]));
}

/// Tile registers, or their model, give the bits of the other kernels.
#[test]
fn tiles_are_the_same() {
    let tiled = KernelSet {
        attend_int8: Slot(|args| tiled::AttendTiled::<Model>::run(Scalar, args)),
        ..isa::scalar::SET
    };
    let scalar = available().into_iter().last().unwrap();
    for (seed, head_dim) in [64, 128, 192, 80].into_iter().enumerate() {
        for (group, window) in [(1, None), (3, Some(70)), (7, None)] {
            let case = case(seed as u64, (2, group), head_dim, window, &[(150, 33), (20, 20), (5, 1)]);
            let expected = bits(&run::<Int8>(&case, scalar, 1, usize::MAX));
            assert!(bits(&run::<Int8>(&case, &tiled, 2, usize::MAX)) == expected, "{group} x {head_dim}");
            assert!(bits(&run::<Int8>(&case, &tiled, 1, 17)) == expected, "{group} x {head_dim}, 17 rows");
        }
    }
}

/// A large weight next to many that are small but matter together.
#[test]
fn small_weights_beside_a_large_one_count() {
    let case = case(1, (1, 1), 16, None, &[(64, 1)]);
    let kernels = available()[0];
    let mut page = vec![Int8::page(1, 16)];
    for token in 0..64 {
        // Weights: 1 for the first key, 1/400 for each other, whose values are all that there is.
        let score = if token == 0 { 0.0 } else { -(400.0_f32.ln()) * 4.0 };
        let mut kv = vec![0.0; 48];
        kv[16] = score;
        kv[32..].fill(if token == 0 { 0.0 } else { 1.0 });
        write::<Int8>(kernels, &case, &mut page, &kv, token);
    }
    let mut qkv = vec![0.0; 48];
    qkv[0] = 1.0;
    let pages = vec![Int8::read(&page[0])];
    let sequences = [KvSequence { rows: 0..1, first_page: 0, pages }];
    let problem = Attention {
        qkv: &qkv,
        positions: &[63],
        heads: 1,
        kv_heads: 1,
        head_dim: 16,
        window: None,
        mask: Mask::Causal,
        scores: Scores::plain(16),
        sequences: &sequences,
    };
    let mut workspaces = Workspaces::default();
    workspaces.reserve(1, 16).unwrap();
    let mut out = [f32::NAN; 16];
    let pool = ThreadPool::new(1);
    pool.region(|region| attend::<Int8>(kernels, region, &problem, &mut out, &mut workspaces)).unwrap();
    let weight = 63.0 / 400.0;
    assert!(out.iter().all(|x| (x - weight / (1.0 + weight)).abs() < 1e-3), "{out:?}");
}

/// What is not finite shows in the rows that see it, and only there; an all-zero query weighs all keys the same.
#[test]
fn non_finite_and_zero_rows() {
    fn check<K: TestKind>() {
        for kernels in available() {
            let case = case(5, (1, 1), 16, None, &[(3, 3)]);
            // The second token's key or value, or nothing (`None`) but queries of zeros.
            for bad in [Some((17, f32::NAN)), Some((40, f32::NAN)), Some((40, f32::INFINITY)), None] {
                let mut data = tokens(&case, 0);
                match bad {
                    Some((at, bad)) => data[48 + at] = bad,
                    None => data.chunks_mut(48).for_each(|token| token[..16].fill(0.0)),
                }
                let mut page = vec![K::page(1, 16)];
                let mut workspaces = Workspaces::default();
                workspaces.reserve(1, 16).unwrap();
                for row in 0..3 {
                    let token = &data[row * 48..][..48];
                    write::<K>(kernels, &case, &mut page, token, row);
                    let sequences =
                        [KvSequence { rows: 0..1, first_page: 0, pages: vec![K::read(&page[0])] }];
                    let problem = Attention {
                        qkv: token,
                        positions: &[row],
                        heads: 1,
                        kv_heads: 1,
                        head_dim: 16,
                        window: None,
                        mask: Mask::Causal,
                        scores: Scores::plain(16),
                        sequences: &sequences,
                    };
                    let mut out = [7.0; 16];
                    ThreadPool::new(1)
                        .region(|region| attend::<K>(kernels, region, &problem, &mut out, &mut workspaces))
                        .unwrap();
                    let finite = out.iter().all(|x| x.is_finite());
                    assert_eq!(finite, row == 0 || bad.is_none(), "{} row {row}: {out:?}", kernels.name);
                    if bad.is_none() {
                        let of_token = |token: &[f32]| K::rounded(&token[32..], Part::Value)[3];
                        let mean: f64 =
                            data.chunks(48).take(row + 1).map(of_token).sum::<f64>() / (row + 1) as f64;
                        assert!((f64::from(out[3]) - mean).abs() < 1e-4, "{} row {row}", kernels.name);
                    }
                }
            }
        }
    }
    check::<Float<f32>>();
    check::<Float<u16>>();
    check::<Int8>();
}
