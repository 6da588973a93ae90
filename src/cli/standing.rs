//! How accounts and their mailboxes stand, as their databases tell.

use serde::Serialize;

use super::Exit;
use super::time::Moment;
use crate::config::{Account, Config};
use crate::db::{self, Db, HoldCause, Tx};
use crate::engine::report::Outcome;
use crate::model::{Link, LinkState, SkipReason};

/// How an account stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct AccountStatus {
    pub(super) account: String,
    pub(super) maildir: String,
    /// True if a pass is going on, or the last one broke off.
    pub(super) under_way: bool,
    /// Why the last pass ended before it was through; none since one was.
    pub(super) failure: Option<FailedPass>,
    /// Until when the server is left alone, and why, if it is.
    pub(super) quiet: Option<Quiet>,
    /// Since when the server has accepted sign-ins and not opened the mailbox.
    pub(super) not_connected_since: Option<Moment>,
    /// When the mailbox that is furthest behind was last complete; none if one never was.
    pub(super) last_complete: Option<Moment>,
    pub(super) mailboxes: Vec<MailboxStatus>,
}

/// A pass that ended before it was through.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct FailedPass {
    pub(super) at: Moment,
    pub(super) text: String,
    /// The code that `sync` ended with.
    pub(super) exit_code: u8,
    #[serde(skip)]
    pub(super) exit: Exit,
}

/// A time in which the server is left alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Quiet {
    pub(super) until: Moment,
    pub(super) why: String,
}

/// How a mailbox stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct MailboxStatus {
    pub(super) mailbox: String,
    /// Messages that both sides have.
    pub(super) synced: u64,
    /// Messages whose transfer was begun.
    pub(super) pending: u64,
    /// Messages that the server lists and does not give yet.
    pub(super) withheld: Vec<WithheldMessage>,
    /// Changes of messages on both sides that the server refused.
    pub(super) refused: Vec<RefusedChange>,
    pub(super) skipped: Vec<SkippedMessage>,
    pub(super) held: Option<HeldRemovals>,
    pub(super) last_complete: Option<Moment>,
    pub(super) missing_since: Option<Moment>,
    pub(super) problem: Option<String>,
}

/// A message that the server lists and does not give.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct WithheldMessage {
    pub(super) uid: Option<u32>,
    /// How often it was asked for.
    pub(super) tries: u32,
    /// When it is asked for again.
    pub(super) next: Moment,
}

/// A message that cannot be transferred.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct SkippedMessage {
    pub(super) uid: Option<u32>,
    pub(super) file: Option<String>,
    pub(super) reason: String,
    /// How often the server refused it, and when it is tried again, if it is by itself.
    pub(super) again: Option<Again>,
}

/// A change that the server refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct RefusedChange {
    pub(super) uid: Option<u32>,
    pub(super) reason: String,
    pub(super) again: Again,
}

/// What is tried again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Again {
    /// How often it was tried.
    pub(super) tries: u32,
    /// When it is tried again; none if only `postkeep sync` does.
    pub(super) next: Option<Moment>,
}

/// Removals that wait for approval.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct HeldRemovals {
    /// How many would be removed from the maildir.
    pub(super) here: u64,
    /// How many would be removed from the server.
    pub(super) on_server: u64,
    /// How many more are approved and wait for the next pass.
    pub(super) approved: u64,
    /// Why the mailbox is held as a whole, if it is.
    pub(super) why: Option<String>,
    pub(super) since: Option<Moment>,
    /// False for a mailbox that only waits to go on.
    #[serde(skip)]
    pub(super) removes: bool,
}

