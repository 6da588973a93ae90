//! NOTIFY (RFC 5465): the server tells of changes in all mailboxes over one connection, without being asked again.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::parse::Data;
use super::wire::Answer;
use super::{Error, RawName, Session};
use crate::model::MailboxName;

/// What a server tells that was asked by [`Session::notify`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// Something about the messages of a mailbox changed.
    Mailbox(MailboxName),
    /// There are other mailboxes than before, or it cannot be told what changed.
    Anything,
    /// So much changed that the server tells no more until it is asked again (RFC 5465 §5.8).
    Overflow,
}

/// What is asked for; the later ones are for servers that do not know all of it. One of these events without the other is
/// an error (RFC 5465 §5.2), and without `FlagChange` IDLE tells more.
const EVENTS: [&str; 2] = ["MessageNew MessageExpunge FlagChange MailboxName", "MessageNew MessageExpunge FlagChange"];

impl Session {
    /// Asks the server to tell of everything that happens in the user's mailboxes; returns whether it does. What it tells is
    /// for [`Self::news`]; what happened before is not told. No mailbox is selected afterwards, for of that one it would
    /// tell in another way (RFC 5465 §6.1).
    ///
    /// # Errors
    /// Those of a connection that breaks.
    pub async fn notify(&mut self) -> Result<bool, Error> {
        if !self.connection.capabilities.has("NOTIFY") {
            return Ok(false);
        }
        self.unselect().await?;
        if self.connection.selected.is_some() {
            return Ok(false);
        }
        for events in EVENTS {
            let command = self.connection.command("NOTIFY").words(format_args!("SET (PERSONAL ({events}))"));
            match self.connection.run(command, None).await {
                Ok(_) => return Ok(true),
                // It names the events that it has; ours are not all among them.
                Err(Error::Refused { code, .. }) if code == "BADEVENT" => {}
                Err(Error::Refused { .. } | Error::Bad { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Asks to be told of nothing any more, so that the session can be used for other things.
    ///
    /// # Errors
    /// [`Error::Refused`], or those of a connection that breaks.
    pub async fn notify_no_more(&mut self) -> Result<(), Error> {
        let command = self.connection.command("NOTIFY").words("NONE");
        self.connection.run(command, None).await.map(|_| ())
    }

    /// Waits until the server tells something; returns nothing if it told nothing for `limit`. Then it was asked for
    /// nothing (NOOP), so that neither it nor anything on the way takes the connection for dead. Safe to cancel until then.
    ///
    /// # Errors
    /// Those of a connection that breaks.
    pub async fn news(&mut self, limit: Duration) -> Result<Option<News>, Error> {
        let deadline = Instant::now() + limit;
        loop {
            let Ok(answer) = timeout_at(deadline, self.connection.receive_in_silence()).await else { break };
            if let Some(news) = self.news_of(answer?)? {
                return Ok(Some(news));
            }
        }
        let (command, mut told) = (self.connection.command("NOOP"), Vec::new());
        let on = |answer| {
            told.push(answer);
            Ok(())
        };
        self.connection.run_all(vec![command], 1, None, on).await?;
        let mut news = Vec::new();
        for answer in told {
            news.extend(self.news_of(answer)?);
        }
        let overflow = news.contains(&News::Overflow);
        Ok(match news.len() {
            _ if overflow => Some(News::Overflow),
            0 | 1 => news.pop(),
            _ => Some(News::Anything),
        })
    }

    fn news_of(&self, answer: Answer) -> Result<Option<News>, Error> {
        Ok(match answer {
            Answer::Data(Data::Status(line)) => {
                let raw = RawName::new(&line.name);
                let name = self.namespace.name(&raw, self.namespace.separator);
                // What has no usable name is not mirrored.
                name.ok().filter(|_| !self.namespace.is_foreign(&raw)).map(News::Mailbox)
            }
            Answer::Data(Data::List(_) | Data::Broken) => Some(News::Anything),
            Answer::Untagged { code, .. } if code.is("NOTIFICATIONOVERFLOW") => Some(News::Overflow),
            Answer::Tagged { .. } => {
                return Err(Error::Protocol("an answer to a command that was never sent".to_owned()));
            }
            _ => None,
        })
    }
}
