//! Reading the configuration again while the server runs.

use clawdbot_core::{Error, ErrorKind, Result};
use clawdbot_server::{App, Config};

use super::config::config;
use super::{located, output};
use crate::args::ServeArgs;
use crate::output::{note, warn};

/// What a server was configured to be.
pub(super) struct Reload<'a> {
    app: &'a App,
    config: Config,
    args: &'a ServeArgs,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<clawdbot_server::Tls>,
}

impl<'a> Reload<'a> {
    pub(super) fn new(app: &'a App, config: &Config, args: &'a ServeArgs) -> Self {
        Reload {
            app,
            config: config.clone(),
            args,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Reads the configuration again. If something is wrong with it, nothing changes.
    pub(super) fn run(&mut self) {
        // Files are read, and a model may be downloaded: requests are answered by the other threads.
        match tokio::task::block_in_place(|| self.read()) {
            Ok(()) if self.args.quiet => {}
            Ok(()) => note("the configuration was read again"),
            Err(error) => warn(&format!("the old configuration stays: {}", error.message())),
        }
    }

    fn read(&mut self) -> Result<()> {
        let new = config(self.args)?;
        if let Some(what) = fixed(&self.config, &new) {
            let message =
                format!("expected the {what} that the server began with; start another server for a new one");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            tls.reload().map_err(|error| Error::new(ErrorKind::InvalidArgument, error.to_string()))?;
        }
        let pool = self.app.pool();
        let has = |config: &Config, name: &str| config.models.iter().any(|model| model.name == name);
        let added = new.models.iter().filter(|model| !has(&self.config, &model.name));
        let added = added.map(|model| {
            let source = located(pool.runtime(), model, self.args, &output(self.args))?;
            Ok((&model.name, model.pooled(source)))
        });
        for (name, model) in added.collect::<Result<Vec<_>>>()? {
            pool.add(name, model)?;
        }
        self.app.set_settings(new.settings.clone())?;
        for model in self.config.models.iter().filter(|model| !has(&new, &model.name)) {
            pool.remove(&model.name)?;
        }
        self.config = new;
        Ok(())
    }
}

/// What has changed that cannot change while a server runs.
fn fixed(old: &Config, new: &Config) -> Option<String> {
    let changed = new
        .models
        .iter()
        .find(|model| old.models.iter().any(|other| other.name == model.name && other != *model));
    match () {
        () if (old.host, old.port) != (new.host, new.port) => Some("address".to_owned()),
        () if old.runtime != new.runtime => Some("runtime".to_owned()),
        () if old.tls != new.tls => Some("files of TLS".to_owned()),
        () => changed.map(|model| format!("model {:?}", model.name)),
    }
}
