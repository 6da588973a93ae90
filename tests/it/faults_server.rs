//! The server is at fault: it lists too little, forgets, renumbers, refuses, or hangs up.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use postkeep_sim::{At, Command, Fault, Profile, Server, Share, When};

use crate::account::{Account, Output, Remote};
use crate::faults_refusals::a_day_passes;
use crate::faults_scene::{Scene, mail, says};

#[test]
fn t02_an_incomplete_listing_under_ok_deletes_nothing() {
    for profile in Profile::ALL {
        let scene = Scene::synced(profile, 14);
        let mut number = 14;
        for share in [Share::All, Share::EverySecond, Share::FirstHalf] {
            // Something to see on the server, and something that is really gone.
            number += 1;
            scene.arrives(number);
            let gone = number - 14;
            scene.unwanted(gone);
            scene.server.state().expunge("INBOX", gone);
            // With QRESYNC and without a list there is nothing to leave out.
            let ways: &[&[&str]] = match profile {
                Profile::NoQresync => &[&["sync"], &["sync", "--full"]],
                _ => &[&["sync", "--full"]],
            };
            for args in ways {
                scene.server.inject("SELECT", When::Every, Fault::DropLines(share));
                scene.server.inject("UID FETCH", When::Every, Fault::DropLines(share));
                let less = Fault::edit(|line| (!line.contains("SEARCH")).then(|| line.to_owned()));
                scene.server.inject("UID SEARCH", When::Every, less);
                let before = scene.server.fired().len();
                let output = scene.account.run(args);
                assert!(scene.server.fired().len() > before, "{profile:?} {share:?}: nothing was left out");
                assert!(!output.stdout.contains("removed here"), "{profile:?} {share:?}: {output:?}");
                says(&output, 1, &["nothing was deleted here for it"]);
                scene.assert_here(gone..number);
                scene.server.calm();
            }
            scene.assert_graves(gone as usize - 1);
            says(&scene.account.run(&["status"]), 1, &["nothing was deleted here for it"]);
            scene.assert_heals();
            scene.assert_graves(gone as usize);
        }
    }
}

#[test]
fn t02_a_listing_that_agrees_with_a_wrong_count_is_asked_again() {
    for profile in [Profile::NoCondstore, Profile::Outlook, Profile::Bare] {
        let scene = Scene::synced(profile, 14);
        let _ = scene.server.take_commands();
        let fewer = Fault::edit(|line| Some(line.replace("* 14 EXISTS", "* 7 EXISTS")));
        scene.server.inject("SELECT", When::Every, fewer);
        for nth in 1..=4 {
            scene.server.inject("UID FETCH FLAGS", When::Nth(nth), Fault::DropLines(Share::FirstHalf));
        }
        let before = scene.snapshot();
        let output = scene.account.run(&["sync", "--full"]);
        scene.assert_fired("SELECT edit");
        scene.assert_fired("UID FETCH drop-lines");
        assert!(scene.snapshot() == before, "{profile:?}: {output:?}");
        // In the end it saw all messages, so nothing was missing.
        assert!([0, 1].contains(&output.code), "{output:?}");
        scene.assert_told_nothing();
        scene.server.calm();
        scene.assert_heals();
    }
}

/// Runs a pass over a connection that is cut after so many bytes, and checks that nothing came of it but a part.
fn cut(scene: &Scene, bytes: u64, whole: u32) -> Output {
    scene.server.cut_after(bytes);
    let output = scene.sync();
    assert!([0, 1, 5].contains(&output.code), "{bytes}: {output:?}");
    assert!(!output.stdout.contains("removed"), "{bytes}: {output:?}");
    assert!(!output.stderr.contains("panicked"), "{bytes}: {output:?}");
    scene.assert_whole();
    assert_eq!(scene.server.state().messages("INBOX").len(), whole as usize);
    scene.server.calm();
    output
}

