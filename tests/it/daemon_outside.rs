//! What surrounds the daemon fails and recovers: the disk, the database, the watches of the system, the network.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use postkeep_sim::{Ca, Fault, Options, Profile, Server, When};
use rustix::process::Signal;

use crate::account::{Account, scratch};
use crate::daemon::{Daemon, NO_SWEEP, message, scene};
use crate::daemon_day::spawned_on;
use crate::faults_scene::{Mount, as_root, wrapped};

/// A hundredth of what a user waits for.
const HASTE: (&str, &str) = ("POSTKEEP_HASTE", "100");

/// Bodies of 100 kB, so that a small disk is full soon.
fn large(number: u32) -> Vec<u8> {
    [message(&format!("m{number}")), format!("{number:076}\r\n").repeat(1300).into_bytes()].concat()
}

/// Panics if a file in INBOX is not whole.
#[track_caller]
fn assert_none_cut(account: &Account, count: u32) {
    let whole: BTreeSet<String> =
        (1..=count).map(|n| String::from_utf8(large(n)).unwrap().replace("\r\n", "\n")).collect();
    for path in account.files("INBOX") {
        // It may have got another name just now.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        assert!(whole.contains(&text), "{} is cut", path.display());
    }
}

#[test]
fn a_full_disk_is_told_and_ridden_out() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    let disk = Mount::tmpfs(account.maildir(), "600k");
    let daemon = Daemon::start_with(&account, &[HASTE]);
    for n in 1..=12 {
        server.state().append("INBOX", &large(n), &[], 1000);
    }
    let told = || account.run(&["status"]).stdout.contains("no space is left");
    daemon.until("status tells of the full disk", told);
    assert!(account.files("INBOX").len() < 12, "the disk was not full");
    assert_none_cut(&account, 12);
    // It must not try all the time.
    let attempts = || server.commands().len();
    let before = attempts();
    std::thread::sleep(Duration::from_secs(2));
    assert!(attempts() - before < 200, "{}", attempts() - before);
    assert_eq!(daemon.log().matches("cannot be mirrored now").count(), 1, "it is told each time");
    disk.resize("4m");
    daemon.until_equal(&account, &server);
    daemon.rest(&account);
    assert_none_cut(&account, 12);
    let status = account.run(&["status"]);
    assert_eq!(status.code, 0, "{}", status.stdout);
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn a_full_disk_below_the_database_is_told_and_ridden_out() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    let disk = Mount::tmpfs(account.state_dir(), "400k");
    let daemon = Daemon::start_with(&account, &[HASTE]);
    for n in 1..=600 {
        server.state().append("INBOX", &message(&format!("m{n}")), &[], 1000);
    }
    let problem = || {
        let live = daemon.ask(&account, "{\"command\":\"status\"}");
        live["accounts"][0]["problem"].as_str().unwrap_or_default().to_owned()
    };
    daemon.until("it tells of the full disk", || problem().contains("no space is left on the disk"));
    disk.resize("16m");
    daemon.until_equal(&account, &server);
    daemon.until("all is well", || problem().is_empty());
}

#[test]
fn a_database_that_another_program_has_locked_is_waited_for() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    let daemon = Daemon::start_with(&account, &[HASTE]);
    daemon.watches(&account);
    daemon.rest(&account);
    let other = rusqlite::Connection::open(account.state_dir().join("a.sqlite3")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    server.state().append("INBOX", &message("a"), &[], 1000);
    account.deliver("INBOX", &message("b"));
    daemon.until("it tells of the lock", || daemon.log().contains("another program"));
    assert!(server.state().mailbox("INBOX").messages.len() <= 2);
    other.execute_batch("ROLLBACK").unwrap();
    daemon.until_equal(&account, &server);
    assert_eq!(server.state().mailbox("INBOX").messages.len(), 2);
}

#[test]
fn where_the_system_has_no_watches_left_files_are_looked_at_from_time_to_time() {
    for limit in ["max_inotify_watches", "max_inotify_instances"] {
        let (server, account) = scene(Profile::Full, NO_SWEEP);
        let file = format!("/proc/sys/user/{limit}");
        let mut unshare = Command::new("unshare");
        // A user of its own has limits of its own (namespaces(7)); instances are counted when they are made.
        unshare.args(["--user", "--map-root-user", "sh", "-c", &format!("echo 0 >{file} && exec \"$@\""), "sh"]);
        let mut command = wrapped(unshare, &account.command(&["run", "-vv"]));
        command.env(HASTE.0, HASTE.1);
        let mut daemon = Daemon::of(&account, command);
        daemon.wait_for("READY=1");
        let watches = || daemon.ask(&account, "{\"command\":\"status\"}")["accounts"][0]["files_watched"].clone();
        account.deliver("INBOX", &message("a"));
        daemon.until("the upload", || server.state().mailbox("INBOX").messages.len() == 1);
        daemon.until_equal(&account, &server);
        assert_eq!(watches(), false);
        // It has been tried again several times by now.
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(daemon.log().matches("cannot be watched").count(), 1, "{}", daemon.log());
        let pid = daemon.pid().as_raw_nonzero().to_string();
        as_root("nsenter", &["--user", "--target", &pid, "sh", "-c", &format!("echo 1000 >{file}")]);
        daemon.until("they are watched", || watches() == true);
        account.deliver("INBOX", &message("b"));
        daemon.until_equal(&account, &server);
    }
}

