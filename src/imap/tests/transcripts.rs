//! Servers that behave, each in its own way.

use super::*;
use crate::model::{Cursor, FlagChange, MailboxName, ModSeq};

fn cursor(validity: u64, next: u64, mod_seq: Option<u64>) -> Cursor {
    Cursor {
        uid_validity: crate::model::UidValidity::new(validity).unwrap(),
        uid_next: uid(next),
        highest_mod_seq: mod_seq.map(|n| ModSeq::new(n).unwrap()),
        messages: 3,
        unseen: None,
    }
}

/// What an observation comes to: listing, UIDs with flags, EXISTS.
fn said(o: &Observation) -> (String, String, u32) {
    let messages: Vec<String> = o.messages.iter().map(|(uid, m)| format!("{uid}{}", m.flags)).collect();
    (format!("{:?}", o.listing), messages.join(" "), o.exists)
}

#[tokio::test]
async fn signing_in_in_all_ways() {
    let token = Credentials::Token { username: "u".into(), token: Secret::new("t".into()) };
    let odd = Credentials::Password { username: "u\"".into(), password: Secret::new("p\\\u{e9}".into()) };
    let (x, ok) = ("dXNlcj11AWF1dGg9QmVhcmVyIHQBAQ==", &b"% OK in\r\n"[..]);
    let last: [(&str, &[u8]); 2] =
        [("CAPABILITY", b"* CAPABILITY IMAP4rev1 NAMESPACE IDLE\r\n% OK x\r\n"), ("NAMESPACE", b"% OK x\r\n")];
    let x_at_once = format!("AUTHENTICATE XOAUTH2 {x}");
    let (x_line, p_line) = (format!(">{x}"), ">AHUAY2FuYXJ5");
    let table: [(&str, &Credentials, &Script<'_>); 7] = [
        ("AUTH=XOAUTH2 SASL-IR LOGINDISABLED", &token, &[(&x_at_once, ok)]),
        ("AUTH=XOAUTH2 LOGINDISABLED", &token, &[("AUTHENTICATE XOAUTH2", b"+\r\n"), (&x_line, ok)]),
        ("AUTH=PLAIN", &password(), &[("AUTHENTICATE PLAIN", b"* OK hm\r\n+ \r\n"), (p_line, ok)]),
        ("X", &password(), &[("LOGIN \"u\" \"canary\"", ok)]),
        ("LITERAL+", &odd, &[("LOGIN {2+}", b""), (">u\" {4+}", b""), (">p\\\u{e9}", ok)]),
        ("X", &odd, &[("LOGIN {2}", b"+ go\r\n"), (">u\" {4}", b"+ go\r\n"), (">p\\\u{e9}", ok)]),
        // The code that Exchange once gave is none, and hides no capability.
        ("X", &password(), &[("LOGIN", b"% OK [Error=\"Cross Server access\" Proxy=X.OUTLOOK.COM:1993:SSL] done\r\n")]),
    ];
    for (capabilities, credentials, script) in table {
        for chunk in [1, usize::MAX] {
            let first: (&str, Vec<u8>) =
                ("CAPABILITY", format!("* CAPABILITY {capabilities}\r\n% OK x\r\n").into_bytes());
            let all: Vec<(&str, &[u8])> =
                [(first.0, first.1.as_slice())].into_iter().chain(script.iter().copied()).chain(last).collect();
            let (stream, server) = serve("* OK ready\r\n", &all, chunk);
            let session = sign_in(Box::new(stream), &connect(), credentials).await.unwrap();
            assert!(session.capabilities().has("idle") && !session.capabilities().has("AUTH=XOAUTH2"));
            drop(session);
            assert_eq!(server.await.unwrap(), all.len());
        }
    }
}

#[tokio::test]
async fn observations_by_each_way_agree() {
    let full = "SELECT \"INBOX\" (CONDSTORE)";
    let head = b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 10] x\r\n* OK [HIGHESTMODSEQ 90] x\r\n";
    let select = [&head[..], b"% OK x\r\n"].concat();
    let list = b"* 1 FETCH (UID 2 FLAGS (\\Seen) MODSEQ (5))\r\n* 2 FETCH (FLAGS (a) UID 5)\r\n\
                 * 3 FETCH (MODSEQ (90) UID 9 FLAGS ())\r\n% OK x\r\n";
    let script: &Script<'_> = &[(full, &select), ("UID FETCH 1:* (UID FLAGS MODSEQ)", list)];
    let o = play(FULL, script, async |s| s.observe(&inbox(), None, false).await.unwrap()).await;
    assert_eq!(said(&o), ("Full".into(), "2(\\Seen) 5(a) 9()".into(), 3));
    assert_eq!((o.cursor, o.messages[&uid(9)].mod_seq), (cursor(7, 10, Some(90)), ModSeq::new(90).ok()));

    // QRESYNC; what belongs to the mailbox that was selected before does not count.
    let delta = [
        b"* 99 EXISTS\r\n* 5 FETCH (UID 77 FLAGS (old))\r\n* OK [CLOSED] x\r\n",
        &head[..],
        b"* VANISHED (EARLIER) 1,3:4\r\n* 3 FETCH (UID 9 FLAGS () MODSEQ (90))\r\n% OK x\r\n",
    ]
    .concat();
    let script: &Script<'_> = &[("SELECT \"INBOX\" (QRESYNC (7 80))", &delta)];
    let o =
        play(FULL, script, async |s| s.observe(&inbox(), Some(&cursor(7, 9, Some(80))), false).await.unwrap()).await;
    assert_eq!(said(&o), ("Delta { vanished: {1,3:4} }".into(), "9()".into(), 3));

    // CONDSTORE, with ESEARCH and without.
    let changed = b"* 3 FETCH (UID 9 FLAGS () MODSEQ (90))\r\n% OK x\r\n";
    for (capabilities, search, found) in [
        (
            "CONDSTORE ESEARCH NAMESPACE",
            "UID SEARCH RETURN (ALL) ALL",
            &b"* ESEARCH (TAG \"%\") UID ALL 2,5,9\r\n% OK x\r\n"[..],
        ),
        ("CONDSTORE NAMESPACE", "UID SEARCH ALL", b"* SEARCH 9 5 2 (MODSEQ 90)\r\n% OK x\r\n"),
    ] {
        let fetch = "UID FETCH 1:* (UID FLAGS MODSEQ) (CHANGEDSINCE 80)";
        let script: &Script<'_> = &[(full, &select), (fetch, changed), (search, found)];
        let since = cursor(7, 9, Some(80));
        let o = play(capabilities, script, async |s| s.observe(&inbox(), Some(&since), false).await.unwrap()).await;
        assert_eq!(said(&o), ("Changed { uids: {2,5,9} }".into(), "9()".into(), 3));
    }
}