#[test]
fn t03_a_session_may_end_at_any_byte() {
    let mut scene = Scene::new(Profile::Full);
    (1..=3).for_each(|n| drop(scene.arrives(n).to_string()));
    // The first pass, coarsely.
    for bytes in (0..).step_by(131) {
        scene.account = Account::on_sim(&scene.server);
        let before = scene.server.fired().len();
        cut(&scene, bytes, 3);
        scene.sync_says(0, &[]);
        scene.account.assert_equal(Remote::Sim(&scene.server));
        if scene.server.fired().len() == before {
            assert!(bytes > 1000, "the session has {bytes} bytes");
            break;
        }
    }
    scene.assert_decent();
}

#[test]
fn t03_a_listing_may_end_at_any_byte() {
    let scene = Scene::synced(Profile::NoCondstore, 1);
    // Where does the listing begin? Cut in its reply, of which it is known how long it is.
    let sizes = Arc::new(AtomicU32::new(0));
    let seen = sizes.clone();
    let count = Fault::edit(move |line| {
        seen.fetch_add(u32::try_from(line.len()).unwrap() + 2, Ordering::Relaxed);
        Some(line.to_owned())
    });
    for name in ["AUTHENTICATE", "CAPABILITY", "ID", "ENABLE", "NAMESPACE", "LIST", "STATUS", "SELECT"] {
        scene.server.inject(name, When::Every, count.clone());
    }
    scene.sync_says(0, &[]);
    scene.server.calm();
    let greeting = format!("* OK [CAPABILITY {}] ready\r\n", Profile::NoCondstore.capabilities()).len() as u32;
    let begin = sizes.load(Ordering::Relaxed) + greeting;
    let listing = "* 1 FETCH (UID 1 FLAGS ())\r\n0000 OK done\r\n".len() as u32;
    let before = scene.snapshot();
    let fired = scene.server.fired().len();
    for bytes in begin..begin + listing {
        cut(&scene, bytes.into(), 1);
        assert!(scene.snapshot() == before);
    }
    let cuts = scene.server.fired().len() - fired;
    assert!(cuts >= listing as usize - 8, "{cuts} of {listing} bytes were cut at");
    scene.assert_told_nothing();
    scene.assert_heals();
}

#[test]
fn t05_what_was_not_given_is_asked_for_again() {
    let bodies = "UID FETCH BODY.PEEK[]";
    let faults = [
        ("omit", Fault::Omit(vec![5])),
        ("body-nil", Fault::BodyNil),
        ("body-empty", Fault::BodyEmpty),
        ("answer", Fault::Answer("NO [SERVERBUG] not now".to_owned())),
        ("close", Fault::Close(At::Middle)),
    ];
    for profile in [Profile::Full, Profile::Outlook] {
        for (name, fault) in faults.clone() {
            let scene = Scene::synced(profile, 3);
            for n in 4..=6 {
                scene.arrives(n);
            }
            scene.server.inject(bodies, When::Every, fault);
            for n in 7..=8 {
                // What arrives later must not take the cursor past what is missing, also not in another run.
                let output = scene.sync();
                assert!([1, 5].contains(&output.code), "{profile:?} {name}: {output:?}");
                scene.assert_whole();
                assert!(!output.stdout.contains("removed"), "{output:?}");
                scene.arrives(n);
            }
            scene.assert_fired(&format!("UID FETCH {name}"));
            if name == "omit" {
                scene.assert_here([1, 2, 3, 4, 6, 7]);
            }
            assert_ne!(scene.account.run(&["status"]).code, 0, "{name}");
            scene.server.calm();
            scene.assert_heals();
        }
    }
}

