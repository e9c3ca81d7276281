//! Models by the name of their repository: downloaded once, then loaded from the cache that the hub's own tools share.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clawdbot_hub as hub;

use crate::cancel::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::load::source::Source;
use crate::options::HubOptions;
use crate::runtime::{LogLevel, Runtime};
use crate::weights::model_files::MODEL_FILES;

impl Source {
    /// The path of the model `name`, for [`Source::Path`]. A path is returned as it is; a repository is downloaded
    /// unless it is in the cache.
    ///
    /// A repository is `OWNER/NAME`, `hf://OWNER/NAME`, `modelscope://OWNER/NAME`, or the address of its page or of one
    /// of its GGUF files (`https://huggingface.co/OWNER/NAME/tree/main`, `hf.co/OWNER/NAME`). A suffix such as
    /// `:Q4_K_M` selects its GGUF file of that quantization. `OWNER/NAME` is a repository only if no such path and no
    /// directory `OWNER` exists and it does not end like a model file. Everything else is a path, for which nothing is
    /// downloaded. The environment variables are those of the hubs' own tools: see `docs/hub.md`.
    ///
    /// `progress` gets the bytes that are there and those that will be (0 while that is found out), on this thread, about 20
    /// times a second; a break cancels. An interrupted download is resumed the next time. [`Runtime::fetch`] also logs what is
    /// repeated, and why.
    ///
    /// # Errors
    /// `NotFound` for a repository, revision or file that the hub (offline: the cache) does not have, and for a name
    /// without its owner; `AccessDenied`; `Download` if the hub cannot be reached or sends something else than it
    /// announced; `UnsupportedModel` for a repository without weights in a supported format; `InvalidArgument` for a
    /// malformed name, for several GGUF files without `file`, for a revision or file that contradicts the address, and
    /// for `revision` or `file` with a path; `Io`, also for a full disk; `Cancelled`.
    pub fn fetch(
        name: &str,
        options: &HubOptions,
        progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<PathBuf> {
        fetch(name, options, progress, |_| ())
    }
}

impl Runtime {
    /// [`Source::fetch`] that logs every retry: why, and when.
    ///
    /// # Errors
    /// As [`Source::fetch`].
    pub fn fetch(
        &self,
        name: &str,
        options: &HubOptions,
        progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<PathBuf> {
        fetch(name, options, progress, |warning| self.log(LogLevel::Warning, || warning.to_owned()))
    }
}

fn fetch(
    name: &str,
    options: &HubOptions,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    warning: impl FnMut(&str),
) -> Result<PathBuf> {
    let Some(reference) = hub::Reference::meant_by(name).map_err(convert)? else {
        return local(name, options);
    };
    let mut settings = hub::Settings::from_env(reference.id.site()).map_err(convert)?;
    settings.offline = options.offline.unwrap_or(settings.offline);
    let mut request = hub::Request::new(reference.id);
    request.revision = one_of("revision", name, reference.revision, options.revision.as_ref())?;
    request.file = one_of("file", name, reference.file, options.file.as_ref())?;
    request.quantization = reference.quantization;
    request.small_files = MODEL_FILES.map(str::to_owned).into();
    let progress = |now: &hub::Progress| {
        progress(Progress { done: now.bytes, total: now.total_bytes, stage: None }).is_continue()
    };
    let found = hub::fetch_with_warnings(&settings, &request, progress, warning);
    Ok(found.map_err(convert)?.path)
}

/// The value from the name or from the option; an error if they differ.
fn one_of(option: &str, name: &str, named: Option<String>, given: Option<&String>) -> Result<Option<String>> {
    match (named, given) {
        (Some(named), Some(given)) if named != *given => {
            let message =
                format!("option {option}: expected none or {named:?} as in {name}, found {given:?}");
            Err(Error::invalid_argument(message).with("option", option))
        }
        (named, given) => Ok(named.or_else(|| given.cloned())),
    }
}

/// A local path, for which the options of a download are errors.
fn local(name: &str, options: &HubOptions) -> Result<PathBuf> {
    let path = Path::new(name);
    let not_found = |message| Err(Error::new(ErrorKind::NotFound, message).with("path", name));
    if !path.exists() {
        if hub::ModelId::parse(name).is_ok() {
            return not_found(format!(
                "{name}: no such file or directory; for the repository of that name, write hf://{name}"
            ));
        }
        if let Some(hint) = hub::hint(name) {
            return not_found(format!("{name}: no such file or directory; {hint}"));
        }
    }
    for (option, value) in [("revision", &options.revision), ("file", &options.file)] {
        if let Some(value) = value {
            let message = format!(
                "option {option}: expected only with a repository OWNER/NAME, found {value:?} with the path {name:?}"
            );
            return Err(Error::invalid_argument(message).with("option", option));
        }
    }
    Ok(path.to_owned())
}

fn convert(error: hub::Error) -> Error {
    let kind = match error.kind() {
        hub::ErrorKind::InvalidArgument => ErrorKind::InvalidArgument,
        hub::ErrorKind::NotFound => ErrorKind::NotFound,
        hub::ErrorKind::AccessDenied => ErrorKind::AccessDenied,
        hub::ErrorKind::Unsupported => ErrorKind::UnsupportedModel,
        hub::ErrorKind::NoSpace | hub::ErrorKind::Io => ErrorKind::Io,
        hub::ErrorKind::Cancelled => ErrorKind::Cancelled,
        // Unreachable, BadContent, and anything else that goes wrong in a download.
        _ => ErrorKind::Download,
    };
    let mut converted = Error::new(kind, error.message());
    if let Some(url) = error.url() {
        converted = converted.with("url", url);
    }
    if let Some(status) = error.status() {
        converted = converted.with("status", status);
    }
    if let Some(delay) = error.retry_after() {
        converted = converted.with("retry_after", delay.as_secs());
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched(name: &str, options: &HubOptions) -> Result<PathBuf> {
        Source::fetch(name, options, |_| ControlFlow::Continue(()))
    }

    #[test]
    fn paths_stay_paths() {
        let none = HubOptions::default();
        for path in
            ["src", "src/lib.rs", "./no/such", "/no/such", "no-such.gguf", "no/such/path", "models/x.gguf"]
        {
            match fetched(path, &none) {
                Ok(found) => assert_eq!(found, Path::new(path)),
                Err(error) => assert_eq!((path, error.kind()), ("models/x.gguf", ErrorKind::NotFound)),
            }
        }
        let error = fetched("src/no-such", &none).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains("hf://src/no-such"), "{error}");
        for options in [none.clone().revision("main".to_owned()), none.clone().file("x.gguf".to_owned())] {
            let error = fetched("src", &options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        assert_eq!(fetched("s3://a/b", &none).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(fetched("hf://a", &none).unwrap_err().kind(), ErrorKind::InvalidArgument);
        for (name, kind, word) in [
            ("Qwen3-0.6B", ErrorKind::NotFound, "Qwen/Qwen3-0.6B"),
            ("qwen3:0.6b", ErrorKind::NotFound, "OWNER/NAME:QUANTIZATION"),
            ("https://example.com/a/b", ErrorKind::InvalidArgument, "huggingface.co"),
        ] {
            let error = fetched(name, &none).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.message().contains(word), "{error}");
        }
        let other = none.clone().revision("v1".to_owned());
        let error = fetched("https://huggingface.co/a/b/tree/main", &other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
