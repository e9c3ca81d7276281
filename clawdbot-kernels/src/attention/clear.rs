//! Forgetting the last tokens of a page, so that nothing of them is left when the page is given away.

use super::int8::BLOCK;
use super::{Int8Head, KEY_GROUP, PAGE_TOKENS};
use crate::memory::Pod;
use crate::simd::LANES;

/// Makes keys and values of the tokens from `slot` on zeros, in one head of an f32 or bf16 page.
pub fn clear_float<T: Pod + Default>(head: &mut [T], head_dim: usize, slot: usize) {
    let (keys, values) = head.split_at_mut((PAGE_TOKENS * head_dim).min(head.len()));
    clear_lanes(keys, LANES * head_dim, 1, slot);
    let from = (slot * head_dim.next_multiple_of(LANES)).min(values.len());
    values[from..].fill(T::default());
}

/// Makes keys and values of the tokens from `slot` on zeros, in one head of an int8 page.
pub fn clear_int8(head: &mut Int8Head<'_>, head_dim: usize, slot: usize) {
    let keys = PAGE_TOKENS * head_dim.next_multiple_of(4);
    let (keys, values) = head.codes.split_at_mut(keys.min(head.codes.len()));
    clear_lanes(keys, LANES * head_dim.next_multiple_of(4), 4, slot);
    // [dimensions / 16][tokens / 4][16 dimensions][4 tokens]
    for (index, block) in values.chunks_exact_mut(BLOCK).enumerate() {
        let first = index % (PAGE_TOKENS / 4) * 4;
        for tokens in block.as_chunks_mut::<4>().0 {
            tokens[slot.saturating_sub(first).min(4)..].fill(0);
        }
    }
    debug_assert_eq!(head.scales.len(), PAGE_TOKENS * (head_dim.div_ceil(KEY_GROUP) + 1));
    for scales in head.scales.chunks_exact_mut(PAGE_TOKENS) {
        scales[slot.min(PAGE_TOKENS)..].fill(0.0);
    }
}

/// `[tokens / 16][..][16 tokens][width]`, where `panel` elements are the whole of 16 tokens.
fn clear_lanes<T: Pod + Default>(keys: &mut [T], panel: usize, width: usize, slot: usize) {
    for (index, panel) in keys.chunks_exact_mut(panel.max(1)).enumerate() {
        let first = slot.saturating_sub(index * LANES).min(LANES);
        for lanes in panel.chunks_exact_mut(LANES * width) {
            lanes[first * width..].fill(T::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Element, Float, Int8, KvSlots, WriteArgs};
    use super::*;
    use crate::KernelSet;
    use crate::dispatch::select;

    fn rows(d: usize) -> Vec<f32> {
        (0..2 * PAGE_TOKENS * d).map(|i| ((i * 7 + 3) % 29) as f32 - 14.0).collect()
    }

    /// Writes the first `tokens` tokens: keys, and values after them.
    fn write<'a, K: KvSlots>(
        kernels: &KernelSet,
        head: K::HeadMut<'a>,
        all: &'a [f32],
        d: usize,
        tokens: usize,
    ) {
        let (keys, values) = all.split_at(PAGE_TOKENS * d);
        let args = WriteArgs::<K> { head, slot: 0, tokens, head_dim: d, keys, values, stride: d };
        K::slots(kernels).write.call(args);
    }

    fn float<E: Element + Default + PartialEq + std::fmt::Debug>(kernels: &KernelSet, d: usize) {
        let all = rows(d);
        let empty = vec![E::default(); PAGE_TOKENS * (d + d.next_multiple_of(LANES))];
        for slot in [0, 1, 15, 16, 17, 40, 63] {
            let (mut cleared, mut expected) = (empty.clone(), empty.clone());
            write::<Float<E>>(kernels, &mut cleared, &all, d, PAGE_TOKENS);
            clear_float(&mut cleared, d, slot);
            write::<Float<E>>(kernels, &mut expected, &all, d, slot);
            assert_eq!(cleared, expected, "{d} {slot}");
        }
    }

    #[test]
    fn what_is_cleared_was_never_there() {
        let kernels = select(None).unwrap();
        for d in [8, 16, 24, 64, 80, 128] {
            float::<f32>(kernels, d);
            float::<u16>(kernels, d);
            let all = rows(d);
            let codes = vec![0_i8; PAGE_TOKENS * (d.next_multiple_of(4) + d.next_multiple_of(LANES))];
            let scales = vec![0.0_f32; PAGE_TOKENS * (d.div_ceil(KEY_GROUP) + 1)];
            for slot in [0, 1, 3, 4, 15, 16, 17, 40, 63] {
                let (mut cleared, mut expected) =
                    ((codes.clone(), scales.clone()), (codes.clone(), scales.clone()));
                write::<Int8>(
                    kernels,
                    Int8Head { codes: &mut cleared.0, scales: &mut cleared.1 },
                    &all,
                    d,
                    PAGE_TOKENS,
                );
                clear_int8(&mut Int8Head { codes: &mut cleared.0, scales: &mut cleared.1 }, d, slot);
                write::<Int8>(
                    kernels,
                    Int8Head { codes: &mut expected.0, scales: &mut expected.1 },
                    &all,
                    d,
                    slot,
                );
                assert!(cleared == expected, "{d} {slot}");
            }
        }
    }
}
