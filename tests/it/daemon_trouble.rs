//! The daemon rides out what goes wrong.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postkeep_sim::{At, Fault, Profile, Server, When};
use rustix::process::Signal;

use crate::account::Account;
use crate::daemon::{Daemon, NO_SWEEP, PATIENCE, message, scene};

#[test]
fn a_killed_daemon_goes_on_where_it_was() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    for n in 0..50 {
        server.state().append("INBOX", &message(&format!("m{n}")), &[], 1000);
    }
    let mut daemon = Daemon::spawn(&account, &[]);
    daemon.until("some messages", || account.files("INBOX").len() > 5);
    daemon.signal(Signal::KILL);
    assert_eq!(daemon.end(), -1);
    let daemon = Daemon::start(&account);
    daemon.until_equal(&account, &server);
    server.state().append("INBOX", &message("later"), &[], 1000);
    daemon.until_equal(&account, &server);
}

/// Starts a server on a port that one had before, once nobody who was given the port meanwhile has it any more.
fn restarted(port: u16) -> Server {
    let until = Instant::now() + PATIENCE;
    loop {
        match Server::spawn_on(Profile::Full, port) {
            Ok(server) => return server,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_that_goes_away_and_comes_back_is_found_again() {
    let account;
    let port = {
        let (server, made) = scene(Profile::Full, NO_SWEEP);
        account = made;
        server.port()
    };
    let daemon = Daemon::start(&account);
    daemon.until("the failure", || daemon.log().contains("cannot be mirrored now"));
    let server = restarted(port);
    server.state().append("INBOX", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);
    daemon.watches(&account);
    drop(server);
    let server = restarted(port);
    server.state().append("INBOX", &message("a"), &[], 1000);
    server.state().append("INBOX", &message("b"), &[], 1000);
    daemon.until_equal(&account, &server);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

/// Says goodbye in place of a greeting to everybody who comes to a port, until it is dropped.
struct Doorman {
    turned_away: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Doorman {
    fn at(port: u16) -> Self {
        let until = Instant::now() + PATIENCE;
        let door = loop {
            match TcpListener::bind(("127.0.0.1", port)) {
                Ok(door) => break door,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        door.set_nonblocking(true).unwrap();
        let (turned_away, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&turned_away), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                match door.accept() {
                    Ok((mut stream, _)) => {
                        let _ = stream.write_all(b"* BYE Too many connections, come back later\r\n");
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self { turned_away, ends, thread: Some(thread) }
    }

    fn turned_away(&self) -> usize {
        self.turned_away.load(Ordering::SeqCst)
    }
}

impl Drop for Doorman {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_server_that_is_gone_then_turns_away_and_then_works_is_found_again() {
    let account;
    let port = {
        let (server, made) = scene(Profile::Full, NO_SWEEP);
        account = made;
        server.port()
    };
    let daemon = Daemon::start_with(&account, &[("POSTKEEP_HASTE", "50")]);
    daemon.until("the failure", || daemon.log().contains("cannot reach"));
    let doorman = Doorman::at(port);
    daemon.until("some visits", || doorman.turned_away() >= 3);
    assert!(daemon.log().contains("the server turns away: Too many connections"), "{}", daemon.log());
    let status = account.run(&["status"]);
    assert!(status.stdout.contains("the server turns away: Too many connections"), "{status:?}");
    drop(doorman);
    let server = restarted(port);
    server.state().append("INBOX", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);
    daemon.until("the end of the failure", || daemon.log().contains("mirrored again"));
}

#[test]
fn a_server_that_turns_away_is_not_broken() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    let port = server.port();
    drop(server);
    let doorman = Doorman::at(port);
    let output = account.run(&["sync"]);
    assert_eq!(output.code, 5, "{output:?}");
    assert!(output.stdout.contains("the server turns away: Too many connections, come back later"), "{output:?}");
    assert_eq!(doorman.turned_away(), 1, "whoever comes again at once is one more that there is no room for");
}

#[test]
fn a_silent_watch_is_caught_by_the_sweep() {
    let (server, account) = scene(Profile::NoQresync, "poll_interval = \"1s\"");
    // The server goes on to accept connections, but tells in none of them that there are new messages.
    server.inject("IDLE", When::Every, Fault::Stall);
    let daemon = Daemon::start(&account);
    daemon.until("the watch", || server.fired().iter().any(|fault| fault == "IDLE stall"));
    server.state().append("INBOX", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);
}

#[test]
fn a_watch_that_breaks_is_begun_again_and_nothing_is_missed() {
    let (server, account) = scene(Profile::NoQresync, NO_SWEEP);
    server.inject("IDLE", When::Nth(1), Fault::Close(At::Middle));
    let daemon = Daemon::start(&account);
    daemon.until("the broken watch", || server.fired().iter().any(|fault| fault == "IDLE close"));
    server.state().append("INBOX", &message("in the gap"), &[], 1000);
    daemon.until_equal(&account, &server);
}

#[test]
fn a_server_that_tells_of_no_changes_is_swept() {
    let (server, account) = scene(Profile::Bare, "poll_interval = \"1s\"");
    let daemon = Daemon::start(&account);
    server.state().append("INBOX", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn a_refused_sign_in_is_not_repeated() {
    let server = Server::spawn(Profile::Full).unwrap();
    let account = Account::new(server.port(), "user", "wrong", NO_SWEEP);
    let mut daemon = Daemon::start(&account);
    daemon.until("the failure", || daemon.log().contains("refused the sign-in"));
    let tries = || server.commands().iter().filter(|c| c.name == "AUTHENTICATE" || c.name == "LOGIN").count();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(tries(), 1);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), 0);
}

#[test]
fn it_ends_at_once_even_in_the_middle_of_a_large_upload() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    server.inject("APPEND", When::Every, Fault::Stall);
    let large = message("large").repeat(200_000);
    account.deliver("INBOX", &large);
    let mut daemon = Daemon::spawn(&account, &[]);
    daemon.until("the upload", || server.fired().iter().any(|fault| fault == "APPEND stall"));
    let asked = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), 0);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    daemon.wait_for("STOPPING=1");
    assert!(account.files("INBOX").len() == 1);
}

#[test]
fn a_second_daemon_is_refused() {
    let (_server, account) = scene(Profile::Full, NO_SWEEP);
    let _daemon = Daemon::start(&account);
    let output = account.run(&["run"]);
    assert_eq!(output.code, 6, "{}", output.stderr);
    assert!(output.stderr.contains("another postkeep daemon listens at"), "{}", output.stderr);
}

#[test]
fn the_watchdog_is_fed() {
    let (_server, account) = scene(Profile::Full, NO_SWEEP);
    let mut daemon = Daemon::start_with(&account, &[("WATCHDOG_USEC", "300000000")]);
    daemon.wait_for("WATCHDOG=1");
}
