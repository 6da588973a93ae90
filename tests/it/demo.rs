//! The demonstration: everything that it says crosses does, and it ends well by itself.

use std::fs;
use std::process::Command;

use crate::account::scratch;

fn demo(args: &[&str], home: &std::path::Path) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postkeep"));
    command.arg("demo").args(args).env("HOME", home).env("TMPDIR", home);
    command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME").env_remove("XDG_RUNTIME_DIR");
    command.output().unwrap()
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
    assert_eq!(text.matches("on the server  ").count(), 10, "{text}");
    assert_eq!(text.matches(" ms\n").count(), 10, "each tells how long it took: {text}");
    assert!(text.ends_with("Both sides are the same: 351 messages in 12 mailboxes.\n"), "{text}");
    // The mirror stays, and nothing else does.
    assert!(mirror.join("Archive/cur").is_dir() && mirror.join("Familie/Großeltern/cur").is_dir());
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mirror"]);
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
