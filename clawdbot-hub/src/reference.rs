//! References to models on a hub as people write them: an id or the address of a page, perhaps with a quantization
//! after a colon.

use std::path::Path;

use crate::error::{Error, Result};
use crate::id::{ModelId, Site, check_relative, is_part};
use crate::select::is_model_file;

/// Endings of local model files: names with one of them are never repositories.
const FILE_ENDINGS: [&str; 4] = [".gguf", ".clawdbot", ".safetensors", ".json"];
/// Addresses of the hubs.
const HOSTS: [(&str, Site); 5] = [
    ("huggingface.co", Site::HuggingFace),
    ("hf.co", Site::HuggingFace),
    ("hf-mirror.com", Site::HuggingFace),
    ("modelscope.cn", Site::ModelScope),
    ("modelscope.ai", Site::ModelScope),
];
/// Prefixes of well-known families' names, with their publishers.
const OWNERS: [(&str, &str); 20] = [
    ("qwen", "Qwen"),
    ("qwq", "Qwen"),
    ("llama-", "meta-llama"),
    ("gemma", "google"),
    ("embeddinggemma", "google"),
    ("mistral", "mistralai"),
    ("ministral", "mistralai"),
    ("mixtral", "mistralai"),
    ("phi-", "microsoft"),
    ("smollm", "HuggingFaceTB"),
    ("granite", "ibm-granite"),
    ("olmo", "allenai"),
    ("glm-", "zai-org"),
    ("gpt-oss", "openai"),
    ("deepseek", "deepseek-ai"),
    ("lfm2", "LiquidAI"),
    ("bge-", "BAAI"),
    ("all-", "sentence-transformers"),
    ("modernbert", "answerdotai"),
    ("bert-", "google-bert"),
];
/// Longest name of a quantization in bytes.
const MAX_QUANTIZATION: usize = 64;

/// A repository, perhaps with a revision, file or quantization.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reference {
    /// The repository.
    pub id: ModelId,
    /// Branch, tag or commit.
    pub revision: Option<String>,
    /// A GGUF file or packed model.
    pub file: Option<String>,
    /// The quantization of the GGUF file, such as `Q4_K_M`.
    pub quantization: Option<String>,
}

impl Reference {
    /// Reads `OWNER/NAME`, `hf://OWNER/NAME`, `modelscope://OWNER/NAME`, the address of a page on the hub
    /// (`https://huggingface.co/OWNER/NAME/tree/main`, also without `https://`), and any of these with `:QUANTIZATION`.
    ///
    /// # Errors
    /// `InvalidArgument` for everything else; the message says what to write.
    pub fn parse(text: &str) -> Result<Self> {
        match address(text) {
            Some((host, path)) => page(text, host, path),
            None => {
                let (id, quantization) = split_quantization(text)?;
                Ok(Reference { id: ModelId::parse(id)?, revision: None, file: None, quantization })
            }
        }
    }

    /// Interprets `text` where a path is possible too. It is a repository if it names its hub, or if it has the form
    /// `OWNER/NAME`, neither such a path nor a directory `OWNER` exists, and it does not end like a model file.
    /// Otherwise it is a path (`None`).
    ///
    /// # Errors
    /// As [`Reference::parse`], for text that names a hub.
    pub fn meant_by(text: &str) -> Result<Option<Self>> {
        let ends_like_a_file = || {
            let lower = text.to_ascii_lowercase();
            FILE_ENDINGS.iter().any(|ending| lower.ends_with(ending))
        };
        let first_part_exists = || text.split('/').next().is_some_and(|part| Path::new(part).exists());
        if text.contains("://") {
            // On some systems this may be a path.
            return if Path::new(text).exists() { Ok(None) } else { Self::parse(text).map(Some) };
        }
        if Path::new(text).exists() || first_part_exists() {
            return Ok(None);
        }
        if address(text).is_some() {
            return Self::parse(text).map(Some);
        }
        Ok(if ends_like_a_file() { None } else { Self::parse(text).ok() })
    }
}

