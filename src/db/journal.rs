//! The journal: what was done, when and why. It is for people and for the guard's count over a day.

use super::value::Unsigned;
use super::{Error, Tx};
use crate::model::MailboxName;

/// How long an entry is kept at least, in milliseconds: 90 days, as long as the graveyard keeps what it tells of.
const KEPT_MS: i64 = 90 * 24 * 60 * 60 * 1000;

/// How many entries are kept at most, within [`PRUNE_EVERY`]: some 200 MB.
const KEPT_ROWS: i64 = 1_000_000;

/// After how many entries old ones are deleted.
const PRUNE_EVERY: i64 = 1024;

/// How many entries one such time looks at, the oldest: more than came, and so few that no commit is a long one.
const PRUNE_ROWS: i64 = 2 * PRUNE_EVERY;

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
    /// What kind of op: `download`, `upload`, `flags`, `remove`, `expunge`, `move`, `renumber`, `create`, `rename`, …
    pub kind: String,
    /// Where the removed file is now, if one was removed.
    pub kept: Option<String>,
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

    /// Returns the entries of a mailbox, or of all, that are not older than `since` (milliseconds since 1970); the oldest
    /// is the first.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn entries(&self, mailbox: Option<&MailboxName>, since: Option<i64>) -> Result<Vec<Entry>, Error> {
        let sql = "SELECT at, mailbox, op, cause, kind, kept FROM journal \
                   WHERE at >= ?1 AND (?2 IS NULL OR mailbox = ?2) ORDER BY at, id";
        self.all("read the journal", sql, (since.unwrap_or(i64::MIN), mailbox), |row| {
            let (at, mailbox, op, cause) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(Entry { at, mailbox, op, cause, kind: row.get(4)?, kept: row.get(5)? })
        })
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

    /// Returns how often the server renumbered a mailbox at `at` (milliseconds since 1970) or later.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn renumberings_since(&self, mailbox: &MailboxName, at: i64) -> Result<u64, Error> {
        let sql = "SELECT count(*) FROM journal WHERE mailbox = ?1 AND at >= ?2 AND kind = 'renumber'";
        self.one("count renumberings", sql, (mailbox, at), |row| row.get(0)).map(|Unsigned(n)| n)
    }

    /// Deletes some of the entries that are older than `before`, or whose number is `last` or below.
    fn prune(&self, before: i64, last: i64) -> Result<(), Error> {
        // Numbers grow with time, so the old ones are at the front; only where the clock was changed are others between.
        let sql = "DELETE FROM journal WHERE (at < ?1 OR id <= ?2) \
                   AND id IN (SELECT id FROM journal ORDER BY id LIMIT ?3)";
        self.execute("prune the journal", sql, (before, last, PRUNE_ROWS)).map(|_| ())
    }
}
