//! The configuration is at fault, or the way to the server, or the user's patience.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use postkeep_sim::{Fault, Profile, When};

use crate::account::{Account, Remote};
use crate::dovecot::{Dovecot, PASSWORD};
use crate::faults_scene::{Scene, below, mail, mail_here, says};

/// Changes a line of the configuration.
fn configure(account: &Account, from: &str, to: &str) {
    let config = fs::read_to_string(account.config()).unwrap();
    assert!(config.contains(from), "{from} is not in {config}");
    fs::write(account.config(), config.replace(from, to)).unwrap();
}

/// Bad input gets a clear error, and nothing is made or lost.
#[test]
fn a_wrong_configuration_is_told_with_its_place() {
    let rows = [
        ("tls = \"none\"", "tls = \"starttls\"", &["config.toml:7:", "tls", "implicit"][..]),
        ("tls = \"none\"", "tls = 7", &["config.toml:7:"]),
        ("host = \"127.0.0.1\"", "hots = \"127.0.0.1\"", &["config.toml:5:", "did you mean `host`"]),
        ("host = \"127.0.0.1\"", "host = \"mail.example.org\"", &["config.toml:7:", "tls", "loopback"]),
        ("auth = \"password\"", "auth = \"passwort\"", &["config.toml:10:", "password"]),
        ("[account.a]", "[account.a", &["config.toml:4:"]),
        ("email = ", "poll_interval = \"soon\"\nemail = ", &["config.toml:9:", "duration"]),
        ("email = ", "max_message_size = \"many\"\nemail = ", &["config.toml:9:", "size"]),
        ("email = ", "direction = \"up\"\nemail = ", &["config.toml:9:", "pull"]),
        ("password_file = ", "password_file = \"/nowhere/at/all\" #", &["/nowhere/at/all"]),
    ];
    for (from, to, texts) in rows {
        let scene = Scene::synced(Profile::Full, 2);
        scene.arrives(3);
        let before = scene.snapshot();
        let config = fs::read_to_string(scene.account.config()).unwrap();
        configure(&scene.account, from, to);
        let output = scene.sync();
        says(&output, 2, texts);
        assert_eq!(output.stdout, "", "{to}");
        assert!(scene.snapshot() == before, "{to}");
        assert_eq!(scene.server.take_commands(), vec![], "{to}");
        fs::write(scene.account.config(), config).unwrap();
        scene.assert_heals();
    }
}

#[test]
fn two_accounts_in_one_directory_are_refused() {
    let scene = Scene::synced(Profile::Full, 1);
    let config = fs::read_to_string(scene.account.config()).unwrap();
    let second = config.split_once("[account.a]").unwrap().1.to_owned();
    let root = scene.account.maildir();
    for maildir in [root.clone(), root.join("inner"), root.parent().unwrap().to_owned()] {
        let second = second.replace(&format!("maildir = {root:?}"), &format!("maildir = {maildir:?}"));
        fs::write(scene.account.config(), format!("{config}\n[account.b]{second}")).unwrap();
        says(&scene.sync(), 2, &["config.toml:", "maildir"]);
    }
    fs::write(scene.account.config(), config).unwrap();
    scene.assert_heals();
}

#[test]
fn a_wrong_password_asks_for_another() {
    let scene = Scene::synced(Profile::Full, 2);
    let before = scene.snapshot();
    let file = scene.account.config().with_file_name("password");
    fs::write(&file, "hunter2-wrong\n").unwrap();
    let output = scene.sync_says(3, &["refused the sign-in"]);
    assert!(!format!("{output:?}").contains("hunter2"), "{output:?}");
    let tries = scene.server.take_commands().iter().filter(|c| c.name == "AUTHENTICATE" || c.name == "LOGIN").count();
    assert_eq!(tries, 1, "a wrong password is not tried again: accounts are locked for less");
    assert!(scene.snapshot() == before);
    // Others can read it.
    fs::write(&file, "secret\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let output = scene.sync();
    assert!([2, 3].contains(&output.code), "{output:?}");
    says(&output, output.code, &["chmod 600"]);
    assert_eq!(scene.server.take_commands(), vec![]);
    // It is empty.
    fs::write(&file, "\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let output = scene.sync();
    assert!([2, 3].contains(&output.code), "{output:?}");
    assert_eq!(scene.server.take_commands(), vec![]);
    fs::write(&file, "secret\n").unwrap();
    scene.assert_heals();
}

#[test]
fn no_server_is_not_the_users_fault() {
    let mut scene = Scene::synced(Profile::Full, 2);
    let port = format!("port = {}", scene.server.port());
    let before = scene.snapshot();
    // Nobody listens.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    configure(&scene.account, &port, &format!("port = {free}"));
    scene.sync_says(5, &["cannot reach 127.0.0.1"]);
    says(
        &scene.account.run(&["status"]),
        5,
        &["all mailboxes complete", "the last pass failed", "cannot reach 127.0.0.1"],
    );
    let status = scene.account.run(&["status", "--json"]).stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let failure = &status["accounts"][0]["failure"];
    assert_eq!((&failure["exit_code"], failure["at"].is_null()), (&5.into(), false), "{status}");
    // Somebody else listens.
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let other_port = other.local_addr().unwrap().port();
    configure(&scene.account, &format!("port = {free}"), &format!("port = {other_port}"));
    for greeting in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"", b"\x16\x03\x01\x02\0", b"220 smtp.example.org ESMTP\r\n"] {
        let listener = other.try_clone().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, greeting).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut said = Vec::new();
            let _ = stream.read_to_end(&mut said);
            said
        });
        let output = scene.sync();
        assert!([1, 5].contains(&output.code), "{greeting:?}: {output:?}");
        let said = server.join().unwrap();
        assert!(!said.windows(6).any(|w| w == b"secret"), "{greeting:?}: the password was sent");
    }
    assert!(scene.snapshot() == before);
    configure(&scene.account, &format!("port = {other_port}"), &port);
    scene.assert_heals();
    assert!(!scene.account.run(&["status"]).stdout.contains("failed"));
    // It comes back.
    let state = scene.server.state().clone();
    scene.server = postkeep_sim::Server::spawn(Profile::Full).unwrap();
    *scene.server.state() = state;
    scene.sync_says(5, &["cannot reach"]);
    configure(&scene.account, &port, &format!("port = {}", scene.server.port()));
    scene.assert_heals();
}

