//! What a step is, and what came of it.

use std::path::{Path, PathBuf};

use crate::skip::Skip;

/// How much is tested. Each depth includes the steps of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// The tests next to the code: for every day.
    Quick,
    /// What a change must pass.
    Usual,
    /// Slow checks too.
    Full,
}

/// What steps are given.
pub(crate) struct Context {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) depth: Depth,
}

impl Context {
    /// The file that tests append what they skip to: see [`Skip::parse`].
    pub(crate) fn skipped(&self) -> PathBuf {
        self.target.join("skipped.txt")
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

/// One step of the test command.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// The depth from which on it runs when no steps are named.
    pub(crate) from: Depth,
    pub(crate) run: fn(&Context) -> Result<Outcome, String>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Passed,
    Skipped(Skip),
}
