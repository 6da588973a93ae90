//! The sweep: a large mailbox of a server that counts no changes is observed by what changed, at a small price.

use std::collections::BTreeMap;

use postkeep::imap::{Listing, Marks, Observation, RawName, Session};
use postkeep::model::{RemoteMessage, Uid};
use postkeep_sim::{Profile, Server};

use crate::outlook::{account, server, session};
use crate::random::Random;

const FLAGS: [&str; 5] = ["\\Seen", "\\Answered", "\\Flagged", "\\Draft", "\\Deleted"];

fn inbox() -> RawName {
    RawName::new(b"INBOX")
}

/// Fills INBOX with so many messages: most are read, in runs with an unread one between them about every `run` messages,
/// some are answered or flagged.
pub fn fill(server: &Server, random: &mut Random, count: u64, run: u64) {
    let mut state = server.state();
    for n in 0..count {
        let recent = count - n < 100;
        let mut flags = Vec::new();
        if !random.one_in(if recent { 3 } else { run }) {
            flags.push("\\Seen");
        }
        if random.one_in(run) {
            flags.push("\\Answered");
        }
        if random.one_in(2 * run) {
            flags.push("\\Flagged");
        }
        state.append("INBOX", b"Subject: x\r\n\r\n", &flags, 1_600_000_000);
    }
}

fn marks(messages: &BTreeMap<Uid, RemoteMessage>) -> Marks {
    let mut marks = Marks::default();
    messages.iter().for_each(|(uid, message)| marks.insert(*uid, message.flags.bits()));
    marks
}

/// Returns what a base becomes by an observation.
fn applied(mut base: BTreeMap<Uid, RemoteMessage>, seen: &Observation) -> BTreeMap<Uid, RemoteMessage> {
    if seen.listing == Listing::Full {
        return seen.messages.clone();
    }
    let Listing::Delta { vanished } = &seen.listing else { panic!("{:?}", seen.listing) };
    base.retain(|uid, _| !vanished.contains(*uid));
    base.extend(seen.messages.clone());
    base
}

/// Returns a full observation.
async fn full(session: &mut Session) -> Observation {
    session.observe(&inbox(), None, true).await.unwrap()
}

