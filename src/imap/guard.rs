//! Stands between the network and async-imap, and lets through only what imap-proto can read without harm.
//!
//! The bytes are framed here into answers. Of each answer async-imap gets a *skeleton* that cannot upset it: the tag
//! and the status, or a FETCH whose literals are replaced by short markers. What was taken out waits [`Beside`] it, one
//! entry an answer, in order. So a body is never copied through the parser nor logged by it, a line of 16 MiB costs no
//! more than its bytes, and neither of the two answers that make imap-proto panic reaches it.
//!
//! The end of the stream is always an error, and so is everything above the limits. Nothing here panics.
//!
//! Writing is a queue that reading empties too: a server that waits until its answers are read, while a command of ours
//! waits until the server reads, cannot come to a standstill.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use zeroize::Zeroize;

use super::Body;
use super::parse::Cursor;
use super::plain::{self, MARKER};
use super::wire::{Fetch, is_one_answer};

/// A line without its literals; a SEARCH result of 500,000 UIDs has 4 MiB. Before sign-in the server has no reason to
/// send more than capabilities.
const MAX_LINE: usize = 16 << 20;
const MAX_LINE_BEFORE_SIGN_IN: usize = 64 << 10;
/// A FETCH without its literals: flags, dates, numbers. async-imap parses it again with every 4 KiB that it gets.
const MAX_FETCH_LINE: usize = 64 << 10;
/// A literal that is not part of a message: a mailbox name.
const MAX_NAME: u64 = 64 << 10;
/// Literals of one FETCH that are kept in memory; what goes beyond waits in files.
const MAX_MEMORY: u64 = 512 << 10;
const MAX_LITERALS: usize = 64;
const MAX_DEPTH: usize = 64;
/// One read of this size costs less than several small ones, through TLS as well.
const INPUT: usize = 128 << 10;
/// async-imap reads into blocks of 4 KiB; to fill more than a part of one only costs copies.
const OUTPUT: usize = 2 << 10;

/// What the guard does not let through.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server closed the connection.
    Ended,
    /// A literal of a message is larger than allowed. The UID, if the server told it first.
    TooLarge { uid: Option<u64>, size: u64 },
    /// A limit that no honest server reaches.
    Limit(&'static str),
    /// A large body could not be written to the spool directory.
    Spool(io::Error),
}

/// What an answer holds besides its skeleton.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// The text of a status, or the whole line of what has no skeleton.
    pub(super) line: Vec<u8>,
    /// The literals of a FETCH, in the order of their markers.
    pub(super) literals: Vec<Body>,
    /// The whole of a FETCH that async-imap was not needed for: it has no skeleton.
    pub(super) fetch: Option<Box<Fetch>>,
}

/// How an answer is treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// `* n FETCH`: markers for literals, then to imap-proto.
    Fetch,
    /// `* n EXISTS` and the like: to imap-proto.
    Number,
    /// `* OK` and the like, `tag OK` and the like: status to imap-proto, text beside. Never has literals.
    Status,
    /// `+`: as a status.
    Continue,
    /// Everything else: beside, literals in place.
    Data,
}

/// A literal that is being read.
struct Literal {
    size: u64,
    left: u64,
    sink: Sink,
}

enum Sink {
    Line,
    Memory(Vec<u8>),
    File(File),
}

/// An answer that is being read.
#[derive(Default)]
struct Frame {
    line: Vec<u8>,
    /// Where the line goes on after the last literal.
    segment: usize,
    kind: Option<Kind>,
    literal: Option<Literal>,
    literals: Vec<Body>,
    in_memory: u64,
}

/// The stream that async-imap reads from.
pub(super) struct Guard<S> {
    stream: S,
    spool_dir: PathBuf,
    max_literal: u64,
    signed_in: bool,
    input: Vec<u8>,
    at: usize,
    end: usize,
    frame: Frame,
    output: Vec<u8>,
    given: usize,
    beside: VecDeque<Beside>,
    outbox: Vec<u8>,
    flushed: bool,
    secret: bool,
    fault: Option<Fault>,
    received: u64,
    sent: u64,
    activity: Instant,
}