/// Starts `postkeep sync`, which is killed when the server has received its first APPEND, and waits for its end.
fn sync_killed_at_append(scene: &Scene) {
    let pid = Arc::new(AtomicU32::new(0));
    let mut child = {
        let pid = pid.clone();
        scene.server.on_command("APPEND", 1, move |_| {
            let raw = loop {
                match pid.load(Ordering::SeqCst) {
                    0 => std::thread::yield_now(),
                    pid => break pid,
                }
            };
            let pid = rustix::process::Pid::from_raw(raw.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
        scene.account.command(&["sync"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    pid.store(child.id(), Ordering::SeqCst);
    assert_eq!(child.wait().unwrap().code(), None, "the program was not killed");
    scene.assert_fired("APPEND run");
}

pub fn count(commands: &[Command], name: &str) -> usize {
    commands.iter().filter(|c| c.name == name).count()
}

#[test]
fn t08_an_append_that_is_done_after_the_restart_is_not_doubled() {
    for profile in [Profile::Full, Profile::Outlook, Profile::Bare] {
        let scene = Scene::with(profile, "append_retry_after = \"2s\"");
        scene.arrives(1);
        scene.assert_heals();
        scene.delivered(2);
        scene.server.inject("APPEND", When::Nth(1), Fault::Zombie(Duration::from_millis(1200)));
        sync_killed_at_append(&scene);
        // At once, as systemd would.
        let output = scene.sync();
        scene.assert_fired("APPEND zombie");
        says(&output, 0, &[]);
        assert_eq!(count(&scene.server.commands(), "APPEND"), 1, "{profile:?}: {output:?}");
        scene.assert_heals();
    }
}

#[test]
fn t08_an_append_whose_answer_is_lost_is_not_doubled() {
    let lost = [Fault::Close(At::Unanswered), Fault::Zombie(Duration::from_millis(500)), Fault::Close(At::Middle)];
    for profile in [Profile::Full, Profile::Outlook, Profile::Bare] {
        for fault in lost.clone() {
            let scene = Scene::with(profile, "append_retry_after = \"1s\"");
            scene.assert_heals();
            scene.delivered(1);
            let name = format!("APPEND {}", fault.name());
            scene.server.inject("APPEND", When::Nth(1), fault);
            let output = scene.sync();
            scene.assert_fired(&name);
            assert!([0, 1].contains(&output.code), "{output:?}");
            assert_eq!(count(&scene.server.commands(), "APPEND"), 1, "{profile:?} {name}: {output:?}");
            scene.assert_heals();
        }
    }
}

#[test]
fn t08_an_append_that_never_arrived_is_sent_again() {
    let scene = Scene::with(Profile::Full, "append_retry_after = \"1s\"");
    scene.assert_heals();
    scene.delivered(1);
    scene.server.inject("APPEND", When::Nth(1), Fault::Close(At::Before));
    scene.sync_says(0, &[]);
    scene.assert_fired("APPEND close");
    assert_eq!(count(&scene.server.commands(), "APPEND"), 2);
    scene.assert_heals();
}

#[test]
fn t08_a_wrong_or_absent_appenduid_loses_and_doubles_nothing() {
    let faults = [
        ("absent", Fault::without_code("APPENDUID")),
        ("of another epoch", Fault::with_code("APPENDUID", "7 1")),
        ("of another message", Fault::edit(|line| Some(renumbered(line, "1")))),
        ("of no message", Fault::edit(|line| Some(renumbered(line, "4000")))),
        ("zero", Fault::with_code("APPENDUID", "0 0")),
        ("nonsense", Fault::with_code("APPENDUID", "x y")),
    ];
    for (name, fault) in faults {
        let scene = Scene::with(Profile::Full, "append_retry_after = \"1s\"");
        scene.arrives(1);
        scene.assert_heals();
        scene.delivered(2);
        scene.server.inject("APPEND", When::Nth(1), fault);
        let output = scene.sync();
        scene.assert_fired("APPEND edit");
        assert!([0, 1].contains(&output.code), "{name}: {output:?}");
        assert!(!output.stdout.contains("removed"), "{name}: {output:?}");
        scene.assert_heals_within(2);
        assert_eq!(scene.server.state().messages("INBOX").len(), 2, "{name}");
        scene.assert_graves(0);
    }
}

/// Gives the UID in APPENDUID another value, and leaves its UIDVALIDITY.
fn renumbered(line: &str, uid: &str) -> String {
    let Some((head, tail)) = line.split_once("[APPENDUID ") else { return line.to_owned() };
    let (validity, rest) = tail.split_once(' ').unwrap();
    format!("{head}[APPENDUID {validity} {uid}]{}", rest.split_once(']').unwrap().1)
}

#[test]
fn t10_a_server_that_went_back_in_time_loses_and_mixes_up_nothing() {
    for profile in Profile::ALL {
        let scene = Scene::synced(profile, 4);
        let backup = scene.server.state().mailbox("INBOX").clone();
        for n in 5..=7 {
            scene.arrives(n);
        }
        scene.assert_heals();
        scene.server.state().restore_backup("INBOX", &backup);
        // UIDs that were given before are given again.
        assert_eq!(scene.arrives(8), 5);
        let reused = scene.file("INBOX", 5);
        scene.account.set_info(&reused, "F");
        let before: BTreeSet<_> = scene.server.state().messages("INBOX").iter().map(|m| m.bytes.clone()).collect();
        let output = scene.sync();
        assert!([0, 1].contains(&output.code), "{output:?}");
        assert!(!output.stdout.contains("removed"), "{profile:?}: {output:?}");
        scene.assert_here(1..=8);
        scene.assert_graves(0);
        scene.assert_heals();
        let now = scene.server.state().messages("INBOX");
        assert!(now.iter().filter(|m| before.contains(&m.bytes)).all(|m| m.flags.is_empty()), "{profile:?}: {now:?}");
        assert_eq!(now.len(), 8);
    }
}

#[test]
fn t10_a_mod_sequence_that_went_back_is_noticed() {
    for profile in [Profile::Full, Profile::NoQresync] {
        let scene = Scene::synced(profile, 4);
        let backup = scene.server.state().mailbox("INBOX").clone();
        scene.arrives(5);
        for flags in [&["\\Seen"][..], &[], &["\\Seen"], &[]] {
            scene.server.state().set_flags("INBOX", 5, flags);
        }
        scene.assert_heals();
        // As many messages as before, and the same UIDNEXT; only the change counter tells.
        scene.server.state().restore_backup("INBOX", &backup);
        assert_eq!(scene.arrives(6), 5);
        let output = scene.sync();
        assert!(!output.stdout.contains("removed"), "{profile:?}: {output:?}");
        scene.assert_graves(0);
        scene.assert_heals();
        scene.assert_here(1..=6);
    }
}

/// Gives every message of INBOX a new UID, as a server does that lost its index.
fn renumber(server: &Server, validity: u32, by: u32) {
    let mut state = server.state();
    state.set_uid_validity("INBOX", validity);
    let inbox = state.mailbox_mut("INBOX");
    let old = std::mem::take(&mut inbox.messages);
    for mut message in old.values().cloned() {
        message.uid += by;
        inbox.messages.insert(message);
    }
    inbox.uid_next += by;
}

#[test]
fn t11_another_uidvalidity_moves_no_mail() {
    for profile in Profile::ALL {
        let scene = Scene::synced(profile, 10);
        // True, spurious, back to an old value, and back again.
        for (validity, by) in [(42, 100), (43, 0), (42, 0), (43, 5)] {
            renumber(&scene.server, validity, by);
            let _ = scene.server.take_commands();
            let before = scene.account.files("INBOX");
            scene.sync_says(0, &["10 matched by content"]);
            assert_eq!(scene.account.files("INBOX"), before, "{profile:?} {validity}");
            let commands = scene.server.take_commands();
            let transfers = |c: &&Command| c.changes() || c.args.contains("BODY.PEEK[]");
            assert_eq!(commands.iter().filter(transfers).collect::<Vec<_>>(), Vec::<&Command>::new(), "{profile:?}");
            scene.assert_graves(0);
            a_day_passes(&scene.account);
        }
        scene.assert_heals();
        // Deleted on either side meanwhile: the pass that sees the new epoch removes nothing on its word.
        renumber(&scene.server, 44, 3);
        let there = scene.server.state().messages("INBOX").iter().find(|m| m.bytes == mail(1)).unwrap().uid;
        scene.server.state().expunge("INBOX", there);
        fs::remove_file(scene.file("INBOX", 2)).unwrap();
        let output = scene.sync();
        assert!(!output.stdout.contains("removed"), "{profile:?}: {output:?}");
        scene.assert_heals();
        scene.assert_graves(0);
    }
}

/// A server that renumbers a mailbox again and again would have it matched again and again, and no deletion would cross.
#[test]
fn t11_the_third_uidvalidity_in_a_day_is_held() {
    for profile in [Profile::Full, Profile::Bare] {
        let scene = Scene::synced(profile, 3);
        scene.arrives_in_new("Other", 10);
        for validity in [42, 43] {
            renumber(&scene.server, validity, 5);
            scene.sync_says(0, &["3 matched by content"]);
        }
        renumber(&scene.server, 44, 5);
        scene.account.set_info(&scene.file("INBOX", 1), "F");
        let before = scene.server.state().messages("INBOX");
        for number in 11..13 {
            // The others go on.
            scene.arrives_in("Other", number);
            let held = "INBOX: held: the server gave it other numbers";
            scene.sync_says(4, &[held, "postkeep approve a --mailbox INBOX", "Other: 1 downloaded"]);
            assert!(scene.server.state().messages("INBOX") == before, "{profile:?}: something was done in it");
        }
        says(&scene.account.run(&["status"]), 4, &["INBOX: held", "to let it go on:"]);
        says(&scene.account.run(&["approve", "a", "--undo"]), 0, &["nothing is held"]);
        says(&scene.account.run(&["approve", "a"]), 0, &["INBOX: goes on with the next pass"]);
        scene.sync_says(0, &["3 matched by content"]);
        scene.assert_heals();
        assert!(scene.server.state().messages("INBOX")[0].flags.contains("\\Flagged"));
    }
}

#[test]
fn t11_no_uidvalidity_is_no_mailbox() {
    for value in ["0", "4294967296", "99999999999999999999999", "-1", "x", ""] {
        let scene = Scene::synced(Profile::Full, 3);
        scene.server.state().create("Other");
        scene.arrives_in("Other", 4);
        scene.arrives(5);
        let fault =
            if value.is_empty() { Fault::without_code("UIDVALIDITY") } else { Fault::with_code("UIDVALIDITY", value) };
        for nth in 1..=4 {
            scene.server.inject("SELECT INBOX", When::Nth(nth), fault.clone());
        }
        let before = scene.account.files("INBOX");
        scene.sync_says(1, &["INBOX"]);
        scene.assert_fired("SELECT edit");
        assert_eq!(scene.account.files("INBOX"), before, "{value:?}");
        assert_eq!(scene.account.files("Other").len(), 1, "{value:?}: the other mailbox goes on");
        scene.assert_graves(0);
        scene.server.calm();
        scene.assert_heals();
    }
}

#[test]
fn t14_without_uidplus_nothing_else_is_expunged() {
    let scene = Scene::synced(Profile::Bare, 5);
    // Another client's.
    scene.server.state().set_flags("INBOX", 4, &["\\Deleted"]);
    scene.assert_heals();
    fs::remove_file(scene.file("INBOX", 2)).unwrap();
    for _ in 0..3 {
        let output = scene.sync();
        assert!([0, 1].contains(&output.code), "{output:?}");
    }
    let commands = scene.server.commands();
    assert!(!commands.iter().any(|c| c.name.ends_with("EXPUNGE") || c.name == "CLOSE"), "{commands:?}");
    let left: Vec<u32> = scene.server.state().messages("INBOX").iter().map(|m| m.uid).collect();
    assert_eq!(left, [1, 2, 3, 4, 5]);
    assert!(scene.server.state().messages("INBOX")[1].flags.contains("\\Deleted"));
    // It stays deleted here, and does not come back.
    assert_eq!(scene.account.files("INBOX").len(), 4);
    let _ = scene.server.take_commands();
    scene.sync_says(0, &[]);
    scene.assert_told_nothing();
    // Another client expunges.
    for uid in [2, 4] {
        scene.server.state().expunge("INBOX", uid);
        scene.unwanted(uid);
    }
    scene.assert_heals();
}
