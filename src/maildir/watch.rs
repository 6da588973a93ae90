//! Tells when something happens in the directories of an account (inotify). What is told is only that something did, and
//! to which files: what it means is for a scan to find out.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::{Error, Root};

/// What became of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was renamed to its name, and so it is whole.
    Moved,
    /// It came to be under its name, or was written to; it may still be growing.
    Came,
    /// It is not there any more, at least not under this name.
    Went,
}

/// What happened since it was asked last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Happened {
    /// Files by their maildir, relative to the root, and their name with its info: what became of each last.
    pub files: BTreeMap<PathBuf, BTreeMap<Vec<u8>, Fate>>,
    /// There are other directories than before, of which not all may be watched: everything is to be looked at, and the watch
    /// to be [extended](Watch::extended).
    pub directories: bool,
    /// More happened than could be told: everything is to be looked at, and to be watched anew.
    pub anything: bool,
}

/// Watches the maildirs below a root. Reading a file is no event, so mail readers cost nothing until they change something.
#[derive(Debug)]
pub struct Watch {
    inotify: AsyncFd<OwnedFd>,
    /// The maildirs whose `new` or `cur` are watched, and, without one, directories that maildirs are or come to be in.
    places: BTreeMap<i32, Option<PathBuf>>,
}

/// The kernel's buffer of one read; events are at most 272 bytes.
const BUFFER: usize = 16 * 1024;

impl Watch {
    /// Watches all maildirs of a root, and every directory in which one may come to be. What happened until now was not
    /// seen: whoever looks, looks after this.
    ///
    /// # Errors
    /// The system's, where there may be no more watchers (`fs.inotify.max_user_instances`) or watches
    /// (`fs.inotify.max_user_watches`), and those of listing.
    pub fn new(root: &Root) -> Result<Self, Error> {
        let begun = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(io::Error::from);
        let inotify = begun.and_then(crate::readiness::readable).map_err(unwatched(root.path()))?;
        Self { inotify, places: BTreeMap::new() }.extended(root)
    }

    /// Watches the directories too that a root has now; nothing is missed meanwhile of what was watched before.
    ///
    /// # Errors
    /// Those of [`Self::new`].
    pub fn extended(mut self, root: &Root) -> Result<Self, Error> {
        // Each is watched before it is listed, so that what is made in it meanwhile is either listed or told. A maildir
        // that is only half made is told of when the rest of it comes.
        root.walk(|path, _| {
            let full = root.path().join(path);
            self.add(&full, None)?;
            ["new", "cur"].iter().try_for_each(|part| self.add(&full.join(part), Some(path.to_owned())))
        })?;
        // Nothing would ever be told.
        if self.places.is_empty() {
            return Err(unwatched(root.path())(io::ErrorKind::NotFound.into()));
        }
        Ok(self)
    }

    fn add(&mut self, path: &Path, place: Option<PathBuf>) -> Result<(), Error> {
        let names = WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE | WatchFlags::CREATE;
        let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
        // A file that is written in place is one when it is closed.
        match inotify::add_watch(self.inotify.get_ref(), path, names | itself | WatchFlags::CLOSE_WRITE) {
            Ok(number) => drop(self.places.insert(number, place)),
            // Not there, or gone again: that is seen in the directory above.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(unwatched(path)(error.into())),
        }
        Ok(())
    }

    /// Waits until something happens. Safe to cancel.
    ///
    /// # Errors
    /// The system's; the watch is of no more use then.
    pub async fn next(&self) -> io::Result<Happened> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); BUFFER];
            let mut reader = Reader::new(ready.get_inner(), &mut buffer);
            let (mut happened, mut events) = (Happened::default(), 0);
            // What follows is told by the next call: a storm is no reason to keep all of it.
            while events < MOST {
                match reader.next() {
                    Ok(event) => note(&mut happened, &event, &self.places),
                    Err(Errno::WOULDBLOCK) => break,
                    Err(error) => return Err(error.into()),
                }
                events += 1;
            }
            // Else what is in the buffer would be lost.
            while !reader.is_buffer_empty() {
                note(&mut happened, &reader.next()?, &self.places);
            }
            if events < MOST {
                ready.clear_ready();
            }
            if happened != Happened::default() {
                return Ok(happened);
            }
        }
    }
}

/// Returns the error of what could not be watched. No room for one more watch is none of the disk's.
fn unwatched(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { what: "watch", path, source }
}

/// As many events are told in one go, or a few more.
const MOST: usize = 512;

