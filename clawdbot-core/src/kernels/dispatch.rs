//! Which kernels to use: the best instruction set of this CPU, or the one that `CLAWDBOT_ISA` names.

use std::sync::OnceLock;

use super::{KernelSet, Result, isa};
use crate::error::Error;

/// The environment variable that forces a set by name.
const VARIABLE: &str = "CLAWDBOT_ISA";

type Candidate = (&'static KernelSet, fn() -> bool);

/// Best first.
static CANDIDATES: &[Candidate] = &[
    #[cfg(target_arch = "x86_64")]
    (&isa::avx512_amx::KERNELS, isa::avx512_amx::detected),
    #[cfg(target_arch = "x86_64")]
    (&isa::avx512_vnni::KERNELS, isa::avx512_vnni::detected),
    #[cfg(target_arch = "x86_64")]
    (&isa::avx2::KERNELS, isa::avx2::detected),
    #[cfg(target_arch = "aarch64")]
    (&isa::neon_dotprod::KERNELS, isa::neon_dotprod::detected),
    #[cfg(target_arch = "aarch64")]
    (&isa::neon::KERNELS, isa::neon::detected),
    (&isa::scalar::KERNELS, isa::scalar::detected),
];

/// The sets that this CPU can run, best first. The last is `scalar`, the specification.
pub(crate) fn available() -> Vec<&'static KernelSet> {
    CANDIDATES.iter().filter(|(_, detected)| detected()).map(|&(set, _)| set).collect()
}

/// The set named `name`, or else the one to use by default, which is chosen once for the process.
///
/// # Errors
/// `InvalidArgument` when `name` or `CLAWDBOT_ISA` names a set that does not exist or that this CPU cannot run.
pub(crate) fn select(name: Option<&str>) -> Result<&'static KernelSet> {
    static CHOICE: OnceLock<Result<&'static KernelSet>> = OnceLock::new();
    let by_variable = || {
        let value = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        choose(VARIABLE, value.as_deref().map(|name| name.to_string_lossy()).as_deref())
    };
    match name {
        Some(_) => choose("option kernels", name).map_err(|error| error.with("option", "kernels")),
        None => CHOICE.get_or_init(by_variable).clone(),
    }
}

fn choose(what: &str, forced: Option<&str>) -> Result<&'static KernelSet> {
    let sets = available();
    let found = match forced {
        None => sets.first(),
        Some(name) => sets.iter().find(|set| set.name == name),
    };
    found.copied().ok_or_else(|| {
        let names: Vec<_> = sets.iter().map(|set| set.name).collect();
        Error::invalid_argument(format!(
            "{what}: expected one of {} (what this CPU can run), found {:?}",
            names.join(", "),
            forced.unwrap_or_default()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn forced_choice_is_taken_or_refused() {
        assert_eq!(choose(VARIABLE, Some("scalar")).unwrap().name, "scalar");
        assert_eq!(choose(VARIABLE, None).unwrap().name, available()[0].name);
        let error = choose(VARIABLE, Some("mmx")).map(|set| set.name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("scalar") && error.message().contains("mmx"), "{error}");
    }
}