/// Reads how an account stands; of one that was never synced, nothing is known.
pub(super) async fn gather(account: &Account, config: &Config) -> Result<AccountStatus, db::Error> {
    let file = config.daemon.database(&account.name);
    let (under_way, failure, mailboxes, service) = if file.exists() {
        let read = |tx: &Tx<'_>| Ok((!tx.account()?.clean, tx.failure()?, gather_mailboxes(tx)?, tx.service()?));
        Db::open(&file)?.read(read).await?
    } else {
        (false, None, vec![], db::Service::default())
    };
    let failure = failure.map(|failure| {
        let exit = Exit::from(Outcome::from_word(&failure.outcome));
        FailedPass { at: Moment::from_seconds(failure.at), text: failure.text, exit_code: exit.code(), exit }
    });
    let quiet = service.quiet_at(jiff::Timestamp::now().as_second());
    let quiet = quiet.map(|(until, why)| Quiet { until: Moment::from_seconds(until), why: why.to_owned() });
    let not_connected_since = service.not_connected_since.map(Moment::from_seconds);
    let last_complete = mailboxes.iter().map(|m| m.last_complete).min().flatten();
    let (account, maildir) = (account.name.clone(), account.maildir.display().to_string());
    Ok(AccountStatus { account, maildir, under_way, failure, quiet, not_connected_since, last_complete, mailboxes })
}

fn gather_mailboxes(tx: &Tx<'_>) -> Result<Vec<MailboxStatus>, db::Error> {
    let mut all = Vec::new();
    for mailbox in tx.mailboxes()? {
        let counts = tx.count(mailbox.id)?;
        let (skipped_links, waiting) = (tx.skipped(mailbox.id)?, tx.again(mailbox.id)?);
        let waits = |id| waiting.iter().find(|row| row.link == id);
        let again = |row: &db::Again| Again { tries: row.tries, next: row.next_at.map(Moment::from_seconds) };
        let withheld = skipped_links.iter().filter_map(|link| {
            let Again { tries, next } = again(waits(link.id)?);
            Some(WithheldMessage { uid: Some(link.uid()?.get()), tries, next: next? })
        });
        let withheld: Vec<_> = withheld.collect();
        let uids: Vec<u32> = withheld.iter().filter_map(|message| message.uid).collect();
        let is_withheld = |message: &SkippedMessage| message.uid.is_some_and(|uid| uids.contains(&uid));
        let skipped = skipped_links.iter().filter_map(|link| skipped(link, waits(link.id).map(again)));
        let mut refused = Vec::new();
        for row in waiting.iter().filter(|row| !skipped_links.iter().any(|link| link.id == row.link)) {
            let uid = tx.link(row.link)?.and_then(|link| link.uid()).map(crate::model::Uid::get);
            refused.push(RefusedChange { uid, reason: row.why.clone(), again: again(row) });
        }
        all.push(MailboxStatus {
            mailbox: mailbox.name.as_str().to_owned(),
            synced: counts.synced,
            pending: counts.downloading + counts.uploading,
            skipped: skipped.filter(|message| !is_withheld(message)).collect(),
            withheld,
            refused,
            held: held(&tx.held(mailbox.id)?, tx.mailbox_hold(mailbox.id)?),
            last_complete: mailbox.last_complete.map(Moment::from_seconds),
            missing_since: mailbox.missing_since.map(Moment::from_seconds),
            problem: mailbox.problem,
        });
    }
    all.sort_by(|a, b| (a.mailbox != "INBOX", &a.mailbox).cmp(&(b.mailbox != "INBOX", &b.mailbox)));
    Ok(all)
}

fn skipped(link: &Link, again: Option<Again>) -> Option<SkippedMessage> {
    match &link.state {
        // That is how it is meant to be.
        LinkState::Skipped { reason: SkipReason::Kept, .. } => None,
        LinkState::Skipped { uid, name, reason } => Some(SkippedMessage {
            uid: uid.map(crate::model::Uid::get),
            file: name.as_ref().map(ToString::to_string),
            reason: reason.text(),
            again,
        }),
        LinkState::Synced { .. } | LinkState::Downloading { .. } | LinkState::Uploading { .. } => None,
    }
}

