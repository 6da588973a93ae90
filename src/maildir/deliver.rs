//! Puts messages into a maildir, durably and in batches: written in `tmp/`, synced, renamed, directories synced.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{self, AtFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::content::{self, Failure};
use super::error::failed;
use super::name::{as_path, spell};
use super::witness::Way;
use super::{Error, FileRef, Keywords, LineEndings, Maildir, Source, sys};
use crate::model::{ContentKey, Flags, Place, UniqueName};

/// A message that came, and how it is to be filed.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The name that its file gets; from [`super::unique_name`].
    pub name: UniqueName,
    /// Its flags. Without any it is put into `new/`.
    pub flags: Flags,
    /// INTERNALDATE in seconds since 1970, the file's time of modification.
    pub internal_date: i64,
    /// Its bytes as served.
    pub body: Source<'a>,
}

/// A message that was written, and will be delivered with its batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// What identifies its content.
    pub key: ContentKey,
    /// Its file's inode number.
    pub inode: u64,
    /// Where its file will be.
    pub file: FileRef,
    /// Its flags: without keywords that have no letter.
    pub flags: Flags,
}

/// A batch of messages for one maildir. None of them is there before [`Self::commit`]; without it, none is left over.
///
/// A batch of 256 messages, or 16 MB, is about the fastest. Each holds a file open until the commit.
#[must_use = "nothing is delivered before the commit"]
pub struct Delivery<'a> {
    maildir: &'a Maildir,
    line_endings: LineEndings,
    keywords: Keywords,
    new_keywords: bool,
    drafts: Vec<Draft>,
    /// What a message becomes on its way to its file.
    buffer: Vec<u8>,
}

/// A file in `tmp/`, and where it goes.
struct Draft {
    name: UniqueName,
    file: File,
    target: FileRef,
}

impl<'a> Delivery<'a> {
    /// Begins a batch.
    ///
    /// # Errors
    /// Those of reading the maildir's keywords.
    pub fn new(maildir: &'a Maildir, line_endings: LineEndings) -> Result<Self, Error> {
        let keywords = maildir.keywords()?;
        Ok(Self { maildir, line_endings, keywords, new_keywords: false, drafts: Vec::new(), buffer: Vec::new() })
    }

    /// Returns how many messages the batch has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.drafts.len()
    }

    /// Tells whether the batch has no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.drafts.is_empty()
    }

    /// Writes one message into `tmp/`. After an error the batch is as it was before.
    ///
    /// # Errors
    /// Those of writing, and of reading the source.
    pub fn write(&mut self, message: Incoming<'_>) -> Result<Written, Error> {
        let Incoming { name, flags, internal_date, body } = message;
        self.new_keywords |= self.keywords.allocate_all([&flags]);
        let letters = self.keywords.spell(&flags);
        let target = match letters.is_empty() {
            true => FileRef::new(Place::New, name.as_bytes()),
            false => FileRef::new(Place::Cur, &spell(name.as_bytes(), &letters, b"")),
        };
        let path = || self.maildir.path_of(&target);
        let (file, inode) = self.maildir.draft(&name)?;
        let time = Timespec { tv_sec: internal_date, tv_nsec: 0 };
        let written = content::write(body, self.line_endings, &file, &mut self.buffer)
            .map_err(|failure| match failure {
                Failure::Read(error) => failed("read the received bytes for", &path())(error),
                // Its name is new each time, and so no part of what went wrong.
                Failure::Write(error) => failed("write a message into", self.maildir.path())(error),
            })
            .and_then(|key| {
                let times = Timestamps { last_access: time, last_modification: time };
                fs::futimens(&file, &times).map_err(|error| failed("set the time of", &path())(error))?;
                Ok(key)
            });
        match written {
            Ok(key) => {
                self.drafts.push(Draft { name, file, target: target.clone() });
                Ok(Written { key, inode, flags: self.keywords.read(&letters), file: target })
            }
            Err(error) => {
                self.maildir.drop_draft(&name);
                Err(error)
            }
        }
    }

    /// Makes all messages durable and puts them into `new/` or `cur/`, durably.
    ///
    /// # Errors
    /// [`Error::Taken`] if names were taken: the other messages are delivered. After any other error a part of the
    /// batch may be delivered, each message of it whole; of the rest nothing is left.
    pub fn commit(mut self) -> Result<(), Error> {
        if self.drafts.is_empty() {
            return Ok(());
        }
        if self.new_keywords {
            self.keywords.save(self.maildir.directory.as_fd(), self.maildir.path())?;
        }
        crate::step::before("sync messages");
        self.maildir.sync_files(&self.drafts.iter().map(|draft| &draft.file).collect::<Vec<_>>())?;
        crate::step::before("deliver");
        let (mut touched, mut taken) = (BTreeSet::new(), Vec::new());
        for draft in &self.drafts {
            let (tmp, place) = (self.maildir.tmp.as_fd(), self.maildir.place(draft.target.place));
            match sys::rename(tmp, draft.name.as_bytes(), place, draft.target.file_name()) {
                Ok(()) => {
                    self.maildir.note(draft.target.place, Way::Came, draft.target.file_name());
                    touched.insert(draft.target.place);
                }
                Err(Errno::EXIST) => taken.push(draft.name.clone()),
                Err(error) => return Err(failed("deliver", &self.maildir.path_of(&draft.target))(error)),
            }
        }
        self.maildir.sync(touched)?;
        if taken.is_empty() {
            self.drafts.clear();
            return Ok(());
        }
        Err(Error::Taken { path: self.maildir.path().to_owned(), names: taken })
    }
}

impl Drop for Delivery<'_> {
    /// Removes what is still in `tmp/`.
    fn drop(&mut self) {
        for draft in &self.drafts {
            self.maildir.drop_draft(&draft.name);
        }
    }
}

impl Maildir {
    /// Makes a file in `tmp/`; returns also its inode number.
    pub(super) fn draft(&self, name: &UniqueName) -> Result<(File, u64), Error> {
        let path = || self.path().join("tmp").join(as_path(name.as_bytes()));
        let plain = !name.as_bytes().is_empty() && !name.as_bytes().iter().any(|b| b"/:\0".contains(b));
        if !plain || name.as_bytes().starts_with(b".") {
            return Err(Error::Unusable { path: path(), why: "this is no name for a message".to_owned() });
        }
        let create = || sys::create(self.tmp.as_fd(), name.as_bytes());
        match create() {
            // Nobody else draws our names: it is what a crash left of an earlier try.
            Err(Errno::EXIST) => {
                self.drop_draft(name);
                create()
            }
            made => made,
        }
        .map_err(failed("create a file in", &self.path().join("tmp")))
    }

    /// Removes a file from `tmp/`, if it is there.
    pub(super) fn drop_draft(&self, name: &UniqueName) {
        match fs::unlinkat(&self.tmp, name.as_bytes(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Harmless: `sweep_tmp` finds it one day.
            Err(error) => tracing::warn!(maildir = %self.path().display(), %name, %error, "a file was left in tmp/"),
        }
    }
}
