//! postkeep keeps the mailboxes of an IMAP account and local Maildirs the same, both ways.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod auth;
pub mod cli;
pub mod config;
pub mod db;
pub mod engine;
pub mod imap;
pub mod maildir;
pub mod model;
pub mod step;
