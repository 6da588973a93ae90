//! The real program, as a shell sees it.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A home of its own, with a configuration.
struct Home(tempfile::TempDir);

impl Home {
    fn new(config: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join(".config/postkeep");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("config.toml"), config).unwrap();
        Self(home)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postkeep"));
        command.args(args).env_clear().env("HOME", self.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Nothing listens there, so no test depends on a server.
const ACCOUNT: &str = "
[account.personal]
host = '127.0.0.1'
port = 1
tls = 'none'
username = 'u'
password_command = ['echo', 'hunter2']
maildir = '~/Mail'
";

#[test]
fn help_and_version_go_to_standard_output() {
    let home = Home::new("");
    for (args, text) in [
        (&["--help"][..], "4  something is held"),
        (&["--version"], concat!("postkeep ", env!("CARGO_PKG_VERSION"))),
        (&["sync", "--help"], "--dry-run"),
        (&["help", "approve"], "--undo"),
    ] {
        let output = home.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(stdout(&output).contains(text), "{args:?}: {}", stdout(&output));
        assert_eq!(stderr(&output), "", "{args:?}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let home = Home::new(ACCOUNT);
    for (args, text) in [
        (&[][..], "Usage:"),
        (&["snyc"], "a similar subcommand exists: 'sync'"),
        (&["sync", "personnal"], "did you mean \"personal\"?"),
        (&["status", "nothing-like-it"], "there are: personal"),
        (&["log", "personal", "--since", "yesterday"], "cannot read \"yesterday\" as a time"),
        (&["--config", "/nowhere/c.toml", "sync"], "there is no configuration /nowhere/c.toml"),
    ] {
        let output = home.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(text), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn a_wrong_configuration_names_its_place() {
    let home = Home::new("[account.a]\nhots = 'h'\npassword = 'hunter2'\n");
    let output = home.run(&["status"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("/.config/postkeep/config.toml:2:1: unknown key `hots`; did you mean `host`?\n"), "{text}");
    assert!(text.contains(":3:1: unknown key `password`"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn what_was_never_synced_is_not_in_sync() {
    let home = Home::new(ACCOUNT);
    let output = home.run(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("postkeep sync personal"), "{}", stdout(&output));
    let output = home.run(&["status", "personal", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["exit_code"], &json["accounts"][0]["account"]), (&1.into(), &"personal".into()));
    let output = home.run(&["log", "personal"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), ""));
    // Looking makes nothing.
    assert!(!home.path().join(".local").exists() && !home.path().join("Mail").exists());
}

#[test]
fn only_the_user_writes_to_the_state_directory() {
    let home = Home::new(ACCOUNT);
    let state = home.path().join(".local/state/postkeep");
    let _ = home.run(&["sync"]);
    assert_eq!(std::fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
    std::fs::set_permissions(&state, PermissionsExt::from_mode(0o775)).unwrap();
    let output = home.run(&["sync"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("chmod go-w"), "{}", stderr(&output));
}

#[test]
fn a_reader_that_has_gone_away_is_no_failure() {
    let home = Home::new(ACCOUNT);
    for args in [&["status"][..], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = home.command(args).stdout(writer).output().unwrap();
        assert!(output.status.code().is_some_and(|code| code < 2), "{args:?}: {:?}", output.status);
        assert_eq!(stderr(&output), "", "{args:?}");
    }
}

#[test]
fn a_full_disk_below_standard_output_is_told() {
    let home = Home::new(ACCOUNT);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = home.command(&["status", "--json"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot write to standard output"), "{}", stderr(&output));
}

#[test]
fn nobody_needs_to_listen_to_standard_error() {
    let home = Home::new("nonsense");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = home.command(&["-vv", "status"]).stderr(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// A newcomer copies these.
#[test]
fn the_configurations_of_the_readme_are_understood() {
    let readme = include_str!("../../README.md");
    let blocks: Vec<&str> = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 4);
    for block in blocks {
        // Some show one table only.
        let config = if block.contains("[account.") { block.to_owned() } else { format!("{ACCOUNT}{block}") };
        let output = Home::new(&config).run(&["status"]);
        assert_eq!(output.status.code(), Some(1), "{block}{}", stderr(&output));
        assert!(stdout(&output).contains("never synced"), "{}", stdout(&output));
    }
}
