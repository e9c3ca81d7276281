//! Responses in memory, for those that follow them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use clawdbot_core::{Error, ErrorKind};

use crate::fault::Fault;

/// Bytes that an entry takes besides its texts.
const OVERHEAD: usize = 512;

/// A response, as JSON: that takes a fraction of the memory of its values.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The response.
    pub(crate) response: Box<str>,
    /// The items of its request.
    pub(crate) input: Box<str>,
    /// The response that it follows.
    pub(crate) previous: Option<String>,
}

impl Entry {
    /// Bytes of its items and the rest.
    pub(crate) fn bytes(&self) -> usize {
        self.response.len() + self.input.len() + OVERHEAD
    }
}

/// Responses in memory. Beyond its limits, those that were used least recently are dropped.
#[derive(Debug)]
pub(crate) struct Store {
    most: usize,
    most_bytes: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By id, with the time of the last use.
    entries: HashMap<String, (u64, Arc<Entry>)>,
    /// Ids by that time.
    order: BTreeMap<u64, String>,
    /// Counts uses.
    time: u64,
    bytes: usize,
}

/// The responses of the holder of a key. Those of others are not there for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shelf<'a> {
    store: &'a Store,
    owner: &'a str,
}

impl Store {
    /// Those of `owner`.
    pub(crate) fn of<'a>(&'a self, owner: &'a str) -> Shelf<'a> {
        Shelf { store: self, owner }
    }

