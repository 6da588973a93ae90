//! What the guard holds back until the user approves it: removals, or a mailbox as a whole.

use std::collections::BTreeMap;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use super::value::Unsigned;
use super::{Error, Tx};
use crate::model::{LinkId, MailboxId, Side};

impl ToSql for Side {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Local => "local".into(),
            Self::Remote => "remote".into(),
        })
    }
}

impl FromSql for Side {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "local" => Ok(Self::Local),
            "remote" => Ok(Self::Remote),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// A removal that is held, or was and is approved now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// The link.
    pub link: LinkId,
    /// The side that would lose the message.
    pub side: Side,
    /// Since when, in seconds since 1970.
    pub at: i64,
    /// True if the user lets it go.
    pub approved: bool,
}

/// What holds a mailbox as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HoldCause {
    /// Its maildir is missing.
    MaildirMissing = 0,
    /// The server gave it new numbers again and again.
    Renumbered = 1,
}

impl FromSql for HoldCause {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            0 => Ok(Self::MaildirMissing),
            1 => Ok(Self::Renumbered),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

/// Why a mailbox is held as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailboxHold {
    /// What holds it.
    pub cause: HoldCause,
    /// The reason, for the user.
    pub reason: String,
    /// Since when, in seconds since 1970.
    pub at: i64,
    /// True if the user lets it go.
    pub approved: bool,
}

/// What is held of a mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldCount {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// How many removals wait for approval.
    pub waiting: u64,
    /// Why the mailbox is held as a whole, if it is.
    pub whole: Option<MailboxHold>,
}

impl Tx<'_> {
    /// Holds these removals of a mailbox, in place of those that waited until now; one that waited already keeps its
    /// time. An approval stays, unless the other side would lose the message now. A link that is not in the mailbox is
    /// passed over.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn hold(&self, mailbox: MailboxId, removals: &[(LinkId, Side)]) -> Result<(), Error> {
        let wanted: BTreeMap<LinkId, Side> = removals.iter().copied().collect();
        for old in self.held(mailbox)? {
            if !old.approved && !wanted.contains_key(&old.link) {
                self.execute("release a removal", "DELETE FROM held WHERE link = ?1", [old.link])?;
            }
        }
        let sql = "INSERT INTO held (link, side) SELECT id, ?3 FROM link WHERE id = ?1 AND mailbox = ?2 \
                   ON CONFLICT (link) DO UPDATE SET side = excluded.side, at = excluded.at, approved = 0 \
                   WHERE side <> excluded.side";
        for (link, side) in wanted {
            self.execute("hold a removal", sql, (link, mailbox, side))?;
        }
        Ok(())
    }

    /// Holds a mailbox as a whole. If it is held for the same reason already, its time and its approval stay.
    ///
    /// # Errors
    /// Those of [`Tx`]; also if the mailbox is not there.
    pub fn hold_mailbox(&self, mailbox: MailboxId, cause: HoldCause, reason: &str) -> Result<(), Error> {
        let sql = "INSERT INTO held_mailbox (mailbox, cause, reason) VALUES (?1, ?2, ?3) \
                   ON CONFLICT (mailbox) DO UPDATE SET cause = excluded.cause, reason = excluded.reason, \
                   at = excluded.at, approved = 0 WHERE reason <> excluded.reason";
        self.execute("hold a mailbox", sql, (mailbox, cause as u8, reason)).map(|_| ())
    }

    /// Returns the removals of a mailbox that are held or approved, in the order of their links.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn held(&self, mailbox: MailboxId) -> Result<Vec<Held>, Error> {
        // CROSS JOIN keeps the order: from the few that are held to their links, not through all links of the mailbox.
        let sql = "SELECT held.link, held.side, held.at, held.approved FROM held \
                   CROSS JOIN link ON link.id = held.link \
                   WHERE link.mailbox = ?1 ORDER BY held.link";
        self.all("read what is held", sql, [mailbox], |row| {
            Ok(Held { link: row.get(0)?, side: row.get(1)?, at: row.get(2)?, approved: row.get(3)? })
        })
    }

    /// Returns why a mailbox is held as a whole, if it is.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn mailbox_hold(&self, mailbox: MailboxId) -> Result<Option<MailboxHold>, Error> {
        let sql = "SELECT cause, reason, at, approved FROM held_mailbox WHERE mailbox = ?1";
        self.first("read why a mailbox is held", sql, [mailbox], |row| {
            Ok(MailboxHold { cause: row.get(0)?, reason: row.get(1)?, at: row.get(2)?, approved: row.get(3)? })
        })
    }

    /// Returns what is held of each mailbox that has something held, in the order of their numbers.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn held_counts(&self) -> Result<Vec<HeldCount>, Error> {
        let sql = "SELECT mailbox, sum(waiting) FROM \
                   (SELECT link.mailbox, 1 - held.approved AS waiting FROM held \
                    CROSS JOIN link ON link.id = held.link UNION ALL SELECT mailbox, 0 FROM held_mailbox) \
                   GROUP BY mailbox ORDER BY mailbox";
        let mut counts = self.all("count what is held", sql, [], |row| {
            Ok(HeldCount { mailbox: row.get(0)?, waiting: row.get::<_, Unsigned>(1)?.0, whole: None })
        })?;
        for count in &mut counts {
            count.whole = self.mailbox_hold(count.mailbox)?;
        }
        Ok(counts)
    }

    /// Approves everything that waits in a mailbox; returns how many approvals this were, the one for the mailbox as a
    /// whole included.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn approve(&self, mailbox: MailboxId) -> Result<usize, Error> {
        let sql = "UPDATE held SET approved = 1 \
                   WHERE approved = 0 AND (SELECT mailbox FROM link WHERE id = held.link) = ?1";
        let removals = self.execute("approve what is held", sql, [mailbox])?;
        let sql = "UPDATE held_mailbox SET approved = 1 WHERE approved = 0 AND mailbox = ?1";
        Ok(removals + self.execute("approve what is held", sql, [mailbox])?)
    }

    /// Drops everything that is held or approved of a mailbox, and the hold of the mailbox as a whole.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn release(&self, mailbox: MailboxId) -> Result<(), Error> {
        let sql = "DELETE FROM held WHERE (SELECT mailbox FROM link WHERE id = held.link) = ?1";
        self.execute("release what is held", sql, [mailbox])?;
        self.execute("release what is held", "DELETE FROM held_mailbox WHERE mailbox = ?1", [mailbox]).map(|_| ())
    }
}
