//! Mails at fault: twins, mails without what every mail has, bytes that no mail should have.

use std::collections::BTreeMap;
use std::fs;

use postkeep_sim::Profile;

use crate::account::{Account, Remote};
use crate::dovecot::{Dovecot, Options, PASSWORD};
use crate::faults_scene::{Scene, says};

/// Returns how often each content is on the server.
fn multiplicity(scene: &Scene) -> BTreeMap<Vec<u8>, usize> {
    let mut counts = BTreeMap::new();
    for message in scene.server.state().messages("INBOX") {
        *counts.entry(message.bytes).or_insert(0) += 1;
    }
    counts
}

#[test]
fn t34_twins_are_counted_and_never_merged() {
    let twin = b"Message-ID: <same@example.org>\r\nSubject: twin\r\n\r\nbody\r\n";
    let other_body = b"Message-ID: <same@example.org>\r\nSubject: twin\r\n\r\nBODY\r\n";
    let other_header = b"Message-ID: <same@example.org>\r\nSubject: TWIN\r\n\r\nbody\r\n";
    for profile in [Profile::Full, Profile::Bare] {
        let scene = Scene::new(profile);
        for date in [1000, 1000, 2000] {
            scene.server.state().append("INBOX", twin, &[], date);
        }
        scene.server.state().append("INBOX", other_body, &[], 1000);
        scene.server.state().append("INBOX", other_header, &["\\Seen"], 1000);
        scene.assert_heals();
        assert_eq!(scene.account.files("INBOX").len(), 5);
        // Two more from here.
        for _ in 0..2 {
            scene.account.deliver("INBOX", String::from_utf8_lossy(twin).replace("\r\n", "\n").as_bytes());
        }
        scene.assert_heals();
        let counts = multiplicity(&scene);
        let count = |bytes: &[u8]| counts.get(bytes).copied().unwrap_or(0);
        assert_eq!((count(twin), count(other_body), count(other_header)), (5, 1, 1), "{profile:?}");
        // And so they stay without the database.
        fs::remove_dir_all(scene.account.state_dir()).unwrap();
        scene.sync_says(1, &["7 matched by content"]);
        assert_eq!(multiplicity(&scene), counts);
        scene.assert_heals();
        // Only Bare cannot remove anything.
        if profile == Profile::Bare {
            continue;
        }
        // One of them less there is one of them less here.
        scene.server.state().expunge("INBOX", 2);
        scene.assert_heals();
        assert_eq!(scene.account.files("INBOX").len(), 6);
    }
}

/// Returns mails that lack something, or have something that none should have; none is transferred by its Message-ID.
fn headers() -> Vec<Vec<u8>> {
    let huge = format!("Message-ID: <{}@example.org>\r\n\r\nhuge\r\n", "x".repeat(64 << 10)).into_bytes();
    let folded = (0..200).map(|n| format!("\r\n folded-{n}")).collect::<String>();
    vec![
        b"Subject: none\r\n\r\nno Message-ID\r\n".to_vec(),
        b"Subject: none\r\n\r\nno Message-ID either\r\n".to_vec(),
        b"Message-ID:\r\n\r\nempty\r\n".to_vec(),
        b"Message-ID: \r\n\r\nblank\r\n".to_vec(),
        huge,
        format!("Message-ID: <a@b>\r\nX-Folded:{folded}\r\n\r\nfolded\r\n").into_bytes(),
        b"Message-ID:\r\n <folded@example.org>\r\n\r\nx\r\n".to_vec(),
        b"Message-ID: <twice@example.org>\r\nMessage-ID: <twice@example.org>\r\n\r\ntwice\r\n".to_vec(),
        b"Message-ID: <a\0b@example.org>\r\n\r\nNUL\r\n".to_vec(),
        b"message-id: <\xff\xfe>\r\n\r\nbytes\r\n".to_vec(),
    ]
}

/// Returns mails with bytes that no mail should have.
fn bodies() -> Vec<Vec<u8>> {
    let line = [b"Subject: long\r\n\r\n".to_vec(), vec![b'l'; 1 << 20], b"\r\n".to_vec()].concat();
    vec![
        b"Subject: NUL\r\n\r\na\0b\r\n".to_vec(),
        b"Subject: bare CR\r\n\r\na\rb\r\n".to_vec(),
        b"Subject: both\r\n\r\na\nb\r\nc\rd\r\r\n".to_vec(),
        b"Subject: no end\r\n\r\nno final newline".to_vec(),
        b"Subject: only CR at the end\r\n\r\nx\r".to_vec(),
        b"Subject: \xe4\xf6\xfc\r\n\r\n8 bit \xff\x80\r\n".to_vec(),
        b"From someone Mon Jan  1 00:00:00 2024\r\nSubject: mbox\r\n\r\nFrom here\r\n>From there\r\n".to_vec(),
        b"\r\nno header\r\n".to_vec(),
        b"no header and no empty line".to_vec(),
        b"Subject: only header\r\n".to_vec(),
        b"\xef\xbb\xbfSubject: byte order mark\r\n\r\nx\r\n".to_vec(),
        b"Subject: dot\r\n\r\n.\r\n..\r\n".to_vec(),
        b"Subject: bare LF\n\na\n\nb\n".to_vec(),
        b"Subject: bare LF with a CR\n\na\rb\n".to_vec(),
        b"Subject: bare LF, then not\n\na\r\n\r\nb\n".to_vec(),
        b"\r\n".to_vec(),
        b"{5}\r\n)\r\n* 1 EXPUNGE\r\n".to_vec(),
        line,
    ]
}

