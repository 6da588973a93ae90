//! Servers that refuse, lie, stop halfway, or never end.

use std::future::Future;
use std::pin::Pin;

use proptest::prelude::*;

use super::*;
use crate::model::FlagChange;

type Run = for<'a> fn(&'a mut Session) -> Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

/// Every command, each as a call that succeeds if the server says OK.
fn commands() -> Vec<(&'static str, Run)> {
    fn done<T>(result: Result<T, Error>) -> Result<(), Error> {
        result.map(|_| ())
    }
    vec![
        ("select", |s| Box::pin(async { done(s.select(&inbox()).await) })),
        ("observe", |s| Box::pin(async { done(s.observe(&inbox(), None, false).await) })),
        ("list", |s| Box::pin(async { done(s.list().await) })),
        ("present", |s| Box::pin(async { done(s.present(&set(&[2])).await) })),
        ("flags", |s| Box::pin(async { done(s.flags(&set(&[2])).await) })),
        ("sizes", |s| Box::pin(async { done(s.sizes(&set(&[2])).await) })),
        ("fingerprints", |s| Box::pin(async { done(s.fingerprints(&set(&[2])).await) })),
        ("bodies", |s| Box::pin(async { bodies(s, &set(&[2])).await.0 })),
        ("store", |s| {
            Box::pin(async {
                let change = FlagChange { add: flags(&["\\Seen"]), remove: flags(&["\\Draft"]) };
                done(s.store(&set(&[2]), &change, None).await)
            })
        }),
        ("append", |s| {
            Box::pin(async {
                done(s.append(&inbox(), vec![outgoing(b"x", &[])]).await.and_then(|mut all| all.remove(0)))
            })
        }),
        ("move", |s| Box::pin(async { done(s.move_to(&set(&[2]), &inbox()).await) })),
        ("expunge", |s| Box::pin(async { s.expunge(&set(&[2])).await })),
        ("create", |s| Box::pin(async { s.create(&inbox()).await })),
        ("rename", |s| Box::pin(async { s.rename(&RawName::new(b"a"), &RawName::new(b"b")).await })),
        ("unselect", |s| Box::pin(async { s.unselect().await })),
        ("noop", |s| Box::pin(async { s.noop().await })),
        ("idle", |s| Box::pin(async { done(s.idle(async {}, Duration::from_secs(9), |_| ()).await) })),
    ]
}

/// A signed-in session with INBOX selected; what the server says to the next command is up to the caller.
async fn selected(stream: DuplexStream) -> Session {
    let mut session = sign_in(Box::new(stream), &connect(), &password()).await.unwrap();
    session.select(&inbox()).await.unwrap();
    session
}

fn head(capabilities: &str) -> Vec<(String, Vec<u8>)> {
    let mut lines = introduction(capabilities);
    lines.push((SELECT.0.to_owned(), SELECT.1.to_vec()));
    lines
}

const GREETING: &str = "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hello\r\n";
/// Without LITERAL+, so that a refused APPEND leaves no bytes behind that look like a command.
const SOME: &str = "IMAP4rev1 NAMESPACE UIDPLUS MOVE UNSELECT IDLE";

#[tokio::test]
async fn a_refusal_of_any_command_is_an_error() {
    for (name, run) in commands() {
        for (answer, bad) in [(&b"% NO [CANNOT] \x1b[31mno\r\n"[..], false), (b"% BAD what\r\n", true)] {
            let mut script: Vec<(String, Vec<u8>)> = head(SOME);
            // `store` is the only one with two on their way at once.
            let count = if name == "store" { 2 } else { 1 };
            script.extend((0..count).map(|_| (String::new(), answer.to_vec())));
            script.push(("NOOP".into(), b"% OK x\r\n".to_vec()));
            let script: Vec<(&str, &[u8])> = script.iter().map(|(c, a)| (c.as_str(), a.as_slice())).collect();
            let (stream, server) = serve(GREETING, &script, 1);
            let mut session = selected(stream).await;
            let error = run(&mut session).await.expect_err(name);
            match &error {
                Error::Refused { code, text, .. } => {
                    assert!(!bad && code == "CANNOT" && text == "[31mno", "{name}: {error}")
                }
                Error::Bad { .. } => assert!(bad, "{name}"),
                other => panic!("{name}: {other}"),
            }
            session.noop().await.unwrap_or_else(|e| panic!("out of step after {name}: {e}"));
            drop(session);
            assert_eq!(server.await.unwrap(), script.len());
        }
    }
}