fn note(happened: &mut Happened, event: &inotify::Event<'_>, places: &BTreeMap<i32, Option<PathBuf>>) {
    let flags = event.events();
    let unsure = ReadFlags::QUEUE_OVERFLOW | ReadFlags::IGNORED | ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF;
    match (places.get(&event.wd()), event.file_name()) {
        _ if flags.intersects(unsure) => happened.anything = true,
        (Some(None), _) => happened.directories |= flags.contains(ReadFlags::ISDIR),
        (Some(Some(maildir)), Some(name)) if !name.to_bytes().starts_with(b".") => {
            let fate = if flags.contains(ReadFlags::MOVED_TO) {
                Fate::Moved
            } else if flags.intersects(ReadFlags::CREATE | ReadFlags::CLOSE_WRITE) {
                Fate::Came
            } else {
                Fate::Went
            };
            happened.files.entry(maildir.clone()).or_default().insert(name.to_bytes().to_vec(), fate);
        }
        (Some(Some(_)) | None, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildir::Layout;
    use std::fs;

    fn maildir(root: &Path, name: &str) -> PathBuf {
        ["tmp", "new", "cur"].iter().for_each(|part| fs::create_dir_all(root.join(name).join(part)).unwrap());
        root.join(name)
    }

    fn watch(root: &Path) -> Watch {
        Watch::new(&Root::open(root, Layout::Nested).unwrap().unwrap()).unwrap()
    }

    fn files(files: &[(&str, Fate)]) -> Happened {
        let files = files.iter().map(|(name, fate)| (name.as_bytes().to_vec(), *fate)).collect();
        Happened { files: BTreeMap::from([("INBOX".into(), files)]), ..Happened::default() }
    }

    #[tokio::test]
    async fn what_happens_to_files_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = maildir(dir.path(), "INBOX");
        let watch = watch(dir.path());
        fs::write(inbox.join("tmp/a"), "x").unwrap();
        fs::write(dir.path().join(".postkeep"), "x").unwrap();
        fs::rename(inbox.join("tmp/a"), inbox.join("new/a")).unwrap();
        assert_eq!(watch.next().await.unwrap(), files(&[("a", Fate::Moved)]));
        fs::read(inbox.join("new/a")).unwrap();
        fs::rename(inbox.join("new/a"), inbox.join("cur/a:2,S")).unwrap();
        assert_eq!(watch.next().await.unwrap(), files(&[("a", Fate::Went), ("a:2,S", Fate::Moved)]));
        fs::remove_file(inbox.join("cur/a:2,S")).unwrap();
        assert_eq!(watch.next().await.unwrap(), files(&[("a:2,S", Fate::Went)]));
        fs::write(inbox.join("new/b"), "written in place").unwrap();
        assert_eq!(watch.next().await.unwrap(), files(&[("b", Fate::Came)]));
    }

    #[tokio::test]
    async fn what_happens_to_directories_may_be_anything() {
        let deeds: [fn(&Path); 4] = [
            |root| fs::create_dir(root.join("Lists/go")).unwrap(),
            |root| fs::rename(root.join("INBOX"), root.join("elsewhere")).unwrap(),
            |root| fs::remove_dir_all(root.join("Lists/rust")).unwrap(),
            |root| fs::remove_dir(root.join("INBOX/cur")).unwrap(),
        ];
        for deed in deeds {
            let dir = tempfile::tempdir().unwrap();
            ["INBOX", "Lists/rust"].iter().for_each(|path| drop(maildir(dir.path(), path)));
            let watch = watch(dir.path());
            deed(dir.path());
            let happened = watch.next().await.unwrap();
            assert!(happened.directories || happened.anything);
        }
    }

    #[tokio::test]
    async fn more_than_the_system_keeps_may_be_anything() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = maildir(dir.path(), "INBOX");
        let watch = watch(dir.path());
        let kept = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        // Two events for each: it came to be, and was closed.
        let files = kept.trim().parse::<usize>().unwrap() / 2 + 1;
        (0..files).for_each(|n| fs::write(inbox.join(format!("new/{n}")), "").unwrap());
        while !watch.next().await.unwrap().anything {}
    }

    #[tokio::test]
    async fn nothing_is_missed_while_a_watch_is_extended() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = maildir(dir.path(), "INBOX");
        let watch = watch(dir.path());
        let list = maildir(dir.path(), "Lists/rust");
        fs::write(inbox.join("new/a"), "before").unwrap();
        let root = Root::open(dir.path(), Layout::Nested).unwrap().unwrap();
        let watch = watch.extended(&root).unwrap();
        fs::write(list.join("new/b"), "afterwards").unwrap();
        let mut told = Happened::default();
        while told.files.len() < 2 {
            let Happened { files, directories, anything } = watch.next().await.unwrap();
            told.files.extend(files);
            (told.directories, told.anything) = (told.directories | directories, told.anything | anything);
        }
        let file = |name: &str| BTreeMap::from([(name.as_bytes().to_vec(), Fate::Came)]);
        let files = BTreeMap::from([("INBOX".into(), file("a")), ("Lists/rust".into(), file("b"))]);
        assert_eq!(told, Happened { files, directories: true, anything: false });
    }

    #[tokio::test]
    async fn a_maildir_that_is_half_made_is_told_of_when_it_is_whole() {
        for (made, rest) in
            [(&[][..], &["tmp", "new", "cur"][..]), (&["tmp"], &["new", "cur"]), (&["tmp", "new"], &["cur"])]
        {
            let dir = tempfile::tempdir().unwrap();
            let list = dir.path().join("Lists/rust");
            fs::create_dir_all(&list).unwrap();
            made.iter().for_each(|part| fs::create_dir(list.join(part)).unwrap());
            let watch = watch(dir.path());
            rest.iter().for_each(|part| fs::create_dir(list.join(part)).unwrap());
            let happened = watch.next().await.unwrap();
            assert!(happened.directories && !happened.anything, "{made:?}");
        }
    }

    #[tokio::test]
    async fn a_storm_is_told_whole() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = maildir(dir.path(), "INBOX");
        let watch = watch(dir.path());
        (0..2000).for_each(|n| fs::write(inbox.join(format!("new/{n}")), "").unwrap());
        let mut seen = 0;
        while seen < 2000 {
            seen += watch.next().await.unwrap().files[Path::new("INBOX")].len();
        }
        assert_eq!(seen, 2000);
    }
}