#[tokio::test]
async fn a_cursor_of_another_mailbox_leads_to_a_full_listing() {
    let head =
        b"* 1 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 10] x\r\n* OK [HIGHESTMODSEQ 90] x\r\n% OK x\r\n";
    let without = b"* 1 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 10] x\r\n* OK [NOMODSEQ] x\r\n% OK x\r\n";
    let list = b"* 1 FETCH (UID 9 FLAGS ())\r\n% OK x\r\n";
    let table: [(Cursor, &[u8]); 4] = [
        (cursor(6, 9, Some(80)), head),
        (cursor(7, 11, Some(80)), head),
        (cursor(7, 9, Some(91)), head),
        (cursor(7, 9, Some(80)), without),
    ];
    for (since, select) in table {
        let script: &Script<'_> = &[("SELECT \"INBOX\" (QRESYNC (", select), ("UID FETCH 1:* (UID FLAGS", list)];
        let o = play(FULL, script, async |s| s.observe(&inbox(), Some(&since), false).await.unwrap()).await;
        assert_eq!(said(&o), ("Full".into(), "9()".into(), 1));
    }
    // No counter of old, UIDNEXT only by STATUS, an empty mailbox.
    let select = b"* 0 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n% OK [READ-ONLY] x\r\n";
    let script: &Script<'_> =
        &[("SELECT", select), ("STATUS \"INBOX\" (UIDNEXT)", b"* STATUS Inbox (UIDNEXT 10 ) \r\n% OK x\r\n")];
    let o = play(BARE, script, async |s| s.observe(&inbox(), Some(&cursor(7, 9, None)), false).await.unwrap()).await;
    assert_eq!((said(&o), o.cursor.uid_next, o.selected.read_only), (("Full".into(), String::new(), 0), uid(10), true));
}

