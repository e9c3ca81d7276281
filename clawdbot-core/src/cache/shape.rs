//! Shapes of keys and values.

use clawdbot_kernels::attention::{KEY_GROUP, PAGE_TOKENS};
use clawdbot_kernels::simd::LANES;

use super::PageLen;
use crate::error::{Error, Result};
use crate::options::KvType;

/// Shape of the keys and values of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) kv_type: KvType,
}

impl KvShape {
    /// `head_dim` rounded up to whole vectors: elements of a V row.
    pub(crate) fn value_stride(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Elements of one head of a page, K and V.
    pub(crate) fn head_elements(&self) -> usize {
        let key = match self.kv_type {
            KvType::Int8 => self.head_dim.next_multiple_of(4),
            KvType::F32 | KvType::Bf16 | KvType::Auto => self.head_dim,
        };
        PAGE_TOKENS * (key + self.value_stride())
    }

    /// Scales of one head of a page, K and V.
    pub(crate) fn head_scales(&self) -> usize {
        match self.kv_type {
            KvType::Int8 => PAGE_TOKENS * (self.head_dim.div_ceil(KEY_GROUP) + 1),
            KvType::F32 | KvType::Bf16 | KvType::Auto => 0,
        }
    }

    fn element_bytes(&self) -> usize {
        match self.kv_type {
            KvType::F32 => 4,
            KvType::Bf16 | KvType::Auto => 2,
            KvType::Int8 => 1,
        }
    }

    /// The contents of one page of a group of `layers` layers.
    pub(super) fn page_len(&self, layers: usize) -> PageLen {
        let heads = layers * self.kv_heads;
        PageLen { elements: heads * self.head_elements(), scales: heads * self.head_scales() }
    }

    /// Bytes of one page of a group of `layers` layers.
    ///
    /// # Errors
    /// `InvalidModel` when the product overflows.
    pub(crate) fn page_bytes(&self, layers: usize) -> Result<u64> {
        // A head has at most 2^16 dimensions.
        let head = self.head_elements() * self.element_bytes() + 4 * self.head_scales();
        self.kv_heads
            .checked_mul(head)
            .and_then(|n| n.checked_mul(layers))
            .map(|n| n as u64)
            .ok_or_else(|| Error::invalid_model("the KV cache of one page exceeds the address space"))
    }
}
