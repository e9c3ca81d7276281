//! The configuration of a server: a file in TOML. Errors name file, line and key.

mod document;
mod server;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clawdbot_core::{Driver, ModelOptions, PoolModel, Result, RuntimeOptions, Source};

use crate::keys::{KeyLimits, digest_of};
use crate::settings::Settings;
use document::{Document, Section};

/// Most bytes of the name of a model or a key.
const MAX_NAME: usize = 128;
/// Most instances of a model.
const MAX_INSTANCES: u64 = 64;

/// What a server is to be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 for any that is free.
    pub port: u16,
    /// How it answers, with the API keys.
    pub settings: Settings,
    /// How it computes.
    pub runtime: RuntimeOptions,
    /// Files that encrypt connections.
    pub tls: Option<ConfigTls>,
    /// Its models, in the order of the file.
    pub models: Vec<ConfigModel>,
}

/// A model of a [`Config`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConfigModel {
    /// Its name for clients.
    pub name: String,
    /// A path, the name of a model on a hub, or `builtin`.
    pub model: PathBuf,
    /// How it is loaded; all instances are the same.
    pub options: ModelOptions,
    /// How many instances there are.
    pub instances: usize,
    /// Whether it is loaded at once, and stays.
    pub pin: bool,
    /// Time without a user after which it is unloaded.
    pub idle_unload: Option<Duration>,
}

/// Files for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigTls {
    /// The certificate, and those between it and the authority that clients know (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// Authorities of clients: each client must have a certificate of one of them (PEM).
    pub client_ca: Option<PathBuf>,
}

impl ConfigTls {
    /// With a certificate and its key.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        ConfigTls { certificate: certificate.into(), key: key.into(), client_ca: None }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8080,
            settings: Settings::default(),
            runtime: RuntimeOptions::default().driver(Driver::Thread),
            tls: None,
            models: Vec::new(),
        }
    }
}

impl ConfigModel {
    /// One instance of `model`, loaded at once.
    pub fn new(name: impl Into<String>, model: impl Into<PathBuf>, options: ModelOptions) -> Self {
        let (name, model) = (name.into(), model.into());
        ConfigModel { name, model, options, instances: 1, pin: true, idle_unload: None }
    }

