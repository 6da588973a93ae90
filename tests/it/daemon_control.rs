//! The daemon does what it is asked for, and tells what it does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use postkeep_sim::{Fault, Profile, When};
use rustix::process::Signal;

use crate::daemon::{Daemon, NO_SWEEP, message, scene};

#[test]
fn sync_and_approve_ask_the_daemon_that_has_the_account() {
    let (server, account) =
        scene(Profile::NoQresync, &format!("{NO_SWEEP}\n[account.a.deletions]\nguard_count = 1\nguard_share = 0.1"));
    server.state().create("Archive");
    for n in 0..8 {
        server.state().append("Archive", &message(&format!("m{n}")), &[], 1000);
    }
    let daemon = Daemon::start(&account);
    daemon.until_equal(&account, &server);
    daemon.rest(&account);
    server.state().append("Archive", &message("nobody tells of this"), &[], 1000);
    let output = account.run(&["sync", "--dry-run"]);
    assert_eq!((output.code, account.files("Archive").len()), (0, 8), "{}{}", output.stdout, output.stderr);
    assert!(output.stdout.contains("a: Archive: download"), "{}", output.stdout);
    let output = account.run(&["sync", "--mailbox", "Arch*"]);
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
    assert!(output.stdout.contains("1 downloaded"), "{}", output.stdout);
    assert_eq!(account.files("Archive").len(), 9);

    for path in account.files("Archive").iter().take(6) {
        fs::remove_file(path).unwrap();
    }
    let status = || account.run(&["status", "--json"]);
    daemon.until("the removals are held", || status().code == 4);
    let told: serde_json::Value = serde_json::from_str(&status().stdout).unwrap();
    assert_eq!(told["daemon"]["accounts"][0]["account"], "a");
    assert!(account.run(&["status"]).stdout.contains("the daemon is "));
    let output = account.run(&["approve", "a"]);
    assert!(output.stdout.contains("6 removals will be carried out by the next pass"), "{}", output.stdout);
    daemon.until("the expunge", || server.state().mailbox("Archive").messages.len() == 3);
    daemon.until_equal(&account, &server);
}

#[test]
fn a_changed_configuration_holds_after_a_hangup_and_a_wrong_one_never_does() {
    let (server, account) = scene(Profile::NoQresync, NO_SWEEP);
    server.state().create("Archive");
    let mut daemon = Daemon::start(&account);
    daemon.until_equal(&account, &server);
    let before = fs::read_to_string(account.config()).unwrap();
    fs::write(account.config(), before.replace("maildir =", "mail_dir =")).unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_for("RELOADING=1");
    daemon.wait_for("READY=1");
    assert!(daemon.log().contains("the old one holds"), "{}", daemon.log());
    server.state().append("INBOX", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);

    fs::write(account.config(), format!("{before}\nwatch = [\"INBOX\", \"Archive\"]\n")).unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_for("RELOADING=1");
    daemon.wait_for("READY=1");
    daemon.until("both watches", || {
        let live = &daemon.live(&account);
        live["watched"].as_array().is_some_and(|watched| watched.len() == 2)
    });
    server.state().append("Archive", &message("b"), &[], 1000);
    daemon.until_equal(&account, &server);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), 0);
}

#[test]
fn a_wait_is_over_when_somebody_who_asks_gets_through() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    server.inject("AUTHENTICATE", When::Nth(1), Fault::Answer("NO [AUTHENTICATIONFAILED] who are you?".to_owned()));
    let daemon = Daemon::start(&account);
    daemon.until("the wait", || daemon.log().contains("refused the sign-in"));
    assert_eq!(server.fired(), ["AUTHENTICATE answer"]);
    let output = account.run(&["sync"]);
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
    server.state().append("INBOX", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);
}

#[test]
fn hooks_are_told_what_changed_and_numbers_are_written() {
    let directory = crate::account::scratch("hooks");
    let file = |name: &str| directory.path().join(name);
    let script = |name: &str| {
        let path = file(&format!("{name}.sh"));
        fs::write(&path, format!("#!/bin/sh\ncat >>{:?}\necho it is broken >&2\nexit 3\n", file(name))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    let (changed, new_mail) = (script("changed"), script("new_mail"));
    let extra = format!("{NO_SWEEP}\n[hooks]\nchanged = [{changed:?}]\nnew_mail = [{new_mail:?}]");
    let (server, account) = scene(Profile::Full, &extra);
    let config = fs::read_to_string(account.config()).unwrap();
    let metrics = file("postkeep.prom").display().to_string();
    fs::write(account.config(), config.replace("[daemon]", &format!("[daemon]\nmetrics_file = {metrics:?}"))).unwrap();
    server.state().append("INBOX", &message("new"), &[], 1000);
    server.state().append("INBOX", &message("seen"), &["\\Seen"], 1000);
    let daemon = Daemon::start(&account);
    let told = |name: &str| fs::read_to_string(file(name)).unwrap_or_default();
    daemon.until("the hooks", || told("changed").lines().count() == 2 && told("new_mail").lines().count() == 1);
    let line: serde_json::Value = serde_json::from_str(told("new_mail").lines().next().unwrap()).unwrap();
    assert_eq!(
        (&line["account"], &line["mailbox"], &line["change"]),
        (&"a".into(), &"INBOX".into(), &"arrived".into())
    );
    assert!(fs::exists(line["path"].as_str().unwrap()).unwrap());
    daemon.until("the failure is told", || daemon.log().contains("it is broken"));
    server.state().set_flags("INBOX", 2, &["\\Seen", "\\Flagged"]);
    daemon.until("the second run", || told("changed").lines().count() == 3);
    let all = told("changed");
    let line: serde_json::Value = serde_json::from_str(all.lines().last().unwrap()).unwrap();
    assert_eq!(line["change"], "flagged");
    assert!(line["old_path"].as_str().unwrap().ends_with(":2,S") && line["path"].as_str().unwrap().ends_with(":2,FS"));
    daemon.until("the numbers", || {
        fs::read_to_string(file("postkeep.prom"))
            .is_ok_and(|text| text.contains("postkeep_messages_total{account=\"a\",done=\"downloaded\"} 2"))
    });
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn what_changed_last_is_told_before_the_end_and_who_does_not_end_is_given_up() {
    for hangs in [false, true] {
        let directory = crate::account::scratch("last");
        let (path, told) = (directory.path().join("hook.sh"), directory.path().join("told"));
        let last = if hangs { "exec sleep 600" } else { "exit 0" };
        fs::write(&path, format!("#!/bin/sh\ncat >>{told:?}\n{last}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let (server, account) = scene(Profile::Full, &format!("{NO_SWEEP}\n[hooks]\nchanged = [{path:?}]"));
        let mut daemon = Daemon::quiet(&account);
        daemon.watches(&account);
        server.state().append("INBOX", &message("a"), &[], 1000);
        daemon.until("the message", || account.files("INBOX").len() == 1);
        daemon.rest(&account);
        let asked = Instant::now();
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.end(), 0);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        let log = daemon.log();
        assert_eq!(fs::read_to_string(&told).unwrap().lines().count(), 1, "{log}");
        assert_eq!(log.contains("gave up a hook"), hangs, "{log}");
        assert!(log.contains("planned") && !log.contains("DEBUG"), "{log}");
    }
}
