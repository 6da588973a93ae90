//! The daemon and a service that does not always serve: throttled accounts, tokens that run out, sign-ins that have ended.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use postkeep_sim::{Fault, OAuth, Profile, When};
use rustix::process::Signal;

use crate::daemon::{Daemon, NO_SWEEP, message, scene};
use crate::outlook::{PROFILE, let_quiet_pass};

/// How long it is listened to silence.
const SILENCE: Duration = Duration::from_secs(2);

#[test]
fn a_server_that_wants_to_be_left_alone_is_left_alone_by_the_next_daemon_too() {
    let (server, account) = scene(PROFILE, NO_SWEEP);
    server.state().append("INBOX", &message("a"), &[], 1000);
    let mut daemon = Daemon::start(&account);
    daemon.until_equal(&account, &server);
    daemon.watches(&account);
    daemon.rest(&account);
    let throttle = Fault::Throttle { time: Duration::from_secs(299), bad: false };
    server.inject("UID FETCH BODY.PEEK[]", When::Nth(1), throttle);
    server.state().append("INBOX", &message("b"), &[], 1000);
    daemon.until("the throttling", || daemon.log().contains("asks to be left alone for 5 minutes"));
    assert!(server.fired().iter().any(|fault| fault == "UID FETCH throttle"), "{:?}", server.fired());
    let _ = server.take_commands();
    account.deliver("INBOX", &message("c"));
    std::thread::sleep(SILENCE);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), 0);

    let mut daemon = Daemon::start(&account);
    daemon.until("the silence", || daemon.log().contains("is left alone until"));
    std::thread::sleep(SILENCE);
    let live = &daemon.live(&account);
    assert_eq!(live["state"], "waiting", "{live}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), 0);
    assert!(server.take_commands().is_empty() && server.impatient().is_empty(), "{:?}", server.impatient());

    let_quiet_pass(&account);
    server.state().advance(Duration::from_secs(300));
    let daemon = Daemon::start(&account);
    daemon.until_equal(&account, &server);
}

#[test]
fn a_watch_whose_token_runs_out_begins_again_at_once() {
    let (server, account) = scene(Profile::NoQresync, NO_SWEEP);
    server.inject("IDLE", When::Nth(1), Fault::token_expired());
    let daemon = Daemon::start(&account);
    daemon.until("the end of the token", || server.fired().iter().any(|fault| fault.starts_with("IDLE")));
    let watches = || server.commands().iter().filter(|c| c.name == "IDLE").count();
    daemon.until("the next watch", || watches() == 2);
    server.state().append("INBOX", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);
    let log = daemon.log();
    assert!(log.contains("seconds=0") && !log.contains("cannot be mirrored now"), "{log}");
}

#[test]
fn an_account_that_nobody_is_signed_in_to_is_parked_and_the_user_is_told() {
    let (server, account) = scene(Profile::Exo2026, NO_SWEEP);
    let oauth = OAuth::spawn(&server, None).unwrap();
    let directory = crate::account::scratch("attention");
    let (script, told) = (directory.path().join("hook.sh"), directory.path().join("told"));
    fs::write(&script, format!("#!/bin/sh\ncat >>{told:?}\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let (maildir, state_dir) = (account.maildir().display().to_string(), account.state_dir().display().to_string());
    let config = format!(
        "[daemon]\nstate_dir = {state_dir:?}\n\n[hooks]\nattention = [{script:?}]\n\n[account.a]\n\
         provider = \"outlook\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nemail = \"user@example.com\"\n\
         maildir = {maildir:?}\n{NO_SWEEP}\n\n[account.a.oauth]\nclient_id = \"client\"\nauthorize_url = {:?}\n\
         token_url = {:?}\ndevice_url = {:?}\ntoken_store = \"file\"\n",
        server.port(),
        oauth.endpoint("consumers", "authorize"),
        oauth.endpoint("consumers", "token"),
        oauth.endpoint("consumers", "devicecode"),
    );
    fs::write(account.config(), config).unwrap();
    let daemon = Daemon::start(&account);
    daemon.until("the hook", || fs::read_to_string(&told).is_ok_and(|text| text.contains("sign_in")));
    let live = &daemon.live(&account);
    assert_eq!(live["state"], "waiting", "{live}");
    assert!(live["problem"].as_str().unwrap().contains("run: postkeep login a"), "{live}");
    let wait = live["retry_at"].as_i64().unwrap() - jiff::Timestamp::now().as_second();
    assert!(wait > 500, "{wait}");
    let status = account.run(&["status"]);
    assert!(status.stdout.contains("is not signed in"), "{status:?}");
    assert!(server.commands().is_empty());
}