    /// What the pool is to load: `source` is where [`ConfigModel::model`] is.
    pub fn pooled(&self, source: impl Into<Source>) -> PoolModel {
        let first = PoolModel::new(source, self.options.clone()).pin(self.pin).idle_unload(self.idle_unload);
        (1..self.instances).fold(first, |model, _| model.instance(self.options.clone()))
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `InvalidArgument` with file, line and key for what is not TOML, a key that does not exist, and a value
    /// that its key does not take.
    pub fn read(path: &Path) -> Result<Self> {
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::of(&Document::read(path)?, directory)
    }

    fn of(document: &Document, directory: &Path) -> Result<Self> {
        let mut root = document.root();
        let (server, runtime) = (root.section("server")?, root.section("runtime")?);
        let (models, keys) = (root.section("models")?, root.section("keys")?);
        root.end()?;
        let mut config = Config { runtime: runtime_options(runtime, directory)?, ..Config::default() };
        for (name, section) in models.sections()? {
            check_name(document, "models", &name)?;
            let (model, aliases) = model(name, section, directory)?;
            for alias in aliases {
                if let Some(other) = config.settings.aliases.insert(alias.clone(), model.name.clone()) {
                    let message =
                        format!("expected names that no model has, found {alias:?}, which {other} has");
                    return Err(document.wrong(&format!("models.{}.aliases", model.name), &message));
                }
            }
            if let Some(most) = model.options.max_queue {
                let most = u64::from(most).saturating_mul(model.instances as u64);
                config.settings.max_waiting.insert(model.name.clone(), most);
            }
            config.models.push(model);
        }
        for (name, section) in keys.sections()? {
            check_name(document, "keys", &name)?;
            let key = key(name, section)?;
            if let Some(other) = config.settings.keys.iter().find(|other| other.sha256 == key.sha256) {
                let message = format!("expected a key of its own, found that of {:?}", other.name);
                return Err(document.wrong(&format!("keys.{}.sha256", key.name), &message));
            }
            config.settings.keys.push(key);
        }
        server::read(server, &mut config, directory)?;
        let names = |name: &String| config.models.iter().any(|model| model.name == *name);
        if config.models.is_empty() {
            let expected =
                "expected a table such as [models.chat] with model = \"path/to/model\", found none";
            return Err(document.wrong("models", expected));
        }
        let known = || config.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(name) = config.settings.default_model.as_ref().filter(|name| !names(name)) {
            let message = format!("expected one of {}, found {name:?}", known());
            return Err(document.wrong("server.default_model", &message));
        }
        for key in &config.settings.keys {
            if let Some(name) = key.models.iter().flatten().find(|name| !names(name)) {
                let message = format!("expected some of {}, found {name:?}", known());
                return Err(document.wrong(&format!("keys.{}.models", key.name), &message));
            }
        }
        if let Some(alias) = config.settings.aliases.keys().find(|alias| names(alias)) {
            let of = &config.settings.aliases[alias];
            let message = format!("expected names that no model has, found {alias:?}");
            return Err(document.wrong(&format!("models.{of}.aliases"), &message));
        }
        Ok(config)
    }
}

/// Refuses names of models and keys that are empty or long. Those of keys are groups, whose names are bounded.
fn check_name(document: &Document, table: &str, name: &str) -> Result<()> {
    if (1..=MAX_NAME).contains(&name.len()) {
        return Ok(());
    }
    let message = format!("expected a name of 1 to {MAX_NAME} bytes, found one of {}", name.len());
    Err(document.wrong(&format!("{table}.{name}"), &message))
}

fn runtime_options(mut section: Section<'_>, directory: &Path) -> Result<RuntimeOptions> {
    if let Some(driver) = section.text("driver")?
        && driver != "thread"
    {
        return Err(section.unexpected("driver", "thread, as requests are awaited", &driver.into()));
    }
    Ok(section.options::<RuntimeOptions>(directory)?.driver(Driver::Thread))
}

/// A model, and its other names.
fn model(name: String, mut section: Section<'_>, directory: &Path) -> Result<(ConfigModel, Vec<String>)> {
    let model = section.text("model")?;
    let model = model
        .ok_or_else(|| section.wrong("model", "expected a path, a name OWNER/NAME or builtin, found none"))?;
    // As on the command line, but from the file's directory; what is not there may be on a hub.
    let nearby = directory.join(&model);
    let model = if nearby.exists() { nearby } else { model.into() };
    let instances = section.whole("instances")?.unwrap_or(1);
    if !(1..=MAX_INSTANCES).contains(&instances) {
        let expected = format!("a whole number from 1 to {MAX_INSTANCES}");
        return Err(section.unexpected("instances", &expected, &instances.into()));
    }
    let pin = section.flag("pin")?;
    let idle_unload = section.whole("idle_unload")?.map(Duration::from_secs);
    let pin = match (pin, idle_unload) {
        (Some(true), Some(_)) => {
            return Err(section.wrong("idle_unload", "expected pin false with it, found true"));
        }
        (Some(pin), _) => pin,
        (None, idle_unload) => idle_unload.is_none(),
    };
    let aliases = section.texts("aliases")?.unwrap_or_default();
    let template = template(&mut section, directory)?;
    let mut options: ModelOptions = section.options(directory)?;
    if template.is_some() {
        options = options.chat_template(template);
    }
    Ok((ConfigModel { name, model, options, instances: instances as usize, pin, idle_unload }, aliases))
}

/// The text of the file `chat_template_file`.
fn template(section: &mut Section<'_>, directory: &Path) -> Result<Option<String>> {
    let Some(file) = section.text("chat_template_file")? else { return Ok(None) };
    let path: PathBuf = directory.join(file);
    let read = std::fs::read_to_string(&path);
    read.map(Some)
        .map_err(|error| section.wrong("chat_template_file", &format!("{}: {error}", path.display())))
}

/// An API key.
fn key(name: String, mut section: Section<'_>) -> Result<KeyLimits> {
    let digest = section.text("sha256")?;
    let digest = digest.ok_or_else(|| {
        let message = "expected the SHA-256 of the key (clawdbot key makes one), found none";
        section.wrong("sha256", message)
    })?;
    let digest = digest_of(&digest)
        .ok_or_else(|| section.unexpected("sha256", "64 hexadecimal digits", &digest.into()))?;
    let mut key = KeyLimits::new(name, digest);
    key.models = section.texts("models")?;
    for (field, limit) in [
        ("requests_per_minute", &mut key.requests_per_minute),
        ("tokens_per_minute", &mut key.tokens_per_minute),
        ("concurrent", &mut key.concurrent),
        ("max_context", &mut key.max_context),
    ] {
        *limit = section.whole(field)?;
        if *limit == Some(0) {
            return Err(section.wrong(field, "expected a whole number, 1 or more, found 0"));
        }
    }
    key.priority = match section.whole("priority")? {
        None => None,
        Some(priority) => match u32::try_from(priority) {
            Ok(priority) if priority <= 100 => Some(priority),
            _ => {
                return Err(section.unexpected("priority", "a whole number from 0 to 100", &priority.into()));
            }
        },
    };
    section.end()?;
    Ok(key)
}

#[cfg(test)]
mod tests;
