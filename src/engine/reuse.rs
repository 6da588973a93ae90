//! Did the server give the UIDs of some messages to others? After it was restored from a backup it may, and once its UIDNEXT
//! has caught up again, no number shows it.

use std::collections::BTreeMap;

use super::Error;
use crate::db::{self, Db, Mailbox, Tx};
use crate::imap::{Habit, Session};
use crate::model::{Fingerprint, Link, LinkState, MailboxId, Uid, UidSet};

/// So many of the newest messages are looked at: whatever was given again, the newest were.
const NEWEST: usize = 32;

/// So many more are looked at, spread over the mailbox.
const SPREAD: usize = 32;

/// Tells whether some UIDs of the selected mailbox stand for other messages than the base knows under them.
///
/// The dates and sizes of a few tell; where they differ, the headers decide, since a server may correct a date. Where the
/// server rewrites headers, nothing can tell.
pub(super) async fn gives_uids_again(session: &mut Session, db: &Db, mailbox: &Mailbox) -> Result<bool, Error> {
    if session.quirks().has(Habit::Rewrites) {
        return Ok(false);
    }
    let id = mailbox.id;
    let known = db.read(move |tx| sample(tx, id)).await?;
    if known.is_empty() {
        return Ok(false);
    }
    let seen = session.dates_and_sizes(&known.keys().copied().collect()).await?;
    let exact = !session.quirks().has(Habit::EstimatesSizes);
    let differs = |(uid, (date, size)): (&Uid, &(i64, u64))| {
        let (print, known_date) = known.get(uid)?;
        (known_date != date || exact && print.size != *size).then_some(*uid)
    };
    let odd: UidSet = seen.iter().filter_map(differs).collect();
    if odd.is_empty() {
        return Ok(false);
    }
    let is_other = |seen: &crate::imap::Seen| {
        let is = |header| [Some(seen.fingerprint), seen.bare].into_iter().flatten().any(|print| print.header == header);
        known.get(&seen.uid).is_some_and(|(print, _)| !is(print.header))
    };
    Ok(session.fingerprints(&odd).await?.iter().any(is_other))
}

/// Returns what the base knows of some messages that both sides have.
fn sample(tx: &Tx<'_>, mailbox: MailboxId) -> Result<BTreeMap<Uid, (Fingerprint, i64)>, db::Error> {
    let count = usize::try_from(tx.count(mailbox)?.synced).unwrap_or(usize::MAX);
    let (every, newest) = (count.div_ceil(SPREAD).max(1), count.saturating_sub(NEWEST));
    let (mut at, mut found) = (0, BTreeMap::new());
    tx.links_by_uid(mailbox, &mut |link: Link| {
        let LinkState::Synced { uid, .. } = link.state else { return };
        if let (Some(content), Some(date)) = (link.content, link.internal_date)
            && (at >= newest || at % every == 0)
        {
            found.insert(uid, (content.fingerprint, date));
        }
        at += 1;
    })?;
    Ok(found)
}
