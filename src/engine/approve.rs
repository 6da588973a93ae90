//! Lets go what is held, or puts it back.

use super::report::{Approve, Approved};
use super::{Error, Mirror};
use crate::config::Account;
use crate::db::{Db, HeldCount, HoldCause, Tx};
use crate::model::{Link, LinkState, MailboxId, Side};

/// Lets what is held go, or puts it back; the next pass does it. Returns the mailboxes in which something was held.
///
/// # Errors
/// [`Error::Busy`] while another process has the account, and those of the database.
pub async fn approve(account: &Account, what: &Approve) -> Result<Vec<Approved>, Error> {
    Mirror::open(account, &what.state_dir)?.approve(what).await
}

/// Does so in a database that is open.
pub(super) async fn approve_in(db: &Db, what: &Approve) -> Result<Vec<Approved>, Error> {
    let (wanted, undo) = (what.mailbox.clone(), what.undo);
    let approved = db.commit(move |tx| {
        let mut out = Vec::new();
        for HeldCount { mailbox: id, waiting, whole } in tx.held_counts()? {
            let Some(mailbox) = tx.mailbox(id)? else { continue };
            let whole = whole.filter(|hold| !hold.approved);
            let whole_waits = whole.is_some();
            if wanted.as_ref().is_some_and(|name| *name != mailbox.name) || (waiting == 0 && !whole_waits) {
                continue;
            }
            // Nothing of a mailbox was removed because its numbers change, so nothing can be put back.
            let missing = whole.as_ref().is_some_and(|hold| hold.cause == HoldCause::MaildirMissing);
            if undo && whole_waits && !missing {
                continue;
            }
            let removals = if missing { tx.count(id)?.synced } else { waiting };
            if undo {
                put_back(tx, id, whole_waits)?;
            } else {
                if missing {
                    // The whole mailbox was emptied here: every message of it is let go.
                    let links = all_links(tx, id)?;
                    let sides: Vec<_> = links.iter().map(|link| (link.id, Side::Remote)).collect();
                    tx.hold(id, &sides)?;
                }
                tx.approve(id)?;
            }
            out.push(Approved { mailbox: mailbox.name, removals });
        }
        Ok(out)
    });
    Ok(approved.await?)
}

fn all_links(tx: &Tx<'_>, id: MailboxId) -> Result<Vec<Link>, crate::db::Error> {
    let mut links = Vec::new();
    tx.links_by_uid(id, &mut |link| links.push(link))?;
    links.retain(|link| matches!(link.state, LinkState::Synced { .. }));
    Ok(links)
}

/// Forgets the rows of what would have been removed: the copy that is left then looks new, and comes back to the other
/// side. The whole mailbox is looked at again, since no change would name it.
fn put_back(tx: &Tx<'_>, id: MailboxId, whole: bool) -> Result<(), crate::db::Error> {
    let links = if whole {
        all_links(tx, id)?.iter().map(|link| link.id).collect()
    } else {
        tx.held(id)?.iter().filter(|held| !held.approved).map(|held| held.link).collect::<Vec<_>>()
    };
    for link in links {
        tx.delete_link(link)?;
    }
    if whole {
        // An approval of the hold is what lets the maildir be made again.
        tx.approve(id)?;
    } else {
        tx.release(id)?;
    }
    if let Some(mut mailbox) = tx.mailbox(id)? {
        (mailbox.must_list, mailbox.must_scan) = (true, true);
        tx.update_mailbox(&mailbox)?;
    }
    Ok(())
}
