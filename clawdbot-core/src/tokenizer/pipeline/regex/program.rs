//! A pattern as a program: the steps of a search.

use std::collections::HashMap;

use fancy_regex::{Assertion, Expr, LookAround};

use super::set::{self, Case, Ranges, Set};

/// Most steps: about what [`MAX_COST`](crate::tokenizer::pipeline::oniguruma::MAX_COST) allows.
const MAX_STEPS: usize = 1 << 19;
/// Most alternatives that are selected by their first character.
const MAX_ALTERNATIVES: usize = 64;

/// Which length of a run is tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The longest, then shorter ones.
    Greedy,
    /// The shortest, then longer ones.
    Lazy,
    /// The longest only.
    Possessive,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// A character of a set.
    One(usize),
    /// A run of characters of a set, with least and most length.
    Run {
        set: usize,
        least: usize,
        most: usize,
        mode: Mode,
    },
    /// Continues at the first step, and if that fails, at the second.
    Branch(usize, usize),
    Jump(usize),
    /// The steps up to `Match` have to match this many characters before here, or have to fail; then continues at
    /// `end`.
    Look {
        back: usize,
        negated: bool,
        end: usize,
    },
    /// The first match of the steps up to `Match` is final; then continues at `end`.
    Atomic {
        end: usize,
    },
    StartText,
    EndText,
    EndLine,
    Match,
}

/// An alternative of the whole pattern.
#[derive(Debug)]
pub(super) struct Alternative {
    pub(super) start: usize,
    /// Whether it begins with an unbounded run.
    pub(super) leads: bool,
}

#[derive(Debug)]
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    pub(super) sets: Vec<Set>,
    pub(super) alternatives: Vec<Alternative>,
    /// Bit sets of the alternatives that can match at a byte: one for each ASCII byte, one for others, one for the end.
    pub(super) beginning: [u64; 130],
    /// Characters that a match can begin with; `None` if it can be empty.
    pub(super) first: Option<Set>,
}

impl Program {
    /// # Errors
    /// With what was expected and found.
    pub(super) fn compile(pattern: &Expr) -> Result<Self, String> {
        let mut builder = Builder::default();
        let mut alternatives = Vec::new();
        let mut beginning = [0; 130];
        let mut first = Some(Vec::new());
        let all = match pattern {
            Expr::Alt(all) if all.len() <= MAX_ALTERNATIVES => all.as_slice(),
            other => std::slice::from_ref(other),
        };
        for (at, expression) in all.iter().enumerate() {
            let start = builder.steps.len();
            builder.add(expression)?;
            builder.push(Step::Match)?;
            let leads = matches!(builder.steps[start], Step::Run { most: usize::MAX, .. });
            alternatives.push(Alternative { start, leads });
            let (sets, nothing) = builder.first(start);
            let firsts = || sets.iter().map(|&set| &builder.sets[set]);
            for (byte, bits) in beginning.iter_mut().enumerate() {
                let can = match byte {
                    0..128 => firsts().any(|set| set.ascii() >> byte & 1 == 1),
                    128 => firsts().any(Set::has_others),
                    _ => false,
                };
                *bits |= u64::from(can || nothing) << at;
            }
            match nothing {
                true => first = None,
                false => first.iter_mut().for_each(|first| first.extend(firsts().flat_map(Set::ranges))),
            }
        }
        let first = first.map(|ranges| Set::new(set::union(ranges)));
        Ok(Program { steps: builder.steps, sets: builder.sets, alternatives, beginning, first })
    }
}

/// From the parser's flag for ignored case.
fn case(ignored: bool) -> Case {
    if ignored { Case::Ignored } else { Case::Distinct }
}

#[derive(Default)]
struct Builder {
    steps: Vec<Step>,
    sets: Vec<Set>,
    known: HashMap<Ranges, usize>,
    /// Classes already parsed.
    parsed: HashMap<(String, Case), usize>,
}

impl Builder {
    fn push(&mut self, step: Step) -> Result<usize, String> {
        if self.steps.len() == MAX_STEPS {
            return Err("expected fewer repetitions".to_owned());
        }
        self.steps.push(step);
        Ok(self.steps.len() - 1)
    }

