//! Stop strings in text that arrives in pieces.

use crate::error::{Error, Result};

/// Finds the first stop string in a stream of text pieces, and holds back text that may be the beginning of one.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text that was not handed out: always the longest end of the stream that begins a stop string.
    held: String,
    stopped: Option<usize>,
}

/// What one piece of text led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOutcome {
    /// Text that is certain not to belong to a stop string.
    pub emit: String,
    /// Index of the stop string that was found. It and what follows it are dropped.
    pub stopped: Option<usize>,
}

impl StopMatcher {
    /// A matcher for `stops`. The one that is complete first wins; of several that end at the same place, the longest.
    ///
    /// # Errors
    /// `InvalidArgument` when a stop string is empty.
    pub fn new(stops: &[String]) -> Result<Self> {
        if let Some(at) = stops.iter().position(String::is_empty) {
            return Err(Error::invalid_argument(format!("stop string {at} is empty")));
        }
        Ok(StopMatcher { stops: stops.to_vec(), held: String::new(), stopped: None })
    }

    /// Takes the next piece. After a stop string was found, every further piece is dropped.
    pub fn push(&mut self, piece: &str) -> StopOutcome {
        if self.stopped.is_some() {
            return StopOutcome { emit: String::new(), stopped: self.stopped };
        }
        let mut emit = String::new();
        let mut rest = piece;
        while let Some(c) = rest.chars().next() {
            let (head, tail) = rest.split_at(c.len_utf8());
            self.held.push_str(head);
            rest = tail;
            let complete =
                self.stops.iter().enumerate().filter(|(_, stop)| self.held.ends_with(stop.as_str()));
            if let Some((which, stop)) =
                complete.max_by_key(|(at, stop)| (stop.len(), std::cmp::Reverse(*at)))
            {
                emit.push_str(&self.held[..self.held.len() - stop.len()]);
                self.held.clear();
                self.stopped = Some(which);
                break;
            }
            let keep = self.held.len() - self.longest_beginning();
            emit.extend(self.held.drain(..keep));
        }
        StopOutcome { emit, stopped: self.stopped }
    }

    /// The end of the stream: what was held back, since nothing can complete it any more.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of the held text that begin a stop string: the longest such end.
    fn longest_beginning(&self) -> usize {
        let starts = self.held.char_indices().map(|(at, _)| &self.held[at..]);
        starts
            .filter(|end| self.stops.iter().any(|stop| stop.starts_with(end)))
            .map(str::len)
            .next()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The specification: the stop string that is complete first; of several that end there, the longest.
    fn naive(text: &str, stops: &[String]) -> (String, Option<usize>) {
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            let hit = stops.iter().enumerate().filter(|(_, stop)| text[..end].ends_with(stop.as_str()));
            if let Some((which, stop)) = hit.max_by_key(|(at, stop)| (stop.len(), std::cmp::Reverse(*at))) {
                return (text[..end - stop.len()].to_owned(), Some(which));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #[test]
        fn agrees_with_a_search_over_the_whole_text(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let mut matcher = StopMatcher::new(&stops).expect("none is empty");
            let (mut text, mut stopped) = (String::new(), None);
            for piece in &pieces {
                let outcome = matcher.push(piece);
                text.push_str(&outcome.emit);
                stopped = outcome.stopped;
            }
            text.push_str(&matcher.flush());
            prop_assert_eq!((text, stopped), naive(&pieces.concat(), &stops));
        }
    }

    #[test]
    fn holds_back_no_more_than_needed() {
        let mut matcher = StopMatcher::new(&["</end>".to_owned()]).expect("not empty");
        assert_eq!(matcher.push("a <").emit, "a ");
        assert_eq!(matcher.push("/e").emit, "");
        assert_eq!(matcher.push("x").emit, "</ex");
        let outcome = matcher.push("b</end>c");
        assert_eq!((outcome.emit.as_str(), outcome.stopped), ("b", Some(0)));
        assert_eq!(matcher.push("d"), StopOutcome { emit: String::new(), stopped: Some(0) });
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        assert!(StopMatcher::new(&[String::new()]).is_err());
    }
}
