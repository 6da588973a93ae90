//! The database as its users see it.

mod crash;
mod files;
mod rows;
mod rules;
mod space;
mod threads;
mod walk;

use std::path::Path;

use super::*;
use crate::model::{
    ContentKey, Digest, Fingerprint, Flags, Keyword, LinkState, MailboxId, MailboxName, SkipReason, Uid, UniqueName,
};

fn uid(n: u32) -> Uid {
    Uid::new(n.into()).unwrap()
}

fn name(text: &str) -> UniqueName {
    UniqueName::new(text.as_bytes())
}

fn content(n: u64) -> ContentKey {
    let mut digest = [7; 32];
    digest[..8].copy_from_slice(&n.to_le_bytes());
    ContentKey { digest: Digest(digest), fingerprint: Fingerprint { header: Digest([n as u8; 32]), size: n } }
}

fn new(state: LinkState) -> NewLink {
    NewLink { state, content: None, internal_date: None, inode: None }
}

/// A link that both sides have, with the UID `n` and a name and a content that no other number gives.
fn synced(n: u32) -> NewLink {
    let state = LinkState::Synced { uid: uid(n), name: name(&format!("{n}.host")), flags: flags(16, "") };
    NewLink { state, content: Some(content(n.into())), internal_date: Some(i64::from(n)), inode: Some(n.into()) }
}

fn flags(bits: u8, words: &str) -> Flags {
    Flags::from_parts(bits, words.split_whitespace().map(|word| Keyword::new(word).unwrap()))
}

fn mailbox(tx: &Tx<'_>, name: &str) -> MailboxId {
    tx.insert_mailbox(&NewMailbox { name: MailboxName::from(name), raw: None, path: None }).unwrap()
}

/// Runs `f` in a transaction of an empty database.
fn fresh<T: Send + 'static>(f: impl FnOnce(&Tx<'_>) -> T + Send + 'static) -> T {
    Db::memory().unwrap().commit_now(|tx| Ok(f(tx))).unwrap()
}

fn integrity(file: &Path) -> String {
    let conn = rusqlite::Connection::open(file).unwrap();
    conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}
