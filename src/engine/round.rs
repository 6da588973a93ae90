//! One round of a pass: looks at what may have changed, finds moves over all mailboxes, carries out everything that adds
//! or changes, and only then, when that is durable everywhere, what removes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures_util::stream::{self, StreamExt};

use super::Error;
use super::again;
use super::burial;
use super::cycle::{self, Examined, Outcome, examine, settle};
use super::execute::{self, Site};
use super::guard;
use super::mailboxes::{self, Prepared};
use super::op::{Op, Planned};
use super::pass::Pass;
use super::renaming::Followed;
use super::report::{MailboxState, ProgressEvent};
use crate::db::{self, AccountState};
use crate::imap::{Lists, Session};
use crate::model::{LinkId, MailboxName};

/// A mailbox's plan on its way.
struct Work {
    examined: Examined,
    adds: Vec<Planned>,
    removals: Vec<Planned>,
    /// The plan was not empty, or the base was made anew.
    did: bool,
    outcome: Outcome,
}

impl Work {
    /// Lets the maildir be witnessed, so that what is done in it need not be listed by the next pass. To account for a
    /// change costs about as much as to list a file.
    fn begin_witness(&self) {
        let (changes, one) = (self.adds.len() + self.removals.len(), &self.examined);
        let there = one.mailbox.cursor.map_or(0, |cursor| cursor.messages as usize);
        if let (Some(maildir), Some(stamp), true) = (&one.maildir, one.known_stamp(), changes < there.max(256) / 4) {
            maildir.begin_witness(stamp);
        }
    }
}

/// How a round ended.
pub(super) struct RoundEnd {
    /// Mailboxes that the next round is to look at.
    pub left: BTreeSet<MailboxName>,
    /// Something was done.
    pub did: bool,
    /// Some uploads wait for their answer.
    pub waiting: bool,
    /// Something was left, since it may be half of a move.
    pub hesitated: bool,
}