#[tokio::test]
async fn what_happens_during_a_listing_counts() {
    // VANISHED takes its message out again; a FETCH without UID was not asked for; the last word on a message holds.
    let list = b"* 1 FETCH (UID 2 FLAGS ())\r\n* OK still here\r\n* 2 FETCH (FLAGS (\\Flagged))\r\n* VANISHED 2\r\n\
                 * 3 EXISTS\r\n* 2 FETCH (UID 9 FLAGS ())\r\n* 1 FETCH (UID 5 FLAGS ())\r\n\
                 * 1 FETCH (UID 5 FLAGS (late))\r\n* 3 FETCH (UID 10 FLAGS ())\r\n% OK x\r\n";
    let script: &Script<'_> = &[SELECT, ("UID FETCH 1:* (UID FLAGS)", list)];
    let o = play(BARE, script, async |s| s.observe(&inbox(), None, true).await.unwrap()).await;
    assert_eq!(said(&o), ("Full".into(), "5(late) 9() 10()".into(), 3));

    // EXPUNGE does not say which, so even a count that is right by chance leads to a second listing.
    let list = b"* 1 FETCH (UID 2 FLAGS ())\r\n* 1 EXPUNGE\r\n* 1 FETCH (UID 5 FLAGS ())\r\n% OK x\r\n";
    let again = b"* 1 FETCH (UID 5 FLAGS ())\r\n* 2 FETCH (UID 9 FLAGS ())\r\n% OK x\r\n";
    let script: &Script<'_> = &[SELECT, ("UID FETCH", list), ("UID FETCH", again)];
    let o = play(BARE, script, async |s| s.observe(&inbox(), None, true).await.unwrap()).await;
    assert_eq!(said(&o), ("Full".into(), "5() 9()".into(), 2));

    // A server that leaves messages out is not made honest by a third question: the count says so.
    let short = b"* 1 FETCH (UID 5 FLAGS ())\r\n% OK x\r\n";
    let script: &Script<'_> = &[SELECT, ("UID FETCH", short), ("UID FETCH", short)];
    let o = play(BARE, script, async |s| s.observe(&inbox(), None, true).await.unwrap()).await;
    assert_eq!(said(&o), ("Full".into(), "5()".into(), 3));
}

#[tokio::test]
async fn a_huge_mailbox_is_listed_in_parts() {
    let select = b"* 45000 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 90001] x\r\n% OK x\r\n";
    let part = |from: u32, to: u32| {
        let line = |n: u32| format!("* {n} FETCH (UID {} FLAGS ())\r\n", 2 * n);
        ((from..=to).map(line).collect::<String>() + "% OK x\r\n").into_bytes()
    };
    let parts = [part(1, 15_000), part(15_001, 30_000), part(30_001, 45_000)];
    let script: &Script<'_> = &[
        ("SELECT", select),
        ("UID FETCH 1:30001 (UID FLAGS)", &parts[0]),
        ("UID FETCH 30002:60002 (UID FLAGS)", &parts[1]),
        ("UID FETCH 60003:* (UID FLAGS)", &parts[2]),
    ];
    let o = play_in(BARE, script, usize::MAX, async |s| s.observe(&inbox(), None, true).await.unwrap()).await;
    assert_eq!((o.messages.len(), o.exists), (45_000, 45_000));
}

