//! The planner as a truth table, as snapshots of dry-run text, and under random histories with crashes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::model::{Flag, GoneLocal, GoneRemote, LocalEvidence, LocalMessage, Place, RemoteMessage};

fn uid(n: u32) -> Uid {
    Uid::new(n.into()).unwrap()
}

fn name(n: u32) -> UniqueName {
    UniqueName::new(format!("n{n}").as_bytes())
}

fn bits(bits: u8) -> Flags {
    Flags::from_parts(bits, [])
}

fn policy() -> Policy {
    Policy {
        push: true,
        remove: true,
        expunge: true,
        retry_skipped: false,
        again: BTreeSet::new(),
        remote_mask: Mask::all(),
        local_mask: Mask::all(),
    }
}

fn remote(there: &[(u32, u8)], gone: &[u32]) -> Remote {
    let message = |f: u8| RemoteMessage { flags: bits(f), mod_seq: None };
    Remote {
        messages: there.iter().map(|&(u, f)| (uid(u), message(f))).collect(),
        gone: GoneRemote::of(gone.iter().copied().map(uid)),
    }
}

fn local(there: &[(u32, u8)], gone: &[u32]) -> Local {
    let missing = gone.iter().copied().map(name).collect();
    let evidence = LocalEvidence { marker: true, ended: true, new_first: true, unchanged: true, missing };
    let message = |f: u8| LocalMessage { flags: bits(f), place: Place::Cur, inode: 1, replaced: false };
    Local {
        messages: there.iter().map(|&(n, f)| (name(n), message(f))).collect(),
        gone: GoneLocal::prove(evidence).unwrap(),
    }
}

fn link(id: i64, state: LinkState) -> Link {
    Link { id: LinkId(id), state, content: None, internal_date: None, inode: None }
}

fn text(remote: &Remote, local: &Local, base: &[Link], answers: &[(i64, Answer)], policy: &Policy) -> String {
    let answers = answers.iter().map(|&(id, answer)| (LinkId(id), answer)).collect();
    plan(remote, local, base, &answers, policy).iter().map(|p| format!("{p}\n")).collect()
}

const SEEN: u8 = Flag::Seen as u8;
const FLAGGED: u8 = Flag::Flagged as u8;

/// What a side shows of message 1: nothing, there with the base's flags, there and read, there and flagged, gone.
const VIEWS: [&str; 5] = ["unsaid", "same", "read", "flagged", "gone"];

fn views(view: &str) -> (Vec<(u32, u8)>, Vec<u32>) {
    match view {
        "same" => (vec![(1, 0)], vec![]),
        "read" => (vec![(1, SEEN)], vec![]),
        "flagged" => (vec![(1, FLAGGED)], vec![]),
        "gone" => (vec![], vec![1]),
        _ => (vec![], vec![]),
    }
}

fn table(state: &LinkState, answers: &[(i64, Answer)], policy: &Policy) -> String {
    let mut out = String::new();
    let row = link(1, state.clone());
    // A side that the row does not name says nothing about it.
    let told = |named: bool| if named { &VIEWS[..] } else { &VIEWS[..1] };
    for r in told(row.uid().is_some()) {
        for l in told(row.name().is_some()) {
            let ((rt, rg), (lt, lg)) = (views(r), views(l));
            let text = text(&remote(&rt, &rg), &local(&lt, &lg), std::slice::from_ref(&row), answers, policy);
            assert!(text.lines().count() <= 1, "at most one op a message: {text}");
            let text = text.lines().next().unwrap_or("-");
            out += &format!("{r:<8}{l:<8}{text}\n");
        }
    }
    out
}

#[test]
fn synced() {
    let state = LinkState::Synced { uid: uid(1), name: name(1), flags: bits(0) };
    insta::assert_snapshot!(table(&state, &[], &policy()));
    insta::assert_snapshot!("synced_backup", table(&state, &[], &Policy { push: false, ..policy() }));
    let keep = Policy { remove: false, expunge: false, ..policy() };
    insta::assert_snapshot!("synced_keep", table(&state, &[], &keep));
}

#[test]
fn downloading() {
    let state = LinkState::Downloading { uid: uid(1), name: name(1), flags: bits(0) };
    insta::assert_snapshot!(table(&state, &[], &policy()));
}

