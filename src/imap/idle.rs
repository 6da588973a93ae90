//! IDLE (RFC 2177): waits until the server has something to tell.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use super::connection::Outcome;
use super::parse::Data;
use super::wire::Answer;
use super::{Error, Session};

/// What the server told of a mailbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stir {
    /// Messages came or went.
    Messages,
    /// Flags changed, too, or it cannot be told what.
    Anything,
}

/// Why IDLE ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdleEnd {
    /// The mailbox changed.
    Changed(Stir),
    /// It was asked to.
    Stopped,
    /// The time was up; servers log silent clients out after half an hour (RFC 9051 §5.4).
    TimeUp,
}

impl Session {
    /// Waits until the selected mailbox changes, `stop` completes, or `limit` has passed, whichever comes first; in
    /// each case the session can be used on. Between the two ends of IDLE no timeout applies but `limit`. Of the first
    /// change `tell` is told at once, before the server has answered to the end of IDLE, until which more may come.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without IDLE, [`Error::Refused`], or those of a connection that breaks.
    pub async fn idle(
        &mut self,
        stop: impl Future<Output = ()>,
        limit: Duration,
        tell: impl FnOnce(Stir),
    ) -> Result<IdleEnd, Error> {
        if !self.connection.capabilities.has("IDLE") {
            return Err(Error::Unsupported("IDLE"));
        }
        let mailbox = self.here()?;
        let before = self.connection.exists;
        self.connection.begin()?;
        let own = self.connection.send("IDLE", b"IDLE\r\n", false);
        let mut stir = None;
        // What comes before the `+` counts too.
        loop {
            match self.connection.receive().await? {
                Answer::Continue => break,
                answer => {
                    stir = stir.max(told_by(&answer));
                    if let Some(outcome) = ended(answer, &own)? {
                        self.connection.settle();
                        outcome.check(Some(&mailbox))?;
                        return Ok(IdleEnd::Changed(Stir::Anything));
                    }
                }
            }
        }
        let counted = |now: u32| (now != before).then_some(Stir::Messages);
        stir = stir.max(counted(self.connection.exists));
        let (mut stop, mut time_up) = (pin!(stop), pin!(tokio::time::sleep(limit)));
        let mut end = None;
        while stir.is_none() && end.is_none() {
            tokio::select! {
                () = &mut stop => end = Some(IdleEnd::Stopped),
                () = &mut time_up => end = Some(IdleEnd::TimeUp),
                answer = self.connection.receive_in_silence() => {
                    let answer = answer?;
                    stir = told_by(&answer).max(counted(self.connection.exists));
                    if let Some(outcome) = ended(answer, &own)? {
                        // The server had enough of it by itself.
                        self.connection.settle();
                        outcome.check(Some(&mailbox))?;
                        return Ok(IdleEnd::Changed(Stir::Anything));
                    }
                }
            }
        }
        if let Some(stir) = stir {
            tell(stir);
        }
        self.connection.wire.queue(b"DONE\r\n", false);
        loop {
            let answer = self.connection.receive().await?;
            stir = stir.max(told_by(&answer)).max(counted(self.connection.exists));
            if let Some(outcome) = ended(answer, &own)? {
                self.connection.settle();
                outcome.check(Some(&mailbox))?;
                return Ok(stir.map(IdleEnd::Changed).or(end).unwrap_or(IdleEnd::Stopped));
            }
        }
    }
}

/// Returns what an answer tells of the mailbox, if anything. The number of messages is compared instead: some servers repeat
/// it.
fn told_by(answer: &Answer) -> Option<Stir> {
    match answer {
        Answer::Expunge | Answer::Data(Data::Vanished { .. }) => Some(Stir::Messages),
        Answer::Fetch(_) | Answer::Data(Data::Broken) => Some(Stir::Anything),
        _ => None,
    }
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
