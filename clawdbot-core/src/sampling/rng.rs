//! Random numbers as a function of seed and draw number: no state to keep, the same on every platform.

/// A uniform number in [0, 1) with 53 random bits: number `draw` of the sequence for `seed`.
///
/// Two rounds of the SplitMix64 finaliser (Steele, Lea, Flood 2014, <https://doi.org/10.1145/2660193.2660195>).
pub(crate) fn uniform(seed: u64, draw: u64) -> f64 {
    let keyed = mix(seed.wrapping_add(GOLDEN_GAMMA));
    let bits = mix(keyed.wrapping_add(draw.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA)));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// 2^64 divided by the golden ratio, made odd.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_and_uniform() {
        // Pinned: a change would alter every seeded text of every user.
        let bits = |seed, draw| (uniform(seed, draw) * (1_u64 << 53) as f64) as u64;
        assert_eq!(bits(0, 0), 5_876_733_520_225_071);
        assert_eq!(bits(42, 7), 6_617_773_565_905_164);
        assert_eq!(bits(u64::MAX, u64::MAX), 2_403_545_779_318_817);
        let draws: Vec<f64> = (0..100_000).map(|i| uniform(42, i)).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        for decile in 0..10 {
            let low = f64::from(decile) / 10.0;
            let share = draws.iter().filter(|&&x| x >= low && x < low + 0.1).count();
            assert!((9_500..10_500).contains(&share), "{decile}: {share}");
        }
        assert_ne!(uniform(1, 0), uniform(2, 0));
    }
}
