//! Changes flags on both sides.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Site;
use super::refusals::{self, by_halves};
use crate::engine::Error;
use crate::engine::cycle::Outcome;
use crate::engine::op::{Op, Planned};
use crate::engine::report::Deed;
use crate::imap::Session;
use crate::maildir::{FlagJob, Located, Refused};
use crate::model::{FlagChange, Flags, UidSet, UniqueName};

/// How many messages one commit is about.
const BATCH: usize = 2000;

/// Carries out `MergeFlags`: first on the server, one command for all messages that change alike; then here; then the
/// base.
pub(super) async fn merge(
    site: &Site<'_>,
    session: &mut Session,
    ops: Vec<Planned>,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    for batch in ops.chunks(BATCH) {
        let mut by_change: BTreeMap<&FlagChange, UidSet> = BTreeMap::new();
        for planned in batch {
            if let Op::MergeFlags { uid, remote, .. } = &planned.op
                && !remote.is_empty()
            {
                by_change.entry(remote).or_default().insert(*uid);
            }
        }
        let mut changed = UidSet::default();
        let mut no = Vec::new();
        for (change, uids) in by_change {
            let store = async |session: &mut Session, uids: &UidSet| session.store(uids, change, None).await;
            let (_, refusals) = by_halves(session, vec![uids.clone()], store).await?;
            changed.extend(uids.iter());
            no.extend(refusals);
        }
        // A message that is gone is no reason to refuse; but the base must not claim that it has the flags.
        let refused: UidSet = no.iter().flat_map(|(uids, _)| uids.iter()).collect();
        let asked = if changed.is_empty() { UidSet::default() } else { session.present(&changed).await? };
        let there: UidSet = asked.iter().filter(|uid| !refused.contains(*uid)).collect();
        site.pass.tally(&site.mailbox.name, |t| t.flags_remote += there.len());
        let is_done = |planned: &&Planned| match &planned.op {
            Op::MergeFlags { uid, .. } => there.contains(*uid) || !changed.contains(*uid),
            _ => false,
        };
        let done: Vec<Planned> = batch.iter().filter(is_done).cloned().collect();
        outcome.left |= done.len() + usize::try_from(refused.len()).unwrap_or(usize::MAX) < batch.len();
        finish(site, &done, outcome).await?;
        for (uids, error) in no {
            let is_it = |planned: &&Planned| matches!(&planned.op, Op::MergeFlags { uid, .. } if uids.contains(*uid));
            let links = batch.iter().filter(is_it).filter_map(|planned| planned.op.link()).collect();
            refusals::refused(site, links, "a change of flags", &error, outcome).await?;
        }
    }
    Ok(())
}

async fn finish(site: &Site<'_>, batch: &[Planned], outcome: &mut Outcome) -> Result<(), Error> {
    let mut jobs = Vec::new();
    let mut changed: BTreeMap<UniqueName, Result<Located, Refused>> = BTreeMap::new();
    for planned in batch {
        let Op::MergeFlags { link, name, local, .. } = &planned.op else { continue };
        if local.is_empty() {
            continue;
        }
        match site.inode_of(*link, name).await? {
            Some(inode) => {
                jobs.push(FlagJob { name: name.clone(), change: local.clone(), file: site.file(name), inode });
            }
            None => drop(changed.insert(name.clone(), Err(Refused::Changed))),
        }
    }
    if !jobs.is_empty() {
        let maildir = Arc::clone(&site.maildir);
        let names: Vec<_> = jobs.iter().map(|job| job.name.clone()).collect();
        let results = tokio::task::spawn_blocking(move || maildir.change_flags(&jobs)).await??;
        changed.extend(names.into_iter().zip(results));
    }

    let mut writes = Vec::new();
    for planned in batch {
        let Op::MergeFlags { link, name, local, agreed, .. } = &planned.op else { continue };
        let agreed = match changed.get(name) {
            None => agreed.clone(),
            Some(Ok(located)) => without_refused(agreed, local, located),
            Some(Err(refused)) => {
                tracing::debug!(mailbox = %site.mailbox.name, %name, %refused, "left flags for the next round");
                outcome.left = true;
                continue;
            }
        };
        outcome.merged.insert(*link);
        writes.push((*link, agreed, site.entry(planned, None)));
    }
    let meter = site.pass.meter(&site.mailbox.name);
    for (name, located) in changed.iter().filter_map(|(name, result)| Some((name, result.as_ref().ok()?))) {
        let (now, before) = (site.maildir.path_of(&located.file), site.file(name).map(|f| site.maildir.path_of(&f)));
        if before.as_ref() != Some(&now) {
            meter.changed(Deed::Flagged, now, before);
        }
    }
    let here = changed.values().filter(|result| result.is_ok()).count() as u64;
    site.pass.tally(&site.mailbox.name, |t| t.flags_local += here);
    let write = site.pass.commit(move |tx| {
        for (link, agreed, entry) in &writes {
            tx.set_flags(*link, agreed)?;
            tx.journal(entry)?;
        }
        Ok(())
    });
    write.await
}

/// Returns what is agreed when a keyword got no letter: the base must not claim what the file does not say.
fn without_refused(agreed: &Flags, local: &FlagChange, located: &Located) -> Flags {
    agreed.difference(&local.add.difference(&located.flags))
}
