//! Element types of tensors: how many weights make a block, and how many bytes that takes.

use crate::error::{Error, Result};

macro_rules! tensor_types {
    ($($variant:ident = $id:literal, $name:literal, $block:literal, $bytes:literal;)+) => {
        /// Type of a tensor's elements.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum TensorType { $(#[doc = concat!("`", $name, "`")] $variant,)+ }

        impl TensorType {
            /// Every type that is read.
            pub(crate) const ALL: &'static [TensorType] = &[$(TensorType::$variant,)+];

            fn known(id: u32) -> Option<Self> {
                match id { $($id => Some(TensorType::$variant),)+ _ => None }
            }

            /// Its number in files.
            #[cfg(test)]
            pub(crate) fn id(self) -> u32 {
                match self { $(TensorType::$variant => $id,)+ }
            }

            /// As others call it.
            pub(crate) fn name(self) -> &'static str {
                match self { $(TensorType::$variant => $name,)+ }
            }

            /// Weights of a block.
            pub(crate) const fn block(self) -> usize {
                match self { $(TensorType::$variant => $block,)+ }
            }

            /// Bytes of a block.
            pub(crate) const fn block_bytes(self) -> usize {
                match self { $(TensorType::$variant => $bytes,)+ }
            }
        }
    };
}

tensor_types! {
    F32 = 0, "F32", 1, 4;
    F16 = 1, "F16", 1, 2;
    Bf16 = 30, "BF16", 1, 2;
    Q4_0 = 2, "Q4_0", 32, 18;
    Q4_1 = 3, "Q4_1", 32, 20;
    Q5_0 = 6, "Q5_0", 32, 22;
    Q5_1 = 7, "Q5_1", 32, 24;
    Q8_0 = 8, "Q8_0", 32, 34;
    Q2K = 10, "Q2_K", 256, 84;
    Q3K = 11, "Q3_K", 256, 110;
    Q4K = 12, "Q4_K", 256, 144;
    Q5K = 13, "Q5_K", 256, 176;
    Q6K = 14, "Q6_K", 256, 210;
    Iq4Nl = 20, "IQ4_NL", 32, 18;
    Iq4Xs = 23, "IQ4_XS", 256, 136;
    Mxfp4 = 39, "MXFP4", 32, 17;
}

/// Types that exist, but are not read.
const OTHERS: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (40, "NVFP4"),
];

impl TensorType {
    /// Whether rows are made of blocks.
    pub(super) fn is_blocks(self) -> bool {
        self.block() > 1
    }

    /// The type of that number.
    ///
    /// # Errors
    /// `UnsupportedModel` for types that exist and are not read; `InvalidModel` for any other number.
    pub(super) fn from_id(id: u32) -> Result<Self> {
        if let Some(known) = Self::known(id) {
            return Ok(known);
        }
        let names: Vec<&str> = Self::ALL.iter().map(|known| known.name()).collect();
        let expected = format!("expected a type out of {}", names.join(", "));
        match OTHERS.iter().find(|(other, _)| *other == id) {
            Some((_, name)) => Err(Error::unsupported_model(format!("{expected}, found {name}"))),
            None => Err(Error::invalid_model(format!("{expected}, found the unknown type {id}"))),
        }
    }
}
