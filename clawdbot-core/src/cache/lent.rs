//! Pages that callers have, to fill them from a file or to write them to one. The cache is not locked meanwhile, since files may be
//! slow. Whoever needs memory may take the pages back at any time, so nobody waits for a file.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::{KvCache, LoosePages};
use crate::error::Result;

/// Bytes that are copied at a time.
const CHUNK: usize = 64 << 10;

/// Pages with a caller.
#[derive(Debug)]
pub(crate) struct Lent(Arc<Loan>);

#[derive(Debug)]
struct Loan {
    bytes: u64,
    since: Instant,
    /// `None`: they were taken back. Locked for a moment at a time.
    pages: Mutex<Option<LoosePages>>,
}

impl Loan {
    fn lock(&self) -> MutexGuard<'_, Option<LoosePages>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    /// Fills the pages from `from`, which gives as many bytes also when they are taken back.
    ///
    /// # Errors
    /// Those of `from`.
    pub(crate) fn read(&self, from: &mut dyn Read) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK.min(usize::try_from(self.0.bytes).unwrap_or(CHUNK))];
        let (mut left, mut part, mut at) = (self.0.bytes, 0, 0);
        while left > 0 {
            let buffer = &mut buffer[..left.min(CHUNK as u64) as usize];
            from.read_exact(buffer)?;
            left -= buffer.len() as u64;
            let mut bytes = &*buffer;
            while let Some(to) = self.0.lock().as_mut().and_then(|pages| pages.part_mut(part)) {
                let to = &mut to[at..];
                let (now, later) = bytes.split_at(bytes.len().min(to.len()));
                to[..now.len()].copy_from_slice(now);
                bytes = later;
                (part, at) = if now.len() == to.len() { (part + 1, 0) } else { (part, at + now.len()) };
                if bytes.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether all numbers in the pages, if they are still there, are finite.
    pub(crate) fn are_finite(&self) -> bool {
        // A page at a time: a request may be waiting for them.
        let is_finite = |index| self.0.lock().as_ref().and_then(|pages| pages.is_finite(index));
        (0..).map_while(is_finite).all(|finite| finite)
    }

    /// Gives their bytes from `written` on to `put`, and adds to it what was given. Returns whether that was all: not if they were
    /// taken back.
    ///
    /// # Errors
    /// Those of `put`.
    pub(crate) fn write(&self, written: &mut u64, put: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let mut buffer = Vec::with_capacity(CHUNK);
        while *written < self.0.bytes {
            buffer.clear();
            match &*self.0.lock() {
                Some(pages) => pages.copy_to(&mut buffer, *written, CHUNK),
                None => return Ok(false),
            }
            put(&buffer)?;
            *written += buffer.len() as u64;
        }
        Ok(true)
    }

    /// Calls `f` with the pages, if they are still there.
    pub(crate) fn change(&self, f: impl FnOnce(&mut LoosePages)) {
        if let Some(pages) = &mut *self.0.lock() {
            f(pages);
        }
    }

    /// Ends the loan. `None` if they were taken back.
    pub(crate) fn into_pages(self) -> Option<LoosePages> {
        self.0.lock().take()
    }
}

/// What the cache has lent.
#[derive(Debug, Default)]
pub(super) struct Loans(Vec<Weak<Loan>>);

impl KvCache {
    /// Lends pages.
    pub(crate) fn lend(&mut self, pages: LoosePages) -> Lent {
        let loan = Loan { bytes: pages.bytes(), since: Instant::now(), pages: Mutex::new(Some(pages)) };
        let loan = Arc::new(loan);
        self.loans.0.retain(|loan| loan.strong_count() > 0);
        self.loans.0.push(Arc::downgrade(&loan));
        Lent(loan)
    }

    fn lent(&self) -> impl Iterator<Item = Arc<Loan>> {
        self.loans.0.iter().filter_map(Weak::upgrade).filter(|loan| loan.lock().is_some())
    }

    /// Bytes of pages that callers have.
    pub(crate) fn lent_bytes(&self) -> u64 {
        self.lent().map(|loan| loan.bytes).sum()
    }

    /// Takes pages back that a caller has had for so long: as few as possible at a time. Returns whether there were any.
    pub(crate) fn take_back(&mut self, least: Duration) -> bool {
        let loans = self.lent().filter(|loan| loan.since.elapsed() >= least);
        let loan = loans.min_by_key(|loan| (loan.bytes, loan.since));
        loan.is_some_and(|loan| loan.lock().take().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::LayerState;
    use crate::options::KvType;
    use crate::runtime::Budget;

    fn cache(kv_type: KvType, budget: &Budget) -> KvCache {
        // A page of more than a chunk, and one of less.
        let attention = |kv_heads, head_dim| LayerState::Attention { window: None, kv_heads, head_dim };
        KvCache::new(kv_type, &[attention(4, 100), attention(1, 16)], budget).unwrap()
    }

    /// Bytes that are finite numbers in every type.
    fn some_bytes(len: u64) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 61) as u8).collect()
    }

    fn written(lent: &Lent) -> Vec<u8> {
        let (mut bytes, mut number) = (Vec::new(), 0);
        let put = &mut |part: &[u8]| -> Result<()> {
            bytes.extend_from_slice(part);
            Ok(())
        };
        assert!(lent.write(&mut number, put).unwrap());
        assert_eq!(number, bytes.len() as u64);
        bytes
    }

    #[test]
    fn what_is_read_is_written_and_taken() {
        for kv_type in [KvType::F32, KvType::Bf16, KvType::Int8] {
            let budget = Budget::new(Some(10 << 20));
            let mut cache = cache(kv_type, &budget);
            let expected = some_bytes(cache.image_bytes(150));
            let pages = cache.loose_pages(150).unwrap();
            let lent = cache.lend(pages);
            assert_eq!(cache.lent_bytes(), expected.len() as u64);
            assert_eq!(budget.used(), cache.lent_bytes());
            let mut from = [&expected[..], b"more"].concat();
            let mut reader = from.as_slice();
            lent.read(&mut reader).unwrap();
            assert_eq!(reader, b"more");
            assert!(lent.are_finite());
            assert_eq!(written(&lent), expected, "{kv_type}");
            // Elements of the first page, or scales of the last, are no numbers.
            from.fill(0xff);
            lent.read(&mut from.as_slice()).unwrap();
            assert!(!lent.are_finite());
            assert!(lent.read(&mut &from[..1000]).is_err());
            let mut tables = cache.adopt(lent.into_pages().unwrap());
            assert_eq!((cache.lent_bytes(), cache.take_back(Duration::ZERO)), (0, false));
            cache.release_all(&mut tables);
            cache.trim();
            assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn who_needs_pages_takes_them_back() {
        let budget = Budget::new(Some(10 << 20));
        let mut cache = cache(KvType::F32, &budget);
        let expected = some_bytes(cache.image_bytes(100));
        let pages = [100, 300].map(|computed| cache.loose_pages(computed).unwrap());
        let [short, long] = pages.map(|pages| cache.lend(pages));
        short.read(&mut expected.as_slice()).unwrap();
        let all = budget.used();
        assert!(!cache.take_back(Duration::from_secs(1000)));
        // The smaller one, in the middle of writing it.
        let (mut number, mut bytes) = (0, Vec::new());
        let put = &mut |part: &[u8]| -> Result<()> {
            bytes.extend_from_slice(part);
            assert_eq!(cache.take_back(Duration::ZERO), bytes.len() == CHUNK);
            Ok(())
        };
        assert!(!short.write(&mut number, put).unwrap());
        assert_eq!(number, CHUNK as u64);
        assert_eq!(bytes, expected[..CHUNK]);
        assert_eq!(budget.used(), all - expected.len() as u64);
        // What was to be read is read all the same.
        let mut from = expected.as_slice();
        short.read(&mut from).unwrap();
        assert!(from.is_empty() && short.are_finite());
        short.change(|_| panic!("they are gone"));
        assert!(short.into_pages().is_none());
        assert!(cache.take_back(Duration::ZERO) && budget.used() == 0);
        assert!(long.into_pages().is_none());
        // Nothing is left of loans that ended.
        drop(cache.loose_pages(1).map(|pages| cache.lend(pages)).unwrap());
        assert_eq!((cache.lent_bytes(), budget.used()), (0, 0));
    }
}
