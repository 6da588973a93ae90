//! The only place that knows async-imap: answers go through its parser and come out as this project's own types.
//!
//! Of async-imap only `Client::new`, `read_response` and `get_mut` are used. Its typed helpers, which `clippy.toml`
//! forbids, turn a NO and a lost connection into success with an empty result; its `login`, `authenticate` and
//! `run_command` would write passwords into the log.

use std::io;
use std::time::Duration;

use async_imap::imap_proto::{self, AttributeValue, MailboxDatum, MessageSection, SectionPath};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::guard::{Beside, Fault, Guard};
use super::parse::{self, Code, Data};
use super::{Body, Error, error};
use crate::model::{Flags, Uid};

/// A byte stream to a server.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Io for T {}

/// Any byte stream to a server.
pub(super) type Stream = Box<dyn Io>;

/// The status of an answer (RFC 3501 §7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    Ok,
    No,
    Bad,
    Bye,
    Preauth,
}

/// What a FETCH says of a message. `None` is not said; the bodies also tell NIL from not said.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    /// Its place in the mailbox at that moment, from 1; a hint, for it moves with every expunge.
    pub(super) sequence: u32,
    pub(super) uid: Option<Uid>,
    pub(super) flags: Option<Flags>,
    pub(super) mod_seq: Option<u64>,
    pub(super) internal_date: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) header: Option<Body>,
    pub(super) body: Option<Body>,
}

/// An answer of the server.
#[derive(Debug)]
pub(super) enum Answer {
    Tagged { tag: String, status: Status, code: Code, text: String },
    Untagged { status: Status, code: Code, text: String },
    Continue,
    Exists(u32),
    Expunge,
    Fetch(Box<Fetch>),
    Data(Data),
}

/// Answers come out, bytes go in.
#[derive(Debug)]
pub(super) struct Wire {
    client: async_imap::Client<Guard<Stream>>,
    timeout: Duration,
    limit: u64,
}

impl Wire {
    /// Returns a wire that fails when no byte comes or goes for `timeout`.
    pub(super) fn new(guard: Guard<Stream>, timeout: Duration, limit: u64) -> Self {
        Self { client: async_imap::Client::new(guard), timeout, limit }
    }

    /// Returns the guard below.
    pub(super) fn guard(&mut self) -> &mut Guard<Stream> {
        self.client.get_mut()
    }

    /// Returns how many bytes came and went.
    pub(super) fn traffic(&self) -> (u64, u64) {
        self.client.get_ref().traffic()
    }

    /// Puts bytes into the queue that [`Self::next`] and [`Self::drain`] send.
    pub(super) fn queue(&mut self, bytes: &[u8], secret: bool) {
        self.guard().queue(bytes, secret);
    }

    /// Sends until at most `low` bytes are queued. Safe to cancel: nothing is lost or sent twice.
    ///
    /// # Errors
    /// Those of [`Self::next`].
    pub(super) async fn drain(&mut self, low: usize) -> Result<(), Error> {
        loop {
            let deadline = self.guard().activity() + self.timeout;
            let guard = self.client.get_mut();
            match timeout_at(deadline, std::future::poll_fn(|cx| guard.poll_drain(cx, low))).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => return Err(self.failure(&error)),
                Err(_) if self.is_stuck() => return Err(Error::TimedOut(self.timeout)),
                Err(_) => {}
            }
        }
    }

    /// Returns the next answer, and sends what is queued while it waits. Safe to cancel: no answer is lost.
    ///
    /// # Errors
    /// The connection ended, was silent for too long, or sent more than is allowed.
    pub(super) async fn next(&mut self) -> Result<Answer, Error> {
        loop {
            let deadline = self.guard().activity() + self.timeout;
            match timeout_at(deadline, self.answer()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => return Err(self.failure(&error)),
                Err(_) if self.is_stuck() => return Err(Error::TimedOut(self.timeout)),
                Err(_) => {}
            }
        }
    }

    /// Returns the next answer however long it takes, as IDLE needs. Safe to cancel.
    ///
    /// # Errors
    /// Those of [`Self::next`], but for the timeout.
    pub(super) async fn next_in_silence(&mut self) -> Result<Answer, Error> {
        self.answer().await.map_err(|error| self.failure(&error))
    }

    async fn answer(&mut self) -> io::Result<Answer> {
        let guard = self.client.get_mut();
        std::future::poll_fn(|cx| guard.poll_answer(cx)).await?;
        if let Some(fetch) = guard.take_fetch() {
            return Ok(Answer::Fetch(fetch));
        }
        // Its skeleton is complete, so this does not wait, and nothing is lost if it is cancelled.
        let response = self.client.read_response().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let beside = self.client.get_mut().take_beside();
        Ok(convert(response.parsed(), beside))
    }

    /// Bytes may have moved without making an answer: a large body does that for minutes.
    fn is_stuck(&mut self) -> bool {
        self.guard().activity() + self.timeout <= Instant::now()
    }

    fn failure(&mut self, error: &io::Error) -> Error {
        let limit = self.limit;
        match self.guard().take_fault() {
            Some(Fault::Ended) => Error::Closed { text: "the server closed it".into() },
            Some(Fault::TooLarge { uid, size }) => {
                Error::TooLarge { uid: uid.and_then(|n| Uid::new(n).ok()), size, limit }
            }
            Some(Fault::Limit(what)) => Error::Protocol(what.to_owned()),
            Some(Fault::Spool(source)) => Error::local("could not keep a large message in the spool directory", source),
            None => Error::Closed { text: error.to_string() },
        }
    }
}

