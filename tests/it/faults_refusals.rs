//! The server refuses what it is asked for.

use std::fs;
use std::process::Stdio;

use postkeep_sim::{Fault, Profile, When};

use crate::account::Account;
use crate::faults_scene::{Scene, says};
use crate::faults_server::count;
use crate::outlook::let_quiet_pass;

/// Makes one of everything that a pass does.
fn bustle(scene: &Scene) {
    scene.arrives(11);
    scene.delivered(12);
    scene.unwanted(1);
    scene.server.state().expunge("INBOX", 1);
    scene.unwanted(2);
    fs::remove_file(scene.file("INBOX", 2)).unwrap();
    scene.server.state().set_flags("INBOX", 3, &["\\Seen"]);
    let path = scene.file("INBOX", 4);
    scene.account.set_info(&path, "F");
    scene.account.deliver("Mine", b"a: b\n\nmine\n");
    scene.server.state().create("Theirs");
    scene.arrives_in("Theirs", 13);
    let path = scene.file("INBOX", 5);
    scene.account.move_to(&path, "Old");
}

/// Returns an account about to do one of everything.
fn busy(profile: Profile) -> Scene {
    let scene = Scene::with(profile, "append_retry_after = \"1s\"");
    scene.server.state().create("Old");
    for n in 1..=6 {
        scene.arrives(n);
    }
    scene.assert_heals();
    let _ = scene.server.take_commands();
    bustle(&scene);
    scene
}

#[test]
fn t16_each_command_may_be_refused() {
    for profile in [Profile::Full, Profile::Bare] {
        let scene = busy(profile);
        scene.sync();
        let mut names: Vec<(String, u32)> = Vec::new();
        for command in scene.server.take_commands() {
            let nth = names.iter().filter(|(name, _)| *name == command.name).count();
            names.push((command.name, u32::try_from(nth).unwrap() + 1));
        }
        assert!(names.len() > 10, "{names:?}");
        for (i, (name, nth)) in names.iter().enumerate() {
            if name == "LOGOUT" || *nth > 2 || (profile == Profile::Bare && *nth > 1) {
                continue;
            }
            let answer = if i % 2 == 0 { "NO [CANNOT] I will not" } else { "BAD I do not understand" };
            let scene = busy(profile);
            scene.server.inject(name, When::Nth(*nth), Fault::Answer(answer.to_owned()));
            let output = scene.sync();
            let what = format!("{profile:?} {nth}. {name}: {answer}: {output:?}");
            if !scene.server.fired().iter().any(|f| f.ends_with(" answer")) {
                // The connections share the work differently each time.
                assert!(*nth > 1, "{what}");
                continue;
            }
            assert!([0, 1, 3, 5].contains(&output.code), "{what}");
            assert!(!output.stderr.contains("panicked"), "{what}");
            scene.assert_whole_or(&[b"a: b\n\nmine\n"]);
            scene.server.calm();
            // What the server refused for good is tried again only when asked.
            let output = scene.account.run(&["sync", "--full"]);
            assert_eq!(output.code, 0, "{what}, and then {output:?}");
            if profile == Profile::Bare {
                // What it cannot remove without UIDPLUS is marked, and another client removes it.
                let marked = |m: &postkeep_sim::Message| m.flags.contains("\\Deleted");
                let uids: Vec<u32> =
                    scene.server.state().messages("INBOX").iter().filter(|m| marked(m)).map(|m| m.uid).collect();
                assert!(uids.len() <= 2, "{what}");
                uids.into_iter().for_each(|uid| scene.server.state().expunge("INBOX", uid));
            }
            scene.assert_heals();
        }
    }
}

/// Makes it seem that the last full look at the mailboxes was more than a day ago.
pub fn a_day_passes(account: &Account) {
    let database = rusqlite::Connection::open(account.state_dir().join("a.sqlite3")).unwrap();
    database.execute("UPDATE journal SET at = at - 90000000", ()).unwrap();
    let changed = database.execute("UPDATE mailbox SET listed_at = listed_at - 90000", ()).unwrap();
    assert!(changed > 0);
}

#[test]
fn t16_a_refused_append_is_told_and_the_others_go_on() {
    let texts = ["NO [OVERQUOTA] full", "NO [LIMIT] too many", "NO [CANNOT] this not", "BAD [TOOBIG] no", "NO no"];
    for (text, how) in
        texts.into_iter().flat_map(|t| [(t, Fault::Answer(t.to_owned())), (t, Fault::Refuse(t.to_owned()))])
    {
        // Only without LITERAL+ does the server have a say before it has the message.
        let profile = if how.name() == "refuse" { Profile::Bare } else { Profile::Outlook };
        let scene = Scene::synced(profile, 2);
        scene.delivered(3);
        scene.arrives(4);
        let fired = format!("APPEND {}", how.name());
        scene.server.inject("APPEND", When::Every, how);
        let output = scene.sync();
        scene.assert_fired(&fired);
        says(&output, 1, &["was not uploaded: refused by the server"]);
        scene.assert_here(1..=4);
        says(&scene.account.run(&["status"]), 1, &["1 skipped"]);
        // What will be refused again is not sent again and again, what may be taken is with each sync, once.
        let passes = !text.contains("CANNOT") && !text.contains("TOOBIG");
        let _ = scene.server.take_commands();
        scene.sync_says(1, &[if passes { "was not uploaded" } else { "skipped" }]);
        assert_eq!(count(&scene.server.take_commands(), "APPEND"), usize::from(passes), "{text}");
        let status = scene.account.run(&["status"]).stdout;
        assert_eq!(status.contains("tried 2 times, next try due in"), passes, "{text}: {status}");
        // The other once a day: a limit may be higher.
        scene.server.calm();
        if !passes {
            a_day_passes(&scene.account);
        }
        scene.sync_says(0, &["1 uploaded"]);
        assert!(!scene.account.run(&["status"]).stdout.contains("next try"));
        scene.assert_heals();
    }
}

#[test]
fn t16_a_server_that_asks_to_come_back_later_is_not_refusing() {
    let texts = [
        "NO [UNAVAILABLE] try later",
        "BAD Request is throttled. Suggested Backoff Time: 299961 milliseconds",
        "NO Server Unavailable. 15",
        "BAD User is authenticated but not connected.",
    ];
    for text in texts {
        for command in ["APPEND", "SELECT", "LIST", "UID FETCH"] {
            let scene = Scene::with(Profile::Outlook, "append_retry_after = \"1s\"");
            for n in 1..=2 {
                scene.arrives(n);
            }
            scene.assert_heals();
            scene.delivered(3);
            scene.arrives(4);
            scene.server.inject(command, When::Every, Fault::Answer(text.to_owned()));
            let output = scene.sync();
            scene.assert_fired(&format!("{command} answer"));
            assert_eq!(output.code, 5, "{command} {text}: {output:?}");
            scene.assert_here(1..=3);
            scene.server.calm();
            if text.contains("throttled") || text.contains("not connected") {
                scene.sync_says(5, &["is left alone until"]);
                let_quiet_pass(&scene.account);
            }
            scene.assert_heals();
        }
    }
}

#[test]
fn t16_a_server_full_of_silence_is_not_waited_for_when_asked_to_stop() {
    let scene = Scene::synced(Profile::Full, 2);
    scene.delivered(3);
    scene.server.inject("SELECT", When::Every, Fault::Stall);
    let mut child = scene.account.command(&["sync"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !scene.server.fired().contains(&"SELECT stall".to_owned()) {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    scene.server.calm();
    scene.assert_heals();
}
