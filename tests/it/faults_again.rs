//! What the server refuses stands in the way of nothing else, and is tried again.

use std::fs;

use postkeep_sim::{Fault, Profile, When};

use crate::daemon::{Daemon, NO_SWEEP};
use crate::faults_scene::{Scene, says};
use crate::faults_server::count;

/// Returns an account in which one of everything is to be done on the server, and on this side.
fn busy(profile: Profile, extra: &str) -> Scene {
    let scene = Scene::with(profile, &format!("append_retry_after = \"1s\"\n{extra}"));
    scene.server.state().create("Old");
    for n in 1..=8 {
        scene.arrives(n);
    }
    scene.assert_heals();
    // Two changes of flags, two moves, two removals and two new files; and what the server does meanwhile.
    scene.account.set_info(&scene.file("INBOX", 1), "F");
    scene.account.set_info(&scene.file("INBOX", 2), "R");
    for n in [3, 4] {
        scene.account.move_to(&scene.file("INBOX", n), "Old");
    }
    for n in [5, 6] {
        scene.unwanted(n);
        fs::remove_file(scene.file("INBOX", n)).unwrap();
    }
    scene.delivered(11);
    scene.delivered(12);
    scene.arrives(13);
    scene.unwanted(7);
    scene.server.state().expunge("INBOX", 7);
    let _ = scene.server.take_commands();
    scene
}

/// Lets the server refuse every command of one kind: the rest of the plan is carried out, and that when it is asked for again.
fn refused(profile: Profile, command: &str, answer: &str) {
    let (what, passes) =
        (format!("{profile:?} {command}: {answer}"), answer.starts_with("NO not") || answer.contains("LIMIT"));
    eprintln!("{what}");
    let scene = busy(profile, "");
    scene.server.inject(command, When::Every, Fault::Answer(answer.to_owned()));
    let output = scene.sync();
    scene.assert_fired(&format!("{command} answer"));
    says(&output, 1, &["refused"]);
    // Everything else was done.
    let commands = scene.server.take_commands();
    for other in ["UID STORE", "APPEND", "UID FETCH BODY.PEEK[]"] {
        assert!(commands.iter().any(|c| c.fits(other)), "{what}: no {other}");
    }
    scene.assert_here([13]);
    assert!(scene.account.files("INBOX").len() < 8, "{what}: what is gone there is still here");
    let status = scene.account.run(&["status"]);
    let words = match (passes, command) {
        (true, _) => "tried once, next try due in",
        (false, "APPEND") => "2 skipped",
        (false, _) => "tried once, next try with the next postkeep sync",
    };
    says(&status, 1, &[words]);

    // Each sync tries it again: both changes of flags, and both and each of the moves, removals or files.
    let output = scene.sync();
    assert_eq!(output.code, 1, "{what}: {output:?}");
    let again = count(&scene.server.take_commands(), command);
    let expected = if !passes && command == "APPEND" { 0..=0 } else { 1..=6 };
    assert!(expected.contains(&again), "{what}: {again}");
    scene.server.calm();
    let output = scene.account.run(&["sync", "--full"]);
    assert_eq!(output.code, 0, "{what}: {output:?}");
    assert!(!scene.account.run(&["status"]).stdout.contains("next try"), "{what}");
    if profile != Profile::Bare {
        scene.assert_heals();
    }
}

#[test]
fn a_refusal_that_may_pass_stops_nothing_else() {
    refused(Profile::Full, "UID STORE", "NO not now");
    refused(Profile::Full, "UID EXPUNGE", "NO not now");
}

#[test]
fn a_refusal_to_move_stops_nothing_else() {
    refused(Profile::Full, "UID MOVE", "NO [LIMIT] not so much");
    refused(Profile::Bare, "UID COPY", "NO not now");
}

#[test]
fn a_refusal_that_stays_stops_nothing_else() {
    refused(Profile::Full, "UID STORE", "BAD what?");
    refused(Profile::Full, "UID EXPUNGE", "NO [CANNOT] never");
    refused(Profile::Full, "APPEND", "NO [CANNOT] never");
}

#[test]
fn a_refusal_to_move_that_stays_stops_nothing_else() {
    refused(Profile::Full, "UID MOVE", "NO [CANNOT] never");
}

