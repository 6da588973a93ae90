//! Carries a plan out: intent, effect, done, in this order always. What fails for one message is noted, and the rest
//! goes on; what fails for the mailbox ends its part of the pass.

mod base;
mod download;
mod flags;
mod refusals;
mod relocate;
mod remove;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cycle::{Examined, Files, Outcome};
use super::observe::raw_name;
use super::op::{Op, Planned};
use super::pass::{Pass, now_ms};
use super::report::Pace;
use super::{Error, flags::Mask};
use crate::db::{Entry, Mailbox};
use crate::imap::{RawName, Session};
use crate::maildir::{FileRef, Keyed, Located, Maildir};
use crate::model::{Link, LinkId, MailboxName, Side, UniqueName};

/// Where mails that are to be thrown away go on the server.
#[derive(Clone, Debug)]
pub(super) struct Trash {
    /// The mailbox's name.
    pub name: MailboxName,
    /// The server's name of it.
    pub raw: RawName,
}

/// A mailbox at which ops are carried out, and what they need to know about it.
pub(super) struct Site<'a> {
    pub pass: &'a Pass<'a>,
    pub mailbox: &'a Mailbox,
    pub raw: RawName,
    pub maildir: Arc<Maildir>,
    pub base: &'a BTreeMap<LinkId, Link>,
    files: Files<'a>,
    /// Files that were read and hold what their link says, under another inode than it says.
    pub inodes: Option<&'a BTreeMap<LinkId, u64>>,
    /// Files that were renamed to their names, and so are whole.
    pub whole: &'a BTreeSet<UniqueName>,
    pub remote_mask: &'a Mask,
    pub local_mask: &'a Mask,
    /// The server puts copies of what is sent there by itself.
    pub copies: bool,
    /// The other mailboxes of the account: where moves lead.
    pub others: &'a BTreeMap<MailboxName, Place>,
}

/// Another mailbox, as the target of a move.
pub(super) struct Place {
    pub mailbox: Mailbox,
    pub maildir: Arc<Maildir>,
}

impl<'a> Site<'a> {
    pub(super) fn new(
        pass: &'a Pass<'a>,
        examined: &'a Examined,
        maildir: Arc<Maildir>,
        others: &'a BTreeMap<MailboxName, Place>,
    ) -> Self {
        Self {
            pass,
            mailbox: &examined.mailbox,
            raw: raw_name(&examined.mailbox),
            maildir,
            base: &examined.part.base,
            files: examined.files(),
            inodes: examined.inodes(),
            whole: &examined.whole,
            remote_mask: &examined.remote_mask,
            local_mask: &examined.local_mask,
            copies: examined.copies,
            others,
        }
    }

    /// Returns what was seen of a file when the maildir was looked at.
    fn seen(&self, name: &UniqueName) -> Option<Located> {
        self.files.get(name)
    }

    /// Returns where a file was then.
    fn file(&self, name: &UniqueName) -> Option<FileRef> {
        Some(self.seen(name)?.file)
    }

    /// Tells whether the file with this inode is known to hold the message of a link.
    fn holds(&self, inode: u64, link: LinkId) -> bool {
        let known = self.base.get(&link).is_some_and(|link| link.inode == Some(inode));
        known || self.inodes.is_some_and(|read| read.get(&link) == Some(&inode))
    }

    /// Returns the inode number of the file that holds the message of a link: a file that has its name meanwhile, but not
    /// its content, is another message. `None` if that is not known.
    async fn inode_of(&self, link: LinkId, name: &UniqueName) -> Result<Option<u64>, Error> {
        let Some(known) = self.base.get(&link) else { return Ok(None) };
        let Some(seen) = self.seen(name) else { return Ok(known.inode) };
        if self.holds(seen.inode, link) {
            return Ok(Some(seen.inode));
        }
        let maildir = Arc::clone(&self.maildir);
        let keyed = tokio::task::spawn_blocking(move || maildir.key(&seen.file)).await?;
        let is_it = |keyed: &Keyed| known.content.is_some_and(|content| keyed.keys.is(content));
        Ok(keyed.ok().filter(is_it).map(|keyed| keyed.inode))
    }

    /// Returns a journal entry about an op.
    fn entry(&self, planned: &Planned, kept: Option<String>) -> Entry {
        entry(&self.mailbox.name, planned, kept)
    }

