//! Hub, cache and token, from the environment variables that the hubs' own tools use.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::id::Site;

/// The hub for ids that do not name one: `huggingface` (the default) or `modelscope`.
const SITE_VARIABLE: &str = "CLAWDBOT_HUB";
/// The user's home directory.
const HOME: &str = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
/// Most seconds without a byte (a day), so that deadlines do not overflow.
const MAX_TIMEOUT: u64 = 86_400;
/// Most bytes of a token.
const MAX_TOKEN: u64 = 4096;

/// Everything that a download depends on apart from its request.
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The hub.
    pub site: Site,
    /// Its address, without a slash at the end.
    pub endpoint: String,
    /// Directory of the cache, shared with the hub's own tools.
    pub cache: PathBuf,
    /// Token for `endpoint`; sent to no other server.
    pub token: Option<String>,
    /// Whether to never use the network.
    pub offline: bool,
    /// Longest time to set up a connection.
    pub connect_timeout: Duration,
    /// Longest time without a byte. The total time of a download is not limited.
    pub read_timeout: Duration,
    /// Retries of a request that fails without a byte of progress.
    pub retries: u32,
    /// Time before the first retry; it doubles with each.
    pub retry_delay: Duration,
    /// Longest wait that a server may ask for (`Retry-After`); a longer one is an error.
    pub max_retry_after: Duration,
    /// Files downloaded at the same time.
    pub connections: usize,
    /// PEM file with the certificates to trust instead of Mozilla's.
    pub certificates: Option<PathBuf>,
    /// Whether to use the proxy in the environment (`ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY`), except for hosts in
    /// `NO_PROXY`.
    pub proxy: bool,
}

impl Settings {
    /// Reads the environment of the process.
    ///
    /// Both hubs: `CLAWDBOT_HUB`, `SSL_CERT_FILE`. Hugging Face: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`,
    /// `XDG_CACHE_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`, `HF_HUB_OFFLINE` or else
    /// `TRANSFORMERS_OFFLINE`, `HF_HUB_DOWNLOAD_TIMEOUT`. ModelScope: `MODELSCOPE_ENDPOINT`, `MODELSCOPE_CACHE`,
    /// `MODELSCOPE_API_TOKEN`, and those of offline mode. In paths, `~` stands for the home directory, and `$NAME` or
    /// `${NAME}` for other variables.
    ///
    /// `site` takes precedence over `CLAWDBOT_HUB`.
    ///
    /// # Errors
    /// `InvalidArgument` for an invalid value; `Io` for a token file that cannot be read.
    pub fn from_env(site: Option<Site>) -> Result<Self> {
        Self::from_variables(site, &|name| std::env::var_os(name))
    }

    pub(crate) fn from_variables(
        site: Option<Site>,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let variables = Variables(variable);
        let site = match (site, variables.text(SITE_VARIABLE)?.as_deref()) {
            (Some(site), _) => site,
            (None, None | Some("huggingface")) => Site::HuggingFace,
            (None, Some("modelscope")) => Site::ModelScope,
            (None, Some(other)) => {
                let message = format!("{SITE_VARIABLE}: expected huggingface or modelscope, found {other:?}");
                return Err(Error::invalid(message));
            }
        };
        let (endpoint, default, cache, place, token) = match site {
            Site::HuggingFace => {
                let home = variables.hf_home();
                let cache =
                    variables.path("HF_HUB_CACHE").or_else(|| variables.path("HUGGINGFACE_HUB_CACHE"));
                let cache = cache.or_else(|| Some(home.as_ref()?.join("hub")));
                let token = variables.hf_token(home.as_deref())?;
                ("HF_ENDPOINT", "https://huggingface.co", cache, "HF_HOME", token)
            }
            Site::ModelScope => {
                let cache = variables.path("MODELSCOPE_CACHE");
                let cache = cache.or_else(|| Some(variables.home()?.join(".cache").join("modelscope")));
                let token = variables.text("MODELSCOPE_API_TOKEN")?;
                ("MODELSCOPE_ENDPOINT", "https://modelscope.cn", cache, "MODELSCOPE_CACHE", token)
            }
        };
        let endpoint = variables.text(endpoint)?.unwrap_or_else(|| default.to_owned());
        let nowhere = || {
            Error::invalid(format!("expected a directory for the cache, found none: set {HOME} or {place}"))
        };
        let cache = cache.ok_or_else(nowhere)?;
        let read_timeout = match variables.text("HF_HUB_DOWNLOAD_TIMEOUT")? {
            Some(text) => {
                let expected = || {
                    Error::invalid(format!(
                        "HF_HUB_DOWNLOAD_TIMEOUT: expected 1 to {MAX_TIMEOUT} seconds, found {text:?}"
                    ))
                };
                let seconds = text.parse().ok().filter(|seconds| (1..=MAX_TIMEOUT).contains(seconds));
                Duration::from_secs(seconds.ok_or_else(expected)?)
            }
            None => Duration::from_secs(30),
        };
        Ok(Settings {
            site,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache,
            token,
            offline: variables.offline()?,
            connect_timeout: Duration::from_secs(10),
            read_timeout,
            retries: 5,
            retry_delay: Duration::from_millis(500),
            max_retry_after: Duration::from_secs(300),
            connections: 4,
            certificates: variables.path("SSL_CERT_FILE"),
            proxy: true,
        })
    }
}

