//! Hash tables in arrays: open addressing, linear probing.
//!
//! A slot is 0, or 1 + an index in its lower 23 bits and the upper 9 bits of the key's hash above them. The first slot of
//! a key is given by the lower bits of its hash. A table is built so that no key is further than [`MAX_PROBES`] from its
//! first slot, and no search goes further, whatever the table holds.

use super::blob::Numbers;

/// Most slots that a search looks at.
const MAX_PROBES: usize = 128;
/// Bits of an index in a slot.
const INDEX_BITS: u32 = 23;
/// Most keys of a table.
pub(super) const MAX_KEYS: usize = (1 << INDEX_BITS) - 2;
/// Odd numbers without a pattern: digits of the golden ratio and of pi.
const MULTIPLIERS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0x2436_3f84_a885_a309];

/// The hash of a text: of 8 bytes at a time, little-endian, the last ones filled up with zeros.
#[inline]
pub(super) fn of_text(seed: u64, text: &[u8]) -> u64 {
    let (words, rest) = text.as_chunks::<8>();
    let mut hash = seed ^ (text.len() as u64);
    for word in words {
        hash = mix(hash ^ u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = mix(hash ^ u64::from_le_bytes(last));
    }
    mix(hash)
}

/// The hash of a pair of tokens.
#[inline]
pub(super) fn of_pair(seed: u64, left: u32, right: u32) -> u64 {
    mix(seed ^ (u64::from(left) << 32 | u64::from(right)))
}

#[inline]
fn mix(bits: u64) -> u64 {
    let product = bits.wrapping_mul(MULTIPLIERS[0]);
    let product = (product ^ product >> 32).wrapping_mul(MULTIPLIERS[1]);
    product ^ product >> 29
}

fn tag(hash: u64) -> u32 {
    (hash >> (32 + INDEX_BITS)) as u32
}

/// The first index with this hash that `is_it` accepts.
#[inline]
pub(super) fn find(slots: &Numbers, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<usize> {
    let slots = slots.all();
    let mask = slots.len().checked_sub(1)?;
    let tag = tag(hash);
    for probe in 0..MAX_PROBES {
        let slot = u32::from_le_bytes(*slots.get((hash as usize).wrapping_add(probe) & mask)?);
        let index = (slot & ((1 << INDEX_BITS) - 1)).checked_sub(1)? as usize;
        if slot >> INDEX_BITS == tag && is_it(index) {
            return Some(index);
        }
    }
    None
}

/// The slots for keys with these hashes and indices; at most half of them are used. `None` if a key is too far from its
/// first slot, or there are too many.
pub(super) fn build(keys: Vec<(u64, usize)>) -> Option<Vec<u32>> {
    if keys.is_empty() {
        return Some(Vec::new());
    }
    let mut slots = vec![0; (2 * keys.len()).next_power_of_two()];
    let mask = slots.len() - 1;
    for (hash, index) in keys {
        let at = |probe: usize| (hash as usize).wrapping_add(probe) & mask;
        let free = (0..MAX_PROBES).map(at).find(|&at| slots[at] == 0)?;
        let index = u32::try_from(index).ok().filter(|&index| index < MAX_KEYS as u32)?;
        slots[free] = tag(hash) << INDEX_BITS | (index + 1);
    }
    Some(slots)
}

/// Checks that the number of slots is what searches expect. The indices in them are not checked: a search asks of each
/// index whether it is the right one, and one that is too large is not.
///
/// # Errors
/// With what was expected and found.
pub(super) fn check(slots: &Numbers) -> Result<(), String> {
    if slots.len() != 0 && !slots.len().is_power_of_two() {
        return Err(format!("expected a power of two as the number of slots, found {}", slots.len()));
    }
    Ok(())
}
