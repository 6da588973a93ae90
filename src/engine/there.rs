//! What the server says of one mailbox in one round: what is in it, what became of uploads whose answer was lost, and what
//! it may give now that it withheld.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Error;
use super::answers::ask_for_uploads;
use super::contact::contact;
use super::observe::{self, Observed, is_void, raw_name};
use super::op::{Op, Planned, Why};
use super::pass::Pass;
use super::plan::Answer;
use super::reuse::gives_uids_again;
use crate::db::{HoldCause, Mailbox};
use crate::imap::{Selected, Session};
use crate::maildir::Maildir;
use crate::model::{Cursor, Link, LinkId, UidSet};

/// What is wanted of the server.
pub(super) struct Wanted<'j> {
    /// To look at the messages, since something may have changed.
    pub look: bool,
    /// To list all of them.
    pub full: bool,
    /// To look for changed flags, even if that takes long.
    pub flags: bool,
    /// To pair both sides by content, whatever the numbers say.
    pub unite: bool,
    /// Other mailboxes are not looked at.
    pub alone: bool,
    /// The server puts copies of what is sent there by itself.
    pub copies: bool,
    /// It was approved to follow one more change of the numbers.
    pub approved: bool,
    /// Messages that were withheld, and may be given now.
    pub due: &'j [Link],
}

/// What the server says.
pub(super) struct There {
    /// The row of the mailbox, which may have been made anew.
    pub mailbox: Mailbox,
    /// What was seen of the messages, if they were looked at.
    pub observed: Option<Observed>,
    /// What SELECT said.
    pub selected: Selected,
    /// What became of uploads of an earlier run.
    pub answers: BTreeMap<LinkId, Answer>,
    /// Downloads of what was withheld.
    pub again: Vec<Planned>,
    /// Messages that were paired by content.
    pub matched: u64,
    /// The base was made anew.
    pub fresh: bool,
}

/// Looks at a mailbox of the server; `None` where nothing is to be done in it in this round.
pub(super) async fn look(
    pass: &Pass<'_>,
    session: &mut Session,
    mut mailbox: Mailbox,
    maildir: Option<&Arc<Maildir>>,
    wanted: &Wanted<'_>,
) -> Result<Option<There>, Error> {
    let (mut matched, mut fresh, mut observed) = (0, wanted.unite, None);
    if wanted.look {
        let before = mailbox.cursor;
        let mut seen;
        if before.is_none() || wanted.unite {
            (matched, seen) = begin_anew(pass, session, &mut mailbox, maildir, wanted.unite).await?;
            fresh = true;
        } else {
            seen = observe::observe(session, &pass.db, &mailbox, wanted.full, wanted.flags).await?;
        }
        if wanted.alone && before.is_some_and(|before| before.uid_validity != seen.cursor.uid_validity) {
            // It may be another mailbox, which has this name now.
            pass.wants_all.set(true);
            return Ok(None);
        }
        let void = match before.filter(|_| !fresh) {
            None => false,
            Some(before) => {
                is_void(&before, &seen.cursor) || seen.full && gives_uids_again(session, &pass.db, &mailbox).await?
            }
        };
        if void {
            if !wanted.approved && goes_round(pass, &mailbox, &seen.cursor).await? {
                return Ok(None);
            }
            tracing::warn!(mailbox = %mailbox.name, "numbers of the server hold no more, matched by content");
            (matched, seen) = begin_anew(pass, session, &mut mailbox, maildir, wanted.unite).await?;
            fresh = true;
        }
        observed = Some(seen);
    }
    let selected = match &observed {
        Some(observed) => observed.selected.clone(),
        None => session.select(&raw_name(&mailbox)).await?,
    };
    let answers = ask_for_uploads(pass, session, &mailbox, maildir.filter(|_| wanted.copies)).await?;
    let again = ask_again(session, &mailbox, wanted.due).await?;
    Ok(Some(There { mailbox, observed, selected, answers, again, matched, fresh }))
}

/// Makes a new base for a mailbox; returns how many messages were paired, and how the server differs from it.
async fn begin_anew(
    pass: &Pass<'_>,
    session: &mut Session,
    mailbox: &mut Mailbox,
    maildir: Option<&Arc<Maildir>>,
    unite: bool,
) -> Result<(u64, Observed), Error> {
    let (matched, seen) = contact(session, &pass.db, mailbox, maildir.cloned(), unite, pass.now_ms()).await?;
    Ok((matched, observe::compare_remote(session, &pass.db, mailbox, seen).await?))
}

/// So many changes of UIDVALIDITY within a day are too many: the last of them is not followed.
const RENUMBERINGS: u64 = 3;

/// Holds a mailbox that the server renumbered again and again: each time both sides are matched anew and nothing is
/// removed, so that a loop would cost much and undo every deletion. Returns whether it is held.
async fn goes_round(pass: &Pass<'_>, mailbox: &Mailbox, now: &Cursor) -> Result<bool, Error> {
    if mailbox.cursor.is_some_and(|before| before.uid_validity == now.uid_validity) {
        return Ok(false);
    }
    let (id, name, since) = (mailbox.id, mailbox.name.clone(), pass.now_ms() - 24 * 60 * 60 * 1000);
    let before = pass.db.read(move |tx| tx.renumberings_since(&name, since)).await?;
    if before + 1 < RENUMBERINGS {
        return Ok(false);
    }
    let why = format!(
        "the server gave it other numbers (UIDVALIDITY) {RENUMBERINGS} times within 24 hours; nothing is done in it until \
         that is approved"
    );
    pass.hold(&mailbox.name, 0, why.clone());
    pass.db.commit(move |tx| tx.hold_mailbox(id, HoldCause::Renumbered, &why)).await?;
    Ok(true)
}

/// Plans what was withheld by the server, and may be given now.
async fn ask_again(session: &mut Session, mailbox: &Mailbox, due: &[Link]) -> Result<Vec<Planned>, Error> {
    let uids: UidSet = due.iter().filter_map(Link::uid).collect();
    if uids.is_empty() {
        return Ok(Vec::new());
    }
    if session.selected().is_none_or(|s| s.raw != raw_name(mailbox)) {
        session.select(&raw_name(mailbox)).await?;
    }
    let there = session.flags(&uids).await?;
    let again = due.iter().filter_map(|link| {
        let (uid, flags) = (link.uid()?, there.get(&link.uid()?)?.flags.clone());
        let op = Op::Download { link: Some(link.id), uid, name: None, flags };
        Some(Planned { op, why: Why::SkippedBefore })
    });
    Ok(again.collect())
}
