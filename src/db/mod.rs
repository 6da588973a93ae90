//! The base in SQLite: links, cursors, holds and the journal of one account.
//!
//! A [`Db`] is a handle to the one thread that owns the one connection of a database. It takes closures, and runs them
//! one after the other, each in a transaction of its own with the typed methods of [`Tx`]. All SQL is in this module;
//! what the rows are is told in `migrations/`.

mod account;
mod again;
mod error;
mod handle;
mod held;
mod journal;
mod lifetime;
mod link;
mod mailbox;
mod migrate;
mod open;
mod renaming;
mod scan;
mod service;
mod tx;
mod value;

#[cfg(test)]
mod tests;

pub use account::{AccountState, Failure};
pub use again::Again;
pub use error::Error;
pub use handle::Db;
pub use held::{Held, HeldCount, HoldCause, MailboxHold};
pub use journal::Entry;
pub use lifetime::Lifetime;
pub use link::NewLink;
pub use mailbox::{Mailbox, NewMailbox};
pub use renaming::Renaming;
pub use scan::{Counts, LinkRow, Stage};
pub use service::Service;
pub use tx::Tx;
