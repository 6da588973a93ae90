//! Mailboxes that take the names of each other between two passes: on the server, or as directories here.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;

use postkeep_sim::{Fault, Profile, When};

use crate::mirror::{Host, Kind, World, everywhere};

/// Who renames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    There,
    Here,
}

/// What is renamed, one after the other, and what is where then.
const ROWS: [(&[(&str, &str)], &str); 4] = [
    (&[("A", "X"), ("B", "A")], "A: b1 b2; C: c1; INBOX:; X: a1 a2; X/s: s1"),
    (&[("C", "Y"), ("B", "C"), ("A", "B")], "B: a1 a2; B/s: s1; C: b1 b2; INBOX:; Y: c1"),
    (&[("A", "T"), ("B", "A"), ("T", "B")], "A: b1 b2; B: a1 a2; B/s: s1; C: c1; INBOX:"),
    (&[("A", "T"), ("B", "A"), ("C", "B"), ("T", "C")], "A: b1 b2; B: c1; C: a1 a2; C/s: s1; INBOX:"),
];

fn world(host: &Host) -> World<'_> {
    let world = host.world("");
    for mailbox in ["A", "A/s", "B", "C"] {
        world.create(mailbox);
    }
    for (mailbox, subject) in [("A", "a1"), ("A", "a2"), ("A/s", "s1"), ("B", "b1"), ("B", "b2"), ("C", "c1")] {
        world.append(mailbox, subject, &["\\Seen"], 1_000);
    }
    world.mirror();
    world
}

fn rename(world: &World<'_>, side: Side, renames: &[(&str, &str)]) {
    for (from, to) in renames {
        match side {
            Side::There => world.rename(from, to),
            Side::Here => {
                let at = |name: &str| world.account.maildir().join(name);
                fs::rename(at(from), at(to)).unwrap();
            }
        }
    }
}

/// Returns the inode of each message file: one that was transferred has another one.
fn inodes(world: &World<'_>) -> BTreeMap<String, u64> {
    use std::os::unix::fs::MetadataExt;
    let files = ["A", "B", "C", "X", "Y", "A/s", "B/s", "C/s", "X/s"].into_iter();
    let files = files.filter(|name| world.account.maildir().join(name).is_dir());
    let files = files.flat_map(|name| world.account.files(name));
    files.map(|path| (fs::read_to_string(&path).unwrap(), fs::metadata(&path).unwrap().ino())).collect()
}

#[test]
fn names_that_change_places_are_followed_without_a_transfer() {
    let hosts = Cell::new(0_usize);
    everywhere(|host| {
        let host_number = hosts.replace(hosts.get() + 1);
        for (row, (renames, expected)) in ROWS.into_iter().enumerate() {
            // Each kind of server has every row, on one of both sides; the next kind has it on the other.
            let side = if (host_number + row).is_multiple_of(2) { Side::There } else { Side::Here };
            let world = world(host);
            let before = inodes(&world);
            rename(&world, side, renames);
            world.mirror();
            world.assert_no_transfer();
            assert_eq!(world.listing(), expected, "{side:?} {renames:?}");
            assert!(inodes(&world) == before && world.graveyard().is_empty(), "{side:?} {renames:?}");
            assert!(world.changes().iter().all(|name| name == "RENAME"), "{:?}", world.changes());
        }
    });
}

#[test]
fn a_dry_run_names_them_and_does_nothing() {
    let host = Host::start(Kind::Sim(Profile::Full));
    for (side, words) in [(Side::There, "rename the maildir to X"), (Side::Here, "rename the mailbox to X")] {
        let world = world(&host);
        rename(&world, side, ROWS[0].0);
        let before = world.snapshot();
        let said = world.run(&["sync", "--dry-run"]).stdout;
        assert!(said.contains(words), "{said}");
        assert_eq!(world.snapshot(), before);
    }
}

/// What changes meanwhile in such mailboxes crosses under the new names.
#[test]
fn what_happens_in_them_crosses() {
    let host = Host::start(Kind::Sim(Profile::Outlook));
    for side in [Side::There, Side::Here] {
        let world = world(&host);
        rename(&world, side, ROWS[2].0);
        let (at, old) = if side == Side::There { ("B", "A") } else { ("A", "B") };
        world.append(at, "there", &[], 2_000);
        world.deliver(old, "here", 2_000);
        world.mirror();
        let listing = world.listing();
        assert!(listing.contains("b1 b2") && listing.contains("a1 a2 here there"), "{listing}");
    }
}

/// Makes both sides the same by transfers; nothing may be lost by that.
#[track_caller]
fn assert_not_followed(world: &World<'_>) {
    (0..3).for_each(|_| drop(world.run(&["sync"])));
    world.sim().calm();
    world.mirror();
    let listing = world.listing();
    assert!(["a1", "a2", "b1", "b2", "c1", "s1"].iter().all(|subject| listing.contains(subject)), "{listing}");
    assert!(!listing.contains("postkeep"), "{listing}");
}

#[test]
fn what_cannot_be_followed_is_transferred() {
    let host = Host::start(Kind::Sim(Profile::Full));
    // A directory that is no maildir stands where one is to go.
    let world = world(&host);
    fs::create_dir(world.account.maildir().join("X")).unwrap();
    rename(&world, Side::There, ROWS[0].0);
    assert_not_followed(&world);
    // The server lets no name be given up; the second one, when the first has been.
    for nth in [1, 2] {
        let world = self::world(&host);
        rename(&world, Side::Here, ROWS[2].0);
        world.sim().inject("RENAME", When::Nth(nth), Fault::Answer("NO not this one".to_owned()));
        assert_not_followed(&world);
        assert_eq!(world.sim().fired(), ["RENAME answer"]);
    }
    // The messages are others than those that the mailbox had.
    let world = self::world(&host);
    rename(&world, Side::There, ROWS[2].0);
    for name in ["A", "B"] {
        let mut state = world.sim().state();
        let uids: Vec<u32> = state.mailbox(name).messages.keys().copied().collect();
        let another = crate::mirror::message("another");
        uids.into_iter().for_each(|uid| state.mailbox_mut(name).messages.rewrite(uid, &another));
    }
    drop(world.run(&["sync"]));
    let log = world.account.run(&["log", "a"]).stdout;
    assert!(!log.contains("  A: rename") && !log.contains("  B: rename"), "{log}");
}

/// Killed before each of its steps, twice in every second case, it is finished by the next pass.
#[test]
fn a_crash_at_any_step_is_finished() {
    let host = Host::start(Kind::Sim(Profile::Full));
    for (side, (renames, expected)) in [(Side::There, ROWS[2]), (Side::Here, ROWS[2]), (Side::Here, ROWS[0])] {
        let mut killed = 0;
        for step in 1.. {
            let world = world(&host);
            let before = inodes(&world);
            rename(&world, side, renames);
            let step = step.to_string();
            if world.account.run_with(&["sync"], &[("POSTKEEP_CRASH_AT", &step)]).code != -1 {
                break;
            }
            killed += 1;
            if killed % 2 == 0 {
                world.account.run_with(&["sync"], &[("POSTKEEP_CRASH_AT", "2")]);
            }
            world.mirror();
            assert_eq!(world.listing(), expected, "{side:?}, killed at step {step}");
            assert!(inodes(&world) == before && world.graveyard().is_empty(), "{side:?}, killed at step {step}");
            let appended = world.sim().commands().iter().any(|command| command.name == "APPEND");
            assert!(!appended, "{side:?}, killed at step {step}");
        }
        assert!(killed > 8, "{side:?}: there were {killed} steps only");
    }
}