impl<S> fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("received", &self.received).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl<S> Guard<S> {
    /// Returns a guard over a fresh stream. Literals of messages may have `max_literal` bytes; large ones go to files
    /// in `spool_dir`, which have no name and vanish when they are closed.
    pub(super) fn new(stream: S, spool_dir: &Path, max_literal: u64) -> Self {
        Self {
            stream,
            spool_dir: spool_dir.to_owned(),
            max_literal,
            signed_in: false,
            input: vec![0; INPUT],
            at: 0,
            end: 0,
            frame: Frame::default(),
            output: Vec::with_capacity(2 * OUTPUT),
            given: 0,
            beside: VecDeque::new(),
            outbox: Vec::new(),
            flushed: true,
            secret: false,
            fault: None,
            received: 0,
            sent: 0,
            activity: Instant::now(),
        }
    }

    /// Allows what only a server that knows the user may send: long lines and messages.
    pub(super) fn signed_in(&mut self) {
        self.signed_in = true;
    }

    /// Puts bytes into the queue, which never waits. `secret` bytes are wiped once they are sent.
    pub(super) fn queue(&mut self, bytes: &[u8], secret: bool) {
        if self.outbox.is_empty() {
            self.activity = Instant::now();
        }
        self.outbox.extend_from_slice(bytes);
        self.flushed = false;
        self.secret |= secret;
    }

    /// Takes what belongs to the answer that async-imap gave out last.
    pub(super) fn take_beside(&mut self) -> Beside {
        self.beside.pop_front().unwrap_or_default()
    }

    /// Takes the reason why reading failed.
    pub(super) fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    /// Returns when a byte last came or went, or a command was queued.
    pub(super) fn activity(&self) -> Instant {
        self.activity
    }

    /// Returns how many bytes came and went.
    pub(super) fn traffic(&self) -> (u64, u64) {
        (self.received, self.sent)
    }

    /// Takes the FETCH that comes next, if it was read already.
    pub(super) fn take_fetch(&mut self) -> Option<Box<Fetch>> {
        let fetch = self.beside.front_mut()?.fetch.take()?;
        self.beside.pop_front();
        Some(fetch)
    }

    /// Reads on in the input; true when an answer is complete and its skeleton in the output. A `plain` FETCH has no
    /// skeleton.
    fn take(&mut self, plain: bool) -> Result<bool, Fault> {
        if self.frame.literal.is_some() {
            self.take_literal()?;
            return Ok(false);
        }
        let input = &self.input[self.at..self.end];
        let limit = if self.signed_in { MAX_LINE } else { MAX_LINE_BEFORE_SIGN_IN };
        let newline = memchr::memchr(b'\n', input);
        let taken = newline.map_or(input.len(), |at| at + 1);
        if self.frame.line.len() + taken > limit {
            return Err(Fault::Limit("a line is too long"));
        }
        self.frame.line.extend_from_slice(&input[..taken]);
        self.at += taken;
        if newline.is_none() {
            return Ok(false);
        }
        let frame = &mut self.frame;
        frame.line.pop();
        if frame.line.len() > frame.segment && frame.line.last() == Some(&b'\r') {
            frame.line.pop();
        }
        let kind = *frame.kind.get_or_insert_with(|| classify(&frame.line, self.signed_in));
        match kind {
            Kind::Fetch | Kind::Data => match literal(&frame.line[frame.segment..]) {
                Some((length, size)) => self.begin_literal(kind, length, size).map(|()| false),
                None => Ok(self.finish(kind, plain)),
            },
            Kind::Number | Kind::Status | Kind::Continue => Ok(self.finish(kind, plain)),
        }
    }

