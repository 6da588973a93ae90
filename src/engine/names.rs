//! The names of all files that a mailbox's links stand for, in little memory: read from the database while the maildir
//! is read from the disk, so that both can be compared afterwards.

use crate::db::{Error, LinkRow, Stage, Tx};
use crate::model::{LinkId, MailboxId};

/// The links of a mailbox that have a file, in the order of its name. 100,000 take about 8 MB.
#[derive(Default)]
pub(super) struct Names {
    text: Vec<u8>,
    rows: Vec<Row>,
    /// Few links have keywords: with the place of the row in `rows`, in order.
    keywords: Vec<(usize, Box<str>)>,
}

struct Row {
    id: i64,
    inode: u64,
    start: usize,
    length: u16,
    flags: u8,
    state: Stage,
    has_inode: bool,
}

impl Names {
    /// Reads the links of a mailbox.
    pub(super) fn read(tx: &Tx<'_>, mailbox: MailboxId) -> Result<Self, Error> {
        let mut names = Self::default();
        tx.links_by_name(mailbox, &mut |row| names.add(&row))?;
        Ok(names)
    }

    fn add(&mut self, row: &LinkRow<'_>) {
        let LinkRow { id, name, flags, keywords, inode, state } = *row;
        // No file system has longer names; one that could not be cannot be found either.
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        if !keywords.is_empty() {
            self.keywords.push((self.rows.len(), keywords.into()));
        }
        let (start, has_inode) = (self.text.len(), inode.is_some());
        self.text.extend_from_slice(&name[..usize::from(length)]);
        self.rows.push(Row { id: id.0, inode: inode.unwrap_or_default(), start, length, flags, state, has_inode });
    }

    /// Returns the links in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = LinkRow<'_>> {
        let mut keywords = self.keywords.iter().peekable();
        self.rows.iter().enumerate().map(move |(at, row)| LinkRow {
            id: LinkId(row.id),
            name: &self.text[row.start..row.start + usize::from(row.length)],
            flags: row.flags,
            keywords: keywords.next_if(|(of, _)| *of == at).map_or("", |(_, words)| words),
            inode: row.has_inode.then_some(row.inode),
            state: row.state,
        })
    }
}