#[test]
fn uploading() {
    let state = LinkState::Uploading { name: name(1), flags: bits(0), uid_next: uid(5), since: 0 };
    for (answer, file) in [
        (Answer::Found(uid(5)), "uploading_found"),
        (Answer::NotFound, "uploading_not_found"),
        (Answer::TooEarly, "uploading_too_early"),
    ] {
        insta::assert_snapshot!(file, table(&state, &[(1, answer)], &policy()));
    }
    // A copy that was found is not downloaded beside the upload that made it.
    let base = [link(1, state)];
    let found = text(&remote(&[(5, 0)], &[]), &local(&[], &[]), &base, &[(1, Answer::Found(uid(5)))], &policy());
    assert_eq!(found, "adopt uid 5 n1: an earlier attempt was interrupted\n");
}

#[test]
fn skipped() {
    let reason = || SkipReason::Refused("no".into());
    let retry = Policy { retry_skipped: true, ..policy() };
    for (state, file) in [
        (LinkState::Skipped { uid: Some(uid(1)), name: None, reason: reason() }, "skipped_remote"),
        (LinkState::Skipped { uid: None, name: Some(name(1)), reason: reason() }, "skipped_local"),
    ] {
        insta::assert_snapshot!(file, table(&state, &[], &policy()));
        insta::assert_snapshot!(format!("{file}_retried"), table(&state, &[], &retry));
        // The same if it is the time of this one, and nothing if it is that of another.
        let due = |id| Policy { again: [LinkId(id)].into(), ..policy() };
        assert_eq!(table(&state, &[], &due(1)), table(&state, &[], &retry));
        assert_eq!(table(&state, &[], &due(2)), table(&state, &[], &policy()));
    }
    for kept in [(Some(uid(1)), None), (None, Some(name(1)))] {
        let state = LinkState::Skipped { uid: kept.0, name: kept.1, reason: SkipReason::Kept };
        let ops = table(&state, &[], &retry);
        assert!(!ops.contains("load"), "what is kept by policy is never tried again: {ops}");
    }
}

