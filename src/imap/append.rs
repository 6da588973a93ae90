//! APPEND (RFC 3501 §6.3.11, MULTIAPPEND of RFC 3502, APPENDUID of RFC 4315 §3).

use std::collections::VecDeque;
use std::io::Read;

use super::connection::Outcome;
use super::wire::Answer;
use super::{Error, RawName, Session, date};
use crate::model::{Flags, Uid};
use crate::step;

/// A message to be appended.
pub struct Outgoing {
    /// The flags that it gets.
    pub flags: Flags,
    /// INTERNALDATE, in seconds since 1970.
    pub internal_date: i64,
    /// How many bytes `content` gives.
    pub length: u64,
    /// The message, with CRLF line ends. Read in small blocks between sending them, so it should be a file.
    pub content: Box<dyn Read + Send>,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("length", &self.length).field("flags", &self.flags).finish_non_exhaustive()
    }
}

/// What is read from a message at once.
const BLOCK: usize = 64 << 10;
/// What may wait to be sent before more is read.
const QUEUE: usize = 256 << 10;
/// APPEND commands that are on their way at once.
const WINDOW: usize = 8;

/// An APPEND whose end is awaited.
struct Pending {
    tag: String,
    /// Its messages are these.
    begin: usize,
    count: usize,
}

/// What came of each message: that it is there, under this UID if the server told one; or why it was refused.
pub type Appended = Vec<Result<Option<Uid>, Error>>;

/// The code of a refusal for want of room (RFC 9208 §4.3.1).
const FULL: &str = "OVERQUOTA";

/// Returns the server's words if it has no room.
fn full(result: &Result<Option<Uid>, Error>) -> Option<String> {
    match result {
        Err(Error::Refused { code, text, .. }) if code == FULL => Some(text.clone()),
        _ => None,
    }
}

impl Session {
    /// Appends messages to a mailbox, and returns for each whether it was taken, with the UID that the server told under
    /// the UIDVALIDITY that the mailbox was selected with; none if it is not selected. Once the server has no room for one,
    /// no more are sent: they count as refused like it.
    ///
    /// # Errors
    /// [`Error::Refused`] if several that can only be taken together (MULTIAPPEND) were refused: none is there then.
    /// [`Error::Local`] if a content could not be read or is not of its length: the connection is given up before the
    /// server can take the broken message. Those of a connection that breaks: each may or may not be there.
    pub async fn append(&mut self, mailbox: &RawName, messages: Vec<Outgoing>) -> Result<Appended, Error> {
        let mut results: Appended = messages.iter().map(|_| Ok(None)).collect();
        if messages.is_empty() {
            return Ok(results);
        }
        let together = messages.len() > 1 && self.connection.capabilities.has("MULTIAPPEND");
        let window = self.connection.quirks.window(WINDOW);
        self.connection.begin()?;
        let mut pending: VecDeque<Pending> = VecDeque::new();
        let mut batches: VecDeque<Vec<Outgoing>> = match together {
            true => [messages].into(),
            false => messages.into_iter().map(|message| vec![message]).collect(),
        };
        let mut begin = 0;
        while let Some(batch) = batches.pop_front() {
            while pending.len() >= window {
                self.collect(mailbox, &mut pending, &mut results).await?;
            }
            let count = batch.len();
            if let Some(text) = results.iter().find_map(full) {
                // It has no room for these either; it was not asked.
                let refused = |_| {
                    Err(Error::Refused {
                        command: "APPEND",
                        mailbox: Some(mailbox.to_string()),
                        code: FULL.to_owned(),
                        text: text.clone(),
                    })
                };
                let unsent: Appended = (begin..results.len()).map(refused).collect();
                results.splice(begin.., unsent);
                break;
            }
            step::before("append");
            let pending_now = self.send_append(mailbox, batch, begin, &mut pending, &mut results).await?;
            pending.extend(pending_now);
            begin += count;
        }
        while !pending.is_empty() {
            self.collect(mailbox, &mut pending, &mut results).await?;
        }
        self.connection.settle();
        if together {
            // The first stands for all of them.
            let first = std::mem::replace(&mut results[0], Ok(None));
            results[0] = Ok(first?);
        }
        Ok(results)
    }

