//! What a pool says of its models.

use serde::Serialize;

use super::loading::held_bytes;
use super::{ModelPool, Place};

/// Where a model of a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PoolState {
    /// It will be loaded when it is asked for.
    Unloaded,
    /// It is being loaded, or waits for memory.
    Loading,
    /// It is in memory.
    Loaded,
}

/// A model of a pool, as it is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub state: PoolState,
    /// Whether it stays once it is loaded.
    pub pin: bool,
    /// Bytes that it holds: weights, buffers, and what is cached.
    pub bytes: u64,
    /// Users of each of its instances: handles, sessions and streams.
    pub users: Vec<u64>,
    /// Seconds since the last user has gone; none while there is one, or was none yet.
    pub idle_seconds: Option<f64>,
}

impl ModelPool {
    /// All models, by name.
    pub fn status(&self) -> Vec<PoolStatus> {
        // In the child of a fork, somebody may hold a lock for ever.
        if self.0.runtime.pool().check_fork().is_err() {
            return Vec::new();
        }
        let state = self.0.lock();
        let status = state.entries.iter().map(|(name, entry)| {
            let instances = entry.instances();
            let left = instances.iter().filter_map(|instance| instance.loaded.users.left()).max();
            PoolStatus {
                name: name.clone(),
                state: match entry.place {
                    Place::Unloaded => PoolState::Unloaded,
                    Place::Loading => PoolState::Loading,
                    Place::Loaded(_) => PoolState::Loaded,
                },
                pin: entry.model.pin,
                bytes: held_bytes(instances),
                users: instances.iter().map(|instance| instance.users() as u64).collect(),
                idle_seconds: left.filter(|_| entry.users() == 0).map(|left| left.elapsed().as_secs_f64()),
            }
        });
        status.collect()
    }
}
