//! Changes of flags: renames.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::error::failed;
use super::witness::Way;
use super::{Error, FileRef, Keywords, Maildir, name, sys};
use crate::model::{FlagChange, Flags, Place, UniqueName};

/// A change of one message's flags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlagJob {
    /// The message.
    pub name: UniqueName,
    /// What to add and remove.
    pub change: FlagChange,
    /// Where the message is and its whole name, if known; saves a listing.
    pub file: Option<FileRef>,
    /// Its inode number: a file of its name with another one is another message, and is left alone.
    pub inode: u64,
}

/// A message file as it is after something was done to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located {
    /// Where it is and what it is called.
    pub file: FileRef,
    /// Its flags: without keywords that have no letter.
    pub flags: Flags,
    /// Its inode number.
    pub inode: u64,
}

/// Why nothing was done to a message. It is as it was; the next scan tells what it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Refused {
    /// It was not found. That does not prove that it is gone.
    Vanished,
    /// It is not what was expected: other flags, or another file.
    Changed,
    /// A file with the name that it would get is there already.
    Occupied,
    /// The name would get longer than the file system allows.
    TooLong,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vanished => "it was not found",
            Self::Changed => "it had changed meanwhile",
            Self::Occupied => "a file with its new name was already there",
            Self::TooLong => "its file name would be too long",
        })
    }
}

impl Maildir {
    /// Changes flags: of each message from what they are now, so that what a mail reader changed meanwhile survives.
    /// The answers are in the order of the jobs, and durable.
    ///
    /// A message with a flag goes to `cur/`; one without stays where it is. Unknown letters are kept. Keywords without
    /// a letter get one; if there is none left, they are left out.
    ///
    /// # Errors
    /// Those that are not about one message; then some changes may have been made.
    pub fn change_flags(&self, jobs: &[FlagJob]) -> Result<Vec<Result<Located, Refused>>, Error> {
        let keywords = self.keywords_for(jobs.iter().map(|job| &job.change.add))?;
        crate::step::before("change flags");
        let mut touched = BTreeSet::new();
        let mut change = |job: &FlagJob, file: &FileRef| self.change(job, file, &keywords, &mut touched);
        let mut done = Vec::with_capacity(jobs.len());
        for job in jobs {
            done.push(match &job.file {
                Some(file) => change(job, file)?,
                None => Err(Refused::Vanished),
            });
        }
        let missed = || jobs.iter().zip(&done).filter(|(_, done)| **done == Err(Refused::Vanished));
        let missed: BTreeSet<UniqueName> = missed().map(|(job, _)| job.name.clone()).collect();
        if !missed.is_empty() {
            let found = self.find(&missed)?;
            for (job, done) in jobs.iter().zip(&mut done) {
                if let (Err(Refused::Vanished), Some(file)) = (&done, found.get(&job.name)) {
                    *done = change(job, file)?;
                }
            }
        }
        self.sync(touched)?;
        Ok(done)
    }

    /// Gives messages that a mail reader moved here out of another maildir the letters that their keywords have here, if
    /// their letters say there exactly the keywords that they `had`: then the reader left them as they were. Letters that
    /// meant nothing there go. A file with another inode number than it had is left alone. Returns the flags of those
    /// that were renamed, durably.
    ///
    /// # Errors
    /// Those that are not about one message; then some may have been renamed.
    pub fn respell(
        &self,
        from: &Self,
        had: &BTreeMap<UniqueName, (Flags, u64)>,
    ) -> Result<BTreeMap<UniqueName, Flags>, Error> {
        if had.is_empty() {
            return Ok(BTreeMap::new());
        }
        let there = from.keywords()?;
        let words = |flags: &Flags| Flags::from_parts(0, flags.keywords().cloned());
        let mut strays = self.find(&had.keys().cloned().collect())?;
        strays.retain(|name, file| {
            let meant = words(&name::flags(file.file_name(), &there));
            had.get(name).is_some_and(|(had, _)| words(had) == meant)
        });
        let here = self.keywords_for(strays.keys().filter_map(|name| Some(&had.get(name)?.0)))?;
        let (mut done, mut touched) = (BTreeMap::new(), BTreeSet::new());
        for (name, file) in strays {
            let after = file.translated(&name, &there, &here);
            let expected = had.get(&name).map(|(_, inode)| *inode);
            if after == file || expected.is_none() || self.inode_of(&file)? != expected {
                continue;
            }
            let (source, target) = (self.place(file.place), self.place(after.place));
            match sys::rename(source, file.file_name(), target, after.file_name()) {
                Ok(()) => touched.extend([file.place, after.place]),
                // As it was; the letters are read as those of this maildir then.
                Err(Errno::NOENT | Errno::EXIST | Errno::NAMETOOLONG) => continue,
                Err(error) => return Err(failed("rename", &self.path_of(&file))(error)),
            }
            done.insert(name, name::flags(after.file_name(), &here));
        }
        self.sync(touched)?;
        Ok(done)
    }

    /// Renames one file and notes the directories that it touches.
    fn change(
        &self,
        job: &FlagJob,
        file: &FileRef,
        keywords: &Keywords,
        touched: &mut BTreeSet<Place>,
    ) -> Result<Result<Located, Refused>, Error> {
        let path = || self.path_of(file);
        // Somebody may have put another message under its name, whose flags these are not.
        match self.inode_of(file)? {
            Some(inode) if inode == job.inode => {}
            Some(_) => return Ok(Err(Refused::Changed)),
            None => return Ok(Err(Refused::Vanished)),
        }
        let after = file.changed(&job.change, keywords);
        if after != *file {
            let (from, to) = (self.place(file.place), self.place(after.place));
            match sys::rename(from, file.file_name(), to, after.file_name()) {
                Ok(()) => {
                    self.note(file.place, Way::Left, file.file_name());
                    self.note(after.place, Way::Came, after.file_name());
                    touched.extend([file.place, after.place]);
                }
                Err(Errno::NOENT) => return Ok(Err(Refused::Vanished)),
                Err(Errno::EXIST) => return Ok(Err(Refused::Occupied)),
                Err(Errno::NAMETOOLONG) => return Ok(Err(Refused::TooLong)),
                Err(error) => return Err(failed("rename", &path())(error)),
            }
        }
        let flags = name::flags(after.file_name(), keywords);
        Ok(Ok(Located { file: after, flags, inode: job.inode }))
    }

    /// Returns the inode number of a regular file.
    fn inode_of(&self, file: &FileRef) -> Result<Option<u64>, Error> {
        match sys::look(self.place(file.place), file.file_name()) {
            Ok(Some((inode, FileType::RegularFile))) => Ok(Some(inode)),
            Ok(None | Some(_)) => Ok(None),
            Err(error) => Err(failed("look at", &self.path_of(file))(error)),
        }
    }
}
