//! The ways around a sign-in: the browser that is opened, encryption with an authority of one's own, another name of the
//! server, and a daemon that runs meanwhile.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use postkeep::imap::{Session, Tls};
use postkeep_sim::{Ca, OAuth, Options, Profile, Server};

use crate::account::{Account, Remote};
use crate::faults_scene::{DATE, mail};
use crate::oauth::visit;
use crate::outlook;
use crate::outlook_account::{login, not_signed_in, signed_in};

/// Writes a program of that name into a directory that can be put first on the PATH.
fn program(account: &Account, name: &str, script: &str) -> String {
    let dir = account.config().parent().unwrap().join("bin");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", dir.display(), std::env::var("PATH").unwrap())
}

#[test]
fn a_browser_is_opened_where_there_is_a_screen() {
    let server = Server::spawn(Profile::Exo2026).unwrap();
    let (account, oauth) = not_signed_in(&server);
    let (opened, path) = {
        let pipe = account.config().parent().unwrap().join("opened");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let script = format!("printf '%s\\n' \"$#\" \"$1\" > {}", pipe.display());
        let path = program(&account, "xdg-open", &script);
        (pipe, path)
    };
    let mut login = account.command(&["login", "a"]);
    login.env("PATH", path).env("DISPLAY", ":0").env_remove("WAYLAND_DISPLAY");
    let child = login.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Waits for the browser.
    let told = fs::read_to_string(opened).unwrap();
    let (count, address) = told.trim_end().split_once('\n').unwrap();
    assert_eq!(count, "1");
    assert!(address.starts_with(&oauth.endpoint("consumers", "authorize")), "{address}");
    visit(address);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("Your browser opens a page to sign in."), "{said}");
    assert!(said.contains(address) && said.contains("Signed in to a as user@example.com"), "{said}");
}

#[test]
fn a_sign_in_over_https_trusts_the_authority_that_is_named_and_no_other() {
    let ca = Ca::new().unwrap();
    let server = Server::spawn(Options::from(Profile::Exo2026).tls(&ca)).unwrap();
    server.state().append("INBOX", &mail(1), &[], DATE);
    let (account, plain) = not_signed_in(&server);
    let oauth = OAuth::spawn(&server, Some(&ca)).unwrap();
    let file = ca.write_to(account.config().parent().unwrap()).unwrap();
    let config = fs::read_to_string(account.config()).unwrap().replace(&plain.authority(), &oauth.authority());
    let config = config.replace("\"127.0.0.1\"", "\"localhost\"").replace("tls = \"none\"\n", "");
    fs::write(account.config(), &config).unwrap();
    let sign_in = || {
        let mut login = account.command(&["login", "a", "--device"]);
        let mut child = login.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        if lines.any(|line| line.contains("Ctrl-C")) {
            oauth.directory().decide(postkeep_sim::oauth::DeviceState::Approved);
        }
        lines.for_each(drop);
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
    };
    oauth.directory().interval = 1;
    let (code, said) = sign_in();
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("no TLS connection that can be trusted"), "{said}");
    assert_eq!(oauth.requests().len(), 0);

    let trusting = config.replace("email =", &format!("tls_ca_file = {:?}\nemail =", file.display().to_string()));
    fs::write(account.config(), trusting).unwrap();
    let (code, said) = sign_in();
    assert_eq!(code, 0, "{said}");
    let output = account.run(&["sync"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(account.files("INBOX").len(), 1);
    assert_eq!((oauth.violations(), plain.requests().len()), (vec![], 0));
}

#[tokio::test]
async fn the_other_name_of_the_service_is_tried_where_the_first_leads_nowhere() {
    let ca = Ca::new().unwrap();
    let server = outlook::server(Options::from(Profile::Exo2026).tls(&ca));
    let dir = tempfile::tempdir().unwrap();
    let mut connect = outlook::connect(&server);
    connect.tls = Tls::Implicit { ca_file: Some(ca.write_to(dir.path()).unwrap()), pins: vec![] };
    // An address of this machine where nobody listens, and the name that the certificate is for.
    (connect.host, connect.other_hosts) = ("127.0.0.77".into(), vec!["localhost".into()]);
    let session = Session::open(&connect, &outlook::token()).await.unwrap();
    let way = session.way().unwrap();
    assert_eq!(way.host, "localhost");
    assert!(way.certificate_until.is_some_and(|until| until > 1_800_000_000), "{way:?}");
    session.logout().await.unwrap();
    // One whose certificate is wrong is not passed over: somebody may be in between.
    (connect.host, connect.other_hosts) = ("127.0.0.1".into(), vec!["localhost".into()]);
    connect.tls = Tls::Implicit { ca_file: None, pins: vec![] };
    let error = Session::open(&connect, &outlook::token()).await.unwrap_err();
    assert!(matches!(&error, postkeep::imap::Error::Certificate { host, .. } if host == "127.0.0.1"), "{error}");
}

#[test]
fn a_daemon_goes_on_with_a_sign_in_that_was_made_meanwhile() {
    let server = Server::spawn(Profile::Exo2026).unwrap();
    let (account, oauth) = signed_in(&server);
    server.state().append("INBOX", &mail(1), &[], DATE);
    // The sign-in is taken away before the daemon starts.
    oauth.directory().revoke();
    let mut daemon = account.command(&["run"]).stderr(Stdio::null()).spawn().unwrap();
    let sync = || account.run(&["sync", "a"]);
    let socket = account.config().parent().unwrap().join("postkeep/control.sock");
    while !socket.exists() {
        assert!(daemon.try_wait().unwrap().is_none(), "the daemon ended");
        std::thread::yield_now();
    }
    let output = sync();
    assert_eq!(output.code, 3, "{output:?}");
    login(&account, &oauth);
    // A refusal stands for some seconds, so that several connections do not ask one after the other.
    while account.differs(Remote::Sim(&server)) {
        let output = sync();
        assert!([0, 3].contains(&output.code), "{output:?}");
        if output.code == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(account.files("INBOX").len(), 1);
    assert!(daemon.try_wait().unwrap().is_none(), "the daemon was restarted");
    // What is kept is the newest, and only the daemon renewed it.
    let kept: serde_json::Value =
        serde_json::from_slice(&fs::read(account.state_dir().join("a.token")).unwrap()).unwrap();
    let newest = oauth.directory().refresh_tokens.last().unwrap().0.clone();
    assert_eq!(kept["refresh_token"], newest);
    assert!(!account.state_dir().join("a.token-new").exists());
    assert_eq!(oauth.violations(), Vec::<String>::new());
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
}
