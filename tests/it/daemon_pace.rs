//! How soon the daemon carries over what happens, and what it costs while nothing does. That it does so is judged, how soon
//! is only told: `POSTKEEP_SLOW_TESTS=1 cargo test --release --test it daemon_pace -- --nocapture`, which takes minutes,
//! with another number of messages in `POSTKEEP_MESSAGES`.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use postkeep_sim::Profile;

use crate::account::Account;
use crate::crash::may_be_slow;
use crate::daemon::{Daemon, NO_SWEEP, message, scene};

#[test]
fn every_change_crosses() {
    // How many messages there are, how often each thing is made to happen, and how long nothing is.
    let (usual, times, idle) = if may_be_slow() { (100_000, 100, 30) } else { (300, 3, 1) };
    let messages = std::env::var("POSTKEEP_MESSAGES").map_or(usual, |number| number.parse().unwrap());
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    {
        let mut state = server.state();
        // What is seen lies in `cur`, so that `new` has only what came later.
        (0..messages).for_each(|n| {
            state.append("INBOX", &message(&format!("m{n}")), &["\\Seen"], 1000);
        });
        (1..200).for_each(|n| state.create(&format!("Lists/{n}")));
    }
    let began = Instant::now();
    let mut daemon = Daemon::quiet(&account);
    daemon.until_within(Duration::from_secs(1800), "the first pass", || listed(&account, "cur").len() == messages);
    rest(&daemon, &account);
    println!("{messages} messages: first pass in {:?}, then {}", began.elapsed(), memory(&daemon));

    let arrivals = || listed(&account, "new").len();
    measure(&daemon, times, "announced there, file here", || {
        let known = arrivals();
        let began = Instant::now();
        server.state().append("INBOX", &message("arrives"), &[], 2000);
        daemon.until("the file", || arrivals() > known);
        began.elapsed()
    });
    let mut files = listed(&account, "cur");
    files.sort();
    let mut files = files.into_iter();
    measure(&daemon, times, "renamed here, flag there", || {
        let path = files.next().unwrap();
        let began = Instant::now();
        let before = server.state().mailbox("INBOX").highest_mod_seq;
        account.set_info(&path, "FS");
        daemon.until("the flag", || server.state().mailbox("INBOX").highest_mod_seq > before);
        began.elapsed()
    });
    measure(&daemon, times, "written here, message there", || {
        let known = server.state().mailbox("INBOX").messages.len();
        let began = Instant::now();
        account.deliver("INBOX", &message("written"));
        daemon.until("the message", || server.state().mailbox("INBOX").messages.len() > known);
        began.elapsed()
    });
    measure(&daemon, times, "removed here, gone there", || {
        let path = files.next().unwrap();
        let known = server.state().mailbox("INBOX").messages.len();
        let began = Instant::now();
        fs::remove_file(path).unwrap();
        daemon.until("the removal", || server.state().mailbox("INBOX").messages.len() < known);
        began.elapsed()
    });
    rest(&daemon, &account);
    println!("after all that {}", memory(&daemon));
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.end(), 0);

    let daemon = Daemon::quiet(&account);
    rest(&daemon, &account);
    let (used, written, _) = (cpu(&daemon), bytes_written(&daemon), server.take_commands());
    std::thread::sleep(Duration::from_secs(idle));
    println!(
        "idle for {idle} s: {}, {} ms of CPU, {} bytes written, commands {:?}",
        memory(&daemon),
        10 * (cpu(&daemon) - used),
        bytes_written(&daemon) - written,
        server.take_commands().iter().map(|command| command.name.clone()).collect::<Vec<_>>(),
    );
}

/// Waits until the daemon has looked at everything and waits for changes.
fn rest(daemon: &Daemon, account: &Account) {
    daemon.until("the watch", || {
        let live = &daemon.live(account);
        live["all_watched"] == true
    });
    daemon.rest(account);
}

/// Returns the files in `new` or `cur` of INBOX.
fn listed(account: &Account, part: &str) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(account.mailbox("INBOX").join(part)) else { return Vec::new() };
    files.map(|file| file.unwrap().path()).collect()
}

fn measure(daemon: &Daemon, times: u32, what: &str, mut once: impl FnMut() -> Duration) {
    let used = cpu(daemon);
    let mut took: Vec<Duration> = (0..times)
        .map(|_| {
            let time = once();
            // What the daemon does afterwards is not for the next one to wait for.
            std::thread::sleep(Duration::from_millis(150));
            time
        })
        .collect();
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    // On a machine that others use, this says more.
    let each = 10 * (cpu(daemon) - used) / u64::from(times);
    println!(
        "{what}: median {:?}, p90 {:?}, p99 {:?}, most {:?}; {each} ms of CPU each",
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

/// Returns a file of the daemon's process.
fn proc(daemon: &Daemon, file: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{file}", daemon.pid().as_raw_nonzero())).unwrap()
}

/// Returns what a file of the daemon's process says in a line that begins so.
fn field(daemon: &Daemon, file: &str, name: &str) -> u64 {
    let text = proc(daemon, file);
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

fn memory(daemon: &Daemon) -> String {
    let of = |name| field(daemon, "status", name);
    format!("{} kB resident, {} kB of it files, {} kB at most", of("VmRSS:"), of("RssFile:"), of("VmHWM:"))
}

/// Returns how long the daemon has worked, in ticks of 10 ms.
fn cpu(daemon: &Daemon) -> u64 {
    let stat = proc(daemon, "stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn bytes_written(daemon: &Daemon) -> u64 {
    field(daemon, "io", "wchar:")
}
