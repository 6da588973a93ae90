//! Tells whether all that happened in a maildir, while this program changed it, was its own doing.
//!
//! A stamp says that a directory changed, not who changed it. So after changes of our own it would prove nothing, and the
//! next pass had to list the whole maildir however little was done. But the kernel tells of each change (inotify(7)):
//! where all of them are ours, the stamp stands for what was seen before and for what was done since.
//!
//! That holds only where the kernel sees every change, so not on network file systems. Where anything is in doubt (an
//! event more or less than expected, a lost event, a clock that did not move on) there is no such stamp.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::error::failed;
use super::{Error, Maildir, Stamp, store, sys};
use crate::model::Place;

/// What is told of a directory: names that come and go. `ONLYDIR` makes sure that it is one.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// The kernel keeps 16,384 events at least until they are read; each of our changes makes two at most.
const READ_EVERY: usize = 1000;

/// Whether a name came to a directory or left it. A rename is both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Way {
    Came,
    Left,
}

/// Sees the changes in all maildirs of a root that are witnessed just now.
#[derive(Debug)]
pub(super) struct Witness {
    queue: OwnedFd,
    books: Mutex<Books>,
}

#[derive(Default, Debug)]
struct Books {
    /// What the kernel's number of a watch is about.
    watches: BTreeMap<i32, (u64, Place)>,
    tallies: BTreeMap<u64, Tally>,
    last: u64,
}

/// What was told of one maildir, against what we did in it.
#[derive(Debug)]
struct Tally {
    since: Stamp,
    /// Changes that we made less those that were told; all zero if they are the same.
    open: BTreeMap<(Place, Way, Box<[u8]>), i64>,
    made: usize,
    /// Something was told that is not ours.
    foreign: bool,
}

impl Witness {
    /// Returns a witness, or nothing where the system has none to give.
    pub(super) fn new() -> Option<Self> {
        match inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC) {
            Ok(queue) => Some(Self { queue, books: Mutex::default() }),
            Err(error) => {
                tracing::debug!(%error, "changes of our own cannot be told from others");
                None
            }
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // A half-made entry can only make a tally uneven, which proves nothing.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to witness; returns the number of the tally.
    fn begin(&self, maildir: &Maildir, since: Stamp) -> rustix::io::Result<u64> {
        let mut books = self.books();
        books.last += 1;
        let number = books.last;
        books.tallies.insert(number, Tally { since, open: BTreeMap::new(), made: 0, foreign: false });
        for place in [Place::New, Place::Cur] {
            // The directory that is held open, whatever its path leads to by now.
            let path = format!("/proc/self/fd/{}", maildir.place(place).as_raw_fd());
            let watch = match inotify::add_watch(&self.queue, path, CHANGES) {
                Ok(watch) => watch,
                Err(error) => {
                    self.close(&mut books, number);
                    return Err(error);
                }
            };
            if let Some((other, _)) = books.watches.insert(watch, (number, place)) {
                // Two over one directory: what is told can be accounted to neither.
                for number in [other, number] {
                    if let Some(tally) = books.tallies.get_mut(&number) {
                        tally.foreign = true;
                    }
                }
            }
        }
        Ok(number)
    }

    /// Notes a change that was made.
    fn note(&self, number: u64, place: Place, way: Way, name: &[u8]) {
        let mut books = self.books();
        let Some(tally) = books.tallies.get_mut(&number) else { return };
        tally.count(place, way, name, 1);
        tally.made += 1;
        if tally.made.is_multiple_of(READ_EVERY) {
            self.read(&mut books);
        }
    }

    /// Takes in what the kernel has to tell.
    fn read(&self, books: &mut Books) {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut events = inotify::Reader::new(&self.queue, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => books.take(event.wd(), event.events(), event.file_name().map(std::ffi::CStr::to_bytes)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    tracing::debug!(%error, "changes of our own cannot be told from others");
                    return books.doubt_all();
                }
            }
        }
    }

    /// Ends a tally; returns it.
    fn close(&self, books: &mut Books, number: u64) -> Option<Tally> {
        let watches: Vec<i32> = books.watches.iter().filter(|(_, (of, _))| *of == number).map(|(w, _)| *w).collect();
        for watch in watches {
            books.watches.remove(&watch);
            // Fails if the directory is gone, and the watch with it.
            let _ = inotify::remove_watch(&self.queue, watch);
        }
        books.tallies.remove(&number)
    }
}

