//! `postkeep run`: the daemon.

use std::path::PathBuf;

use super::{Exit, Failure};
use crate::config::{Config, prepare_state_dir};
use crate::daemon;

/// Keep everything the same all the time: the daemon
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Runs the command.
pub(super) async fn run(config: Config, config_file: Option<PathBuf>) -> Result<Exit, Failure> {
    prepare_state_dir(&config.daemon.state_dir)?;
    let stop = super::signals::stop_on_signal().map_err(super::no_signals)?;
    let reload = Box::new(move || Config::load(config_file.as_deref()).map_err(|error| error.to_string()));
    match daemon::run(daemon::Start { config, reload, stop }).await {
        Ok(()) => Ok(Exit::Done),
        Err(error) => {
            let exit = if matches!(error, daemon::Error::Running(_)) { Exit::Busy } else { Exit::Partial };
            Err(Failure { exit, text: error.to_string() })
        }
    }
}
