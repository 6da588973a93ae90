//! The session against a real Dovecot: what it does must be seen by a second session, and the incremental observation
//! must equal the full one.

use std::io::Cursor as Bytes;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use postkeep::imap::{
    Body, Connect, Credentials, Error, Fetched, IdleEnd, Listing, Observation, Outgoing, Quirks, RawName, Role,
    Session, Tls,
};
use postkeep::model::{Cursor, Digest, Flag, FlagChange, Flags, Keyword, MailboxName, Secret, Uid, UidSet};
use sha2::Digest as _;

/// A private Dovecot with a store and a certificate of its own.
struct Dovecot {
    dir: tempfile::TempDir,
    child: Child,
    port: u16,
    tls_port: u16,
}

const CONF: &str = r#"
base_dir = @DIR@/run
state_dir = @DIR@/state
log_path = @DIR@/log
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <@DIR@/cert.pem
ssl_key = <@DIR@/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
first_valid_uid = 1
mail_location = maildir:~/mail:LAYOUT=fs
mail_fsync = never
@OWNER@
passdb {
  driver = static
  args = password=bench
}
userdb {
  driver = static
  args = uid=@UID@ gid=@GID@ home=@DIR@/users/%u
}
namespace inbox {
  inbox = yes
  separator = @SEPARATOR@
  prefix = @PREFIX@
  mailbox Trash {
    special_use = \Trash
    auto = create
  }
}
service imap-login {
  inet_listener imap {
    port = @PORT@
  }
  inet_listener imaps {
    port = @TLSPORT@
    ssl = yes
  }
  @CHROOT@
}
service anvil {
  @CHROOT@
}
service stats {
  @CHROOT@
  unix_listener stats-writer {
    mode = 0666
  }
}
@CAPABILITY@
"#;

