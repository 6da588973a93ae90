//! Messages that the server lists and does not give: each has a link that is skipped, and a time to ask for it again.

use super::{Error, Tx};
use crate::model::{Link, LinkId, MailboxId};

/// A message that the server lists and does not give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Withheld {
    /// Its link.
    pub link: LinkId,
    /// How often it was asked for.
    pub tries: u32,
    /// When to ask again, in seconds since 1970.
    pub next_at: i64,
}

impl Tx<'_> {
    /// Returns the messages of a mailbox that are withheld.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn withheld(&self, mailbox: MailboxId) -> Result<Vec<Withheld>, Error> {
        // CROSS JOIN keeps the order: from the few that are withheld to their links, not through all links of the mailbox.
        let sql = "SELECT withheld.link, tries, next_at FROM withheld CROSS JOIN link ON link.id = withheld.link \
                   WHERE link.mailbox = ?1 AND link.state = 3 ORDER BY link.uid";
        self.all("read what the server does not give", sql, [mailbox], |row| {
            Ok(Withheld { link: row.get(0)?, tries: row.get(1)?, next_at: row.get(2)? })
        })
    }

    /// Returns the links of a mailbox that are withheld and to be asked for again at this time.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn withheld_until(&self, mailbox: MailboxId, now: i64) -> Result<Vec<Link>, Error> {
        let due: Vec<LinkId> =
            self.withheld(mailbox)?.into_iter().filter(|w| w.next_at <= now).map(|w| w.link).collect();
        self.links_by_ids(&due)
    }

    /// Writes down that a message is withheld; how often it was asked for before is kept in mind.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn withhold(&self, link: LinkId, next_at: impl Fn(u32) -> i64) -> Result<(), Error> {
        let sql = "SELECT tries FROM withheld WHERE link = ?1";
        let tries = self.first("read what the server does not give", sql, [link], |row| row.get::<_, u32>(0))?;
        let tries = tries.unwrap_or(0).saturating_add(1);
        let sql = "INSERT INTO withheld (link, tries, next_at) VALUES (?1, ?2, ?3) \
                   ON CONFLICT (link) DO UPDATE SET tries = excluded.tries, next_at = excluded.next_at";
        self.execute_one("write down what the server does not give", sql, (link, tries, next_at(tries)))
    }
}
