//! Each way in which Outlook.com is known to fail, and how it looks on the wire. F31 and F32 are in `oauth`.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::Raw;
use super::outlook::{OPEN, server, sign_in, xoauth2};
use crate::{At, Fault, Faults, Grant, NotConnected, Options, Pipelining, Profile, Server, Sizes, State, Unkept, When};

/// Plays a transcript in the selected INBOX with one fault, and checks that it fired.
#[track_caller]
fn faulty(command: &str, fault: Fault, transcript: &str) -> Server {
    let server = server(Profile::Exo2026);
    let name = format!("{command} {}", fault.name());
    server.inject(command, When::Nth(1), fault);
    sign_in(&server).talk(&format!("{OPEN}{transcript}"));
    assert_eq!(server.fired(), [name]);
    assert_eq!(server.violations(), Vec::<String>::new());
    server
}

/// Plays a transcript in the selected INBOX of a server that was changed before.
#[track_caller]
fn with(change: impl Fn(&mut State), transcript: &str) -> Server {
    let server = server(Profile::Exo2026);
    change(&mut server.state());
    sign_in(&server).talk(&format!("{OPEN}{transcript}"));
    server
}

/// A session that says at its second command that it leads nowhere.
const NOWHERE: &str = "C c CAPABILITY\nS * CAPABILITY…\nS c OK…
    C d NAMESPACE\nS d BAD User is authenticated but not connected.
    C e LIST \"\" *\nS e BAD User is authenticated but not connected.\nS * BYE Connection closed. 14\nX";

