//! A transcript per command, over a raw socket.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::{At, Fault, Profile, Server, Share, When};

mod failures;
mod notify;
mod oauth;
mod outlook;

/// A connection that sends and expects lines exactly as they are written.
struct Raw(BufReader<TcpStream>);

impl Raw {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut raw = Self(BufReader::new(stream));
        assert!(raw.line().unwrap().starts_with("* OK"));
        raw
    }

    fn login(server: &Server) -> Self {
        let mut raw = Self::connect(server);
        raw.talk("C l LOGIN user secret\nS l OK…");
        raw
    }

    /// Returns a line without its CRLF, or `None` at the end of the connection.
    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.0.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(String::from_utf8_lossy(&line).trim_end_matches("\r\n").to_owned()),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// Plays a transcript: `C` lines are sent, `S` lines must come, `…` ends a line that may go on, `X` is the end.
    #[track_caller]
    fn talk(&mut self, transcript: &str) {
        for step in transcript.lines().map(str::trim_start).filter(|l| !l.is_empty()) {
            match step.split_at(1) {
                ("C", line) => self.send(format!("{}\r\n", line.strip_prefix(' ').unwrap_or("")).as_bytes()),
                ("X", _) => assert_eq!(self.line(), None),
                (_, wanted) => {
                    let wanted = wanted.strip_prefix(' ').unwrap_or(wanted);
                    let line = self.line().unwrap_or_else(|| panic!("no {wanted}"));
                    match wanted.strip_suffix('…') {
                        Some(start) => assert!(line.starts_with(start), "{line} is not {wanted}"),
                        None => assert_eq!(line, wanted),
                    }
                }
            }
        }
    }
}

fn server_with(profile: Profile) -> Server {
    let server = Server::spawn(profile).unwrap();
    {
        let mut state = server.state();
        state.mailbox_mut("INBOX").uid_validity = 7;
        state.append("INBOX", b"Subject: a\r\nX: 1\r\n 2\r\n\r\none\r\n", &[], 951_782_400);
        state.append("INBOX", b"Subject: b\r\n\r\ntwo\r\n", &["\\Seen", "Work"], 0);
        state.append("INBOX", b"", &["\\Deleted"], 0);
    }
    server
}

/// Plays a transcript after LOGIN; nothing in it may be a violation.
#[track_caller]
fn check(profile: Profile, transcript: &str) -> Server {
    let server = server_with(profile);
    Raw::login(&server).talk(transcript);
    assert_eq!(server.violations(), Vec::<String>::new());
    server
}

const OPEN: &str = "C s SELECT INBOX\nS * FLAGS…\nS * 3 EXISTS\nS * 0 RECENT\nS * OK [PERM…\nS * OK [UIDV…\nS * OK [UIDN…\n\
                    S * OK [HIGH…\nS s OK…\n";
const OPEN_PLAIN: &str = "C s SELECT INBOX\nS * FLAGS…\nS * 3 EXISTS\nS * 0 RECENT\nS * OK [PERM…\nS * OK [UIDV…\n\
                          S * OK [UIDN…\nS s OK…\n";

fn opened(transcript: &str) -> String {
    format!("{OPEN}{transcript}")
}

#[test]
fn every_profile_announces_itself_and_signs_in() {
    for profile in Profile::ALL {
        let capabilities = profile.capabilities();
        check(
            profile,
            &format!(
                "C a CAPABILITY\nS * CAPABILITY {capabilities}\nS a OK done\nC b LOGOUT\nS * BYE…\nS b OK done\nX"
            ),
        );
    }
}