/// Without the token.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("site", &self.site)
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Variables<'_> {
    /// A variable that is set and not empty.
    fn raw(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        match value.into_string() {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Err(_) => Err(Error::invalid(format!("{name}: expected UTF-8"))),
        }
    }

    /// Parsed as by Hugging Face's tools.
    fn flag(&self, name: &str) -> Result<bool> {
        match self.text(name)?.map(|text| text.to_ascii_uppercase()).as_deref() {
            None | Some("0" | "OFF" | "NO" | "FALSE") => Ok(false),
            Some("1" | "ON" | "YES" | "TRUE") => Ok(true),
            Some(other) => Err(Error::invalid(format!("{name}: expected 1 or 0, found {other:?}"))),
        }
    }

    /// The first variable that is set decides, as in `huggingface_hub`.
    fn offline(&self) -> Result<bool> {
        let name =
            ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(|name| self.raw(name).is_some());
        name.map_or(Ok(false), |name| self.flag(name))
    }

    fn home(&self) -> Option<PathBuf> {
        self.raw(HOME).map(PathBuf::from)
    }

    /// A path, as read by Python's `expandvars(expanduser(...))`: `~` at the start is the home directory; `$NAME` and
    /// `${NAME}` are variables, and stay if there is no such variable.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.raw(name)?);
        let path = match path.strip_prefix("~") {
            Ok(rest) => self.home()?.join(rest),
            Err(_) => path,
        };
        Some(path.to_str().map(|text| PathBuf::from(self.expand(text))).unwrap_or(path))
    }

    fn expand(&self, text: &str) -> OsString {
        let mut out = OsString::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push(before);
            let (name, end) = match after.strip_prefix('{') {
                Some(braced) => braced.find('}').map_or(("", 0), |at| (&braced[..at], at + 2)),
                None => {
                    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    let end = after.find(|c| !word(c)).unwrap_or(after.len());
                    (&after[..end], end)
                }
            };
            match (self.0)(name).filter(|_| !name.is_empty()) {
                Some(value) => {
                    out.push(value);
                    rest = &after[end..];
                }
                None => {
                    out.push("$");
                    rest = after;
                }
            }
        }
        out.push(rest);
        out
    }

    fn hf_home(&self) -> Option<PathBuf> {
        self.path("HF_HOME").or_else(|| {
            let caches = self.path("XDG_CACHE_HOME").or_else(|| Some(self.home()?.join(".cache")));
            Some(caches?.join("huggingface"))
        })
    }

    fn hf_token(&self, home: Option<&Path>) -> Result<Option<String>> {
        if let Some(token) = self.text("HF_TOKEN")? {
            return Ok(Some(token));
        }
        if self.flag("HF_HUB_DISABLE_IMPLICIT_TOKEN")? {
            return Ok(None);
        }
        match self.path("HF_TOKEN_PATH").or_else(|| Some(home?.join("token"))) {
            Some(path) => token_file(&path),
            None => Ok(None),
        }
    }
}

