//! Searches a text for a pattern by backtracking.

use super::program::{Mode, Program, Step};
use super::set::Set;
use crate::tokenizer::pipeline::work::{self, Credit};

/// Steps that a search may take for each byte of a text, and for each step of the pattern. Patterns of published
/// tokenizers take a few dozen in all.
const PER_BYTE: u64 = 64;
const PER_STEP: u64 = 4;
/// Most places to backtrack to.
const MAX_RETRIES: usize = 1 << 20;

/// Where a search continues after a failure.
#[derive(Clone, Copy)]
enum Retry {
    Step {
        step: usize,
        at: usize,
    },
    /// Shorten a greedy run: continue before its last character, but not before `least`.
    Shorter {
        step: usize,
        at: usize,
        least: usize,
    },
    /// Extend a lazy run by one character, of at most this many more.
    Longer {
        run: usize,
        at: usize,
        more: usize,
    },
}

/// Steps that a search in `text` may take.
pub(super) fn share(program: &Program, text: &str) -> u64 {
    let per_byte = PER_BYTE + PER_STEP * program.steps.len() as u64;
    (text.len() as u64).saturating_mul(per_byte)
}

/// How many characters a run has.
#[derive(Clone, Copy)]
struct Bounds {
    least: usize,
    most: usize,
}

pub(super) struct Search<'a> {
    program: &'a Program,
    text: &'a str,
    retries: Vec<Retry>,
    /// The next start of each alternative: starts within an earlier leading run are skipped.
    next: Vec<usize>,
    /// The leading run of the current alternative, and how far it went.
    lead: Option<usize>,
    lead_end: usize,
    credit: Credit,
}

impl<'a> Search<'a> {
    pub(super) fn new(program: &'a Program, text: &'a str) -> Self {
        let credit = Credit::new(share(program, text));
        let next = vec![0; program.alternatives.len()];
        Search { program, text, retries: Vec::new(), next, lead: None, lead_end: 0, credit }
    }

    /// The first match from `from` on, which must not decrease from call to call.
    pub(super) fn find(&mut self, from: usize) -> tokenizers::Result<Option<(usize, usize)>> {
        let program = self.program;
        let mut start = from;
        loop {
            let byte = self.text.as_bytes().get(start);
            let mut can = program.beginning[byte.map_or(129, |&byte| usize::from(byte.min(128)))];
            self.credit.spend(1)?;
            if let Some(first) = &program.first
                && byte.is_some_and(|byte| !byte.is_ascii())
                && first.at(self.text, start).is_none()
            {
                can = 0;
            }
            while can != 0 {
                let which = can.trailing_zeros() as usize;
                can &= can - 1;
                if start < self.next[which] {
                    continue;
                }
                let alternative = &program.alternatives[which];
                self.lead = alternative.leads.then_some(alternative.start);
                if let Some(end) = self.matches(alternative.start, start)? {
                    return Ok(Some((start, end)));
                }
                // A later start in the same run only leads to places that this one has tried.
                if alternative.leads {
                    self.next[which] = self.lead_end;
                }
            }
            let Some(&byte) = byte else { return Ok(None) };
            start += len_utf8(byte);
        }
    }

    /// The end of the match of the steps from `step` on at `at`.
    fn matches(&mut self, mut step: usize, mut at: usize) -> tokenizers::Result<Option<usize>> {
        let program = self.program;
        let base = self.retries.len();
        let end = loop {
            self.credit.spend(1)?;
            let next = match program.steps[step] {
                Step::Match => break Some(at),
                Step::One(set) => program.sets[set].at(self.text, at).map(|len| (step + 1, at + len)),
                Step::Run { set, least, most, mode } => {
                    self.run(step, at, &program.sets[set], Bounds { least, most }, mode)?
                }
                Step::Branch(first, second) => {
                    self.later(Retry::Step { step: second, at })?;
                    Some((first, at))
                }
                Step::Jump(to) => Some((to, at)),
                Step::Look { back, negated, end } => {
                    self.credit.spend(back as u64)?;
                    let found = match self.back(at, back) {
                        Some(from) => self.matches(step + 1, from)?.is_some(),
                        None => false,
                    };
                    (found != negated).then_some((end, at))
                }
                Step::Atomic { end } => self.matches(step + 1, at)?.map(|at| (end, at)),
                Step::StartText => (at == 0).then_some((step + 1, at)),
                Step::EndText => (at == self.text.len()).then_some((step + 1, at)),
                Step::EndLine => {
                    let ends = self.text.as_bytes().get(at).is_none_or(|&byte| byte == b'\n');
                    ends.then_some((step + 1, at))
                }
            };
            let next = match next {
                Some(next) => Some(next),
                None => self.retry(base)?,
            };
            match next {
                Some(next) => (step, at) = next,
                None => break None,
            }
        };
        self.retries.truncate(base);
        Ok(end)
    }

