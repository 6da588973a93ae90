//! UID FETCH (RFC 3501 §6.4.5, §6.4.8): what is there, flags, sizes, fingerprints, bodies.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::Sender;
use tracing::warn;

use super::connection::Event;
use super::parse::Data;
use super::select::seen;
use super::wire::{Answer, Fetch};
use super::{Error, Habit, RawName, Session, date};
use crate::model::{Digest, Fingerprint, Flags, RemoteMessage, Uid, UidSet, WithoutMarks};

/// Bytes of a message as the server gave them, whole.
#[derive(Debug)]
pub enum Body {
    /// Up to 512 KiB.
    Memory(Vec<u8>),
    /// A larger one: a file without a name, at its beginning, and its length in bytes.
    File(File, u64),
    /// NIL, or empty: the server has the message, but gives nothing of it.
    Nothing,
}

impl Body {
    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
            Self::Nothing => 0,
        }
    }

    /// Tells whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A message with its body.
#[derive(Debug)]
pub struct Fetched {
    /// Its UID.
    pub uid: Uid,
    /// Its flags.
    pub flags: Flags,
    /// INTERNALDATE in seconds since 1970; 0 if the server gave none that makes sense.
    pub internal_date: i64,
    /// Its bytes.
    pub body: Body,
}

/// What identifies a message without its body, and what it was seen with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its UID.
    pub uid: Uid,
    /// The digest of its header, and RFC822.SIZE, which some servers only estimate
    /// ([`Habit::EstimatesSizes`](super::Habit)).
    pub fingerprint: Fingerprint,
    /// The same of what it is without its marks ([`WithoutMarks`]), if it has any.
    pub bare: Option<Fingerprint>,
    /// INTERNALDATE in seconds since 1970; 0 if the server gave none that makes sense.
    pub internal_date: i64,
    /// Its flags.
    pub flags: Flags,
    /// Its Message-ID, and the one that it had before the server gave it another; only where the server does that
    /// ([`Habit::CopiesSent`](super::Habit)).
    pub message_ids: Vec<String>,
}

/// Refusals of single messages, with not one given, that are taken for a refusal of all.
const MOST_REFUSED: u32 = 8;

/// FETCH commands that are on their way at once, so that the server never waits for the next.
pub(super) const WINDOW: usize = 4;

impl Session {
    /// Returns those of the UIDs that the selected mailbox has.
    ///
    /// # Errors
    /// [`Error::Refused`], or those of a connection that breaks.
    pub async fn present(&mut self, uids: &UidSet) -> Result<UidSet, Error> {
        let mut there = Vec::new();
        self.ask(self.sets(uids), "(UID)", |_, fetch| {
            there.extend(fetch.uid.filter(|uid| uids.contains(*uid)));
            Ok(())
        })
        .await?;
        there.sort_unstable();
        Ok(there.into_iter().collect())
    }

