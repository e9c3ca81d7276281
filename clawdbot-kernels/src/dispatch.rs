//! Which kernels to use: the best instruction set of this CPU, or the one that `CLAWDBOT_ISA` names.

use std::sync::OnceLock;

use super::{KernelSet, Result, isa, self_test};
use crate::error::Error;

/// The environment variable that forces a set by name.
const VARIABLE: &str = "CLAWDBOT_ISA";

struct Candidate {
    set: &'static KernelSet,
    /// Whether the CPU and the operating system have what it takes.
    detected: fn() -> bool,
    proof: Proof,
}

/// What shows that a set computes correctly.
#[derive(Clone, Copy, PartialEq)]
enum Proof {
    /// By the project's tests, on every change.
    Tests,
    /// On this machine as well, before the set is first used: not every machine that runs the tests can run it.
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64")),
        allow(dead_code, reason = "no such set of this architecture yet")
    )]
    SelfTest,
    /// As `SelfTest`, but at the first product, after the system was asked for tile registers: see `KernelSet::refusal`.
    #[cfg(target_arch = "x86_64")]
    FirstUse,
    /// As `SelfTest`, after the system was asked for tile registers.
    #[cfg(target_arch = "x86_64")]
    Tiles,
}

macro_rules! candidate {
    ($module:ident, $proof:ident) => {
        Candidate { set: &isa::$module::KERNELS, detected: isa::$module::detected, proof: Proof::$proof }
    };
}

/// Best first.
static CANDIDATES: &[Candidate] = &[
    #[cfg(target_arch = "x86_64")]
    candidate!(avx512_amx, FirstUse),
    #[cfg(target_arch = "x86_64")]
    candidate!(avx512_vnni, Tests),
    #[cfg(target_arch = "x86_64")]
    candidate!(avx_vnni, SelfTest),
    #[cfg(target_arch = "x86_64")]
    candidate!(avx2, Tests),
    #[cfg(target_arch = "aarch64")]
    candidate!(neon_i8mm, SelfTest),
    #[cfg(target_arch = "aarch64")]
    candidate!(neon_dotprod, Tests),
    #[cfg(target_arch = "aarch64")]
    candidate!(neon, Tests),
    candidate!(scalar, Tests),
];

/// Sets with numerics of their own: used only when named, and tested then.
static NAMED: &[Candidate] = &[
    #[cfg(target_arch = "x86_64")]
    candidate!(avx512_amx_bf16, Tiles),
    #[cfg(target_arch = "x86_64")]
    candidate!(avx512_bf16, SelfTest),
    #[cfg(target_arch = "aarch64")]
    candidate!(neon_bf16, SelfTest),
];

/// A set that the CPU has, but that is not used, and why.
struct Refused {
    name: &'static str,
    reason: String,
}

/// The candidates that this machine can use, and those that it has but that failed.
struct Sets {
    available: Vec<&'static KernelSet>,
    refused: Vec<Refused>,
}

impl Sets {
    fn of(candidates: &[Candidate]) -> Self {
        let mut sets = Sets { available: Vec::new(), refused: Vec::new() };
        for &Candidate { set, detected, proof } in candidates {
            if !detected() {
                continue;
            }
            let reason = match proof {
                Proof::Tests => None,
                #[cfg(target_arch = "x86_64")]
                Proof::FirstUse => None,
                #[cfg(target_arch = "x86_64")]
                Proof::Tiles if !super::tiles::permitted() => Some(isa::NOT_PERMITTED.to_owned()),
                _ => self_test::difference(set).unwrap_or_else(|error| Some(error.to_string())),
            };
            match reason {
                None => sets.available.push(set),
                Some(reason) => sets.refused.push(Refused { name: set.name, reason }),
            }
        }
        sets
    }

    /// `named`: further candidates, which are taken by their name only.
    fn choose(&self, what: &str, forced: Option<&str>, named: &[Candidate]) -> Result<&'static KernelSet> {
        let mut named_refused = Vec::new();
        let found = match forced {
            None => self.available.first().copied(),
            Some(name) => self.available.iter().copied().find(|set| set.name == name).or_else(|| {
                let candidate = named.iter().position(|candidate| candidate.set.name == name)?;
                let Sets { available, refused } = Sets::of(&named[candidate..=candidate]);
                named_refused = refused;
                available.first().copied()
            }),
        };
        // A set that was named is not replaced by another.
        let late = found.filter(|_| forced.is_some()).and_then(|set| Some((set.name, (set.refusal)()?)));
        let late = late.map(|(name, reason)| Refused { name, reason: reason.to_owned() });
        found.filter(|_| late.is_none()).ok_or_else(|| {
            let names: Vec<_> = self.available.iter().map(|set| set.name).chain(detected(named)).collect();
            let forced = forced.unwrap_or_default();
            let refused =
                self.refused.iter().chain(&named_refused).chain(&late).find(|refused| refused.name == forced);
            let why = refused.map_or(String::new(), |refused| {
                format!(", which failed its self-test on this machine: {}", refused.reason)
            });
            Error::InvalidArgument(format!(
                "{what}: expected one of {} (what this CPU can run), found {forced:?}{why}",
                names.join(", "),
            ))
        })
    }
}

