//! The ops that change nothing but the base.

use super::Site;
use crate::db::NewLink;
use crate::engine::Error;
use crate::engine::cycle::Outcome;
use crate::engine::op::{Op, Planned};
use crate::model::{ContentKey, Link, LinkState, Side, SkipReason, Uid, UniqueName};

/// Carries out `Adopt`, `Forget`, `Supersede` and `Keep`, in one commit.
pub(super) async fn write_down(site: &Site<'_>, ops: Vec<Planned>, outcome: &mut Outcome) -> Result<(), Error> {
    if ops.is_empty() {
        return Ok(());
    }
    let mut writes: Vec<(Planned, Option<Link>)> = Vec::new();
    for planned in ops {
        let Some(link) = planned.op.link().and_then(|id| site.base.get(&id)) else { continue };
        let link = link.clone();
        match &planned.op {
            Op::Adopt { uid, name, .. } => match adopt(site, &link, *uid, name).await? {
                Adoption::Whole(adopted) => writes.push((planned, Some(*adopted))),
                Adoption::Later => outcome.left = true,
                Adoption::Foreign => {
                    let forget = Planned { op: Op::Forget { link: link.id }, why: planned.why };
                    outcome.left = true;
                    writes.push((forget, None));
                }
            },
            Op::Supersede { .. } => {
                // What the link stood for has no file any more: a name that no file can have says so.
                let LinkState::Synced { uid, flags, .. } = &link.state else { continue };
                let name = UniqueName::new(format!(".superseded.{}", link.id.0).as_bytes());
                let state = LinkState::Synced { uid: *uid, name, flags: flags.clone() };
                outcome.left = true;
                writes.push((planned, Some(Link { state, inode: None, ..link })));
            }
            Op::Keep { side, .. } => {
                let (uid, name) = match side {
                    Side::Local => (None, link.name().cloned()),
                    Side::Remote => (link.uid(), None),
                };
                let state = LinkState::Skipped { uid, name, reason: SkipReason::Kept };
                writes.push((planned, Some(Link { state, ..link })));
            }
            _ => writes.push((planned, None)),
        }
    }
    let writes: Vec<_> =
        writes.into_iter().map(|(planned, link)| (site.entry(&planned, None), planned, link)).collect();
    let count = |kind: &str| writes.iter().filter(|(entry, ..)| entry.kind == kind).count() as u64;
    site.pass.tally(&site.mailbox.name, |t| t.adopted += count("adopt"));
    let write = site.pass.commit(move |tx| {
        // Rows that go make room for those that take their number or name.
        for (_, planned, link) in &writes {
            if let (None, Some(id)) = (link, planned.op.link()) {
                tx.delete_link(id)?;
            }
        }
        for (entry, _, link) in &writes {
            if let Some(link) = link {
                tx.set_link(link)?;
            }
            tx.journal(entry)?;
        }
        Ok(())
    });
    write.await
}

/// Carries out `Join`, in one commit: the row of the mailbox that both sides moved a message out of goes, and one here
/// stands for it with the same flags, so that what was changed on either side meanwhile is merged.
pub(super) async fn join(site: &Site<'_>, ops: Vec<Planned>, outcome: &mut Outcome) -> Result<(), Error> {
    let mut writes = Vec::new();
    for planned in ops {
        let Op::Join { link, into, uid, name } = &planned.op else { continue };
        let (Some(link), Some(file)) = (site.base.get(link), site.file(name)) else {
            outcome.left = true;
            continue;
        };
        let LinkState::Synced { flags, .. } = &link.state else { continue };
        let maildir = std::sync::Arc::clone(&site.maildir);
        let keyed = tokio::task::spawn_blocking(move || maildir.key(&file)).await?;
        let Some(keyed) = keyed.ok().filter(|keyed| link.content == Some(keyed.key)) else {
            outcome.left = true;
            continue;
        };
        let state = LinkState::Synced { uid: *uid, name: name.clone(), flags: flags.clone() };
        let Link { id, content, internal_date, .. } = link.clone();
        let new = NewLink { state, content, internal_date, inode: Some(keyed.inode) };
        writes.push((id, *into, new, site.entry(&planned, None)));
    }
    if writes.is_empty() {
        return Ok(());
    }
    site.pass.tally(&site.mailbox.name, |t| t.moved += writes.len() as u64);
    let mailbox = site.mailbox.id;
    let write = site.pass.commit(move |tx| {
        for (old, into, new, entry) in &writes {
            tx.delete_link(*old)?;
            if let Some(into) = into {
                tx.delete_link(*into)?;
            }
            tx.insert_link(mailbox, new)?;
            tx.journal(entry)?;
        }
        Ok(())
    });
    write.await
}

/// What became of a half that was found.
enum Adoption {
    /// The complete link.
    Whole(Box<Link>),
    /// Its file cannot be read now.
    Later,
    /// The file that has the name of an interrupted download is another message: both are new to each other.
    Foreign,
}

/// Completes a link, if its file is what the intent promised.
async fn adopt(site: &Site<'_>, link: &Link, uid: Uid, name: &UniqueName) -> Result<Adoption, Error> {
    let flags = match &link.state {
        LinkState::Synced { flags, .. } | LinkState::Downloading { flags, .. } | LinkState::Uploading { flags, .. } => {
            flags.clone()
        }
        LinkState::Skipped { .. } => return Ok(Adoption::Later),
    };
    let (mut content, mut internal_date, mut inode) = (link.content, link.internal_date, link.inode);
    if let Some(file) = site.file(name) {
        let maildir = std::sync::Arc::clone(&site.maildir);
        match tokio::task::spawn_blocking(move || maildir.key(&file)).await? {
            Ok(keyed) => {
                let key: ContentKey = keyed.key;
                let downloading = matches!(link.state, LinkState::Downloading { .. });
                if downloading && content.is_some_and(|promised| promised != key) {
                    tracing::warn!(mailbox = %site.mailbox.name, %name, "another message took the name of a download");
                    return Ok(Adoption::Foreign);
                }
                // A file that is not what was sent is looked at again under its own name.
                inode = content.is_none_or(|known| known == key).then_some(keyed.inode);
                content = content.or(Some(key));
                internal_date = internal_date.or(Some(keyed.internal_date));
            }
            Err(error) => {
                tracing::info!(mailbox = %site.mailbox.name, %name, %error, "left an unfinished message for later");
                return Ok(Adoption::Later);
            }
        }
    } else if content.is_none() {
        return Ok(Adoption::Later);
    }
    let state = LinkState::Synced { uid, name: name.clone(), flags };
    Ok(Adoption::Whole(Box::new(Link { id: link.id, state, content, internal_date, inode })))
}
