//! Parts of a layer that are more than one kernel.

pub(crate) mod attention;
pub(crate) mod rope;
pub(crate) mod states;
