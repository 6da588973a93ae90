//! Watches the mailboxes of the server over sessions of their own: all of them over one where the server has NOTIFY
//! (RFC 5465), else each of a few over one in IDLE (RFC 2177). Only tells that something happened; what it was is for a pass
//! to find out.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::clock;
use super::retry::{Failures, dice};
use crate::engine::{Error, Mirror};
use crate::haste::shortened;
use crate::imap::{self, IdleEnd, News, Selected, Session, Stir};
use crate::model::{MailboxName, ModSeq, Uid, UidValidity};

/// A server may log out a silent session after 30 minutes (RFC 9051 §5.4), and Outlook.com does so sooner; what a
/// server forgot to tell shows when IDLE is renewed.
const RENEWAL: Duration = Duration::from_secs(9 * 60);

/// What a watcher tells; `None` stands for all mailboxes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// It waits for changes from now on; until now there may have been some.
    Began(Option<MailboxName>),
    /// There is a change.
    Changed(Option<MailboxName>, Stir),
    /// It does not wait for changes for the moment.
    Ended(Option<MailboxName>),
}

/// Watches all mailboxes for ever, or these ones where the server does not tell of all; returns only where it tells of none.
///
/// While `works` is not true, nothing is tried: a server that refuses everything is asked by one only.
pub(super) async fn watch(
    mirror: &Mirror<'_>,
    mailboxes: &[MailboxName],
    works: watch::Receiver<bool>,
    tell: impl Fn(Told),
) {
    if !mailboxes.is_empty() {
        watch_one(mirror, None, works.clone(), &tell).await;
    }
    join_all(mailboxes.iter().map(|mailbox| watch_one(mirror, Some(mailbox), works.clone(), &tell))).await;
}

/// Watches with a new session whenever one ends; returns only where the server cannot tell of it.
async fn watch_one(
    mirror: &Mirror<'_>,
    mailbox: Option<&MailboxName>,
    mut works: watch::Receiver<bool>,
    tell: &impl Fn(Told),
) {
    let shown = mailbox.map_or("all mailboxes", MailboxName::as_str);
    let mut failures = Failures::default();
    loop {
        if works.wait_for(|works| *works).await.is_err() {
            return;
        }
        let error = match watch_once(mirror, mailbox, tell, &mut failures).await {
            Ok(()) => None,
            Err(Error::Imap(imap::Error::Unsupported(what))) => {
                if mailbox.is_some() {
                    tracing::info!(
                        shown,
                        what,
                        "the server tells of no changes, so they are looked for in each interval"
                    );
                }
                return;
            }
            Err(error) => Some(error),
        };
        tell(Told::Ended(mailbox.cloned()));
        let Some(error) = error else { continue };
        let pause = failures.count(&error, clock::unix_now(), dice());
        tracing::debug!(shown, %error, seconds = pause.as_secs(), "watches again after a pause");
        tokio::time::sleep(pause).await;
    }
}

/// Watches until the session is needed elsewhere.
async fn watch_once(
    mirror: &Mirror<'_>,
    mailbox: Option<&MailboxName>,
    tell: &impl Fn(Told),
    failures: &mut Failures,
) -> Result<(), Error> {
    let mut session = mirror.session().await?;
    let watching = async {
        match mailbox {
            Some(mailbox) => idle_in(mirror, &mut session, mailbox, tell, failures).await,
            None => hear_of_all(mirror, &mut session, tell, failures).await,
        }
    };
    let result = watching.await;
    mirror.done(session, result).await
}

async fn hear_of_all(
    mirror: &Mirror<'_>,
    session: &mut Session,
    tell: &impl Fn(Told),
    failures: &mut Failures,
) -> Result<(), Error> {
    loop {
        if !session.notify().await? {
            return Err(imap::Error::Unsupported("NOTIFY").into());
        }
        // What happened until now, nobody told of.
        tell(Told::Began(None));
        loop {
            let news = tokio::select! {
                news = session.news(RENEWAL) => news?,
                () = mirror.is_crowded() => {
                    session.notify_no_more().await?;
                    return Ok(());
                }
            };
            match news {
                Some(News::Mailbox(mailbox)) => tell(Told::Changed(Some(mailbox), Stir::Anything)),
                Some(News::Anything) => tell(Told::Changed(None, Stir::Anything)),
                Some(News::Overflow) => {
                    tracing::info!("so much changed on the server that it lost count, so everything is looked at");
                    break;
                }
                None => {}
            }
            failures.clear();
        }
    }
}

async fn idle_in(
    mirror: &Mirror<'_>,
    session: &mut Session,
    mailbox: &MailboxName,
    tell: &impl Fn(Told),
    failures: &mut Failures,
) -> Result<(), Error> {
    if !session.capabilities().has("IDLE") {
        return Err(imap::Error::Unsupported("IDLE").into());
    }
    let raw = session.raw_name(mailbox)?;
    let mut known = numbers(&session.select(&raw).await?);
    tell(Told::Began(Some(mailbox.clone())));
    loop {
        let mut told = None;
        let changed = |stir| {
            told = Some(stir);
            tell(Told::Changed(Some(mailbox.clone()), stir));
        };
        match session.idle(mirror.is_crowded(), shortened(RENEWAL), changed).await? {
            IdleEnd::Changed(stir) if told == Some(stir) => {}
            IdleEnd::Changed(stir) => tell(Told::Changed(Some(mailbox.clone()), stir)),
            IdleEnd::Stopped => return Ok(()),
            IdleEnd::TimeUp => {
                let now = numbers(&session.select(&raw).await?);
                if now != known {
                    tell(Told::Changed(Some(mailbox.clone()), Stir::Anything));
                }
                known = now;
            }
        }
        failures.clear();
    }
}

/// Returns the numbers that tell whether anything happened to a mailbox.
fn numbers(selected: &Selected) -> (UidValidity, u32, Option<Uid>, Option<ModSeq>) {
    (selected.uid_validity, selected.exists, selected.uid_next, selected.highest_mod_seq)
}
