//! What tests under load have in common.

use std::fmt::Debug;
use std::str::FromStr;
use std::time::Duration;

/// xorshift64*: the same numbers everywhere.
pub struct Draw(u64);

impl Draw {
    /// Those of a request: what it does depends on no other one.
    pub fn of(seed: u64, client: u64, number: u64) -> Self {
        let mut draw = Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (client << 40) ^ (number + 1));
        (0..4).for_each(|_| _ = draw.draw());
        draw
    }

    /// Others, of which any number can be drawn.
    pub fn apart(&mut self) -> Self {
        Draw(self.draw() | 1)
    }

    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// With a probability of 1 in `of`.
    pub fn once_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// 1 to `most` tokens.
    pub fn tokens(&mut self, most: u64) -> Vec<u32> {
        (0..1 + self.below(most)).map(|_| 3 + self.below(500) as u32).collect()
    }

    /// A prompt of at most 260 tokens; many begin as others do.
    pub fn prompt(&mut self) -> Vec<u32> {
        let (beginning, length) = (self.below(4) as u32, [0, 70, 130, 200][self.below(4) as usize]);
        let beginning = (0..length).map(|i| 3 + (i * 37 + beginning * 101) % 500);
        beginning.chain(self.tokens(60)).collect()
    }
}

/// A number from the environment.
pub fn variable<T: FromStr<Err: Debug>>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Waits until it is so: some things happen a little after what waits for them.
pub fn soon(what: &str, mut so: impl FnMut() -> bool) {
    let is_so = (0..5000).any(|_| {
        std::thread::sleep(Duration::from_millis(2));
        so()
    });
    assert!(is_so, "{what}");
}
