//! IDLE (RFC 2177): waits until the server has something to tell.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use super::connection::Outcome;
use super::parse::Data;
use super::wire::Answer;
use super::{Error, Session};

/// Why IDLE ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdleEnd {
    /// Something about the mailbox changed.
    Changed,
    /// It was asked to.
    Stopped,
    /// The time was up; servers log silent clients out after half an hour (RFC 9051 §5.4).
    TimeUp,
}

impl Session {
    /// Waits until the selected mailbox changes, `stop` completes, or `limit` has passed, whichever comes first; in
    /// each case the session can be used on. Between the two ends of IDLE no timeout applies but `limit`. Of a change
    /// `tell` is told at once, before the server has answered to the end of IDLE.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without IDLE, [`Error::Refused`], or those of a connection that breaks.
    pub async fn idle(
        &mut self,
        stop: impl Future<Output = ()>,
        limit: Duration,
        tell: impl FnOnce(),
    ) -> Result<IdleEnd, Error> {
        if !self.connection.capabilities.has("IDLE") {
            return Err(Error::Unsupported("IDLE"));
        }
        let mailbox = self.here()?;
        let before = self.connection.exists;
        self.connection.begin()?;
        let own = self.connection.send("IDLE", b"IDLE\r\n", false);
        let mut changed = false;
        // What comes before the `+` counts too.
        loop {
            match self.connection.receive().await? {
                Answer::Continue => break,
                answer => {
                    changed |= matters(&answer);
                    if let Some(outcome) = ended(answer, &own)? {
                        self.connection.settle();
                        outcome.check(Some(&mailbox))?;
                        return Ok(IdleEnd::Changed);
                    }
                }
            }
        }
        changed |= self.connection.exists != before;
        let (mut stop, mut time_up) = (pin!(stop), pin!(tokio::time::sleep(limit)));
        let mut end = changed.then_some(IdleEnd::Changed);
        while end.is_none() {
            let known = self.connection.exists;
            tokio::select! {
                () = &mut stop => end = Some(IdleEnd::Stopped),
                () = &mut time_up => end = Some(IdleEnd::TimeUp),
                answer = self.connection.receive_in_silence() => {
                    let answer = answer?;
                    if matters(&answer) || self.connection.exists != known {
                        end = Some(IdleEnd::Changed);
                    }
                    if let Some(outcome) = ended(answer, &own)? {
                        // The server had enough of it by itself.
                        self.connection.settle();
                        outcome.check(Some(&mailbox))?;
                        return Ok(IdleEnd::Changed);
                    }
                }
            }
        }
        if end == Some(IdleEnd::Changed) {
            tell();
        }
        self.connection.wire.queue(b"DONE\r\n", false);
        loop {
            let answer = self.connection.receive().await?;
            if matters(&answer) || self.connection.exists != before {
                end = Some(IdleEnd::Changed);
            }
            if let Some(outcome) = ended(answer, &own)? {
                self.connection.settle();
                outcome.check(Some(&mailbox))?;
                return Ok(end.unwrap_or(IdleEnd::Stopped));
            }
        }
    }
}

/// Tells whether an answer changes the mailbox. The number of messages is compared instead: some servers repeat it.
fn matters(answer: &Answer) -> bool {
    matches!(answer, Answer::Expunge | Answer::Fetch(_) | Answer::Data(Data::Vanished { .. } | Data::Broken))
}

/// Returns how IDLE ended, if this is its end.
fn ended(answer: Answer, own: &str) -> Result<Option<Outcome>, Error> {
    match answer {
        Answer::Tagged { tag, status, code, text } if tag == own => {
            Ok(Some(Outcome { command: "IDLE", status, code, text }))
        }
        Answer::Tagged { .. } => Err(Error::Protocol("an answer to a command that was never sent".to_owned())),
        _ => Ok(None),
    }
}
