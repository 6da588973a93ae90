//! A simulated IMAP server in memory.