/// A hint about `text`, which is neither an existing path nor the name of a repository, if it resembles one.
pub fn hint(text: &str) -> Option<String> {
    let (name, tag) = text.split_once(':').map_or((text, None), |(name, tag)| (name, Some(tag)));
    let lower = name.to_ascii_lowercase();
    if !is_part(name)
        || tag.is_some_and(|tag| !is_part(tag))
        || FILE_ENDINGS.iter().any(|ending| lower.ends_with(ending))
    {
        return None;
    }
    let owner = OWNERS.iter().find(|(start, _)| lower.starts_with(start)).map(|(_, owner)| *owner);
    let example = owner.map_or_else(String::new, |owner| format!(", perhaps {owner}/{name}"));
    Some(match tag {
        None => format!("the name of a model on a hub has its owner in front: OWNER/{name}{example}"),
        Some(tag) => format!(
            "the name of a model on a hub has its owner in front, and after the colon a quantization of its GGUF files: \
             OWNER/NAME:QUANTIZATION, such as Qwen/Qwen3-0.6B-GGUF:Q8_0 (names of Ollama's library, such as {name}:{tag}, \
             are not known here)"
        ),
    })
}

/// Host and rest of `text`, if it is an address at one of the hubs or any other server.
fn address(text: &str) -> Option<(&str, &str)> {
    let (schemed, rest) = match text.split_once("://") {
        Some((scheme, rest)) if ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) => {
            (true, rest)
        }
        Some(_) => return None,
        None => (false, text),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    (schemed || site(host).is_some()).then_some((host, path))
}

fn site(host: &str) -> Option<Site> {
    let host = host.to_ascii_lowercase();
    let host = host.strip_prefix("www.").unwrap_or(&host);
    HOSTS.iter().find(|(known, _)| *known == host).map(|(_, site)| *site)
}

