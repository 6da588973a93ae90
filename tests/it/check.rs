//! `postkeep check`: what it finds, how it ends, and that it changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use postkeep_sim::{Ca, Options, Profile, Server};

use crate::account::{Account, Output, Remote};
use crate::dovecot::{self, Dovecot};
use crate::faults_scene::{DATE, mail};
use crate::outlook_account::signed_in;

/// Runs the doctor; returns what it found, as `topic mark text advice` lines.
#[track_caller]
fn check(account: &Account, args: &[&str], code: i32) -> String {
    let output = account.run(&[&["check", "--json"][..], args].concat());
    assert_eq!(output.code, code, "{output:?}");
    let json: serde_json::Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(json["exit_code"], code);
    let accounts = json["accounts"].as_array().unwrap().iter().flat_map(|a| a["findings"].as_array().unwrap());
    let all = json["findings"].as_array().unwrap().iter().chain(accounts);
    let line = |f: &serde_json::Value| {
        let word = |key: &str| f[key].as_str().unwrap_or_default().to_owned();
        format!("{} {} {} {}\n", word("topic"), word("mark"), word("text"), word("advice"))
    };
    all.map(line).collect()
}

#[track_caller]
fn says(found: &str, words: &[&str]) {
    for words in words {
        assert!(found.contains(words), "{words} is not in:\n{found}");
    }
}

