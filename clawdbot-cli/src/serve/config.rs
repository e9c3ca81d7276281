//! What a server is to be: by a file, or by flags.

use std::path::Path;
use std::time::Duration;

use clawdbot_core::{Driver, Error, ErrorKind, Result};
#[cfg(feature = "tls")]
use clawdbot_server::ConfigTls;
use clawdbot_server::{Config, ConfigModel, FieldPolicy, KeyLimits, MetricsDialect};

use crate::args::ServeArgs;
use crate::generate::read;

/// Fewest characters of an API key: a shorter one could be guessed.
const MIN_KEY: usize = 16;

/// The configuration of a command.
///
/// # Errors
/// As [`Config::read`]; `InvalidArgument` for flags that go with no file.
pub(super) fn config(args: &ServeArgs) -> Result<Config> {
    let mut config = match &args.config {
        Some(path) => of_file(path, args)?,
        None => of_flags(args)?,
    };
    config.host = args.host.unwrap_or(config.host);
    config.port = args.port.unwrap_or(config.port);
    Ok(config)
}

fn of_file(path: &Path, args: &ServeArgs) -> Result<Config> {
    let flags = args.load.given().keys().chain(args.runtime.given().keys());
    if let Some(flag) = flags.into_iter().next() {
        let flag = flag.replace('_', "-");
        let message = format!("option {flag}: expected it in the file with --config, found --{flag}");
        return Err(Error::new(ErrorKind::InvalidArgument, message).with("option", flag));
    }
    Config::read(path)
}

fn of_flags(args: &ServeArgs) -> Result<Config> {
    let template = args.chat_template.as_deref().map(read).transpose()?;
    let options = args.load.options()?.chat_template(template);
    let path = args.model().map(|path| path.as_path());
    let name = args.name.clone().unwrap_or_else(|| name_of(path));
    let mut config = Config::default();
    config.runtime = args.runtime.options()?.driver(Driver::Thread);
    let settings = &mut config.settings;
    settings.fields = match (args.strict, args.lenient) {
        (true, _) => FieldPolicy::Strict,
        (_, true) => FieldPolicy::Lenient,
        _ => FieldPolicy::Known,
    };
    // There is one such name.
    settings.metrics_dialect = args.metrics_dialect.as_ref().map(|_| MetricsDialect::Vllm);
    if let Some(most) = options.max_queue {
        settings.max_waiting.insert(name.clone(), most.into());
    }
    if let Some(seconds) = args.drain_timeout {
        settings.drain_timeout = Duration::from_secs(seconds);
    }
    if let Some(seconds) = args.idle_timeout {
        settings.idle_timeout = Duration::from_secs(seconds);
    }
    if let Some(file) = &args.api_key_file {
        settings.keys = keys(file)?;
    }
    #[cfg(feature = "tls")]
    if let (Some(certificate), Some(key)) = (&args.tls.cert, &args.tls.key) {
        let mut tls = ConfigTls::new(certificate, key);
        tls.client_ca.clone_from(&args.tls.client_ca);
        config.tls = Some(tls);
    }
    let path = path.map_or_else(|| "builtin".into(), Path::to_path_buf);
    config.models.push(ConfigModel::new(name, path, options));
    Ok(config)
}

/// The keys of a file, one in a line.
fn keys(file: &Path) -> Result<Vec<KeyLimits>> {
    let text = read(file)?;
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let keys = lines.map(|(number, key)| {
        if key.len() < MIN_KEY || key.contains(char::is_whitespace) {
            let message = format!(
                "{}, line {number}: expected an API key of at least {MIN_KEY} characters, without spaces (clawdbot key makes one)",
                file.display()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "api_key_file"));
        }
        Ok(KeyLimits::of_key(format!("line {number}"), key))
    });
    let keys = keys.collect::<Result<Vec<_>>>()?;
    if keys.is_empty() {
        let message = format!("{}: expected API keys, one in a line, found none", file.display());
        return Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "api_key_file"));
    }
    Ok(keys)
}

/// The name of a model for clients.
fn name_of(model: Option<&Path>) -> String {
    let stem = model.and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    stem.unwrap_or_else(|| "builtin".to_owned())
}
