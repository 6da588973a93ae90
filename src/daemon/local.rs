//! Watches the maildirs of an account, and says when they cannot be watched.

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;

use super::account::Event;
use crate::engine::Mirror;
use crate::haste::shortened;
use crate::maildir::{Happened, Watch};

/// How long directories are left to come and go before those that there are then are watched.
const CALM: Duration = Duration::from_millis(100);
/// How long until it is tried again to watch what could not be watched.
const AGAIN: Duration = Duration::from_secs(60);

/// Tells of changes for ever.
pub(super) async fn watch(mirror: &Mirror<'_>, root: &Path, tell: &mpsc::UnboundedSender<Event>) {
    let (mut said, mut before) = (None, None);
    loop {
        let Some(watch) = begin(mirror, root, before.take(), &mut said).await else {
            // Nobody listens when all ends.
            let _ = tell.send(Event::HereUnwatched);
            // Before the first pass there is no root.
            tokio::time::sleep(if root.exists() { shortened(AGAIN) } else { CALM }).await;
            continue;
        };
        let _ = tell.send(Event::HereWatched);
        loop {
            match watch.next().await {
                Ok(happened) if happened.anything => {
                    tokio::time::sleep(CALM).await;
                    break;
                }
                Ok(Happened { files, directories, .. }) => {
                    let _ = tell.send(Event::Here(files));
                    if directories {
                        tokio::time::sleep(CALM).await;
                        before = Some(watch);
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the maildirs are watched anew");
                    tokio::time::sleep(shortened(AGAIN)).await;
                    break;
                }
            }
        }
    }
}

/// Begins to watch, or goes on with other directories; says once why that is not possible.
async fn begin(mirror: &Mirror<'_>, root: &Path, before: Option<Watch>, said: &mut Option<String>) -> Option<Watch> {
    match mirror.watch(before).await {
        Ok(watch) => {
            *said = None;
            watch
        }
        Err(_) if !root.exists() => None,
        Err(error) => {
            let text = error.to_string();
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