#[test]
fn signing_in() {
    let server = server_with(Profile::Full);
    server.state().tokens.insert("t0".to_owned());
    let talk = |transcript: &str| Raw::connect(&server).talk(transcript);
    talk(
        "C a LOGIN user wrong\nS a NO [AUTHENTICATIONFAILED]…\nC b LOGIN {4}\nS + go on\nC user {6+}\nC secret\nS b OK…",
    );
    talk("C a AUTHENTICATE PLAIN\nS + \nC AHVzZXIAc2VjcmV0\nS a OK…");
    talk("C a AUTHENTICATE PLAIN AHVzZXIAc2VjcmV0\nS a OK…");
    // user=u^Aauth=Bearer t0^A^A, and with t1.
    talk("C a AUTHENTICATE XOAUTH2 dXNlcj11AWF1dGg9QmVhcmVyIHQwAQE=\nS a OK…");
    talk("C a AUTHENTICATE XOAUTH2 dXNlcj11AWF1dGg9QmVhcmVyIHQxAQE=\nS + eyJz…\nC\nS a NO…");
    assert_eq!(server.violations(), Vec::<String>::new());
    assert!(server.commands().iter().all(|c| c.args.is_empty()), "{:?}", server.commands());
}

#[test]
fn id_enable_namespace() {
    check(
        Profile::Full,
        "C a ID (\"name\" \"x\" \"version\" NIL)\nS * ID (\"name\" \"sim\")\nS a OK done
         C b ID NIL\nS * ID…\nS b OK done
         C c NAMESPACE\nS * NAMESPACE ((\"\" \"/\")) NIL NIL\nS c OK done
         C d ENABLE QRESYNC X-NONE\nS * ENABLED QRESYNC\nS d OK done
         C e NOOP\nS e OK done",
    );
}

#[test]
fn lists() {
    let server = server_with(Profile::Full);
    {
        let mut state = server.state();
        ["Sent", "L/rust", "a\"b"].into_iter().for_each(|n| state.create(n));
        state.mailbox_mut("Sent").special_use = Some("\\Sent".to_owned());
        state.create("L");
        state.mailbox_mut("L").no_select = true;
    }
    Raw::login(&server).talk(
        r#"C a LIST "" ""
           S * LIST (\Noselect) "/" ""
           S a OK done
           C b LIST "" %
           S * LIST (\HasNoChildren) "/" "INBOX"
           S * LIST (\Noselect \HasChildren) "/" "L"
           S * LIST (\HasNoChildren \Sent) "/" "Sent"
           S * LIST (\HasNoChildren) "/" "a\"b"
           S b OK done
           C c LIST "" ("L*" inbox) RETURN (SPECIAL-USE STATUS (MESSAGES UIDNEXT UNSEEN HIGHESTMODSEQ))
           S * LIST (\HasNoChildren) "/" "INBOX"
           S * STATUS "INBOX" (MESSAGES 3 UIDNEXT 4 UNSEEN 2 HIGHESTMODSEQ 4)
           S * LIST (\Noselect \HasChildren) "/" "L"
           S * LIST (\HasNoChildren) "/" "L/rust"
           S * STATUS "L/rust" (MESSAGES 0 UIDNEXT 1 UNSEEN 0 HIGHESTMODSEQ 1)
           S c OK done
           C d LIST (SPECIAL-USE) "" *
           S * LIST (\HasNoChildren \Sent) "/" "Sent"
           S d OK done
           C e STATUS inbox (MESSAGES UIDVALIDITY RECENT)
           S * STATUS "INBOX" (MESSAGES 3 UIDVALIDITY 7 RECENT 0)
           S e OK done
           C f STATUS L (MESSAGES)
           S f NO [NONEXISTENT] no such mailbox"#,
    );
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn mailboxes_come_and_go() {
    let server = check(
        Profile::Full,
        "C a CREATE A/B\nS a OK done\nC b CREATE A/B/\nS b NO [ALREADYEXISTS]…\nC c RENAME A/B C\nS c OK done
         C d DELETE C\nS d OK done\nC e DELETE C\nS e NO [NONEXISTENT]…\nC f DELETE inbox\nS f NO…
         C g CREATE &AOQ-\nS g OK done\nC h SUBSCRIBE &AOQ-\nS h OK done",
    );
    assert_eq!(server.state().mailboxes.keys().collect::<Vec<_>>(), ["&AOQ-", "INBOX"]);
    server.state().prefix = "INBOX.".to_owned();
    Raw::login(&server).talk("C a CREATE X\nS a NO [CANNOT]…\nC b CREATE INBOX.X\nS b OK done");
}

#[test]
fn select_and_examine() {
    check(
        Profile::Full,
        "C a EXAMINE inbox
         S * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft Work)
         S * 3 EXISTS
         S * 0 RECENT
         S * OK [PERMANENTFLAGS ()] limited
         S * OK [UIDVALIDITY 7] UIDs valid
         S * OK [UIDNEXT 4] predicted next UID
         S * OK [HIGHESTMODSEQ 4] highest
         S a OK [READ-ONLY] selected
         C b UID STORE 1 +FLAGS.SILENT (\\Seen)
         S b NO [READ-ONLY]…
         C c UNSELECT\nS c OK done
         C d SELECT NONE\nS d NO [NONEXISTENT]…",
    );
    check(Profile::NoCondstore, OPEN_PLAIN);
    check(Profile::Bare, &format!("{OPEN_PLAIN}C b CHECK\nS b OK done\nC c NOOP\nS c OK done"));
}

#[test]
fn quick_resynchronisation() {
    let server = server_with(Profile::Full);
    server.state().expunge("INBOX", 1);
    server.state().set_flags("INBOX", 2, &["\\Flagged"]);
    let enable = "C e ENABLE QRESYNC\nS * ENABLED QRESYNC\nS e OK done\n";
    let select =
        "S * FLAGS…\nS * 2 EXISTS\nS * 0 RECENT\nS * OK…\nS * OK…\nS * OK…\nS * OK [HIGHESTMODSEQ 6] highest\n";
    let talk = |text: String| Raw::login(&server).talk(&(enable.to_owned() + &text));
    talk(format!(
        "C a SELECT INBOX (QRESYNC (7 4))\n{select}S * VANISHED (EARLIER) 1
         S * 1 FETCH (UID 2 FLAGS (\\Flagged) MODSEQ (6))\nS a OK…"
    ));
    talk(format!("C a SELECT INBOX (QRESYNC (7 4 2:3))\n{select}S * 1 FETCH (UID 2…\nS a OK…"));
    talk(format!(
        "C a SELECT INBOX (QRESYNC (8 4))\n{select}S a OK…\nC b SELECT INBOX\nS * OK [CLOSED]…\n{select}S b OK…"
    ));
    talk(format!(
        "C a SELECT INBOX\n{select}S a OK…\nC b UID FETCH 1:* (FLAGS) (CHANGEDSINCE 5 VANISHED)
         S * 1 FETCH (UID 2 FLAGS (\\Flagged) MODSEQ (6))\nS b OK done"
    ));
    server.state().mailbox_mut("INBOX").vanished_from = 5;
    talk(format!("C a SELECT INBOX (QRESYNC (7 4))\n{select}S * VANISHED (EARLIER) 1\nS * 1 FETCH…\nS a OK…"));
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn fetches() {
    check(
        Profile::Full,
        &opened(
            "C a UID FETCH 1:2 (UID FLAGS INTERNALDATE RFC822.SIZE)
             S * 1 FETCH (UID 1 FLAGS () INTERNALDATE \"29-Feb-2000 00:00:00 +0000\" RFC822.SIZE 29)
             S * 2 FETCH (UID 2 FLAGS (Work \\Seen) INTERNALDATE \" 1-Jan-1970 00:00:00 +0000\" RFC822.SIZE 19)
             S a OK done
             C b UID FETCH 2,9 BODY.PEEK[]
             S * 2 FETCH (UID 2 BODY[] {19}\nS Subject: b\nS \nS two\nS )\nS b OK done
             C c UID FETCH 1 (BODY.PEEK[HEADER.FIELDS (x)] BODY.PEEK[]<0.3>)
             S * 1 FETCH (UID 1 BODY[HEADER.FIELDS (x)] {12}\nS X: 1\nS  2\nS \nS  BODY[]<0> {3}\nS Sub)\nS c OK done
             C d UID FETCH 2 BODY.PEEK[HEADER]
             S * 2 FETCH (UID 2 BODY[HEADER] {14}\nS Subject: b\nS \nS )\nS d OK done
             C e UID FETCH * MODSEQ\nS * 3 FETCH (UID 3 MODSEQ (4))\nS e OK done
             C f UID FETCH 1:* FLAGS (CHANGEDSINCE 3)\nS * 3 FETCH (UID 3 FLAGS (\\Deleted) MODSEQ (4))\nS f OK done",
        ),
    );
    let server = check(
        Profile::Bare,
        &format!(
            "{OPEN_PLAIN}C a UID FETCH 1 BODY[]<0.1>\nS * 1 FETCH (UID 1 BODY[]<0> {{1}}\nS S)\nS * 1 FETCH (FLAGS (\\Seen))\nS a OK done"
        ),
    );
    assert!(server.commands().last().unwrap().danger().is_some());
}

#[test]
fn searches() {
    check(
        Profile::Full,
        &opened(
            "C a UID SEARCH ALL\nS * SEARCH 1 2 3\nS a OK done
             C b UID SEARCH RETURN (ALL COUNT) UID 1:2\nS * ESEARCH (TAG \"b\") UID COUNT 2 ALL 1:2\nS b OK done
             C c UID SEARCH RETURN () UNSEEN NOT DELETED\nS * ESEARCH (TAG \"c\") UID ALL 1\nS c OK done
             C d UID SEARCH OR KEYWORD work LARGER 25\nS * SEARCH 1 2\nS d OK done
             C e UID SEARCH MODSEQ 4\nS * SEARCH 3 (MODSEQ 4)\nS e OK done
             C f UID SEARCH HEADER Subject {1+}\nC b\nS * SEARCH 2\nS f OK done
             C g UID SEARCH RETURN (ALL) UID 9\nS * ESEARCH (TAG \"g\") UID\nS g OK done
             C h UID SEARCH (SEEN UID 1:*) SMALLER 100\nS * SEARCH 2\nS h OK done",
        ),
    );
}

#[test]
fn stores() {
    let server = check(
        Profile::Full,
        &opened(
            "C a UID STORE 1 +FLAGS (\\Seen $Forwarded)\nS * 1 FETCH (UID 1 FLAGS ($Forwarded \\Seen))\nS a OK done
             C b UID STORE 1:2 -FLAGS.SILENT (\\seen WORK)\nS b OK done
             C c UID STORE 1:3 (UNCHANGEDSINCE 5) +FLAGS.SILENT (\\Flagged)
             S * 3 FETCH (UID 3 MODSEQ (8))\nS c OK [MODIFIED 1:2] some have changed
             C d UID STORE 2 (UNCHANGEDSINCE 0) -FLAGS \\Seen\nS d OK [MODIFIED 2]…
             C e UID STORE 2 FLAGS ()\nS * 2 FETCH (UID 2 FLAGS () MODSEQ (7))\nS e OK done",
        ),
    );
    let flags: Vec<Vec<String>> =
        server.state().messages("INBOX").into_iter().map(|m| m.flags.into_iter().collect()).collect();
    assert_eq!(flags, [vec!["$Forwarded"], vec![], vec!["\\Deleted", "\\Flagged"]]);
    assert_eq!(server.commands().iter().filter(|c| c.danger().is_some()).count(), 1);
}

#[test]
fn appends() {
    let server = check(
        Profile::Full,
        "C a APPEND INBOX (\\Seen Work) \"29-Feb-2000 01:00:00 +0100\" {3+}\nC abc\nS a OK [APPENDUID 7 4] done
         C b APPEND INBOX {1}\nS + go on\nC x {1+}\nC y\nS b OK [APPENDUID 7 5:6] done
         C c APPEND NONE {1+}\nC x\nS c NO [TRYCREATE]…",
    );
    let last = server.state().messages("INBOX").remove(3);
    assert_eq!((last.bytes.as_slice(), last.internal_date), (b"abc".as_slice(), 951_782_400));
    assert_eq!(last.flags.into_iter().collect::<Vec<_>>(), ["Work", "\\Seen"]);
    check(Profile::Bare, "C a APPEND INBOX {1}\nS + go on\nC x\nS a OK done");
}

#[test]
fn copies_and_moves() {
    let server = server_with(Profile::Full);
    server.state().create("B");
    Raw::login(&server).talk(&opened(
        "C a UID COPY 1:2 B\nS a OK [COPYUID 1700000001 1:2 1:2] done
         C b UID MOVE 2 B\nS * OK [COPYUID 1700000001 2 3] moved\nS * 2 EXPUNGE\nS b OK done
         C c UID MOVE 9 B\nS c OK done\nC d UID COPY 1 C\nS d NO [TRYCREATE]…",
    ));
    assert_eq!(server.violations(), Vec::<String>::new());
    assert_eq!(server.state().messages("B").len(), 3);
    assert!(server.state().messages("B")[2].flags.contains("Work"));
}

#[test]
fn expunges() {
    let server = check(
        Profile::Full,
        &opened("C a UID EXPUNGE 1:2\nS a OK done\nC b UID EXPUNGE 3\nS * 3 EXPUNGE\nS b OK done"),
    );
    assert_eq!(server.state().messages("INBOX").len(), 2);
    let text = opened("C b UID EXPUNGE 3\nS * VANISHED 3\nS b OK [HIGHESTMODSEQ 5] done");
    check(Profile::Full, &format!("C e ENABLE QRESYNC\nS * ENABLED QRESYNC\nS e OK done\n{text}"));
    let server = check(Profile::Bare, &format!("{OPEN_PLAIN}C a EXPUNGE\nS * 3 EXPUNGE\nS a OK done"));
    assert_eq!(server.commands().last().unwrap().danger(), Some("removes messages that it does not name"));
    let server = check(Profile::Bare, &format!("{OPEN_PLAIN}C a CLOSE\nS a OK done"));
    assert_eq!(server.state().messages("INBOX").len(), 2);
}

#[test]
fn others_are_told() {
    let server = server_with(Profile::Full);
    let (mut idle, mut quick) = (Raw::login(&server), Raw::login(&server));
    idle.talk(&opened("C i IDLE\nS + idling"));
    quick.talk(&format!("C e ENABLE QRESYNC\nS * ENABLED QRESYNC\nS e OK done\n{OPEN}"));
    {
        let mut state = server.state();
        state.expunge("INBOX", 1);
        state.append("INBOX", b"new", &[], 0);
        state.set_flags("INBOX", 2, &[]);
    }
    idle.talk("S * 1 EXPUNGE\nS * 3 EXISTS\nS * 1 FETCH (FLAGS ())");
    server.state().expunge("INBOX", 3);
    idle.talk("S * 2 EXPUNGE\nC DONE\nS i OK done");
    quick.talk("C n NOOP\nS * VANISHED 1,3\nS * 2 EXISTS\nS * 1 FETCH (UID 2 FLAGS () MODSEQ (7))\nS n OK done\nC o NOOP\nS o OK done");
    server.state().set_uid_validity("INBOX", 8);
    quick.talk("C p NOOP\nS * BYE…\nX");
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn what_is_wrong_or_not_announced_is_a_violation() {
    let table = [
        (Profile::Full, "FETCH 1 FLAGS"),
        (Profile::Full, "UID FETCH 1 FLAGS "),
        (Profile::Full, "UID FETCH 0 FLAGS"),
        (Profile::Full, "UID FETCH 4294967296 FLAGS"),
        (Profile::Full, "UID FETCH 1 ()"),
        (Profile::Full, "UID FETCH 1 (FLAGS  UID)"),
        (Profile::Full, "UID FETCH 1 FLAGS (VANISHED)"),
        (Profile::Full, "UID FETCH 1 FLAGS (CHANGEDSINCE 0)"),
        (Profile::Full, "UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)"),
        (Profile::Full, "UID STORE 1 +FLAGS (\\Recent)"),
        (Profile::Full, "UID STORE 1 +FLAGS (a]b)"),
        (Profile::Full, "SELECT \"a"),
        (Profile::Full, "SELECT a&b"),
        (Profile::Full, "SELECT INBOX (QRESYNC (7 4))"),
        (Profile::Full, "SELECT"),
        (Profile::Full, "ENABLE CONDSTORE"),
        (Profile::Full, "APPEND INBOX \"1-Jan-1970 00:00:00 +0000\" {1+}\r\nx"),
        (Profile::Full, "APPEND INBOX {1+}\r\n\0"),
        (Profile::Full, "XYZZY"),
        (Profile::NoQresync, "SELECT INBOX (QRESYNC (7 4))"),
        (Profile::NoCondstore, "SELECT INBOX (CONDSTORE)"),
        (Profile::NoCondstore, "STATUS INBOX (HIGHESTMODSEQ)"),
        (Profile::NoCondstore, "UID FETCH 1 MODSEQ"),
        (Profile::NoCondstore, "UID FETCH 1 FLAGS (CHANGEDSINCE 1)"),
        (Profile::NoCondstore, "UID STORE 1 (UNCHANGEDSINCE 1) +FLAGS (\\Seen)"),
        (Profile::NoCondstore, "UID SEARCH MODSEQ 1"),
        (Profile::Outlook, "UID SEARCH RETURN (ALL) ALL"),
        (Profile::Outlook, "LIST \"\" * RETURN (SPECIAL-USE)"),
        (Profile::Outlook, "APPEND INBOX {1+}\r\nx {1+}\r\ny"),
        (Profile::Bare, "UID EXPUNGE 1"),
        (Profile::Bare, "UID MOVE 1 INBOX"),
        (Profile::Bare, "UNSELECT"),
        (Profile::Bare, "ENABLE X"),
        (Profile::Bare, "NAMESPACE"),
        (Profile::Bare, "ID NIL"),
        (Profile::Bare, "IDLE"),
        (Profile::Bare, "AUTHENTICATE PLAIN"),
    ];
    for (profile, command) in table {
        let server = server_with(profile);
        let mut raw = Raw::login(&server);
        let condstore = [Profile::Full, Profile::NoQresync].contains(&profile);
        raw.talk(if condstore { OPEN } else { OPEN_PLAIN });
        raw.send(format!("a {command}\r\n").as_bytes());
        raw.talk("S a BAD…\nC b NOOP\nS b OK done");
        assert_eq!(server.violations().len(), 1, "{command}: {:?}", server.violations());
    }
    for bytes in ["a LOGIN {1+}\r\n", "a NOOP\n", "NOOP\r\n"] {
        let server = server_with(Profile::Bare);
        let mut raw = Raw::connect(&server);
        raw.send(bytes.as_bytes());
        raw.talk("S * BAD…");
        assert_eq!(server.violations().len(), 1, "{bytes}");
    }
    let server = server_with(Profile::Full);
    Raw::connect(&server).talk("C a LIST \"\" *\nS a BAD…\nC b SELECT INBOX\nS b BAD…");
    assert_eq!(server.violations().len(), 2);
}

/// Plays a transcript in a selected INBOX with one fault, and checks that it fired.
#[track_caller]
fn faulty(command: &str, fault: Fault, transcript: &str) -> Server {
    let server = server_with(Profile::Full);
    let name = format!("{command} {}", fault.name());
    server.inject(command, When::Nth(1), fault);
    Raw::login(&server).talk(&opened(transcript));
    assert_eq!(server.fired(), [name]);
    server
}

#[test]
fn lines_are_dropped_under_an_ok() {
    let list = "C a UID FETCH 1:* FLAGS\n";
    let table = [
        (Fault::DropLines(Share::All), ""),
        (Fault::DropLines(Share::EverySecond), "S * 1 FETCH…\nS * 3 FETCH…\n"),
        (Fault::DropLines(Share::FirstHalf), "S * 3 FETCH…\n"),
        (Fault::Omit(vec![1, 3]), "S * 2 FETCH…\n"),
    ];
    for (fault, left) in table {
        faulty("UID FETCH", fault, &format!("{list}{left}S a OK done\n"));
    }
    let server = server_with(Profile::Full);
    server.inject("UID FETCH FLAGS", When::Every, Fault::DropLines(Share::All));
    server.inject("UID FETCH BODY.PEEK[]", When::Every, Fault::DropLines(Share::All));
    Raw::login(&server).talk(&opened(
        "C a UID FETCH 1:3 FLAGS\nS a OK done\nC b UID FETCH 3 BODY.PEEK[]\nS * 3 FETCH…\nS )\nS b OK done",
    ));
    assert_eq!(server.fired(), ["UID FETCH drop-lines"]);
    faulty("LIST", Fault::DropLines(Share::All), "C a LIST \"\" *\nS a OK done");
}

#[test]
fn connections_are_closed() {
    let append = "C a APPEND INBOX {1+}\nC x\n";
    for (at, reply, kept) in [
        (At::Before, "", 3),
        (At::Unanswered, "", 4),
        (At::Middle, "S * 4 EXISTS\nS a…\n", 4),
        (At::After, "S * 4 EXISTS\nS a OK…\n", 4),
    ] {
        let server = faulty("APPEND", Fault::Close(at), &format!("{append}{reply}X"));
        assert_eq!(server.state().messages("INBOX").len(), kept, "{at:?}");
    }
    let server = server_with(Profile::Full);
    let mut raw = Raw::login(&server);
    server.cut_after(9);
    raw.talk("C a NOOP\nS a OK done\nX");
    // The first line is longer by its CRLF than the nine bytes.
    assert_eq!(server.fired(), ["cut"]);
    Raw::login(&server).talk("C a NOOP\nS a OK done");
}

#[test]
fn replies_are_replaced() {
    faulty("UID STORE", Fault::Answer("NO [LIMIT] later".into()), "C a UID STORE 1 +FLAGS (a)\nS a NO [LIMIT] later");
    faulty(
        "APPEND",
        Fault::Refuse("NO [OVERQUOTA] full".into()),
        "C a APPEND INBOX {9}\nS a NO [OVERQUOTA] full\nC b NOOP\nS b OK done",
    );
    faulty("APPEND", Fault::without_code("APPENDUID"), "C a APPEND INBOX {1+}\nC x\nS * 4 EXISTS\nS a OK done");
    faulty(
        "APPEND",
        Fault::with_code("APPENDUID", "7 99"),
        "C a APPEND INBOX {1+}\nC x\nS * 4 EXISTS\nS a OK [APPENDUID 7 99] done",
    );
    faulty("UID FETCH", Fault::BodyNil, "C a UID FETCH 1 BODY.PEEK[]\nS * 1 FETCH (UID 1 BODY[] NIL)\nS a OK done");
    faulty("UID FETCH", Fault::BodyEmpty, "C a UID FETCH 1 BODY.PEEK[]\nS * 1 FETCH (UID 1 BODY[] \"\")\nS a OK done");
    let select = "C a SELECT INBOX\nS * FLAGS…\nS * 3 EXISTS\nS * 0 RECENT\nS * OK [PERM…\n";
    let server = server_with(Profile::NoCondstore);
    server.inject("SELECT", When::Every, Fault::without_code("UIDNEXT"));
    server.inject("SELECT", When::Every, Fault::with_code("UIDVALIDITY", "0"));
    Raw::login(&server).talk(&format!("{select}S * OK [UIDVALIDITY 0] UIDs valid\nS a OK…"));
    assert_eq!(server.fired().len(), 2);
}

#[test]
fn replies_are_interrupted() {
    let fetch = "C a UID FETCH 1:2 UID\nS * 1 FETCH (UID 1)\n";
    let rest = "S * 2 FETCH (UID 2)\nS a OK done";
    faulty("UID FETCH", Fault::Send(b"* OK [ALERT] hear\r\n".to_vec()), &format!("{fetch}S * OK [ALERT] hear\n{rest}"));
    faulty(
        "UID FETCH",
        Fault::huge_literal(u64::from(u32::MAX)),
        &format!("{fetch}S * 1 FETCH (UID 1 BODY[] {{4294967295}}\n{rest}"),
    );
    faulty("UID FETCH", Fault::deep_parentheses(2), &format!("{fetch}S * 1 FETCH (BODY (()))\n{rest}"));
    let hook = |state: &mut crate::State| {
        state.expunge("INBOX", 1);
        state.append("INBOX", b"", &[], 0);
    };
    faulty(
        "UID FETCH",
        Fault::Between(Arc::new(hook)),
        &format!("{fetch}S * 1 EXPUNGE\nS * 3 EXISTS\nS * 1 FETCH (UID 2)\nS a OK done"),
    );
}

#[test]
fn another_client_is_faster() {
    let server = server_with(Profile::Full);
    server.on_command("UID STORE", 2, |state| state.set_flags("INBOX", 1, &["\\Draft"]));
    Raw::login(&server).talk(&opened(
        "C a UID STORE 1 (UNCHANGEDSINCE 4) +FLAGS.SILENT (\\Seen)\nS * 1 FETCH (UID 1 MODSEQ (5))\nS a OK done
         C b UID STORE 1 (UNCHANGEDSINCE 5) +FLAGS.SILENT (\\Flagged)
         S * 1 FETCH (FLAGS (\\Draft) MODSEQ (6))\nS b OK [MODIFIED 1]…",
    ));
    assert_eq!(server.fired(), ["UID STORE run"]);
    let server = server_with(Profile::NoCondstore);
    server.on_command("UID STORE", 1, |state| state.set_flags("INBOX", 1, &["\\Draft"]));
    Raw::login(&server).talk(&format!(
        "{OPEN_PLAIN}C a UID STORE 1 +FLAGS.SILENT (\\Seen)\nS * 1 FETCH (FLAGS (\\Draft \\Seen))\nS a OK done"
    ));
}

#[test]
fn an_append_rises_after_its_connection_died() {
    let server = faulty("APPEND", Fault::Zombie(Duration::from_millis(50)), "C a APPEND INBOX {1+}\nC x\nX");
    assert_eq!(server.state().messages("INBOX").len(), 3);
    let mut idle = Raw::login(&server);
    idle.talk(&opened("C i IDLE\nS + idling\nS * 4 EXISTS"));
}

#[test]
fn a_stalled_command_is_never_answered() {
    let server = server_with(Profile::Full);
    server.inject("NOOP", When::Nth(1), Fault::Stall);
    let mut raw = Raw::login(&server);
    raw.0.get_mut().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    raw.talk("C a NOOP\nX");
    assert_eq!(server.fired(), ["NOOP stall"]);
}

#[tokio::test]
async fn it_runs_in_a_runtime_too() {
    let server = Server::start(Profile::Full).unwrap();
    let text = opened("").replace("3 EXISTS", "0 EXISTS");
    let port_of = server.port();
    let worked = tokio::task::spawn_blocking(move || {
        let mut raw = Raw(BufReader::new(TcpStream::connect(("127.0.0.1", port_of)).unwrap()));
        raw.talk("S * OK…\nC l LOGIN user secret\nS l OK…");
        raw.talk(&text);
    });
    worked.await.unwrap();
    assert_eq!(server.take_commands().len(), 2);
    assert_eq!(server.commands(), []);
}