    fn set(&mut self, ranges: Ranges) -> usize {
        let next = self.sets.len();
        let sets = &mut self.sets;
        *self.known.entry(ranges).or_insert_with_key(|ranges| {
            sets.push(Set::new(ranges.clone()));
            next
        })
    }

    fn class(&mut self, class: &str, case: Case) -> Result<usize, String> {
        let key = (class.to_owned(), case);
        if let Some(&set) = self.parsed.get(&key) {
            return Ok(set);
        }
        let set = self.set(set::parse(class, case)?);
        self.parsed.insert(key, set);
        Ok(set)
    }

    fn char(&mut self, c: char, case: Case) -> Result<usize, String> {
        match case {
            Case::Ignored => self.class(&format!(r"\x{{{:x}}}", u32::from(c)), case),
            Case::Distinct => Ok(self.set(vec![(c, c)])),
        }
    }

    /// The set of `expression`, if it matches one character.
    fn single(&mut self, expression: &Expr) -> Result<Option<usize>, String> {
        let set = match expression {
            Expr::Any { newline: true } => self.set(vec![set::ANY]),
            Expr::Any { newline: false } => self.set(vec![('\0', '\x09'), ('\x0b', char::MAX)]),
            Expr::Literal { val, casei } => {
                let mut chars = val.chars();
                match (chars.next(), chars.next()) {
                    (Some(c), None) => self.char(c, case(*casei))?,
                    _ => return Ok(None),
                }
            }
            Expr::Delegate { inner, casei, .. } => self.class(inner, case(*casei))?,
            Expr::Group(inner) => return self.single(inner),
            _ => return Ok(None),
        };
        Ok(Some(set))
    }

    fn add(&mut self, expression: &Expr) -> Result<(), String> {
        if let Some(set) = self.single(expression)? {
            return self.push(Step::One(set)).map(|_| ());
        }
        match expression {
            Expr::Empty => Ok(()),
            Expr::Literal { val, casei } => val.chars().try_for_each(|c| {
                let set = self.char(c, case(*casei))?;
                self.push(Step::One(set)).map(|_| ())
            }),
            Expr::Concat(parts) => parts.iter().try_for_each(|part| self.add(part)),
            Expr::Group(inner) => self.add(inner),
            Expr::Alt(all) => self.choice(all, &mut |builder, one| builder.add(one)),
            Expr::Repeat { child, lo, hi, greedy } => {
                let mode = if *greedy { Mode::Greedy } else { Mode::Lazy };
                self.repeat(child, *lo, *hi, mode)
            }
            Expr::AtomicGroup(inner) => {
                if let Expr::Repeat { child, lo, hi, greedy: true } = &**inner
                    && self.single(child)?.is_some()
                {
                    return self.repeat(child, *lo, *hi, Mode::Possessive);
                }
                let here = self.push(Step::Match)?;
                self.add(inner)?;
                self.push(Step::Match)?;
                self.steps[here] = Step::Atomic { end: self.steps.len() };
                Ok(())
            }
            Expr::LookAround(inner, look) => self.look(inner, *look),
            Expr::Assertion(Assertion::StartText) => self.push(Step::StartText).map(|_| ()),
            Expr::Assertion(Assertion::EndText) => self.push(Step::EndText).map(|_| ()),
            Expr::Assertion(Assertion::EndLine { crlf: false }) => self.push(Step::EndLine).map(|_| ()),
            _ => Err("a part of the pattern is not supported".to_owned()),
        }
    }

    /// One of `all`: the first that matches.
    fn choice(
        &mut self,
        all: &[Expr],
        add: &mut dyn FnMut(&mut Self, &Expr) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut ends = Vec::new();
        for (at, one) in all.iter().enumerate() {
            if at + 1 == all.len() {
                add(self, one)?;
                break;
            }
            let branch = self.push(Step::Match)?;
            add(self, one)?;
            ends.push(self.push(Step::Match)?);
            self.steps[branch] = Step::Branch(branch + 1, self.steps.len());
        }
        let end = self.steps.len();
        ends.into_iter().for_each(|jump| self.steps[jump] = Step::Jump(end));
        Ok(())
    }

