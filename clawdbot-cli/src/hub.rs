//! The source of a command's model: a path, a published shape, the built-in model, or a hub.

use std::path::{Path, PathBuf};

#[cfg(feature = "hub")]
use clawdbot_core::Progress;
use clawdbot_core::{Error, ErrorKind, HubOptions, Result, Runtime, Source};

use crate::args::{HubArgs, OutputArgs};
#[cfg(feature = "hub")]
use crate::{
    interrupt::Work,
    progress::{StatusLine, bar},
    report::bytes,
};

/// The model of a command; downloaded with a progress bar if it is on a hub and not in the cache. Ctrl-C cancels.
///
/// # Errors
/// As `Source::fetch`; `InvalidArgument` for a revision or file without a model.
pub(crate) fn source(
    runtime: &Runtime,
    model: Option<&PathBuf>,
    shape: Option<&String>,
    args: &HubArgs,
    output: &OutputArgs,
) -> Result<Source> {
    let source = match (model, shape) {
        (Some(path), None) if is_builtin(path) => Source::Builtin,
        (Some(path), _) => return named(runtime, path, &args.options()?, output),
        (None, Some(name)) => Source::Shape(name.clone()),
        (None, None) => Source::Builtin,
    };
    match args.given().keys().find(|name| *name != "offline") {
        Some(option) => {
            let message = format!("option {option}: expected with a model OWNER/NAME, found none");
            Err(Error::new(ErrorKind::InvalidArgument, message).with("option", option.as_str()))
        }
        None => Ok(source),
    }
}

/// Whether it is the name of the built-in model, and of nothing that is there.
fn is_builtin(path: &Path) -> bool {
    path == Path::new("builtin") && !path.exists()
}

/// Another model than that of the command: from the same hub, but in a revision and a file of its own.
///
/// # Errors
/// As `Source::fetch`.
pub(crate) fn another(runtime: &Runtime, path: &Path, args: &HubArgs, output: &OutputArgs) -> Result<Source> {
    let offline = args.options()?.offline;
    named(runtime, path, &HubOptions::default().offline(offline), output)
}

#[cfg(feature = "hub")]
fn named(runtime: &Runtime, path: &Path, options: &HubOptions, output: &OutputArgs) -> Result<Source> {
    // A path that is not UTF-8 is not a name.
    let Some(name) = path.to_str() else { return Ok(Source::from(path)) };
    let work = Work::begin();
    let mut line = StatusLine::new(output);
    let path = runtime.fetch(name, options, |Progress { done, total, .. }| {
        match total {
            // At once, because a missing network shows here.
            0 if done == 0 => line.announce(&format!("looking for {name}")),
            _ => line.update(|| format!("{} of {}", bar("downloading", done, total), bytes(total))),
        }
        work.next()
    });
    path.map(Source::Path)
}

#[cfg(not(feature = "hub"))]
fn named(_: &Runtime, path: &Path, _: &HubOptions, _: &OutputArgs) -> Result<Source> {
    Ok(Source::from(path))
}

#[cfg(all(test, feature = "hub"))]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    #[test]
    fn the_environment_decides_unless_told() {
        let offline = |line: &[&str]| {
            let matches = HubArgs::augment_args(Command::new("")).get_matches_from(line);
            HubArgs::from_arg_matches(&matches).unwrap().options().unwrap().offline
        };
        assert_eq!(offline(&[""]), None);
        assert_eq!(offline(&["", "--offline"]), Some(true));
    }
}