#[tokio::test]
async fn bodies_of_all_kinds() {
    let answer = b"* 9 EXISTS\r\n\
        * 1 FETCH (UID 2 FLAGS (\\Seen) INTERNALDATE \" 1-Feb-2024 00:00:00 +0100\" BODY[] {5}\r\na\r\n\0\xff)\r\n\
        * 2 FETCH (BODY[] \"q\\\"\" INTERNALDATE NIL UID 3 FLAGS ())\r\n* 3 FETCH (UID 3 FLAGS (x))\r\n\
        * 4 FETCH (UID 4 BODY[] NIL FLAGS () INTERNALDATE \"absurd\")\r\n* 1 EXPUNGE\r\n* OK [ALERT]\xc3\xa9\r\n\
        * 5 FETCH (UID 5 FLAGS () BODY[] {0}\r\n)\r\n* 6 FETCH (UID 77 FLAGS () BODY[] {1}\r\nx)\r\n\
        * 2 FETCH (UID 3 FLAGS () BODY[] {1}\r\ny)\r\n% OK done\r\n";
    let script: &Script<'_> = &[SELECT, ("UID FETCH 2:6 (UID FLAGS INTERNALDATE BODY.PEEK[])", answer)];
    let (result, all) = play(BARE, script, async |s| {
        s.select(&inbox()).await.unwrap();
        bodies(s, &set(&[2, 3, 4, 5, 6])).await
    })
    .await;
    result.unwrap();
    let expected = [
        (uid(2), "(\\Seen)".into(), 1_706_742_000, Some("a\\r\\n\\x00\\xff".into())),
        (uid(3), "()".into(), 0, Some("q\\\"".into())),
        (uid(4), "()".into(), 0, None),
        (uid(5), "()".into(), 0, None),
    ];
    assert_eq!(all, expected);
}

#[tokio::test]
async fn fingerprints_do_not_depend_on_how_a_header_ends() {
    let answer = b"* 1 FETCH (UID 2 RFC822.SIZE 9 FLAGS (a) BODY[HEADER] {8}\r\nA: b\r\n\r\n\
        \x20INTERNALDATE \"01-Jan-1970 00:00:01 +0000\")\r\n\
        * 2 FETCH (UID 3 RFC822.SIZE 9 FLAGS () BODY[HEADER] \"A: b\")\r\n\
        * 3 FETCH (UID 4 RFC822.SIZE 9 FLAGS () BODY[HEADER] NIL)\r\n% OK done\r\n";
    let script: &Script<'_> =
        &[SELECT, ("UID FETCH 2:4 (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER])", answer)];
    let seen = play(BARE, script, async |s| {
        s.select(&inbox()).await.unwrap();
        s.fingerprints(&set(&[2, 3, 4])).await.unwrap()
    })
    .await;
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].fingerprint, seen[1].fingerprint);
    assert_eq!((seen[0].internal_date, seen[0].flags.clone(), seen[0].fingerprint.size), (1, flags(&["a"]), 9));
}

#[tokio::test]
async fn flags_are_added_and_removed_but_never_set() {
    let change = FlagChange { add: flags(&["\\Seen", "Work"]), remove: flags(&["\\Flagged"]) };
    let script: &Script<'_> = &[
        SELECT,
        ("UID STORE 2,5 +FLAGS.SILENT (\\Seen Work)", b"* 1 FETCH (FLAGS (\\Seen))\r\n% OK x\r\n"),
        ("UID STORE 2,5 -FLAGS.SILENT (\\Flagged)", b"% OK x\r\n"),
    ];
    let modified = play(BARE, script, async |s| {
        s.select(&inbox()).await.unwrap();
        s.store(&set(&[2, 5]), &change, ModSeq::new(9).ok()).await.unwrap()
    })
    .await;
    assert!(modified.is_empty());

    let select = b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [HIGHESTMODSEQ 90] x\r\n% OK x\r\n";
    let script: &Script<'_> = &[
        ("SELECT \"INBOX\" (CONDSTORE)", select),
        ("UID STORE 2,5 (UNCHANGEDSINCE 80) +FLAGS.SILENT (\\Seen Work)", b"% OK [MODIFIED 5] x\r\n"),
        ("UID STORE 2 -FLAGS.SILENT (\\Flagged)", b"% OK x\r\n"),
    ];
    let modified = play(FULL, script, async |s| {
        s.select(&inbox()).await.unwrap();
        s.store(&set(&[2, 5]), &change, ModSeq::new(80).ok()).await.unwrap()
    })
    .await;
    assert_eq!(modified, set(&[5]));
}