#[test]
fn a_root_that_is_not_the_one_is_not_touched() {
    let scene = Scene::synced(Profile::Full, 5);
    let root = scene.account.maildir();
    let away = root.with_file_name("away");
    let marker = fs::read(root.join(".postkeep")).unwrap();
    let other = Scene::synced(Profile::Full, 1);
    let foreign = fs::read_to_string(other.account.maildir().join(".postkeep")).unwrap().replace("\"a\"", "\"b\"");
    let foreign = foreign.replace("account a", "account b");
    assert_ne!(foreign.as_bytes(), fs::read(other.account.maildir().join(".postkeep")).unwrap());
    scene.arrives(6);
    type Make = fn(&Path, &[u8], &str);
    let rows: [(&str, Make); 6] = [
        ("is not there", |_, _, _| ()),
        ("no marker", |root, _, _| fs::create_dir(root).unwrap()),
        ("marker", |root, _, _| {
            fs::create_dir(root).unwrap();
            fs::write(root.join(".postkeep"), "something else\n").unwrap();
        }),
        ("marker", |root, marker, _| {
            fs::create_dir(root).unwrap();
            fs::write(root.join(".postkeep"), &marker[..marker.len() / 2]).unwrap();
        }),
        ("belongs to account b", |root, _, foreign| {
            fs::create_dir(root).unwrap();
            fs::write(root.join(".postkeep"), foreign).unwrap();
        }),
        ("", |root, _, _| std::os::unix::fs::symlink("/nowhere", root).unwrap()),
    ];
    fs::rename(&root, &away).unwrap();
    let list = |dir: &Path| {
        let mut files = below(dir);
        files.sort();
        files
    };
    let mails = list(&away);
    for (text, make) in rows {
        make(&root, &marker, &foreign);
        let before = list(&root);
        let _ = scene.server.take_commands();
        scene.sync_says(4, &[text]);
        says(&scene.account.run(&["status"]), 4, &["the last pass failed", text]);
        scene.assert_told_nothing();
        assert_eq!(list(&root), before, "{text}");
        scene.assert_graves(0);
        if root.is_symlink() {
            fs::remove_file(&root).unwrap();
        } else if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
    }
    assert_eq!(list(&away), mails);
    fs::rename(&away, &root).unwrap();
    scene.assert_heals();
}

#[test]
fn a_maildir_that_lost_a_directory_waits() {
    let scene = Scene::synced(Profile::Full, 5);
    for place in ["cur", "new", "tmp"] {
        let dir = scene.account.maildir().join("INBOX").join(place);
        let away = scene.account.maildir().with_file_name(place);
        fs::rename(&dir, &away).unwrap();
        let _ = scene.server.take_commands();
        let output = scene.account.run(&["sync", "--full"]);
        assert!([1, 4].contains(&output.code), "{place}: {output:?}");
        says(&output, output.code, &["INBOX", place]);
        scene.assert_told_nothing();
        scene.assert_graves(0);
        fs::rename(&away, &dir).unwrap();
        scene.assert_heals();
    }
}

