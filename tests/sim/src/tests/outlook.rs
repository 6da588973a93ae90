//! The words of Outlook.com, as they were seen on the wire.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use base64::Engine as _;
use native_tls::{Certificate, TlsConnector};

use super::Raw;
use crate::{Ca, Grant, Language, Options, Profile, Server};

/// Starts a server with one accepted token, `t0`, and three messages in INBOX.
pub(super) fn server(profile: Profile) -> Server {
    let server = Server::spawn(profile).unwrap();
    {
        let mut state = server.state();
        state.tokens.insert("t0".to_owned());
        state.append("INBOX", b"Subject: a\r\n\r\none\r\n", &["\\Seen"], 951_782_400);
        state.append("INBOX", b"Subject: b\r\n\r\ntwo\r\n", &[], 0);
        state.append("INBOX", b"Subject: c\r\n\r\nthree\r\n", &["\\Deleted"], 0);
    }
    server
}

/// Returns the line that signs `user` in with a token.
pub(super) fn xoauth2(token: &str) -> String {
    let text = format!("user=user@example.com\x01auth=Bearer {token}\x01\x01");
    format!("AUTHENTICATE XOAUTH2 {}", base64::engine::general_purpose::STANDARD.encode(text))
}

/// Returns a connection that is signed in.
pub(super) fn sign_in(server: &Server) -> Raw {
    let mut raw = Raw::connect(server);
    raw.talk(&format!("C l {}\nS l OK AUTHENTICATE completed.", xoauth2("t0")));
    raw
}

/// Plays a transcript after the sign-in; nothing in it may be a violation.
#[track_caller]
fn check(profile: Profile, transcript: &str) -> Server {
    let server = server(profile);
    sign_in(&server).talk(transcript);
    assert_eq!(server.violations(), Vec::<String>::new());
    server
}

pub(super) const OPEN: &str = "C s SELECT INBOX
    S * 3 EXISTS
    S * 0 RECENT
    S * FLAGS (\\Seen \\Answered \\Flagged \\Deleted \\Draft $MDNSent)
    S * OK [PERMANENTFLAGS (\\Seen \\Answered \\Flagged \\Deleted \\Draft $MDNSent)] Permanent flags
    S * OK [UNSEEN 2] Is the first unseen message
    S * OK [UIDVALIDITY 14] UIDVALIDITY value
    S * OK [UIDNEXT 4] The next unique identifier value
    S s OK [READ-WRITE] SELECT completed.\n";

