//! Calls with several items (prompts, texts, documents): an item that fails does not fail the others.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Error;

/// An item of a call that takes several, with its place. Displayed as errors name it, such as `prompt[2]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Item {
    /// A prompt of [`Model::generate_each`](crate::Model::generate_each).
    Prompt(usize),
    /// A text of [`Model::embed_each`](crate::Model::embed_each).
    Text(usize),
    /// A continuation of [`Model::score`](crate::Model::score).
    Continuation(usize),
    /// A document of [`Model::rerank_each`](crate::Model::rerank_each).
    Document(usize),
}

impl Item {
    /// Its place among the items of the call.
    pub fn index(self) -> usize {
        match self {
            Item::Prompt(index) | Item::Text(index) | Item::Continuation(index) | Item::Document(index) => {
                index
            }
        }
    }

    /// The key under which [`Error::detail`] has its place.
    pub fn key(self) -> &'static str {
        match self {
            Item::Prompt(_) => "prompt",
            Item::Continuation(_) => "continuation",
            Item::Text(_) | Item::Document(_) => "text",
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Prompt(index) => write!(f, "prompt[{index}]"),
            Item::Text(index) => write!(f, "texts[{index}]"),
            Item::Continuation(index) => write!(f, "continuations[{index}]"),
            Item::Document(index) => write!(f, "documents[{index}]"),
        }
    }
}

impl Error {
    /// The same error about an item of a call: its name stands in front of the message, its place in the detail.
    #[must_use]
    pub fn of_item(self, item: Item) -> Self {
        self.context(item).with(item.key(), item.index())
    }
}

/// The errors of those items of a call that failed, by their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults<E = Error>(BTreeMap<usize, E>);

impl<E> Default for Faults<E> {
    fn default() -> Self {
        Faults(BTreeMap::new())
    }
}

impl<E> Faults<E> {
    /// Whether every item succeeded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many items failed.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The error of the item at `index`, if it failed.
    pub fn get(&self, index: usize) -> Option<&E> {
        self.0.get(&index)
    }

    /// The first item that failed, and its error.
    pub fn first(&self) -> Option<Fault<'_, E>> {
        self.iter().next()
    }

    /// The items that failed, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Fault<'_, E>> {
        self.0.iter().map(|(&index, error)| Fault { index, error })
    }

    /// A result for each of `count` items, in their order: its error, or what `good` gives for its place.
    pub fn into_results<T>(
        mut self,
        count: usize,
        mut good: impl FnMut(usize) -> Result<T, E>,
    ) -> Vec<Result<T, E>> {
        (0..count).map(|index| self.0.remove(&index).map_or_else(|| good(index), Err)).collect()
    }

    /// `Ok` if every item succeeded.
    ///
    /// # Errors
    /// That of the first item that failed.
    pub fn into_result(mut self) -> Result<(), E> {
        self.0.pop_first().map_or(Ok(()), |(_, error)| Err(error))
    }

    pub(crate) fn insert(&mut self, index: usize, error: E) {
        self.0.insert(index, error);
    }
}

/// An item that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault<'a, E = Error> {
    /// Its place among the items of the call.
    pub index: usize,
    /// What is wrong with it.
    pub error: &'a E,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn an_error_names_its_item() {
        for (item, name, key) in [
            (Item::Prompt(2), "prompt[2]", "prompt"),
            (Item::Text(0), "texts[0]", "text"),
            (Item::Continuation(1), "continuations[1]", "continuation"),
            (Item::Document(7), "documents[7]", "text"),
        ] {
            let error = Error::new(ErrorKind::EmptyPrompt, "nothing").with("seen", 1).of_item(item);
            assert_eq!(
                (error.kind(), error.message()),
                (ErrorKind::EmptyPrompt, &*format!("{name}: nothing"))
            );
            assert_eq!((&error.detail()[key], &error.detail()["seen"]), (&item.index().into(), &1.into()));
        }
    }

    #[test]
    fn each_item_has_its_result() {
        let mut faults = Faults::default();
        assert!(faults.is_empty() && faults.first().is_none() && faults.clone().into_result().is_ok());
        faults.insert(3, "three");
        faults.insert(1, "one");
        assert_eq!((faults.len(), faults.get(3), faults.get(2)), (2, Some(&"three"), None));
        assert_eq!(faults.first(), Some(Fault { index: 1, error: &"one" }));
        assert_eq!(faults.iter().map(|fault| fault.index).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(faults.clone().into_result(), Err("one"));
        // What makes the result of an item may fail too.
        let good = |index| if index == 2 { Err("two") } else { Ok(index) };
        assert_eq!(faults.into_results(4, good), [Ok(0), Err("one"), Err("two"), Err("three")]);
    }
}