#[tokio::test]
async fn messages_are_appended_with_each_kind_of_literal() {
    let append = async |s: &mut Session| {
        s.select(&inbox()).await.unwrap();
        let messages = vec![outgoing(b"one\r\n", &["\\Seen"]), outgoing(b"\xfftwo\r\n", &[])];
        let results = s.append(&inbox(), messages).await.unwrap();
        results.into_iter().map(|result| result.map_err(|error| error.to_string())).collect::<Vec<_>>()
    };
    let date = "\"01-Jan-1970 00:00:00 +0000\"";
    let (one, two) = (format!("APPEND \"INBOX\" (\\Seen) {date} {{5"), format!("APPEND \"INBOX\" () {date} {{6"));
    let (one_plus, two_plus) = (one.clone() + "+}", two.clone() + "+}");
    let next_plus = format!("> () {date} {{6+}}");
    // MULTIAPPEND: all or none.
    let script: &Script<'_> = &[
        SELECT,
        (&one_plus, b""),
        (">one", b""),
        (&next_plus, b""),
        (">\u{fffd}two", b""),
        (">", b"* 5 EXISTS\r\n% OK [APPENDUID 7 20:21] x\r\n"),
    ];
    assert_eq!(play("LITERAL+ MULTIAPPEND", script, append).await, [Ok(Some(uid(20))), Ok(Some(uid(21)))]);
    // One after the other; a foreign UIDVALIDITY says nothing.
    let script: &Script<'_> = &[
        SELECT,
        (&one_plus, b""),
        (">one", b""),
        (">", b"% OK [APPENDUID 7 20] x\r\n"),
        (&two_plus, b""),
        (">\u{fffd}two", b""),
        (">", b"% OK [APPENDUID 8 21] x\r\n"),
    ];
    assert_eq!(play("LITERAL-", script, append).await, [Ok(Some(uid(20))), Ok(None)]);
    let script: &Script<'_> = &[
        SELECT,
        (&one, b"* 4 EXISTS\r\n+ go\r\n"),
        (">one", b""),
        (">", b"% OK x\r\n"),
        (&two, b"+ go\r\n"),
        (">\u{fffd}two", b""),
        (">", b"% OK [APPENDUID 7 4294967296] x\r\n"),
    ];
    assert_eq!(play(BARE, script, append).await, [Ok(None), Ok(None)]);
    // A refusal is about its own message only, whenever it comes.
    let script: &Script<'_> = &[
        SELECT,
        (&one_plus, b""),
        (">one", b""),
        (">", b"% NO [LIMIT] full\r\n"),
        (&two_plus, b""),
        (">\u{fffd}two", b""),
        (">", b"% OK [APPENDUID 7 21] x\r\n"),
    ];
    let full = "the server refused APPEND for mailbox INBOX: full".to_owned();
    assert_eq!(play("LITERAL+", script, append).await, [Err(full.clone()), Ok(Some(uid(21)))]);
    let script: &Script<'_> = &[
        SELECT,
        (&one, b"% NO [LIMIT] full\r\n"),
        (&two, b"+ go\r\n"),
        (">\u{fffd}two", b""),
        (">", b"% OK [APPENDUID 7 21] x\r\n"),
    ];
    assert_eq!(play(BARE, script, append).await, [Err(full.clone()), Ok(Some(uid(21)))]);
    // But where there is no room for one, there is none for the next.
    let script: &Script<'_> = &[SELECT, (&one, b"% NO [OVERQUOTA] full\r\n")];
    assert_eq!(play(BARE, script, append).await, [Err(full.clone()), Err(full)]);
}

