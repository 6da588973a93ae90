//! What identifies the content of a message: digests of its bytes as served.

use std::io::{self, Write};

use memchr::memchr2;
use sha2::{Digest as _, Sha256};

use super::content::{Failure, Source};
use crate::model::{ContentKey, Digest, Fingerprint, WithoutMarks};

/// Makes a [`ContentKey`] of the bytes of a message as served, in pieces of any size.
#[derive(Clone, Default)]
pub struct ContentHasher {
    message: MessageHasher,
    size: u64,
}

impl ContentHasher {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.message.update(piece);
        self.size += piece.len() as u64;
    }

    /// Takes all that a source has.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn read(&mut self, source: Source<'_>) -> io::Result<()> {
        let read = source.pieces(|piece| {
            self.update(piece);
            Ok(true)
        });
        match read {
            Ok(_) => Ok(()),
            Err(Failure::Read(error) | Failure::Write(error)) => Err(error),
        }
    }

    /// Takes all that a source has but the marks.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn read_bare(&mut self, source: Source<'_>) -> io::Result<()> {
        let mut mark = WithoutMarks::default();
        let read = source.pieces(|piece| {
            mark.update(piece, |part| self.update(part));
            Ok(true)
        });
        mark.finish(|part| self.update(part));
        match read {
            Ok(_) => Ok(()),
            Err(Failure::Read(error) | Failure::Write(error)) => Err(error),
        }
    }

    /// Returns the key of all pieces.
    #[must_use]
    pub fn finish(self) -> ContentKey {
        let digest = Digest(self.message.all.clone().finalize().into());
        ContentKey { digest, fingerprint: Fingerprint { header: self.message.header(), size: self.size } }
    }
}

impl Write for ContentHasher {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.update(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the key that a source has without its marks, if it has any.
///
/// # Errors
/// Those of reading it.
pub fn unmarked_key(source: Source<'_>) -> io::Result<Option<ContentKey>> {
    let mut marks = WithoutMarks::default();
    let header = source.pieces(|piece| {
        marks.update(piece, |_| ());
        Ok(!marks.is_through())
    });
    match header {
        Err(Failure::Read(error) | Failure::Write(error)) => return Err(error),
        Ok(_) if !marks.found() => return Ok(None),
        Ok(_) => {}
    }
    let mut hasher = ContentHasher::default();
    hasher.read_bare(source)?;
    Ok(Some(hasher.finish()))
}

/// Returns [`Fingerprint::header`] of a header (or of a whole message) as served.
#[must_use]
pub fn header_digest(header: &[u8]) -> Digest {
    let mut hasher = MessageHasher::default();
    hasher.update(header);
    hasher.header()
}

/// Hashes a message, and on the way its header: up to the first empty line, without the line ends before it. Where no CRLFCRLF
/// ends it, two LFs do: so do servers that keep bare LFs read it.
#[derive(Clone)]
struct MessageHasher {
    /// Everything.
    all: Sha256,
    /// As `all` was before the run of CRs and LFs that it ends with, if it ends with one.
    before_run: Option<Sha256>,
    /// How much of CRLFCRLF stands at the end; all four bytes of it end the header.
    matched: u8,
    /// The last byte was an LF.
    after_lf: bool,
    /// As `before_run` was at the first two LFs.
    before_lfs: Option<Sha256>,
}

impl Default for MessageHasher {
    /// A message may begin with the empty line, so its beginning counts as the end of a line.
    fn default() -> Self {
        Self { all: Sha256::new(), before_run: None, matched: 2, after_lf: false, before_lfs: None }
    }
}

impl MessageHasher {
    fn update(&mut self, mut piece: &[u8]) {
        while self.matched < 4 {
            let text = memchr2(b'\r', b'\n', piece).unwrap_or(piece.len());
            if text > 0 {
                (self.before_run, self.matched, self.after_lf) = (None, 0, false);
                self.all.update(&piece[..text]);
            }
            let Some(&end) = piece.get(text) else { return };
            if self.before_run.is_none() {
                self.before_run = Some(self.all.clone());
            }
            self.all.update([end]);
            self.matched = match (self.matched, end) {
                (0 | 2, b'\r') | (1 | 3, b'\n') => self.matched + 1,
                (_, b'\r') => 1,
                _ => 0,
            };
            if self.after_lf && end == b'\n' && self.before_lfs.is_none() {
                self.before_lfs.clone_from(&self.before_run);
            }
            self.after_lf = end == b'\n';
            piece = &piece[text + 1..];
        }
        self.all.update(piece);
    }

    fn header(self) -> Digest {
        let cut = if self.matched == 4 { self.before_run } else { self.before_lfs.or(self.before_run) };
        Digest(cut.unwrap_or(self.all).finalize().into())
    }
}