fn sets() -> &'static Sets {
    static SETS: OnceLock<Sets> = OnceLock::new();
    SETS.get_or_init(|| Sets::of(CANDIDATES))
}

/// Names of the candidates that this CPU has.
fn detected(candidates: &[Candidate]) -> impl Iterator<Item = &'static str> {
    candidates.iter().filter(|candidate| (candidate.detected)()).map(|candidate| candidate.set.name)
}

/// The names of further sets that this CPU has, with numerics of their own: bf16 products differ from those of all others.
/// They are never chosen by default.
pub fn named() -> Vec<&'static str> {
    detected(NAMED).collect()
}

/// The sets that this CPU can run and that give equal bits, best first. The last is `scalar`, the specification.
pub fn available() -> Vec<&'static KernelSet> {
    sets().available.clone()
}

/// A set that this CPU has, but that is not used.
#[derive(Debug, Clone, Copy)]
pub struct RefusedSet {
    /// Its name.
    pub name: &'static str,
    /// What it computed wrongly in its self-test, or that the system does not permit it.
    pub reason: &'static str,
}

/// The sets that this CPU has, but that failed their self-test.
pub fn refused() -> impl Iterator<Item = RefusedSet> {
    #[cfg(target_arch = "x86_64")]
    let late =
        isa::avx512_amx::found().map(|reason| RefusedSet { name: isa::avx512_amx::KERNELS.name, reason });
    #[cfg(not(target_arch = "x86_64"))]
    let late = None;
    let early = sets().refused.iter();
    early.map(|refused| RefusedSet { name: refused.name, reason: &refused.reason }).chain(late)
}

/// The set named `name`, or else the one to use by default, which is chosen once for the process.
///
/// # Errors
/// `InvalidArgument` when `name` or `CLAWDBOT_ISA` names a set that does not exist, that this CPU cannot run, or that failed
/// its self-test.
pub fn select(name: Option<&str>) -> Result<&'static KernelSet> {
    // `Error` cannot be copied: its message is kept.
    static CHOICE: OnceLock<Result<&'static KernelSet, String>> = OnceLock::new();
    let by_variable = || {
        let value = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        let name = value.as_deref().map(|name| name.to_string_lossy());
        sets().choose(VARIABLE, name.as_deref(), NAMED).map_err(|error| error.to_string())
    };
    match name {
        Some(_) => sets().choose("option kernels", name, NAMED),
        None => CHOICE.get_or_init(by_variable).clone().map_err(Error::InvalidArgument),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Slot;
    use super::*;

    #[test]
    fn forced_choice_is_taken_or_refused() {
        let sets = sets();
        assert_eq!(sets.choose(VARIABLE, Some("scalar"), &[]).unwrap().name, "scalar");
        assert_eq!(sets.choose(VARIABLE, None, &[]).unwrap().name, available()[0].name);
        let error = sets.choose(VARIABLE, Some("mmx"), &[]).map(|set| set.name).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)));
        assert!(error.to_string().contains("scalar") && error.to_string().contains("mmx"), "{error}");
    }

    #[test]
    fn wrong_kernels_are_not_used() {
        /// Does nothing.
        static WRONG: KernelSet = KernelSet { name: "wrong", int8_gemv: Slot(|_| ()), ..isa::scalar::SET };
        let wrong = |proof| Candidate { set: &WRONG, detected: || true, proof };
        let sets = Sets::of(&[wrong(Proof::SelfTest), candidate!(scalar, Tests)]);
        assert_eq!(sets.choose(VARIABLE, None, &[]).unwrap().name, "scalar");
        assert_eq!(sets.refused.len(), 1);
        let error = sets.choose(VARIABLE, Some("wrong"), &[]).map(|set| set.name).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)));
        for part in [VARIABLE, "self-test", "m 1, n 17, k 130", "found 0.0"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        // Sets that the project's tests cover are not tested here.
        assert_eq!(Sets::of(&[wrong(Proof::Tests)]).available.len(), 1);
    }
}
