//! The session against a real Dovecot: what it does must be seen by a second session, and the incremental observation
//! must equal the full one.

use std::io::Cursor as Bytes;
use std::process::Command;
use std::time::Duration;

use postkeep::imap::{
    Body, Connect, Credentials, Error, Fetched, IdleEnd, Listing, Observation, Outgoing, Quirks, RawName, Role, Route,
    Session, Stir, Tls,
};
use postkeep::model::{Cursor, Digest, Flag, FlagChange, Flags, Keyword, MailboxName, Secret, Uid, UidSet};
use sha2::Digest as _;

use crate::dovecot::{Dovecot, Options, PASSWORD, Profile};

const USER: &str = "user";

fn connect(dovecot: &Dovecot) -> Connect {
    Connect {
        host: "127.0.0.1".into(),
        other_hosts: vec![],
        port: dovecot.port(),
        tls: Tls::None,
        spool_dir: std::env::temp_dir(),
        max_literal: 256 << 20,
        timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(30),
        quirks: Quirks::default(),
        route: Route::default(),
    }
}

fn credentials() -> Credentials {
    Credentials::Password { username: USER.into(), password: Secret::new(PASSWORD.into()) }
}

async fn session(dovecot: &Dovecot) -> Session {
    Session::open(&connect(dovecot), &credentials()).await.unwrap()
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
    let full = session(dovecot).await.observe(&known.selected.raw, None, true).await.unwrap();
    assert_eq!((&full.listing, u64::from(full.exists)), (&Listing::Full, full.messages.len() as u64));
    let said = |o: &std::collections::BTreeMap<Uid, postkeep::model::RemoteMessage>| {
        o.iter().map(|(uid, m)| (*uid, m.flags.clone())).collect::<Vec<_>>()
    };
    assert_eq!(said(&merged), said(&full.messages));
    assert_eq!(delta.exists, full.exists);
}

/// Everything that changes a mailbox, then the comparison.
async fn life(dovecot: &Dovecot, quirks: Quirks) -> Listing {
    let connect = Connect { quirks, ..connect(dovecot) };
    let mut s = Session::open(&connect, &credentials()).await.unwrap();
    let name = MailboxName::from("Entwürfe & \"Co\" \\ 100%");
    let raw = s.raw_name(&name).unwrap();
    s.create(&raw).await.unwrap();
    s.create(&raw).await.unwrap();
    s.select(&raw).await.unwrap();

    let mut batch: Vec<Outgoing> = (0..20).map(|n| outgoing(&mail(n), flags(&[Flag::Seen], &["Work"]))).collect();
    batch.push(outgoing(b"\r\nonly a body, 8 bit: \xff", Flags::new()));
    let uids: Vec<Uid> = s.append(&raw, batch).await.unwrap().into_iter().map(|a| a.unwrap().unwrap()).collect();
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
    assert_eq!(s.fingerprints_from(uids[3]).await.unwrap(), prints[3..]);
    assert_eq!(s.fingerprints_from(Uid::MAX).await.unwrap(), []);
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
    let missing = s.move_to(&set(&uids[5..8]), &trash).await.unwrap_err();
    assert!(matches!(&missing, Error::Refused { code, .. } if code == "TRYCREATE"), "{missing}");
    s.create(&trash).await.unwrap();
    let moved = s.move_to(&set(&uids[5..8]), &trash).await.unwrap().pairs;
    assert_eq!(moved.iter().map(|(here, _)| *here).collect::<Vec<_>>(), &uids[5..8]);
    assert_eq!(s.move_to(&set(&uids[5..6]), &trash).await.unwrap().pairs, []);
    let bystander = FlagChange { add: flags(&[Flag::Deleted], &[]), ..FlagChange::default() };
    s.store(&set(&uids[9..10]), &bystander, None).await.unwrap();
    s.expunge(&set(&uids[10..12])).await.unwrap();
    assert_eq!(s.present(&set(&uids[5..13])).await.unwrap(), set(&[uids[8], uids[9], uids[12]]));
    assert_eq!(s.selected().unwrap().exists, 16);

    // Another client is at work too.
    let mut other = session(dovecot).await;
    other.select(&raw).await.unwrap();
    let late = other.append(&raw, vec![outgoing(&mail(99), Flags::new())]).await.unwrap();
    other.expunge(&set(&uids[15..17])).await.unwrap();
    other.store(&set(&uids[13..14]), &change, None).await.unwrap();

    let delta = s.observe(&raw, Some(&known.cursor), false).await.unwrap();
    assert!(delta.messages.contains_key(&late[0].as_ref().unwrap().unwrap()));
    equals_full(dovecot, &known, &delta).await;
    let lies = Cursor { uid_next: Uid::MAX, ..known.cursor };
    assert_eq!(s.observe(&raw, Some(&lies), false).await.unwrap().listing, Listing::Full);
    delta.listing
}