    /// Begins a literal of `size` bytes, whose announcement is the last `length` bytes of the line.
    fn begin_literal(&mut self, kind: Kind, length: usize, size: u64) -> Result<(), Fault> {
        let frame = &mut self.frame;
        let sink = if kind == Kind::Data {
            if size > MAX_NAME {
                return Err(Fault::Limit("a literal outside of a message is too long"));
            }
            frame.line.extend_from_slice(b"\r\n");
            Sink::Line
        } else {
            if size > self.max_literal {
                return Err(Fault::TooLarge { uid: uid(&frame.line), size });
            }
            if frame.literals.len() >= MAX_LITERALS {
                return Err(Fault::Limit("a message has too many literals"));
            }
            frame.line.truncate(frame.line.len() - length);
            put_marker(&mut frame.line, frame.literals.len());
            if frame.in_memory + size > MAX_MEMORY {
                Sink::File(unnamed_file(&self.spool_dir).map_err(Fault::Spool)?)
            } else {
                frame.in_memory += size;
                // At most MAX_MEMORY, whatever was announced.
                Sink::Memory(Vec::with_capacity(usize::try_from(size).unwrap_or_default()))
            }
        };
        frame.literal = Some(Literal { size, left: size, sink });
        if size == 0 { self.take_literal() } else { Ok(()) }
    }

    fn take_literal(&mut self) -> Result<(), Fault> {
        let frame = &mut self.frame;
        let Some(literal) = frame.literal.as_mut() else { return Ok(()) };
        let input = &self.input[self.at..self.end];
        let taken = usize::try_from(literal.left).unwrap_or(usize::MAX).min(input.len());
        let bytes = &input[..taken];
        match &mut literal.sink {
            Sink::Line => frame.line.extend_from_slice(bytes),
            Sink::Memory(body) => body.extend_from_slice(bytes),
            Sink::File(file) => file.write_all(bytes).map_err(Fault::Spool)?,
        }
        self.at += taken;
        literal.left -= taken as u64;
        if literal.left > 0 {
            return Ok(());
        }
        if let Some(Literal { size, sink, .. }) = frame.literal.take() {
            match sink {
                Sink::Line => {}
                Sink::Memory(body) => frame.literals.push(Body::Memory(body)),
                Sink::File(mut file) => {
                    file.rewind().map_err(Fault::Spool)?;
                    frame.literals.push(Body::File(file, size));
                }
            }
        }
        frame.segment = frame.line.len();
        Ok(())
    }

    /// Hands out the answer: its skeleton to async-imap, the rest beside. Always true.
    fn finish(&mut self, kind: Kind, plain: bool) -> bool {
        let Frame { mut line, mut literals, .. } = std::mem::take(&mut self.frame);
        if plain
            && kind == Kind::Fetch
            && line.len() <= MAX_FETCH_LINE
            && let Some(fetch) = plain::fetch(&line, &mut literals)
        {
            self.beside.push_back(Beside { fetch: Some(Box::new(fetch)), ..Beside::default() });
            // The next answer is about as long.
            line.clear();
            self.frame.line = line;
            return true;
        }
        let begin = self.output.len();
        match kind {
            Kind::Fetch | Kind::Number => {
                let safe = kind == Kind::Number || make_safe(&mut line, &mut literals);
                if safe && line.len() <= MAX_FETCH_LINE {
                    self.output.extend_from_slice(&line);
                    self.output.extend_from_slice(b"\r\n");
                }
                if is_one_answer(&self.output[begin..]) {
                    self.beside.push_back(Beside { literals, ..Beside::default() });
                    return true;
                }
                self.output.truncate(begin);
                self.output.extend_from_slice(b"* OK [X-RAW]\r\n");
            }
            Kind::Status => {
                let (tag, rest) = split_word(&line);
                let (status, text) = split_word(rest);
                for part in [tag, b" ", status, b"\r\n"] {
                    self.output.extend_from_slice(part);
                }
                let text = line.len() - text.len();
                line.drain(..text);
            }
            Kind::Continue => {
                self.output.extend_from_slice(b"+ \r\n");
                line.clear();
            }
            Kind::Data => self.output.extend_from_slice(b"* OK [X-RAW]\r\n"),
        }
        self.beside.push_back(Beside { line, literals, fetch: None });
        true
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Reads from the network into what is free of the input; ready with 0 when nothing is free.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.at == self.end {
            (self.at, self.end) = (0, 0);
        }
        let mut buf = ReadBuf::new(&mut self.input[self.end..]);
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(0));
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
        let count = buf.filled().len();
        if count == 0 {
            self.fault.get_or_insert(Fault::Ended);
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.end += count;
        self.received += count as u64;
        self.activity = Instant::now();
        Poll::Ready(Ok(count))
    }

