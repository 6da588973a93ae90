//! A scan while mail readers are at work.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;

const MESSAGES: usize = 5_000;

/// How often each message is renamed.
const ROUNDS: usize = 3;

#[test]
fn a_scan_that_says_unchanged_misses_nothing() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    for n in 0..MESSAGES {
        std::fs::write(inbox.path().join(format!("new/1.{n:05}")), "").unwrap();
    }
    let (over, scans) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut certain, mut uncertain) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // First each message moves to `cur/`, then its flags change over and over: in bursts, with pauses around
            // the clock's tick and some in which a whole scan fits, so that scans meet quiet, storm, and both edges.
            let (new, cur) = (inbox.path().join("new"), inbox.path().join("cur"));
            for at in 0..MESSAGES * ROUNDS {
                let (n, round) = (at % MESSAGES, at / MESSAGES);
                let name = |round: usize| format!("1.{n:05}:2,{}", ["S", "FS"][round % 2]);
                let from = if round == 0 { new.join(format!("1.{n:05}")) } else { cur.join(name(round - 1)) };
                std::fs::rename(from, cur.join(name(round))).unwrap();
                match at % 1000 {
                    250 => std::thread::sleep(Duration::from_millis(1)),
                    500 => std::thread::sleep(Duration::from_millis(11)),
                    999 => {
                        let (since, seen) = (Instant::now(), scans.load(Ordering::SeqCst));
                        while scans.load(Ordering::SeqCst) < seen + 2 && since.elapsed() < Duration::from_secs(5) {
                            std::thread::yield_now();
                        }
                    }
                    _ => {}
                }
            }
            over.store(true, Ordering::SeqCst);
        });
        while !over.load(Ordering::SeqCst) {
            match inbox.scan_once() {
                Ok(scan) if scan.unchanged => certain.push(scan.len() + scan.doubles.len()),
                Ok(_) => uncertain += 1,
                Err(_) => certain.push(usize::MAX),
            }
            scans.fetch_add(1, Ordering::SeqCst);
        }
    });
    assert!(certain.iter().all(|len| *len == MESSAGES), "{certain:?}");
    assert!(certain.len() >= 5 && uncertain >= 5, "{} scans were certain, {uncertain} were not", certain.len());
    assert!(inbox.scan().unwrap().unchanged);
}
