//! Names that are no options: which one was meant, and where a name of ours belongs.

use super::table::OPTIONS;
use crate::error::{Error, ErrorKind, Result};
use crate::suggest::{closest, hint};

/// What other programs of the field call our options.
const ELSEWHERE: &[(&str, &str)] = &[
    ("do_sample", "temperature"),
    ("dtype", "weights"),
    ("eos_token_id", "stop_token_ids"),
    ("max_new_tokens", "max_tokens"),
    ("max_completion_tokens", "max_tokens"),
    ("n_ctx", "max_context"),
    ("n_predict", "max_tokens"),
    ("n_threads", "threads"),
    ("num_threads", "threads"),
    ("repeat_penalty", "repetition_penalty"),
    ("stop_strings", "stop"),
    ("torch_dtype", "weights"),
    ("top_logprobs", "logprobs"),
];

/// Checks names that were given for options, for a language whose calls take more by name than one kind of options:
/// `options` has the names of options in groups, `arguments` what else the call takes.
///
/// # Errors
/// `UnknownOption` for the first that is none of them: it says which one was meant, and lists all of them.
pub fn check_option_names<'a>(
    names: impl IntoIterator<Item = &'a str>,
    options: &[&[&str]],
    arguments: &[&str],
) -> Result<()> {
    check_names(names, options, arguments, "")
}

/// As [`check_option_names`]; `aside` is said where no name is near.
pub(crate) fn check_names<'a>(
    names: impl IntoIterator<Item = &'a str>,
    options: &[&[&str]],
    arguments: &[&str],
    aside: &str,
) -> Result<()> {
    let known = |name: &&str| arguments.contains(name) || options.iter().any(|group| group.contains(name));
    let strange = names.into_iter().find(|name| !known(name));
    strange.map_or(Ok(()), |name| Err(unknown(name, options, arguments, aside)))
}

/// The error for a name that is neither of `options` nor of `arguments`; `aside` is said where no name is near.
pub(crate) fn unknown(name: &str, options: &[&[&str]], arguments: &[&str], aside: &str) -> Error {
    let known = [&options.concat(), arguments].concat();
    let theirs = ELSEWHERE.iter().find(|(theirs, ours)| *theirs == name && known.contains(ours));
    let owner = OPTIONS.iter().find(|group| group.options.iter().any(|option| option.name == name));
    let meant = match (theirs, owner) {
        (Some((_, ours)), _) => Some(*ours),
        (None, Some(_)) => None,
        (None, None) => closest(name, known.iter().copied()),
    };
    let lists = [("options", options.concat()), ("arguments", arguments.to_vec())];
    let lists = lists.iter().filter(|(_, names)| !names.is_empty());
    let lists: Vec<String> = lists.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
    let lists = lists.join("; ");
    let message = match (meant, owner) {
        (Some(_), _) => format!("there is no option {name:?}{} Known {lists}", hint(meant)),
        (None, Some(group)) => {
            format!("there is no option {name:?} here, it is one of {}; known {lists}", group.purpose)
        }
        (None, None) => format!("there is no option {name:?}{aside}; known {lists}"),
    };
    let error = Error::new(ErrorKind::UnknownOption, message).with("option", name);
    match meant {
        Some(meant) => error.with("suggestion", meant),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{ModelOptions, RuntimeOptions};

    fn message(name: &str, options: &[&[&str]]) -> String {
        check_option_names(["threads", name], options, &[]).unwrap_err().message().to_owned()
    }

    #[test]
    fn every_group_is_known_and_suggested() {
        let (options, arguments) =
            ([ModelOptions::NAMES, RuntimeOptions::NAMES], ["revision", "on_progress"]);
        check_option_names([&options.concat(), &arguments[..]].concat(), &options, &arguments).unwrap();
        for (slip, meant) in
            [("thread", "threads"), ("revison", "revision"), ("weigths", "weights"), ("n_threads", "threads")]
        {
            let error = check_option_names(["max_context", slip], &options, &arguments).unwrap_err();
            assert_eq!(
                (error.kind(), &error.detail()["suggestion"]),
                (ErrorKind::UnknownOption, &meant.into())
            );
            assert!(error.message().contains("Known options: weights, kv"), "{error}");
            assert!(error.message().ends_with("kernels; arguments: revision, on_progress"), "{error}");
        }
        let error = check_option_names(["ofline"], &[], &["offline"]).unwrap_err();
        assert!(error.message().ends_with("did you mean \"offline\"? Known arguments: offline"), "{error}");
    }

    #[test]
    fn options_of_something_else_are_said_to_be() {
        let known = [RuntimeOptions::NAMES];
        assert!(
            message("max_context", &known).contains("it is one of loading a model; known options: threads")
        );
        assert!(message("temperature", &known).contains("it is one of generating"));
        assert!(
            message("nonsense", &known)
                .starts_with("there is no option \"nonsense\"; known options: threads")
        );
        let error = check_names(["nonsense"], &known, &[], "; aside").unwrap_err();
        assert!(error.message().contains("\"nonsense\"; aside; known"), "{error}");
        assert!(error.detail().get("suggestion").is_none());
    }
}
