//! Models by the name of their repository: downloaded once, then loaded from the cache that the hub's own tools use.

use std::path::{Path, PathBuf};

use clawdbot_hub as hub;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{MODEL_FILES, Source};
use crate::options::HubOptions;

impl Source {
    /// The path of the model `name`, for [`Source::Path`]: a path, which is given back, or a repository `OWNER/NAME`, which is
    /// downloaded unless the cache has it.
    ///
    /// A name is a repository if it says so (`hf://OWNER/NAME`, `modelscope://OWNER/NAME`), or if it has that form, and there
    /// is no such path, no directory `OWNER`, and it does not end like a model file. Everything else is taken as a path,
    /// and then nothing is downloaded. The environment variables are those of the hubs' own tools: see `docs/hub.md`.
    ///
    /// `progress` gets the bytes that are there and those that will be (0 while that is found out), on this thread, about 20
    /// times a second; false cancels. An interrupted download is gone on with the next time.
    ///
    /// # Errors
    /// `NotFound` for a repository, revision or file that the hub, or offline the cache, does not have; `AccessDenied`;
    /// `Download` if the hub cannot be reached, or sends what it did not promise; `UnsupportedModel` for a repository
    /// without weights that can be read; `InvalidArgument` for a malformed name, for one of several GGUF files without
    /// `file`, and for `revision` or `file` with a path; `Io`, also for a full disk; `Cancelled`.
    pub fn fetch(
        name: &str,
        options: &HubOptions,
        mut progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<PathBuf> {
        if !hub::ModelId::is_meant_by(name) {
            return local(name, options);
        }
        let id = hub::ModelId::parse(name).map_err(convert)?;
        let mut settings = hub::Settings::from_env(id.site()).map_err(convert)?;
        settings.offline = options.offline.unwrap_or(settings.offline);
        let mut request = hub::Request::new(id);
        request.revision.clone_from(&options.revision);
        request.file.clone_from(&options.file);
        request.small_files = MODEL_FILES.map(str::to_owned).into();
        let found = hub::fetch(&settings, &request, |now| progress(now.bytes, now.total_bytes));
        Ok(found.map_err(convert)?.path)
    }
}

/// A path, which no option of a download goes with.
fn local(name: &str, options: &HubOptions) -> Result<PathBuf> {
    let path = Path::new(name);
    // A scheme that is not known, or a malformed name behind one: not a path anybody has.
    if name.contains("://") && !path.exists() {
        hub::ModelId::parse(name).map_err(convert)?;
    }
    if !path.exists() && hub::ModelId::parse(name).is_ok() {
        let message = format!("{name}: expected a path; for the repository of that name, write hf://{name}");
        return Err(Error::new(ErrorKind::NotFound, message).with("path", name));
    }
    for (option, value) in [("revision", &options.revision), ("file", &options.file)] {
        if let Some(value) = value {
            let message = format!(
                "option {option}: expected with a repository OWNER/NAME, found {value:?} with {name:?}"
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
        // Unreachable, BadContent, and whatever else a download may come to.
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
        Source::fetch(name, options, |_, _| true)
    }

    #[test]
    fn paths_stay_paths() {
        let none = HubOptions::default();
        for path in ["src", "src/lib.rs", "./no/such", "/no/such", "no-such", "no/such/path", "models/x.gguf"]
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
    }
}
