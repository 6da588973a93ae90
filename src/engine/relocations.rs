//! Gathers what the search for moves needs to know, over all mailboxes of a round; [`moves`] decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cycle::Examined;
use super::moves::{self, Part};
use super::op::{Op, Planned};
use super::pass::Pass;
use super::rebind::Unlinked;
use super::{Error, execute};
use crate::imap::Habit;
use crate::maildir::Stamp;
use crate::model::{ContentKey, MailboxId, MailboxName, TUID_LINE, UidSet};

/// In how many rounds of a pass what may be half of a move is left to the next one.
const HESITATIONS: u32 = 2;

impl Pass<'_> {
    /// Tells whether something that came or went may be half of a move whose other half was not seen: a maildir changed
    /// since it was looked at, or (`broke`) a mailbox could not be looked at. Then both are left to the next round, which
    /// looks at all these mailboxes together.
    pub(super) fn hesitates(
        &self,
        examined: &mut [Examined],
        places: &BTreeMap<MailboxName, execute::Place>,
        broke: bool,
        left: &mut BTreeSet<MailboxName>,
    ) -> Result<bool, Error> {
        let is_half = |planned: &Planned| moves::may_be_half(planned, broke);
        let planned = |one: &Examined| one.part.plan.iter().any(is_half);
        if self.options.dry_run || self.hesitations.get() == HESITATIONS || !examined.iter().any(planned) {
            return Ok(false);
        }
        let seen: BTreeMap<&MailboxName, Stamp> =
            examined.iter().filter_map(|one| Some((&one.mailbox.name, one.stamp_when_seen()?))).collect();
        let mut changed = BTreeSet::new();
        for (name, place) in places {
            let seen = seen.get(name).copied().or_else(|| place.mailbox.stamp.map(Stamp::from_numbers));
            if seen != Some(place.maildir.stamp()?) {
                changed.insert(name.clone());
            }
        }
        if changed.is_empty() && !broke {
            return Ok(false);
        }
        tracing::debug!(account = self.account.name, "left what may be half of a move to the next round");
        self.hesitations.set(self.hesitations.get() + 1);
        left.extend(changed);
        for one in examined {
            let count = one.part.plan.len();
            one.part.plan.retain(|planned| !is_half(planned));
            one.part.postponed |= one.part.plan.len() < count;
        }
        Ok(true)
    }

    /// Recognises moves over all mailboxes, in both directions.
    pub(super) async fn find_moves(&self, examined: &mut [Examined]) -> Result<(), Error> {
        if moves::may_have_moved_here(examined.iter().map(|e| &e.part)) {
            for one in &mut *examined {
                let (files, Some(maildir)) = (one.files(), &one.maildir) else { continue };
                let uploads = one.part.plan.iter().filter_map(|p| match &p.op {
                    Op::Upload { name, .. } => Some((name.clone(), files.get(name)?.file)),
                    _ => None,
                });
                let (uploads, maildir) = (uploads.collect::<Vec<_>>(), Arc::clone(maildir));
                let keys = move || {
                    // What cannot be read has no content that could prove a move.
                    let key = |(name, file)| Some((name, maildir.key(&file).ok()?.keys));
                    uploads.into_iter().filter_map(key).collect()
                };
                one.part.files = tokio::task::spawn_blocking(keys).await?;
            }
        }
        let sizes = moves::sizes_gone_there(examined.iter().map(|e| &e.part));
        if !sizes.is_empty() {
            let contents: Vec<ContentKey> =
                examined.iter().flat_map(|e| e.part.base.values().filter_map(|link| link.content)).collect();
            for one in &mut *examined {
                one.part.messages = self.candidates(one, &sizes, &contents).await?;
            }
        }
        let mut parts: BTreeMap<MailboxId, Part> =
            examined.iter_mut().map(|e| (e.mailbox.id, std::mem::take(&mut e.part))).collect();
        moves::find(&mut parts);
        for one in examined {
            if let Some(part) = parts.remove(&one.mailbox.id) {
                one.part = part;
            }
        }
        Ok(())
    }

    /// Returns what is known, without their bodies, of the new messages that have one of these sizes.
    async fn candidates(
        &self,
        one: &Examined,
        sizes: &[u64],
        contents: &[ContentKey],
    ) -> Result<BTreeMap<crate::model::Uid, Unlinked>, Error> {
        let new = one.part.plan.iter().filter_map(|p| match &p.op {
            Op::Download { uid, link: None, .. } => Some(*uid),
            _ => None,
        });
        let new: UidSet = new.collect();
        if new.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut session = self.pool.get().await?;
        let result = async {
            session.select(&super::observe::raw_name(&one.mailbox)).await?;
            if session.quirks().has(Habit::EstimatesSizes) {
                let mut seen = session.fingerprints(&new).await?;
                super::observe::settle_sizes(&session, &mut seen, contents.iter().copied());
                return Ok(seen);
            }
            // A message that has mbsync's mark is as much larger than its file.
            let fits = |size: &u64| sizes.contains(size) || sizes.contains(&size.saturating_sub(TUID_LINE));
            let of_size = session.sizes(&new).await?.into_iter().filter(|(_, size)| fits(size));
            let of_size: UidSet = of_size.map(|(uid, _)| uid).collect();
            Ok(session.fingerprints(&of_size).await?)
        }
        .await;
        let unlinked = |seen: crate::imap::Seen| {
            let crate::imap::Seen { uid, fingerprint, bare, internal_date, .. } = seen;
            (uid, Unlinked { uid, fingerprint, bare, internal_date })
        };
        Ok(session.done(result)?.into_iter().map(unlinked).collect())
    }
}
