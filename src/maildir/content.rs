//! The bytes of a message: as the server has them (*as served*) and as they stand in the file.
//!
//! Mail readers expect LF at line ends, servers have CRLF. A file must give back the served bytes exactly, and nothing
//! but the file may be needed for that. So there are three forms of a file, told apart by what is in it:
//!
//! | the file holds | form | served is |
//! |---|---|---|
//! | no CR | LF | the file with CRLF for each LF |
//! | an LF, and CRs only as its last bytes | marked | the file without its last CR |
//! | anything else | verbatim | the file |
//!
//! The marked form is for the odd message that has bare LFs and no CR that would tell it from the LF form.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime};

use memchr::{memchr, memchr_iter, memchr2};

use super::hasher::ContentHasher;
use crate::model::{ContentKey, Keys, WithoutMarks};

/// How line ends are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineEndings {
    /// LF, wherever CRLF can be made of it again exactly.
    Lf,
    /// As served.
    Keep,
}

/// Where the bytes of a message, as served, come from. They may be read twice.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// In memory.
    Memory(&'a [u8]),
    /// A whole file.
    File(&'a File),
}

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

impl<'a> Source<'a> {
    /// Calls `each` with one piece after the other, until it returns false; returns whether the end was reached.
    pub(super) fn pieces(self, mut each: impl FnMut(&[u8]) -> Result<bool, Failure>) -> Result<bool, Failure> {
        match self {
            Self::Memory(bytes) => {
                for piece in bytes.chunks(CHUNK) {
                    if !each(piece)? {
                        return Ok(false);
                    }
                }
            }
            Self::File(file) => {
                let (mut buffer, mut at) = (vec![0; CHUNK], 0);
                loop {
                    let length = read_at(file, &mut buffer, at).map_err(Failure::Read)?;
                    if length == 0 {
                        break;
                    }
                    if !each(&buffer[..length])? {
                        return Ok(false);
                    }
                    at += length as u64;
                }
            }
        }
        Ok(true)
    }
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Which of the two ends failed while a message was written.
#[derive(Debug)]
pub(super) enum Failure {
    /// The source.
    Read(io::Error),
    /// The new file.
    Write(io::Error),
}

/// Writes a message into a new, empty file, in the form that `line_endings` and its bytes lead to, by way of a buffer whose
/// content does not matter.
pub(super) fn write(
    source: Source<'_>,
    line_endings: LineEndings,
    file: &File,
    buffer: &mut Vec<u8>,
) -> Result<ContentKey, Failure> {
    if line_endings == LineEndings::Lf {
        if let Some(key) = write_lf(source, file, buffer)? {
            return Ok(key);
        }
        file.set_len(0).map_err(Failure::Write)?;
        io::Seek::rewind(&mut &*file).map_err(Failure::Write)?;
    }
    write_as_served(source, file)
}

/// Writes the LF form; returns `None`, with the file half written, if CRLF could not be made of it again.
fn write_lf(source: Source<'_>, mut file: &File, out: &mut Vec<u8>) -> Result<Option<ContentKey>, Failure> {
    let (mut hasher, mut after_cr) = (ContentHasher::default(), false);
    let ended = source.pieces(|piece| {
        hasher.update(piece);
        out.clear();
        out.reserve(piece.len());
        let canonical = strip_cr(piece, &mut after_cr, out);
        if canonical {
            file.write_all(out).map_err(Failure::Write)?;
        }
        Ok(canonical)
    })?;
    Ok((ended && !after_cr).then(|| hasher.finish()))
}

/// Appends a piece with LF for CRLF; returns false if a CR without LF or an LF without CR is in it.
fn strip_cr(mut piece: &[u8], after_cr: &mut bool, out: &mut Vec<u8>) -> bool {
    if *after_cr && !piece.is_empty() {
        if piece[0] != b'\n' {
            return false;
        }
        out.push(b'\n');
        (*after_cr, piece) = (false, &piece[1..]);
    }
    while let Some(at) = memchr2(b'\r', b'\n', piece) {
        out.extend_from_slice(&piece[..at]);
        match &piece[at..] {
            [b'\r', b'\n', rest @ ..] => {
                out.push(b'\n');
                piece = rest;
            }
            [b'\r'] => (*after_cr, piece) = (true, &[]),
            _ => return false,
        }
    }
    out.extend_from_slice(piece);
    true
}

/// Writes the bytes as they are, and the mark if the file would otherwise be read as another form.
fn write_as_served(source: Source<'_>, mut file: &File) -> Result<ContentKey, Failure> {
    let (mut hasher, mut ends) = (ContentHasher::default(), LineEnds::default());
    source.pieces(|piece| {
        hasher.update(piece);
        ends.update(piece);
        file.write_all(piece).map_err(Failure::Write)?;
        Ok(true)
    })?;
    if ends.lfs > 0 && !ends.inner_cr {
        file.write_all(b"\r").map_err(Failure::Write)?;
    }
    Ok(hasher.finish())
}

/// What must be known of all line ends in some bytes to tell the form of a file.
#[derive(Default)]
struct LineEnds {
    lfs: u64,
    /// A CR is followed by something else than CRs.
    inner_cr: bool,
    /// The bytes end with a CR.
    last_cr: bool,
}

impl LineEnds {
    fn update(&mut self, piece: &[u8]) {
        self.lfs += memchr_iter(b'\n', piece).count() as u64;
        let Some(last) = piece.iter().rposition(|b| *b != b'\r') else {
            self.last_cr |= !piece.is_empty();
            return;
        };
        self.inner_cr |= self.last_cr || memchr(b'\r', &piece[..last]).is_some();
        self.last_cr = last + 1 < piece.len();
    }
}

/// A message file, open for reading; as a [`Read`] it gives the bytes as served.
pub struct Message {
    file: File,
    /// Each LF becomes CRLF.
    lf: bool,
    /// What is left to read of the file: from here, to there.
    at: u64,
    end: u64,
    /// Bytes as served that were not asked for yet, from `given` on.
    ready: Vec<u8>,
    given: usize,
    chunk: Vec<u8>,
    length: u64,
    found: Found,
}

/// What tells whether a file is still as it was found.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Found {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Found {
    fn of(file: &File) -> io::Result<Self> {
        let data = file.metadata()?;
        Ok(Self { inode: data.ino(), size: data.size(), modified: (data.mtime(), data.mtime_nsec()) })
    }
}

impl Message {
    /// Takes an open, regular file. Reads it once, since the form shows only at its end.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let found = Found::of(&file)?;
        let mut ends = LineEnds::default();
        let (mut chunk, mut at) = (vec![0; CHUNK.min(usize::try_from(found.size).unwrap_or(CHUNK).max(1))], 0);
        while at < found.size {
            let length = read_at(&file, &mut chunk, at)?;
            if length == 0 {
                return Err(shorter());
            }
            ends.update(&chunk[..length]);
            at += length as u64;
        }
        let (lf, end, length) = match (ends.inner_cr, ends.last_cr) {
            (false, false) => (true, found.size, found.size + ends.lfs),
            (false, true) if ends.lfs > 0 => (false, found.size - 1, found.size - 1),
            (false, true) | (true, _) => (false, found.size, found.size),
        };
        Ok(Self { file, lf, at: 0, end, ready: Vec::new(), given: 0, chunk, length, found })
    }

    /// Returns how many bytes the message has, as served.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the file's time of modification, which is INTERNALDATE, in seconds since 1970.
    #[must_use]
    pub fn modified(&self) -> i64 {
        self.found.modified.0
    }

    /// Returns the file's inode number.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.found.inode
    }

    /// Tells whether the file was not written to since it was opened: what was read is one state of it.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn still_same(&self) -> io::Result<bool> {
        Ok(Found::of(&self.file)? == self.found)
    }

    /// Tells whether somebody may still be writing the file: it was written to less than `quiet` ago, and nothing
    /// happened to it after that. A file that was written in `tmp/` was renamed since, which shows in its status time.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn may_be_growing(&self, now: SystemTime, quiet: Duration) -> io::Result<bool> {
        let data = self.file.metadata()?;
        let written = (data.mtime(), data.mtime_nsec());
        let recent = now.duration_since(data.modified()?).map_or(true, |age| age < quiet);
        Ok(recent && written >= (data.ctime(), data.ctime_nsec()))
    }

    /// Reads what is left and returns the key of it.
    ///
    /// # Errors
    /// Those of reading, and `UnexpectedEof` if the file is shorter than it was.
    pub fn key(&mut self) -> io::Result<ContentKey> {
        let mut hasher = ContentHasher::default();
        self.each(|piece| hasher.update(piece))?;
        Ok(hasher.finish())
    }

    /// Reads the whole message, and once more if it has marks, and returns its keys.
    ///
    /// # Errors
    /// As [`Self::key`].
    pub fn keys(&mut self) -> io::Result<Keys> {
        let (mut hasher, mut mark) = (ContentHasher::default(), WithoutMarks::default());
        self.rewind();
        self.each(|piece| {
            hasher.update(piece);
            if !mark.is_through() {
                mark.update(piece, |_| ());
            }
        })?;
        let whole = hasher.finish();
        let bare = if mark.found() { Some(self.key_without(WithoutMarks::default())?) } else { None };
        let without_tuid = if mark.found_both() { Some(self.key_without(WithoutMarks::of_mbsync())?) } else { None };
        Ok(Keys { whole, bare, without_tuid })
    }

    fn key_without(&mut self, mut marks: WithoutMarks) -> io::Result<ContentKey> {
        let mut hasher = ContentHasher::default();
        self.rewind();
        self.each(|piece| marks.update(piece, |part| hasher.update(part)))?;
        marks.finish(|part| hasher.update(part));
        Ok(hasher.finish())
    }

    fn rewind(&mut self) {
        (self.at, self.given) = (0, 0);
        self.ready.clear();
    }

    /// Reads what is left, piece by piece.
    fn each(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        while self.fill()? {
            take(&self.ready[self.given..]);
            self.given = self.ready.len();
        }
        Ok(())
    }

    /// Makes some bytes ready; returns whether there are any.
    fn fill(&mut self) -> io::Result<bool> {
        if self.given < self.ready.len() {
            return Ok(true);
        }
        self.given = 0;
        self.ready.clear();
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(self.chunk.len());
        if left == 0 {
            return Ok(false);
        }
        let length = read_at(&self.file, &mut self.chunk[..left], self.at)?;
        if length == 0 {
            return Err(shorter());
        }
        self.at += length as u64;
        let piece = &self.chunk[..length];
        if self.lf {
            let mut rest = piece;
            while let Some(at) = memchr(b'\n', rest) {
                self.ready.extend_from_slice(&rest[..at]);
                self.ready.extend_from_slice(b"\r\n");
                rest = &rest[at + 1..];
            }
            self.ready.extend_from_slice(rest);
        } else {
            self.ready.extend_from_slice(piece);
        }
        Ok(true)
    }
}