#[tokio::test]
async fn a_life_with_qresync() {
    let dovecot = Dovecot::start(Profile::Full);
    assert!(matches!(life(&dovecot, Quirks::default()).await, Listing::Delta { .. }));
}

#[tokio::test]
async fn a_life_with_condstore() {
    let dovecot = Dovecot::start(Profile::NoQresync);
    assert!(matches!(life(&dovecot, Quirks::default()).await, Listing::Changed { .. }));
}

#[tokio::test]
async fn a_life_with_neither() {
    let dovecot = Dovecot::start(Profile::NoCondstore);
    assert_eq!(life(&dovecot, Quirks::outlook()).await, Listing::Full);
}

#[tokio::test]
async fn a_life_with_the_least_of_extensions() {
    let dovecot = Dovecot::start(Profile::NoCondstore);
    let ignore = ["LITERAL+", "MULTIAPPEND", "MOVE", "SASL-IR", "NAMESPACE", "ESEARCH", "LIST-STATUS", "LIST-EXTENDED"];
    let quirks = Quirks { ignore: ignore.map(str::to_owned).into(), ..Quirks::default() };
    assert_eq!(life(&dovecot, quirks).await, Listing::Full);
}

#[tokio::test]
async fn without_uidplus_nothing_is_expunged() {
    let dovecot = Dovecot::start(Profile::NoUidplus);
    let (mut s, inbox, trash) = (session(&dovecot).await, RawName::new(b"INBOX"), RawName::new(b"Trash"));
    s.create(&trash).await.unwrap();
    s.append(&inbox, vec![outgoing(&mail(1), Flags::new()), outgoing(&mail(2), Flags::new())]).await.unwrap();
    let there = s.observe(&inbox, None, false).await.unwrap();
    let uids: Vec<Uid> = there.messages.keys().copied().collect();
    assert!(matches!(s.expunge(&set(&uids[..1])).await, Err(Error::Unsupported(_))));
    assert_eq!(s.move_to(&set(&uids[1..]), &trash).await.unwrap().pairs, []);
    let after = s.observe(&inbox, Some(&there.cursor), true).await.unwrap();
    assert_eq!(
        after.messages.values().map(|m| m.flags.to_string()).collect::<Vec<_>>(),
        ["(\\Deleted)", "(\\Deleted)"]
    );
    assert_eq!(s.select(&trash).await.unwrap().exists, 1);
}