/// A model's page on a hub: `OWNER/NAME`, perhaps followed by `tree`, `blob` or `resolve`, a revision and a file.
fn page(text: &str, host: &str, path: &str) -> Result<Reference> {
    let expected = |what: &str| {
        Error::invalid(format!(
            "expected {what} such as https://huggingface.co/Qwen/Qwen3-0.6B, found {text:?}"
        ))
    };
    let Some(site) = site(host) else {
        return Err(expected("the address of a model on huggingface.co or modelscope.cn,"));
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = path.trim_end_matches('/');
    let path = match site {
        Site::HuggingFace => path,
        Site::ModelScope => path.strip_prefix("models/").ok_or_else(|| {
            Error::invalid(format!(
                "expected the address of a model such as https://modelscope.cn/models/Qwen/Qwen3-0.6B, found {text:?}"
            ))
        })?,
    };
    let (path, quantization) = split_quantization(path)?;
    let mut parts = path.split('/');
    let (owner, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if ["datasets", "spaces", "collections", "papers", "docs", "buckets"].contains(&owner) {
        return Err(expected("the address of a model,"));
    }
    let id = ModelId::parse(&format!("{}://{owner}/{name}", site.scheme()))
        .map_err(|_| expected("the address of a model with owner and name,"))?;
    // ModelScope writes `file/view/REVISION/PATH`.
    let kind = match parts.next() {
        Some("file") => parts.next(),
        kind => kind,
    };
    let holds_revision = matches!(kind, Some("tree" | "blob" | "resolve" | "raw" | "view"));
    let revision = parts.next().filter(|_| holds_revision).map(unescape).transpose()?;
    let rest = parts.map(unescape).collect::<Result<Vec<_>>>()?.join("/");
    if let Some(revision) = &revision {
        check_relative("a revision", revision)?;
    }
    let file = is_model_file(&rest).then(|| rest.clone());
    if kind == Some("tree") && !rest.is_empty() {
        let message = format!(
            "expected the address of a model or of a GGUF file, found that of the folder {rest:?} in {id}; give the model as \
             {id} and the file with the option file"
        );
        return Err(Error::invalid(message));
    }
    Ok(Reference { id, revision, file, quantization })
}

/// Splits off the quantization after a colon. `latest` means no particular one.
fn split_quantization(text: &str) -> Result<(&str, Option<String>)> {
    let scheme = text.find("://").map_or(0, |at| at + 3);
    let Some((rest, quantization)) = text[scheme..].rsplit_once(':') else { return Ok((text, None)) };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if quantization.is_empty() || quantization.len() > MAX_QUANTIZATION || !quantization.bytes().all(plain) {
        let found: String = text.chars().take(200).collect();
        let message = format!("expected a quantization such as Q4_K_M after the colon, found {found:?}");
        return Err(Error::invalid(message));
    }
    let quantization =
        Some(quantization).filter(|tag| !tag.eq_ignore_ascii_case("latest")).map(str::to_owned);
    Ok((&text[..scheme + rest.len()], quantization))
}

/// Decodes `%XX`.
fn unescape(text: &str) -> Result<String> {
    let bad = || Error::invalid(format!("expected an address, found {text:?} in it"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()).ok_or_else(bad)?;
            bytes.push(u8::from_str_radix(hex, 16).map_err(|_| bad())?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Site, id, revision, file, quantization.
    fn read(text: &str) -> (Option<Site>, String, Option<String>, Option<String>, Option<String>) {
        let found = Reference::parse(text).unwrap();
        (found.id.site(), found.id.to_string(), found.revision, found.file, found.quantization)
    }

    #[test]
    fn pasted_names_are_understood() {
        let (hf, ms) = (Some(Site::HuggingFace), Some(Site::ModelScope));
        let file = "q/m-Q4_0.gguf";
        for (text, site, revision, file, quantization) in [
            ("a/b", None, None, None, None),
            ("a/b:Q4_K_M", None, None, None, Some("Q4_K_M")),
            ("a/b:latest", None, None, None, None),
            ("hf://a/b:q8_0", hf, None, None, Some("q8_0")),
            ("hf.co/a/b:IQ4_XS", hf, None, None, Some("IQ4_XS")),
            ("huggingface.co/a/b", hf, None, None, None),
            ("https://huggingface.co/a/b", hf, None, None, None),
            ("HTTPS://www.HuggingFace.co/a/b/", hf, None, None, None),
            ("https://huggingface.co/a/b?library=transformers#x", hf, None, None, None),
            ("https://huggingface.co/a/b/tree/main", hf, Some("main"), None, None),
            ("https://huggingface.co/a/b/tree/refs%2Fpr%2F1", hf, Some("refs/pr/1"), None, None),
            ("https://huggingface.co/a/b/discussions/3", hf, None, None, None),
            ("https://huggingface.co/a/b/blob/v1/config.json", hf, Some("v1"), None, None),
            ("https://hf.co/a/b/blob/main/q/m-Q4_0.gguf", hf, Some("main"), Some(file), None),
            (
                "https://huggingface.co/a/b/resolve/main/q/m-Q4_0.gguf?download=true",
                hf,
                Some("main"),
                Some(file),
                None,
            ),
            ("https://modelscope.cn/models/a/b/summary", ms, None, None, None),
            ("https://www.modelscope.cn/models/a/b/files", ms, None, None, None),
            (
                "https://modelscope.cn/models/a/b/file/view/master/q/m-Q4_0.gguf",
                ms,
                Some("master"),
                Some(file),
                None,
            ),
        ] {
            let own = |text: Option<&str>| text.map(str::to_owned);
            assert_eq!(
                read(text),
                (site, "a/b".to_owned(), own(revision), own(file), own(quantization)),
                "{text}"
            );
        }
    }

    #[test]
    fn errors_say_what_to_write() {
        for (text, word) in [
            ("https://example.com/a/b", "huggingface.co or modelscope.cn"),
            ("https://huggingface.co", "https://huggingface.co/Qwen/Qwen3-0.6B"),
            ("https://huggingface.co/gpt2", "owner and name"),
            ("https://huggingface.co/datasets/a/b", "of a model"),
            ("https://modelscope.cn/a/b", "modelscope.cn/models/"),
            ("https://huggingface.co/a/b/tree/main/BF16", "option file"),
            ("https://huggingface.co/a/b/tree/..%2Fx", "revision"),
            ("https://huggingface.co/a/b/tree/%zz", "%zz"),
            ("a/b:", "Q4_K_M"),
            ("a/b:Q4 K", "Q4_K_M"),
            ("s3://a/b", "hf://"),
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert!(error.message().contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn paths_are_not_names() {
        for text in ["no-such-owner/model", "no-such-owner/model:Q8_0", "hf://src/model", "hf.co/a/b"] {
            assert!(Reference::meant_by(text).unwrap().is_some(), "{text}");
        }
        for text in [
            "src/lib.rs",
            "src/model",
            "models/model.GGUF",
            "./a/b",
            "/a/b",
            "a",
            "a/b/c",
            "C:/a",
            "C:\\a",
            "a/b:c/d",
        ] {
            assert!(Reference::meant_by(text).unwrap().is_none(), "{text}");
        }
        for text in ["hf://a", "s3://a/b", "https://huggingface.co/a", "hf.co/a"] {
            assert!(Reference::meant_by(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hints() {
        assert!(hint("Qwen3-0.6B").unwrap().contains("perhaps Qwen/Qwen3-0.6B"));
        assert!(hint("something").unwrap().contains("OWNER/something"));
        assert!(hint("qwen3:0.6b").unwrap().contains("Qwen/Qwen3-0.6B-GGUF:Q8_0"));
        for text in ["model.gguf", "./x", "a/b", "", "a b", "C:\\x"] {
            assert_eq!(hint(text), None, "{text}");
        }
    }
}