#[test]
fn unlinked() {
    let both = (remote(&[(1, SEEN)], &[]), local(&[(2, FLAGGED)], &[]));
    insta::assert_snapshot!(text(&both.0, &both.1, &[], &[], &policy()), @r"
    download uid 1 (\Seen): new on the server
    upload n2 (\Flagged): new here
    ");
    insta::assert_snapshot!(text(&both.0, &both.1, &[], &[], &Policy { push: false, ..policy() }), @r"
    download uid 1 (\Seen): new on the server
    ");
}

#[test]
fn a_replaced_file_is_a_new_message() {
    let state = LinkState::Synced { uid: uid(1), name: name(1), flags: bits(0) };
    let mut here = local(&[(1, 0)], &[]);
    here.messages.get_mut(&name(1)).unwrap().replaced = true;
    for there in [remote(&[], &[]), remote(&[(1, SEEN)], &[]), remote(&[], &[1])] {
        let ops = text(&there, &here, &[link(1, state.clone())], &[], &policy());
        assert_eq!(ops, "supersede n1: another message has its file name\n");
    }
}

#[test]
fn a_keyword_that_the_server_cannot_keep_stays_here() {
    let word = Flags::from_parts(0, crate::model::Keyword::new("Work"));
    let masked = Policy { remote_mask: Mask { known: Flags::system(), any_keyword: false }, ..policy() };
    let base = |flags: &Flags| link(1, LinkState::Synced { uid: uid(1), name: name(1), flags: flags.clone() });
    let mut here = local(&[(1, 0)], &[]);
    here.messages.get_mut(&name(1)).unwrap().flags = word.clone();
    let there = remote(&[(1, 0)], &[]);
    assert_eq!(text(&there, &here, &[base(&Flags::new())], &[], &masked), "flags uid 1 n1: flags differ\n");
    assert_eq!(text(&there, &here, &[base(&word)], &[], &masked), "");
}

// ---- random histories: the planner over memory ends, a crash possible between any two effects ----

/// A message of the simulated world: its content and flags.
type Mail = (u32, u8);

#[derive(Clone, Default)]
struct World {
    there: BTreeMap<u32, Mail>,
    here: BTreeMap<u32, Mail>,
    base: Vec<(Link, u32)>,
    next: u32,
    /// The server's log: the change at which a message was touched, or vanished.
    touched: BTreeMap<u32, u32>,
    vanished: BTreeMap<u32, u32>,
    clock: u32,
    cursor: u32,
    deleted: BTreeSet<u32>,
    /// Deleted by a user before both sides had once agreed on it: bringing it back is the safe answer.
    may_return: BTreeSet<u32>,
    fuel: u32,
    full: bool,
    mutant: Mutant,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Mutant {
    #[default]
    None,
    NoIntent,
    CursorBeforeAgreement,
    RowBeforeExpunge,
}

struct Crash;

/// A source of choices: the bytes that proptest shrinks.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    fn roll(&mut self, sides: usize) -> usize {
        self.0.next().map_or(0, |b| usize::from(*b) % sides)
    }
}

impl World {
    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn touch(&mut self, u: u32) {
        self.clock += 1;
        self.touched.insert(u, self.clock);
    }

    fn append(&mut self, mail: Mail) -> u32 {
        let u = self.fresh();
        self.there.insert(u, mail);
        self.touch(u);
        u
    }

    fn expunge(&mut self, u: u32) {
        if self.there.remove(&u).is_some() {
            self.clock += 1;
            self.vanished.insert(u, self.clock);
        }
    }

    fn step(&mut self) -> Result<(), Crash> {
        self.fuel = self.fuel.checked_sub(1).ok_or(Crash)?;
        Ok(())
    }

    fn agreed(&self, body: u32) -> bool {
        self.base.iter().any(|(l, b)| *b == body && matches!(l.state, LinkState::Synced { .. }))
    }

    /// A user acts on either side, or none does.
    fn user(&mut self, dice: &mut Dice<'_>) {
        let pick = |map: &BTreeMap<u32, Mail>, dice: &mut Dice<'_>| -> Option<u32> {
            (!map.is_empty()).then(|| *map.keys().nth(dice.roll(map.len())).unwrap())
        };
        match dice.roll(9) {
            1 => {
                let body = self.fresh();
                self.append((body, 0));
            }
            2 => {
                let (file, body) = (self.fresh(), self.fresh());
                self.here.insert(file, (body, SEEN));
            }
            side @ (3 | 4) => {
                let Some(which) = pick(if side == 3 { &self.there } else { &self.here }, dice) else { return };
                let body = if side == 3 { self.there[&which].0 } else { self.here[&which].0 };
                self.deleted.insert(body);
                if !self.agreed(body) {
                    self.may_return.insert(body);
                }
                if side == 3 {
                    self.expunge(which);
                } else {
                    self.here.remove(&which);
                }
            }
            5 => {
                let Some(u) = pick(&self.there, dice) else { return };
                self.there.get_mut(&u).unwrap().1 ^= [SEEN, Flag::Answered as u8][dice.roll(2)];
                self.touch(u);
            }
            6 => {
                let Some(n) = pick(&self.here, dice) else { return };
                self.here.get_mut(&n).unwrap().1 ^= [SEEN, Flag::Answered as u8][dice.roll(2)];
            }
            _ => {}
        }
    }

    fn observe(&self) -> Remote {
        let new = |at: &u32| self.full || *at > self.cursor;
        let there: Vec<_> = self.there.iter().filter(|(u, _)| new(&self.touched[*u])).map(|(u, m)| (*u, m.1)).collect();
        let linked: BTreeSet<u32> = self.base.iter().filter_map(|(l, _)| l.uid()).map(Uid::get).collect();
        let gone = |u: &u32| {
            if self.full { !self.there.contains_key(u) } else { self.vanished.get(u).is_some_and(new) }
        };
        remote(&there, &linked.into_iter().filter(gone).collect::<Vec<_>>())
    }

    fn scan(&self) -> Local {
        let number = |n: &UniqueName| std::str::from_utf8(&n.as_bytes()[1..]).unwrap().parse::<u32>().unwrap();
        let there: Vec<_> = self.here.iter().map(|(n, m)| (*n, m.1)).collect();
        let linked = self.base.iter().filter_map(|(l, _)| l.name().map(number));
        local(&there, &linked.filter(|n| !self.here.contains_key(n)).collect::<Vec<_>>())
    }

    fn answers(&self) -> BTreeMap<LinkId, Answer> {
        let linked: BTreeSet<u32> = self.base.iter().filter_map(|(l, _)| l.uid()).map(Uid::get).collect();
        let mut taken = BTreeSet::new();
        let mut answer = |(l, body): &(Link, u32)| match &l.state {
            LinkState::Uploading { uid_next, .. } => {
                let copy = |(u, m): &(&u32, &Mail)| {
                    **u >= uid_next.get() && m.0 == *body && !linked.contains(*u) && !taken.contains(*u)
                };
                let found = self.there.iter().find(copy).map(|(u, _)| *u);
                taken.extend(found);
                Some((l.id, found.map_or(Answer::NotFound, |u| Answer::Found(uid(u)))))
            }
            _ => None,
        };
        self.base.iter().filter_map(&mut answer).collect()
    }

    fn set(&mut self, link: LinkId, state: Option<LinkState>) {
        let i = self.base.iter().position(|(l, _)| l.id == link).unwrap();
        match state {
            Some(state) => self.base[i].0.state = state,
            None => drop(self.base.remove(i)),
        }
    }

    fn insert(&mut self, state: LinkState, body: u32) -> LinkId {
        let id = LinkId(self.fresh().into());
        self.base.push((Link { id, ..link(0, state) }, body));
        id
    }

    fn execute(&mut self, op: &Op, dice: &mut Dice<'_>) -> Result<(), Crash> {
        let number = |n: &UniqueName| std::str::from_utf8(&n.as_bytes()[1..]).unwrap().parse::<u32>().unwrap();
        self.step()?;
        self.user(dice);
        match op {
            Op::Download { link, uid: u, name: file, flags } => {
                let Some(mail) = self.there.get(&u.get()).copied() else { return Ok(()) };
                let file = file.as_ref().map_or_else(|| self.fresh(), number);
                let state = LinkState::Downloading { uid: *u, name: name(file), flags: flags.clone() };
                let synced = LinkState::Synced { uid: *u, name: name(file), flags: flags.clone() };
                if self.mutant == Mutant::NoIntent {
                    self.here.insert(file, (mail.0, flags.bits()));
                    self.step()?;
                    self.insert(synced, mail.0);
                    return Ok(());
                }
                let id = match link {
                    Some(id) => {
                        self.set(*id, Some(state));
                        *id
                    }
                    None => self.insert(state, mail.0),
                };
                self.step()?;
                self.here.insert(file, (mail.0, flags.bits()));
                self.step()?;
                self.set(id, Some(synced));
            }
            Op::Upload { link, name: file, flags } => {
                let Some(mail) = self.here.get(&number(file)).copied() else { return Ok(()) };
                let uid_next = uid(self.next + 1);
                let state = LinkState::Uploading { name: file.clone(), flags: flags.clone(), uid_next, since: 0 };
                let id = match (self.mutant == Mutant::NoIntent, link) {
                    (true, _) => None,
                    (false, Some(id)) => {
                        self.set(*id, Some(state));
                        Some(*id)
                    }
                    (false, None) => Some(self.insert(state, mail.0)),
                };
                self.step()?;
                let u = self.append((mail.0, flags.bits()));
                self.step()?;
                let synced = LinkState::Synced { uid: uid(u), name: file.clone(), flags: flags.clone() };
                match id {
                    Some(id) => self.set(id, Some(synced)),
                    None => drop(self.insert(synced, mail.0)),
                }
            }
            Op::MergeFlags { link, uid: u, name: file, remote, local, agreed } => {
                let apply = |flags: u8, change: &FlagChange| bits(flags).changed(change).bits();
                if let Some(mail) = self.there.get_mut(&u.get())
                    && !remote.is_empty()
                {
                    mail.1 = apply(mail.1, remote);
                    self.touch(u.get());
                }
                self.step()?;
                self.user(dice);
                if let Some(mail) = self.here.get_mut(&number(file)) {
                    mail.1 = apply(mail.1, local);
                }
                self.step()?;
                self.user(dice);
                self.set(*link, Some(LinkState::Synced { uid: *u, name: file.clone(), flags: agreed.clone() }));
            }
            Op::Adopt { link, uid: u, name: file } => {
                let flags = match &self.base.iter().find(|(l, _)| l.id == *link).unwrap().0.state {
                    LinkState::Downloading { flags, .. } | LinkState::Uploading { flags, .. } => flags.clone(),
                    other => panic!("adopted {other:?}"),
                };
                self.set(*link, Some(LinkState::Synced { uid: *u, name: file.clone(), flags }));
            }
            Op::Forget { link } => self.set(*link, None),
            Op::Remove { link, name: file, .. } => {
                self.here.remove(&number(file));
                self.step()?;
                self.set(*link, None);
            }
            Op::Expunge { link, uid: u, .. } => {
                if self.mutant == Mutant::RowBeforeExpunge {
                    self.set(*link, None);
                    self.step()?;
                    self.expunge(u.get());
                    return Ok(());
                }
                self.expunge(u.get());
                self.step()?;
                self.set(*link, None);
            }
            Op::Join { .. } | Op::Supersede { .. } | Op::Keep { .. } | Op::Move { .. } | Op::Follow { .. } => {
                panic!("not here: {op}")
            }
        }
        Ok(())
    }

    /// One cycle: observe, plan, execute in any order, move the cursor when all that was named is agreed.
    fn cycle(&mut self, dice: &mut Dice<'_>) -> Result<usize, Crash> {
        let before = self.clock;
        let (there, here, answers) = (self.observe(), self.scan(), self.answers());
        if self.mutant == Mutant::CursorBeforeAgreement {
            self.cursor = before;
        }
        let base: Vec<Link> = self.base.iter().map(|(l, _)| l.clone()).collect();
        self.user(dice);
        let mut ops: Vec<Op> = plan(&there, &here, &base, &answers, &policy()).into_iter().map(|p| p.op).collect();
        for i in (1..ops.len()).rev() {
            ops.swap(i, dice.roll(i + 1));
        }
        for op in &ops {
            self.execute(op, dice)?;
        }
        self.step()?;
        let link_of = |u: &Uid| self.base.iter().find(|(l, _)| l.uid() == Some(*u)).map(|(l, _)| &l.state);
        let merged = |u: &Uid| ops.iter().any(|op| matches!(op, Op::MergeFlags { uid, .. } if uid == u));
        let agreed = |(u, m): (&Uid, &RemoteMessage)| {
            merged(u) || matches!(link_of(u), Some(LinkState::Synced { flags, .. }) if *flags == m.flags)
        };
        if there.messages.iter().all(agreed) && there.gone.iter().all(|u| link_of(&u).is_none()) {
            self.cursor = before;
        }
        Ok(ops.len())
    }

    fn verdict(&mut self) -> Result<(), String> {
        let mut quiet = Dice([].iter());
        for round in 0.. {
            self.fuel = u32::MAX;
            if matches!(self.cycle(&mut quiet), Ok(0)) {
                break;
            }
            if round == 10 {
                return Err("no fixed point in 10 cycles".into());
            }
        }
        let mails = |side: &BTreeMap<u32, Mail>| {
            let mut mails: Vec<Mail> = side.values().copied().collect();
            mails.sort_unstable();
            mails
        };
        let (there, here) = (mails(&self.there), mails(&self.here));
        if there != here {
            return Err(format!("not converged: server {there:?}, here {here:?}"));
        }
        let bodies: BTreeSet<u32> = there.iter().map(|m| m.0).collect();
        if bodies.len() != there.len() {
            return Err(format!("doubled: {there:?}"));
        }
        let linked = self.base.iter().filter(|(l, _)| matches!(l.state, LinkState::Synced { .. })).count();
        if linked != self.base.len() || linked != there.len() {
            return Err(format!("the base is not what both sides have: {:?}", self.base));
        }
        if let Some(body) = self.deleted.iter().find(|b| bodies.contains(b) && !self.may_return.contains(b)) {
            return Err(format!("came back: {body}"));
        }
        self.full = true;
        let base: Vec<Link> = self.base.iter().map(|(l, _)| l.clone()).collect();
        let rest = plan(&self.observe(), &self.scan(), &base, &BTreeMap::new(), &policy());
        if rest.is_empty() { Ok(()) } else { Err(format!("a full listing finds more to do: {rest:?}")) }
    }
}

