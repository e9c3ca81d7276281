//! What programs call: models, sessions, streams, embeddings, plans.

mod adapters;
mod chat;
pub(crate) mod embed;
mod generate;
mod judge;
mod load;
pub(crate) mod model;
pub(crate) mod plan;
mod score;
mod served;
pub(crate) mod session;
#[cfg(test)]
mod study;
#[cfg(test)]
pub(crate) mod tests;

pub use chat::Chat;
pub use embed::{EmbeddingInfo, Embeddings, Faults};
pub use model::{Model, ModelInfo};
pub use plan::{Plan, StoredMatrices};