#[test]
fn an_account_in_its_usual_words() {
    for profile in Profile::EXCHANGE {
        let (before, after) = (profile.capabilities_before(), profile.capabilities());
        let server = server(profile);
        Raw::connect(&server).talk(&format!(
            "C 1 CAPABILITY\nS * CAPABILITY {before}\nS 1 OK CAPABILITY completed.
             C 2 {}\nS 2 OK AUTHENTICATE completed.
             C 3 CAPABILITY\nS * CAPABILITY {after}\nS 3 OK CAPABILITY completed.
             C 4 ID (\"name\" \"x\")
             S * ID (\"name\" \"Microsoft.Exchange.Imap4.Imap4Server\" \"version\" \"15.20\")
             S 4 OK ID completed.
             C 5 NAMESPACE\nS * NAMESPACE ((\"\" \"/\")) NIL NIL\nS 5 OK NAMESPACE completed.
             C 6 STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY UNSEEN)
             S * STATUS Inbox (MESSAGES 3 UIDNEXT 4 UIDVALIDITY 14 UNSEEN 2) \nS 6 OK STATUS completed.
             {OPEN}
             C 8 IDLE\nS + IDLE accepted, awaiting DONE command.\nC DONE\nS 8 OK IDLE completed.
             C 9 UID MOVE 2 Archive\nS * OK [COPYUID 14 2 1]\nS * 2 EXPUNGE\nS 9 OK MOVE completed.
             C 10 UID MOVE 2 archive\nS * OK [COPYUID 14  ]\nS 10 OK MOVE completed.
             C 11 UID COPY 1 Archive\nS 11 OK [COPYUID 14 1 2] COPY completed.
             C 12 UID STORE 1 +FLAGS (\\Flagged)\nS * 1 FETCH (UID 1 FLAGS (\\Flagged \\Seen))\nS 12 OK STORE completed.
             C 13 UID EXPUNGE 3\nS * 2 EXPUNGE\nS 13 OK EXPUNGE completed.
             C 14 APPEND INBOX {{1+}}\nC x\nS * 2 EXISTS\nS 14 OK [APPENDUID 14 4] APPEND completed.
             C 15 UID SEARCH ALL\nS * SEARCH 1 4\nS 15 OK SEARCH completed.
             C 16 UID FETCH 4 (UID FLAGS RFC822.SIZE)\nS * 2 FETCH (UID 4 FLAGS () RFC822.SIZE 59)
             S 16 OK FETCH completed.
             C 17 NOOP\nS 17 OK NOOP completed.\nC 18 CHECK\nS 18 OK CHECK completed.
             C 19 LOGOUT\nS * BYE Microsoft Exchange Server IMAP4 server signing off.\nS 19 OK LOGOUT completed.\nX",
            xoauth2("t0")
        ));
        assert_eq!(server.violations(), Vec::<String>::new());
    }
}

#[test]
fn the_mailboxes_of_a_personal_account() {
    check(
        Profile::Exo2026,
        r#"C a LIST "" "*"
           S * LIST (\HasNoChildren) "/" Archive
           S * LIST (\Marked \HasNoChildren \Trash) "/" Deleted
           S * LIST (\Marked \HasNoChildren \Drafts) "/" Drafts
           S * LIST (\Marked \HasNoChildren) "/" Inbox
           S * LIST (\Marked \HasNoChildren \Junk) "/" Junk
           S * LIST (\HasNoChildren) "/" Notes
           S * LIST (\HasNoChildren) "/" Outbox
           S * LIST (\Marked \HasNoChildren \Sent) "/" Sent
           S a OK LIST completed.
           C b CREATE "Two Words"
           S b OK CREATE completed.
           C c LIST "" two%
           S * LIST (\HasNoChildren) "/" "Two Words"
           S c OK LIST completed.
           C d STATUS "TWO WORDS" (MESSAGES)
           S * STATUS "Two Words" (MESSAGES 0) 
           S d OK STATUS completed.
           C e CREATE "two words"
           S e NO Mailbox already exists.
           C f CREATE files
           S f NO Folder name is reserved
           C g CREATE inbox/a
           S g OK CREATE completed.
           C h LIST "" inbox/%
           S * LIST (\HasNoChildren) "/" Inbox/a
           S h OK LIST completed.
           C i LSUB "" Notes
           S * LSUB (\HasNoChildren) "/" Notes
           S i OK LSUB completed."#,
    );
    let server = Server::spawn(Options::from(Profile::Exo2026).language(Language::French)).unwrap();
    server.state().tokens.insert("t0".to_owned());
    sign_in(&server).talk(
        "C a LIST \"\" %envoy*\nS * LIST (\\Marked \\HasNoChildren \\Sent) \"/\" \"&AMk-l&AOk-ments envoy&AOk-s\"\nS a OK…",
    );
}

#[test]
fn signing_in() {
    let server = server(Profile::Exo2026);
    {
        let mut state = server.state();
        let grant = Grant { user: "user@example.com".to_owned(), until: std::time::Duration::from_secs(60) };
        state.grants.insert("short".to_owned(), grant);
    }
    let talk = |transcript: String| Raw::connect(&server).talk(&transcript);
    // Microsoft says NO at once, without the challenge that Google sends.
    talk(format!("C a {}\nS a NO AUTHENTICATE failed.", xoauth2("wrong")));
    talk(format!("C a {}\nS a OK AUTHENTICATE completed.", xoauth2("short")));
    talk(
        "C a AUTHENTICATE XOAUTH2\nS + \nC dXNlcj11AWF1dGg9QmVhcmVyIHQwAQE=\nS a OK AUTHENTICATE completed.".to_owned(),
    );
    let other = "C a AUTHENTICATE XOAUTH2 dXNlcj1vdGhlcgFhdXRoPUJlYXJlciBzaG9ydAEB\nS a NO AUTHENTICATE failed.";
    talk(other.to_owned());
    server.state().advance(std::time::Duration::from_secs(60));
    talk(format!("C a {}\nS a NO AUTHENTICATE failed.", xoauth2("short")));
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn what_exchange_does_not_know_is_bad() {
    let table = [
        ("XLIST \"\" *", "BAD Command Error. 10"),
        ("SELECT INBOX (CONDSTORE)", "BAD Command Argument Error. 11"),
        ("UID FETCH 1 (MODSEQ)", "BAD Command Argument Error. 11"),
        ("UID FETCH 1 FLAGS (CHANGEDSINCE 1)", "BAD Command Argument Error. 11"),
        ("UID FETCH 1 ()", "BAD Command Argument Error. 11"),
        ("STATUS INBOX (HIGHESTMODSEQ)", "BAD Command Argument Error. 11"),
        ("LIST \"\" * RETURN (SPECIAL-USE)", "BAD Command Argument Error. 11"),
        ("ENABLE CONDSTORE", "BAD Command Argument Error. 11"),
        ("UID SEARCH RETURN (ALL) ALL", "BAD Command Argument Error. 11"),
        ("UID SEARCH CHARSET UTF-8 ALL", "NO [BADCHARSET (US-ASCII)] The specified charset is not supported."),
        ("LOGIN a b", "BAD Command received in Invalid state."),
        ("AUTHENTICATE PLAIN AHVzZXIAc2VjcmV0", "BAD Command Argument Error. 11"),
    ];
    for (command, answer) in table {
        let server = server(Profile::Exo2026);
        sign_in(&server).talk(&format!("{OPEN}C a {command}\nS a {answer}\nC b NOOP\nS b OK…"));
        assert_eq!(server.violations().len(), 1, "{command}: {:?}", server.violations());
    }
}

#[test]
fn it_speaks_tls_over_both_families() {
    let ca = Ca::new().unwrap();
    let server = Server::spawn(Options::from(Profile::Exo2026).tls(&ca).ipv6()).unwrap();
    assert_eq!(server.ipv6(), TcpListener::bind(("::1", 0)).is_ok());
    let trusting = TlsConnector::builder()
        .disable_built_in_roots(true)
        .add_root_certificate(Certificate::from_pem(ca.pem().as_bytes()).unwrap())
        .build()
        .unwrap();
    let distrusting = TlsConnector::new().unwrap();
    let hosts = [("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("localhost", "::1")];
    for (name, address) in hosts.into_iter().filter(|(_, a)| server.ipv6() || *a != "::1") {
        let connect = || TcpStream::connect((address, server.port())).unwrap();
        let mut stream = BufReader::new(trusting.connect(name, connect()).unwrap());
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.starts_with("* OK Microsoft Exchange IMAP4 service ready."), "{line}");
        stream.get_mut().write_all(b"a LOGOUT\r\n").unwrap();
        let rest: Vec<String> = stream.lines().map_while(Result::ok).collect();
        assert_eq!(rest.last().unwrap(), "a OK LOGOUT completed.");
        assert!(distrusting.connect(name, connect()).is_err());
        assert!(trusting.connect("example.com", connect()).is_err());
    }
}