#[test]
fn a_seed_gives_the_same_faults_again() {
    let run = |seed: u64| {
        let server = server(Profile::Exo2026);
        server.set_faults(Faults::random(seed, 250));
        for n in 1..30 {
            let mut raw = Raw::connect(&server);
            // A connection that a fault has closed takes no more.
            let send = |raw: &mut Raw, line: &str| drop(raw.0.get_mut().write_all(format!("a {line}\r\n").as_bytes()));
            send(&mut raw, &xoauth2("t0"));
            for command in ["SELECT INBOX", "UID FETCH 1:3 FLAGS", &format!("UID STORE {n} +FLAGS (\\Seen)")] {
                while raw.line().is_some_and(|l| !l.starts_with("a ")) {}
                send(&mut raw, command);
            }
        }
        server.fired()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert!(run(1).len() > 5, "{:?}", run(1));
}

#[test]
fn f01_a_sign_in_fails() {
    let server = server(Profile::Exo2026);
    server.inject("AUTHENTICATE", When::Nth(1), Fault::Answer("NO AUTHENTICATE failed.".into()));
    let line = xoauth2("t0");
    Raw::connect(&server).talk(&format!(
        "C a {line}\nS a NO AUTHENTICATE failed.\nC b {}\nS b NO AUTHENTICATE failed.\nC c {line}\nS c OK…",
        xoauth2("stale")
    ));
    assert_eq!(server.fired(), ["AUTHENTICATE answer"]);
}

#[test]
fn f02_authenticated_but_not_connected() {
    let server = server(Profile::Exo2026);
    server.inject("AUTHENTICATE", When::Nth(1), Fault::NotConnected);
    sign_in(&server).talk(NOWHERE);
    assert_eq!(server.fired(), ["AUTHENTICATE not-connected"]);
    sign_in(&server).talk(OPEN);
    server.state().quirks.not_connected = NotConnected::Everybody;
    sign_in(&server).talk(NOWHERE);
}

#[test]
fn f03_not_connected_over_ipv6() {
    let server = Server::spawn(Options::from(Profile::Exo2026).ipv6()).unwrap();
    server.state().tokens.insert("t0".to_owned());
    server.state().quirks.not_connected = NotConnected::OverIpv6;
    if server.ipv6() {
        let mut raw = Raw(BufReader::new(TcpStream::connect(("::1", server.port())).unwrap()));
        raw.talk(&format!("S * OK…\nC l {}\nS l OK…\n{NOWHERE}", xoauth2("t0")));
    }
    sign_in(&server).talk("C d NAMESPACE\nS * NAMESPACE…\nS d OK…");
}

#[test]
fn f04_a_code_of_a_mailbox_on_its_way() {
    let server = server(Profile::Exo2026);
    server.inject("AUTHENTICATE", When::Nth(1), Fault::wrong_server());
    let code = "[Error=\"Microsoft.Exchange.Data.Storage.WrongServerException:Cross Server access is not allowed";
    Raw::connect(&server).talk(&format!("C a {}\nS a OK {code}…\n{OPEN}", xoauth2("t0")));
    assert_eq!(server.fired(), ["AUTHENTICATE edit"]);
}

#[test]
fn f05_the_token_runs_out() {
    let bye = "S * BYE Session invalidated - AccessTokenExpired\nX";
    faulty("UID FETCH", Fault::token_expired(), &format!("C a UID FETCH 1:3 UID\nS * 1 FETCH (UID 1)\n{bye}"));
    faulty("IDLE", Fault::token_expired(), &format!("C a IDLE\nS + IDLE…\n{bye}"));
    // By the clock, in IDLE and at a command.
    let server = server(Profile::Exo2026);
    for idle in [true, false] {
        let until = server.state().now() + Duration::from_secs(3600);
        let grant = Grant { user: "user@example.com".to_owned(), until };
        server.state().grants.insert("short".to_owned(), grant);
        let mut raw = Raw::connect(&server);
        raw.talk(&format!("C a {}\nS a OK…\n{OPEN}", xoauth2("short")));
        if idle {
            raw.talk("C i IDLE\nS + IDLE…");
            server.state().advance(Duration::from_secs(3600));
            raw.talk(bye);
        } else {
            server.state().advance(Duration::from_secs(3600));
            raw.talk(&format!("C n NOOP\n{bye}"));
        }
    }
}

#[test]
fn f06_throttled() {
    for (bad, word) in [(false, "NO"), (true, "BAD")] {
        let time = Duration::from_millis(299_961);
        let text = |ms: u32| format!("{word} Request is throttled. Suggested Backoff Time: {ms} milliseconds");
        let server = server(Profile::Exo2026);
        server.inject("UID STORE", When::Nth(1), Fault::Throttle { time, bad });
        let mut raw = sign_in(&server);
        let store = "UID STORE 1 +FLAGS.SILENT (\\Flagged)";
        raw.talk(&format!("{OPEN}C a {store}\nS a {}", text(299_961)));
        assert_eq!((server.fired(), server.impatient()), (vec!["UID STORE throttle".to_owned()], Vec::new()));
        server.state().advance(Duration::from_millis(299_960));
        // Any command, on any connection.
        Raw::connect(&server).talk(&format!("C a {}\nS a {}", xoauth2("t0"), text(1)));
        assert_eq!(server.impatient().len(), 1);
        server.state().advance(Duration::from_millis(1));
        raw.talk(&format!("C b {store}\nS b OK…"));
        assert_eq!(server.impatient().len(), 1);
    }
}

#[test]
fn f07_unavailable() {
    let text = "NO Server Unavailable. 15";
    faulty("LIST", Fault::Answer(text.into()), &format!("C a LIST \"\" *\nS a {text}\nC b NOOP\nS b OK…"));
    let untagged = Fault::Script("Server Unavailable. 15\r\n".into());
    faulty("LIST", untagged, "C a LIST \"\" *\nS Server Unavailable. 15");
    let ending = Fault::Script("{tag} NO Server Unavailable. 15\r\n* BYE Connection closed.\r\n".into());
    faulty("LIST", ending, "C a LIST \"\" *\nS a NO Server Unavailable. 15\nS * BYE Connection closed.\nX");
}

#[test]
fn f08_messages_are_left_out() {
    for when in [When::Nth(1), When::First(2), When::Every] {
        let server = server(Profile::Exo2026);
        server.inject("UID FETCH", when, Fault::Omit(vec![2]));
        let mut raw = sign_in(&server);
        raw.talk(OPEN);
        for n in 1..4 {
            let omitted = match when {
                When::Nth(m) => n == m,
                When::First(m) => n <= m,
                When::Every => true,
            };
            let line = if omitted { "" } else { "S * 2 FETCH (UID 2)\n" };
            raw.talk(&format!("C a UID FETCH 1:2 UID\nS * 1 FETCH (UID 1)\n{line}S a OK FETCH completed."));
        }
        raw.talk("C b UID SEARCH UID 2\nS * SEARCH 2\nS b OK…");
        assert!(!server.fired().is_empty());
    }
}

#[test]
fn f09_a_message_that_cannot_be_converted() {
    let placeholder = |peek| Fault::Placeholder { uids: vec![2], peek };
    let text =
        "S MIME-Version: 1.0\nS Content-Type: text/plain; charset=\"us-ascii\"\nS From: Microsoft Exchange Server 2010
        S Subject: Retrieval using the IMAP4 protocol failed for the following message: 20004\nS 
        S The server couldn't retrieve the following message:\nS \nS Subject: \"Canceled\"\nS )\n";
    faulty(
        "UID FETCH",
        placeholder(false),
        "C a UID FETCH 2:3 BODY.PEEK[]\nS * 2 FETCH (UID 2)\nS * 3 FETCH (UID 3 BODY[] {21}\nS Subject: c\nS \nS three\nS )\nS a OK…",
    );
    faulty(
        "UID FETCH",
        placeholder(true),
        &format!("C a UID FETCH 2 BODY.PEEK[]\nS * 2 FETCH (UID 2 BODY[] {{…\n{text}S a OK…"),
    );
    faulty(
        "UID FETCH",
        placeholder(false),
        &format!("C a UID FETCH 2 BODY[]\nS * 2 FETCH (UID 2 BODY[] {{…\n{text}S * 2 FETCH (FLAGS (\\Seen))\nS a OK…"),
    );
}

#[test]
fn f10_one_message_fails_the_batch() {
    let server = server(Profile::Exo2026);
    let text = "NO The requested message could not be converted to an RFC-822 compatible format";
    server.inject("UID FETCH BODY.PEEK[]", When::Every, Fault::RefuseUids(vec![2], text.into()));
    sign_in(&server).talk(&format!(
        "{OPEN}C a UID FETCH 1:3 BODY.PEEK[]\nS a {text}
         C c UID FETCH 1:3 UID\nS * 1…\nS * 2…\nS * 3…\nS c OK…
         C d UID FETCH 3 BODY.PEEK[]<0.1>\nS * 3 FETCH (UID 3 BODY[]<0> {{1}}\nS S)\nS d OK…"
    ));
    assert_eq!(server.fired(), ["UID FETCH refuse-uids"]);
}

#[test]
fn f11_sizes_are_wrong() {
    for (sizes, said) in
        [(Sizes::Exact, 19), (Sizes::Estimated, 95), (Sizes::Tripled, 57), (Sizes::Third, 6), (Sizes::Zero, 0)]
    {
        with(
            |state| state.quirks.sizes = sizes,
            &format!("C a UID FETCH 1 (RFC822.SIZE)\nS * 1 FETCH (UID 1 RFC822.SIZE {said})\nS a OK…"),
        );
    }
}

#[test]
fn f12_bodies_are_not_stable() {
    let body = "Subject: a\nS \nS one\nS )\nS";
    with(
        |state| state.quirks.message_flag_header = true,
        &format!(
            "C a UID FETCH 1 BODY.PEEK[]\nS * 1 FETCH (UID 1 BODY[] {{19}}\nS {body} a OK…
             C b UID STORE 1 +FLAGS.SILENT (\\Flagged)\nS b OK…
             C c UID FETCH 1 BODY.PEEK[]\nS * 1 FETCH (UID 1 BODY[] {{46}}\nS X-Message-Flag: Follow up\nS {body} c OK…"
        ),
    );
    let other = |uid: u32, bytes: &[u8]| [format!("X: {uid}\r\n").as_bytes(), bytes].concat();
    faulty(
        "UID FETCH",
        Fault::Body(Arc::new(other)),
        &format!("C a UID FETCH 1 BODY.PEEK[]\nS * 1 FETCH (UID 1 BODY[] {{25}}\nS X: 1\nS {body} a OK…"),
    );
}

#[test]
fn f13_a_message_gets_another_uid() {
    let server = server(Profile::Exo2026);
    server.on_command("NOOP", 1, |state| drop(state.renumber("INBOX", 2).to_string()));
    sign_in(&server).talk(&format!(
        "{OPEN}C a NOOP\nS * 2 EXPUNGE\nS * 3 EXISTS\nS a OK…\nC b UID SEARCH ALL\nS * SEARCH 1 3 4\nS b OK…"
    ));
    assert_eq!(server.fired(), ["NOOP run"]);
}

#[test]
fn f14_a_mailbox_gets_another_uid_validity() {
    let server = server(Profile::Exo2026);
    server.state().renew("INBOX", 2, Duration::from_secs(60));
    let status = |validity: u32, n: u32| {
        format!(
            "C a STATUS INBOX (MESSAGES UIDVALIDITY UIDNEXT)\nS * STATUS Inbox (MESSAGES {n} UIDVALIDITY {validity} UIDNEXT {}) \nS a OK…",
            n + 1
        )
    };
    let validity = server.state().mailbox("INBOX").uid_validity;
    assert!(validity > 14);
    sign_in(&server).talk(&status(validity, 2));
    server.state().advance(Duration::from_secs(60));
    sign_in(&server).talk(&status(validity, 3));
}

#[test]
fn f15_a_move_that_moves_nothing() {
    let server =
        faulty("UID MOVE", Fault::MoveNothing, "C a UID MOVE 1 Archive\nS * OK [COPYUID 14  ]\nS a OK MOVE completed.");
    assert_eq!(server.state().messages("INBOX").len(), 3);
    with(
        |state| state.quirks.bare_copyuid = true,
        "C a UID MOVE 1 Archive\nS [COPYUID 14 1 1]\nS * 1 EXPUNGE\nS a OK MOVE completed.",
    );
}

#[test]
fn f16_an_append_is_refused_or_lost() {
    let x = |n: usize| "x".repeat(n);
    let server = with(
        |state| state.quirks.max_message = Some(10_000),
        &format!(
            "C a APPEND INBOX {{10001+}}\nC {}\nC {}\nS a NO Maximum size of appendable message has been exceeded
             C b APPEND INBOX {{9901+}}\nC {}\nS b BAD Command Argument Error. 11
             C c APPEND INBOX {{9900+}}\nC {}\nS * 4 EXISTS\nS c OK…",
            x(5000),
            x(4999),
            x(9901),
            x(9900)
        ),
    );
    assert_eq!(server.state().messages("INBOX").len(), 4);
    let server = faulty("APPEND", Fault::Close(At::Unanswered), "C a APPEND INBOX {1+}\nC x\nX");
    assert_eq!(server.state().messages("INBOX").len(), 4);
}

#[test]
fn f17_flagged_is_forgotten() {
    with(
        |state| state.quirks.append_forgets_flagged = true,
        "C a APPEND INBOX (\\Flagged \\Seen) {1+}\nC x\nS * 4 EXISTS\nS a OK [APPENDUID 14 4]…
         C b UID FETCH 4 FLAGS\nS * 4 FETCH (UID 4 FLAGS (\\Seen))\nS b OK…
         C c UID STORE 4 +FLAGS (\\Flagged)\nS * 4 FETCH (UID 4 FLAGS (\\Flagged \\Seen))\nS c OK…",
    );
}

#[test]
fn f18_keywords_are_not_kept() {
    let store = "C a UID STORE 2 +FLAGS (\\Seen Work)";
    with(|_| {}, &format!("{store}\nS * 2 FETCH (UID 2 FLAGS (\\Seen))\nS a OK STORE completed."));
    with(|state| state.quirks.unkept = Unkept::Refused, &format!("{store}\nS a NO STORE failed."));
}

#[test]
fn f19_other_shapes_of_answers() {
    with(
        |state| (state.quirks.loose_fetch, state.quirks.idle_news_first) = (true, true),
        "C a UID FETCH 1 (UID RFC822.SIZE BODY.PEEK[HEADER])
         S * 1 FETCH (BODY[HEADER] {14}\nS Subject: a\nS \nS  RFC822.SIZE 95 UID 1 FLAGS (\\Seen))\nS a OK…
         C b STATUS inbox (MESSAGES)\nS * STATUS Inbox (MESSAGES 3) \nS b OK…
         C c IDLE\nS * 3 EXISTS\nS + IDLE accepted, awaiting DONE command.\nC DONE\nS c OK…",
    );
}

#[test]
fn f20_sequence_numbers_that_are_none() {
    faulty("NOOP", Fault::stray(), "C a NOOP\nS * 99999 FETCH (FLAGS (\\Seen))\nS * 99999 EXPUNGE\nS a OK…");
}

#[test]
fn f21_idle_is_silent() {
    let server = server(Profile::Exo2026);
    server.state().quirks.idle_silent = true;
    let mut raw = sign_in(&server);
    raw.talk(&format!("{OPEN}C a IDLE\nS + IDLE…"));
    server.state().append("INBOX", b"new", &[], 0);
    raw.talk("C DONE\nS a OK IDLE completed.\nC b NOOP\nS * 4 EXISTS\nS b OK…");
}

#[test]
fn f22_long_lines_and_many_mistakes() {
    let store = |length: usize| {
        let head = "UID STORE 1 +FLAGS.SILENT (";
        format!("{head}{})", "k".repeat(length - head.len() - 3))
    };
    let server = with(
        |_| {},
        &format!(
            "C a {}\nS a OK…\nC b {}\nS b BAD Command Argument Error. 12\nC c NOOP\nS c OK…",
            store(4096),
            store(4097)
        ),
    );
    assert_eq!(server.violations().len(), 1);
    let bad = "C a XYZZY\nS a BAD Command Error. 10\n";
    let server = with(|_| {}, &format!("{}S * BYE Connection closed. 14\nX", bad.repeat(10)));
    assert_eq!(server.violations().len(), 10);
    with(|state| state.quirks.max_line = 10_240, &format!("C a {}\nS a OK…", store(10_240)));
}

#[test]
fn f23_names_with_quotes_and_tabs() {
    let server = with(
        |state| state.create("a\tb"),
        "C a CREATE \"x\\\"y\"\nS a BAD Command Argument Error. 12\nC b CREATE {3+}\nC x\"y\nS b OK…
         C c LIST \"\" x%\nS * LIST (\\HasNoChildren) \"/\" \"x\\\"y\"\nS c OK…
         C d LIST \"\" a%b\nS * LIST (\\HasNoChildren) \"/\" a\tb\nS d OK…",
    );
    assert_eq!(server.violations().len(), 1);
}

#[test]
fn f24_imap4rev2_does_not_work() {
    let bug = "NO [SERVERBUG] Internal server error";
    let list = "C b LIST \"\" Notes\nS * LIST (\\HasNoChildren) \"/\" Notes\nS b OK…";
    let server = server(Profile::Exo2026Rev2);
    sign_in(&server).talk(&format!(
        "{list}\n{list}\nC c LSUB \"\" *\nS c BAD Command Argument Error. 11\nC d LIST \"\" *\nS d {bug}"
    ));
    sign_in(&server).talk(&format!(
        "C a ENABLE IMAP4rev2\nS * ENABLED IMAP4rev2\nS a OK…\n{list}\nC c LIST \"\" *\nS c {bug}
         {OPEN}C d UID SEARCH ALL\nS * ESEARCH (TAG \"d\") UID\nS d OK…"
    ));
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn f25_too_many_connections() {
    let server = server(Profile::Exo2026);
    server.state().quirks.max_connections = Some(2);
    let (mut first, mut second) = (sign_in(&server), sign_in(&server));
    sign_in(&server).talk(NOWHERE);
    first.talk("C a NOOP\nS a OK…");
    second.talk("C a LOGOUT\nS * BYE…\nS a OK…\nX");
    sign_in(&server).talk("C a NOOP\nS a OK…");
}

#[test]
fn f26_commands_that_are_sent_ahead() {
    let table = [
        (Pipelining::Answered, "S a OK…\nS b OK…", 0),
        (Pipelining::Refused, "S a OK…\nS b BAD Command received in Invalid state.", 1),
        (Pipelining::Dropped, "S a OK…", 0),
        (Pipelining::Reordered, "S b OK…\nS a OK…", 0),
    ];
    for (how, answers, violations) in table {
        let server = server(Profile::Exo2026);
        server.state().quirks.pipelining = how;
        let mut raw = sign_in(&server);
        raw.0.get_mut().write_all(b"a NOOP\r\nb CHECK\r\n").unwrap();
        raw.talk(&format!("{}\nC c NOOP\nS c OK…", answers.replace("b OK…", "b…")));
        assert_eq!(server.violations().iter().filter(|v| v.contains("sent before")).count(), violations, "{how:?}");
    }
}

#[test]
fn f27_the_copy_of_a_sent_message_comes_late() {
    let server = server(Profile::Exo2026);
    server.state().later(Duration::from_secs(15 * 60), |state| {
        let text = "Message-ID: <new@outlook.com>\r\nX-Microsoft-Original-Message-ID: <old@here>\r\n\r\nhi\r\n";
        state.append("Sent", text.as_bytes(), &["\\Seen"], 0);
    });
    let status = |n: u32| format!("C a STATUS Sent (MESSAGES)\nS * STATUS Sent (MESSAGES {n}) \nS a OK…");
    let mut raw = sign_in(&server);
    raw.talk(&status(0));
    server.state().advance(Duration::from_secs(15 * 60 - 1));
    raw.talk(&status(0));
    server.state().advance(Duration::from_secs(1));
    raw.talk(&status(1));
}

#[test]
fn f28_stored_flags_show_late() {
    let server = server(Profile::Exo2026);
    server.state().quirks.store_lag = Some(Duration::from_secs(2));
    let mut raw = sign_in(&server);
    let fetch = |flags: &str| format!("C f UID FETCH 1 FLAGS\nS * 1 FETCH (UID 1 FLAGS ({flags}))\nS f OK…\n");
    let store = "C s UID STORE 1 +FLAGS.SILENT (\\Flagged)\nS s OK…\n";
    raw.talk(&format!("{OPEN}{store}{}C c CHECK\nS c OK…\n{}", fetch("\\Seen"), fetch("\\Flagged \\Seen")));
    raw.talk(&format!("C s UID STORE 1 -FLAGS.SILENT (\\Flagged)\nS s OK…\n{}", fetch("\\Flagged \\Seen")));
    server.state().advance(Duration::from_secs(2));
    raw.talk(&fetch("\\Seen"));
}

#[test]
fn f29_passwords_are_not_taken() {
    let refused =
        "S a NO Basic authentication is disabled.\nS * BYE Microsoft Exchange Server IMAP4 server signing off.\nX";
    let server = server(Profile::Exo2026);
    Raw::connect(&server).talk(&format!("C a LOGIN user secret\n{refused}"));
    assert_eq!(server.violations().len(), 1, "LOGINDISABLED was announced");
    let server = super::outlook::server(Profile::ExoClassic);
    Raw::connect(&server).talk("C a LOGIN user secret\nS a OK LOGIN completed.");
    Raw::connect(&server).talk("C a LOGIN user wrong\nS a NO LOGIN failed.");
    server.state().quirks.basic_auth = false;
    Raw::connect(&server).talk(&format!("C a LOGIN user secret\n{refused}"));
    Raw::connect(&server).talk(&format!("C a AUTHENTICATE PLAIN AHVzZXIAc2VjcmV0\n{refused}"));
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn f30_names_that_differ_in_case() {
    with(
        |_| {},
        "C a CREATE Work\nS a OK…\nC b CREATE work\nS b NO Mailbox already exists.
         C c APPEND WORK {1+}\nC x\nS c OK [APPENDUID…\nC d RENAME work sent\nS d NO Mailbox already exists.
         C e CREATE Files\nS e NO Folder name is reserved",
    );
}
