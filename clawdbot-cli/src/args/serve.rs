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
  curl http://127.0.0.1:8080/v1/generate -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 50}'

Programs for OpenAI's interface take http://127.0.0.1:8080/v1 as their base URL. Ctrl-C, or SIGTERM, lets requests end that
have begun, and ends the server; twice, at once.")]
pub(crate) struct ServeArgs {
    #[arg(value_name = "MODEL", conflicts_with = "model", help = MODEL)]
    named: Option<PathBuf>,
    /// The same as MODEL
    #[arg(short, long, visible_alias = "model-path", value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Name of the model for clients [default: builtin, or the last part of MODEL]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// File with a chat template (Jinja) to use instead of the model's own
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 for any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub(crate) port: u16,
    /// Say what the model would cost, and serve nothing
    #[arg(long)]
    pub(crate) check: bool,
    /// Listen on an address that other machines reach, though anyone may then use the model, or read what is sent
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
    /// Seconds in which requests may end when the server is asked to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) drain_timeout: u64,
    /// Seconds after which a connection without requests is closed
    #[arg(long, value_name = "SECONDS", default_value_t = 75)]
    pub(crate) idle_timeout: u64,
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
