//! postkeep keeps the mailboxes of an IMAP account and local Maildirs the same, in both directions, and never loses a mail.
//!
//! # The idea
//!
//! Three trees per mailbox: [`Remote`](model::Remote), what the server has; [`Local`](model::Local), what the Maildir
//! has; and the base, what both had when they last agreed, in SQLite. One small pure function,
//! [`plan`](engine::plan::plan), compares them and returns what makes them agree; [`guard`](engine::guard::guard) refuses
//! what looks like an accident; the rest carries the plan out, op by op: intent, effect, done.
//!
//! Trees may be partial: a delta names the messages that something happened to, and only their rows are read. What a
//! partial tree does not name is as the base has it, and silence proves nothing: a message is *gone* only by a
//! [`Proof`](model::Proof), without which no removal can be written down.
//!
//! # Where things are
//!
//! Dependencies point one way: `main`, [`cli`], [`daemon`], [`engine`], then [`imap`], [`maildir`] and [`db`], which do not know each
//! other, then [`model`].
//!
//! | module | purpose | touches |
//! |---|---|---|
//! | [`model`] | the words of the domain as types | nothing |
//! | [`engine`] | decides what makes both sides agree, and does it | its pure parts nothing, the rest all below |
//! | [`imap`] | a signed-in connection; one file per command; what was observed | network |
//! | [`maildir`] | names, scans, durable delivery, the graveyard | disk |
//! | [`db`] | links, cursors, journal; the only writer | SQLite |
//! | [`config`], [`auth`] | validated settings; where passwords and access tokens come from | files, environment, network, Secret Service |
//! | [`daemon`] | one loop for each account over all that can happen; the control socket | all of the above |
//! | [`demo`] | an account on a simulated server, for `postkeep demo` | all of the above |
//! | [`cli`] | one file per command; what is printed; exit codes | terminal |
//! | [`step`] | the places at which a test can make the process die | nothing |
//! | `clock` | what the clocks say, which a test can shift | clocks |
//! | `haste` | long waits, which a test can make short | nothing |
//!
//! # What always holds
//!
//! 1. Decisions do no I/O, read no clock and draw no random number.
//! 2. A create has an intent row before its effect; a delete loses its row after its effect; nothing is overwritten.
//! 3. A mailbox's cursor moves only when every message that the observation named is agreed, and then to the value that
//!    the server gave before the listing.
//! 4. An incremental observation equals a full one; a full one is made every day anyway.
//! 5. The base lags, it never leads: intent, data, rename, directory, commit; or intent, command, tagged OK, commit.
//! 6. Absence needs proof.
//! 7. All removals go through one place, which looks again right before, and keeps a copy.
//! 8. An APPEND is repeated only after the server denied having the message, some time after the old connection died.
//! 9. The bytes that the server gave can be reproduced from the file, and their SHA-256 is in the database.
//! 10. Commands use UIDs, under the UIDVALIDITY that they were learned under; an expunge names its set.
//! 11. One writer per database and per root.
//! 12. A refused plan removes nothing; what is skipped, held or failed shows; a success is never told that was not seen.
//! 13. No secret and no content of a mail reaches a log.
//! 14. A path never leaves the root, and no two mailboxes share one.
//! 15. Memory, time without progress and attempts are bounded, whatever the server sends.
//!
//! When they collide: no loss, then proof, then the lagging base, then secrets, then exact bytes, then no duplicate, then
//! no resurrection, then convergence.
//!
//! # Reading order
//!
//! [`model`], [`engine::plan`] with its tests, [`engine::op`], then `engine/pass.rs`, `round.rs`, `cycle.rs`, `observe.rs` and
//! `execute/`; [`maildir`] and [`imap`] where the question is how.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod auth;
pub mod cli;
mod clock;
pub mod config;
pub mod daemon;
pub mod db;
pub mod demo;
pub mod engine;
mod haste;
pub mod imap;
pub mod maildir;
pub mod model;
mod readiness;
pub mod step;
