//! What tells the numbers of one model from those of another: a SHA-256 over all that they are computed from.
//!
//! The weights count as they are in memory, so a directory, its packed file, and what the load option `cache` left are the same
//! model, and the same directory with another weight type is another one. All instruction sets read the same panels.

use clawdbot_kernels::PackedMatrix;
use clawdbot_kernels::memory::bytes_of;
use clawdbot_kernels::threads::ThreadPool;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::forward::adapter::Adapter;
use crate::forward::decoder::Decoder;

/// SHA-256.
pub(crate) type Fingerprint = [u8; 32];

/// Bytes that a task hashes.
const PIECE: usize = 1 << 20;
/// Most pieces of a region, so that passes of other models come in between.
const AT_ONCE: usize = 128;

/// That of a model. `vectors`: what the builder has read of norms and biases. Reads all weights, on all threads.
///
/// # Errors
/// `ForkedRuntime`.
pub(crate) fn of_model(decoder: &Decoder, vectors: &Fingerprint, pool: &ThreadPool) -> Result<Fingerprint> {
    let mut sha256 = Sha256::new();
    sha256.update(format!("{:?}", decoder.spec));
    sha256.update(vectors);
    for matrix in decoder.matrices() {
        let parts = matrix.part_bytes();
        for part in &parts {
            sha256.update((part.len() as u64).to_le_bytes());
        }
        let pieces: Vec<&[u8]> = parts.iter().flat_map(|part| part.chunks(PIECE)).collect();
        for pieces in pieces.chunks(AT_ONCE) {
            let mut hashed: Vec<(&[u8], Fingerprint)> =
                pieces.iter().map(|piece| (*piece, [0; 32])).collect();
            pool.region(|region| {
                region.parallel_chunks_mut(&mut hashed, 1, |_, hashed| {
                    hashed.iter_mut().for_each(|(piece, hash)| *hash = Sha256::digest(piece).into());
                });
            })?;
            hashed.iter().for_each(|(_, hash)| sha256.update(hash));
        }
    }
    Ok(sha256.finalize().into())
}

/// That of an adapter.
pub(crate) fn of_adapter(adapter: &Adapter) -> Fingerprint {
    let mut sha256 = Sha256::new();
    let mut field = |bytes: &[u8]| {
        sha256.update((bytes.len() as u64).to_le_bytes());
        sha256.update(bytes);
    };
    let mut names: Vec<&String> = adapter.sites.keys().collect();
    names.sort_unstable();
    for (name, site) in names.into_iter().filter_map(|name| Some((name, adapter.sites.get(name)?))) {
        field(name.as_bytes());
        field(bytes_of(&site.scales));
        [&site.a, &site.b].into_iter().flat_map(PackedMatrix::part_bytes).for_each(&mut field);
    }
    sha256.finalize().into()
}
