//! The source of a command's model: a path, a published shape, the built-in model, or a hub.

use std::path::{Path, PathBuf};

use clap::Args;
#[cfg(feature = "hub")]
use clawdbot_core::HubOptions;
use clawdbot_core::{Error, ErrorKind, Result, Runtime, Source};
use serde::Serialize;

use crate::args::{OutputArgs, given};
#[cfg(feature = "hub")]
use crate::{
    interrupt::Work,
    progress::{StatusLine, bar},
    report::bytes,
};

/// `HubOptions`; empty without the feature.
#[derive(Debug, Default, Args, Serialize)]
#[command(
    next_help_heading = "Hub (with a model OWNER/NAME[:QUANTIZATION], hf://..., modelscope://... or an address)"
)]
pub(crate) struct HubArgs {
    /// Branch, tag or commit [default: the main branch]
    #[cfg(feature = "hub")]
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,
    /// A GGUF or packed file of the repository [default: safetensors, or else the only GGUF file]
    #[cfg(feature = "hub")]
    #[arg(long, value_name = "NAME")]
    file: Option<String>,
    /// Use what was downloaded before, and no network [default: what HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE says]
    #[cfg(feature = "hub")]
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    offline: bool,
}

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
        (Some(path), _) => return named(runtime, path, args, output),
        (None, Some(name)) => Source::Shape(name.clone()),
        (None, None) => Source::Builtin,
    };
    match given(args)?.keys().find(|name| *name != "offline") {
        Some(option) => {
            let message = format!("option {option}: expected with a model OWNER/NAME, found none");
            Err(Error::new(ErrorKind::InvalidArgument, message).with("option", option.as_str()))
        }
        None => Ok(source),
    }
}

#[cfg(feature = "hub")]
fn named(runtime: &Runtime, path: &Path, args: &HubArgs, output: &OutputArgs) -> Result<Source> {
    // A path that is not UTF-8 is not a name.
    let Some(name) = path.to_str() else { return Ok(Source::from(path)) };
    let options = HubOptions::from_json(&given(args)?)?;
    let work = Work::begin();
    let mut line = StatusLine::new(output);
    let path = runtime.fetch(name, &options, |done, total| {
        match total {
            // At once, because a missing network shows here.
            0 if done == 0 => line.announce(&format!("looking for {name}")),
            _ => line.update(|| format!("{} of {}", bar("downloading", done, total), bytes(total))),
        }
        !work.interrupted()
    });
    path.map(Source::Path)
}

#[cfg(not(feature = "hub"))]
fn named(_: &Runtime, path: &Path, _: &HubArgs, _: &OutputArgs) -> Result<Source> {
    Ok(Source::from(path))
}

#[cfg(all(test, feature = "hub"))]
mod tests {
    use super::*;

    #[test]
    fn options_agree_with_the_library() {
        let names: Vec<String> = HubArgs::augment_args(clap::Command::new(""))
            .get_arguments()
            .map(|argument| argument.get_id().to_string())
            .collect();
        assert_eq!(names, HubOptions::NAMES);
    }

    #[test]
    fn the_environment_decides_by_default() {
        let options = |args: &HubArgs| HubOptions::from_json(&given(args).unwrap()).unwrap();
        assert_eq!(options(&HubArgs::default()).offline, None);
        assert_eq!(options(&HubArgs { offline: true, ..HubArgs::default() }).offline, Some(true));
    }
}