impl Books {
    fn take(&mut self, watch: i32, events: ReadFlags, name: Option<&[u8]>) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.doubt_all();
        }
        let Some((number, place)) = self.watches.get(&watch) else { return };
        let Some(tally) = self.tallies.get_mut(number) else { return };
        let way = if events.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            Way::Came
        } else if events.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            Way::Left
        } else {
            tally.foreign = true;
            return;
        };
        match name {
            Some(name) => tally.count(*place, way, name, -1),
            None => tally.foreign = true,
        }
    }

    fn doubt_all(&mut self) {
        self.tallies.values_mut().for_each(|tally| tally.foreign = true);
    }
}

impl Tally {
    fn count(&mut self, place: Place, way: Way, name: &[u8], by: i64) {
        let key = (place, way, name.into());
        let open = self.open.entry(key).or_default();
        *open += by;
        if *open == 0 {
            self.open.remove(&(place, way, name.into()));
        }
    }
}

impl Maildir {
    /// Begins to witness what changes here: from the state on that a stamp stands for, if that is still the state.
    ///
    /// It ends with [`Self::end_witness`].
    pub fn begin_witness(&self, since: Stamp) {
        let Some(witness) = self.witness.as_ref().filter(|_| store::is_local(self.cur.as_fd())) else { return };
        self.forget_witness();
        match witness.begin(self, since) {
            Ok(number) => *self.tally() = Some(number),
            Err(error) => {
                tracing::debug!(maildir = %self.path().display(), %error, "cannot witness changes");
            }
        }
        // From here on everything is told; so nothing was missed if nothing changed until now.
        if self.stamp().ok() != Some(since) {
            self.forget_witness();
        }
    }

    /// Returns a stamp that stands for what the one stood for that was given to [`Self::begin_witness`], and for all
    /// that was done through this maildir since; `None` if anything else may have happened. Blocks, if the last change
    /// is so fresh that the next one might not show.
    pub fn end_witness(&self) -> Option<Stamp> {
        let witness = self.witness.as_ref()?;
        let number = (*self.tally())?;
        let stamp = self.late_stamp();
        *self.tally() = None;
        let mut books = witness.books();
        witness.read(&mut books);
        let tally = witness.close(&mut books, number)?;
        match stamp {
            Ok((stamp, shows)) => {
                let same = tally.made == 0 && stamp == tally.since;
                let ours = tally.made > 0 && shows;
                (!tally.foreign && tally.open.is_empty() && (same || ours)).then_some(stamp)
            }
            Err(error) => {
                tracing::debug!(%error, "cannot witness changes");
                None
            }
        }
    }

    /// Returns a stamp, and whether any later change would show in it; of all earlier ones the kernel has told by now.
    fn late_stamp(&self) -> Result<(Stamp, bool), Error> {
        let mut stamp = self.stamp()?;
        if let Some(rest) = stamp.until_change_shows(SystemTime::now()) {
            std::thread::sleep(rest);
            stamp = self.stamp()?;
        }
        let shows = stamp.would_show_change(SystemTime::now());
        for place in [Place::New, Place::Cur] {
            // A rename that is in the stamp, but not told yet, still holds the directory's lock; a listing waits for it.
            sys::wait_for_changes(self.place(place)).map_err(failed("list", self.path()))?;
        }
        Ok((stamp, shows))
    }

    /// Notes that this program made a name come or leave.
    pub(super) fn note(&self, place: Place, way: Way, name: &[u8]) {
        if let (Some(witness), Some(number)) = (self.witness.as_ref(), *self.tally()) {
            witness.note(number, place, way, name);
        }
    }

    fn forget_witness(&self) {
        if let (Some(witness), Some(number)) = (self.witness.as_ref(), self.tally().take()) {
            witness.close(&mut witness.books(), number);
        }
    }

    fn tally(&self) -> MutexGuard<'_, Option<u64>> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Maildir {
    fn drop(&mut self) {
        self.forget_witness();
    }
}
