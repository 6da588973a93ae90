//! `postkeep init`, through a pipe: what it asks, what it shows, and what it writes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use postkeep_sim::{Profile, Server};

use crate::account::{Output, scratch};

/// A home without a configuration.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(scratch("init"));
        fs::write(home.path().join("password"), "secret\n").unwrap();
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn config(&self) -> PathBuf {
        self.path().join(".config/postkeep/config.toml")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postkeep"));
        command.args(args).env_clear().env("HOME", self.path()).env("PATH", std::env::var_os("PATH").unwrap());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the program with these lines as its standard input, which then ends.
    fn answer(&self, lines: &[&str]) -> Output {
        let mut child = self.command(&["init"]).spawn().unwrap();
        // It may end before it has read all of them.
        let _ = child.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Output { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

#[test]
fn an_account_is_set_up_by_answers() {
    let server = Server::spawn(Profile::Full).unwrap();
    server.state().create("Lists");
    let home = Home::new();
    let place = format!("127.0.0.1:{}", server.port());
    let password = format!("cat {}", home.path().join("password").display());
    // The first answer is none; the empty ones are the defaults.
    let answers = ["nobody", "user@example.org", &place, "no", "user", &password, "", "", "", "no"];
    let output = home.answer(&answers);
    assert_eq!(output.code, 0, "{output:?}");
    for words in [
        "Your address: That cannot be used; try again.",
        "Its IMAP server [imap.example.org]: ",
        "The name to sign in with [user@example.org]: ",
        "A name for the account [personal]: ",
        "The directory for its mail [~/Mail/personal]: ",
        "These mailboxes will be mirrored: INBOX, Lists\n",
        "config.toml is written.",
        "Next: postkeep sync personal --dry-run",
    ] {
        assert!(output.stdout.contains(words), "{words}: {}", output.stdout);
    }
    assert_eq!(fs::metadata(home.config()).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(home.config().parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
    assert!(server.commands().iter().all(|command| !command.changes()));
    assert!(!home.path().join("Mail").exists());

    // What was written works, and is not overwritten.
    let sync = home.command(&["sync"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(sync.status.code(), Some(0), "{sync:?}");
    assert!(home.path().join("Mail/personal/Lists/cur").is_dir());
    let before = fs::read(home.config()).unwrap();
    let output = home.answer(&answers);
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stderr.contains("which is left as it is") && output.stdout.is_empty(), "{output:?}");
    assert_eq!(fs::read(home.config()).unwrap(), before);
}

#[test]
fn nothing_is_written_before_the_server_lets_in_and_the_user_agrees() {
    let server = Server::spawn(Profile::Full).unwrap();
    let home = Home::new();
    let place = format!("127.0.0.1:{}", server.port());
    let password = format!("cat {}", home.path().join("password").display());
    let rows: [(&[&str], i32, &str); 4] = [
        // Standard input ends.
        (&[], 2, "there was no answer to \"Your address\"; nothing was written"),
        (&["a@example.org", &place, "no", "user"], 2, "nothing was written"),
        (&["a@example.org", &place, "no", "user", "echo wrong", "", "", "", "no"], 3, "refused the sign-in"),
        (&["a@example.org", &place, "no", "user", &password, "", "", "no"], 0, "No configuration was written."),
    ];
    for (answers, code, words) in rows {
        let output = home.answer(answers);
        assert_eq!(output.code, code, "{output:?}");
        assert!((output.stdout.clone() + &output.stderr).contains(words), "{words}: {output:?}");
        assert!(!home.config().exists(), "{output:?}");
    }
}

#[test]
fn who_is_at_outlook_is_sent_to_a_browser() {
    let home = Home::new();
    let mut child = home.command(&["init", "--no-browser"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"someone@hotmail.co.uk\nfd00-id\n\n\n").unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("Ctrl-C") {
        assert_ne!(stdout.read_line(&mut said).unwrap(), 0, "{said}");
    }
    for words in [
        "Outlook.com takes no passwords",
        "https://entra.microsoft.com",
        "https://login.microsoftonline.com/consumers/oauth2/v2.0/authorize?",
        "client_id=fd00-id",
        "login_hint=someone%40hotmail.co.uk",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    drop(stdin);
    assert!(!home.config().exists());
}