#[tokio::test]
async fn moves_count_only_what_the_server_names() {
    let archive = RawName::new(b"Archive");
    let run = async |s: &mut Session| {
        s.select(&inbox()).await.unwrap();
        s.move_to(&set(&[2, 5]), &archive).await.unwrap().pairs
    };
    let table: [(&[u8], usize); 5] = [
        (b"* OK [COPYUID 14 2,5 8:9] x\r\n* 1 EXPUNGE\r\n* 1 EXPUNGE\r\n% OK x\r\n", 2),
        (b"* OK [COPYUID 14  ]\r\n% OK MOVE completed.\r\n", 0),
        (b"[COPYUID 55 5 6]\r\n* 2 EXPUNGE\r\n% OK x\r\n", 1),
        (b"* VANISHED 2,5\r\n% OK [COPYUID 14 2,5 8:9] x\r\n", 2),
        (b"% OK x\r\n", 0),
    ];
    for (answer, count) in table {
        let script: &Script<'_> = &[SELECT, ("UID MOVE 2,5 \"Archive\"", answer)];
        assert_eq!(play("MOVE UIDPLUS", script, run).await.len(), count);
    }
    // Without MOVE: exactly what was copied is expunged.
    let script: &Script<'_> = &[
        SELECT,
        ("UID COPY 2,5 \"Archive\"", b"% OK [COPYUID 14 5 8] x\r\n"),
        ("UID STORE 5 +FLAGS.SILENT (\\Deleted)", b"% OK x\r\n"),
        ("UID EXPUNGE 5", b"* 2 EXPUNGE\r\n% OK x\r\n"),
    ];
    assert_eq!(play("UIDPLUS", script, run).await, [(uid(5), uid(8))]);
    // Nothing named, nothing expunged.
    let script: &Script<'_> = &[SELECT, ("UID COPY 2,5 \"Archive\"", b"% OK x\r\n")];
    assert_eq!(play("UIDPLUS", script, run).await, []);
    let script: &Script<'_> = &[
        SELECT,
        ("UID COPY 2,5 \"Archive\"", b"% OK x\r\n"),
        ("UID STORE 2,5 +FLAGS.SILENT (\\Deleted)", b"% OK x\r\n"),
    ];
    assert_eq!(play(BARE, script, run).await, []);
    // Nor does it matter there whether the mark can be set.
    let script: &Script<'_> =
        &[SELECT, ("UID COPY 2,5 \"Archive\"", b"% OK x\r\n"), ("UID STORE 2,5", b"% NO read-only\r\n")];
    assert_eq!(play(BARE, script, run).await, []);
}

#[tokio::test]
async fn what_was_copied_and_stays_is_told() {
    let archive = RawName::new(b"Archive");
    let run = async |s: &mut Session| {
        s.select(&inbox()).await.unwrap();
        s.move_to(&set(&[2, 5]), &archive).await.unwrap()
    };
    let copy = ("UID COPY 2,5 \"Archive\"", b"% OK [COPYUID 14 5 8] x\r\n" as &[u8]);
    let scripts: [&Script<'_>; 2] = [
        &[SELECT, copy, ("UID STORE 5", b"% NO [NOPERM] x\r\n")],
        &[SELECT, copy, ("UID STORE 5", b"% OK x\r\n"), ("UID EXPUNGE 5", b"% BAD x\r\n")],
    ];
    for script in scripts {
        let moved = play("UIDPLUS", script, run).await;
        assert_eq!(moved.pairs, [(uid(5), uid(8))]);
        assert_eq!(moved.doubled.iter().map(|(uids, _)| uids.clone()).collect::<Vec<_>>(), [set(&[5])]);
    }
}

#[tokio::test]
async fn expunge_names_its_messages() {
    let run = async |s: &mut Session| {
        s.select(&inbox()).await.unwrap();
        let result = s.expunge(&set(&[2, 5])).await;
        (result, s.selected().unwrap().exists)
    };
    let mark = ("UID STORE 2,5 +FLAGS.SILENT (\\Deleted)", &b"% OK x\r\n"[..]);
    let script: &Script<'_> = &[SELECT, mark, ("UID EXPUNGE 2,5", b"* VANISHED 2,5\r\n% OK x\r\n")];
    let (result, exists) = play("UIDPLUS", script, run).await;
    assert_eq!((result.is_ok(), exists), (true, 1));
    let (result, exists) = play(BARE, &[SELECT, mark], run).await;
    assert!(matches!(result, Err(Error::Unsupported(_))) && exists == 3);
}

