//! What a large message costs in memory: it goes through in pieces, both ways.

use std::fs;

use postkeep_sim::Profile;

use crate::daemon::{Daemon, NO_SWEEP, message, scene};

/// How large a large message is, in bytes.
const LARGE: usize = 16 << 20;

/// Returns a message of that size.
fn large(subject: &str) -> Vec<u8> {
    let mut bytes = message(subject);
    let line = [b"x".repeat(70), b"\r\n".to_vec()].concat();
    while bytes.len() < LARGE {
        bytes.extend_from_slice(&line);
    }
    bytes
}

/// Returns the most memory that the daemon has had, in bytes (proc_pid_status(5)).
fn peak(daemon: &Daemon) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid().as_raw_nonzero())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
}

#[test]
fn a_large_message_is_never_in_memory_as_a_whole() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    server.state().append("INBOX", &message("small there"), &[], 1000);
    let daemon = Daemon::start(&account);
    daemon.until("the maildir", || account.mailbox("INBOX").join("cur").is_dir());
    account.deliver("INBOX", &message("small here"));
    daemon.until("the small ones", || server.state().mailbox("INBOX").messages.len() == 2);
    daemon.until_equal(&account, &server);
    let before = peak(&daemon);

    server.state().append("INBOX", &large("large there"), &[], 2000);
    daemon.until_equal(&account, &server);
    let downloaded = peak(&daemon);
    account.deliver("INBOX", &large("large here"));
    daemon.until("the upload", || server.state().mailbox("INBOX").messages.len() == 4);
    daemon.until_equal(&account, &server);
    let uploaded = peak(&daemon);

    assert!(downloaded < before + LARGE / 2, "a download took {} bytes", downloaded - before);
    assert!(uploaded < downloaded + LARGE / 2, "an upload took {} bytes", uploaded - downloaded);
}