impl Pass<'_> {
    /// Makes a round over all mailboxes, or over those that are `wanted`.
    pub(super) async fn round(
        &self,
        round: u32,
        wanted: Option<&BTreeSet<MailboxName>>,
        cautious: bool,
        unite: bool,
    ) -> Result<RoundEnd, Error> {
        let mut session = self.pool.get().await?;
        if round == 0 {
            self.progress.tell(ProgressEvent::Connected { host: self.account.host.clone() });
        }
        let listed = match session.list().await {
            Ok(lists) => self.follow_and_prepare(&mut session, lists, wanted, unite).await,
            Err(error) => Err(error.into()),
        };
        let prepared = session.done(listed)?;
        if round == 0 {
            self.progress.tell(ProgressEvent::Listed { mailboxes: prepared.places.len() as u64 });
        }
        self.act(prepared, cautious).await
    }

    async fn follow_and_prepare(
        &self,
        session: &mut Session,
        lists: Lists,
        wanted: Option<&BTreeSet<MailboxName>>,
        unite: bool,
    ) -> Result<Prepared, Error> {
        let followed = if unite {
            // Both sides are paired by content, under the names that there are.
            self.db.commit(|tx| tx.forget_renamings()).await?;
            Some(Followed { lists, did: false })
        } else {
            self.follow_chains(session, lists).await?
        };
        let Some(Followed { lists, did }) = followed else { return Ok(Prepared::default()) };
        let mut prepared = mailboxes::prepare(self, session, lists, wanted, unite).await?;
        prepared.did |= did;
        Ok(prepared)
    }

    /// Looks at mailboxes and does what they need; a cautious round removes nothing.
    pub(super) async fn act(&self, prepared: Prepared, cautious: bool) -> Result<RoundEnd, Error> {
        let Prepared { jobs, places, trash, mut left, mut did, partial } = prepared;
        let side_by_side = 2 * self.account.connections.max(1);
        let looks = stream::iter(jobs.into_iter().map(|job| async move {
            let name = job.mailbox.name.clone();
            (name, examine(self, job).await)
        }));
        let mut looks = looks.buffer_unordered(side_by_side);
        let (mut examined, mut broke) = (Vec::new(), false);
        while let Some((name, look)) = looks.next().await {
            match look {
                Ok(Some(one)) => examined.push(one),
                Ok(None) => self.set_state(&name, MailboxState::Unchanged),
                Err(error) => {
                    broke |= error.is_worth_a_retry();
                    self.failed(&name, error, &mut left).await?;
                }
            }
        }
        drop(looks);
        examined.sort_unstable_by(|a, b| a.mailbox.name.cmp(&b.mailbox.name));
        self.find_moves(&mut examined).await?;
        self.leave_alone(&mut examined).await?;
        let hesitated = self.hesitates(&mut examined, &places, broke, &mut left)?;
        let works = self.split(examined, cautious, partial).await?;
        if self.options.dry_run {
            return Ok(RoundEnd { left, did: false, waiting: false, hesitated: false });
        }
        let plans_something = works.iter().any(|w| !w.adds.is_empty() || !w.removals.is_empty());
        if plans_something {
            self.db
                .commit(|tx| {
                    let state = tx.account()?;
                    tx.set_account(&AccountState { clean: false, ..state })
                })
                .await?;
        }
        works.iter().for_each(Work::begin_witness);
        let before = self.effects();
        self.acting_since.set(Some(Instant::now()));

        let adds = stream::iter(works.into_iter().map(|mut work| async {
            let result = self.add(&mut work, &places).await;
            (work, result)
        }));
        let mut adds = adds.buffer_unordered(side_by_side);
        let mut works = Vec::new();
        while let Some((mut work, result)) = adds.next().await {
            if let Err(error) = result {
                work.outcome.failed = true;
                self.failed(&work.examined.mailbox.name, error, &mut left).await?;
            }
            works.push(work);
        }
        drop(adds);

        // Everything that was added anywhere is durable now: only from here on is anything removed.
        let removals = stream::iter(works.into_iter().map(|mut work| async {
            let result = self.remove(&mut work, &places, trash.as_ref()).await;
            (work, result)
        }));
        let mut removals = removals.buffer_unordered(side_by_side);
        let mut waiting = false;
        while let Some((mut work, result)) = removals.next().await {
            let name = work.examined.mailbox.name.clone();
            if let Err(error) = result {
                work.outcome.failed = true;
                self.failed(&name, error, &mut left).await?;
            }
            waiting |= work.examined.waiting;
            if self.settle(work, &mut left).await? == MailboxState::InSync {
                tracing::debug!(account = self.account.name, mailbox = %name, "mirrored");
            }
        }
        did |= self.effects() > before;
        Ok(RoundEnd { left, did, waiting, hesitated })
    }

    /// Takes out of the plans what the server refused lately, and forgets what it refused and nobody wants any more.
    async fn leave_alone(&self, examined: &mut [Examined]) -> Result<(), Error> {
        let mut done = Vec::new();
        for one in examined {
            let wanted: BTreeSet<LinkId> = one.part.plan.iter().filter_map(|planned| planned.op.link()).collect();
            done.extend(one.due.iter().copied().filter(|link| !wanted.contains(link)));
            let waits = |planned: &Planned| {
                again::asks_the_server(&planned.op)
                    && planned.op.link().is_some_and(|link| one.left_alone.contains(&link))
            };
            one.refused = one.part.plan.iter().any(waits);
            one.part.plan.retain(|planned| !waits(planned));
        }
        if done.is_empty() || self.options.dry_run {
            return Ok(());
        }
        let write = self.db.commit(move |tx| done.iter().try_for_each(|link| tx.want_no_more(*link)));
        Ok(write.await?)
    }

    /// Notes the failure of a mailbox; what will fail for all others too ends the pass.
    async fn failed(&self, mailbox: &MailboxName, error: Error, left: &mut BTreeSet<MailboxName>) -> Result<(), Error> {
        if error.is_expected() {
            tracing::info!(account = self.account.name, %mailbox, %error, "goes on with a new session");
            left.insert(mailbox.clone());
            self.ran_out.set(true);
            self.set_state(mailbox, MailboxState::Partial);
            return Ok(());
        }
        self.write_down_failure(mailbox, &error).await;
        if error.is_for_account() {
            return Err(error);
        }
        if error.is_worth_a_retry() {
            left.insert(mailbox.clone());
        }
        self.problem(mailbox, error.to_string());
        self.set_state(mailbox, MailboxState::Failed);
        Ok(())
    }

    /// Keeps the failure of a mailbox for `status`, until a pass has looked at it again.
    pub(super) async fn write_down_failure(&self, mailbox: &MailboxName, error: &Error) {
        if self.options.dry_run {
            return;
        }
        let (name, text) = (mailbox.clone(), error.to_string());
        let write = self.db.commit(move |tx| match tx.mailbox_named(&name)? {
            // Looked at whatever the numbers say: else nothing would take the words back.
            Some(row) => tx.update_mailbox(&db::Mailbox { problem: Some(text), must_scan: true, ..row }),
            None => Ok(()),
        });
        if let Err(error) = write.await {
            tracing::warn!(account = self.account.name, %mailbox, %error, "could not keep a failure for status");
        }
    }

    /// Sets the removals of each plan apart and asks the guard about them.
    async fn split(&self, examined: Vec<Examined>, cautious: bool, partial: bool) -> Result<Vec<Work>, Error> {
        let mut works = Vec::new();
        for mut one in examined {
            let name = one.mailbox.name.clone();
            let (adds, removals) = guard::split(std::mem::take(&mut one.part.plan));
            let mut outcome = Outcome { left: one.part.postponed, refused: one.refused, ..Outcome::default() };
            self.tally(&name, |counts| counts.matched += one.matched);
            let count = removals.len() as u64;
            let removals = if cautious || one.fresh {
                outcome.left |= !removals.is_empty();
                Vec::new()
            } else if partial {
                // What is gone from here may have come to where nobody looked.
                self.wants_all.set(self.wants_all.get() || !removals.is_empty());
                Vec::new()
            } else {
                let guarded = cycle::weigh(self, &one.mailbox, removals, !self.options.dry_run).await?;
                match guarded.held {
                    Some(why) => self.hold(&name, count - guarded.removals.len() as u64, why),
                    None => self.ledger.hold(&name, None),
                }
                guarded.removals
            };
            let is = |wanted: fn(&Op) -> bool| adds.iter().filter(|p| wanted(&p.op)).count() as u64;
            let (downloads, uploads) =
                (is(|op| matches!(op, Op::Download { .. })), is(|op| matches!(op, Op::Upload { .. })));
            let other = (adds.len() + removals.len()) as u64 - downloads - uploads;
            let account = &self.account.name;
            if downloads + uploads + other > 0 {
                tracing::info!(account, mailbox = %name, downloads, uploads, other, "planned");
            } else {
                tracing::debug!(account, mailbox = %name, "planned nothing");
            }
            self.progress.tell(ProgressEvent::Planned { mailbox: name.clone(), downloads, uploads, other });
            if self.options.dry_run {
                for planned in adds.iter().chain(&removals) {
                    self.would(&name, planned.op.to_string(), planned.why.text());
                }
                self.set_state(&name, MailboxState::Unchanged);
            }
            let did = one.fresh || !adds.is_empty() || !removals.is_empty();
            works.push(Work { examined: one, adds, removals, did, outcome });
        }
        Ok(works)
    }

    async fn add(&self, work: &mut Work, places: &BTreeMap<MailboxName, execute::Place>) -> Result<(), Error> {
        let Some(maildir) = work.examined.maildir.clone() else { return Ok(()) };
        self.update_inodes(&work.examined).await?;
        let site = Site::new(self, &work.examined, maildir, places);
        execute::add(&site, std::mem::take(&mut work.adds), &mut work.outcome).await
    }

    /// Writes down which inodes files have now whose content is as it was.
    async fn update_inodes(&self, one: &Examined) -> Result<(), Error> {
        let inodes = one.inodes().cloned().unwrap_or_default();
        if inodes.is_empty() {
            return Ok(());
        }
        let write = self.db.commit(move |tx| {
            for (id, inode) in inodes {
                tx.set_inode(id, inode)?;
            }
            Ok(())
        });
        Ok(write.await?)
    }

    async fn remove(
        &self,
        work: &mut Work,
        places: &BTreeMap<MailboxName, execute::Place>,
        trash: Option<&execute::Trash>,
    ) -> Result<(), Error> {
        if work.removals.is_empty() {
            return Ok(());
        }
        let Some(maildir) = work.examined.maildir.clone() else { return Ok(()) };
        if work.outcome.failed {
            work.outcome.left = true;
            return Ok(());
        }
        let site = Site::new(self, &work.examined, maildir, places);
        execute::remove(&site, std::mem::take(&mut work.removals), trash, &mut work.outcome).await
    }

    async fn settle(&self, work: Work, left: &mut BTreeSet<MailboxName>) -> Result<MailboxState, Error> {
        let Work { examined, did, outcome, .. } = work;
        let name = examined.mailbox.name.clone();
        let (failed, wants_more) = (outcome.failed, outcome.left || examined.waiting);
        // To look again would be to ask again.
        let did = did && !outcome.refused;
        let moving = examined.scanned.as_ref().is_some_and(|s| s.doubt.is_some());
        for note in &examined.notes {
            self.problem(&name, note.clone());
        }
        let mut complete = if examined.gone {
            // Its row goes when nothing of it is left that was not carried out.
            !wants_more && !failed && !outcome.refused && burial::bury(self, examined).await?
        } else {
            let witnessed = match examined.maildir.clone() {
                Some(maildir) => tokio::task::spawn_blocking(move || maildir.end_witness()).await?,
                None => None,
            };
            settle(self, examined, outcome, witnessed).await?
        };
        if !complete && !failed && (wants_more || did || moving) {
            left.insert(name.clone());
        }
        complete &= !failed;
        let state = match (complete, failed) {
            (true, _) => MailboxState::InSync,
            (false, true) => MailboxState::Failed,
            (false, false) => MailboxState::Partial,
        };
        self.set_state(&name, state);
        self.progress.tell(ProgressEvent::Finished { mailbox: name, state });
        Ok(state)
    }
}
