//! The server's side: one signed-in connection, and what can be asked and done over it.
//!
//! Three layers. At the bottom `guard` frames the bytes and keeps from the parser what would harm it; only `wire` knows
//! that the parser is async-imap's. `connection` sends commands and hands out every answer in order, with the status of
//! each command checked. Above it [`Session`] has one file for each thing to do.
//!
//! A server is never taken at its word for less than it said: an answer that breaks off, is refused, or cannot be read
//! is an [`Error`], never an empty result.

mod append;
mod command;
mod connect;
mod connection;
mod date;
mod der;
mod error;
mod fetch;
mod guard;
mod idle;
mod list;
mod moves;
mod name;
mod notify;
mod observe;
mod parse;
mod plain;
mod quirks;
mod roles;
mod select;
mod session;
mod sign_in;
mod store;
mod sweep;
mod wire;

pub use append::{Appended, Outgoing};
pub use connect::{Connect, Cutter, Route, Tls, Way};
pub use connection::Capabilities;
pub use error::{Error, Retry, Scope};
pub use fetch::{Body, Fetched, Seen, message_ids};
pub use idle::{IdleEnd, Stir};
pub use list::{Listed, Lists, MailboxStatus, Role};
pub use moves::Moved;
pub use name::RawName;
pub(crate) use name::encode as modified_utf7;
pub use notify::News;
pub use observe::{Listing, Observation};
pub use quirks::{Habit, Quirks};
pub use select::Selected;
pub use session::Session;
pub use sign_in::Credentials;
pub use sweep::Marks;

#[cfg(test)]
mod tests;
