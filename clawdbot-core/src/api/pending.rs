//! Requests of a call for several prompts, from their beginning to their results.

use super::alternatives::Ending;
use super::beams::{Beams, Next};
use super::session::Stream;
use crate::error::Result;
use crate::event::Completion;

/// A request that has begun.
pub(super) enum Pending {
    /// `ending`: `None` of a request for one completion.
    Completions { ending: Option<Box<Ending>>, completions: Vec<Option<Completion>> },
    /// A beam search.
    Beams(Box<Beams>),
}

impl Pending {
    /// Takes what its stream number `place` gave. Returns what comes of it: further streams, or the result when all is there.
    ///
    /// # Errors
    /// What happened while computing; as [`Ending::choose`].
    pub(super) fn take(&mut self, place: usize, ended: Stream) -> Result<Next> {
        match self {
            Pending::Beams(beams) => beams.take(place, ended),
            Pending::Completions { ending, completions } => {
                completions[place] = Some(ended.finish()?);
                if completions.iter().any(Option::is_none) {
                    return Ok(Next::Waits);
                }
                let mut completions = std::mem::take(completions).into_iter().flatten();
                let whole = match ending {
                    None => completions.next(),
                    Some(ending) => Some(ending.choose(completions.collect())?),
                };
                Ok(whole.map_or(Next::Waits, |whole| Next::Done(Box::new(whole))))
            }
        }
    }
}
