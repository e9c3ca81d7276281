//! The table `server`.

use std::path::Path;
use std::time::Duration;

use clawdbot_core::Result;

use super::document::Section;
use super::{Config, ConfigTls};
use crate::settings::{Fields, MetricsDialect, Settings};

/// A setting that is a time.
type Time = fn(&mut Settings) -> &mut Duration;

/// Settings in seconds.
const SECONDS: &[(&str, Time)] = &[
    ("load_timeout", |settings| &mut settings.load_timeout),
    ("keep_alive", |settings| &mut settings.keep_alive),
    ("header_timeout", |settings| &mut settings.header_timeout),
    ("body_timeout", |settings| &mut settings.body_timeout),
    ("idle_timeout", |settings| &mut settings.idle_timeout),
    ("drain_timeout", |settings| &mut settings.drain_timeout),
];

/// What a request does with fields that are not read, by name.
const FIELDS: &[(&str, Fields)] =
    &[("known", Fields::Known), ("strict", Fields::Strict), ("lenient", Fields::Lenient)];

/// Reads the table.
pub(super) fn read(mut section: Section<'_>, config: &mut Config, directory: &Path) -> Result<()> {
    if let Some(host) = section.text("host")? {
        config.host = host.parse().map_err(|_| {
            section.unexpected("host", "an address such as \"127.0.0.1\"", &host.as_str().into())
        })?;
    }
    if let Some(port) = section.whole("port")? {
        config.port = u16::try_from(port)
            .map_err(|_| section.unexpected("port", "a whole number from 0 to 65535", &port.into()))?;
    }
    config.tls = tls(&mut section, directory)?;
    let settings = &mut config.settings;
    settings.default_model = section.text("default_model")?;
    if let Some(name) = section.text("fields")? {
        let found = FIELDS.iter().find(|(known, _)| *known == name);
        settings.fields = found
            .ok_or_else(|| section.unexpected("fields", "known, strict or lenient", &name.as_str().into()))?
            .1;
    }
    if let Some(name) = section.text("metrics_dialect")? {
        if name != "vllm" {
            return Err(section.unexpected("metrics_dialect", "vllm", &name.into()));
        }
        settings.metrics_dialect = Some(MetricsDialect::Vllm);
    }
    if let Some(bytes) = section.bytes("max_body")? {
        settings.max_body = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    if let Some(most) = section.whole("max_connections")? {
        settings.max_connections = match usize::try_from(most) {
            Ok(most @ 1..=1_000_000) => most,
            _ => {
                let expected = "a whole number from 1 to 1000000";
                return Err(section.unexpected("max_connections", expected, &most.into()));
            }
        };
    }
    for (key, setting) in SECONDS {
        if let Some(seconds) = section.whole(key)? {
            *setting(settings) = Duration::from_secs(seconds);
        }
    }
    if let Some(origins) = section.texts("cors_origins")? {
        if let Some(wrong) = origins.iter().find(|origin| !is_origin(origin)) {
            let expected = "origins such as https://example.org, or * alone";
            return Err(section.unexpected("cors_origins", expected, &wrong.as_str().into()));
        }
        settings.cors_origins = origins;
    }
    section.end()
}

/// The files of TLS.
fn tls(section: &mut Section<'_>, directory: &Path) -> Result<Option<ConfigTls>> {
    let mut path = |key| section.text(key).map(|path| path.map(|path| directory.join(path)));
    let (certificate, key, client_ca) = (path("tls_cert")?, path("tls_key")?, path("tls_client_ca")?);
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(ConfigTls { certificate, key, client_ca })),
        (Some(_), None) => Err(section.wrong("tls_cert", "expected tls_key with it, found none")),
        (None, Some(_)) => Err(section.wrong("tls_key", "expected tls_cert with it, found none")),
        (None, None) if client_ca.is_some() => {
            Err(section.wrong("tls_client_ca", "expected tls_cert and tls_key with it, found none"))
        }
        (None, None) => Ok(None),
    }
}

/// Whether a text is the origin of pages, as browsers send it.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    text == "*"
        || host.is_some_and(|host| {
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
        })
}