#[test]
fn another_network_is_noticed() {
    // Only in a network of its own can it be changed: the test starts itself there.
    if std::env::var_os("POSTKEEP_OWN_NETWORK").is_none() {
        let itself = std::env::current_exe().unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--net"]).arg(itself);
        unshare.args(["--exact", "daemon_outside::another_network_is_noticed", "--nocapture"]);
        let output = unshare.env("POSTKEEP_OWN_NETWORK", "1").output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let ip = |args: &str| {
        let output = Command::new("ip").args(args.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {args}: {output:?}");
    };
    ip("link set lo up");
    ip("address add 192.0.2.50/32 dev lo");
    ip("route add 192.0.2.0/24 dev lo src 192.0.2.50");
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    let daemon = Daemon::start(&account);
    let told = || daemon.log().matches("the network is another one").count();
    daemon.watches(&account);
    daemon.rest(&account);
    // A route that leads nowhere else is no other network.
    ip("route add 198.51.100.0/24 dev lo");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(told(), 0, "{}", daemon.log());
    let before: BTreeSet<u32> = server.take_commands().iter().map(|c| c.connection).collect();
    ip("address add 192.0.2.60/32 dev lo");
    ip("route replace 192.0.2.0/24 dev lo src 192.0.2.60");
    daemon.until("it notices", || told() == 1);
    daemon.until("the watch", || server.commands().iter().any(|c| c.name == "NOTIFY"));
    let after: BTreeSet<u32> = server.commands().iter().map(|c| c.connection).collect();
    assert!(before.is_disjoint(&after), "it went on with connections of the old network: {before:?} {after:?}");
    server.state().append("INBOX", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);
    assert_eq!(told(), 1);
}

#[test]
fn a_certificate_of_somebody_else_is_no_alarm_and_goes_away_with_him() {
    let directory = scratch("portal");
    let (script, told) = (directory.path().join("hook.sh"), directory.path().join("told"));
    fs::write(&script, format!("#!/bin/sh\ncat >>{told:?}\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    // First answers the portal of a hotel, with a certificate of its own.
    let (own, portal) = (Ca::new().unwrap(), Ca::new().unwrap());
    let ca_file = own.write_to(directory.path()).unwrap();
    let server = Server::spawn(Options::from(Profile::Full).tls(&portal)).unwrap();
    let port = server.port();
    let account = Account::new(port, "user", "secret", &format!("{NO_SWEEP}\n[hooks]\nattention = [{script:?}]"));
    let config = fs::read_to_string(account.config()).unwrap();
    let tls = format!("tls = \"implicit\"\ntls_ca_file = {ca_file:?}");
    let config = config.replace("tls = \"none\"", &tls).replace("127.0.0.1", "localhost");
    fs::write(account.config(), config).unwrap();
    let daemon = Daemon::start_with(&account, &[HASTE]);
    let live = || daemon.ask(&account, "{\"command\":\"status\"}")["accounts"][0].clone();
    daemon.until("it does not believe the certificate", || live()["failures"].as_u64() >= Some(3));
    assert!(live()["problem"].as_str().unwrap().contains("certificate"), "{}", live());
    assert_eq!(daemon.log().matches("cannot be mirrored now").count(), 1, "{}", daemon.log());
    assert!(server.commands().is_empty(), "{:?}", server.commands());
    drop(server);
    let server = spawned_on(Options::from(Profile::Full).tls(&own), port);
    server.state().append("INBOX", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);
    daemon.until("all is well", || live()["problem"].is_null());
    assert!(!told.exists(), "the user was alarmed: {}", fs::read_to_string(&told).unwrap());
}

#[test]
fn a_watchdog_is_fed_as_often_as_it_wants() {
    let (_server, account) = scene(Profile::Full, NO_SWEEP);
    let mut daemon = Daemon::start_with(&account, &[("WATCHDOG_USEC", "2000000")]);
    daemon.rest(&account);
    let began = Instant::now();
    (0..4).for_each(|_| drop(daemon.wait_for("WATCHDOG=1")));
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
}

#[test]
fn a_clock_that_was_wrong_holds_nothing_up() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    let throttle = Fault::Throttle { time: Duration::from_secs(1), bad: false };
    server.inject("SELECT", When::Nth(1), throttle);
    let mut daemon = Daemon::start_with(&account, &[HASTE]);
    daemon.until("it is throttled", || server.fired().iter().any(|fault| fault == "SELECT throttle"));
    server.state().advance(Duration::from_secs(2));
    daemon.until_equal(&account, &server);
    daemon.rest(&account);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), 0);
    // All of that was ten years later, by the clock of that time.
    let database = rusqlite::Connection::open(account.state_dir().join("a.sqlite3")).unwrap();
    let now = jiff::Timestamp::now().as_second();
    let later = now + 10 * 365 * 86_400;
    let quiet = "UPDATE service SET quiet_until = ?1, quiet_why = 'it said so'";
    assert_eq!(database.execute(quiet, [later]).unwrap(), 1);
    assert_eq!(database.execute("UPDATE mailbox SET listed_at = ?1", [later]).unwrap(), 1);
    server.state().append("INBOX", &message("a"), &[], 1000);
    let daemon = Daemon::start(&account);
    daemon.until_equal(&account, &server);
    let listed = || database.query_row("SELECT listed_at FROM mailbox", [], |row| row.get::<_, i64>(0)).unwrap();
    daemon.until("everything is listed", || (now..later).contains(&listed()));
}