    /// Reads until an answer is there, and sends what is queued while it waits. What has no [`Self::take_fetch`] then is
    /// for async-imap.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.beside.is_empty() && self.at < self.end {
                self.take(true).map_err(|fault| self.fail(fault))?;
            }
            if !self.beside.is_empty() {
                return Poll::Ready(Ok(()));
            }
            // That sending failed matters less than what the server may still have to say about it.
            let _ = self.poll_send(cx);
            ready!(self.poll_input(cx))?;
        }
    }

    /// Keeps the reason why reading failed, and returns what async-imap is told.
    fn fail(&mut self, fault: Fault) -> io::Error {
        self.fault.get_or_insert(fault);
        io::ErrorKind::InvalidData.into()
    }

    /// Sends what is queued.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outbox))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count as u64;
            self.activity = Instant::now();
            if count == self.outbox.len() && std::mem::take(&mut self.secret) {
                self.outbox.zeroize();
            } else {
                self.outbox.drain(..count);
            }
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends until at most `low` bytes are queued, and takes in what the server sends meanwhile.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, low: usize) -> Poll<io::Result<()>> {
        loop {
            if let Poll::Ready(done) = self.poll_send(cx) {
                return Poll::Ready(done);
            }
            if self.outbox.len() <= low {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_input(cx))? == 0 {
                return Poll::Pending;
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.given < this.output.len() {
                let count = buf.remaining().min(this.output.len() - this.given);
                buf.put_slice(&this.output[this.given..this.given + count]);
                this.given += count;
                return Poll::Ready(Ok(()));
            }
            this.output.clear();
            this.given = 0;
            while this.at < this.end && this.output.len() < OUTPUT {
                match this.take(false) {
                    // Large literals are handed out before more of them are read.
                    Ok(true) if this.beside.back().is_some_and(|b| !b.literals.is_empty()) => break,
                    Ok(_) => {}
                    Err(fault) => return Poll::Ready(Err(this.fail(fault))),
                }
            }
            if this.output.is_empty() {
                // That sending failed matters less than what the server may still have to say about it.
                let _ = this.poll_send(cx);
                ready!(this.poll_input(cx))?;
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().queue(bytes, false);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Returns what kind of answer begins with this line.
fn classify(line: &[u8], signed_in: bool) -> Kind {
    if line.first() == Some(&b'+') {
        return Kind::Continue;
    }
    let (tag, rest) = split_word(line);
    let (first, rest) = split_word(rest);
    let is = |word: &[u8], names: &[&str]| names.iter().any(|n| n.as_bytes().eq_ignore_ascii_case(word));
    if tag == b"*" {
        if is(first, &["OK", "NO", "BAD", "BYE", "PREAUTH"]) {
            return Kind::Status;
        }
        let (second, _) = split_word(rest);
        if !first.iter().all(u8::is_ascii_digit) || first.is_empty() {
            Kind::Data
        } else if is(second, &["FETCH"]) && signed_in {
            Kind::Fetch
        } else if is(second, &["EXISTS", "EXPUNGE", "RECENT"]) {
            Kind::Number
        } else {
            Kind::Data
        }
    } else if !tag.is_empty()
        && tag.len() <= 20
        && tag.iter().all(u8::is_ascii_alphanumeric)
        && is(first, &["OK", "NO", "BAD"])
    {
        Kind::Status
    } else {
        Kind::Data
    }
}

/// Splits at the first spaces.
fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let (word, rest) = line.split_at(memchr::memchr(b' ', line).unwrap_or(line.len()));
    (word, rest.trim_ascii_start())
}

/// Returns the length of the announcement of a literal (RFC 3501 §4.3, RFC 3516 §4.3) that ends a line, and its size.
fn literal(line: &[u8]) -> Option<(usize, u64)> {
    let inside = line.strip_suffix(b"}")?;
    let inside = inside.strip_suffix(b"+").unwrap_or(inside);
    let digits = inside.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (head, digits) = inside.split_at(inside.len() - digits);
    let head = head.strip_suffix(b"{")?;
    let head = head.strip_suffix(b"~").unwrap_or(head);
    let size = std::str::from_utf8(digits).ok().filter(|d| !d.is_empty())?.parse().unwrap_or(u64::MAX);
    Some((line.len() - head.len(), size))
}

/// Returns the UID that a FETCH names.
fn uid(line: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(line, b"UID ")?;
    let digits = line[at + 4..].split(|b| !b.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Appends what stands for a literal. A quoted string cannot hold a NUL, so a server cannot forge one.
fn put_marker(line: &mut Vec<u8>, index: usize) {
    line.extend_from_slice(MARKER);
    // At most `MAX_LITERALS`.
    line.extend([index / 10, index % 10].map(|digit| b'0' + digit as u8));
}

/// Makes a FETCH harmless; false if it has too many levels or strings, or a UID that is none.
///
/// A date of `NIL` panics in imap-proto 0.17, so it becomes an empty one. What of a message is given as a quoted string
/// is taken out as literals are.
fn make_safe(line: &mut Vec<u8>, literals: &mut Vec<Body>) -> bool {
    let (mut depth, mut quoted, mut at) = (0_usize, false, 0);
    while at < line.len() {
        match line[at] {
            b'\\' if quoted => at += 1,
            b'"' if !quoted && depth == 1 && (line[..at].ends_with(b"] ") || line[..at].ends_with(b"> ")) => {
                let mut cursor = Cursor(&line[at..]);
                let (Some(text), true) = (cursor.string(), literals.len() < MAX_LITERALS) else { return false };
                let end = line.len() - cursor.0.len();
                let mut marker = Vec::new();
                put_marker(&mut marker, literals.len());
                line.splice(at..end, marker.iter().copied());
                literals.push(Body::Memory(text));
                at += marker.len() - 1;
            }
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'U' | b'u' | b'I' | b'i' if depth == 1 && matches!(line[at - 1], b'(' | b' ') => {
                let item = &line[at..];
                let is = |name: &[u8]| item.get(..name.len()).is_some_and(|i| i.eq_ignore_ascii_case(name));
                if is(b"UID ") {
                    let digits = item[4..].split(|b| !b.is_ascii_digit()).next().unwrap_or_default();
                    let number = std::str::from_utf8(digits).ok().and_then(|d| d.parse::<u32>().ok());
                    if number.is_none_or(|n| n == 0) {
                        return false;
                    }
                } else if is(b"INTERNALDATE NIL") {
                    line.splice(at + 13..at + 16, *b"\"\"");
                    at += 14;
                }
            }
            _ => {}
        }
        if depth > MAX_DEPTH {
            return false;
        }
        at += 1;
    }
    true
}

/// Creates a file that has no name and is gone once it is closed.
fn unnamed_file(dir: &Path) -> io::Result<File> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let path = dir.join(format!("spool-{:016x}", u64::from_ne_bytes(random)));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
