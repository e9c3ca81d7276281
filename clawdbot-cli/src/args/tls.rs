//! TLS of `serve`

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArgs {
    /// File with the certificate (PEM), and those between it and the authority that clients know; read again when it changes
    #[arg(long = "tls-cert", value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// File with the private key of the certificate (PEM, without passphrase)
    #[arg(long = "tls-key", value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// File with authorities (PEM): each client must have a certificate of one of them
    #[arg(long = "tls-client-ca", value_name = "FILE", requires = "key")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Make a certificate for trying, which is kept in memory alone
    #[arg(long = "tls-self-signed", conflicts_with_all = ["cert", "key"])]
    pub(crate) self_signed: bool,
}
