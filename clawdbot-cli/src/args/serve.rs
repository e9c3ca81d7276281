//! `serve`

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

#[cfg(feature = "tls")]
use super::tls::TlsArgs;
use super::{HubArgs, LoadArgs, MODEL, RuntimeArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot serve                                     the built-in model on http://127.0.0.1:8080
  clawdbot serve DIR --memory-budget 8GiB --max-queue 100
  clawdbot serve --model-path DIR --precision int8 --batch-size 32 --swap-space 64GiB:/fast/disk
  clawdbot serve DIR --check                         what it would cost, without serving
  clawdbot serve --config clawdbot.toml              several models, with API keys and limits
  curl http://127.0.0.1:8080/v1/generate -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 50}'

Programs for OpenAI's interface take http://127.0.0.1:8080/v1 as their base URL. Ctrl-C, or SIGTERM, lets requests end that
have begun, and ends the server; twice, at once.")]
pub(crate) struct ServeArgs {
    #[arg(value_name = "MODEL", conflicts_with = "model", help = MODEL)]
    named: Option<PathBuf>,
    /// The same as MODEL
    #[arg(short, long, visible_alias = "model-path", value_name = "MODEL")]
    model: Option<PathBuf>,
    /// File with all of that in TOML: models, runtime, server and API keys (docs/server.md); flags of the model, the runtime and limits are
    /// refused with it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["named", "model", "name", "chat_template", "api_key_file", "strict", "lenient", "drain_timeout", "idle_timeout", "metrics_dialect"])]
    pub(crate) config: Option<PathBuf>,
    /// File with API keys, one in a line: requests need one of them
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// File for a line of JSON about each request, without prompts, answers and keys; - for stderr. SIGHUP opens it again
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,
    /// Names of another server under which /metrics has its numbers, too
    #[arg(long, value_name = "NAME", value_parser = ["vllm"])]
    pub(crate) metrics_dialect: Option<String>,
    /// Name of the model for clients [default: builtin, or the last part of MODEL]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// File with a chat template (Jinja) to use instead of the model's own
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) host: Option<IpAddr>,
    /// Port to listen on; 0 for any that is free [default: 8080]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Say what the model would cost, and serve nothing
    #[arg(long)]
    pub(crate) check: bool,
    /// Listen on an address that other machines reach, though others may then read what is sent, or use the model
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Share the address with other servers that are told to: the next one begins before this one ends
    #[cfg(unix)]
    #[arg(long)]
    pub(crate) reuse_port: bool,
    /// Listen on the socket that a service manager such as systemd passes (LISTEN_FDS)
    #[cfg(unix)]
    #[arg(long, conflicts_with_all = ["host", "port", "reuse_port"])]
    pub(crate) listen_fd: bool,
    #[cfg(feature = "tls")]
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// Refuse fields of requests that change nothing, too
    #[arg(long, conflicts_with = "lenient")]
    pub(crate) strict: bool,
    /// Ignore fields of requests that are not known; answers name them in the header x-clawdbot-ignored
    #[arg(long)]
    pub(crate) lenient: bool,
    /// Seconds in which requests may end when the server is asked to end [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain_timeout: Option<u64>,
    /// Seconds after which a connection without requests is closed [default: 75]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) idle_timeout: Option<u64>,
    /// Nothing on stderr but errors
    #[arg(long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
}

impl ServeArgs {
    /// The model, if one is given.
    pub(crate) fn model(&self) -> Option<&PathBuf> {
        self.named.as_ref().or(self.model.as_ref())
    }
}

/// `key`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot key team-a                                a new key, and its lines for clawdbot.toml

The key is shown once and kept nowhere: the file has its SHA-256.")]
pub(crate) struct KeyArgs {
    /// Name of the key, for limits and logs
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}
