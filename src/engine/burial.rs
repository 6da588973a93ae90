//! Ends mailboxes that are gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Error;
use super::cycle::Examined;
use super::mailboxes::entry;
use super::pass::Pass;
use crate::db::Tx;
use crate::model::MailboxId;

/// Ends a mailbox that is gone from the server, once its messages are in the graveyard: what is left in its maildir is
/// new or was changed here, and makes it a mailbox again. Returns whether nothing is left to do.
pub(super) async fn bury(pass: &Pass<'_>, examined: Examined) -> Result<bool, Error> {
    let (id, name) = (examined.mailbox.id, examined.mailbox.name.clone());
    let removals_wait = pass
        .db
        .read(move |tx| {
            let mut waiting = false;
            let held: BTreeSet<_> = tx.held(id)?.into_iter().map(|h| h.link).collect();
            tx.links_by_uid(id, &mut |link| waiting |= held.contains(&link.id))?;
            Ok(waiting)
        })
        .await?;
    let unexamined = examined.scanned.as_ref().is_none_or(|s| s.doubt.is_some());
    if removals_wait || unexamined {
        return Ok(false);
    }
    let left = match &examined.maildir {
        Some(maildir) => {
            let maildir = Arc::clone(maildir);
            tokio::task::spawn_blocking(move || maildir.scan()).await??.len()
        }
        None => 0,
    };
    if left == 0
        && let (Some(root), Some(path)) = (&pass.root, &examined.mailbox.path)
    {
        match root.archive_maildir(path, &pass.graveyard, &name) {
            Ok(()) | Err(crate::maildir::Error::Occupied { .. } | crate::maildir::Error::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let what = if left == 0 { "archive the maildir" } else { "forget the mailbox" };
    let done = entry(&name, "forget", what.to_owned(), "deleted on the server");
    let write = pass.db.commit(move |tx| {
        tx.journal(&done)?;
        delete(tx, id)
    });
    write.await?;
    tracing::info!(mailbox = %name, left, "a mailbox that is gone from the server was ended");
    if left > 0 {
        pass.touch(&name);
    }
    Ok(left == 0)
}

/// Deletes the row of a mailbox, and those of its messages.
pub(super) fn delete(tx: &Tx<'_>, id: MailboxId) -> Result<(), crate::db::Error> {
    let mut links = Vec::new();
    tx.links_by_uid(id, &mut |link| links.push(link.id))?;
    tx.links_by_name(id, &mut |row| links.push(row.id))?;
    links.sort_unstable();
    links.dedup();
    for link in links {
        tx.delete_link(link)?;
    }
    tx.delete_mailbox(id)
}
