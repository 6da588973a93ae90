//! What stops a pass as a whole. What stops one mailbox or message is reported, and the rest goes on.

use std::path::PathBuf;

use super::report::Outcome;
use crate::model::MailboxName;
use crate::{auth, db, imap, maildir};

/// Why a pass, or its part in one mailbox, ended early.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The server, or the way to it.
    #[error(transparent)]
    Imap(#[from] imap::Error),
    /// The disk.
    #[error(transparent)]
    Maildir(#[from] maildir::Error),
    /// The database.
    #[error(transparent)]
    Db(#[from] db::Error),
    /// The password could not be had.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// There is no access token.
    #[error(transparent)]
    Token(#[from] auth::TokenError),
    /// The server does not let the user in, and only the user can change that.
    #[error("{0}")]
    SignIn(String),
    /// Another process has the account.
    #[error("another postkeep ({}) has {what}", .pid.map_or_else(|| "of unknown process id".to_owned(), |p| format!("process {p}")))]
    Busy {
        /// Its process id, if it wrote one down.
        pid: Option<u32>,
        /// The account or the root that it has.
        what: String,
    },
    /// The root is not the one that the database knows; nothing was touched.
    #[error("{0}")]
    Held(String),
    /// The mailbox is not the one that the plan was made for; the next pass looks at it again.
    #[error("mailbox {0} was renumbered by the server while it was mirrored; nothing was lost, it is looked at again")]
    Renumbered(MailboxName),
    /// A file of the program itself could not be used.
    #[error("{what} {}: {source}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server is left alone for a while, so nothing was tried.
    #[error("the server is left alone until {}, since {why}; nothing was tried, and nothing is lost", clock(*.until))]
    Quiet {
        /// Until when, in seconds since 1970.
        until: i64,
        /// Why.
        why: String,
    },
    /// The user asked to stop.
    #[error("stopped as asked; what was done is kept, the rest is done by the next pass")]
    Stopped,
    /// A part of the program ended unexpectedly.
    #[error("a worker ended unexpectedly: {0}")]
    Worker(String),
}

impl Error {
    /// Returns how a pass ended that this error ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Token(auth::TokenError::Later { .. }) => Outcome::Unreachable,
            Self::Imap(imap::Error::SignIn { .. }) | Self::Auth(_) | Self::Token(_) | Self::SignIn(_) => {
                Outcome::SignIn
            }
            Self::Imap(
                imap::Error::Unreachable { .. }
                | imap::Error::Certificate { .. }
                | imap::Error::TurnedAway { .. }
                | imap::Error::Unavailable { .. }
                | imap::Error::Throttled { .. }
                | imap::Error::NotConnected { .. }
                | imap::Error::TokenExpired { .. }
                | imap::Error::Closed { .. }
                | imap::Error::TimedOut(_),
            )
            | Self::Quiet { .. } => Outcome::Unreachable,
            Self::Held(_) => Outcome::Held,
            Self::Maildir(maildir::Error::Foreign { .. } | maildir::Error::ReadOnly { .. }) => Outcome::Held,
            Self::Busy { .. } => Outcome::Busy,
            Self::Stopped => Outcome::Stopped,
            Self::Imap(_)
            | Self::Maildir(_)
            | Self::Db(_)
            | Self::Renumbered(_)
            | Self::File { .. }
            | Self::Worker(_) => Outcome::Partial,
        }
    }

    /// Tells whether everything else in the account will fail in the same way.
    #[must_use]
    pub fn is_for_account(&self) -> bool {
        match self {
            Self::Imap(error) => match error {
                // One connection broke; another may work.
                imap::Error::Closed { .. }
                | imap::Error::TokenExpired { .. }
                | imap::Error::TimedOut(_)
                | imap::Error::Confused { .. }
                | imap::Error::Protocol(_) => false,
                error => error.scope() == imap::Scope::Account,
            },
            Self::Maildir(error) => {
                matches!(error, maildir::Error::NoSpace { .. } | maildir::Error::ReadOnly { .. })
            }
            Self::Db(_)
            | Self::Auth(_)
            | Self::Token(_)
            | Self::SignIn(_)
            | Self::Busy { .. }
            | Self::Held(_)
            | Self::File { .. }
            | Self::Quiet { .. }
            | Self::Stopped
            | Self::Worker(_) => true,
            Self::Renumbered(_) => false,
        }
    }

    /// Tells whether it is in the nature of things: a session does not outlive its token.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        matches!(self, Self::Imap(imap::Error::TokenExpired { .. }))
    }

    /// Tells whether trying again at once, with a new connection, may help.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Imap(error) => error.retry() == imap::Retry::Now,
            Self::Renumbered(_) => true,
            _ => false,
        }
    }
}

/// Returns a time as the user's clock shows it.
fn clock(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string()
}

impl From<tokio::task::JoinError> for Error {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Worker(error.to_string())
    }
}
