//! The files of a repository's revision, from the hubs' public APIs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::checksum::Checksum;
use crate::control::{Control, Patience};
use crate::error::{Error, ErrorKind, Result};
use crate::http::{Client, Slash, escape};
use crate::id::{ModelId, Site, check_relative, is_commit};
use crate::json;
use crate::settings::Settings;

/// Number of files after which ModelScope truncates a list without saying so.
const MODELSCOPE_LIMIT: usize = 3000;

/// A file of a repository. Fields that the list lacks are requested later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) size: Option<u64>,
    pub(crate) checksum: Option<Checksum>,
}

/// The files of a revision.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Name of its directory in the cache: the commit, or on ModelScope, which has none, the revision.
    pub(crate) commit: String,
    pub(crate) files: BTreeMap<String, Entry>,
}

/// One repository on one hub.
pub(crate) struct Remote<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) client: &'a Client,
    pub(crate) control: &'a Control,
    pub(crate) id: &'a ModelId,
}

impl Remote<'_> {
    /// Lists the files of `revision`, except those with names that the cache cannot hold.
    ///
    /// # Errors
    /// `NotFound`, `AccessDenied`, `Unreachable`; `BadContent` for a malformed answer.
    pub(crate) fn list(&self, revision: &str) -> Result<Listing> {
        let (endpoint, id) = (&self.settings.endpoint, self.id);
        let listing = match self.settings.site {
            Site::HuggingFace => {
                let revision = escape(revision, Slash::Escaped);
                self.answer(&format!("{endpoint}/api/models/{id}/revision/{revision}?blobs=true"))
                    .and_then(huggingface)
            }
            Site::ModelScope => {
                let name = escape(revision, Slash::Escaped);
                let url = format!("{endpoint}/api/v1/models/{id}/repo/files?Revision={name}&Recursive=True");
                self.answer(&url).and_then(|answer| modelscope(answer, revision))
            }
        };
        let mut listing = listing.map_err(|error| error.context(format!("{id} at {revision}")))?;
        // Git allows more names than file systems; a model does not need files with odd ones.
        listing.files.retain(|name, _| check_relative("a file", name).is_ok());
        Ok(listing)
    }

    /// The URL of a file's content.
    pub(crate) fn url(&self, commit: &str, name: &str) -> String {
        let (endpoint, id) = (&self.settings.endpoint, self.id);
        match self.settings.site {
            Site::HuggingFace => {
                format!(
                    "{endpoint}/{id}/resolve/{}/{}",
                    escape(commit, Slash::Escaped),
                    escape(name, Slash::Kept)
                )
            }
            Site::ModelScope => {
                let (commit, name) = (escape(commit, Slash::Escaped), escape(name, Slash::Escaped));
                format!("{endpoint}/api/v1/models/{id}/repo?Revision={commit}&FilePath={name}")
            }
        }
    }

    /// Size in bytes and checksum of a file, from the list or from the file's own headers.
    ///
    /// # Errors
    /// `BadContent` if the hub gives neither.
    pub(crate) fn describe(&self, commit: &str, name: &str, entry: &Entry) -> Result<(u64, Checksum)> {
        if let Entry { size: Some(size), checksum: Some(checksum) } = entry {
            return Ok((*size, checksum.clone()));
        }
        let url = self.url(commit, name);
        let mut patience = Patience::new(self.settings, self.control);
        let answer = patience.repeat(|| self.client.head(&url)).map_err(|error| error.context(name))?;
        let etag = answer.header("x-linked-etag").or_else(|| answer.header("etag"));
        let checksum = etag.and_then(|etag| Checksum::parse(etag.trim_start_matches("W/").trim_matches('"')));
        let size = answer.header("x-linked-size").or_else(|| answer.header("content-length"));
        match (size.and_then(|size| size.parse().ok()), checksum) {
            (Some(size), Some(checksum)) => Ok((size, checksum)),
            _ => {
                let message = format!("{name}: expected a size and a checksum from the hub, found none");
                Err(Error::bad_content(message).at(&url))
            }
        }
    }

    fn answer<T: DeserializeOwned>(&self, url: &str) -> Result<T> {
        let mut patience = Patience::new(self.settings, self.control);
        let json = patience.repeat(|| self.client.get_small(url))?;
        serde_json::from_slice(&json).map_err(|error| {
            let message = format!("expected a list of files, found something else ({error})");
            Error::bad_content(message).at(url)
        })
    }
}

