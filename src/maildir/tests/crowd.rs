//! A scan while mail readers are at work.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;

const MESSAGES: usize = 5_000;

#[test]
fn a_scan_that_says_unchanged_misses_nothing() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    for n in 0..MESSAGES {
        std::fs::write(inbox.path().join(format!("new/1.{n:05}")), "").unwrap();
    }
    let (stop, renames) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut certain, mut uncertain) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Bursts with pauses around the clock's tick, so that scans meet all of: quiet, busy, and a change at an
            // edge. First each message moves to `cur/`, then its flags change over and over.
            let (new, cur) = (inbox.path().join("new"), inbox.path().join("cur"));
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..200 {
                    let (n, round) = (at % MESSAGES, at / MESSAGES);
                    let name = |round: usize| format!("1.{n:05}:2,{}", ["S", "FS"][round % 2]);
                    let from = if round == 0 { new.join(format!("1.{n:05}")) } else { cur.join(name(round - 1)) };
                    std::fs::rename(from, cur.join(name(round))).unwrap();
                    at += 1;
                }
                renames.store(at, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis([0, 1, 7, 120, 60, 0][at / 200 % 6]));
            }
        });
        let start = Instant::now();
        let busy = |renames: &AtomicUsize| renames.load(Ordering::Relaxed) <= 2 * MESSAGES;
        while start.elapsed() < Duration::from_secs(20) && (certain.len() < 10 || uncertain < 10 || busy(&renames)) {
            match inbox.scan_once() {
                Ok(scan) if scan.unchanged => certain.push(scan.len() + scan.doubles.len()),
                Ok(_) => uncertain += 1,
                Err(_) => certain.push(usize::MAX),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(certain.iter().all(|len| *len == MESSAGES), "{certain:?}");
    assert!(certain.len() >= 10 && uncertain >= 10, "{} scans were certain, {uncertain} were not", certain.len());
    assert!(renames.into_inner() > 2 * MESSAGES, "the storm blew");
    assert!(inbox.scan().unwrap().unchanged);
}
