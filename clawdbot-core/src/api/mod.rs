//! What programs call: models, sessions, streams, embeddings, plans.

mod adapters;
mod alternatives;
mod beams;
mod bounds;
mod chat;
mod constrain;
mod continuations;
pub(crate) mod embed;
mod embed_pass;
mod embed_plan;
mod generate;
mod instance;
mod items;
mod load;
pub(crate) mod loaded;
pub(crate) mod model;
mod mtp;
mod pending;
pub(crate) mod plan;
mod pool;
mod prefix_file;
mod rebound;
mod reply;
mod rerank;
mod saved;
mod score;
mod served;
pub(crate) mod session;
mod speculation;
mod spellings;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod tests_reply;
#[cfg(test)]
mod tests_study;
mod users;

pub use chat::Chat;
pub use continuations::ContinuationScore;
pub use embed::{EmbedResults, Embeddings, RerankResults};
pub use generate::Request;
pub use items::{Fault, Faults, Item};
pub use model::{Model, ModelInfo};
pub use plan::{EmbeddingInfo, Plan, StoredMatrices};
pub use pool::{ModelPool, PoolModel, PoolState, PoolStatus};