#[derive(Deserialize)]
struct HuggingFace {
    sha: String,
    siblings: json::Files<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

fn huggingface(answer: HuggingFace) -> Result<Listing> {
    if !is_commit(&answer.sha) {
        let found: String = answer.sha.chars().take(80).collect();
        let message = format!("expected a commit (40 hexadecimal digits) from the hub, found {found:?}");
        return Err(Error::bad_content(message));
    }
    let entry = |file: Sibling| {
        let (size, checksum) = match file.lfs {
            Some(lfs) => (Some(lfs.size), Checksum::parse(&lfs.sha256)),
            None => (file.size, file.blob_id.as_deref().and_then(Checksum::parse)),
        };
        (file.rfilename, Entry { size, checksum })
    };
    Ok(Listing { commit: answer.sha, files: answer.siblings.0.into_iter().map(entry).collect() })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ModelScope {
    #[serde(default)]
    message: String,
    data: Option<Files>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Files {
    files: json::Files<File>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    path: String,
    r#type: String,
    size: Option<u64>,
    sha256: Option<String>,
}

fn modelscope(answer: ModelScope, revision: &str) -> Result<Listing> {
    let Some(Files { files: json::Files(files) }) = answer.data else {
        let said: String = answer.message.chars().filter(|c| !c.is_control()).take(300).collect();
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("expected a list of files, found none ({said})"),
        ));
    };
    if files.len() >= MODELSCOPE_LIMIT {
        let message = format!("expected fewer than {MODELSCOPE_LIMIT} files, which the hub cannot list");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let entry = |file: File| {
        let checksum = file.sha256.as_deref().and_then(Checksum::parse);
        (file.path, Entry { size: file.size, checksum })
    };
    let files = files.into_iter().filter(|file| file.r#type == "blob").map(entry).collect();
    Ok(Listing { commit: revision.to_owned(), files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let (sha256, git) = ("a".repeat(64), "b".repeat(40));
        let json = serde_json::json!({"sha": git, "siblings": [
            {"rfilename": "config.json", "size": 3, "blobId": git},
            {"rfilename": "m.gguf", "size": 134, "blobId": git, "lfs": {"sha256": sha256, "size": 9, "pointerSize": 134}},
            {"rfilename": "bare"},
        ]});
        let listing = huggingface(serde_json::from_value(json).unwrap()).unwrap();
        let entry = |size, checksum| Entry { size, checksum };
        assert_eq!(listing.files["config.json"], entry(Some(3), Some(Checksum::Git(git.clone()))));
        assert_eq!(listing.files["m.gguf"], entry(Some(9), Some(Checksum::Sha256(sha256.clone()))));
        assert_eq!(listing.files["bare"], entry(None, None));
        let json = serde_json::json!({"Code": 200, "Data": {"Files": [
            {"Path": "d", "Type": "tree", "Size": 0, "Sha256": ""},
            {"Path": "d/x", "Type": "blob", "Size": 5, "Sha256": sha256},
            {"Path": "bare", "Type": "blob"},
        ]}});
        let listing = modelscope(serde_json::from_value(json).unwrap(), "master").unwrap();
        assert_eq!(listing.commit, "master");
        assert_eq!(listing.files.len(), 2);
        assert_eq!(listing.files["bare"], entry(None, None));
        assert_eq!(listing.files["d/x"], entry(Some(5), Some(Checksum::Sha256(sha256))));
    }

    #[test]
    fn commits_are_checked() {
        let json = serde_json::json!({"sha": "../../x", "siblings": []});
        let error = huggingface(serde_json::from_value(json).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadContent);
    }
}
