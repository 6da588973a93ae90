//! The daemon and NOTIFY (RFC 5465): one connection that tells of all mailboxes.

use postkeep_sim::{Fault, Profile, When};

use crate::account::Account;
use crate::daemon::{Daemon, NO_SWEEP, message, scene};

/// Waits until the server tells of changes in all mailboxes.
fn hears_of_all(daemon: &Daemon, account: &Account) {
    daemon.until("NOTIFY", || daemon.live(account)["all_watched"] == true);
    daemon.rest(account);
}

#[test]
fn what_happens_in_any_mailbox_crosses_at_once() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    server.state().create("Lists/rust");
    server.state().append("Lists/rust", &message("a"), &[], 1000);
    let daemon = Daemon::start(&account);
    daemon.until_equal(&account, &server);
    hears_of_all(&daemon, &account);
    drop(server.take_commands());
    server.state().append("Lists/rust", &message("b"), &["\\Seen"], 1000);
    daemon.until("the message", || account.files("Lists/rust").len() == 2);
    daemon.rest(&account);
    let commands = server.take_commands();
    let whole = ["LIST", "STATUS", "IDLE"];
    assert!(!commands.iter().any(|c| whole.contains(&c.name.as_str())), "it looked at everything: {commands:?}");
    server.state().set_flags("Lists/rust", 1, &["\\Flagged"]);
    daemon.until_equal(&account, &server);
    server.state().create("Lists/go");
    daemon.until("the maildir", || account.mailbox("Lists/go").join("cur").is_dir());
    daemon.rest(&account);
    server.state().rename("Lists/rust", "Archive");
    daemon.until_equal(&account, &server);
    let uid = *server.state().mailbox("Archive").messages.keys().next().unwrap();
    server.state().expunge("Archive", uid);
    daemon.until_equal(&account, &server);
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn a_server_that_lost_count_is_swept_and_asked_again() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    server.state().create("Archive");
    server.inject("NOTIFY", When::Nth(1), Fault::Script("{tag} OK done\r\n* OK [NOTIFICATIONOVERFLOW] x\r\n".into()));
    let daemon = Daemon::start(&account);
    daemon.until("the second NOTIFY", || server.commands().iter().filter(|c| c.name == "NOTIFY").count() == 2);
    assert!(server.fired().iter().any(|fault| fault.starts_with("NOTIFY")), "{:?}", server.fired());
    assert!(daemon.log().contains("lost count"), "{}", daemon.log());
    daemon.rest(&account);
    server.state().append("Archive", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);
}

#[test]
fn a_server_that_refuses_is_watched_by_idle() {
    for refusal in ["NO [BADEVENT (MessageNew)] no such event", "NO not for you", "BAD what is that"] {
        let (server, account) = scene(Profile::Full, NO_SWEEP);
        server.inject("NOTIFY", When::Every, Fault::Answer(refusal.to_owned()));
        let daemon = Daemon::start(&account);
        daemon.until("IDLE", || server.commands().iter().any(|c| c.name == "IDLE"));
        let tries = server.commands().iter().filter(|c| c.name == "NOTIFY").count();
        assert_eq!(tries, if refusal.contains("BADEVENT") { 2 } else { 1 }, "{refusal}");
        daemon.watches(&account);
        server.state().append("INBOX", &message("a"), &[], 1000);
        daemon.until_equal(&account, &server);
        assert_eq!(daemon.live(&account)["all_watched"], false);
    }
}

#[test]
fn a_server_that_knows_fewer_events_tells_the_others() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    server.state().create("Archive");
    server.inject("NOTIFY", When::Nth(1), Fault::Answer("NO [BADEVENT (MessageNew)] no names".to_owned()));
    let daemon = Daemon::start(&account);
    hears_of_all(&daemon, &account);
    server.state().append("Archive", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);
}

#[test]
fn a_server_that_lets_in_one_connection_is_not_watched() {
    let (server, account) = scene(Profile::ExoClassic, "poll_interval = \"1s\"");
    server.state().quirks.max_connections = Some(1);
    let daemon = Daemon::start(&account);
    server.state().append("INBOX", &message("a"), &[], 1000);
    daemon.until("the message", || account.files("INBOX").len() == 1);
    daemon.until("it does without the watch", || daemon.log().contains("lets in so few connections"));
    server.state().append("INBOX", &message("b"), &[], 1000);
    daemon.until("the next message", || account.files("INBOX").len() == 2);
    let log = daemon.log();
    assert!(!log.contains("cannot be mirrored now"), "{log}");
    assert_eq!(daemon.live(&account)["watched"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_token_that_runs_out_in_a_pass_is_no_failure() {
    let (server, account) = scene(Profile::NoQresync, NO_SWEEP);
    let daemon = Daemon::start(&account);
    daemon.watches(&account);
    daemon.rest(&account);
    server.inject("UID FETCH BODY.PEEK[]", When::Nth(1), Fault::token_expired());
    for n in 0..30 {
        server.state().append("INBOX", &message(&format!("m{n}")), &[], 1000);
    }
    daemon.until("the end of the token", || server.fired().iter().any(|fault| fault.starts_with("UID FETCH")));
    daemon.until_equal(&account, &server);
    let log = daemon.log();
    assert!(!log.contains("cannot be mirrored now"), "{log}");
    // Nobody waited for a pause that follows a failure.
    assert!(daemon.live(&account)["failures"] == 0);
}