impl Dovecot {
    /// Starts one that announces these capabilities, or all it has.
    fn start(capabilities: &str, separator: &str, prefix: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("pk").tempdir().unwrap();
        let path = dir.path();
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-keyout",
                "key.pem",
                "-out",
                "cert.pem",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
            ],
            path,
        );
        let root = rustix::process::geteuid().is_root();
        let (uid, gid) = if root {
            owner("mail")
        } else {
            (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
        };
        let user = std::env::var("USER").unwrap_or_default();
        let own =
            format!("default_internal_user = {user}\ndefault_login_user = {user}\ndefault_internal_group = {gid}");
        for sub in ["run", "state", "users"] {
            std::fs::create_dir(path.join(sub)).unwrap();
        }
        set_open(path);
        std::os::unix::fs::chown(path.join("users"), Some(uid), Some(gid)).unwrap();
        // The ports are free now; should another process be faster, Dovecot ends at once and others are taken.
        for _ in 0..5 {
            let (port, tls_port) = (free_port(), free_port());
            let conf = [
                ("@DIR@", path.to_str().unwrap()),
                ("@PORT@", &port.to_string()),
                ("@TLSPORT@", &tls_port.to_string()),
                ("@UID@", &uid.to_string()),
                ("@GID@", &gid.to_string()),
                ("@SEPARATOR@", separator),
                ("@PREFIX@", prefix),
                ("@OWNER@", if root { "" } else { &own }),
                ("@CHROOT@", if root { "" } else { "chroot =" }),
                (
                    "@CAPABILITY@",
                    &if capabilities.is_empty() { String::new() } else { format!("imap_capability = {capabilities}") },
                ),
            ]
            .iter()
            .fold(CONF.to_owned(), |conf, (key, value)| conf.replace(key, value));
            std::fs::write(path.join("conf"), conf).unwrap();
            let mut child = Command::new(tool("dovecot"))
                .args(["-F", "-c"])
                .arg(path.join("conf"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            loop {
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { dir, child, port, tls_port };
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::yield_now();
            }
        }
        panic!("Dovecot did not start: {}", std::fs::read_to_string(path.join("log")).unwrap_or_default());
    }

    fn connect(&self) -> Connect {
        Connect {
            host: "127.0.0.1".into(),
            port: self.port,
            tls: Tls::None,
            spool_dir: self.dir.path().to_owned(),
            max_literal: 256 << 20,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(30),
            quirks: Quirks::default(),
        }
    }

    async fn session(&self) -> Session {
        Session::open(&self.connect(), &credentials()).await.unwrap()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let _ =
            rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn credentials() -> Credentials {
    Credentials::Password { username: "user".into(), password: Secret::new("bench".into()) }
}

fn tool(name: &str) -> String {
    let dirs = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    dirs.iter().map(|d| format!("{d}/{name}")).find(|p| Path::new(p).exists()).unwrap_or_else(|| name.to_owned())
}

fn run(name: &str, args: &[&str], dir: &Path) {
    let output = Command::new(tool(name)).args(args).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

fn owner(user: &str) -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|l| l.starts_with(&format!("{user}:"))).unwrap();
    let fields: Vec<&str> = line.split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

fn set_open(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn outgoing(body: &[u8], flags: Flags) -> Outgoing {
    Outgoing {
        flags,
        internal_date: 1_700_000_000,
        length: body.len() as u64,
        content: Box::new(Bytes::new(body.to_vec())),
    }
}

fn mail(n: usize) -> Vec<u8> {
    format!("Subject: {n}\r\nMessage-ID: <{n}@example.org>\r\n\r\nbody {n}\r\n").into_bytes()
}

fn flags(flags: &[Flag], words: &[&str]) -> Flags {
    let mut set: Flags = flags.iter().copied().collect();
    words.iter().for_each(|w| set.insert_keyword(Keyword::new(w).unwrap()));
    set
}

fn set(uids: &[Uid]) -> UidSet {
    uids.iter().copied().collect()
}

async fn bodies(session: &mut Session, uids: &UidSet) -> Vec<Fetched> {
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let (result, got) = tokio::join!(session.bodies(uids, send), async {
        let mut got = Vec::new();
        while let Some(fetched) = receive.recv().await {
            got.push(fetched);
        }
        got
    });
    result.unwrap();
    got
}

/// Applies an observation to what was known, and compares the outcome with a full listing by another session.
async fn equals_full(dovecot: &Dovecot, known: &Observation, delta: &Observation) {
    let mut merged = known.messages.clone();
    match &delta.listing {
        Listing::Full => merged.clear(),
        Listing::Delta { vanished } => merged.retain(|uid, _| !vanished.contains(*uid)),
        Listing::Changed { uids } => merged.retain(|uid, _| uids.contains(*uid)),
    }
    merged.extend(delta.messages.clone());
    let full = dovecot.session().await.observe(&known.selected.raw, None, true).await.unwrap();
    assert_eq!((&full.listing, u64::from(full.exists)), (&Listing::Full, full.messages.len() as u64));
    let said = |o: &std::collections::BTreeMap<Uid, postkeep::model::RemoteMessage>| {
        o.iter().map(|(uid, m)| (*uid, m.flags.clone())).collect::<Vec<_>>()
    };
    assert_eq!(said(&merged), said(&full.messages));
    assert_eq!(delta.exists, full.exists);
}

/// Everything that changes a mailbox, then the comparison.
async fn life(dovecot: &Dovecot, quirks: Quirks) -> Listing {
    let connect = Connect { quirks, ..dovecot.connect() };
    let mut s = Session::open(&connect, &credentials()).await.unwrap();
    let name = MailboxName::from("Entwürfe & \"Co\" \\ 100%");
    let raw = s.raw_name(&name).unwrap();
    s.create(&raw).await.unwrap();
    s.create(&raw).await.unwrap();
    s.select(&raw).await.unwrap();

    let mut batch: Vec<Outgoing> = (0..20).map(|n| outgoing(&mail(n), flags(&[Flag::Seen], &["Work"]))).collect();
    batch.push(outgoing(b"\r\nonly a body, 8 bit: \xff", Flags::new()));
    let uids: Vec<Uid> = s.append(&raw, batch).await.unwrap().into_iter().map(Option::unwrap).collect();
    assert_eq!(uids.len(), 21);
    let known = s.observe(&raw, None, false).await.unwrap();
    assert_eq!(known.messages.len(), 21);
    assert_eq!(known.messages[&uids[0]].flags, flags(&[Flag::Seen], &["Work"]));
    let unchanged = s.observe(&raw, Some(&known.cursor), false).await.unwrap();
    equals_full(dovecot, &known, &unchanged).await;

    let got = bodies(&mut s, &set(&uids)).await;
    assert_eq!(got.len(), 21);
    for (n, fetched) in got.iter().enumerate().take(20) {
        assert!(matches!(&fetched.body, Body::Memory(bytes) if *bytes == mail(n)), "{fetched:?}");
        assert_eq!(fetched.internal_date, 1_700_000_000);
    }
    let prints = s.fingerprints(&set(&uids)).await.unwrap();
    let header = b"Subject: 3\r\nMessage-ID: <3@example.org>";
    assert_eq!(prints[3].fingerprint.header, Digest(sha2::Sha256::digest(header).into()));
    assert_eq!(prints[3].fingerprint.size, mail(3).len() as u64);
    assert_eq!(s.sizes(&set(&uids)).await.unwrap()[&uids[3]], mail(3).len() as u64);

    let change =
        FlagChange { add: flags(&[Flag::Flagged, Flag::Forwarded], &["New"]), remove: flags(&[Flag::Seen], &[]) };
    let since = known.cursor.highest_mod_seq;
    assert!(s.store(&set(&uids[..3]), &change, since).await.unwrap().is_empty());
    let after = s.flags(&set(&uids[..4])).await.unwrap();
    assert_eq!(after[&uids[1]].flags, flags(&[Flag::Flagged, Flag::Forwarded], &["New", "Work"]));
    assert_eq!(after[&uids[3]].flags, flags(&[Flag::Seen], &["Work"]));
    if since.is_some() {
        let again = FlagChange { add: flags(&[Flag::Draft], &[]), ..FlagChange::default() };
        let modified = s.store(&set(&uids[..4]), &again, since).await.unwrap();
        assert_eq!(modified, set(&uids[..3]));
    }

    let trash = RawName::new(b"Trash");
    let moved = s.move_to(&set(&uids[5..8]), &trash).await.unwrap();
    assert_eq!(moved.iter().map(|(here, _)| *here).collect::<Vec<_>>(), &uids[5..8]);
    assert!(s.move_to(&set(&uids[5..6]), &trash).await.unwrap().is_empty());
    let bystander = FlagChange { add: flags(&[Flag::Deleted], &[]), ..FlagChange::default() };
    s.store(&set(&uids[9..10]), &bystander, None).await.unwrap();
    s.expunge(&set(&uids[10..12])).await.unwrap();
    assert_eq!(s.present(&set(&uids[5..13])).await.unwrap(), set(&[uids[8], uids[9], uids[12]]));
    assert_eq!(s.selected().unwrap().exists, 16);

    // Another client is at work too.
    let mut other = dovecot.session().await;
    other.select(&raw).await.unwrap();
    let late = other.append(&raw, vec![outgoing(&mail(99), Flags::new())]).await.unwrap();
    other.expunge(&set(&uids[15..17])).await.unwrap();
    other.store(&set(&uids[13..14]), &change, None).await.unwrap();

    let delta = s.observe(&raw, Some(&known.cursor), false).await.unwrap();
    assert!(delta.messages.contains_key(&late[0].unwrap()));
    equals_full(dovecot, &known, &delta).await;
    let lies = Cursor { uid_next: Uid::MAX, ..known.cursor };
    assert_eq!(s.observe(&raw, Some(&lies), false).await.unwrap().listing, Listing::Full);
    delta.listing
}

const NO_QRESYNC: &str = "IMAP4rev1 LITERAL- ENABLE ID IDLE CONDSTORE ESEARCH UIDPLUS MOVE UNSELECT NAMESPACE";
const OUTLOOK: &str =
    "IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+";

#[tokio::test]
async fn a_life_with_qresync() {
    let dovecot = Dovecot::start("", "/", "");
    assert!(matches!(life(&dovecot, Quirks::default()).await, Listing::Delta { .. }));
}

#[tokio::test]
async fn a_life_with_condstore() {
    let dovecot = Dovecot::start(NO_QRESYNC, "/", "");
    assert!(matches!(life(&dovecot, Quirks::default()).await, Listing::Changed { .. }));
}

#[tokio::test]
async fn a_life_with_neither() {
    let dovecot = Dovecot::start(OUTLOOK, "/", "");
    assert_eq!(life(&dovecot, Quirks::outlook()).await, Listing::Full);
}

#[tokio::test]
async fn a_life_without_move_and_literals() {
    let dovecot = Dovecot::start("IMAP4rev1 UIDPLUS ID", "/", "");
    assert_eq!(life(&dovecot, Quirks::default()).await, Listing::Full);
}

#[tokio::test]
async fn mailboxes_with_odd_names_are_listed() {
    let dovecot = Dovecot::start("", ".", "INBOX.");
    let mut s = dovecot.session().await;
    let names = ["Lists/rust", "日本語/Entwürfe", "quote\"d", "back\\slash", " spaces ", "100% *", "&", "x~"];
    for name in names {
        let raw = s.raw_name(&MailboxName::from(name)).unwrap();
        s.create(&raw).await.unwrap();
        s.append(&raw, vec![outgoing(&mail(1), Flags::new())]).await.unwrap();
    }
    assert!(matches!(s.raw_name(&MailboxName::from("a.b")), Err(Error::Name { .. })));
    let slash = s.raw_name(&MailboxName::from("a%2Fb")).unwrap();
    assert!(matches!(s.create(&slash).await, Err(Error::Refused { code, .. }) if code == "CANNOT"));
    let lists = s.list().await.unwrap();
    assert_eq!(lists.unusable, []);
    for name in names {
        let listed =
            lists.mailboxes.iter().find(|l| l.name == MailboxName::from(name)).unwrap_or_else(|| panic!("{name}"));
        let status = listed.status.as_ref().unwrap().as_ref().unwrap();
        assert_eq!((status.messages, status.unseen), (1, Some(1)), "{name}");
        let selected = s.select(&listed.raw).await.unwrap();
        assert_eq!(status.cursor().unwrap().uid_validity, selected.uid_validity);
    }
    let role = |role| lists.mailboxes.iter().find(|l| l.role == Some(role)).map(|l| l.name.as_str());
    assert_eq!((role(Role::Trash), role(Role::Inbox)), (Some("Trash"), Some("INBOX")));
    let renamed = s.raw_name(&MailboxName::from("renamed")).unwrap();
    s.rename(&s.raw_name(&MailboxName::from("quote\"d")).unwrap(), &renamed).await.unwrap();
    assert_eq!(s.select(&renamed).await.unwrap().exists, 1);
    let missing = s.select(&RawName::new(b"INBOX.missing")).await.unwrap_err();
    // Dovecot 2.3 gives no response code for it.
    assert!(matches!(&missing, Error::Refused { command: "SELECT", .. }), "{missing:?}");
    assert!(s.selected().is_none());
    s.logout().await.unwrap();
}

#[tokio::test]
async fn tls_checks_the_certificate_and_the_pin() {
    let dovecot = Dovecot::start("", "/", "");
    let ca_file = Some(dovecot.dir.path().join("cert.pem"));
    let connect = |host: &str, ca_file, pins| Connect {
        host: host.into(),
        port: dovecot.tls_port,
        tls: Tls::Implicit { ca_file, pins },
        ..dovecot.connect()
    };
    let shell = "openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform der | sha256sum";
    let output = Command::new("sh").args(["-c", shell]).current_dir(dovecot.dir.path()).output().unwrap();
    let hex = String::from_utf8(output.stdout).unwrap();
    let mut pin = [0; 32];
    (0..32).for_each(|i| pin[i] = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap());

    let mut s = Session::open(&connect("localhost", ca_file.clone(), vec![Digest(pin)]), &credentials()).await.unwrap();
    s.noop().await.unwrap();
    assert!(s.received() > 0 && s.sent() > 0);
    // An unknown CA, another key, another host.
    for bad in [
        connect("localhost", None, vec![]),
        connect("localhost", ca_file.clone(), vec![Digest([1; 32])]),
        connect("127.0.0.1", ca_file, vec![]),
    ] {
        let error = Session::open(&bad, &credentials()).await.unwrap_err();
        assert!(matches!(&error, Error::Certificate { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_a_refused_sign_in() {
    let dovecot = Dovecot::start("", "/", "");
    let wrong = Credentials::Password { username: "user".into(), password: Secret::new("\"\\wrong\u{e9}".into()) };
    let error = Session::open(&dovecot.connect(), &wrong).await.unwrap_err();
    assert!(matches!(error, Error::SignIn { .. }), "{error}");
}

#[tokio::test]
async fn idle_ends_when_something_changes_or_is_asked_to() {
    let dovecot = Dovecot::start("", "/", "");
    let (mut s, mut other) = (dovecot.session().await, dovecot.session().await);
    let inbox = RawName::new(b"INBOX");
    s.select(&inbox).await.unwrap();
    let minute = Duration::from_secs(60);
    assert_eq!(s.idle(async {}, minute).await.unwrap(), IdleEnd::Stopped);
    assert_eq!(s.idle(std::future::pending(), Duration::from_millis(1)).await.unwrap(), IdleEnd::TimeUp);
    let (end, _) = tokio::join!(s.idle(std::future::pending(), minute), async {
        other.append(&inbox, vec![outgoing(&mail(1), Flags::new())]).await.unwrap()
    });
    assert_eq!(end.unwrap(), IdleEnd::Changed);
    assert_eq!(s.selected().unwrap().exists, 1);
    s.noop().await.unwrap();
}

#[tokio::test]
async fn a_large_message_goes_both_ways_through_files() {
    let dovecot = Dovecot::start("", "/", "");
    let mut s = dovecot.session().await;
    let inbox = RawName::new(b"INBOX");
    s.select(&inbox).await.unwrap();
    let mut large = mail(1);
    (0..400_000).for_each(|n| large.extend_from_slice(format!("line {n}\r\n").as_bytes()));
    let uid = s.append(&inbox, vec![outgoing(&large, Flags::new())]).await.unwrap()[0].unwrap();
    let before = s.received();
    match bodies(&mut s, &set(&[uid])).await.as_mut_slice() {
        [Fetched { body: Body::File(file, length), .. }] => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(file, &mut bytes).unwrap();
            assert!(*length == large.len() as u64 && bytes == large);
        }
        other => panic!("{other:?}"),
    }
    assert!(s.received() - before > large.len() as u64);

    let small = Connect { max_literal: 1 << 20, ..dovecot.connect() };
    let mut s = Session::open(&small, &credentials()).await.unwrap();
    s.select(&inbox).await.unwrap();
    assert!(s.sizes(&set(&[uid])).await.unwrap()[&uid] > small.max_literal);
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let error = s.bodies(&set(&[uid]), send).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { uid: Some(u), .. } if u == uid), "{error}");
    assert!(receive.recv().await.is_none());
    assert!(matches!(s.noop().await, Err(Error::Closed { .. })));
}
