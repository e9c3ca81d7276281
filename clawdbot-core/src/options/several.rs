//! Requests for several completions: the options of each.

use super::generate::GenerateOptions;
use super::resolved::draw_seed;
use super::spec::out_of_range;
use crate::error::Result;

impl GenerateOptions {
    /// How many completions are generated, be they given or not.
    pub(crate) fn completions(&self) -> u32 {
        self.best_of.map_or(self.n, |best_of| best_of.max(self.n))
    }

    /// Checks that one completion is asked for, and no beam search.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub(crate) fn check_one(&self) -> Result<()> {
        let expected = "1 of a session, and where events are streamed or a completion is awaited";
        if self.has_beams() {
            return Err(out_of_range("num_beams", expected, self.num_beams));
        }
        match (self.n, self.best_of) {
            (1, None | Some(1)) => Ok(()),
            (1, Some(best_of)) => Err(out_of_range("best_of", expected, best_of)),
            (n, _) => Err(out_of_range("n", expected, n)),
        }
    }

    /// These options with a seed.
    pub(crate) fn seeded(&self) -> (Self, u64) {
        let seed = self.seed.unwrap_or_else(draw_seed);
        (self.clone().seed(seed), seed)
    }

    /// The options of completion `index` alone, whose seed is `seed` + `index`.
    pub(crate) fn of_completion(&self, index: u32, seed: u64) -> Self {
        let options = self.clone().n(1_u32).best_of(None).seed(seed.wrapping_add(index.into()));
        // What the best are chosen by.
        let logprobs = self.logprobs.or(self.best_of.map(|_| 0));
        // The prompt is computed once.
        options.logprobs(logprobs).prompt_logprobs(None)
    }
}