/// Takes mails from the server, loses the database, and then the maildir to an empty server: all are as they were.
fn round_trip(mails: &[Vec<u8>]) {
    let scene = Scene::new(Profile::Full);
    for (n, bytes) in mails.iter().enumerate() {
        scene.server.state().append("INBOX", bytes, &[], 1000 + n as i64);
    }
    scene.assert_heals();
    assert_eq!(scene.account.files("INBOX").len(), mails.len());
    fs::remove_dir_all(scene.account.state_dir()).unwrap();
    scene.sync_says(1, &[&format!("{} matched by content", mails.len())]);
    scene.assert_heals();
    let served: Vec<Vec<u8>> = scene.server.state().messages("INBOX").into_iter().map(|m| m.bytes).collect();
    assert_eq!(served, mails);
    // To another server, from the files alone.
    let back = Scene::new(Profile::Outlook);
    for path in scene.account.files("INBOX") {
        let bytes = fs::read(path).unwrap();
        if !bytes.contains(&0) {
            back.account.deliver("INBOX", &bytes);
        }
    }
    back.assert_heals();
    let mut sent: Vec<Vec<u8>> = back.server.state().messages("INBOX").into_iter().map(|m| m.bytes).collect();
    let mut expected: Vec<Vec<u8>> = mails.iter().filter(|m| !m.contains(&0)).cloned().collect();
    sent.sort();
    expected.sort();
    assert!(sent == expected, "not every byte came back");
}

#[test]
fn t35_message_ids_of_all_kinds_and_none() {
    round_trip(&headers());
}

#[test]
fn t36_every_byte_survives() {
    round_trip(&bodies());
}

#[test]
fn t36_what_the_server_does_not_take_is_told_and_kept() {
    let scene = Scene::synced(Profile::Full, 1);
    let path = scene.account.deliver("INBOX", b"Subject: NUL\n\na\0b\n");
    scene.sync_says(1, &["was not uploaded: refused by the server", "NUL"]);
    assert_eq!(fs::read(&path).unwrap(), b"Subject: NUL\n\na\0b\n");
    says(&scene.account.run(&["status"]), 1, &["1 skipped"]);
    fs::remove_file(&path).unwrap();
    scene.sync_says(0, &[]);
    scene.account.assert_equal(Remote::Sim(&scene.server));
}

#[test]
fn t36_line_feeds_alone_are_kept_as_served() {
    let scene = Scene::new(Profile::Full);
    let mail = b"Subject: bare LF\n\na\nb\n";
    scene.server.state().append("INBOX", mail, &[], 1000);
    scene.assert_heals();
    // A last CR tells it from a mail whose CRLFs became LFs.
    assert_eq!(fs::read(&scene.account.files("INBOX")[0]).unwrap(), [&mail[..], b"\r"].concat());
    scene.server.state().set_flags("INBOX", 1, &["\\Seen"]);
    scene.assert_heals();
    assert_eq!(scene.server.state().messages("INBOX")[0].bytes, mail);
}