/// The token in a file, if there is one.
fn token_file(path: &Path) -> Result<Option<String>> {
    use std::io::Read;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path, &error)),
    };
    let mut token = String::new();
    file.take(MAX_TOKEN + 1).read_to_string(&mut token).map_err(|error| Error::io(path, &error))?;
    if token.len() as u64 > MAX_TOKEN {
        return Err(Error::invalid(format!(
            "{}: expected a token of at most {MAX_TOKEN} bytes, found more",
            path.display()
        )));
    }
    Ok(Some(token.trim().to_owned()).filter(|token| !token.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_variables(None, &|name| {
            let found = variables.iter().find(|(key, _)| *key == name)?;
            Some(found.1.into())
        })
    }

    #[cfg(unix)]
    #[test]
    fn caches() {
        let cache = |variables: &[(&str, &str)]| settings(variables).unwrap().cache;
        let home = ("HOME", "/h");
        assert_eq!(cache(&[home]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[home, ("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")]), Path::new("/h/hf/hub"));
        assert_eq!(cache(&[home, ("HF_HUB_CACHE", "/c"), ("HF_HOME", "/hf")]), Path::new("/c"));
        let modelscope = ("CLAWDBOT_HUB", "modelscope");
        assert_eq!(cache(&[home, modelscope]), Path::new("/h/.cache/modelscope"));
        assert_eq!(cache(&[modelscope, ("MODELSCOPE_CACHE", "/m")]), Path::new("/m"));
        assert!(settings(&[]).unwrap_err().message().ends_with("set HOME or HF_HOME"));
        assert!(settings(&[modelscope]).unwrap_err().message().ends_with("set HOME or MODELSCOPE_CACHE"));
    }

    #[cfg(unix)]
    #[test]
    fn variables_in_paths() {
        let cache = |variables: &[(&str, &str)]| settings(variables).unwrap().cache;
        let (home, there) = (("HOME", "/h"), ("WHERE", "/w"));
        for (value, expected) in [
            ("$WHERE/x", "/w/x"),
            ("${WHERE}x", "/wx"),
            ("~/$WHERE", "/h//w"),
            ("/a/$NOWHERE/${NOWHERE}/${WHERE", "/a/$NOWHERE/${NOWHERE}/${WHERE"),
            ("/a$/$$WHERE", "/a$/$/w"),
            ("/a~", "/a~"),
        ] {
            assert_eq!(cache(&[home, there, ("HF_HUB_CACHE", value)]), Path::new(expected), "{value}");
        }
        assert_eq!(cache(&[there, ("HF_HOME", "$WHERE/hf")]), Path::new("/w/hf/hub"));
        assert_eq!(cache(&[there, ("XDG_CACHE_HOME", "$WHERE")]), Path::new("/w/huggingface/hub"));
        let modelscope = ("CLAWDBOT_HUB", "modelscope");
        assert_eq!(cache(&[there, modelscope, ("MODELSCOPE_CACHE", "$WHERE/m")]), Path::new("/w/m"));
    }

    #[test]
    fn offline() {
        let offline = |variables: &[(&str, &str)]| {
            settings(&[&[("HF_HOME", "/h")], variables].concat()).unwrap().offline
        };
        assert!(!offline(&[]));
        assert!(offline(&[("TRANSFORMERS_OFFLINE", "1")]));
        assert!(offline(&[("TRANSFORMERS_OFFLINE", "yes"), ("HF_HUB_OFFLINE", "")]));
        assert!(!offline(&[("TRANSFORMERS_OFFLINE", "1"), ("HF_HUB_OFFLINE", "0")]));
    }

    #[test]
    fn tokens() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), "hf_file\n").unwrap();
        let home = ("HF_HOME", directory.path().to_str().unwrap());
        assert_eq!(settings(&[home]).unwrap().token.as_deref(), Some("hf_file"));
        assert_eq!(
            settings(&[home, ("HF_TOKEN", " hf_variable ")]).unwrap().token.as_deref(),
            Some("hf_variable")
        );
        assert_eq!(settings(&[home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).unwrap().token, None);
        let path = directory.path().join("other");
        assert_eq!(settings(&[home, ("HF_TOKEN_PATH", path.to_str().unwrap())]).unwrap().token, None);
        assert!(!format!("{:?}", settings(&[home]).unwrap()).contains("hf_file"));
    }

    #[test]
    fn values() {
        let home = ("HF_HOME", "/h");
        let found =
            settings(&[home, ("HF_ENDPOINT", "http://mirror:8080/api/"), ("HF_HUB_OFFLINE", "yes")]).unwrap();
        assert_eq!((found.endpoint.as_str(), found.offline), ("http://mirror:8080/api", true));
        assert_eq!(settings(&[home, ("HF_HUB_DOWNLOAD_TIMEOUT", "7")]).unwrap().read_timeout.as_secs(), 7);
        assert!(settings(&[home, ("HF_HUB_DOWNLOAD_TIMEOUT", "86400")]).is_ok());
        for bad in [
            ("HF_HUB_OFFLINE", "maybe"),
            ("TRANSFORMERS_OFFLINE", "maybe"),
            ("CLAWDBOT_HUB", "x"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "0"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "86401"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "18446744073709551615"),
        ] {
            assert!(settings(&[home, bad]).unwrap_err().message().contains(bad.0));
        }
    }
}