    /// Returns the flags of those of the UIDs that the selected mailbox has.
    ///
    /// # Errors
    /// [`Error::Nonsense`] for a message without readable flags, [`Error::Refused`], or those of a connection that
    /// breaks.
    pub async fn flags(&mut self, uids: &UidSet) -> Result<BTreeMap<Uid, RemoteMessage>, Error> {
        let mut found = BTreeMap::new();
        let items = self.flag_items();
        self.ask(self.sets(uids), items, |mailbox, fetch| {
            found.extend(seen(&fetch, mailbox)?.filter(|(uid, _)| uids.contains(*uid)));
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// Returns RFC822.SIZE of those of the UIDs that the selected mailbox has, in bytes. Messages above
    /// [`Connect::max_literal`](super::Connect::max_literal) must be left out of [`Session::bodies`].
    ///
    /// # Errors
    /// [`Error::Refused`], or those of a connection that breaks.
    pub async fn sizes(&mut self, uids: &UidSet) -> Result<BTreeMap<Uid, u64>, Error> {
        let mut found = BTreeMap::new();
        self.ask(self.sets(uids), "(UID RFC822.SIZE)", |_, fetch| {
            found.extend(fetch.uid.zip(fetch.size).filter(|(uid, _)| uids.contains(*uid)));
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// Returns INTERNALDATE (as [`Seen::internal_date`]) and RFC822.SIZE of those of the UIDs that the selected mailbox has.
    ///
    /// # Errors
    /// [`Error::Refused`], or those of a connection that breaks.
    pub async fn dates_and_sizes(&mut self, uids: &UidSet) -> Result<BTreeMap<Uid, (i64, u64)>, Error> {
        let mut found = BTreeMap::new();
        self.ask(self.sets(uids), "(UID INTERNALDATE RFC822.SIZE)", |_, fetch| {
            let date = date::parse(fetch.internal_date.as_deref().unwrap_or_default());
            let one = fetch.uid.zip(fetch.size).map(|(uid, size)| (uid, (date, size)));
            found.extend(one.filter(|(uid, _)| uids.contains(*uid)));
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// Returns the fingerprints of those of the UIDs that the selected mailbox has and gives the headers of.
    ///
    /// # Errors
    /// [`Error::Nonsense`] for a message without readable flags, [`Error::Refused`], or those of a connection that
    /// breaks.
    pub async fn fingerprints(&mut self, uids: &UidSet) -> Result<Vec<Seen>, Error> {
        self.print(self.sets(uids), |uid| uids.contains(uid)).await
    }

    /// Returns the fingerprints of the messages of the selected mailbox from a UID on, however far the numbers reach.
    ///
    /// # Errors
    /// Those of [`Session::fingerprints`].
    pub async fn fingerprints_from(&mut self, first: Uid) -> Result<Vec<Seen>, Error> {
        // Some servers find `1:*` of an empty mailbox wrong; beyond the last message it names the last (RFC 3501 §6.4.8).
        let sets = if self.connection.exists == 0 { Vec::new() } else { vec![format!("{first}:*")] };
        self.print(sets, |uid| uid >= first).await
    }

    async fn print(&mut self, sets: Vec<String>, wanted: impl Fn(Uid) -> bool + Sync) -> Result<Vec<Seen>, Error> {
        let mut found = BTreeMap::new();
        let with_ids = self.connection.quirks.has(Habit::CopiesSent);
        self.ask(sets, "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER])", |mailbox, mut fetch| {
            let (Some(header), Some(size)) = (fetch.header.take(), fetch.size) else { return Ok(()) };
            let Some((uid, RemoteMessage { flags, .. })) = seen(&fetch, mailbox)? else { return Ok(()) };
            let bare = bare_of(&header, size);
            let message_ids = match &header {
                Body::Memory(bytes) if with_ids => message_ids(bytes),
                Body::Memory(_) | Body::File(..) | Body::Nothing => Vec::new(),
            };
            if let Some(header) = digest_of(header)?.filter(|_| wanted(uid)) {
                let internal_date = date::parse(fetch.internal_date.as_deref().unwrap_or_default());
                let fingerprint = Fingerprint { header, size };
                found.insert(uid, Seen { uid, fingerprint, bare, internal_date, flags, message_ids });
            }
            Ok(())
        })
        .await?;
        Ok(found.into_values().collect())
    }

    /// Sends the bodies of those of the UIDs that the selected mailbox has, in the order in which they come, each once.
    /// A message that the answers do not name is not sent; whether it is gone must be asked. Where the provider is known
    /// to withhold messages ([`Habit::Withholds`](super::Habit)), neither is one that is refused by itself, and a text in
    /// the place of a message is nothing.
    ///
    /// What was sent before an error is whole.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a body above `max_literal`, [`Error::Nonsense`] for a message without readable flags,
    /// [`Error::Refused`], [`Error::Closed`] if the receiver is gone, or those of a connection that breaks.
    pub async fn bodies(&mut self, uids: &UidSet, out: Sender<Fetched>) -> Result<(), Error> {
        let withholds = self.connection.quirks.has(Habit::Withholds);
        let refused = self.bodies_but_refused(uids, out).await?;
        refused.into_values().next().filter(|_| !withholds).map_or(Ok(()), Err)
    }

    /// As [`Session::bodies`], but messages that are refused by themselves stand in the way of no others, whatever the
    /// provider; returns them, and with which words.
    ///
    /// # Errors
    /// Those of [`Session::bodies`]; [`Error::Refused`] if so many are refused, and none is given, that all may be.
    pub async fn bodies_but_refused(
        &mut self,
        uids: &UidSet,
        out: Sender<Fetched>,
    ) -> Result<BTreeMap<Uid, Error>, Error> {
        let mailbox = self.here()?;
        let mut refused = BTreeMap::new();
        let mut chunks = uids.chunks(self.connection.quirks.set_bytes(0), self.connection.quirks.body_batch);
        let (mut sent, mut refusals) = (UidSet::default(), 0);
        while !chunks.is_empty() {
            let mut halves = Vec::new();
            for (chunk, error) in self.some_bodies(&mailbox, uids, &chunks, &mut sent, &out).await? {
                let rest: UidSet = chunk.iter().filter(|uid| !sent.contains(*uid)).collect();
                if rest.len() > 1 {
                    let half = u32::try_from(rest.len().div_ceil(2)).unwrap_or(u32::MAX);
                    halves.extend(rest.chunks(self.connection.quirks.set_bytes(0), half));
                    continue;
                }
                refusals += 1;
                warn!(%mailbox, uids = %rest, %error, "the server refused a message");
                if refusals > MOST_REFUSED && sent.is_empty() {
                    return Err(error);
                }
                refused.extend(rest.iter().next().map(|uid| (uid, error)));
            }
            chunks = halves;
        }
        Ok(refused)
    }

    /// Sends the bodies of some chunks; returns those chunks that were refused, if that may be for one message of theirs.
    async fn some_bodies<'c>(
        &mut self,
        mailbox: &RawName,
        uids: &UidSet,
        chunks: &'c [UidSet],
        sent: &mut UidSet,
        out: &Sender<Fetched>,
    ) -> Result<Vec<(&'c UidSet, Error)>, Error> {
        let command = |set: &UidSet| {
            self.connection.command("UID FETCH").words(set).words("(UID FLAGS INTERNALDATE BODY.PEEK[])")
        };
        let commands = chunks.iter().map(command).collect();
        let withholds = self.connection.quirks.has(Habit::Withholds);
        let (mut refused, mut first) = (Vec::new(), Ok(()));
        let mut flight = self.connection.fly(commands, WINDOW)?;
        while let Some(event) = flight.next().await? {
            let result = match event {
                Event::Answer(Answer::Fetch(mut fetch)) => match (fetch.body.take(), seen(&fetch, mailbox)) {
                    (Some(body), Ok(Some((uid, message)))) if uids.contains(uid) && !sent.contains(uid) => {
                        sent.insert(uid);
                        let internal_date = date::parse(fetch.internal_date.as_deref().unwrap_or_default());
                        let void = body.is_empty() || withholds && is_placeholder(&body);
                        let body = if void { Body::Nothing } else { body };
                        let fetched = Fetched { uid, flags: message.flags, internal_date, body };
                        if out.send(fetched).await.is_err() {
                            return Err(Error::Closed { text: "the bodies were no longer wanted".to_owned() });
                        }
                        Ok(())
                    }
                    (Some(_), Err(error)) => Err(error),
                    // Told without being asked, or once more.
                    _ => Ok(()),
                },
                Event::Answer(Answer::Data(Data::Broken)) => Err(unreadable(mailbox)),
                Event::Answer(_) => Ok(()),
                Event::Done(index, outcome) => match outcome.check(Some(mailbox)) {
                    Err(error @ (Error::Bad { .. } | Error::Confused { .. })) if withholds => {
                        refused.push((&chunks[index], error));
                        Ok(())
                    }
                    Err(error @ Error::Refused { .. }) => {
                        refused.push((&chunks[index], error));
                        Ok(())
                    }
                    other => other.map(|_| ()),
                },
            };
            first = first.and(result);
        }
        first.map(|()| refused)
    }

    /// Returns the UIDs of the selected mailbox from one on.
    ///
    /// # Errors
    /// [`Error::Refused`], or those of a connection that breaks.
    pub async fn uids_from(&mut self, first: Uid) -> Result<UidSet, Error> {
        let mailbox = self.here()?;
        let mut found = UidSet::default();
        if self.connection.exists == 0 {
            return Ok(found);
        }
        let search = self.connection.command("UID SEARCH").words(format_args!("UID {first}:*"));
        let on = |answer| {
            match answer {
                // Beyond the last message `n:*` names the last.
                Answer::Data(Data::Search(uids)) => found.extend(uids.iter().filter(|uid| *uid >= first)),
                Answer::Data(Data::Broken) => return Err(unreadable(&mailbox)),
                _ => {}
            }
            Ok(())
        };
        self.connection.run_all(vec![search], 1, Some(&mailbox), on).await?;
        Ok(found)
    }

    /// Returns the words that ask for UID and flags.
    pub(super) fn flag_items(&self) -> &'static str {
        let counted = self.connection.selected.as_ref().is_some_and(|s| s.highest_mod_seq.is_some());
        if counted { "(UID FLAGS MODSEQ)" } else { "(UID FLAGS)" }
    }

    /// Returns the sets to name the UIDs by, one a command.
    fn sets(&self, uids: &UidSet) -> Vec<String> {
        let chunks = uids.chunks(self.connection.quirks.set_bytes(0), self.connection.quirks.flag_batch);
        chunks.iter().map(ToString::to_string).collect()
    }

    /// Asks `items` of the messages, in a command for each set.
    async fn ask(
        &mut self,
        sets: Vec<String>,
        items: &str,
        mut on: impl FnMut(&RawName, Fetch) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let mailbox = self.here()?;
        let command = |set: &String| self.connection.command("UID FETCH").words(set).words(items);
        let commands = sets.iter().map(command).collect();
        let on = |answer| match answer {
            Answer::Fetch(fetch) => on(&mailbox, *fetch),
            Answer::Data(Data::Broken) => Err(unreadable(&mailbox)),
            _ => Ok(()),
        };
        self.connection.run_all(commands, WINDOW, Some(&mailbox), on).await.map(|_| ())
    }
}

/// Tells whether these are the words that Exchange gives in the place of a message that it cannot convert.
fn is_placeholder(body: &Body) -> bool {
    const SUBJECT: &[u8] = b"Subject: Retrieval using the IMAP4 protocol failed for the following message";
    const TEXT: &[u8] = b"The server couldn't retrieve the following message";
    // It is short, so never in a file.
    matches!(body, Body::Memory(bytes)
        if memchr::memmem::find(bytes, SUBJECT).is_some() && memchr::memmem::find(bytes, TEXT).is_some())
}

/// Returns what is in `Message-ID` and in `X-Microsoft-Original-Message-ID` of a message, or of its header.
#[must_use]
pub fn message_ids(message: &[u8]) -> Vec<String> {
    const FIELDS: [&[u8]; 2] = [b"message-id", b"x-microsoft-original-message-id"];
    let mut ids = Vec::new();
    let mut wanted = false;
    for line in message.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        // The value may be on the next line.
        let value = if line.starts_with(b" ") || line.starts_with(b"\t") {
            line
        } else {
            let (name, value) = line.split_at(memchr::memchr(b':', line).unwrap_or(line.len()));
            wanted = FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name));
            value.get(1..).unwrap_or_default()
        };
        let value = String::from_utf8_lossy(value.trim_ascii());
        if wanted && !value.is_empty() {
            ids.push(value.into_owned());
        }
    }
    ids
}

/// Returns the error of a line that a listing depends on.
pub(super) fn unreadable(mailbox: &RawName) -> Error {
    Error::nonsense(Some(mailbox), "a line about a message cannot be read")
}

/// Returns the fingerprint that a message has without its marks, if its header has any. One too large for memory is taken
/// to have none.
fn bare_of(header: &Body, size: u64) -> Option<Fingerprint> {
    let Body::Memory(bytes) = header else { return None };
    let (mut mark, mut bare) = (WithoutMarks::default(), Vec::with_capacity(bytes.len()));
    mark.update(bytes, |part| bare.extend_from_slice(part));
    if !mark.finish(|_| ()) {
        return None;
    }
    let size = size.saturating_sub((bytes.len() - bare.len()) as u64);
    Some(Fingerprint { header: digest_of(Body::Memory(bare)).ok()??, size })
}

/// Returns the digest of a header without the line ends that close it; nothing for nothing.
fn digest_of(header: Body) -> Result<Option<Digest>, Error> {
    let digest = match header {
        Body::Nothing => return Ok(None),
        Body::Memory(bytes) => {
            let end = bytes.iter().rposition(|b| !b"\r\n".contains(b)).map_or(0, |at| at + 1);
            Sha256::digest(&bytes[..end])
        }
        Body::File(mut file, _) => digest_of_file(&mut file)
            .map_err(|e| Error::local("could not read a header back from the spool file", e))?,
    };
    Ok(Some(Digest(digest.into())))
}

/// In two passes, so that a header of nothing but line ends costs no memory either.
fn digest_of_file(file: &mut File) -> io::Result<sha2::digest::Output<Sha256>> {
    let mut block = vec![0; 64 << 10];
    let (mut at, mut end) = (0_u64, 0);
    loop {
        let count = file.read(&mut block)?;
        if count == 0 {
            break;
        }
        if let Some(last) = block[..count].iter().rposition(|b| !b"\r\n".contains(b)) {
            end = at + last as u64 + 1;
        }
        at += count as u64;
    }
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    io::copy(&mut file.take(end), &mut hasher)?;
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ids_of_a_message_are_found() {
        let table: [(&str, &[&str]); 5] = [
            ("Message-ID: <a@b>\r\nSubject: x\r\n\r\nMessage-ID: <body>\r\n", &["<a@b>"]),
            ("MESSAGE-ID:\n <a@b>\nX-Microsoft-Original-Message-ID: <c@d>\n\n", &["<a@b>", "<c@d>"]),
            ("Subject: Message-ID: <a>\r\n", &[]),
            ("no header at all", &[]),
            ("", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(message_ids(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_text_in_the_place_of_a_message_is_known() {
        let subject = "Subject: Retrieval using the IMAP4 protocol failed for the following message: 20004";
        let text = "The server couldn't retrieve the following message:";
        let body = |text: String| Body::Memory(text.into_bytes());
        assert!(is_placeholder(&body(format!("From: x\r\n{subject}\r\n\r\n{text}\r\n"))));
        assert!(!is_placeholder(&body(format!("From: x\r\n{subject}\r\n\r\nWhat is this?\r\n"))));
        assert!(!is_placeholder(&Body::Nothing));
    }
}