    /// Keeps at most `most` responses, and `most_bytes` of them.
    pub(crate) fn new(most: usize, most_bytes: usize) -> Self {
        Store { most, most_bytes, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf<'_> {
    /// What the store knows a response by.
    fn key(self, id: &str) -> String {
        format!("{}\n{id}", self.owner)
    }

    /// Keeps a response. Whether it did: one that is larger than all that may be kept is not.
    pub(crate) fn put(self, id: &str, entry: Entry) -> bool {
        let Store { most, most_bytes, .. } = *self.store;
        if most == 0 || entry.bytes() > most_bytes {
            return false;
        }
        let (mut inner, key) = (self.store.inner(), self.key(id));
        inner.remove(&key);
        inner.bytes += entry.bytes();
        let time = inner.tick(&key);
        inner.entries.insert(key, (time, Arc::new(entry)));
        while inner.entries.len() > most || inner.bytes > most_bytes {
            let Some((_, oldest)) = inner.order.pop_first() else { break };
            inner.remove(&oldest);
        }
        true
    }

    /// A response.
    pub(crate) fn get(self, id: &str) -> Option<Arc<Entry>> {
        self.store.inner().used(&self.key(id))
    }

    /// Forgets a response. Whether it was there.
    pub(crate) fn remove(self, id: &str) -> bool {
        self.store.inner().remove(&self.key(id))
    }

    /// A response and those that it follows, the first one first.
    pub(crate) fn chain(self, id: &str) -> Result<Vec<Arc<Entry>>, Fault> {
        let mut inner = self.store.inner();
        let (mut ids, mut next) = (Vec::<String>::new(), Some(id.to_owned()));
        // A chain has no more than all of them.
        while let Some(id) = next.take().filter(|_| ids.len() <= inner.entries.len()) {
            let Some((_, entry)) = inner.entries.get(&self.key(&id)) else {
                return Err(self.lacks(ids.first().unwrap_or(&id), &id));
            };
            next = entry.previous.clone();
            ids.push(id);
        }
        // The first one is the first to be dropped.
        Ok(ids.iter().rev().filter_map(|id| inner.used(&self.key(id))).collect())
    }

    /// The fault of a request that follows `id`, as `missing` is not there.
    fn lacks(self, id: &str, missing: &str) -> Fault {
        let before = if id == missing { String::new() } else { format!(" before {id:?}") };
        let message = format!(
            "field previous_response_id: expected a response that is stored, found {missing:?}{before}: there is none of this id, it was \
             deleted, or it was dropped (at most {} responses and {} bytes are kept, in memory)",
            self.store.most, self.store.most_bytes
        );
        let error = Error::new(ErrorKind::NotFound, message).with("field", "previous_response_id");
        // The status by which OpenAI's clients know it.
        Fault::from(error).coded("previous_response_not_found").with_status(StatusCode::BAD_REQUEST)
    }
}

impl Inner {
    /// The time of a use of `id`.
    fn tick(&mut self, id: &str) -> u64 {
        self.time += 1;
        self.order.insert(self.time, id.to_owned());
        self.time
    }

    fn used(&mut self, id: &str) -> Option<Arc<Entry>> {
        let before = self.entries.get(id)?.0;
        self.order.remove(&before);
        let time = self.tick(id);
        let (used, entry) = self.entries.get_mut(id)?;
        *used = time;
        Some(Arc::clone(entry))
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some((time, entry)) = self.entries.remove(id) else { return false };
        self.order.remove(&time);
        self.bytes -= entry.bytes();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: usize, previous: Option<&str>) -> Entry {
        Entry { response: "x".repeat(bytes).into(), input: "".into(), previous: previous.map(str::to_owned) }
    }

    #[test]
    fn what_was_used_least_recently_is_dropped() {
        let all = Store::new(3, usize::MAX);
        let store = all.of("");
        for id in ["a", "b", "c"] {
            assert!(store.put(id, entry(1, None)));
        }
        assert!(store.get("a").is_some());
        assert!(store.put("d", entry(1, None)));
        let kept: Vec<bool> = ["a", "b", "c", "d"].map(|id| store.get(id).is_some()).into();
        assert_eq!(kept, [true, false, true, true]);
        assert!(store.remove("a") && !store.remove("a") && store.get("a").is_none());
        assert_eq!(all.inner().order.len(), 2);
    }

    #[test]
    fn what_others_keep_is_not_there() {
        let store = Store::new(3, usize::MAX);
        let (one, other) = (store.of("a"), store.of("b"));
        one.put("x", entry(1, None));
        assert!(one.get("x").is_some() && other.get("x").is_none());
        assert!(other.chain("x").is_err() && !other.remove("x") && one.remove("x"));
    }

    #[test]
    fn bytes_are_bounded() {
        let all = Store::new(100, 3 * (OVERHEAD + 100));
        let store = all.of("");
        assert!(!store.put("large", entry(3 * (OVERHEAD + 100), None)));
        for id in ["a", "b", "c", "d"] {
            assert!(store.put(id, entry(100, None)));
        }
        assert!(store.get("a").is_none() && store.get("b").is_some());
        assert!(store.put("e", entry(2 * OVERHEAD + 200, None)));
        assert!(store.get("e").is_some() && all.inner().bytes <= all.most_bytes);
        // The same id again takes its place.
        assert!(store.put("e", entry(1, None)));
        let inner = all.inner();
        assert_eq!(inner.bytes, inner.entries.values().map(|(_, one)| one.bytes()).sum::<usize>());
        drop(inner);
        assert!(!Store::new(0, 1000).of("").put("a", entry(1, None)));
    }

    #[test]
    fn chains_are_whole_or_say_what_is_missing() {
        let all = Store::new(3, usize::MAX);
        let store = all.of("");
        store.put("a", entry(1, None));
        store.put("b", entry(2, Some("a")));
        let chain = store.chain("b").expect("a chain");
        assert_eq!(chain.iter().map(|one| one.response.len()).collect::<Vec<_>>(), [1, 2]);
        // Both were used after this one.
        store.put("x", entry(1, None));
        store.chain("b").expect("a chain");
        store.put("y", entry(1, None));
        assert!(store.get("x").is_none() && store.get("a").is_some());
        store.remove("a");
        let fault = store.chain("b").expect_err("broken");
        assert_eq!(
            (fault.code, fault.param.as_deref()),
            (Some("previous_response_not_found"), Some("previous_response_id"))
        );
        assert!(fault.message.contains(r#""a" before "b""#), "{}", fault.message);
        assert!(store.chain("z").expect_err("none").message.contains(r#"found "z":"#));
        // Clients cannot make one that follows itself; it would end, too.
        store.put("s", entry(1, Some("s")));
        assert!(store.chain("s").is_ok());
    }
}