#[test]
fn a_refusal_of_outlook_stops_nothing_else() {
    refused(Profile::Outlook, "APPEND", "NO not now");
    refused(Profile::Outlook, "APPEND", "BAD Command Argument Error. 11");
    refused(Profile::Outlook, "UID MOVE", "NO not now");
}

#[test]
fn one_refused_message_among_many_is_found() {
    let scene = Scene::with(Profile::Full, "");
    for n in 1..=20 {
        scene.arrives(n);
    }
    scene.assert_heals();
    for n in 1..=20 {
        scene.account.set_info(&scene.file("INBOX", n), "F");
    }
    // All in one command, then each half: those that the thirteenth is not in are done.
    for set in ["1:20", "11:20", "11:15", "11:13", "13 "] {
        let set = format!("UID STORE {set}");
        scene.server.inject(&set, When::First(9), Fault::Answer("NO not this one".to_owned()));
    }
    scene.sync_says(1, &["a change of flags was refused for a message"]);
    let flagged = |uid| scene.server.state().mailbox("INBOX").messages[&uid].flags.contains("\\Flagged");
    for uid in 1..=20 {
        assert_eq!(flagged(uid), uid != 13, "{uid}");
    }
    scene.server.calm();
    scene.assert_heals();
}

#[test]
fn a_message_that_is_not_given_does_not_keep_the_others_away() {
    for (answer, passes) in [("NO [SERVERBUG] Internal error occurred", true), ("NO [CANNOT] never", false)] {
        let scene = Scene::synced(Profile::Full, 1);
        scene.all_but_one_are_given(answer);
        let words = if passes { "asked for once, next try due in" } else { "1 skipped" };
        says(&scene.account.run(&["status"]), 1, &[words]);
        scene.server.calm();
        if !passes {
            crate::faults_refusals::a_day_passes(&scene.account);
        }
        scene.assert_heals();
    }
}

#[test]
fn a_full_mailbox_is_tried_with_one_message() {
    for profile in [Profile::Full, Profile::Outlook] {
        let scene = Scene::synced(profile, 1);
        for n in 2..=40 {
            scene.delivered(n);
        }
        scene.server.inject("APPEND", When::Every, Fault::Answer("NO [OVERQUOTA] full".to_owned()));
        scene.sync_says(1, &["was not uploaded: refused by the server: full"]);
        let first = count(&scene.server.take_commands(), "APPEND");
        assert!(first <= 10, "{profile:?}: {first}");
        says(&scene.account.run(&["status"]), 1, &["39 skipped", "tried once, next try due in"]);
        scene.sync_says(1, &["full"]);
        assert_eq!(count(&scene.server.take_commands(), "APPEND"), 1, "{profile:?}");
        assert_eq!(scene.server.state().messages("INBOX").len(), 1);
        scene.server.calm();
        scene.assert_heals();
    }
}

/// Lets the server have no MOVE, and refuse to remove anything.
fn copies_only(scene: &Scene) {
    for command in ["LOGIN", "AUTHENTICATE", "CAPABILITY"] {
        scene.server.inject(command, When::Every, Fault::edit(|line| Some(line.replace(" MOVE", ""))));
    }
    scene.server.inject("UID EXPUNGE", When::Every, Fault::Answer("NO not now".to_owned()));
}

#[test]
fn what_was_copied_and_cannot_be_removed_is_copied_once() {
    let scene = Scene::with(Profile::Full, "append_retry_after = \"1s\"");
    scene.server.state().create("Old");
    for n in 1..=3 {
        scene.arrives(n);
    }
    scene.assert_heals();
    for n in [1, 2] {
        scene.account.move_to(&scene.file("INBOX", n), "Old");
    }
    copies_only(&scene);
    let _ = scene.server.take_commands();
    for _ in 0..3 {
        scene.sync_says(1, &["a removal was refused for"]);
        let there = |mailbox: &str| scene.server.state().messages(mailbox).len();
        assert_eq!((there("INBOX"), there("Old")), (3, 2));
        let here = |mailbox: &str| scene.account.files(mailbox).len();
        assert_eq!((here("INBOX"), here("Old")), (1, 2));
    }
    let commands = scene.server.take_commands();
    assert_eq!((count(&commands, "UID COPY"), count(&commands, "UID MOVE")), (1, 0));
    scene.assert_fired("UID EXPUNGE answer");
    scene.server.calm();
    scene.assert_heals();
}