#[test]
fn a_download_that_is_stopped_goes_on_where_it_was() {
    let scene = Scene::new(Profile::Full);
    for n in 1..=600 {
        scene.arrives(n);
    }
    // The last ones never come.
    scene.server.inject("UID FETCH BODY.PEEK[]", When::Nth(2), Fault::Stall);
    let mut child = scene.account.command(&["sync"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let stalled = || scene.server.fired().contains(&"UID FETCH stall".to_owned());
    while child.try_wait().unwrap().is_none() && (!stalled() || scene.account.files("INBOX").is_empty()) {
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    scene.assert_fired("UID FETCH stall");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("stopped before the end"), "{text}");
    scene.assert_whole();
    let had = scene.account.files("INBOX").len();
    assert!(had > 0 && had < 600, "{had}");
    scene.server.calm();
    let _ = scene.server.take_commands();
    scene.assert_heals();
    let drafts = below(&scene.account.maildir().join("INBOX/tmp"));
    assert!(drafts.is_empty(), "{drafts:?}");
}

/// Passwords and mails are nobody's business but the user's and the server's.
#[test]
fn no_secret_is_said_or_kept() {
    const CANARY: &str = "canary-3f9c1b";
    let scene = Scene::new(Profile::Full);
    scene.server.state().users.insert("user".to_owned(), CANARY.to_owned());
    let file = scene.account.config().with_file_name("password");
    fs::write(&file, format!("{CANARY}\n")).unwrap();
    let body = b"Message-ID: <1@example.org>\r\nSubject: subject-canary\r\n\r\nbody-canary\r\n";
    scene.server.state().append("INBOX", body, &[], 1000);
    scene.account.deliver("INBOX", b"Subject: subject-canary\n\nbody-canary\n");
    let mut said = String::new();
    let mut run = |args: &[&str]| {
        let output = scene.account.run(args);
        said += &(output.stdout + &output.stderr);
        output.code
    };
    assert_eq!(run(&["sync", "--log", "trace"]), 0);
    // A server that does not let us in though the password is right.
    scene.server.inject("AUTHENTICATE", When::Nth(1), Fault::edit(|line| Some(line.replace(" OK", " NO"))));
    run(&["sync", "--full", "--log", "trace"]);
    scene.assert_fired("AUTHENTICATE edit");
    fs::write(&file, "wrong-canary-3f9c1b\n").unwrap();
    assert_eq!(run(&["sync", "--log", "trace"]), 3);
    fs::write(&file, format!("{CANARY}\n")).unwrap();
    run(&["status", "--json", "--log", "trace"]);
    run(&["log", "a", "--log", "trace"]);
    assert!(said.contains("TRACE"), "nothing was traced");
    for secret in [CANARY, "subject-canary", "body-canary", &base64(&format!("\0user\0{CANARY}"))] {
        assert!(!said.contains(secret), "{secret} was said: {}", said.lines().find(|l| l.contains(secret)).unwrap());
    }
    for path in below(&scene.account.state_dir()) {
        let bytes = fs::read(&path).unwrap();
        for secret in [CANARY, "body-canary"] {
            let kept = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!kept, "{secret} is in {}", path.display());
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }
    for path in below(&scene.account.maildir()) {
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes()), "{}", path.display());
        // What others deliver has the mode that they gave it.
        if path.extension().is_some_and(|e| e == "test") {
            continue;
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Certificates that openssl made, in a directory.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        this.openssl(&format!("req -x509 {KEY} -keyout ca.key -out ca.pem -days 30 -subj /CN=authority"));
        for (name, host, days) in
            [("good", "IP:127.0.0.1", "30"), ("host", "DNS:mail.example.org", "30"), ("old", "IP:127.0.0.1", "-1")]
        {
            fs::write(this.path("extensions"), format!("subjectAltName={host}\nbasicConstraints=CA:FALSE\n")).unwrap();
            this.openssl(&format!("req {KEY} -keyout {name}.key -out {name}.csr -subj /CN=127.0.0.1"));
            this.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile extensions -out {name}.pem"
            ));
        }
        this.openssl(&format!(
            "req -x509 {KEY} -keyout self.key -out self.pem -days 30 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
        ));
        this.openssl(&format!("req -x509 {KEY} -keyout other.key -out other.pem -days 30 -subj /CN=other"));
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, args: &str) {
        let output = Command::new("openssl").args(args.split(' ')).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A server that shakes hands and prints what it is told.
struct Handshaker {
    child: Child,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Handshaker {
    fn start(certificates: &Certificates, name: &str, more: &[&str]) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1"]);
        command.arg("-cert").arg(certificates.path(&format!("{name}.pem")));
        command.arg("-key").arg(certificates.path(&format!("{name}.key"))).args(more);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let port = loop {
            let mut line = String::new();
            assert!(output.read_line(&mut line).unwrap() > 0, "openssl s_server ended");
            if let Some(address) = line.trim().strip_prefix("ACCEPT ") {
                break address.rsplit(':').next().unwrap().parse().unwrap();
            }
        };
        Self { child, output, port }
    }

    /// Returns everything that was printed.
    fn end(mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut said = Vec::new();
        self.output.read_to_end(&mut said).unwrap();
        String::from_utf8_lossy(&said).into_owned()
    }
}

#[test]
fn a_server_that_cannot_be_trusted_is_told_nothing() {
    let certificates = Certificates::new();
    let rows: [(&str, &str, &[&str]); 6] = [
        ("host", "ca.pem", &[]),
        ("old", "ca.pem", &[]),
        ("self", "", &[]),
        ("self", "ca.pem", &[]),
        ("good", "other.pem", &[]),
        ("good", "ca.pem", &["-tls1_1"]),
    ];
    for (name, ca, more) in rows {
        let server = Handshaker::start(&certificates, name, more);
        let account = Account::new(server.port, "user", "canary-secret", "");
        let ca = if ca.is_empty() { String::new() } else { format!("\ntls_ca_file = {:?}", certificates.path(ca)) };
        configure(&account, "tls = \"none\"", &format!("tls = \"implicit\"{ca}"));
        let output = account.run(&["sync"]);
        let said = server.end();
        assert_eq!(output.code, 5, "{name}: {output:?}");
        assert!(output.stdout.contains("cannot trust") || output.stdout.contains("cannot reach"), "{name}: {output:?}");
        for secret in ["canary-secret", "AUTHENTICATE", "LOGIN", "user"] {
            assert!(!said.contains(secret), "{name}: {said}");
        }
        assert!(below(&account.maildir()).iter().all(|p| p.ends_with(".postkeep")), "{name}: something was made");
    }
}

#[test]
fn a_server_that_can_be_trusted_is() {
    let dovecot = Dovecot::start(crate::dovecot::Profile::Full);
    dovecot.login("u").append("INBOX", "", "01-Jan-2024 00:00:00 +0000", &mail(1));
    let account = Account::new(dovecot.tls_port(), "u", PASSWORD, "");
    configure(&account, "tls = \"none\"", &format!("tls = \"implicit\"\ntls_ca_file = {:?}", dovecot.ca_file()));
    says(&account.run(&["sync"]), 0, &["1 downloaded"]);
    account.assert_equal(Remote::Dovecot { server: &dovecot, user: "u", separator: '/', prefix: "" });
    assert_eq!(fs::read(&account.files("INBOX")[0]).unwrap(), mail_here(1));
    // The right authority, and the wrong key.
    let config = fs::read_to_string(account.config()).unwrap();
    configure(
        &account,
        "tls_ca_file",
        "tls_pin = [\"sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"]\ntls_ca_file",
    );
    says(&account.run(&["sync"]), 5, &["cannot trust"]);
    fs::write(account.config(), config).unwrap();
    says(&account.run(&["sync"]), 0, &[]);
}

