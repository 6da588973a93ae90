//! The server's words are at fault: what nobody asked for, nonsense, numbers that are none, change counters that are not
//! there.

use std::fs;
use std::sync::Mutex;

use postkeep_sim::{At, Fault, Profile, Server, When};

use crate::account::Remote;
use crate::faults_scene::{Scene, says};

#[test]
fn t43_unsolicited_data_is_no_news_of_deletions() {
    let sent: [(&str, &[u8]); 12] = [
        ("exists", b"* 9 EXISTS\r\n"),
        ("fewer", b"* 1 EXISTS\r\n"),
        ("recent", b"* 2 RECENT\r\n"),
        ("expunge", b"* 1 EXPUNGE\r\n"),
        ("flags without uid", b"* 1 FETCH (FLAGS (\\Deleted))\r\n"),
        ("flags", b"* 2 FETCH (FLAGS (\\Seen) UID 2)\r\n"),
        ("foreign uid", b"* 3 FETCH (UID 900 FLAGS (\\Seen))\r\n"),
        ("alert", b"* OK [ALERT] the server will be down\r\n"),
        ("unknown code", b"* OK [X-THING (a \"b\" {2}\r\nxy)] hm\r\n"),
        ("capability", b"* CAPABILITY IMAP4rev1\r\n"),
        ("unknown", b"* XYZZY (nothing (happens)) \"here\"\r\n"),
        ("vanished", b"* VANISHED 1:3\r\n"),
    ];
    for (i, (name, bytes)) in sent.into_iter().enumerate() {
        let profile = if i % 2 == 0 { Profile::Full } else { Profile::Outlook };
        let scene = Scene::with(profile, "append_retry_after = \"1s\"");
        for n in 1..=3 {
            scene.arrives(n);
        }
        scene.sync_says(0, &[]);
        for (n, command) in (4..).zip(["LIST", "SELECT", "UID FETCH", "APPEND"]) {
            scene.delivered(n);
            scene.server.inject(command, When::Every, Fault::Send(bytes.to_vec()));
            let output = scene.account.run(&["sync", "--full"]);
            let what = format!("{profile:?} {name} in {command}: {output:?}");
            scene.assert_fired(&format!("{command} send"));
            assert!([0, 1, 5].contains(&output.code), "{what}");
            assert!(!output.stdout.contains("removed"), "{what}");
            scene.assert_here(1..=n);
            assert!(scene.server.state().messages("INBOX").len() >= n as usize - 1, "{what}");
            scene.assert_graves(0);
            scene.server.calm();
        }
        says(&scene.account.run(&["sync", "--full"]), 0, &[]);
        scene.assert_heals();
    }
}

const BYE: &str = "* BYE the disk of the server is full";

#[test]
fn t43_the_last_words_of_a_server_are_shown() {
    let scene = Scene::synced(Profile::Full, 2);
    scene.arrives(3);
    let bye = |line: &str| Some(if line.contains(" OK ") && !line.starts_with('*') { BYE } else { line }.to_owned());
    scene.server.inject("SELECT", When::Every, Fault::edit(bye));
    scene.server.inject("SELECT", When::Every, Fault::Close(At::After));
    let output = scene.sync();
    assert!([1, 5].contains(&output.code), "{output:?}");
    says(&output, output.code, &["the disk of the server is full"]);
    scene.assert_here(1..=2);
    scene.server.calm();
    scene.assert_heals();
}

