//! How long removed messages stay recoverable, whatever the clocks say.

use std::fs;

use crate::mirror::{Host, World};

const DAY: i64 = 24 * 60 * 60;

/// By so many seconds the clock on the wall is too far.
const JUMP: i64 = 12 * 365 * DAY;

/// Returns an account with a message that was removed today.
fn with_a_grave(host: &Host) -> World<'_> {
    let world = host.world("");
    world.append("INBOX", "stays", &[], 1000);
    world.append("INBOX", "goes", &[], 1000);
    world.mirror();
    world.expunge("INBOX", "goes");
    world.mirror();
    assert!(world.is_buried("goes"));
    world
}

/// Makes a pass with clocks that are shifted by so many seconds, killed at `step` unless that is 0.
fn pass(world: &World<'_>, wall: i64, boot: i64, step: u32) {
    let (wall, boot, step) = (wall.to_string(), boot.to_string(), step.to_string());
    let shifts = [("POSTKEEP_WALL_SHIFT", &*wall), ("POSTKEEP_BOOT_SHIFT", &*boot), ("POSTKEEP_CRASH_AT", &*step)];
    let output = world.account.run_with(&["sync"], &shifts);
    let expected = if step == "0" { 0 } else { -1 };
    assert_eq!(output.code, expected, "{}{}", output.stdout, output.stderr);
}

#[test]
fn t28_a_clock_that_jumps_does_not_empty_the_graveyard() {
    let host = Host::Sim(postkeep_sim::Profile::Full);
    let world = with_a_grave(&host);
    // Twelve years later on the wall alone.
    for boot in [0, 0, DAY, 89 * DAY] {
        pass(&world, JUMP, boot, 0);
        assert!(world.is_buried("goes"), "{boot} seconds have passed");
    }
    // Ninety days have passed, and a clock that is right again says that this is no time at all.
    pass(&world, 0, 90 * DAY, 0);
    assert!(world.is_buried("goes"));
    // Another ninety, since it could have been added to meanwhile.
    pass(&world, JUMP, 91 * DAY, 0);
    pass(&world, JUMP, 180 * DAY, 0);
    assert!(world.is_buried("goes"));
    pass(&world, JUMP, 181 * DAY, 0);
    assert!(!world.is_buried("goes"));
}

#[test]
fn t28_neither_another_boot_nor_a_lost_database_lets_time_pass() {
    let host = Host::Sim(postkeep_sim::Profile::Full);
    let world = with_a_grave(&host);
    pass(&world, 91 * DAY, 0, 0);
    let boots = |id: &str, boot: i64| {
        let shift = boot.to_string();
        // How long this machine has been on may be anything, so the clock on the wall is the one that stands still.
        let shifts = [("POSTKEEP_WALL_SHIFT", "7862400"), ("POSTKEEP_BOOT_SHIFT", &*shift), ("POSTKEEP_BOOT_ID", id)];
        assert_eq!(world.account.run_with(&["sync"], &shifts).code, 0);
    };
    boots("another", 400 * DAY);
    boots("yet another", 800 * DAY);
    assert!(world.is_buried("goes"));

    for name in ["a.sqlite3", "a.sqlite3-wal", "a.sqlite3-shm"] {
        let _ = fs::remove_file(world.account.state_dir().join(name));
    }
    let shifts = [("POSTKEEP_WALL_SHIFT", "7862400"), ("POSTKEEP_BOOT_SHIFT", "69120000"), ("POSTKEEP_BOOT_ID", "x")];
    assert_eq!(world.account.run_with(&["sync"], &shifts).code, 1, "it tells of the lost database");
    boots("x", 889 * DAY);
    assert!(world.is_buried("goes"));
    boots("x", 890 * DAY);
    assert!(!world.is_buried("goes"));
}

#[test]
fn a_kill_while_the_graveyard_is_tidied_loses_nothing_but_what_may_go() {
    let host = Host::Sim(postkeep_sim::Profile::Full);
    let world = with_a_grave(&host);
    // Killed before it knows that the day is over: that counts from the next pass on.
    pass(&world, JUMP, 0, 1);
    pass(&world, JUMP, 90 * DAY, 0);
    assert!(world.is_buried("goes"));

    let steps = world.account.state_dir().join("steps");
    let (wall, boot) = (JUMP.to_string(), (180 * DAY).to_string());
    let shifts = [("POSTKEEP_WALL_SHIFT", &*wall), ("POSTKEEP_BOOT_SHIFT", &*boot)];
    for step in [1, 2] {
        pass(&world, JUMP, 180 * DAY, step);
        assert!(world.is_buried("goes"), "killed at step {step}");
    }
    let output =
        world.account.run_with(&["sync"], &[shifts[0], shifts[1], ("POSTKEEP_STEPS", steps.to_str().unwrap())]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    // The second kill came after the commit: it need not be written down once more, but is all the same.
    assert_eq!(fs::read_to_string(&steps).unwrap(), "1 commit\n2 purge graveyard\n");
    assert!(!world.is_buried("goes"));
    world.is_meant_to_vanish("goes");
    world.assert_mirrored();
}
