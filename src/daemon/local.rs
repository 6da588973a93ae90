//! Watches the maildirs of an account, and says when they cannot be watched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::account::Event;
use crate::engine::Mirror;
use crate::haste::shortened;
use crate::maildir::{Happened, Watch};
use crate::model::MailboxName;

/// How long directories are left to come and go before they are watched anew.
const CALM: Duration = Duration::from_millis(100);
/// How long until it is tried again to watch what could not be watched.
const AGAIN: Duration = Duration::from_secs(60);

/// What the loop is told of files.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// What happened.
    pub(super) happened: Happened,
    /// The maildirs that are watched from now on, if these are others than before.
    pub(super) maildirs: Option<BTreeMap<PathBuf, MailboxName>>,
}

/// Tells of changes for ever.
pub(super) async fn watch(mirror: &Mirror<'_>, root: &Path, tell: &mpsc::UnboundedSender<Event>) {
    let mut said = None;
    loop {
        let Some((watch, maildirs)) = begin(mirror, root, &mut said).await else {
            // Nobody listens when all ends.
            let _ = tell.send(Event::HereUnwatched);
            // Before the first pass there is no root.
            tokio::time::sleep(if root.exists() { shortened(AGAIN) } else { CALM }).await;
            continue;
        };
        // What happened until now was not seen.
        let happened = Happened { anything: true, ..Happened::default() };
        let _ = tell.send(Event::Here(Files { happened, maildirs: Some(maildirs) }));
        loop {
            match watch.next().await {
                Ok(happened) if happened.anything => {
                    tokio::time::sleep(CALM).await;
                    break;
                }
                Ok(happened) => drop(tell.send(Event::Here(Files { happened, maildirs: None }))),
                Err(error) => {
                    tracing::warn!(%error, "the maildirs are watched anew");
                    tokio::time::sleep(AGAIN).await;
                    break;
                }
            }
        }
    }
}

/// Begins to watch; says once why that is not possible.
async fn begin(
    mirror: &Mirror<'_>,
    root: &Path,
    said: &mut Option<String>,
) -> Option<(Watch, BTreeMap<PathBuf, MailboxName>)> {
    let maildirs = mirror.maildirs().await;
    let begun = match maildirs {
        Ok(maildirs) => Watch::new(root, maildirs.keys()).map(|watch| (watch, maildirs)).map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match begun {
        Ok(begun) => {
            *said = None;
            Some(begun)
        }
        Err(_) if !root.exists() => None,
        Err(text) => {
            if said.as_ref() != Some(&text) {
                tracing::warn!(
                    maildir = %root.display(), error = text,
                    "the maildirs cannot be watched, so that changes here are found within 10 seconds and not at once; \
                     the limits are the sysctls fs.inotify.max_user_watches and fs.inotify.max_user_instances"
                );
            }
            *said = Some(text);
            None
        }
    }
}
