//! The integration tests.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod account;
mod cli;
mod dovecot;
mod imap_dovecot;
mod proxy;
mod reader;