#[test]
fn t43_a_server_that_talks_nonsense_is_left() {
    let nonsense = [
        ("literal of 4 GB", Fault::huge_literal(4_294_967_295)),
        ("literal without end", Fault::Send(b"* 1 FETCH (UID 1 BODY[] {99999999999999999999}\r\n".to_vec())),
        ("parentheses", Fault::deep_parentheses(100_000)),
        ("no line", Fault::Send(vec![b'x'; 3 << 20])),
        ("bytes", Fault::Send(b"\0\xff\xfe\r\n\r\n\r\n* \r\n*\r\n".to_vec())),
        ("a foreign tag", Fault::Send(b"zz9 OK done\r\n".to_vec())),
        ("flags that are none", Fault::Send(b"* 1 FETCH (UID 1 FLAGS ((((\r\n".to_vec())),
        ("a FETCH twice", Fault::Send(b"* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n* 1 FETCH (UID 1 FLAGS ())\r\n".to_vec())),
    ];
    for (name, fault) in nonsense {
        for command in ["LIST", "SELECT", "UID FETCH"] {
            let scene = Scene::synced(Profile::NoCondstore, 3);
            scene.arrives(4);
            scene.server.inject(command, When::Every, fault.clone());
            let output = scene.account.run(&["sync", "--full"]);
            let what = format!("{name} in {command}: {output:?}");
            scene.assert_fired(&format!("{command} send"));
            assert!([0, 1, 5].contains(&output.code), "{what}");
            assert!(!output.stdout.contains("removed"), "{what}");
            scene.assert_here(1..=3);
            scene.assert_whole();
            scene.server.calm();
            says(&scene.account.run(&["sync", "--full"]), 0, &[]);
            scene.assert_heals();
        }
    }
}

#[test]
fn t46_numbers_that_are_none_hold_one_mailbox() {
    let edit = |from: &'static str, to: &'static str| Fault::edit(move |line| Some(line.replace(from, to)));
    let faults = [
        ("UID FETCH", edit("UID 2 ", "UID 0 "), 1),
        ("UID FETCH", edit("UID 2 ", "UID 4294967296 "), 1),
        ("UID FETCH", edit("UID 2 ", "UID -2 "), 1),
        ("SELECT", Fault::with_code("UIDNEXT", "0"), 1),
        // What cannot be read was not told, and STATUS can be asked.
        ("SELECT", Fault::with_code("UIDNEXT", "18446744073709551616"), 0),
        ("SELECT", edit("* 3 EXISTS", "* -3 EXISTS"), 1),
        ("SELECT", edit("* 3 EXISTS", "* 4294967299 EXISTS"), 1),
    ];
    for (number, (command, fault, code)) in faults.into_iter().enumerate() {
        let scene = Scene::synced(Profile::NoCondstore, 3);
        let before = scene.snapshot();
        scene.server.inject(command, When::Every, fault);
        let output = scene.account.run(&["sync", "--full"]);
        scene.assert_fired(&format!("{command} edit"));
        assert_eq!(output.code, code, "{number}: {output:?}");
        assert!(!output.stderr.contains("panicked"), "{output:?}");
        assert!(scene.snapshot() == before, "{output:?}");
        scene.assert_told_nothing();
        scene.server.calm();
        scene.assert_heals();
    }
}

#[test]
fn t46_the_largest_numbers_are_numbers() {
    let scene = Scene::synced(Profile::Full, 1);
    {
        let mut state = scene.server.state();
        let inbox = state.mailbox_mut("INBOX");
        inbox.uid_next = u32::MAX - 2;
        inbox.highest_mod_seq = (1 << 63) - 100;
    }
    for n in 2..=3 {
        scene.arrives(n);
    }
    scene.assert_heals();
    // UIDNEXT may be missing (RFC 3501 §7.1 calls it required, some servers do not).
    scene.arrives_in("INBOX", 4);
    scene.server.inject("SELECT", When::Every, Fault::without_code("UIDNEXT"));
    scene.sync_says(0, &[]);
    scene.assert_fired("SELECT edit");
    scene.server.calm();
    scene.assert_heals();
}

/// Puts what a server keeps onto one of another profile, and the account there.
fn migrate(scene: &mut Scene, profile: Profile) {
    let server = Server::spawn(profile).unwrap();
    let state = scene.server.state().clone();
    *server.state() = state;
    let config = fs::read_to_string(scene.account.config()).unwrap();
    let port = |server: &Server| format!("port = {}", server.port());
    fs::write(scene.account.config(), config.replace(&port(&scene.server), &port(&server))).unwrap();
    scene.server = server;
}

