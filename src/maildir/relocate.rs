//! Takes messages from one maildir to another: to another mailbox, or to the graveyard.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{self, AtFlags, FileType, Mode, Timespec, Timestamps};
use rustix::io::Errno;

use super::error::failed;
use super::witness::Way;
use super::{ContentHasher, Error, FileRef, Graveyard, Located, Maildir, Refused, name, sys, unique_name};
use crate::model::{ContentKey, Flags, MailboxName, UniqueName};

/// A message to be taken away, as it is expected to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoveJob {
    /// Where it is and its whole name: with another name its flags are others, and it is left alone.
    pub file: FileRef,
    /// Its inode number, if that matters: with another one it is another file, and is left alone.
    pub inode: Option<u64>,
}

/// How a file got to its target.
enum Carried {
    /// It is only there.
    Renamed,
    /// It is also still where it was, since the target is on another file system; there it has this inode number.
    Copied(u64),
}

impl Maildir {
    /// Puts messages into the graveyard, if each is as expected at that moment. The answers are in the order of the
    /// jobs, and durable; a location is one in [`Graveyard::today`].
    ///
    /// # Errors
    /// Those that are not about one message; what was removed by then is in the graveyard.
    pub fn remove(
        &self,
        jobs: &[RemoveJob],
        graveyard: &Graveyard,
        mailbox: &MailboxName,
    ) -> Result<Vec<Result<Located, Refused>>, Error> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let target = graveyard.today(mailbox)?;
        crate::step::before("remove");
        self.relocate(jobs, &target)
    }

    /// Moves messages to another maildir, if each is as expected at that moment. The answers are in the order of the
    /// jobs, and durable. A message keeps its unique name unless the target has a message of that name.
    ///
    /// # Errors
    /// Those that are not about one message; some may have been moved by then, none is lost.
    pub fn move_to(&self, jobs: &[RemoveJob], target: &Self) -> Result<Vec<Result<Located, Refused>>, Error> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        crate::step::before("move");
        self.relocate(jobs, target)
    }

    fn relocate(&self, jobs: &[RemoveJob], target: &Self) -> Result<Vec<Result<Located, Refused>>, Error> {
        let ours = self.keywords()?;
        let flags: Vec<Flags> = jobs.iter().map(|job| name::flags(job.file.file_name(), &ours)).collect();
        let theirs = target.keywords_for(&flags)?;
        let wanted = jobs.iter().map(|job| job.file.unique()).collect();
        let mut taken: BTreeSet<UniqueName> = target.find(&wanted)?.into_keys().collect();

        let mut done = Vec::with_capacity(jobs.len());
        let (mut left, mut arrived, mut copied) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for job in jobs {
            let inode = match self.as_expected(job)? {
                Ok(inode) => inode,
                Err(refused) => {
                    done.push(Err(refused));
                    continue;
                }
            };
            let unique = if taken.insert(job.file.unique()) { job.file.unique() } else { unique_name()? };
            let file = job.file.translated(&unique, &ours, &theirs);
            let carried = self.carry(&job.file, target, &file)?;
            match carried {
                Ok(Carried::Renamed) => {
                    left.insert(job.file.place);
                }
                Ok(Carried::Copied(_)) => copied.push((&job.file, inode)),
                Err(_) => {}
            }
            done.push(carried.map(|carried| {
                arrived.insert(file.place);
                let inode = match carried {
                    Carried::Renamed => inode,
                    Carried::Copied(new) => new,
                };
                let flags = name::flags(file.file_name(), &theirs);
                Located { file, flags, inode }
            }));
        }
        // There before it is gone here.
        target.sync(arrived)?;
        for (file, inode) in copied {
            self.unlink(file, inode)?;
            left.insert(file.place);
        }
        self.sync(left)?;
        self.tell_changed(jobs, &mut done)?;
        Ok(done)
    }

    /// Returns the inode number of a message, if it is as the job says.
    fn as_expected(&self, job: &RemoveJob) -> Result<Result<u64, Refused>, Error> {
        let path = || self.path_of(&job.file);
        Ok(match sys::look(self.place(job.file.place), job.file.file_name()) {
            Ok(None) => Err(Refused::Vanished),
            Ok(Some((inode, FileType::RegularFile))) if job.inode.is_none_or(|expected| expected == inode) => Ok(inode),
            Ok(Some(_)) => Err(Refused::Changed),
            Err(error) => return Err(failed("look at", &path())(error)),
        })
    }

    /// Tells those that were not found under their old name, but are there under another one, from those that vanished.
    fn tell_changed(&self, jobs: &[RemoveJob], done: &mut [Result<Located, Refused>]) -> Result<(), Error> {
        let vanished = |done: &Result<Located, Refused>| *done == Err(Refused::Vanished);
        let pairs = jobs.iter().zip(&*done).filter(|(_, done)| vanished(done));
        let missed: BTreeSet<UniqueName> = pairs.map(|(job, _)| job.file.unique()).collect();
        if missed.is_empty() {
            return Ok(());
        }
        let found = self.find(&missed)?;
        for (job, done) in jobs.iter().zip(done) {
            if vanished(done) && found.contains_key(&job.file.unique()) {
                *done = Err(Refused::Changed);
            }
        }
        Ok(())
    }

    /// Renames a file to its target, or copies it if that is on another file system.
    fn carry(&self, from: &FileRef, target: &Self, to: &FileRef) -> Result<Result<Carried, Refused>, Error> {
        let (source, directory) = (self.place(from.place), target.place(to.place));
        Ok(match sys::rename(source, from.file_name(), directory, to.file_name()) {
            Ok(()) => {
                // Only that it left: it brings its flags along, and what they are worth at the target, only the next
                // scan there can tell. So its arrival is to look like one of somebody else's.
                self.note(from.place, Way::Left, from.file_name());
                Ok(Carried::Renamed)
            }
            Err(Errno::NOENT) => Err(Refused::Vanished),
            Err(Errno::EXIST) => Err(Refused::Occupied),
            Err(Errno::NAMETOOLONG) => Err(Refused::TooLong),
            Err(Errno::XDEV) => return Ok(Ok(Carried::Copied(self.copy(from, target, to)?))),
            Err(error) => return Err(failed("move", &self.path_of(from))(error)),
        })
    }

    /// Copies a file, durably, and reads the copy back; returns its inode number.
    pub(super) fn copy(&self, from: &FileRef, target: &Self, to: &FileRef) -> Result<u64, Error> {
        let path = target.path_of(to);
        let source = fs::openat(self.place(from.place), from.file_name(), sys::FILE, Mode::empty());
        let source = File::from(source.map_err(failed("open", &self.path_of(from)))?);
        let draft = to.unique();
        let (mut copy, _) = target.draft(&draft)?;
        let copied = copy_file(&source, &mut copy).map_err(failed("copy a message to", &path)).and_then(|inode| {
            let (tmp, place) = (target.tmp.as_fd(), target.place(to.place));
            sys::rename(tmp, draft.as_bytes(), place, to.file_name()).map_err(failed("move a copy to", &path))?;
            Ok(inode)
        });
        if copied.is_err() {
            target.drop_draft(&draft);
        }
        copied
    }

    /// Deletes a file of which a durable copy exists, if it is still the one that was copied.
    fn unlink(&self, file: &FileRef, inode: u64) -> Result<(), Error> {
        let failed = || failed("remove", &self.path_of(file));
        match sys::look(self.place(file.place), file.file_name()).map_err(failed())? {
            Some((now, _)) if now == inode => {
                fs::unlinkat(self.place(file.place), file.file_name(), AtFlags::empty()).map_err(failed())?;
                self.note(file.place, Way::Left, file.file_name());
                Ok(())
            }
            // Renamed by somebody meanwhile: it is there twice then, which is better than not at all.
            Some(_) | None => Ok(()),
        }
    }
}

/// Copies content and time of modification, makes both durable, and compares what can be read back.
fn copy_file(source: &File, copy: &mut File) -> io::Result<u64> {
    let expected = io::copy(&mut &*source, copy).and_then(|_| digest(source))?;
    let modified = source.metadata()?;
    let time = Timespec { tv_sec: modified.mtime(), tv_nsec: modified.mtime_nsec() };
    fs::futimens(&*copy, &Timestamps { last_access: time, last_modification: time })?;
    copy.sync_all()?;
    if digest(copy)? != expected {
        return Err(io::Error::other("the copy does not read as what was written"));
    }
    Ok(copy.metadata()?.ino())
}

fn digest(mut file: &File) -> io::Result<ContentKey> {
    file.rewind()?;
    let mut hasher = ContentHasher::default();
    io::copy(&mut file, &mut hasher)?;
    Ok(hasher.finish())
}