fn held(removals: &[db::Held], whole: Option<db::MailboxHold>) -> Option<HeldRemovals> {
    let waiting = |side| removals.iter().filter(|h| !h.approved && h.side == side).count() as u64;
    let approved = removals.iter().filter(|h| h.approved).count() as u64;
    let whole = whole.filter(|hold| !hold.approved);
    let since = removals.iter().map(|h| h.at).chain(whole.iter().map(|hold| hold.at)).min();
    (!removals.is_empty() || whole.is_some()).then(|| HeldRemovals {
        here: waiting(crate::model::Side::Local),
        on_server: waiting(crate::model::Side::Remote),
        approved,
        removes: whole.as_ref().is_none_or(|hold| hold.cause == HoldCause::MaildirMissing),
        why: whole.map(|hold| hold.reason),
        since: since.map(Moment::from_seconds),
    })
}

impl HeldRemovals {
    pub(super) fn waits(&self) -> bool {
        self.here + self.on_server > 0 || self.why.is_some()
    }
}

impl MailboxStatus {
    pub(super) fn exit(&self) -> Exit {
        if self.held.as_ref().is_some_and(HeldRemovals::waits) {
            return Exit::Held;
        }
        let waits = !self.withheld.is_empty() || !self.refused.is_empty() || self.pending > 0;
        let whole = self.problem.is_none() && self.skipped.is_empty() && !waits;
        if whole && self.last_complete.is_some() { Exit::Done } else { Exit::Partial }
    }
}

impl AccountStatus {
    /// Returns the code: an account of which no pass is known is not in sync.
    pub(super) fn exit(&self) -> Exit {
        let never = if self.mailboxes.is_empty() { Exit::Partial } else { Exit::Done };
        let failed = self.failure.as_ref().map(|failure| failure.exit);
        Exit::of_all(self.mailboxes.iter().map(MailboxStatus::exit).chain([never]).chain(failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{NewLink, NewMailbox};
    use crate::model::{Flags, Side, Uid, UniqueName};

    #[tokio::test]
    async fn the_database_is_read() {
        let db = Db::memory().unwrap();
        let all = db
            .commit(|tx| {
                let new = |name: &str| NewMailbox { name: name.into(), raw: None, path: None };
                tx.insert_mailbox(&new("Archive"))?;
                let inbox = tx.insert_mailbox(&new("INBOX"))?;
                let link = |state| NewLink { state, content: None, internal_date: None, inode: None };
                let name = |n: u32| UniqueName::new(format!("{n}.a").as_bytes());
                let synced =
                    |n: u32| LinkState::Synced { uid: Uid::new(n.into()).unwrap(), name: name(n), flags: Flags::new() };
                let mut ids = Vec::new();
                for n in 1..=3 {
                    ids.push(tx.insert_link(inbox, &link(synced(n)))?);
                }
                let reason = SkipReason::TooLarge(300);
                tx.insert_link(
                    inbox,
                    &link(LinkState::Skipped { uid: Some(Uid::new(9).unwrap()), name: None, reason }),
                )?;
                let (uid, flags) = (Uid::new(10).unwrap(), Flags::new());
                tx.insert_link(inbox, &link(LinkState::Downloading { uid, name: name(10), flags }))?;
                tx.hold(inbox, &[(ids[0], Side::Local), (ids[1], Side::Remote)])?;
                gather_mailboxes(tx)
            })
            .await
            .unwrap();
        assert_eq!(all.iter().map(|m| m.mailbox.as_str()).collect::<Vec<_>>(), ["INBOX", "Archive"]);
        let inbox = &all[0];
        assert_eq!((inbox.synced, inbox.pending), (3, 1));
        assert_eq!(inbox.skipped[0].reason, "larger than max_message_size (300 bytes)");
        let held = inbox.held.as_ref().unwrap();
        assert_eq!((held.here, held.on_server, held.approved), (1, 1, 0));
        assert!(held.since.is_some());
        assert_eq!((inbox.exit(), all[1].exit()), (Exit::Held, Exit::Partial));
    }
}