fn shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file got shorter while it was read")
}

impl Read for Message {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.fill()? {
            return Ok(0);
        }
        let length = buffer.len().min(self.ready.len() - self.given);
        buffer[..length].copy_from_slice(&self.ready[self.given..self.given + length]);
        self.given += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildir::header_digest;
    use crate::model::Digest;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    fn stored(served: &[u8], line_endings: LineEndings) -> (File, ContentKey) {
        let file = tempfile::tempfile().unwrap();
        let key = write(Source::Memory(served), line_endings, &file, &mut vec![b'x']).unwrap();
        (file, key)
    }

    fn raw(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn served(file: File) -> Vec<u8> {
        let mut message = Message::new(file).unwrap();
        let mut bytes = Vec::new();
        message.read_to_end(&mut bytes).unwrap();
        assert_eq!(message.length(), bytes.len() as u64);
        bytes
    }

    #[test]
    fn files_have_these_forms() {
        let table: [(&[u8], &[u8]); 12] = [
            (b"A: b\r\n\r\nbody\r\n", b"A: b\n\nbody\n"),
            (b"no end", b"no end"),
            (b"", b""),
            (b"a\r\nb\nc", b"a\r\nb\nc"),
            (b"a\r\nb\rc", b"a\r\nb\rc"),
            (b"a\r\nb\r", b"a\r\nb\r"),
            (b"a\nb\n", b"a\nb\n\r"),
            (b"a\nb\r", b"a\nb\r\r"),
            (b"a\r", b"a\r"),
            (b"\r\r", b"\r\r"),
            (b"\n", b"\n\r"),
            (b"From x\r\n\0\xff\xfe", b"From x\n\0\xff\xfe"),
        ];
        for (message, file) in table {
            let (stored, key) = stored(message, LineEndings::Lf);
            assert_eq!(raw(&stored).escape_ascii().to_string(), file.escape_ascii().to_string());
            assert_eq!(key.fingerprint.size, message.len() as u64);
            assert_eq!(served(stored), message);
        }
        assert_eq!(raw(&stored(b"a\r\nb\r\n", LineEndings::Keep).0), b"a\r\nb\r\n");
    }

    /// Bytes in which line ends are frequent and pieces end in the middle of one.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let small = prop::collection::vec(prop::sample::select(&b"\r\n\r\nab"[..]), 0..40);
        let large = (small.clone(), CHUNK - 3..CHUNK + 3, small.clone()).prop_map(|(a, fill, b)| {
            let end = b"line\r\n".iter().copied().cycle();
            a.into_iter().chain(end.take(fill)).chain(b).collect()
        });
        prop_oneof![8 => small, 1 => large, 1 => prop::collection::vec(any::<u8>(), 0..300)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn what_was_served_comes_back(bytes in hostile(), keep in any::<bool>(), from_file in any::<bool>()) {
            let endings = if keep { LineEndings::Keep } else { LineEndings::Lf };
            let (file, key) = if from_file {
                let (spool, file) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
                spool.write_all_at(&bytes, 0).unwrap();
                let key = write(Source::File(&spool), endings, &file, &mut Vec::new()).unwrap();
                (file, key)
            } else {
                stored(&bytes, endings)
            };
            let mut expected = ContentHasher::default();
            expected.update(&bytes);
            prop_assert_eq!(key, expected.finish());
            prop_assert_eq!(Message::new(file.try_clone().unwrap()).unwrap().key().unwrap(), key);
            prop_assert!(served(file) == bytes);
        }

        #[test]
        fn keys_do_not_depend_on_the_pieces(bytes in hostile(), cut in 1usize..7) {
            let (mut whole, mut pieces) = (ContentHasher::default(), ContentHasher::default());
            whole.update(&bytes);
            bytes.chunks(cut).for_each(|piece| pieces.update(piece));
            prop_assert_eq!(whole.finish(), pieces.finish());
        }

        #[test]
        fn the_header_is_what_precedes_the_empty_line(bytes in hostile()) {
            let end = if bytes.starts_with(b"\r\n") { 0 } else {
                let crlfs = bytes.windows(4).position(|w| w == b"\r\n\r\n");
                crlfs.or_else(|| bytes.windows(2).position(|w| w == b"\n\n")).unwrap_or(bytes.len())
            };
            let header = &bytes[..end];
            let trimmed = header.iter().rposition(|b| !b"\r\n".contains(b)).map_or(0, |last| last + 1);
            prop_assert_eq!(header_digest(&bytes), Digest(Sha256::digest(&header[..trimmed]).into()));
        }
    }

    #[test]
    fn marks_lead_to_more_keys() {
        let (tuid, flag, rest) =
            ("X-TUID: abcdefghijkl\r\n", "X-Message-Flag: a\r\n b\r\n", "Subject: x\r\n\r\nbody\r\n");
        let rows: [(String, Vec<String>); 4] = [
            (rest.to_owned(), vec![rest.to_owned()]),
            (format!("{tuid}{rest}"), vec![format!("{tuid}{rest}"), rest.to_owned()]),
            (format!("{flag}{rest}"), vec![format!("{flag}{rest}"), rest.to_owned()]),
            // A base from when Exchange's mark was not known may have the last of these.
            (
                format!("{flag}{tuid}{rest}"),
                vec![format!("{flag}{tuid}{rest}"), rest.to_owned(), format!("{flag}{rest}")],
            ),
        ];
        for (text, contents) in rows {
            let (file, whole) = stored(text.as_bytes(), LineEndings::Lf);
            let keys = Message::new(file).unwrap().keys().unwrap();
            let of = |text: &String| stored(text.as_bytes(), LineEndings::Keep).1;
            assert_eq!(keys.each().collect::<Vec<_>>(), contents.iter().map(of).collect::<Vec<_>>(), "{text:?}");
            assert!(keys.each().all(|content| keys.is(content)) && !keys.is(of(&tuid.to_owned())));
            assert_eq!(keys.unmarked_content(), of(&rest.to_owned()));
            let bare = super::super::unmarked_key(Source::Memory(text.as_bytes())).unwrap();
            assert_eq!((whole, bare), (keys.whole, keys.bare));
        }
    }

    #[test]
    fn a_file_that_shrinks_or_changes_is_noticed() {
        let (file, _) = stored(&b"line\r\n".repeat(50_000), LineEndings::Keep);
        let mut message = Message::new(file.try_clone().unwrap()).unwrap();
        assert!(message.still_same().unwrap());
        file.set_len(70_000).unwrap();
        assert!(!message.still_same().unwrap());
        assert_eq!(message.key().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