#[test]
fn what_is_in_the_trash_and_cannot_be_removed_is_copied_once() {
    let scene = Scene::with(Profile::Full, "[account.a.deletions]\non_local = \"trash\"");
    scene.server.state().create("Trash");
    scene.server.state().mailbox_mut("Trash").special_use = Some("\\Trash".to_owned());
    for n in 1..=3 {
        scene.arrives(n);
    }
    scene.assert_heals();
    copies_only(&scene);
    fs::remove_file(scene.file("INBOX", 2)).unwrap();
    let output = scene.sync_says(1, &["1 message was copied to Trash, and could not be removed from INBOX"]);
    assert!(!output.stdout.contains("removed on the server"), "{output:?}");
    scene.server.calm();
    for _ in 0..2 {
        scene.sync_says(0, &[]);
        let there = |mailbox: &str| scene.server.state().messages(mailbox).len();
        assert_eq!((there("INBOX"), there("Trash")), (3, 1));
        assert_eq!((scene.account.files("INBOX").len(), scene.account.files("Trash").len()), (2, 1));
    }
}

#[test]
fn a_kill_among_refusals_loses_and_doubles_nothing() {
    let begin = || {
        let scene = Scene::with(Profile::Full, "append_retry_after = \"1s\"");
        scene.server.state().create("Old");
        for n in 1..=3 {
            scene.arrives(n);
        }
        scene.sync_says(0, &[]);
        scene.account.set_info(&scene.file("INBOX", 1), "F");
        scene.account.move_to(&scene.file("INBOX", 2), "Old");
        scene.delivered(4);
        for command in ["UID STORE", "UID MOVE", "APPEND"] {
            scene.server.inject(command, When::Every, Fault::Answer("NO [LIMIT] too much".to_owned()));
        }
        scene
    };
    let scene = begin();
    let steps = scene.account.state_dir().join("steps");
    let output = scene.account.run_with(&["sync"], &[("POSTKEEP_STEPS", steps.to_str().unwrap())]);
    assert_eq!(output.code, 1, "{output:?}");
    let count = fs::read_to_string(&steps).unwrap().lines().count();
    assert!(count > 6, "{count} steps");
    // Some of them are enough: each leaves what the next pass finds by its intent.
    for step in (3..=count).step_by(4) {
        let scene = begin();
        let _ = scene.account.run_with(&["sync"], &[("POSTKEEP_CRASH_AT", &step.to_string())]);
        scene.assert_whole();
        scene.server.calm();
        scene.assert_heals();
        let there = |mailbox: &str| scene.server.state().messages(mailbox).len();
        assert_eq!((there("INBOX"), there("Old")), (3, 1));
    }
}

#[test]
fn the_daemon_tries_again_by_itself_and_over_restarts() {
    let scene = busy(Profile::Full, NO_SWEEP);
    for command in ["UID STORE", "UID MOVE", "APPEND"] {
        scene.server.inject(command, When::Every, Fault::Answer("NO [LIMIT] too much".to_owned()));
    }
    // Minutes are seconds.
    let haste = [("POSTKEEP_HASTE", "60")];
    let daemon = Daemon::start_with(&scene.account, &haste);
    let tried = |name: &str, times: usize| count(&scene.server.commands(), name) >= times;
    daemon.until("the first try", || tried("UID STORE", 2) && tried("UID MOVE", 1) && tried("APPEND", 1));
    daemon.until("another try", || tried("UID STORE", 4) && tried("UID MOVE", 4) && tried("APPEND", 4));
    drop(daemon);
    let status = scene.account.run(&["status"]);
    says(&status, 1, &["times, next try"]);
    scene.server.calm();
    let daemon = Daemon::start_with(&scene.account, &haste);
    daemon.until("the last try", || !scene.account.differs(crate::account::Remote::Sim(&scene.server)));
}