/// An empty message is skipped and told; the rest is in sync. Should it have content one day, it comes.
#[test]
fn t17_an_empty_message_is_skipped_until_it_has_content() {
    for profile in [Profile::Full, Profile::Outlook] {
        let scene = Scene::synced(profile, 1);
        let uid = scene.server.state().append("INBOX", b"", &[], 1000);
        scene.sync_says(1, &[&format!("UID {uid} was skipped: it is empty on the server")]);
        let status = scene.account.run(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
        let inbox = &status["accounts"][0]["mailboxes"][0];
        assert_eq!(inbox["skipped"][0]["uid"], uid);
        assert!(!inbox["last_complete"].is_null() && inbox["problem"].is_null(), "{inbox}");
        // What is known is not asked for again, until a day is over.
        let _ = scene.server.take_commands();
        scene.sync_says(1, &["1 messages are skipped"]);
        assert!(!scene.server.take_commands().iter().any(|c| c.args.contains("BODY.PEEK[]")));
        let late = b"Subject: late\r\n\r\nx\r\n";
        scene.server.state().mailbox_mut("INBOX").messages.rewrite(uid, late);
        assert_eq!(scene.account.run(&["sync", "--full"]).code, 0);
        scene.assert_heals();
        assert_eq!(scene.account.files("INBOX").len(), 2);
    }
}

/// Real servers normalise; what they serve is what counts.
#[test]
fn t36_every_byte_that_dovecot_serves_survives() {
    let dovecot = Dovecot::start(Options::from(crate::dovecot::Profile::Full));
    let account = Account::on_dovecot(&dovecot, "u");
    let remote = Remote::Dovecot { server: &dovecot, user: "u", separator: '/', prefix: "" };
    let mut reader = dovecot.login("u");
    let mails: Vec<Vec<u8>> = headers().into_iter().chain(bodies()).filter(|b| !b.contains(&0)).collect();
    for bytes in &mails {
        reader.append("INBOX", "", "01-Jan-2024 00:00:00 +0000", bytes);
    }
    says(&account.run(&["sync"]), 0, &[]);
    account.assert_equal(remote);
    assert_eq!(account.files("INBOX").len(), mails.len());
    // From the files to the mailbox of another user.
    let other = Account::new(dovecot.port(), "v", PASSWORD, "");
    for path in account.files("INBOX") {
        other.deliver("INBOX", &fs::read(path).unwrap());
    }
    says(&other.run(&["sync"]), 0, &[]);
    other.assert_equal(Remote::Dovecot { server: &dovecot, user: "v", separator: '/', prefix: "" });
}

/// Connects to Dovecot, where an empty range names the last message (RFC 3501 §6.4.8).
#[test]
fn t44_the_last_message_is_not_taken_twice() {
    for profile in [crate::dovecot::Profile::Full, crate::dovecot::Profile::NoCondstore] {
        let dovecot = Dovecot::start(profile);
        let account = Account::new(dovecot.port(), "u", PASSWORD, "append_retry_after = \"1s\"");
        let remote = Remote::Dovecot { server: &dovecot, user: "u", separator: '/', prefix: "" };
        let mut reader = dovecot.login("u");
        for n in 1..=3 {
            reader.append("INBOX", "", "01-Jan-2024 00:00:00 +0000", format!("Subject: {n}\r\n\r\nx\r\n").as_bytes());
            for _ in 0..2 {
                says(&account.run(&["sync"]), 0, &[]);
                account.assert_equal(remote);
            }
        }
        let before = account.snapshot(remote);
        // The range from UIDNEXT on is what an interrupted upload asks for.
        account.deliver("INBOX", b"Subject: mine\n\nx\n");
        dovecot.proxy.inject("APPEND", postkeep_sim::When::Nth(1), crate::proxy::Fault::Swallow);
        let output = account.run(&["sync"]);
        assert_eq!(dovecot.proxy.fired(), ["APPEND swallow"]);
        assert!([0, 1].contains(&output.code), "{output:?}");
        says(&account.run(&["sync"]), 0, &[]);
        account.assert_equal(remote);
        assert_eq!(account.files("INBOX").len(), 4, "{before:?}");
    }
}

#[test]
fn t45_reading_for_the_mirror_is_no_reading() {
    let dovecot = Dovecot::start(crate::dovecot::Profile::Full);
    let account = Account::on_dovecot(&dovecot, "u");
    let remote = Remote::Dovecot { server: &dovecot, user: "u", separator: '/', prefix: "" };
    let mut reader = dovecot.login("u");
    for n in 1..=5 {
        reader.append("INBOX", "", "01-Jan-2024 00:00:00 +0000", format!("Subject: {n}\r\n\r\nx\r\n").as_bytes());
    }
    says(&account.run(&["sync"]), 0, &["5 downloaded"]);
    fs::remove_dir_all(account.state_dir()).unwrap();
    says(&account.run(&["sync"]), 1, &["5 matched by content"]);
    says(&account.run(&["sync", "--full"]), 0, &[]);
    account.assert_equal(remote);
    assert!(remote.mails()["INBOX"].iter().all(|(_, mail)| mail.flags.is_empty()));
    let dangers: Vec<_> = dovecot.proxy.commands().into_iter().filter(|c| c.danger().is_some()).collect();
    assert!(dangers.is_empty(), "{dangers:?}");
}

#[test]
fn t46_the_last_uids_of_a_real_server() {
    let dovecot = Dovecot::start(crate::dovecot::Profile::Full);
    let account = Account::on_dovecot(&dovecot, "u");
    let remote = Remote::Dovecot { server: &dovecot, user: "u", separator: '/', prefix: "" };
    let mut reader = dovecot.login("u");
    reader.append("INBOX", "", "01-Jan-2024 00:00:00 +0000", b"Subject: first\r\n\r\nx\r\n");
    says(&account.run(&["sync"]), 0, &[]);
    dovecot.doveadm(&["mailbox", "update", "-u", "u", "--min-next-uid", "4294967290", "INBOX"]);
    for n in 0..2 {
        reader.append("INBOX", "", "01-Jan-2024 00:00:00 +0000", format!("Subject: {n}\r\n\r\nx\r\n").as_bytes());
    }
    account.deliver("INBOX", b"Subject: mine\n\nx\n");
    says(&account.run(&["sync"]), 0, &["2 downloaded", "1 uploaded"]);
    account.assert_equal(remote);
    let uids: Vec<u32> = remote.mails()["INBOX"].iter().map(|(uid, _)| *uid).collect();
    assert!(uids.len() == 4 && uids[1] >= 4_294_967_290, "{uids:?}");
    let before = account.snapshot(remote);
    says(&account.run(&["sync", "--full"]), 0, &[]);
    assert!(account.snapshot(remote) == before);
}