/// Passes on what a server says, up to so many bytes a connection, and then ends it: without a word of TLS about that.
fn relay(to: u16, bytes: Arc<AtomicU64>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, server) = (client.unwrap(), TcpStream::connect((Ipv4Addr::LOCALHOST, to)).unwrap());
            let (mut from, mut up) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let said = server.try_clone().unwrap();
            let left = bytes.load(Ordering::Relaxed);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut up);
                let _ = up.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut said.take(left), &mut client);
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

/// A TLS connection that ends without close_notify may have been cut by anybody: what was read is no listing.
#[test]
fn t03_tls_may_end_without_a_word_at_any_byte() {
    let dovecot = Dovecot::start(crate::dovecot::Profile::Full);
    (1..=5).for_each(|n| dovecot.login("u").append("INBOX", "", "01-Jan-2024 00:00:00 +0000", &mail(n)));
    let bytes = Arc::new(AtomicU64::new(u64::MAX));
    let account = Account::new(relay(dovecot.tls_port(), Arc::clone(&bytes)), "u", PASSWORD, "");
    configure(&account, "tls = \"none\"", &format!("tls = \"implicit\"\ntls_ca_file = {:?}", dovecot.ca_file()));
    says(&account.run(&["sync"]), 0, &["5 downloaded"]);
    let remote = Remote::Dovecot { server: &dovecot, user: "u", separator: '/', prefix: "" };
    let before = account.snapshot(remote);
    let mut cuts = 0;
    for left in (500..).step_by(331) {
        bytes.store(left, Ordering::Relaxed);
        let output = account.run(&["sync", "--full"]);
        assert!([0, 1, 5].contains(&output.code), "{left}: {output:?}");
        assert!(account.snapshot(remote) == before, "{left}: {output:?}");
        if output.code == 0 {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 6, "{cuts} cuts only");
    bytes.store(u64::MAX, Ordering::Relaxed);
    says(&account.run(&["sync", "--full"]), 0, &["in sync"]);
}
