//! NOTIFY (RFC 5465), and how much a large mailbox costs.

use std::time::Instant;

use super::{OPEN, Raw, server_with};
use crate::Profile;

#[test]
fn changes_are_told_at_any_time() {
    let server = server_with(Profile::Full);
    server.state().create("B");
    let mut raw = Raw::login(&server);
    raw.talk(&format!(
        "{OPEN}C a NOTIFY SET STATUS (SELECTED (MessageNew (UID FLAGS) MessageExpunge FlagChange)) \
         (PERSONAL (MessageNew MessageExpunge FlagChange MailboxName))
         S * STATUS \"B\" (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 1700000001 UNSEEN 0 HIGHESTMODSEQ 1)\nS a OK done"
    ));
    server.state().append("INBOX", b"x", &[], 0);
    raw.talk("S * 4 EXISTS");
    server.state().append("B", b"x", &[], 0);
    raw.talk("S * STATUS \"B\" (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 1700000001 UNSEEN 1 HIGHESTMODSEQ 2)");
    server.state().set_flags("B", 1, &["\\Seen"]);
    raw.talk("S * STATUS \"B\" (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 1700000001 UNSEEN 0 HIGHESTMODSEQ 3)");
    server.state().rename("B", "C");
    raw.talk("S * LIST () \"/\" \"C\" (\"OLDNAME\" (\"B\"))");
    server.state().create("D");
    raw.talk("S * LIST () \"/\" \"D\"\nS * STATUS \"D\" (MESSAGES 0…");
    server.state().delete("D");
    raw.talk("S * LIST (\\NonExistent) \"/\" \"D\"");
    server.state().expunge("INBOX", 1);
    raw.talk("S * 1 EXPUNGE");
    // IDLE tells the same, and after NONE nothing comes but by commands.
    raw.talk("C b IDLE\nS + idling");
    server.state().append("C", b"y", &[], 0);
    raw.talk("S * STATUS \"C\" (MESSAGES 2…\nC DONE\nS b OK done\nC c NOTIFY NONE\nS c OK done");
    server.state().append("C", b"z", &[], 0);
    raw.talk("C d NOOP\nS d OK done");
    raw.talk("C e NOTIFY SET (MAILBOXES (D C) (MessageNew MessageExpunge)) (SUBTREE L NONE)\nS e OK done");
    server.state().append("C", b"z", &[], 0);
    raw.talk("S * STATUS \"C\" (MESSAGES 4 UIDNEXT 5 UIDVALIDITY 1700000001)\nC f NOOP\nS f OK done");
    assert_eq!(server.violations(), Vec::<String>::new());
    for wrong in ["SET", "SET (PERSONAL (MessageNew))", "SET (PERSONAL (FlagChange))", "SET (OTHERS NONE)", "ALL"] {
        raw.talk(&format!("C x NOTIFY {wrong}\nS x BAD…"));
    }
}

#[test]
fn a_large_mailbox_is_cheap() {
    const COUNT: u32 = 100_000;
    let server = server_with(Profile::Exo2026);
    {
        let mut state = server.state();
        state.tokens.insert("t0".to_owned());
        (3..COUNT).for_each(|_| drop(state.append("INBOX", b"Subject: x\r\n\r\nbody\r\n", &[], 0).to_string()));
    }
    let mut raw = super::outlook::sign_in(&server);
    let start = Instant::now();
    raw.talk("C s SELECT INBOX\nS * 100000 EXISTS");
    while raw.line().is_some_and(|l| !l.starts_with("s OK")) {}
    raw.talk("C a STATUS INBOX (MESSAGES UNSEEN)\nS * STATUS Inbox (MESSAGES 100000…\nS a OK…");
    raw.send(b"b UID FETCH 1:* (UID FLAGS)\r\n");
    let mut lines = 0;
    while raw.line().is_some_and(|l| !l.starts_with("b OK")) {
        lines += 1;
    }
    assert_eq!(lines, COUNT);
    let odd = (1..800).map(|n| (n * 100).to_string()).collect::<Vec<_>>().join(",");
    server.state().quirks.max_line = 10_000;
    raw.send(format!("c UID STORE {odd} +FLAGS.SILENT (\\Deleted)\r\nd UID EXPUNGE {odd}\r\n").as_bytes());
    while raw.line().is_some_and(|l| !l.starts_with("d ")) {}
    (0..200).for_each(|_| raw.talk("C n NOOP\nS n OK…"));
    // Quadratic work would take minutes; this is a matter of a second.
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}