    fn repeat(&mut self, child: &Expr, least: usize, most: usize, mode: Mode) -> Result<(), String> {
        if let Some(set) = self.single(child)? {
            return self.push(Step::Run { set, least, most, mode }).map(|_| ());
        }
        for _ in 0..least {
            self.add(child)?;
        }
        let branch = |first, second| match mode {
            Mode::Lazy => Step::Branch(second, first),
            _ => Step::Branch(first, second),
        };
        if most == usize::MAX {
            let start = self.push(Step::Match)?;
            self.add(child)?;
            // Repeating an empty match would never end.
            if self.first(start + 1).1 {
                return Err("expected no repetition of an expression that can be empty".to_owned());
            }
            self.push(Step::Jump(start))?;
            self.steps[start] = branch(start + 1, self.steps.len());
            return Ok(());
        }
        let mut branches = Vec::new();
        for _ in least..most {
            branches.push(self.push(Step::Match)?);
            self.add(child)?;
        }
        let end = self.steps.len();
        branches.into_iter().for_each(|at| self.steps[at] = branch(at + 1, end));
        Ok(())
    }

    fn look(&mut self, inner: &Expr, look: LookAround) -> Result<(), String> {
        let negated = matches!(look, LookAround::LookAheadNeg | LookAround::LookBehindNeg);
        let behind = matches!(look, LookAround::LookBehind | LookAround::LookBehindNeg);
        let mut one = |builder: &mut Self, inner: &Expr| {
            let back = match behind {
                true => width(inner).ok_or("expected a lookbehind of fixed length")?,
                false => 0,
            };
            let here = builder.push(Step::Match)?;
            builder.add(inner)?;
            builder.push(Step::Match)?;
            builder.steps[here] = Step::Look { back, negated, end: builder.steps.len() };
            Ok(())
        };
        match inner {
            // Each alternative has its own length.
            Expr::Alt(all) if behind && negated => all.iter().try_for_each(|inner| one(self, inner)),
            Expr::Alt(all) if behind => self.choice(all, &mut one),
            inner => one(self, inner),
        }
    }

    /// The sets that the steps from `start` may begin with, and whether they can match the empty string.
    fn first(&self, start: usize) -> (Vec<usize>, bool) {
        let (mut sets, mut nothing) = (Vec::new(), false);
        let mut seen = vec![false; self.steps.len() - start + 1];
        let mut atomic_ends = Vec::new();
        let mut open = vec![start];
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut seen[at - start], true) {
                continue;
            }
            match self.steps.get(at) {
                Some(&Step::One(set) | &Step::Run { set, .. }) => {
                    sets.push(set);
                    if matches!(self.steps[at], Step::Run { least: 0, .. }) {
                        open.push(at + 1);
                    }
                }
                Some(&Step::Branch(first, second)) => open.extend([first, second]),
                Some(&Step::Jump(to)) => open.push(to),
                Some(&Step::Look { end, .. }) => open.push(end),
                Some(&Step::Atomic { end }) => {
                    atomic_ends.push(end);
                    open.push(at + 1);
                }
                Some(Step::StartText | Step::EndText | Step::EndLine) => open.push(at + 1),
                Some(Step::Match) if atomic_ends.contains(&(at + 1)) => open.push(at + 1),
                Some(Step::Match) | None => nothing = true,
            }
        }
        (sets, nothing)
    }
}

/// The number of characters that `expression` matches, if fixed.
fn width(expression: &Expr) -> Option<usize> {
    match expression {
        Expr::Empty | Expr::Assertion(_) | Expr::LookAround(..) => Some(0),
        Expr::Any { .. } | Expr::Delegate { .. } => Some(1),
        Expr::Literal { val, .. } => Some(val.chars().count()),
        Expr::Concat(parts) => parts.iter().try_fold(0_usize, |sum, part| sum.checked_add(width(part)?)),
        Expr::Alt(all) => {
            let first = width(all.first()?)?;
            all.iter().all(|one| width(one) == Some(first)).then_some(first)
        }
        Expr::Group(inner) | Expr::AtomicGroup(inner) => width(inner),
        Expr::Repeat { child, lo, hi, .. } if lo == hi => width(child)?.checked_mul(*lo),
        _ => None,
    }
}