#[tokio::test]
async fn a_sweep_sees_what_a_listing_sees() {
    for seed in 1..=24 {
        let mut random = Random::new(seed);
        let server = server(Profile::Exo2026);
        let count = [10, 300, 900, 2500][usize::try_from(seed % 4).unwrap()];
        fill(&server, &mut random, count, 4);
        let mut session = session(&server).await;
        let first = full(&mut session).await;
        assert!(session.search_is_right(&first.messages).await.unwrap());
        let (mut base, mut cursor) = (first.messages, first.cursor);
        for _ in 0..3 {
            {
                let mut state = server.state();
                let uids: Vec<u32> = state.mailbox("INBOX").messages.keys().copied().collect();
                // None, a few, or very many of each.
                let mut many = || [0, 3, 40, count / 3][usize::try_from(random.below(4)).unwrap()].min(count / 3);
                let (gone, changed, new) = (many(), many(), many());
                for _ in 0..changed {
                    let uid = *random.of(&uids).unwrap();
                    let flags: Vec<&str> = FLAGS.into_iter().filter(|_| random.one_in(3)).collect();
                    state.set_flags("INBOX", uid, &flags);
                }
                for _ in 0..gone {
                    state.mailbox_mut("INBOX").messages.remove(random.of(&uids).unwrap());
                }
                for _ in 0..new {
                    state.append("INBOX", b"Subject: new\r\n\r\n", &["\\Seen"], 1);
                }
            }
            let swept = session.sweep(&inbox(), &cursor, &marks(&base), true).await.unwrap();
            let listed = full(&mut session).await;
            let after = applied(base, &swept);
            assert!(after == listed.messages, "seed {seed}: a sweep and a listing differ");
            assert_eq!((swept.exists, swept.cursor.uid_next), (listed.exists, listed.cursor.uid_next), "seed {seed}");
            (base, cursor) = (after, swept.cursor);
        }
        assert_eq!(server.violations(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_sweep_without_flags_sees_what_came_and_went() {
    let server = server(Profile::Exo2026);
    fill(&server, &mut Random::new(1), 3000, 4);
    let mut session = session(&server).await;
    let first = full(&mut session).await;
    server.state().set_flags("INBOX", 5, &["\\Draft"]);
    for uid in [7, 2999] {
        server.state().expunge("INBOX", uid);
    }
    server.state().append("INBOX", b"Subject: new\r\n\r\n", &["\\Flagged"], 1);
    drop(server.take_commands());
    let swept = session.sweep(&inbox(), &first.cursor, &marks(&first.messages), false).await.unwrap();
    let flags = FLAGS.map(|flag| flag[1..].to_uppercase());
    let asks = |c: &postkeep_sim::Command| c.name == "UID SEARCH" && flags.iter().any(|flag| c.args.contains(flag));
    assert!(!server.take_commands().iter().any(asks), "it asked for flags");
    let (mut after, listed) = (applied(first.messages.clone(), &swept), full(&mut session).await.messages);
    let old = Uid::new(5).unwrap();
    assert_eq!(after.insert(old, listed[&old].clone()), first.messages.get(&old).cloned());
    assert!(after == listed, "a sweep and a listing differ in more than the flags of an old message");
}

/// The price of what happens in a mailbox of 100,000 messages, against that of listing it.
#[tokio::test]
async fn a_sweep_costs_what_changed() {
    let server = server(Profile::Exo2026);
    fill(&server, &mut Random::new(1), 100_000, 450);
    let mut session = session(&server).await;
    let price = async |what: &str, session: &mut Session, base: Option<&Observation>| {
        let (received, sent, began) = (session.received(), session.sent(), std::time::Instant::now());
        let seen = match base {
            Some(base) => session.sweep(&inbox(), &base.cursor, &marks(&base.messages), true).await.unwrap(),
            None => full(session).await,
        };
        let (received, sent) = (session.received() - received, session.sent() - sent);
        eprintln!("{what}: received {received}, sent {sent}, {:?}", began.elapsed());
        (seen, received)
    };
    let (base, listing) = price("listed", &mut session, None).await;
    let (seen, unchanged) = price("unchanged", &mut session, Some(&base)).await;
    assert_eq!(applied(base.messages.clone(), &seen), base.messages);
    assert!(unchanged < 20_000, "{unchanged} bytes for an unchanged mailbox");

    for (uid, flags) in [(50_000, &["\\Flagged"][..]), (60_001, &["\\Seen", "\\Answered"]), (70_002, &[])] {
        server.state().set_flags("INBOX", uid, flags);
    }
    let (seen, flagged) = price("3 flags changed", &mut session, Some(&base)).await;
    assert!(flagged * 50 < listing, "{flagged} bytes for a flag, {listing} for a listing");
    let listed = full(&mut session).await;
    assert!(applied(base.messages.clone(), &seen) == listed.messages);

    for uid in [10, 44_444, 99_000] {
        server.state().expunge("INBOX", uid);
    }
    server.state().append("INBOX", b"Subject: new\r\n\r\n", &[], 1);
    let (seen, gone) = price("3 expunged, 1 new", &mut session, Some(&listed)).await;
    assert!(gone * 50 < listing, "{gone} bytes for what went, {listing} for a listing");
    assert!(applied(listed.messages, &seen) == full(&mut session).await.messages);
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn a_pass_over_a_large_mailbox_sweeps_it() {
    let scene = account("sweep_after = \"0s\"");
    for n in 1..=700 {
        scene.arrives(n);
    }
    scene.assert_heals();
    let lists = |scene: &crate::faults_scene::Scene| {
        let commands = scene.server.take_commands();
        commands.iter().filter(|c| c.name == "UID FETCH" && c.args.starts_with("1:")).count()
    };
    lists(&scene);
    scene.server.state().set_flags("INBOX", 30, &["\\Flagged"]);
    scene.server.state().expunge("INBOX", 77);
    scene.unwanted(77);
    scene.arrives(701);
    scene.sync_says(0, &[]);
    assert_eq!(lists(&scene), 0, "it was listed");
    scene.assert_heals();

    // A server whose SEARCH is wrong is listed.
    let output = scene.account.run(&["sync", "--full"]);
    assert_eq!(output.code, 0, "{output:?}");
    scene.server.inject("UID SEARCH", postkeep_sim::When::Every, postkeep_sim::Fault::Answer("NO not now".to_owned()));
    let output = scene.account.run(&["sync", "--full"]);
    assert_eq!(output.code, 0, "{output:?}");
    lists(&scene);
    scene.server.state().set_flags("INBOX", 31, &["\\Flagged"]);
    scene.sync_says(0, &[]);
    assert!(lists(&scene) > 0, "it was swept");
    scene.assert_fired("UID SEARCH answer");
}

#[test]
fn what_was_just_swept_is_not_swept_again() {
    let scene = account("");
    for n in 1..=600 {
        scene.arrives(n);
    }
    scene.assert_heals();
    let _ = scene.server.take_commands();
    scene.sync_says(0, &[]);
    let selects = |scene: &crate::faults_scene::Scene| {
        scene.server.take_commands().iter().filter(|c| c.name == "SELECT" && c.args.contains("INBOX")).count()
    };
    assert_eq!(selects(&scene), 0);
    // Unless the number of unread messages says that something changed.
    scene.server.state().set_flags("INBOX", 5, &["\\Seen"]);
    scene.assert_heals();
}
