//! Where removed messages stay recoverable: `<state_dir>/graveyard/<account>/YYYY-MM-DD/<mailbox>/{cur,new,tmp}`.
//!
//! What is in there for a day is a tree of maildirs like an account's, so that any mail reader can show it, and the
//! code that delivers and moves messages serves here, too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::error::failed;
use super::path::path_of;
use super::{Delivery, Error, FileRef, Incoming, Layout, LineEndings, Located, Maildir, Refused, RemoveJob, Root};
use super::{Source, unique_name};
use crate::model::{Flags, MailboxName, UniqueName};

/// The removed messages of an account.
#[derive(Debug)]
pub struct Graveyard {
    path: PathBuf,
}

impl Graveyard {
    /// Names the graveyard of an account; it is made when something is put into it.
    #[must_use]
    pub fn open(state_dir: &Path, account: &str) -> Self {
        // An account's name may be anything, and two must not share a directory.
        let account = path_of(Layout::Nested, &MailboxName::from_components([account]));
        Self { path: state_dir.join("graveyard").join(account) }
    }

    /// Returns the path, for texts.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens what was removed from a mailbox today (UTC); made if it is not there.
    ///
    /// # Errors
    /// Those of making directories.
    pub fn today(&self, mailbox: &MailboxName) -> Result<Maildir, Error> {
        let today = crate::clock::wall().to_zoned(TimeZone::UTC).date();
        let root = Root::create(&self.path.join(today.to_string()), Layout::Nested)?;
        root.create_maildir(&root.path_of(mailbox)?)
    }

    /// Puts a copy of a message here, durably: before the server's copy is expunged. Returns its path.
    ///
    /// # Errors
    /// Those of delivering.
    pub fn keep(
        &self,
        mailbox: &MailboxName,
        body: Source<'_>,
        flags: Flags,
        internal_date: i64,
    ) -> Result<PathBuf, Error> {
        let maildir = self.today(mailbox)?;
        let mut delivery = Delivery::new(&maildir, LineEndings::Lf)?;
        let written = delivery.write(Incoming { name: unique_name()?, flags, internal_date, body })?;
        delivery.commit()?;
        Ok(maildir.path_of(&written.file))
    }

    /// Returns the message that was removed last under this name, and the maildir it is in.
    ///
    /// # Errors
    /// Those of listing.
    pub fn find(&self, mailbox: &MailboxName, name: &UniqueName) -> Result<Option<(Maildir, FileRef)>, Error> {
        for (_, path) in self.days()?.into_iter().rev() {
            let Some(root) = Root::open(&path, Layout::Nested)? else { continue };
            let Some(maildir) = root.maildir(&root.path_of(mailbox)?)? else { continue };
            if let Some(file) = maildir.find(&[name.clone()].into())?.remove(name) {
                return Ok(Some((maildir, file)));
            }
        }
        Ok(None)
    }

    /// Puts a removed message back into a maildir, durably; `None` if it is not here (any more).
    ///
    /// # Errors
    /// Those of listing and moving.
    pub fn put_back(
        &self,
        mailbox: &MailboxName,
        name: &UniqueName,
        target: &Maildir,
    ) -> Result<Option<Result<Located, Refused>>, Error> {
        let Some((maildir, file)) = self.find(mailbox, name)? else { return Ok(None) };
        Ok(maildir.move_to(&[RemoveJob { file, inode: None }], target)?.pop())
    }

    /// Returns the days of which something is here.
    ///
    /// # Errors
    /// Those of listing.
    pub fn dates(&self) -> Result<BTreeSet<Date>, Error> {
        Ok(self.days()?.into_iter().map(|(day, _)| day).collect())
    }

    /// Deletes for good what was removed on these days.
    ///
    /// # Errors
    /// Those of listing and deleting.
    pub fn purge(&self, gone: &[Date]) -> Result<(), Error> {
        for (_, path) in self.days()?.into_iter().filter(|(day, _)| gone.contains(day)) {
            crate::step::before("purge graveyard");
            std::fs::remove_dir_all(&path).map_err(failed("delete the old graveyard", &path))?;
        }
        Ok(())
    }

    /// Returns the directories of all days, in order. Others are not ours to touch.
    fn days(&self) -> Result<Vec<(Date, PathBuf)>, Error> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", &self.path)(error)),
        };
        let mut days = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed("list", &self.path))?.path();
            let text = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Ok(day) = text.parse::<Date>()
                && day.to_string() == text
            {
                days.push((day, path));
            }
        }
        days.sort_unstable();
        Ok(days)
    }
}
