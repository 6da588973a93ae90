//! Messages about which the server refused something, each with a time to try it again.

use super::{Error, Tx};
use crate::model::{LinkId, MailboxId};

/// A message about which the server refused something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Again {
    /// Its link.
    pub link: LinkId,
    /// How often that was tried.
    pub tries: u32,
    /// When to try again, in seconds since 1970; `None`: not before somebody asks for it.
    pub next_at: Option<i64>,
    /// The server's words.
    pub why: String,
}

impl Tx<'_> {
    /// Returns the messages of a mailbox about which something was refused.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn again(&self, mailbox: MailboxId) -> Result<Vec<Again>, Error> {
        // CROSS JOIN keeps the order: from the few that were refused to their links, not through all links of the mailbox.
        let sql = "SELECT again.link, tries, next_at, why FROM again CROSS JOIN link ON link.id = again.link \
                   WHERE link.mailbox = ?1 ORDER BY again.link";
        self.all("read what the server refused", sql, [mailbox], |row| {
            Ok(Again { link: row.get(0)?, tries: row.get(1)?, next_at: row.get(2)?, why: row.get(3)? })
        })
    }

    /// Writes down that something about a message was refused; how often that was so before is kept in mind.
    ///
    /// # Errors
    /// Those of [`Tx`]; also if there is no such link.
    pub fn refuse(&self, link: LinkId, why: &str, next_at: impl Fn(u32) -> Option<i64>) -> Result<(), Error> {
        let sql = "SELECT tries FROM again WHERE link = ?1";
        let tries = self.first("read what the server refused", sql, [link], |row| row.get::<_, u32>(0))?;
        let tries = tries.unwrap_or(0).saturating_add(1);
        let sql = "INSERT INTO again (link, tries, next_at, why) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (link) DO UPDATE \
                   SET tries = excluded.tries, next_at = excluded.next_at, why = excluded.why";
        self.execute_one("write down what the server refused", sql, (link, tries, next_at(tries), why))
    }

    /// Forgets that something about a message was refused: nobody wants it any more.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn want_no_more(&self, link: LinkId) -> Result<(), Error> {
        self.execute("forget what the server refused", "DELETE FROM again WHERE link = ?1", [link]).map(|_| ())
    }

    /// Returns when the next of all is to be tried again, in seconds since 1970.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn next_again(&self) -> Result<Option<i64>, Error> {
        self.one("read what the server refused", "SELECT min(next_at) FROM again", [], |row| row.get(0))
    }
}