#[tokio::test]
async fn mailboxes_are_listed_with_their_states() {
    let answer = b"* LIST (\\HasChildren) \"/\" Inbox\r\n\
        * STATUS Inbox (MESSAGES 4 UIDNEXT 5 UIDVALIDITY 7 UNSEEN 0 HIGHESTMODSEQ 0)\r\n\
        * LIST (\\Trash \\HasNoChildren) \"/\" Deleted Items\r\n* LIST () \"/\" {6}\r\nEntw\"r\r\n\
        * LIST (\\Noselect) \"/\" \"a\\\\b\" (\"CHILDINFO\" (\"X\"))\r\n\
        * LIST () \"/\" \"&bad\"\r\n* LIST () \"/\" a//b\r\n* LIST () \"/\" \"Shared/x\"\r\n\
        * LIST () \"/\" \"INBOX\"\r\n\
        * LIST () \"/\" \"&AGE-bc\"\r\n* LIST () \"/\" \"abc\"\r\n\
        * STATUS abc (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 0)\r\n% OK x\r\n";
    let script: &Script<'_> = &[
        ("LIST \"\" \"*\" RETURN (SPECIAL-USE STATUS (MESSAGES UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ))", answer),
        (
            "STATUS \"Deleted Items\" (MESSAGES",
            b"* STATUS \"Deleted Items\" (MESSAGES 1 UIDVALIDITY 14) \r\n% OK x\r\n",
        ),
        ("STATUS {6+}", b""),
        (">Entw\"r (MESSAGES", b"% NO [NOPERM] not yours\r\n"),
        ("STATUS \"&AGE-bc\"", b"% OK x\r\n"),
    ];
    let lists = play(FULL, script, async |s| s.list().await.unwrap()).await;
    let said: Vec<String> = lists
        .mailboxes
        .iter()
        .map(|l| {
            let status = match &l.status {
                None => "-".to_owned(),
                Some(Ok(s)) => format!("{} {:?}", s.messages, s.cursor().map(|c| c.uid_next)),
                Some(Err(e)) => e.to_string(),
            };
            format!("{} = {} {:?} {status}", l.name, l.raw, l.role)
        })
        .collect();
    let expected = [
        "INBOX = Inbox Some(Inbox) 4 Some(5)",
        "Deleted Items = Deleted Items Some(Trash) 1 None",
        r#"Entw"r = Entw\"r None the server refused STATUS for mailbox Entw\"r: not yours"#,
        r"a\b = a\\b None -",
        "abc = &AGE-bc None the server's answer for mailbox &AGE-bc makes no sense: STATUS was not answered",
    ];
    assert_eq!(said, expected);
    let unusable: Vec<&str> = lists.unusable.iter().map(|(raw, _)| raw.as_str()).collect();
    assert_eq!(unusable, ["&bad", "a//b", "abc"]);
}

#[tokio::test]
async fn outlook_is_asked_one_thing_at_a_time() {
    let mut connect = connect();
    connect.quirks = Quirks::outlook();
    let capabilities =
        "IMAP4 IMAP4rev1 AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT ENABLE IMAP4rev2 IDLE NAMESPACE LITERAL+";
    let capability = format!("* CAPABILITY {capabilities}\r\n% OK x\r\n");
    let script: &Script<'_> = &[
        ("CAPABILITY", b"* CAPABILITY IMAP4 IMAP4rev1 AUTH=XOAUTH2 LOGINDISABLED SASL-IR\r\n% OK x\r\n"),
        ("AUTHENTICATE XOAUTH2 ", b"% OK AUTHENTICATE completed.\r\n"),
        ("CAPABILITY", capability.as_bytes()),
        (
            "ID ",
            b"* ID (\"name\" \"Microsoft.Exchange.Imap4.Imap4Server\" \"version\" \"15.20\")\r\n% OK ID completed.\r\n",
        ),
        ("NAMESPACE", b"* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n% OK NAMESPACE completed.\r\n"),
        (
            "LIST \"\" \"*\"",
            b"* LIST (\\Marked \\HasNoChildren) \"/\" Inbox\r\n* LIST (\\Junk) \"/\" Ar&AV8-iv\r\n% OK x\r\n",
        ),
        ("STATUS \"Inbox\" (MESSAGES", b"* STATUS INBOX (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 14 UNSEEN 1) \r\n% OK x\r\n"),
        ("STATUS \"Ar&AV8-iv\"", b"* STATUS Ar&AV8-iv (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 14 UNSEEN 0) \r\n% OK x\r\n"),
    ];
    let token = Credentials::Token { username: "u".into(), token: Secret::new("t".into()) };
    let greeting = "* OK Microsoft Exchange IMAP4 service ready. x (tcpproxy/15 BACKENDAUTHENTICATE) [RgBS]\r\n";
    let (stream, server) = serve(greeting, script, 1);
    let mut s = sign_in(Box::new(stream), &connect, &token).await.unwrap();
    assert!(!s.capabilities().has("ENABLE"));
    let lists = s.list().await.unwrap();
    assert_eq!(lists.mailboxes[1].name, MailboxName::from("Ar\u{15f}iv"));
    assert!(lists.mailboxes.iter().all(|l| matches!(l.status, Some(Ok(_)))));
    drop(s);
    assert_eq!(server.await.unwrap(), script.len());
}

