//! The demonstration: everything that it says crosses does, by the daemon, and it ends well by itself or when it is told to.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::account::scratch;
use crate::terminal::Talk;

fn command(args: &[&str], home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postkeep"));
    command.args(args).env("HOME", home).env("TMPDIR", home);
    command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME").env_remove("XDG_RUNTIME_DIR");
    command
}

fn demo(args: &[&str], home: &Path) -> std::process::Output {
    command(&[&["demo"][..], args].concat(), home).output().unwrap()
}

/// Panics unless the mirror is there, and nothing else.
#[track_caller]
fn assert_only_mirror(home: &Path) {
    let left: Vec<_> = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mirror"]);
}

#[test]
fn each_change_crosses_and_both_sides_are_the_same() {
    let home = scratch("postkeep-demo");
    let mirror = home.path().join("mirror");
    let output = demo(&["--once", "--dir", mirror.to_str().unwrap()], home.path());
    let (text, complaints) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{text}{complaints}");
    // A simulated server that was asked for something it does not announce complains there.
    assert_eq!(complaints, "");
    assert!(text.contains("Signed in as you@outlook.com"), "{text}");
    assert!(text.contains("Mirrored 350 messages in 10 mailboxes in "), "{text}");
    assert_eq!(text.matches("on the server  ").count(), 10, "{text}");
    let told = |line: &&str| line.rsplit_once(" after ").is_some_and(|(_, time)| time.ends_with(['s']));
    assert_eq!(text.lines().filter(told).count(), 10, "each tells how long it took: {text}");
    assert!(text.ends_with("Both sides are the same: 351 messages in 12 mailboxes.\n"), "{text}");
    assert!(!text.contains(['\u{1b}', '\r']), "a pipe gets plain lines: {text:?}");
    // The mirror stays, and nothing else does.
    assert!(mirror.join("Archive/cur").is_dir() && mirror.join("Familie/Großeltern/cur").is_dir());
    assert_only_mirror(home.path());
}

#[test]
fn it_goes_on_with_what_the_user_does_until_it_is_stopped() {
    let home = scratch("postkeep-demo");
    let mirror = home.path().join("mirror");
    let mut demo = command(&["demo", "--dir", mirror.to_str().unwrap()], home.path());
    let mut child = demo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    let mut line = |fits: &dyn Fn(&str) -> bool| loop {
        let mut line = String::new();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the demonstration ended: {said}");
        said += &line;
        if fits(&line) {
            return line;
        }
    };
    let config = line(&|line| line.contains("postkeep --config "));
    let config = config.trim().strip_prefix("postkeep --config ").unwrap().strip_suffix(" status").unwrap();
    line(&|line| line.contains("Ctrl-C ends it"));

    // The daemon answers.
    let status = command(&["--config", config, "status"], home.path()).output().unwrap();
    let text = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.status.code(), Some(0), "{text}");
    assert!(text.contains("demo") && text.contains("INBOX"), "{text}");
    let json = command(&["--config", config, "status", "--json"], home.path()).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["daemon"]["pid"], child.id(), "{json}");

    // What the user does here is seen there.
    let tickets = mirror.join("Travel/2026/cur");
    let file = fs::read_dir(&tickets).unwrap().next().unwrap().unwrap().path();
    let unique = file.file_name().unwrap().to_str().unwrap().split(':').next().unwrap().to_owned();
    fs::rename(&file, tickets.join(format!("{unique}:2,FS"))).unwrap();
    line(&|line| line.contains("on the server  Travel/2026: UID 1, \\Flagged \\Seen, \"Your tickets\""));

    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let (mut rest, mut complaints) = (String::new(), String::new());
    stdout.read_to_string(&mut rest).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}{complaints}");
    assert_only_mirror(home.path());
}

#[test]
fn who_reads_along_on_a_terminal_is_given_time_and_colours() {
    let home = scratch("postkeep-demo");
    let mirror = home.path().join("mirror");
    let mut demo = command(&["demo", "--dir", mirror.to_str().unwrap()], home.path());
    demo.env("TERM", "xterm").env_remove("NO_COLOR");
    let mut talk = Talk::start(demo);
    talk.expect("Now things happen:");
    talk.expect("on the server  a message arrives\n");
    talk.expect("here  \u{1b}[32mINBOX/new/");
    talk.expect("\u{1b}[0m after ");
    talk.signal(Signal::INT);
    assert_eq!(talk.end(), 0, "{}", talk.shown);
    assert_only_mirror(home.path());

    // Who closes the terminal ends it.
    fs::remove_dir_all(&mirror).unwrap();
    let mut talk = Talk::start(command(&["demo", "--dir", mirror.to_str().unwrap()], home.path()));
    talk.expect("Now things happen:");
    talk.signal(Signal::HUP);
    assert_eq!(talk.end(), 0, "{}", talk.shown);
    assert_only_mirror(home.path());
}

#[test]
fn a_directory_with_something_in_it_is_left_alone() {
    let home = scratch("postkeep-demo");
    fs::write(home.path().join("letter"), "mine").unwrap();
    let output = demo(&["--once", "--dir", home.path().to_str().unwrap()], home.path());
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("is not empty; name a directory that is, or none"), "{complaint}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}
