//! What it costs to compute a token, and to write and read a byte: is it worth swapping out what has to go?

/// Seconds for a byte before any was measured.
const BYTE: f64 = 0.5e-9;
/// Weight of the latest measurement in a mean.
const WEIGHT: f64 = 0.2;
/// Rows from which a pass shows what computing a prompt again costs: with fewer, most of it is reading the weights.
const MANY_ROWS: usize = 16;
/// Most times that writing is not tried after it has failed; at first once, then twice as often each time.
const MOST_PAUSE: u32 = 64;
/// How far a mean returns to its first value each time it says no: otherwise it would never be measured again.
const RETURN: f64 = 0.05;

/// Means, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Costs {
    token: Option<f64>,
    write: f64,
    read: f64,
    /// How often writing is not tried now, and after the latest failure.
    pause: (u32, u32),
    /// What to say whatever was measured.
    #[cfg(test)]
    pub(super) forced: Option<bool>,
}

impl Default for Costs {
    fn default() -> Self {
        Costs {
            token: None,
            write: BYTE,
            read: BYTE,
            pause: (0, 0),
            #[cfg(test)]
            forced: None,
        }
    }
}

fn mix(mean: &mut f64, seconds: f64, weight: f64) {
    *mean += weight * (seconds - *mean);
}

impl Costs {
    /// A pass of `rows` tokens has taken so long.
    pub(super) fn computed(&mut self, rows: usize, seconds: f64) {
        let each = seconds / rows.max(1) as f64;
        match &mut self.token {
            Some(token) if rows >= MANY_ROWS => mix(token, each, WEIGHT),
            Some(token) => *token = token.min(each),
            None => self.token = Some(each),
        }
    }

    /// So many bytes were written.
    pub(super) fn wrote(&mut self, bytes: u64, seconds: f64) {
        self.pause = (0, 0);
        mix(&mut self.write, seconds / bytes.max(1) as f64, WEIGHT);
    }

    /// Writing has failed: most probably the disk is full, and the next time would cost as much.
    pub(super) fn failed(&mut self) {
        let pause = (2 * self.pause.1).clamp(1, MOST_PAUSE);
        self.pause = (pause, pause);
    }

    /// So many bytes were read back.
    pub(super) fn read(&mut self, bytes: u64, seconds: f64) {
        mix(&mut self.read, seconds / bytes.max(1) as f64, WEIGHT);
    }

    /// Whether writing `bytes` bytes and reading them back costs less than computing `tokens` tokens again.
    pub(super) fn pays(&self, bytes: u64, tokens: usize) -> bool {
        #[cfg(test)]
        if let Some(forced) = self.forced {
            return forced;
        }
        self.token.is_some_and(|token| (self.write + self.read) * (bytes as f64) < token * tokens as f64)
    }

    /// Whether writing is not tried now, as it has failed.
    pub(super) fn pauses(&self) -> bool {
        self.pause.0 > 0
    }

    /// [`Costs::pays`] for what has to go now.
    pub(super) fn swapping_pays(&mut self, bytes: u64, tokens: usize) -> bool {
        let pays = !self.pauses() && self.pays(bytes, tokens);
        if !pays && self.token.is_some() {
            self.refused();
        }
        pays
    }

    /// Something was not written, because it was not worth it, or writing pauses.
    pub(super) fn refused(&mut self) {
        if self.pause.0 > 0 {
            self.pause.0 -= 1;
            return;
        }
        mix(&mut self.write, BYTE, RETURN);
        mix(&mut self.read, BYTE, RETURN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheaper_way_is_taken() {
        let mut costs = Costs::default();
        assert!(!costs.swapping_pays(1, 1000), "nothing was computed yet");
        // A millisecond for a token of 10 KB.
        costs.computed(100, 0.1);
        assert!(costs.swapping_pays(10_000_000, 1000));
        // Decode passes say little.
        costs.computed(1, 0.05);
        assert!(costs.swapping_pays(10_000_000, 1000));
        // A disk that writes 5 MB in a second.
        for _ in 0..50 {
            costs.wrote(5_000_000, 1.0);
        }
        assert!(!costs.swapping_pays(10_000_000, 1000));
        // It is tried again some time.
        let refused = (0..1000).take_while(|_| !costs.swapping_pays(10_000_000, 1000)).count();
        assert!((1..100).contains(&refused), "{refused}");
        for _ in 0..50 {
            costs.computed(1000, 0.0001);
        }
        assert!(!costs.swapping_pays(10_000_000, 1000));
    }

    #[test]
    fn a_full_disk_is_not_tried_each_time() {
        let mut costs = Costs::default();
        costs.computed(100, 0.1);
        let mut tries = Vec::new();
        for time in 0..400 {
            if costs.swapping_pays(1000, 1000) {
                tries.push(time);
                costs.failed();
            }
        }
        assert_eq!(tries, [0, 2, 5, 10, 19, 36, 69, 134, 199, 264, 329, 394]);
        while !costs.swapping_pays(1000, 1000) {}
        costs.wrote(1000, 1e-6);
        assert!(costs.swapping_pays(1000, 1000) && costs.swapping_pays(1000, 1000));
    }
}
