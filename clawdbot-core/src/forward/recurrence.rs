//! Sizes of recurrent layers whose state is a matrix for each head: a convolution over the last tokens, then, for each head,
//! a state `S` that each token changes and reads.
//!
//! A layer's state is the last `kernel_size - 1` inputs of the convolution, the oldest first, then
//! `[heads][columns / 16][key_dim][16]`.

use clawdbot_kernels::simd::LANES;

/// Sizes of a recurrence.
#[derive(Clone, Copy)]
pub(crate) struct Recurrence {
    pub(crate) heads: usize,
    /// Heads of keys and queries, a divisor of `heads`.
    pub(crate) key_heads: usize,
    /// Head `h` uses key head `h % key_heads`; otherwise neighbouring heads share a key head.
    pub(crate) tiled: bool,
    pub(crate) key_dim: usize,
    /// Columns of a head's state.
    pub(crate) value_dim: usize,
    /// Tokens that the convolution covers, the current one included.
    pub(crate) kernel_size: usize,
}

/// Where queries, keys and values are among the channels.
#[derive(Clone, Copy)]
pub(crate) struct Channels {
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) values: usize,
}

impl Recurrence {
    /// Channels of the convolution: queries, keys, values.
    pub(crate) fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.heads * self.value_dim
    }

    /// Groups of 16 columns of a head's state.
    pub(crate) fn blocks(&self) -> usize {
        self.value_dim.div_ceil(LANES)
    }

    /// Floats of the convolution's part of the state.
    pub(crate) fn conv_len(&self) -> usize {
        (self.kernel_size - 1) * self.channels()
    }

    /// Floats of a layer's state.
    pub(crate) fn state_len(&self) -> usize {
        self.conv_len() + self.heads * self.blocks() * self.key_dim * LANES
    }

    /// Floats of a token's results in `Ops::recur`.
    pub(crate) fn results(&self) -> usize {
        self.heads * self.blocks() * LANES
    }
}