/// Runs a history that `choices` describes and returns what is wrong at its end, if anything is.
fn history(choices: &[u8], full: bool, mutant: Mutant) -> Result<(), String> {
    let mut dice = Dice(choices.iter());
    let mut world = World { full, mutant, ..World::default() };
    let mut created = BTreeSet::new();
    for _ in 0..8 {
        for _ in 0..dice.roll(6) {
            world.user(&mut dice);
        }
        world.fuel = if dice.roll(3) == 0 { u32::MAX } else { dice.roll(14) as u32 };
        // A crash loses nothing that was durable; the next cycle starts from what is there.
        let _: Result<usize, Crash> = world.cycle(&mut dice);
        created.extend(world.there.values().chain(world.here.values()).map(|m| m.0));
    }
    world.verdict()?;
    let left: BTreeSet<u32> = world.there.values().map(|m| m.0).collect();
    match created.iter().find(|b| !left.contains(b) && !world.deleted.contains(b)) {
        Some(body) => Err(format!("LOST: {body}")),
        None => Ok(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn histories_converge_and_lose_nothing(choices in prop::collection::vec(any::<u8>(), 0..400), full in any::<bool>()) {
        if let Err(wrong) = history(&choices, full, Mutant::None) {
            return Err(TestCaseError::fail(wrong));
        }
    }
}

#[test]
fn histories_catch_each_broken_rule() {
    let mut random = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    for mutant in [Mutant::NoIntent, Mutant::CursorBeforeAgreement, Mutant::RowBeforeExpunge] {
        let caught = (0..3_000).filter(|_| {
            let mut choices = [0u8; 400];
            random.fill_bytes(&mut choices);
            history(&choices, false, mutant).is_err()
        });
        assert!(caught.count() > 0, "{mutant:?} was not caught");
    }
}
