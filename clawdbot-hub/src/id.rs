//! Names of repositories, of revisions, and of files. All become parts of paths and URLs, so all are checked first.

use std::fmt;

use crate::error::{Error, Result};

/// Most bytes of a repository's owner, or of its name.
const MAX_PART: usize = 96;
/// Most bytes of a revision, and of a file's path.
const MAX_PATH: usize = 1024;

/// A hub that models are downloaded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Site {
    /// huggingface.co, or a server that speaks its protocol.
    HuggingFace,
    /// modelscope.cn, or a server that speaks its protocol.
    ModelScope,
}

impl Site {
    /// The default revision.
    pub fn default_revision(self) -> &'static str {
        match self {
            Site::HuggingFace => "main",
            Site::ModelScope => "master",
        }
    }

    /// The scheme of names of this hub.
    pub fn scheme(self) -> &'static str {
        match self {
            Site::HuggingFace => "hf",
            Site::ModelScope => "modelscope",
        }
    }
}

/// A model repository: `owner/name`, perhaps with its hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelId {
    site: Option<Site>,
    owner: String,
    name: String,
}

impl ModelId {
    /// Reads `owner/name`, `hf://owner/name` or `modelscope://owner/name`.
    ///
    /// # Errors
    /// `InvalidArgument` for everything else.
    pub fn parse(text: &str) -> Result<Self> {
        let (site, rest) = match text.split_once("://") {
            Some((scheme, rest)) => {
                let sites = [Site::HuggingFace, Site::ModelScope];
                let site = sites.into_iter().find(|site| site.scheme() == scheme).ok_or_else(|| {
                    Error::invalid(format!("expected hf:// or modelscope://, found {scheme:?}://"))
                })?;
                (Some(site), rest)
            }
            None => (None, text),
        };
        match rest.split_once('/') {
            Some((owner, name)) if is_part(owner) && is_part(name) => {
                Ok(ModelId { site, owner: owner.to_owned(), name: name.to_owned() })
            }
            _ => Err(Error::invalid(format!(
                "expected the name of a model repository, such as Qwen/Qwen3-0.6B, found {text:?}"
            ))),
        }
    }

    /// The hub, if the name includes it.
    pub fn site(&self) -> Option<Site> {
        self.site
    }

    /// Its directory in a cache.
    pub(crate) fn folder(&self) -> String {
        format!("{}--{}", self.owner, self.name)
    }
}

/// `owner/name`
impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// Letters, digits, `-`, `_`, `.`; neither `-` nor `.` at an end; no `--` (the separator of cache directories), no `..`.
pub(crate) fn is_part(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| !matches!(byte, b'-' | b'.'));
    let bytes = text.as_bytes();
    bytes.len() <= MAX_PART
        && bytes.iter().copied().all(allowed)
        && edge(bytes.first())
        && edge(bytes.last())
        && !text.contains("--")
        && !text.contains("..")
}

/// Whether `text` is a commit: 40 hexadecimal digits, lower case.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

/// Checks that `text` stays inside the directory that it is joined to, on every operating system: components are
/// separated by `/`, none is empty, `.` or `..`, and there is no backslash, colon or control character.
///
/// # Errors
/// `InvalidArgument`; `what` names the text in the message.
pub(crate) fn check_relative(what: &str, text: &str) -> Result<()> {
    let character = |c: char| c.is_control() || matches!(c, '\\' | ':' | '<' | '>' | '"' | '|' | '?' | '*');
    let component = |part: &str| part.is_empty() || part == "." || part == ".." || part.ends_with(['.', ' ']);
    if text.len() > MAX_PATH || text.contains(character) || text.split('/').any(component) {
        let shown: String = text.chars().take(120).collect();
        return Err(Error::invalid(format!("expected {what} inside the repository, found {shown:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids() {
        for (text, site, plain) in [
            ("Qwen/Qwen3-0.6B", None, "Qwen/Qwen3-0.6B"),
            ("hf://a/b_c", Some(Site::HuggingFace), "a/b_c"),
            ("modelscope://LLM-Research/x.1", Some(Site::ModelScope), "LLM-Research/x.1"),
        ] {
            let id = ModelId::parse(text).unwrap();
            assert_eq!((id.site(), id.to_string()), (site, plain.to_owned()));
        }
        let long = format!("a/{}", "b".repeat(97));
        for text in [
            "",
            "a",
            "/a",
            "a/",
            "a/b/c",
            "./a",
            "../a",
            "a/..",
            "a/.b",
            "a b/c",
            "a/b--c",
            "a\\b/c",
            "~/a",
            "C:/a",
            "s3://a/b",
            "hf://a",
            "hf:///a/b",
            "ä/b",
            &long,
        ] {
            assert!(ModelId::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn relative_names() {
        for text in ["main", "refs/pr/1", "config.json", "BF16/model-00001-of-00002.gguf", "a..b/.c"] {
            check_relative("a file", text).unwrap();
        }
        for text in
            ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\\b", "C:a", "a\0b", "a\nb", "a/b.", "a "]
        {
            let error = check_relative("a file", text).unwrap_err();
            assert!(error.message().contains("a file inside the repository"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn accepted_names_stay_inside(text in "[a./\\\\:~ -]{0,12}") {
            if check_relative("a file", &text).is_ok() {
                let normal = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(Path::new(&text).components().all(normal));
                prop_assert!(!text.is_empty());
            }
            if let Ok(id) = ModelId::parse(&text) {
                prop_assert_eq!(Path::new(&id.folder()).components().count(), 1);
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