#[tokio::test]
async fn mailboxes_with_odd_names_are_listed() {
    let dovecot = Dovecot::start(Options { separator: '.', prefix: "INBOX.", ..Options::from(Profile::Full) });
    let mut s = session(&dovecot).await;
    let names = ["Lists/rust", "日本語/Entwürfe", "quote\"d", "back\\slash", " spaces ", "100% *", "&", "x~"];
    for name in names {
        let raw = s.raw_name(&MailboxName::from(name)).unwrap();
        s.create(&raw).await.unwrap();
        s.append(&raw, vec![outgoing(&mail(1), Flags::new())]).await.unwrap();
    }
    assert!(matches!(s.raw_name(&MailboxName::from("a.b")), Err(Error::Name { .. })));
    let slash = s.raw_name(&MailboxName::from("a%2Fb")).unwrap();
    assert!(matches!(s.create(&slash).await, Err(Error::Refused { code, .. }) if code == "CANNOT"));
    s.create(&s.raw_name(&MailboxName::from("Trash")).unwrap()).await.unwrap();
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
    let dovecot = Dovecot::start(Profile::Full);
    let ca_file = Some(dovecot.ca_file());
    let connect = |host: &str, ca_file, pins| Connect {
        host: host.into(),
        port: dovecot.tls_port(),
        tls: Tls::Implicit { ca_file, pins },
        ..connect(&dovecot)
    };
    let shell = "openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform der | sha256sum";
    let output =
        Command::new("sh").args(["-c", shell]).current_dir(dovecot.ca_file().parent().unwrap()).output().unwrap();
    let hex = String::from_utf8(output.stdout).unwrap();
    let mut pin = [0; 32];
    (0..32).for_each(|i| pin[i] = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap());

    let mut s = Session::open(&connect("localhost", ca_file.clone(), vec![Digest(pin)]), &credentials()).await.unwrap();
    s.noop().await.unwrap();
    assert!(s.received() > 0 && s.sent() > 0);
    // An unknown CA, another key, another name for the same host.
    for bad in [
        connect("localhost", None, vec![]),
        connect("localhost", ca_file.clone(), vec![Digest([1; 32])]),
        connect("127.1", ca_file, vec![]),
    ] {
        let error = Session::open(&bad, &credentials()).await.unwrap_err();
        assert!(matches!(&error, Error::Certificate { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_a_refused_sign_in() {
    let dovecot = Dovecot::start(Profile::Full);
    let wrong = Credentials::Password { username: "user".into(), password: Secret::new("\"\\wrong\u{e9}".into()) };
    let error = Session::open(&connect(&dovecot), &wrong).await.unwrap_err();
    assert!(matches!(error, Error::SignIn { .. }), "{error}");
}

#[tokio::test]
async fn idle_ends_when_something_changes_or_is_asked_to() {
    let dovecot = Dovecot::start(Profile::Full);
    let (mut s, mut other) = (session(&dovecot).await, session(&dovecot).await);
    let inbox = RawName::new(b"INBOX");
    s.select(&inbox).await.unwrap();
    let minute = Duration::from_secs(60);
    assert_eq!(s.idle(async {}, minute, |_| ()).await.unwrap(), IdleEnd::Stopped);
    assert_eq!(s.idle(std::future::pending(), Duration::from_millis(1), |_| ()).await.unwrap(), IdleEnd::TimeUp);
    let (end, _) = tokio::join!(s.idle(std::future::pending(), minute, |_| ()), async {
        other.append(&inbox, vec![outgoing(&mail(1), Flags::new())]).await.unwrap()
    });
    assert_eq!(end.unwrap(), IdleEnd::Changed(Stir::Messages));
    assert_eq!(s.selected().unwrap().exists, 1);
    s.noop().await.unwrap();
}

#[tokio::test]
async fn a_large_message_goes_both_ways_through_files() {
    let dovecot = Dovecot::start(Profile::Full);
    let mut s = session(&dovecot).await;
    let inbox = RawName::new(b"INBOX");
    s.select(&inbox).await.unwrap();
    let mut large = mail(1);
    (0..400_000).for_each(|n| large.extend_from_slice(format!("line {n}\r\n").as_bytes()));
    let uid = s.append(&inbox, vec![outgoing(&large, Flags::new())]).await.unwrap()[0].as_ref().unwrap().unwrap();
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

    let small = Connect { max_literal: 1 << 20, ..connect(&dovecot) };
    let mut s = Session::open(&small, &credentials()).await.unwrap();
    s.select(&inbox).await.unwrap();
    assert!(s.sizes(&set(&[uid])).await.unwrap()[&uid] > small.max_literal);
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let error = s.bodies(&set(&[uid]), send).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { uid: Some(u), .. } if u == uid), "{error}");
    assert!(receive.recv().await.is_none());
    assert!(matches!(s.noop().await, Err(Error::Closed { .. })));
}
