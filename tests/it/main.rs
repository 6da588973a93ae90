//! The integration tests.
// A test binary exports nothing; `pub` tells what a file offers to the others.
#![allow(unreachable_pub)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod account;
mod check;
mod cli;
mod crash;
mod daemon;
mod daemon_control;
mod daemon_day;
mod daemon_memory;
mod daemon_notify;
mod daemon_outside;
mod daemon_pace;
mod daemon_service;
#[cfg(feature = "logind")]
mod daemon_sleep;
mod daemon_soak;
mod daemon_there;
mod daemon_trouble;
mod demo;
mod dovecot;
mod faults_again;
mod faults_bytes;
mod faults_config;
mod faults_disk;
mod faults_files;
mod faults_names;
mod faults_protocol;
mod faults_refusals;
mod faults_scene;
mod faults_server;
mod histories;
mod imap_dovecot;
mod init;
mod init_outlook;
mod mirror;
mod mirror_contact;
mod mirror_deletions;
mod mirror_first;
mod mirror_flags;
mod mirror_graveyard;
mod mirror_guard;
mod mirror_mailboxes;
mod mirror_moves;
mod mirror_readers;
mod mirror_renames;
mod mirror_stamps;
mod oauth;
mod oauth_secrets;
mod oauth_tokens;
mod oauth_ways;
mod outlook;
mod outlook_account;
mod outlook_mailboxes;
mod outlook_messages;
mod outlook_service;
mod outlook_sweep;
mod outlook_traffic;
mod proxy;
mod random;
mod reader;
mod terminal;
