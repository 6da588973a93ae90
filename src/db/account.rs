//! The one row about the account as a whole.

use super::value::{Unsigned, unsigned};
use super::{Error, Tx};

/// Whose maildirs these are, and how the last pass ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountState {
    /// The generation in the marker of the root; 0 until one was written.
    pub generation: u64,
    /// The random text in that marker; empty until one was written.
    pub nonce: String,
    /// The generation and the random text of the marker that is being written.
    pub pending: Option<(u64, String)>,
    /// False while a pass that acts is going on, and so after a crash.
    pub clean: bool,
    /// What the base was made under: a digest of the filter and the mapping of mailboxes.
    pub scope: String,
}

/// Why the last pass ended before it was through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// When, in seconds since 1970.
    pub at: i64,
    /// What happened, for the user.
    pub text: String,
    /// What kind of end it was: `partial`, `sign_in`, `held` or `unreachable`.
    pub outcome: String,
}

impl Tx<'_> {
    /// Returns why the last pass ended before it was through, if it did.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn failure(&self) -> Result<Option<Failure>, Error> {
        let sql = "SELECT failed_at, failure, failed_as FROM account WHERE failed_at IS NOT NULL";
        self.first("read how the last pass ended", sql, [], |row| {
            Ok(Failure { at: row.get(0)?, text: row.get(1)?, outcome: row.get(2)? })
        })
    }

    /// Writes down why a pass ended before it was through; `None` once one was.
    ///
    /// # Errors
    /// Those of [`Tx`]; also for an outcome that is none of those.
    pub fn set_failure(&self, failure: Option<&Failure>) -> Result<(), Error> {
        let sql = "UPDATE account SET failed_at = ?1, failure = ?2, failed_as = ?3";
        let columns = (failure.map(|f| f.at), failure.map(|f| &f.text), failure.map(|f| &f.outcome));
        self.execute_one("write how a pass ended", sql, columns)
    }

    /// Returns the state of the account; a new database has no marker, is clean, and has an empty scope.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn account(&self) -> Result<AccountState, Error> {
        let sql = "SELECT generation, nonce, pending_generation, pending_nonce, clean, scope FROM account";
        self.one("read the state of the account", sql, [], |row| {
            let pending = row.get::<_, Option<Unsigned>>(2)?.map(|Unsigned(n)| n);
            Ok(AccountState {
                generation: row.get::<_, Unsigned>(0)?.0,
                nonce: row.get(1)?,
                pending: pending.map(|n| Ok::<_, rusqlite::Error>((n, row.get(3)?))).transpose()?,
                clean: row.get(4)?,
                scope: row.get(5)?,
            })
        })
    }

    /// Writes the state of the account.
    ///
    /// # Errors
    /// Those of [`Tx`]; also for a generation of 2^63 or more.
    pub fn set_account(&self, state: &AccountState) -> Result<(), Error> {
        let what = "write the state of the account";
        let number = |n| unsigned(n).map_err(|error| self.error(error, what));
        let pending = state.pending.as_ref();
        let sql = "UPDATE account SET generation = ?1, nonce = ?2, pending_generation = ?3, pending_nonce = ?4, \
                   clean = ?5, scope = ?6";
        self.execute_one(
            what,
            sql,
            (
                number(state.generation)?,
                &state.nonce,
                pending.map(|(n, _)| number(*n)).transpose()?,
                pending.map(|(_, nonce)| nonce),
                state.clean,
                &state.scope,
            ),
        )
    }
}