#[test]
fn t47_without_a_change_counter_flags_arrive_all_the_same() {
    let mut scene = Scene::synced(Profile::Full, 5);
    let (mut uid, mut flags) = (0, vec!["\\Seen"]);
    for profile in [Profile::Outlook, Profile::Full, Profile::NoQresync, Profile::Bare, Profile::NoCondstore] {
        migrate(&mut scene, profile);
        uid += 1;
        flags = if flags.len() == 1 { vec!["\\Seen", "\\Flagged"] } else { vec!["\\Seen"] };
        scene.server.state().set_flags("INBOX", uid, &flags);
        scene.assert_heals();
        // And once more on the same server.
        scene.server.state().set_flags("INBOX", uid, &["\\Answered"]);
        let path = scene.file("INBOX", 6 - uid);
        scene.account.set_info(&path, "DF");
        scene.assert_heals();
    }
}

#[test]
fn t47_a_mailbox_without_mod_sequences_is_listed() {
    for profile in [Profile::Full, Profile::NoQresync] {
        let scene = Scene::synced(profile, 5);
        let none = Fault::edit(|line| {
            let Some((head, tail)) = line.split_once("[HIGHESTMODSEQ ") else { return Some(line.to_owned()) };
            Some(format!("{head}[NOMODSEQ]{}", tail.split_once(']').unwrap().1))
        });
        scene.server.inject("SELECT", When::Every, none);
        let status = |line: &str| {
            let text = line.split(" HIGHESTMODSEQ ").collect::<Vec<_>>();
            Some(if text.len() == 2 { format!("{} HIGHESTMODSEQ 0)", text[0]) } else { line.to_owned() })
        };
        scene.server.inject("LIST", When::Every, Fault::edit(status));
        for uid in 1..=3 {
            scene.server.state().set_flags("INBOX", uid, &["\\Seen"]);
            scene.sync_says(0, &[]);
            scene.assert_fired("SELECT edit");
            scene.account.assert_equal(Remote::Sim(&scene.server));
        }
        scene.server.inject(
            "ENABLE",
            When::Every,
            Fault::edit(|line| (!line.starts_with("* ENABLED")).then(|| line.to_owned())),
        );
        scene.server.state().set_flags("INBOX", 4, &["\\Seen"]);
        scene.sync_says(0, &[]);
        scene.account.assert_equal(Remote::Sim(&scene.server));
        scene.server.calm();
        scene.assert_heals();
    }
}

/// Returns a fault that turns the lines about messages of each reply around.
fn backwards() -> Fault {
    let held = Mutex::new(Vec::new());
    Fault::edit(move |line| {
        let mut held = held.lock().unwrap();
        if line.starts_with("* ") && line.contains(" FETCH (") && line.ends_with(')') {
            held.push(line.to_owned());
            return None;
        }
        let turned = held.drain(..).rev().map(|line| line + "\r\n").collect::<String>();
        Some(turned + line)
    })
}

/// A server may list its messages in any order.
#[test]
fn t05_messages_may_be_listed_in_any_order() {
    for profile in Profile::ALL {
        let scene = Scene::synced(profile, 9);
        for args in [&["sync"][..], &["sync", "--full"]] {
            let number = 20 + args.len() as u32 * 10;
            (number..number + 3).for_each(|n| drop(scene.arrives(n).to_string()));
            let gone = args.len() as u32;
            scene.unwanted(gone);
            scene.server.state().expunge("INBOX", gone);
            let uids: Vec<u32> = scene.server.state().mailbox("INBOX").messages.keys().copied().collect();
            uids.iter().step_by(2).for_each(|uid| scene.server.state().set_flags("INBOX", *uid, &["\\Flagged"]));
            for command in ["SELECT", "UID FETCH"] {
                scene.server.inject(command, When::Every, backwards());
            }
            let fired = scene.server.fired().len();
            says(&scene.account.run(args), 0, &["3 downloaded", "1 removed here"]);
            assert!(scene.server.fired().len() > fired);
            scene.server.calm();
            scene.account.assert_equal(Remote::Sim(&scene.server));
            scene.assert_heals();
        }
    }
}