    /// Sends one APPEND with all of its messages; nothing is pending if the server refused it before they were sent.
    async fn send_append(
        &mut self,
        mailbox: &RawName,
        batch: Vec<Outgoing>,
        begin: usize,
        pending: &mut VecDeque<Pending>,
        results: &mut Appended,
    ) -> Result<Option<Pending>, Error> {
        let count = batch.len();
        let literals = self.connection.capabilities.literals();
        let command = self.connection.command("APPEND").string(mailbox.as_bytes());
        let mut parts: VecDeque<Vec<u8>> = command.parts.into();
        let mut sent: Option<Pending> = None;
        for mut message in batch {
            let (waits, announcement) = literals.announce(message.length);
            let (flags, date) = (&message.flags, date::format(message.internal_date));
            let head = format!(" {flags} {date} {announcement}");
            // A mailbox name may be a literal too, and be waited for.
            let mut heads = std::mem::take(&mut parts);
            match heads.back_mut() {
                Some(last) => last.extend_from_slice(head.as_bytes()),
                None => heads.push_back(head.into_bytes()),
            }
            let last = heads.len() - 1;
            for (i, head) in heads.into_iter().enumerate() {
                match &sent {
                    None => {
                        let tag = self.connection.send("APPEND", &head, false);
                        sent = Some(Pending { tag, begin, count });
                    }
                    Some(_) => self.connection.wire.queue(&head, false),
                }
                if (i < last || waits)
                    && let Some(own) = &sent
                    && !self.asked_for(mailbox, own, pending, results).await?
                {
                    return Ok(None);
                }
            }
            self.send_content(mailbox, &mut message).await?;
        }
        self.connection.wire.queue(b"\r\n", false);
        Ok(sent)
    }

    /// Waits until the server asks for the literal; false if it refused the command instead.
    async fn asked_for(
        &mut self,
        mailbox: &RawName,
        own: &Pending,
        pending: &mut VecDeque<Pending>,
        results: &mut Appended,
    ) -> Result<bool, Error> {
        loop {
            match self.connection.receive().await? {
                Answer::Continue => return Ok(true),
                Answer::Tagged { tag, status, code, text } => {
                    let outcome = Outcome { command: "APPEND", status, code, text };
                    if tag == own.tag {
                        let nonsense = || Error::nonsense(Some(mailbox), "APPEND ended before its message");
                        results[own.begin] = Err(outcome.check(Some(mailbox)).err().unwrap_or_else(nonsense));
                        return Ok(false);
                    }
                    self.account(mailbox, &tag, outcome, pending, results)?;
                }
                _ => {}
            }
        }
    }

    async fn send_content(&mut self, mailbox: &RawName, message: &mut Outgoing) -> Result<(), Error> {
        // Room for one byte more than it should have: to be told from one that got longer.
        let mut block = vec![0; usize::try_from(message.length + 1).unwrap_or(BLOCK).min(BLOCK)];
        let mut left = message.length;
        let fail = |session: &mut Self, source| {
            // The server waits for bytes that will not come; it drops the message when the connection ends.
            session.connection.end("a message could not be read");
            Error::local("could not read a message that was being uploaded", source)
        };
        loop {
            let count = match message.content.read(&mut block) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(fail(self, error)),
            };
            if count as u64 > left || (count == 0 && left > 0) {
                let changed = std::io::Error::other("it changed meanwhile, and has another length now");
                return Err(fail(self, changed));
            }
            if count == 0 {
                return Ok(());
            }
            left -= count as u64;
            self.connection.wire.queue(&block[..count], false);
            if let Err(error) = self.connection.wire.drain(QUEUE).await {
                // What the server said before it hung up tells more.
                while let Ok(answer) = self.connection.receive().await {
                    if let Answer::Tagged { status, code, text, .. } = answer {
                        self.connection.end("the server hung up during APPEND");
                        Outcome { command: "APPEND", status, code, text }.check(Some(mailbox))?;
                    }
                }
                return Err(error);
            }
        }
    }

    /// Waits until one of the pending commands ends.
    async fn collect(
        &mut self,
        mailbox: &RawName,
        pending: &mut VecDeque<Pending>,
        results: &mut Appended,
    ) -> Result<(), Error> {
        loop {
            if let Answer::Tagged { tag, status, code, text } = self.connection.receive().await? {
                let outcome = Outcome { command: "APPEND", status, code, text };
                return self.account(mailbox, &tag, outcome, pending, results);
            }
        }
    }

    /// Writes down how a pending command ended.
    fn account(
        &mut self,
        mailbox: &RawName,
        tag: &str,
        outcome: Outcome,
        pending: &mut VecDeque<Pending>,
        results: &mut Appended,
    ) -> Result<(), Error> {
        let Some(at) = pending.iter().position(|p| p.tag == tag) else {
            self.connection.end("an answer to a command that was never sent");
            return Err(Error::Protocol("an answer to a command that was never sent".to_owned()));
        };
        let Some(Pending { begin, count, .. }) = pending.remove(at) else { return Ok(()) };
        match outcome.check(Some(mailbox)) {
            Err(error) => results[begin] = Err(error),
            Ok(code) if code.is("APPENDUID") => {
                let selected = self.connection.selected.as_ref().filter(|s| s.raw.is(mailbox.as_bytes()));
                if let Some((validity, uids)) = code.append_uid(count)
                    && selected.is_some_and(|s| u64::from(s.uid_validity.get()) == validity)
                {
                    results[begin..begin + count].iter_mut().zip(uids).for_each(|(slot, uid)| *slot = Ok(Some(uid)));
                }
            }
            Ok(_) => {}
        }
        Ok(())
    }
}
