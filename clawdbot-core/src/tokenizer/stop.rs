//! Stop strings in text that arrives in pieces.

use crate::error::{Error, Result};

/// Finds the first stop string in a stream of text pieces, and holds back text that may begin one. Takes linear time:
/// Knuth, Morris, Pratt 1977, <https://doi.org/10.1137/0206024>.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    /// Text held back: the longest suffix of the stream that is a prefix of a stop string.
    held: String,
    stopped: Option<usize>,
}

/// A stop string, and how much of it the stream ends with.
#[derive(Debug, Clone)]
struct Stop {
    text: String,
    /// For each of its prefixes, the length in bytes of the longest shorter prefix that it ends with.
    shorter: Vec<usize>,
    matched: usize,
}

impl Stop {
    fn new(text: &str) -> Self {
        let mut stop = Stop { text: text.to_owned(), shorter: vec![0; text.len()], matched: 0 };
        for (at, &byte) in text.as_bytes().iter().enumerate().skip(1) {
            stop.push(byte);
            stop.shorter[at] = stop.matched;
        }
        stop.matched = 0;
        stop
    }

    /// Adds a byte. Returns whether the stream now ends with the stop string.
    fn push(&mut self, byte: u8) -> bool {
        let text = self.text.as_bytes();
        while self.matched > 0 && text.get(self.matched) != Some(&byte) {
            self.matched = self.shorter[self.matched - 1];
        }
        self.matched += usize::from(text.get(self.matched) == Some(&byte));
        self.matched == text.len()
    }
}

/// The result of one piece of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOutcome {
    /// Text that is certainly not part of a stop string.
    pub emit: String,
    /// Index of the stop string that was found. The stop string and the text after it are dropped.
    pub stopped: Option<usize>,
}

impl StopMatcher {
    /// A matcher for `stops`. The stop string that is complete first wins; of several that end at the same place, the
    /// longest.
    ///
    /// # Errors
    /// `InvalidArgument` if a stop string is empty.
    pub fn new(stops: &[String]) -> Result<Self> {
        if let Some(at) = stops.iter().position(String::is_empty) {
            return Err(Error::invalid_argument(format!("stop string {at} is empty")));
        }
        let stops = stops.iter().map(|stop| Stop::new(stop)).collect();
        Ok(StopMatcher { stops, held: String::new(), stopped: None })
    }

    /// Adds the next piece. After a stop string was found, further pieces are dropped.
    pub fn push(&mut self, piece: &str) -> StopOutcome {
        if self.stopped.is_some() {
            return StopOutcome { emit: String::new(), stopped: self.stopped };
        }
        let before = self.held.len();
        self.held.push_str(piece);
        for (at, byte) in piece.bytes().enumerate() {
            let mut longest: Option<(usize, usize)> = None;
            for (which, stop) in self.stops.iter_mut().enumerate() {
                if stop.push(byte) && longest.is_none_or(|(_, len)| len < stop.text.len()) {
                    longest = Some((which, stop.text.len()));
                }
            }
            if let Some((which, len)) = longest {
                let mut emit = std::mem::take(&mut self.held);
                emit.truncate(before + at + 1 - len);
                self.stopped = Some(which);
                return StopOutcome { emit, stopped: self.stopped };
            }
        }
        let keep = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        let emit = self.held.drain(..self.held.len() - keep).collect();
        StopOutcome { emit, stopped: None }
    }

    /// Ends the stream. Returns the text held back, since nothing can complete it any more.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
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
