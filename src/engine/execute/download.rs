//! Delivers messages of the server here: fetched in ranges, written by a thread beside, made durable in batches.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Site, entry, refusals};
use crate::db::{Db, Entry, NewLink};
use crate::engine::Error;
use crate::engine::again;
use crate::engine::cycle::Outcome;
use crate::engine::ledger::Meter;
use crate::engine::op::{Op, Planned, Why};
use crate::engine::report::Deed;
use crate::imap::{self, Body, Fetched, Habit, Session};
use crate::maildir::{self, Delivery, Incoming, LineEndings, Maildir, Source, unique_name, unmarked_key};
use crate::model::{
    ContentKey, Flags, Link, LinkId, LinkState, MailboxId, MailboxName, SkipReason, Uid, UidSet, UniqueName,
};

/// A batch is made durable when it has this many messages, …
const BATCH_MESSAGES: usize = 256;
/// … this many bytes, …
const BATCH_BYTES: u64 = 16 << 20;
/// … or is this old: what has arrived is not to wait for what is slow.
const BATCH_AGE: Duration = Duration::from_secs(5);

/// Fetched messages on their way to the writer; with the bodies that [`imap`] keeps in memory this bounds what waits.
const QUEUE: usize = 32;

/// A message that is wanted.
struct Wanted {
    link: Option<LinkId>,
    name: Option<UniqueName>,
    why: Why,
}

