//! Mass deletions wait for the user.

use crate::mirror::{Host, World, on_dovecots, on_sims};

fn everywhere(rows: impl Fn(&Host)) {
    let able = |host: &Host| {
        if host.has("UIDPLUS") {
            rows(host)
        }
    };
    on_sims(able);
    on_dovecots(able);
}

const GUARD: &str = "[account.a.deletions]\nguard_count = 3";

/// Returns an account with messages `m0` to `m9`, of which five were deleted on one side.
fn bled<'h>(host: &'h Host, there: bool) -> World<'h> {
    let world = host.world(GUARD);
    (0..10).for_each(|n| world.append("INBOX", &format!("m{n}"), &[], 1_000));
    world.mirror();
    (0..5).for_each(|n| delete(&world, &format!("m{n}"), there));
    world
}

fn delete(world: &World<'_>, subject: &str, there: bool) {
    if there { world.expunge("INBOX", subject) } else { world.delete_here("INBOX", subject) }
}

/// Returns how many messages there are here and there.
fn counts(world: &World<'_>) -> (usize, usize) {
    (world.account.files("INBOX").len(), world.remote().mails()["INBOX"].len())
}

#[test]
fn a_mass_deletion_is_held_and_everything_else_goes_on() {
    everywhere(|host| {
        for there in [true, false] {
            let world = bled(host, there);
            world.append("INBOX", "new there", &[], 2_000);
            world.deliver("INBOX", "new here", 2_000);
            world.flag("INBOX", "m8", "+\\Flagged");
            world.mark("INBOX", "m9", "S");
            let output = world.sync(4);
            let side = if there { "5 deleted on the server" } else { "5 deleted here" };
            assert!(output.stdout.contains(side), "{}", output.stdout);
            assert!(output.stdout.contains("postkeep approve a --mailbox INBOX --undo"), "{}", output.stdout);
            assert_eq!(counts(&world), if there { (12, 7) } else { (7, 12) });
            assert_eq!(world.flags("INBOX")["m9"], "\\Seen");
            assert_eq!(crate::mirror::letters(&world.file("INBOX", "m8")), "F");
            assert_eq!(world.flags("INBOX")["new here"], "");
            world.file("INBOX", "new there");
            world.assert_at_rest(4);

            let status = world.account.run(&["status", "--json"]);
            let json: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
            let held = &json["accounts"][0]["mailboxes"][0]["held"];
            let numbers = if there { (5, 0) } else { (0, 5) };
            assert_eq!((&held["here"], &held["on_server"]), (&numbers.0.into(), &numbers.1.into()), "{json}");
            assert_eq!(status.code, 4);
            let sync = world.account.run(&["sync", "--json"]);
            let json: serde_json::Value = serde_json::from_str(&sync.stdout).unwrap();
            assert_eq!((sync.code, &json["accounts"][0]["outcome"]), (4, &"held".into()), "{json}");
            assert_eq!(json["accounts"][0]["mailboxes"][0]["held"][0]["removals"], 5, "{json}");
        }
    });
}

/// What is deleted after the approval was not meant by it.
#[test]
fn only_what_was_shown_is_approved() {
    everywhere(|host| {
        for there in [true, false] {
            let world = bled(host, there);
            world.sync(4);
            let approved = world.run(&["approve", "a"]);
            assert_eq!(approved.code, 0);
            assert!(approved.stdout.contains("5 removals"), "{}", approved.stdout);
            (5..9).for_each(|n| delete(&world, &format!("m{n}"), there));
            world.sync(4);
            assert_eq!(counts(&world), if there { (5, 1) } else { (1, 5) }, "{there}");
            world.assert_at_rest(4);
            world.run(&["approve", "a", "--mailbox", "INBOX"]);
            world.mirror();
            assert_eq!(counts(&world), (1, 1));
            assert!((0..9).all(|n| world.is_buried(&format!("m{n}"))));
        }
    });
}

#[test]
fn what_is_held_can_be_put_back() {
    everywhere(|host| {
        for there in [true, false] {
            let world = bled(host, there);
            world.sync(4);
            assert_eq!(world.run(&["approve", "a", "--mailbox", "Nothing", "--undo"]).code, 0);
            world.sync(4);
            assert_eq!(world.run(&["approve", "a", "--undo"]).code, 0);
            world.mirror();
            assert_eq!(counts(&world), (10, 10));
            let appended = world.changes().iter().any(|name| name == "APPEND");
            assert_eq!((appended, world.fetched_bodies()), (there, !there));
            assert!(world.graveyard().is_empty());
        }
    });
}

#[test]
fn a_slow_bleed_is_held_as_well() {
    everywhere(|host| {
        let world = host.world(GUARD);
        (0..10).for_each(|n| world.append("INBOX", &format!("m{n}"), &[], 1_000));
        world.mirror();
        for n in 0..3 {
            delete(&world, &format!("m{n}"), n % 2 == 0);
            world.mirror();
        }
        delete(&world, "m3", true);
        let output = world.sync(4);
        assert!(output.stdout.contains("1 deleted on the server of 7 messages, after 3"), "{}", output.stdout);
        assert_eq!(counts(&world), (7, 6));
        world.assert_at_rest(4);
    });
}

/// A message that moves is not one that is deleted.
#[test]
fn moves_are_not_weighed() {
    everywhere(|host| {
        let world = host.world(GUARD);
        world.create("Work");
        (0..10).for_each(|n| world.append("INBOX", &format!("m{n}"), &[], 1_000));
        world.mirror();
        (0..4).for_each(|n| drop(world.move_here("INBOX", &format!("m{n}"), "Work")));
        (4..8).for_each(|n| world.move_there("INBOX", &format!("m{n}"), "Work"));
        world.mirror();
        assert_eq!(world.listing(), "INBOX: m8 m9; Work: m0 m1 m2 m3 m4 m5 m6 m7");
    });
}
