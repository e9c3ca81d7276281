//! What was not tested, and why.

/// Something that was not tested.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Skip {
    pub(crate) what: String,
    /// The command after which it is tested, where this machine could do it.
    pub(crate) remedy: Option<String>,
}

impl Skip {
    /// A line of `clawdbot-core/tests/support/skipped.rs`: what is not tested, and after a tab the remedy.
    pub(crate) fn parse(line: &str) -> Skip {
        match line.split_once('\t') {
            Some((what, remedy)) => Skip { what: what.to_owned(), remedy: Some(remedy.to_owned()) },
            None => Skip { what: line.to_owned(), remedy: None },
        }
    }
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.remedy {
            Some(remedy) => write!(f, "{}; to test it: {remedy}", self.what),
            None => write!(f, "{}", self.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_tests() {
        let skip = Skip::parse("C programs: valgrind is not installed\tapt-get install valgrind");
        assert_eq!(skip.remedy.as_deref(), Some("apt-get install valgrind"));
        assert_eq!(
            skip.to_string(),
            "C programs: valgrind is not installed; to test it: apt-get install valgrind"
        );
        let skip = Skip::parse("AMX tiles: this CPU has none");
        assert_eq!((skip.remedy.as_deref(), skip.what.as_str()), (None, "AMX tiles: this CPU has none"));
    }
}