    /// Makes sure that the session is in this mailbox, and that it is the one that the plan was made for.
    async fn enter(&self, session: &mut Session) -> Result<(), Error> {
        let selected = match session.selected() {
            Some(selected) if selected.raw == self.raw => selected.clone(),
            _ => session.select(&self.raw).await?,
        };
        if self.mailbox.cursor.is_some_and(|cursor| cursor.uid_validity == selected.uid_validity) {
            Ok(())
        } else {
            Err(Error::Renumbered(self.mailbox.name.clone()))
        }
    }
}

/// Returns a journal entry about an op that was carried out just now; `kept` is where a removed message is.
fn entry(mailbox: &MailboxName, planned: &Planned, kept: Option<String>) -> Entry {
    Entry {
        at: now_ms(),
        mailbox: mailbox.clone(),
        op: planned.op.to_string(),
        cause: planned.why.text().to_owned(),
        kind: planned.op.kind().to_owned(),
        kept,
    }
}

/// Carries out everything but removals.
pub(super) async fn add(site: &Site<'_>, mut plan: Vec<Planned>, outcome: &mut Outcome) -> Result<(), Error> {
    let mut take = |wanted: fn(&Op) -> bool| plan.extract_if(.., |p| wanted(&p.op)).collect::<Vec<_>>();
    let bookkeeping =
        take(|op| matches!(op, Op::Adopt { .. } | Op::Forget { .. } | Op::Supersede { .. } | Op::Keep { .. }));
    let joins = take(|op| matches!(op, Op::Join { .. }));
    let merges = take(|op| matches!(op, Op::MergeFlags { .. }));
    let moves = take(|op| matches!(op, Op::Move { .. }));
    let follows = take(|op| matches!(op, Op::Follow { .. }));
    let uploads = take(|op| matches!(op, Op::Upload { .. }));
    // In place: these are the ones that there may be very many of. Only `remove` carries out what removes.
    plan.retain(|p| matches!(p.op, Op::Download { .. }));
    let downloads = plan;

    base::write_down(site, bookkeeping, outcome).await?;
    base::join(site, joins, outcome).await?;
    relocate::follow(site, follows, outcome).await?;
    let needs_server = [&merges, &moves, &uploads, &downloads].into_iter().any(|ops| !ops.is_empty());
    if !needs_server {
        return Ok(());
    }
    let mut session = site.pass.pool.get().await?;
    let result = async {
        site.enter(&mut session).await?;
        flags::merge(site, &mut session, merges, outcome).await?;
        relocate::move_there(site, &mut session, moves, outcome).await?;
        let mut uploads = uploads;
        while let Some(part) = next_part(site.pass, &mut uploads, outcome) {
            upload::upload(site, &mut session, part, outcome).await?;
        }
        let mut downloads = downloads;
        while let Some(part) = next_part(site.pass, &mut downloads, outcome) {
            download::download(site, &mut session, part, outcome).await?;
        }
        Ok(())
    }
    .await;
    session.done(result)
}

/// How many messages a pass that has only so much time transfers between two looks at the clock.
const PART: usize = 500;

/// Takes the ops that are to be carried out next; none if there are none, or it is time to leave them to the next pass.
fn next_part(pass: &Pass<'_>, ops: &mut Vec<Planned>, outcome: &mut Outcome) -> Option<Vec<Planned>> {
    if ops.is_empty() {
        return None;
    }
    if pass.time_is_up() {
        outcome.left = true;
        return None;
    }
    let rest = match pass.options.pace {
        Pace::Thorough => Vec::new(),
        Pace::Sliced(_) => ops.split_off(PART.min(ops.len())),
    };
    Some(std::mem::replace(ops, rest))
}

/// Carries out removals. The only way by which anything is removed on either side.
pub(super) async fn remove(
    site: &Site<'_>,
    removals: Vec<Planned>,
    trash: Option<&Trash>,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let (here, there): (Vec<_>, Vec<_>) = removals.into_iter().partition(|p| p.op.removes() == Some(Side::Local));
    remove::remove_here(site, here, outcome).await?;
    let expunges: Vec<_> = there.into_iter().filter(|p| p.op.removes() == Some(Side::Remote)).collect();
    if expunges.is_empty() {
        return Ok(());
    }
    let mut session = site.pass.pool.get().await?;
    let result = async {
        site.enter(&mut session).await?;
        remove::expunge_there(site, &mut session, expunges, trash, outcome).await
    }
    .await;
    session.done(result)
}
