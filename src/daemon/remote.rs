//! Watches one mailbox of the server over a session of its own (IDLE, RFC 2177). Only tells that something happened;
//! what it was is for a pass to find out.

use std::time::Duration;

use tokio::sync::watch;

use super::clock;
use super::retry::{dice, wait};
use crate::engine::{Error, Mirror};
use crate::haste::shortened;
use crate::imap::{self, IdleEnd, Selected, Session};
use crate::model::{MailboxName, ModSeq, Uid, UidValidity};

/// A server may log out a silent session after 30 minutes (RFC 9051 §5.4), and Outlook.com does so sooner; what a
/// server forgot to tell shows when IDLE is renewed.
const RENEWAL: Duration = Duration::from_secs(9 * 60);

/// What a watcher tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// It waits for changes from now on; until now there may have been some.
    Began(MailboxName),
    /// There is a change.
    Changed(MailboxName),
    /// It does not wait for changes for the moment.
    Ended(MailboxName),
}

/// Watches a mailbox for ever, with a new session whenever one ends; returns only where the server has no IDLE.
///
/// While `works` is not true, nothing is tried: a server that refuses everything is asked by one only.
pub(super) async fn watch(
    mirror: &Mirror<'_>,
    mailbox: &MailboxName,
    mut works: watch::Receiver<bool>,
    tell: impl Fn(Told),
) {
    let mut failures = 0;
    loop {
        if works.wait_for(|works| *works).await.is_err() {
            return;
        }
        let result = watch_once(mirror, mailbox, &tell, &mut failures).await;
        tell(Told::Ended(mailbox.clone()));
        let Err(error) = result;
        if let Error::Imap(imap::Error::Unsupported(_)) = error {
            tracing::info!(%mailbox, "the server tells of no changes, so they are looked for in each interval");
            return;
        }
        failures += 1;
        let pause = wait(&error, failures, clock::unix_now(), dice());
        tracing::debug!(%mailbox, %error, seconds = pause.as_secs(), "watches again after a pause");
        tokio::time::sleep(pause).await;
    }
}

async fn watch_once(
    mirror: &Mirror<'_>,
    mailbox: &MailboxName,
    tell: &impl Fn(Told),
    failures: &mut u32,
) -> Result<std::convert::Infallible, Error> {
    let mut session = mirror.session().await?;
    let result = watch_over(&mut session, mailbox, tell, failures).await;
    mirror.done(session, result).await
}

async fn watch_over(
    session: &mut Session,
    mailbox: &MailboxName,
    tell: &impl Fn(Told),
    failures: &mut u32,
) -> Result<std::convert::Infallible, Error> {
    if !session.capabilities().has("IDLE") {
        return Err(imap::Error::Unsupported("IDLE").into());
    }
    let raw = session.raw_name(mailbox)?;
    let mut known = numbers(&session.select(&raw).await?);
    tell(Told::Began(mailbox.clone()));
    loop {
        match session.idle(std::future::pending(), shortened(RENEWAL)).await? {
            IdleEnd::Changed => tell(Told::Changed(mailbox.clone())),
            IdleEnd::Stopped => {}
            IdleEnd::TimeUp => {
                let now = numbers(&session.select(&raw).await?);
                if now != known {
                    tell(Told::Changed(mailbox.clone()));
                }
                known = now;
            }
        }
        *failures = 0;
    }
}

/// Returns the numbers that tell whether anything happened to a mailbox.
fn numbers(selected: &Selected) -> (UidValidity, u32, Option<Uid>, Option<ModSeq>) {
    (selected.uid_validity, selected.exists, selected.uid_next, selected.highest_mod_seq)
}
