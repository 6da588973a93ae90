//! The journal: what was done, when and why. It is for people and for the guard's count over a day.

use globset::GlobMatcher;

use super::value::Unsigned;
use super::{Error, Tx};
use crate::model::MailboxName;

/// How long an entry is kept at least, in milliseconds: 90 days, as long as the graveyard keeps what it tells of.
const KEPT_MS: i64 = 90 * 24 * 60 * 60 * 1000;

/// How many entries are kept at most, within [`PRUNE_EVERY`]: some 200 MB.
const KEPT_ROWS: i64 = 1_000_000;

/// After how many entries old ones are deleted.
const PRUNE_EVERY: i64 = 1024;

/// How many entries one such time deletes at most, so that no commit is a long one.
const PRUNE_ROWS: i64 = 4 * PRUNE_EVERY;

/// Something that was done to a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// In which mailbox.
    pub mailbox: MailboxName,
    /// What: the op in the one-line form of a dry run.
    pub op: String,
    /// Why.
    pub cause: String,
    /// What kind of op: `download`, `upload`, `flags`, `remove`, `expunge`, `move`, …
    pub kind: String,
    /// Where the removed file is now, if one was removed.
    pub kept: Option<String>,
}

/// Which mailboxes are asked for.
#[derive(Clone, Debug, Default)]
pub enum Which {
    /// All.
    #[default]
    All,
    /// One.
    Named(MailboxName),
    /// Those whose name matches.
    Matching(GlobMatcher),
}

/// Which entries are asked for.
#[derive(Clone, Debug)]
pub struct Query {
    /// Of these mailboxes.
    pub mailboxes: Which,
    /// Not older than this, in milliseconds since 1970.
    pub since: Option<i64>,
    /// The newest of them, so many at most.
    pub limit: usize,
}

impl Tx<'_> {
    /// Adds an entry, and now and then deletes old ones.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn journal(&self, entry: &Entry) -> Result<(), Error> {
        let sql = "INSERT INTO journal (at, mailbox, op, cause, kind, kept) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let Entry { at, mailbox, op, cause, kind, kept } = entry;
        self.execute_one("write the journal", sql, (at, mailbox, op, cause, kind, kept))?;
        let id = self.conn.last_insert_rowid();
        if id % PRUNE_EVERY == 0 {
            self.prune(at.saturating_sub(KEPT_MS), id - KEPT_ROWS)?;
        }
        Ok(())
    }

    /// Returns the newest entries that are asked for, the oldest of them first.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn entries(&self, query: &Query) -> Result<Vec<Entry>, Error> {
        let sql = "SELECT at, mailbox, op, cause, kind, kept FROM journal WHERE at >= ?1 ORDER BY at DESC, id DESC";
        let mut found = Vec::new();
        self.each_while("read the journal", sql, [query.since.unwrap_or(i64::MIN)], |row| {
            let mailbox: MailboxName = row.get(1)?;
            let asked = match &query.mailboxes {
                Which::All => true,
                Which::Named(name) => *name == mailbox,
                Which::Matching(glob) => glob.is_match(mailbox.as_str()),
            };
            if asked && found.len() < query.limit {
                let (at, op, cause) = (row.get(0)?, row.get(2)?, row.get(3)?);
                found.push(Entry { at, mailbox, op, cause, kind: row.get(4)?, kept: row.get(5)? });
            }
            Ok(found.len() < query.limit)
        })?;
        found.reverse();
        Ok(found)
    }

    /// Returns how many messages of a mailbox were removed or expunged at `at` (milliseconds since 1970) or later.
    /// Moves do not count.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn removals_since(&self, mailbox: &MailboxName, at: i64) -> Result<u64, Error> {
        let sql = "SELECT count(*) FROM journal WHERE mailbox = ?1 AND at >= ?2 AND kind IN ('remove', 'expunge')";
        self.one("count removals", sql, (mailbox, at), |row| row.get(0)).map(|Unsigned(n)| n)
    }

    /// Deletes some of the entries that are older than `before` or not after the row `last`.
    fn prune(&self, before: i64, last: i64) -> Result<(), Error> {
        let old = "DELETE FROM journal WHERE id IN (SELECT id FROM journal WHERE at < ?1 ORDER BY at LIMIT ?2)";
        self.execute("prune the journal", old, (before, PRUNE_ROWS))?;
        let many = "DELETE FROM journal WHERE id IN (SELECT id FROM journal WHERE id <= ?1 ORDER BY id LIMIT ?2)";
        self.execute("prune the journal", many, (last, PRUNE_ROWS)).map(|_| ())
    }
}