#[tokio::test]
async fn small_commands_say_what_they_mean() {
    let script: &Script<'_> = &[
        ("CREATE \"Neu\"", b"% NO [ALREADYEXISTS] there\r\n"),
        ("CREATE {3+}", b""),
        (">a\"b", b"% OK x\r\n"),
        ("RENAME \"Neu\" \"Alt\"", b"% OK x\r\n"),
        ("NOOP", b"* 5 EXISTS\r\n% OK x\r\n"),
        SELECT,
        ("NOOP", b"* 5 EXISTS\r\n% OK x\r\n"),
        ("UNSELECT", b"% OK x\r\n"),
    ];
    play("LITERAL+ UNSELECT", script, async |s| {
        let (new, old) = (RawName::new(b"Neu"), RawName::new(b"Alt"));
        s.create(&new).await.unwrap();
        s.create(&RawName::new(b"a\"b")).await.unwrap();
        s.rename(&new, &old).await.unwrap();
        assert!(matches!(s.rename(&inbox(), &old).await, Err(Error::Name { .. })));
        s.noop().await.unwrap();
        let selected = s.select(&inbox()).await.unwrap();
        assert_eq!((selected.permanent, selected.any_keyword), (flags(&["\\Seen", "$Forwarded"]), true));
        s.noop().await.unwrap();
        assert_eq!(s.selected().unwrap().exists, 5);
        s.unselect().await.unwrap();
        assert!(s.selected().is_none() && s.present(&set(&[1])).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn idle_sees_what_comes_before_and_after_its_beginning() {
    let minute = Duration::from_secs(60);
    let idle = async |s: &mut Session| {
        s.select(&inbox()).await.unwrap();
        s.idle(std::future::pending(), minute, |_| ()).await.unwrap()
    };
    for (first, rest, stir) in [
        (&b"* 4 EXISTS\r\n+ idling\r\n"[..], &b"% OK x\r\n"[..], Stir::Messages),
        (b"+ idling\r\n* OK Still here\r\n* 3 EXISTS\r\n* 2 EXPUNGE\r\n", b"% OK x\r\n", Stir::Messages),
        (b"+ idling\r\n* 1 FETCH (FLAGS (\\Seen))\r\n", b"* 9 EXISTS\r\n% OK x\r\n", Stir::Anything),
        (b"+ idling\r\n* 9 EXISTS\r\n", b"* 1 FETCH (FLAGS (\\Seen))\r\n% OK x\r\n", Stir::Anything),
    ] {
        let script: &Script<'_> = &[SELECT, ("IDLE", first), (">DONE", rest)];
        assert_eq!(play("IDLE", script, idle).await, IdleEnd::Changed(stir));
    }
    let script: &Script<'_> = &[SELECT, ("IDLE", b"+ idling\r\n"), (">DONE", b"% OK x\r\n"), ("NOOP", b"% OK x\r\n")];
    let end = play("IDLE", script, async |s| {
        s.select(&inbox()).await.unwrap();
        let end = s.idle(async {}, minute, |_| ()).await.unwrap();
        s.noop().await.unwrap();
        end
    })
    .await;
    assert_eq!(end, IdleEnd::Stopped);
}