/// Makes the configuration as it should be.
fn private(account: &Account) {
    fs::set_permissions(account.config(), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn an_account_at_outlook_is_looked_at() {
    let server = Server::spawn(Profile::Exo2026).unwrap();
    server.state().append("INBOX", &mail(1), &[], DATE);
    let (account, oauth) = signed_in(&server);
    private(&account);
    assert_eq!(account.run(&["sync"]).code, 0);
    let before = account.snapshot(Remote::Sim(&server));
    drop(server.take_commands());
    let found = check(&account, &[], 0);
    says(
        &found,
        &[
            "configuration ok ",
            "provider ok Outlook.com gives IMAP its mailboxes only",
            "maildir ",
            "clock ok it agrees",
            "sign_in ok the sign-in of user@example.com is kept in ",
            "good for 60 minutes",
            "tls note none: 127.0.0.1 is on this machine",
            "changes ok the server counts no changes: large mailboxes are swept",
            "watch ok the daemon is told at once of changes in INBOX (IDLE)",
            "extensions ok ",
            "mailboxes ok 6 mailboxes mirrored; left out: Notes, Outbox",
            "daemon note it does not run",
        ],
    );
    assert!(server.take_commands().iter().all(|command| !command.changes()));
    assert!(account.snapshot(Remote::Sim(&server)) == before);
    assert_eq!(server.violations(), Vec::<String>::new());

    oauth.directory().clock_ahead = 7200;
    says(&check(&account, &[], 0), &["clock note it is 2 hours behind"]);
    let (asked, requests) = (server.commands().len(), oauth.requests().len());
    let found = check(&account, &["--offline"], 0);
    says(&found, &["server ok 127.0.0.1:", "(--offline)", "it was not tried"]);
    assert_eq!((server.commands().len(), oauth.requests().len()), (asked, requests));
    // For people, a line for each.
    let output = account.run(&["check", "a", "--offline"]);
    says(&output.stdout, &["  ok      configuration: ", "\na\n", "  note    daemon: "]);

    // Without an id of its own registration, and then without a sign-in.
    let config = fs::read_to_string(account.config()).unwrap();
    fs::write(account.config(), config.replace("client_id = \"client\"\n", "")).unwrap();
    let found = check(&account, &[], 3);
    says(&found, &["sign_in problem there is no client_id", "https://entra.microsoft.com", "postkeep login a"]);
    fs::write(account.config(), config).unwrap();
    fs::remove_file(account.state_dir().join("a.token")).unwrap();
    says(&check(&account, &[], 3), &["sign_in problem account a is not signed in; run: postkeep login a"]);
}

#[test]
fn a_dovecot_is_looked_at_and_a_daemon_is_left_alone() {
    let dovecot = Dovecot::start(dovecot::Profile::Full);
    let account = Account::on_dovecot(&dovecot, "u");
    private(&account);
    says(&check(&account, &[], 0), &["maildir ok ", "is not there yet", "(QRESYNC)", "lets u in with the password"]);
    assert!(!account.maildir().exists() && !account.state_dir().exists(), "looking made something");
    let mut daemon = account.command(&["run"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let socket = account.config().parent().unwrap().join("postkeep/control.sock");
    while !socket.exists() {
        assert!(daemon.try_wait().unwrap().is_none(), "the daemon ended");
        std::thread::yield_now();
    }
    says(&check(&account, &[], 0), &["daemon ok it runs", "(QRESYNC)"]);
    assert!(daemon.try_wait().unwrap().is_none());
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn a_certificate_is_told_with_its_end_or_not_trusted() {
    let ca = Ca::new().unwrap();
    let server = Server::spawn(Options::from(Profile::Full).tls(&ca)).unwrap();
    let account = Account::on_sim(&server);
    private(&account);
    let file = ca.write_to(account.config().parent().unwrap()).unwrap();
    let config = fs::read_to_string(account.config()).unwrap().replace("\"127.0.0.1\"", "\"localhost\"");
    let config = config.replace("tls = \"none\"", "tls = \"implicit\"");
    fs::write(account.config(), &config).unwrap();
    let found = check(&account, &[], 5);
    says(&found, &["tls problem cannot trust localhost", "nothing was sent", "tls_ca_file"]);
    assert_eq!(server.commands().len(), 0);
    fs::write(account.config(), format!("{config}tls_ca_file = {:?}\n", file.display().to_string())).unwrap();
    // The simulation's are made for ten years.
    let found = check(&account, &[], 0);
    says(&found, &["tls ok localhost has a certificate that can be trusted, until 20"]);
    // And a few moments less, by now.
    assert!(["(3,650 days)", "(3,649 days)"].iter().any(|days| found.contains(days)), "{found}");
}

#[test]
fn what_is_wrong_says_what_to_do() {
    let server = Server::spawn(Profile::Full).unwrap();
    let account = Account::on_sim(&server);
    private(&account);
    assert_eq!(account.run(&["sync"]).code, 0);
    let config = fs::read_to_string(account.config()).unwrap();

    // A configuration that others can change, and one that is none.
    fs::set_permissions(account.config(), fs::Permissions::from_mode(0o666)).unwrap();
    says(&check(&account, &[], 2), &["configuration problem ", "(mode 0666)", "chmod 600 "]);
    private(&account);
    fs::write(account.config(), config.replace("host =", "hots =")).unwrap();
    says(&check(&account, &[], 2), &["configuration problem ", "did you mean `host`?"]);
    fs::write(account.config(), &config).unwrap();

    // A wrong password.
    fs::write(account.config().parent().unwrap().join("password"), "wrong\n").unwrap();
    says(&check(&account, &[], 3), &["sign_in problem the server refused the sign-in", "[account.a]"]);
    fs::write(account.config().parent().unwrap().join("password"), "secret\n").unwrap();

    // A root that is gone, and one that others look into.
    let elsewhere = account.maildir().with_extension("away");
    fs::rename(account.maildir(), &elsewhere).unwrap();
    says(&check(&account, &["--offline"], 4), &["maildir problem ", "Is its disk mounted?"]);
    fs::rename(&elsewhere, account.maildir()).unwrap();
    fs::set_permissions(account.maildir(), fs::Permissions::from_mode(0o755)).unwrap();
    says(&check(&account, &["--offline"], 0), &["maildir note ", "chmod 700"]);

    // No server.
    drop(server);
    says(&check(&account, &[], 5), &["server problem cannot reach 127.0.0.1", "is this machine online"]);
    let Output { code, stderr, .. } = account.run(&["check", "b"]);
    assert_eq!(code, 2, "{stderr}");
}