#[tokio::test]
async fn a_server_that_is_unwell_is_left_alone() {
    for (answer, pause) in [
        (&b"% BAD User is authenticated but not connected.\r\n* BYE Connection closed. 14\r\n"[..], None),
        (b"Server Unavailable. 15\r\n", None),
        (b"% NO Request is throttled. Suggested Backoff Time: 92415 milliseconds\r\n", Some(92_415)),
    ] {
        for (name, run) in commands() {
            let mut script = head(SOME);
            script.push((String::new(), answer.to_vec()));
            let script: Vec<(&str, &[u8])> = script.iter().map(|(c, a)| (c.as_str(), a.as_slice())).collect();
            let (stream, _server) = serve(GREETING, &script, usize::MAX);
            let mut session = selected(stream).await;
            match run(&mut session).await.expect_err(name) {
                Error::Unavailable { .. } | Error::NotConnected { .. } => assert_eq!(pause, None, "{name}"),
                Error::Throttled { pause: said, .. } => assert_eq!(Some(said), pause.map(Duration::from_millis)),
                // It hung up before it answered the second of two.
                Error::Closed { .. } if name == "store" => {}
                other => panic!("{name}: {other}"),
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_at_any_byte_is_an_error() {
    let fetch = b"* 1 FETCH (UID 2 FLAGS (\\Seen) INTERNALDATE \"01-Jan-2020 00:00:00 +0000\" RFC822.SIZE 4\
        \x20BODY[HEADER] {1}\r\nx BODY[] {4}\r\na\r\nb)\r\n\
        * 2 FETCH (UID 5 FLAGS () BODY[] NIL)\r\n* 3 FETCH (UID 9 FLAGS ())\r\n% OK done\r\n";
    let select = b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 10] x\r\n% OK done\r\n";
    let list = b"* LIST () \"/\" INBOX\r\n* STATUS INBOX (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 7)\r\n% OK done\r\n";
    let ok = b"* OK [COPYUID 1 2 3] x\r\n% OK [APPENDUID 7 20] done\r\n";
    let by_name = |name: &str| commands().into_iter().find(|(n, _)| *n == name).unwrap().1;
    let table: [(&str, Run, &[u8]); 8] = [
        ("select", by_name("select"), select),
        ("list", by_name("list"), list),
        ("present", by_name("present"), fetch),
        ("flags", by_name("flags"), fetch),
        ("fingerprints", by_name("fingerprints"), fetch),
        ("bodies", by_name("bodies"), fetch),
        ("move", by_name("move"), ok),
        ("noop", by_name("noop"), ok),
    ];
    let capabilities = "NAMESPACE MOVE UIDPLUS LIST-EXTENDED LIST-STATUS";
    for (name, run, answer) in table {
        // In full it succeeds.
        for cut in 0..=answer.len() {
            let mut script = head(capabilities);
            script.push((String::new(), answer[..cut].to_vec()));
            let script: Vec<(&str, &[u8])> = script.iter().map(|(c, a)| (c.as_str(), a.as_slice())).collect();
            let (stream, _server) = serve(GREETING, &script, usize::MAX);
            let mut session = selected(stream).await;
            let result = run(&mut session).await;
            // Whether the last line end is CRLF or only CR is the only thing that may be missing.
            if cut == answer.len() {
                result.unwrap_or_else(|e| panic!("{name}: {e}"));
            } else {
                let error = result.expect_err(name);
                assert!(matches!(error, Error::Closed { .. }), "{name} at {cut}: {error}");
                assert!(matches!(session.noop().await, Err(Error::Closed { .. })), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_are_errors_and_do_no_harm() {
    let observe: Run = |s| Box::pin(async { s.observe(&inbox(), None, true).await.map(|_| ()) });
    let list: [&[u8]; 9] = [
        b"* 1 FETCH (UID 2)\r\n% OK x\r\n",
        b"* 1 FETCH (UID 2 FLAGS (a{b))\r\n% OK x\r\n",
        b"* 1 FETCH (UID 2 FLAGS (\xff))\r\n% OK x\r\n",
        b"* 1 FETCH (UID 0 FLAGS ())\r\n% OK x\r\n",
        b"* 1 FETCH (UID 4294967296 FLAGS ())\r\n% OK x\r\n",
        b"* 1 FETCH  (UID 2 FLAGS ())\r\n% OK x\r\n",
        b"* 1 FETCH (UID 2 FLAGS (\r\n% OK x\r\n",
        b"* VANISHED 0\r\n% OK x\r\n",
        b"* 99999999999 EXISTS\r\n% OK x\r\n",
    ];
    for answer in list {
        let script: &Script<'_> = &[SELECT, ("UID FETCH", answer), ("NOOP", b"% OK x\r\n")];
        let error = play(BARE, script, async |s| {
            let error = observe(s).await.unwrap_err();
            s.noop().await.unwrap();
            error
        })
        .await;
        assert!(matches!(error, Error::Nonsense { mailbox: Some(_), .. }), "{error}");
        assert_eq!(error.scope(), Scope::Mailbox);
    }
    let select: [&[u8]; 6] = [
        b"% OK x\r\n",
        b"* 3 EXISTS\r\n% OK x\r\n",
        b"* 3 EXISTS\r\n* OK [UIDVALIDITY 0] x\r\n% OK x\r\n",
        b"* 3 EXISTS\r\n* OK [UIDVALIDITY 4294967296] x\r\n% OK x\r\n",
        b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 0] x\r\n% OK x\r\n",
        b"* -3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n% OK x\r\n",
    ];
    for answer in select {
        let error = play(BARE, &[("SELECT", answer)], async |s| s.select(&inbox()).await.unwrap_err()).await;
        assert!(matches!(error, Error::Nonsense { mailbox: Some(_), .. }), "{error}");
    }
    let lists: [&[u8]; 3] =
        [b"% OK x\r\n", b"* LIST () \"/\" Other\r\n% OK x\r\n", b"* LIST (\r\n* LIST () \"/\" INBOX\r\n% OK x\r\n"];
    for answer in lists {
        let error = play(BARE, &[("LIST \"\" \"*\"", answer)], async |s| s.list().await.unwrap_err()).await;
        assert!(matches!(error, Error::Nonsense { mailbox: None, .. }), "{error}");
    }
    // UIDs that were not asked for.
    let script: &Script<'_> = &[SELECT, ("UID MOVE 2", b"* OK [COPYUID 1 3 4] x\r\n% OK x\r\n")];
    let error = play("MOVE", script, async |s| {
        s.select(&inbox()).await.unwrap();
        s.move_to(&set(&[2]), &RawName::new(b"x")).await.unwrap_err()
    })
    .await;
    assert!(matches!(error, Error::Nonsense { .. }), "{error}");
}

#[tokio::test]
async fn one_bad_message_does_not_stop_the_others() {
    let answer =
        b"* 1 FETCH (UID 2 FLAGS (a{b) BODY[] {1}\r\nx)\r\n* 2 FETCH (UID 5 FLAGS () BODY[] {1}\r\ny)\r\n% OK x\r\n";
    let script: &Script<'_> = &[SELECT, ("UID FETCH 2,5", answer)];
    let (result, all) = play(BARE, script, async |s| {
        s.select(&inbox()).await.unwrap();
        bodies(s, &set(&[2, 5])).await
    })
    .await;
    assert!(matches!(result, Err(Error::Nonsense { .. })));
    assert_eq!(all.len(), 1);
}

#[tokio::test]
async fn a_body_that_is_too_large_names_its_message() {
    let answer =
        b"* 1 FETCH (UID 2 FLAGS () BODY[] {1}\r\nx)\r\n* 2 FETCH (UID 5 FLAGS () BODY[] {4294967296}\r\nyyyyy";
    let script: &Script<'_> = &[SELECT, ("UID FETCH 2,5", answer)];
    let (result, all) = play(BARE, script, async |s| {
        s.select(&inbox()).await.unwrap();
        let both = bodies(s, &set(&[2, 5])).await;
        assert!(matches!(s.noop().await, Err(Error::Closed { .. })));
        both
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "message 5 of 4294967296 bytes is larger than max_message_size (1048576 bytes)");
    assert_eq!((all.len(), error.scope()), (1, Scope::Message));
}

#[tokio::test]
async fn signing_in_fails_for_a_reason() {
    let token = || Credentials::Token { username: "u".into(), token: Secret::new("canary".into()) };
    let ready = "* OK ready\r\n";
    let xoauth: (&str, &[u8]) = ("CAPABILITY", b"* CAPABILITY AUTH=XOAUTH2 SASL-IR\r\n% OK x\r\n");
    type Row<'a> = (&'a str, Credentials, &'a Script<'a>, fn(&Error) -> bool);
    let table: [Row<'_>; 11] = [
        ("* PREAUTH come in\r\n", password(), &[], |e| matches!(e, Error::Configuration(_))),
        ("* BYE Too many connections\r\n", password(), &[], |e| matches!(e, Error::TurnedAway { .. })),
        ("220 smtp.example.org ESMTP\r\n", password(), &[], |e| matches!(e, Error::Protocol(_))),
        ("", password(), &[], |e| matches!(e, Error::Closed { .. })),
        (ready, password(), &[("CAPABILITY", b"* CAPABILITY LOGINDISABLED\r\n% OK x\r\n")], |e| {
            matches!(e, Error::SignIn { .. })
        }),
        (ready, token(), &[("CAPABILITY", b"* CAPABILITY AUTH=PLAIN\r\n% OK x\r\n")], |e| {
            matches!(e, Error::SignIn { .. })
        }),
        (
            ready,
            token(),
            &[xoauth, ("AUTHENTICATE", b"% NO AUTHENTICATE failed.\r\n")],
            |e| matches!(e, Error::SignIn { text } if text == "AUTHENTICATE failed."),
        ),
        // Google's way: the reason as a challenge, which wants an empty line.
        (ready, token(), &[xoauth, ("AUTHENTICATE", b"+ eyJzdGF0dXMiOiI0MDAifQ==\r\n"), (">", b"% NO bad\r\n")], |e| {
            matches!(e, Error::SignIn { .. })
        }),
        (ready, token(), &[xoauth, ("AUTHENTICATE", b"+\r\n+\r\n+\r\n+\r\n+\r\n")], |e| {
            matches!(e, Error::Protocol(_))
        }),
        (ready, token(), &[xoauth, ("AUTHENTICATE", b"% NO [UNAVAILABLE] later\r\n")], |e| {
            matches!(e, Error::TurnedAway { .. })
        }),
        (
            ready,
            token(),
            &[
                xoauth,
                ("AUTHENTICATE", b"% OK [CAPABILITY ID] in\r\n"),
                ("ID", b"% BAD User is authenticated but not connected.\r\n"),
            ],
            |e| matches!(e, Error::NotConnected { .. }),
        ),
    ];
    for (i, (greeting, credentials, script, expected)) in table.into_iter().enumerate() {
        for chunk in [1, usize::MAX] {
            let (stream, _server) = serve(greeting, script, chunk);
            let error = sign_in(Box::new(stream), &connect(), &credentials).await.unwrap_err();
            assert!(expected(&error), "row {i}: {error:?}");
            assert!(!format!("{error} {error:?} {credentials:?}").contains("canary"));
        }
    }
}

#[tokio::test]
async fn the_last_words_of_the_server_are_kept() {
    let script: &Script<'_> = &[SELECT, ("NOOP", b"* BYE Session invalidated - AccessTokenExpired\r\n")];
    let error = play(BARE, script, async |s| {
        s.select(&inbox()).await.unwrap();
        s.noop().await.unwrap_err()
    })
    .await;
    assert!(matches!(&error, Error::TokenExpired { text } if text == "Session invalidated - AccessTokenExpired"));
    assert_eq!(error.retry(), Retry::Now);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_command_but_slowness_does_not() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let server = tokio::spawn(async move {
        far.write_all(b"* OK [CAPABILITY IMAP4rev1] x\r\n").await.unwrap();
        let mut buf = vec![0; 4096];
        for answer in ["A1 OK [CAPABILITY NAMESPACE] x\r\n", "A2 OK x\r\n", "* OK a very slow answer\r\nA3 OK x\r\n"] {
            let _ = far.read(&mut buf).await.unwrap();
            for byte in answer.as_bytes() {
                // 80 s a byte: less than the 90 of the timeout, but hours for the whole.
                tokio::time::sleep(Duration::from_secs(80)).await;
                far.write_all(&[*byte]).await.unwrap();
            }
        }
        // And now nothing, on an open connection.
        std::future::pending::<()>().await;
    });
    let mut s = sign_in(Box::new(near), &connect(), &password()).await.unwrap();
    s.noop().await.unwrap();
    let begin = tokio::time::Instant::now();
    let error = s.noop().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut(_)), "{error}");
    assert_eq!(begin.elapsed().as_secs(), 90);
    assert!(matches!(s.noop().await, Err(Error::Closed { .. })));
    server.abort();
}

#[tokio::test]
async fn a_future_that_is_dropped_halfway_closes_the_session() {
    let script: &Script<'_> = &[SELECT, ("UID FETCH", b"* 1 FETCH (UID 2)\r\n")];
    let mut all: Vec<(String, Vec<u8>)> = introduction(BARE);
    all.extend(script.iter().map(|(c, a)| ((*c).to_owned(), a.to_vec())));
    all.push(("NEVER".into(), Vec::new()));
    let all: Vec<(&str, &[u8])> = all.iter().map(|(c, a)| (c.as_str(), a.as_slice())).collect();
    let (stream, _server) = serve(GREETING, &all, usize::MAX);
    let mut s = selected(stream).await;
    let uids = set(&[2]);
    tokio::select! {
        biased;
        result = s.present(&uids) => panic!("{result:?}"),
        () = async { for _ in 0..100 { tokio::task::yield_now().await } } => {}
    }
    assert!(matches!(s.noop().await, Err(Error::Closed { .. })));
}

#[tokio::test]
async fn a_message_that_changes_while_it_is_read_is_not_appended() {
    for content in [&b"short"[..], b"longer than announced"] {
        let mut all: Vec<(String, Vec<u8>)> = head("LITERAL+");
        all.push(("APPEND".into(), Vec::new()));
        all.push((">".into(), b"% OK x\r\n".to_vec()));
        let all: Vec<(&str, &[u8])> = all.iter().map(|(c, a)| (c.as_str(), a.as_slice())).collect();
        let (stream, server) = serve(GREETING, &all, usize::MAX);
        let mut s = selected(stream).await;
        let message = Outgoing { length: 10, ..outgoing(content, &[]) };
        let error = s.append(&inbox(), vec![message]).await.unwrap_err();
        assert!(matches!(error, Error::Local { .. }), "{error}");
        drop(s);
        assert!(server.await.unwrap() < all.len(), "the message was sent as if it were whole");
    }
}

#[tokio::test]
async fn far_too_many_answers_end_the_connection() {
    let flood = b"* 1 FETCH (UID 2)\r\n".repeat(60_000);
    let script: &Script<'_> = &[SELECT, ("UID FETCH", &flood)];
    let error = play_in(BARE, script, usize::MAX, async |s| {
        s.select(&inbox()).await.unwrap();
        s.present(&set(&[2])).await.unwrap_err()
    })
    .await;
    assert!(matches!(error, Error::Protocol(_)), "{error}");
}

#[tokio::test]
async fn large_answers_take_no_more_than_linear_time() {
    // A SEARCH of 4 MB on one line.
    let numbers: String = (1..=500_000).map(|n| format!(" {n}")).collect();
    let search = format!("* SEARCH{numbers}\r\n% OK x\r\n");
    let select = b"* 500000 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 500001] x\r\n\
        * OK [HIGHESTMODSEQ 9] x\r\n% OK x\r\n";
    let script: &Script<'_> = &[("SELECT", select), ("UID FETCH", b"% OK x\r\n"), ("UID SEARCH", search.as_bytes())];
    let since = crate::model::Cursor {
        uid_validity: crate::model::UidValidity::new(7).unwrap(),
        uid_next: uid(500_001),
        highest_mod_seq: crate::model::ModSeq::new(9).ok(),
        messages: 500_000,
        unseen: None,
    };
    let (listing, time) = play_in("CONDSTORE", script, usize::MAX, async |s| {
        let begin = cpu();
        let observation = s.observe(&inbox(), Some(&since), false).await.unwrap();
        (observation.listing, cpu() - begin)
    })
    .await;
    assert_eq!(listing, Listing::Changed { uids: UidSet::range(uid(1), uid(500_000)) });
    assert!(time.as_secs_f64() < 1.0, "{time:?}");
}

#[tokio::test]
async fn a_listing_of_200_000_messages_is_not_quadratic() {
    let lines = |n: u32| (1..=n).map(|n| format!("* {n} FETCH (UID {n} FLAGS (\\Seen))\r\n")).collect::<String>();
    let mut times = Vec::new();
    for count in [20_000_u32, 200_000] {
        let select = format!("* {count} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 4294967295] x\r\n% OK x\r\n");
        // All of them in the first part: how UIDs are spread is not in our hands.
        let first = lines(count) + "% OK x\r\n";
        let parts = count.div_ceil(20_000) as usize;
        let mut script = vec![("SELECT", select.as_bytes()), ("UID FETCH 1:", first.as_bytes())];
        script.extend((1..parts).map(|_| ("UID FETCH", &b"% OK x\r\n"[..])));
        let time = play_in(BARE, &script, usize::MAX, async |s| {
            let begin = cpu();
            let observation = s.observe(&inbox(), None, true).await.unwrap();
            assert_eq!(observation.messages.len(), count as usize);
            cpu() - begin
        })
        .await;
        times.push(time);
    }
    // Ten times the messages, ten times the time; quadratic would be a hundred.
    assert!(times[1] < times[0] * 30, "{times:?}");
}

#[tokio::test]
async fn bodies_stream_fast() {
    let body = vec![b'x'; 8400];
    let line =
        |n: u32| [format!("* {n} FETCH (UID {n} FLAGS () BODY[] {{8400}}\r\n").as_bytes(), &body, b")\r\n"].concat();
    let part = |from: u32| [(from..from + 500).flat_map(line).collect::<Vec<u8>>(), b"% OK x\r\n".to_vec()].concat();
    let parts: Vec<Vec<u8>> = (0..8).map(|i| part(i * 500 + 1)).collect();
    let mut script = vec![SELECT];
    script.extend(parts.iter().map(|p| ("UID FETCH", p.as_slice())));
    let (size, time) = play_in(BARE, &script, usize::MAX, async |s| {
        s.select(&inbox()).await.unwrap();
        let begin = cpu();
        let (send, mut receive) = tokio::sync::mpsc::channel(512);
        let uids = UidSet::range(uid(1), uid(4000));
        let (result, size) = tokio::join!(s.bodies(&uids, send), async {
            let mut size = 0;
            while let Some(fetched) = receive.recv().await {
                size += fetched.body.len();
            }
            size
        });
        result.unwrap();
        (size, cpu() - begin)
    })
    .await;
    assert_eq!(size, 4000 * 8400);
    // 34 MB, server included: 0.1 s in a build without optimisation.
    assert!(time.as_secs_f64() < 1.0, "{time:?}");
}

/// Answers from well-formed to rubbish, in any order.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let lines = prop::sample::select(vec![
        &b"* 3 EXISTS\r\n"[..],
        b"* 4294967295 EXISTS\r\n",
        b"* 1 EXPUNGE\r\n",
        b"* VANISHED (EARLIER) 1:4294967295\r\n",
        b"* VANISHED 2:3\r\n",
        b"* OK [UIDVALIDITY 7] x\r\n",
        b"* OK [HIGHESTMODSEQ 18446744073709551615] x\r\n",
        b"* OK [CLOSED]\xc3\xa9\r\n",
        b"* OK [COPYUID 1 4294967295 1:4294967295]\r\n",
        b"* 1 FETCH (UID 2 FLAGS () INTERNALDATE NIL RFC822.SIZE 4294967295 BODY[] {3}\r\n\
        * \n BODY[HEADER] \"\\\"\")\r\n",
        b"* 2 FETCH (UID 2 MODSEQ (0) FLAGS (\\Seen \xff))\r\n",
        b"* LIST (\\Noselect) \"&\" \"INBOX\"\r\n",
        b"* STATUS \"\" (MESSAGES 99999999999)\r\n",
        b"* SEARCH 4294967295 1 1\r\n",
        b"* ESEARCH UID ALL 1:4294967295\r\n",
        b"* BYE\r\n",
        b"+\r\n",
        b"% OK [APPENDUID 7 4294967295] x\r\n",
        b"% OK [MODIFIED 1:4294967295] x\r\n",
        b"% NO [] \r\n",
        b"A1 OK late\r\n",
        b"{5}\r\n",
        b"\r\n",
    ]);
    let rubbish = prop::collection::vec(prop::sample::select(&b"*()[]{}\"\\ %A+0129\r\n\xff\0"[..]), 0..20);
    let piece = prop_oneof![4 => lines.prop_map(<[u8]>::to_vec), 1 => rubbish];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_server_makes_it_panic_or_wait_for_ever(first in anything(), second in anything()) {
        // The clock stands still as long as anybody has something to do, so waiting takes no time.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        for (name, run) in commands() {
            let mut script = head(FULL);
            script.extend([&first, &second].map(|answer| (String::new(), [answer.as_slice(), b"% OK x\r\n"].concat())));
            let script: Vec<(&str, &[u8])> = script.iter().map(|(c, a)| (c.as_str(), a.as_slice())).collect();
            let ended = runtime.block_on(async {
                let (stream, _server) = serve(GREETING, &script, usize::MAX);
                let mut session = selected(stream).await;
                tokio::time::timeout(Duration::from_secs(3600), async {
                    let _ = run(&mut session).await;
                    let _ = session.noop().await;
                })
                .await
            });
            prop_assert!(ended.is_ok(), "{} hangs", name);
        }
    }
}