/// Tells whether imap-proto reads these bytes as exactly one answer.
pub(super) fn is_one_answer(bytes: &[u8]) -> bool {
    imap_proto::Response::parse(bytes).is_ok_and(|(rest, _)| rest.is_empty())
}

/// Reads a FETCH with imap-proto, as all were.
#[cfg(test)]
pub(super) fn read_slowly(skeleton: &[u8], literals: Vec<Body>) -> Option<Fetch> {
    let line = [skeleton, b"\r\n"].concat();
    let (_, response) = imap_proto::Response::parse(&line).ok().filter(|(rest, _)| rest.is_empty())?;
    match convert(&response, Beside { literals, ..Beside::default() }) {
        Answer::Fetch(fetch) => Some(*fetch),
        _ => None,
    }
}

fn convert(skeleton: &imap_proto::Response<'_>, beside: Beside) -> Answer {
    use imap_proto::Response as R;
    let words = |line: &[u8]| {
        let (code, text) = Code::split(line);
        (code, error::words(text))
    };
    match skeleton {
        R::Done { tag, status, .. } => {
            let (code, text) = words(&beside.line);
            Answer::Tagged { tag: tag.0.clone(), status: convert_status(status), code, text }
        }
        R::Continue(_) => Answer::Continue,
        R::MailboxData(MailboxDatum::Exists(count)) => Answer::Exists(*count),
        R::Expunge(_) => Answer::Expunge,
        R::Fetch(sequence, attributes) => {
            Answer::Fetch(Box::new(Fetch { sequence: *sequence, ..convert_fetch(attributes, beside.literals) }))
        }
        R::Data { outcome, .. } if outcome.information.as_deref() == Some("[X-RAW]") => {
            Answer::Data(parse::data(&beside.line))
        }
        R::Data { status, .. } => {
            let (code, text) = words(&beside.line);
            Answer::Untagged { status: convert_status(status), code, text }
        }
        // RECENT; the guard lets nothing else through.
        _ => Answer::Data(Data::Other),
    }
}

fn convert_status(status: &imap_proto::Status) -> Status {
    match status {
        imap_proto::Status::Ok => Status::Ok,
        imap_proto::Status::No => Status::No,
        imap_proto::Status::Bad => Status::Bad,
        imap_proto::Status::Bye => Status::Bye,
        imap_proto::Status::PreAuth => Status::Preauth,
    }
}

fn convert_fetch(attributes: &[AttributeValue<'_>], mut literals: Vec<Body>) -> Fetch {
    let mut fetch = Fetch::default();
    for attribute in attributes {
        match attribute {
            AttributeValue::Uid(uid) => fetch.uid = Uid::new((*uid).into()).ok(),
            AttributeValue::Flags(names) => {
                let mut flags = Flags::new();
                for name in names {
                    flags.insert_imap(name);
                }
                fetch.flags = Some(flags);
            }
            AttributeValue::ModSeq(number) => fetch.mod_seq = Some(*number),
            AttributeValue::InternalDate(date) => fetch.internal_date = Some(date.to_string()),
            AttributeValue::Rfc822Size(size) => fetch.size = Some((*size).into()),
            AttributeValue::BodySection { section: None, index: None, data } => {
                fetch.body = Some(content(data.as_deref(), &mut literals));
            }
            AttributeValue::BodySection {
                section: Some(SectionPath::Full(MessageSection::Header)),
                index: None,
                data,
            } => fetch.header = Some(content(data.as_deref(), &mut literals)),
            _ => {}
        }
    }
    fetch
}

/// Returns the content behind a marker.
fn content(data: Option<&[u8]>, literals: &mut [Body]) -> Body {
    let index = data.and_then(|d| std::str::from_utf8(d.strip_prefix(b"\0")?).ok()?.parse::<usize>().ok());
    let body = index.and_then(|i| literals.get_mut(i));
    body.map_or(Body::Nothing, |body| std::mem::replace(body, Body::Nothing))
}