    fn later(&mut self, retry: Retry) -> tokenizers::Result<()> {
        if self.retries.len() == MAX_RETRIES {
            return Err(work::too_long());
        }
        self.retries.push(retry);
        Ok(())
    }

    /// The next place to continue at, with its step.
    fn retry(&mut self, base: usize) -> tokenizers::Result<Option<(usize, usize)>> {
        while self.retries.len() > base {
            let Some(retry) = self.retries.pop() else { break };
            self.credit.spend(1)?;
            match retry {
                Retry::Step { step, at } => return Ok(Some((step, at))),
                Retry::Shorter { step, at, least } => {
                    let Some(at) = self.back(at, 1).filter(|&at| at >= least) else { continue };
                    if at > least {
                        self.retries.push(Retry::Shorter { step, at, least });
                    }
                    return Ok(Some((step, at)));
                }
                Retry::Longer { run, at, more } => {
                    let Step::Run { set, .. } = self.program.steps[run] else { continue };
                    let Some(len) = self.program.sets[set].at(self.text, at) else { continue };
                    return self.lazily(run, at + len, more - 1).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// Continues after a lazy run that ends at `at`.
    fn lazily(&mut self, run: usize, at: usize, more: usize) -> tokenizers::Result<(usize, usize)> {
        if more > 0 {
            self.later(Retry::Longer { run, at, more })?;
        }
        self.went(run, at);
        Ok((run + 1, at))
    }

    fn run(
        &mut self,
        step: usize,
        at: usize,
        set: &Set,
        Bounds { least, most }: Bounds,
        mode: Mode,
    ) -> tokenizers::Result<Option<(usize, usize)>> {
        let (lowest, count) = self.take(set, at, least)?;
        if count < least {
            self.went(step, lowest);
            return Ok(None);
        }
        if mode == Mode::Lazy {
            return self.lazily(step, lowest, most - least).map(Some);
        }
        let (highest, _) = self.take(set, lowest, most - least)?;
        if mode == Mode::Greedy && highest > lowest {
            self.later(Retry::Shorter { step: step + 1, at: highest, least: lowest })?;
        }
        self.went(step, highest);
        Ok(Some((step + 1, highest)))
    }

    /// Records how far the leading run went.
    fn went(&mut self, run: usize, at: usize) {
        if self.lead == Some(run) {
            self.lead_end = at;
        }
    }

    /// The end of up to `most` characters of the set from `at` on, and their number.
    fn take(&mut self, set: &Set, mut at: usize, most: usize) -> tokenizers::Result<(usize, usize)> {
        let mut count = 0;
        while count < most {
            let Some(len) = set.at(self.text, at) else { break };
            at += len;
            count += 1;
        }
        self.credit.spend(count as u64)?;
        Ok((at, count))
    }

    /// The place this many characters before `at`.
    fn back(&self, mut at: usize, chars: usize) -> Option<usize> {
        for _ in 0..chars {
            at = at.checked_sub(1)?;
            while !self.text.is_char_boundary(at) {
                at -= 1;
            }
        }
        Some(at)
    }
}

/// Bytes of the UTF-8 character with this first byte.
fn len_utf8(first: u8) -> usize {
    match first {
        ..0xc0 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0.. => 4,
    }
}