/// Carries out `Download`.
pub(super) async fn download(
    site: &Site<'_>,
    session: &mut Session,
    ops: Vec<Planned>,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let mut wanted: BTreeMap<Uid, Wanted> = BTreeMap::new();
    for Planned { op, why } in ops {
        if let Op::Download { link, uid, name, .. } = op {
            wanted.insert(uid, Wanted { link, name, why });
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let uids: UidSet = wanted.keys().copied().collect();
    let (sender, receiver) = mpsc::channel(QUEUE);
    let finisher = Finisher {
        db: site.pass.db.clone(),
        mailbox: site.mailbox.id,
        name: site.mailbox.name.clone(),
        meter: site.pass.meter(&site.mailbox.name),
        unfinished: Vec::new(),
    };
    let rewrites = session.quirks().has(Habit::Rewrites);
    let (maildir, line_endings) = (Arc::clone(&site.maildir), site.pass.line_endings());
    let writer =
        tokio::task::spawn_blocking(move || deliver(&maildir, line_endings, wanted, receiver, finisher, rewrites));
    let fetched = session.bodies_but_refused(&uids, sender).await;
    let end = writer.await?;
    // The disk's reason first: a writer that gave up is why nobody took what was fetched.
    let Withheld { mut left, empty } = end?;
    let refused = match fetched {
        Ok(refused) => refused,
        Err(imap::Error::TooLarge { uid: Some(uid), size, .. }) if session.quirks().has(Habit::EstimatesSizes) => {
            // Sizes that are asked for are estimates there: only this one is known to be too large.
            let link = left.get(&uid).and_then(|wanted| wanted.link);
            skip(site, vec![(uid, link, SkipReason::TooLarge(size))]).await?;
            outcome.left = true;
            return Err(imap::Error::Closed { text: "a message was too large to take".to_owned() }.into());
        }
        Err(imap::Error::TooLarge { .. }) => {
            skip_too_large(site, left).await?;
            outcome.left = true;
            return Err(imap::Error::Closed { text: "a message was too large to take".to_owned() }.into());
        }
        Err(error) => return Err(error.into()),
    };
    if session.quirks().has(Habit::Withholds) {
        left.extend(empty);
        left = withhold(site, left, refused, true).await?;
    } else {
        let no = left.extract_if(.., |uid, _| refused.contains_key(uid)).collect();
        left.extend(withhold(site, no, refused, false).await?);
        left.extend(skip_empty(site, session, empty).await?);
    }
    if !left.is_empty() {
        // Listed, but not given: it may be given later (Exchange), or be gone by now.
        outcome.left = true;
        let uids: UidSet = left.keys().copied().collect();
        tracing::warn!(mailbox = %site.mailbox.name, %uids, "the server listed messages that it did not give");
        site.pass.problem(
            &site.mailbox.name,
            format!(
                "the server listed {} messages that it did not give (UID {uids}); they are asked for again",
                uids.len()
            ),
        );
    }
    Ok(())
}

/// Writes down which messages the server goes on not to give, to ask for them again later, and returns those that it did
/// not give for the first time in this pass. Some were `refused` in words; who `withholds` may give those, too.
async fn withhold(
    site: &Site<'_>,
    left: BTreeMap<Uid, Wanted>,
    refused: BTreeMap<Uid, imap::Error>,
    withholds: bool,
) -> Result<BTreeMap<Uid, Wanted>, Error> {
    let id = site.mailbox.id;
    let (again, first): (BTreeMap<_, _>, BTreeMap<_, _>) = {
        let mut before = site.pass.withheld.borrow_mut();
        // What was skipped in an earlier pass has been asked for twice by then.
        left.into_iter().partition(|(uid, wanted)| !before.insert((id, *uid)) || wanted.link.is_some())
    };
    if again.is_empty() {
        return Ok(first);
    }
    let uids: UidSet = again.keys().copied().collect();
    site.pass.problem(
        &site.mailbox.name,
        format!(
            "the server does not give {} messages that it has (UID {uids}); they are asked for again later",
            uids.len()
        ),
    );
    site.pass.tally(&site.mailbox.name, |t| t.skipped += uids.len());
    let now = site.pass.now();
    let write = site.pass.commit(move |tx| {
        let mut links = Vec::new();
        for (uid, wanted) in &again {
            let error = refused.get(uid);
            let why = error.map_or_else(|| WITHHELD.to_owned(), ToString::to_string);
            // What cannot be had is asked for with all that is skipped. Exchange gives most of it in the end.
            let passes = withholds || error.is_none_or(again::may_pass);
            let reason = SkipReason::Refused(why.clone());
            let state = LinkState::Skipped { uid: Some(*uid), name: None, reason };
            let link = match wanted.link {
                Some(id) => {
                    tx.set_link(&Link { id, state, content: None, internal_date: None, inode: None })?;
                    id
                }
                None => tx.insert_link(id, &NewLink { state, content: None, internal_date: None, inode: None })?,
            };
            if passes {
                refusals::refuse(tx, link, &why, true, now)?;
            } else {
                tx.want_no_more(link)?;
            }
            links.push(link);
        }
        Ok(links)
    });
    let links = write.await?;
    site.pass.refused.borrow_mut().extend(links);
    Ok(first)
}

/// What the server says of a message that it does not give, for those who look at its state.
const WITHHELD: &str = "it is listed, but not given";

/// Writes down which of the messages are larger than allowed, so that the rest can be fetched without them.
async fn skip_too_large(site: &Site<'_>, left: BTreeMap<Uid, Wanted>) -> Result<(), Error> {
    // The connection was given up in the middle of the large one.
    let mut session = site.pass.pool.get().await?;
    let result = async {
        site.enter(&mut session).await?;
        Ok(session.sizes(&left.keys().copied().collect()).await?)
    }
    .await;
    let sizes: BTreeMap<Uid, u64> = session.done(result)?;
    let limit = site.pass.account.max_message_size;
    let large = sizes
        .into_iter()
        .filter(|(_, size)| *size > limit)
        .filter_map(|(uid, size)| Some((uid, left.get(&uid)?.link, SkipReason::TooLarge(size))))
        .collect();
    skip(site, large).await
}

/// Writes down which messages are empty, and returns those that the server says are not: it may give them later.
async fn skip_empty(
    site: &Site<'_>,
    session: &mut Session,
    mut empty: BTreeMap<Uid, Wanted>,
) -> Result<BTreeMap<Uid, Wanted>, Error> {
    if empty.is_empty() {
        return Ok(empty);
    }
    let sizes = session.sizes(&empty.keys().copied().collect()).await?;
    let void: Vec<(Uid, Wanted)> = empty.extract_if(.., |uid, _| sizes.get(uid) == Some(&0)).collect();
    if void.is_empty() {
        return Ok(empty);
    }
    let why = || "it is empty on the server, which is asked again once a day".to_owned();
    for (uid, _) in &void {
        site.pass.problem(&site.mailbox.name, format!("message UID {uid} was skipped: {}", why()));
    }
    let void = void.into_iter().map(|(uid, wanted)| (uid, wanted.link, SkipReason::Unusable(why())));
    skip(site, void.collect()).await?;
    Ok(empty)
}

/// Writes down which messages are not downloaded, and why.
async fn skip(site: &Site<'_>, messages: Vec<(Uid, Option<LinkId>, SkipReason)>) -> Result<(), Error> {
    site.pass.tally(&site.mailbox.name, |t| t.skipped += messages.len() as u64);
    let id = site.mailbox.id;
    let write = site.pass.commit(move |tx| {
        for (uid, link, reason) in messages {
            if let Some(link) = link {
                tx.delete_link(link)?;
            }
            let state = LinkState::Skipped { uid: Some(uid), name: None, reason };
            tx.insert_link(id, &NewLink { state, content: None, internal_date: None, inode: None })?;
        }
        Ok(())
    });
    write.await
}

/// What was wanted, and did not come.
struct Withheld {
    /// Nothing was said about it.
    left: BTreeMap<Uid, Wanted>,
    /// It came without content.
    empty: BTreeMap<Uid, Wanted>,
}

/// A message in a batch.
struct Arrived {
    uid: Uid,
    name: UniqueName,
    flags: Flags,
    content: ContentKey,
    internal_date: i64,
    inode: u64,
    path: PathBuf,
    wanted: Wanted,
}

/// Takes fetched messages to the disk: this thread writes them, another one makes batch after batch durable. Returns what
/// was wanted and did not come. Blocks.
fn deliver(
    maildir: &Maildir,
    line_endings: LineEndings,
    mut wanted: BTreeMap<Uid, Wanted>,
    mut messages: mpsc::Receiver<Fetched>,
    finisher: Finisher,
    rewrites: bool,
) -> Result<Withheld, Error> {
    std::thread::scope(|scope| {
        let (batches, written) = sync_channel::<(Delivery<'_>, Vec<Arrived>)>(1);
        let finisher = scope.spawn(move || finisher.run(written));
        let mut empty = BTreeMap::new();
        let mut write = || {
            let (mut delivery, mut batch) = (Delivery::new(maildir, line_endings)?, Vec::new());
            let (mut bytes, mut begun) = (0, Instant::now());
            // All that is there at once: to be woken for each costs as much as to write it.
            let mut arrivals = std::iter::from_fn(|| {
                let mut some = Vec::with_capacity(QUEUE);
                (messages.blocking_recv_many(&mut some, QUEUE) > 0).then_some(some)
            });
            for fetched in arrivals.by_ref().flatten() {
                let Some(want) = wanted.remove(&fetched.uid) else { continue };
                if batch.is_empty() {
                    begun = Instant::now();
                }
                if matches!(fetched.body, Body::Nothing) {
                    empty.insert(fetched.uid, want);
                    continue;
                }
                let arrived = write(maildir, &mut delivery, fetched, want, rewrites)?;
                bytes += arrived.content.fingerprint.size;
                batch.push(arrived);
                if batch.len() >= BATCH_MESSAGES || bytes >= BATCH_BYTES || begun.elapsed() >= BATCH_AGE {
                    let next = Delivery::new(maildir, line_endings)?;
                    let full = (std::mem::replace(&mut delivery, next), std::mem::take(&mut batch));
                    if batches.send(full).is_err() {
                        return Ok(()); // the other thread gave up, and says why
                    }
                    bytes = 0;
                }
            }
            // A send that fails is the other thread's failure, too.
            let _ = batches.send((delivery, batch));
            Ok(())
        };
        let written: Result<(), Error> = write();
        drop(batches);
        let finished = finisher.join().map_err(|_| Error::Worker("the delivery of messages".to_owned()))?;
        finished.and(written)?;
        Ok(Withheld { left: wanted, empty })
    })
}

/// Writes a message into a batch. Where the server `rewrites` headers, the base is to know it without the marks that it has
/// at the moment.
fn write(
    maildir: &Maildir,
    delivery: &mut Delivery<'_>,
    fetched: Fetched,
    wanted: Wanted,
    rewrites: bool,
) -> Result<Arrived, Error> {
    let Fetched { uid, flags, internal_date, body } = fetched;
    let source = match &body {
        Body::Memory(bytes) => Source::Memory(bytes),
        Body::File(file, _) => Source::File(file),
        Body::Nothing => Source::Memory(b""),
    };
    let name = match &wanted.name {
        Some(name) => name.clone(),
        None => unique_name()?,
    };
    let incoming = Incoming { name: name.clone(), flags: flags.clone(), internal_date, body: source };
    let written = delivery.write(incoming)?;
    let path = maildir.path_of(&written.file);
    let bare = if rewrites {
        unmarked_key(source).map_err(|source| {
            let path = path.clone();
            Error::File { what: "could not read the received bytes for", path, source }
        })?
    } else {
        None
    };
    let content = bare.unwrap_or(written.key);
    Ok(Arrived { uid, name, flags, content, internal_date, inode: written.inode, path, wanted })
}

/// Makes written batches durable, and writes them down.
struct Finisher {
    db: Db,
    mailbox: MailboxId,
    name: MailboxName,
    meter: Meter,
    /// Delivered, but not yet written down as such.
    unfinished: Vec<(LinkId, Entry)>,
}

impl Finisher {
    fn run(mut self, batches: Receiver<(Delivery<'_>, Vec<Arrived>)>) -> Result<(), Error> {
        for (delivery, batch) in batches {
            self.finish(delivery, batch)?;
        }
        self.commit(Vec::new())?;
        Ok(())
    }

    /// Intent, effect, and, with the next batch's intent, done.
    fn finish(&mut self, delivery: Delivery<'_>, batch: Vec<Arrived>) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let intents: Vec<(Option<LinkId>, NewLink)> = batch
            .iter()
            .map(|a| {
                let state = LinkState::Downloading { uid: a.uid, name: a.name.clone(), flags: a.flags.clone() };
                // The content tells later whether the file that has this name is still the one.
                let (content, internal_date) = (Some(a.content), Some(a.internal_date));
                (a.wanted.link, NewLink { state, content, internal_date, inode: Some(a.inode) })
            })
            .collect();
        let ids = self.commit(intents)?;
        let taken = match delivery.commit() {
            Ok(()) => Vec::new(),
            // The next round finds the files that have these names, and decides.
            Err(maildir::Error::Taken { names, .. }) => names,
            Err(error) => return Err(error.into()),
        };
        let bytes = batch.iter().map(|a| a.content.fingerprint.size).sum();
        self.meter.downloaded(batch.len() as u64, bytes);
        for (arrived, id) in batch.into_iter().zip(ids) {
            if taken.contains(&arrived.name) {
                continue;
            }
            let Arrived { uid, flags, path, wanted, .. } = arrived;
            self.meter.changed(if flags.is_empty() { Deed::Arrived } else { Deed::Added }, path, None);
            let Wanted { link, name: kept, why } = wanted;
            let op = Op::Download { link, uid, name: kept, flags };
            self.unfinished.push((id, entry(&self.name, &Planned { op, why }, None)));
        }
        Ok(())
    }

    /// Writes down what the last batch delivered and what the next one is going to; returns the rows of the latter.
    fn commit(&mut self, intents: Vec<(Option<LinkId>, NewLink)>) -> Result<Vec<LinkId>, Error> {
        let done = std::mem::take(&mut self.unfinished);
        if done.is_empty() && intents.is_empty() {
            return Ok(Vec::new());
        }
        let mailbox = self.mailbox;
        Ok(self.db.commit_now(move |tx| {
            tx.complete_links(&done.iter().map(|(link, _)| *link).collect::<Vec<_>>())?;
            done.iter().try_for_each(|(_, entry)| tx.journal(entry))?;
            let mut ids = Vec::with_capacity(intents.len());
            for (id, new) in intents {
                ids.push(match id {
                    Some(id) => {
                        let NewLink { state, content, internal_date, inode } = new;
                        tx.set_link(&Link { id, state, content, internal_date, inode })?;
                        id
                    }
                    None => tx.insert_link(mailbox, &new)?,
                });
            }
            Ok(ids)
        })?)
    }
}
