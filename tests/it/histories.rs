//! Random histories: two users act, passes are killed and disturbed, and in the end both sides agree and nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use postkeep_sim::{At, Fault, Profile, Server, State, When};

use crate::account::{Account, Remote};
use crate::crash::{Journal, assert_settled, may_be_slow, subject};
use crate::random::Random;
use crate::reader::Mail;

/// Seeds of histories that once ended badly, with what was wrong.
const KEPT: &str = include_str!("../regressions/histories.txt");

/// Who does something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum User {
    There,
    Here,
}

/// What a user did to one of the copies of a body, or what befell it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    Created,
    Deleted,
    Moved,
    Set(&'static str),
    Cleared(&'static str),
    /// Its mailbox got new numbers, or went away: who cannot be told of a deletion keeps the message.
    Renumbered,
}

#[derive(Clone, Debug)]
pub struct Event {
    user: User,
    deed: Deed,
    /// Between which complete passes it was: the count of those before it, which is not sure of what happened in one.
    epochs: std::ops::RangeInclusive<u32>,
}

impl Event {
    /// Tells whether the other user did this between the same complete passes.
    fn crosses(&self, other: &Self) -> bool {
        let meet = self.epochs.start() <= other.epochs.end() && other.epochs.start() <= self.epochs.end();
        self.user != other.user && meet
    }

    fn is_in_pass(&self) -> bool {
        self.epochs.start() != self.epochs.end()
    }
}

/// What the users did, by body.
#[derive(Default)]
pub struct Ledger {
    pub events: BTreeMap<String, Vec<Event>>,
    pub lines: Vec<String>,
    /// In which epoch something was last done in a mailbox.
    active: BTreeMap<String, u32>,
    /// How many passes were complete.
    epoch: u32,
    in_pass: bool,
    /// The epochs in which the server refused something.
    blind: BTreeSet<u32>,
    /// Mailboxes that the server renumbered.
    renumbered: BTreeSet<String>,
    bodies: u32,
    mailboxes: u32,
    /// Mailboxes that were renamed or deleted since the last complete pass: left alone, for what comes of the same
    /// on both sides is another matter.
    frozen: BTreeSet<String>,
}

impl Ledger {
    /// Returns that of users who never know whether a pass looks just now, as with a daemon.
    pub fn with_daemon() -> Self {
        Self { in_pass: true, ..Self::default() }
    }

    /// Notes that both sides agree: what was done before is settled.
    pub fn settled(&mut self) {
        self.epoch += 2;
    }

    fn note(&mut self, user: User, body: &str, deed: Deed, place: &str) {
        self.lines.push(format!("{}{user:?} {deed:?} {body} {place}", if self.in_pass { "  " } else { "" }));
        let epochs = self.epoch..=self.epoch + u32::from(self.in_pass);
        for name in place.split(" -> ") {
            self.active.insert(name.to_owned(), *epochs.end());
        }
        self.events.entry(body.to_owned()).or_default().push(Event { user, deed, epochs });
    }

    /// Tells whether nothing was done in a mailbox since the last complete pass began.
    fn is_quiet(&self, mailbox: &str) -> bool {
        self.active.get(mailbox).is_none_or(|epoch| *epoch < self.epoch)
    }

    fn new_body(&mut self) -> String {
        self.bodies += 1;
        format!("m{}", self.bodies)
    }

    fn new_mailbox(&mut self) -> String {
        self.mailboxes += 1;
        format!("box{}", self.mailboxes)
    }
}

fn body(name: &str) -> String {
    // Some have equal headers, so that only the whole tells them apart.
    format!("Message-ID: <{name}@example.org>\nSubject: {name}\n\nThe body of {name}.\n")
}

const FLAGS: [(&str, char); 4] = [("\\Seen", 'S'), ("\\Flagged", 'F'), ("\\Answered", 'R'), ("work", '-')];

/// A point in time for the n-th body.
fn date(body: &str) -> u64 {
    1_600_000_000 + body[1..].parse::<u64>().unwrap()
}

/// Lets the user on the server do something.
pub fn act_there(random: &mut Random, state: &mut State, account: &Account, ledger: &mut Ledger) {
    let user = User::There;
    let open = |name: &&String| !ledger.frozen.contains(*name);
    let names: Vec<String> = state.mailboxes.keys().filter(open).cloned().collect();
    let Some(name) = random.of(&names).cloned() else { return };
    let uids: Vec<u32> = state.mailbox(&name).messages.keys().copied().collect();
    let uid = random.of(&uids).copied();
    let subject_of = |state: &State, uid: u32| subject(&state.mailbox(&name).messages[&uid].bytes);
    let special = name == "INBOX" || name == "Trash";
    match (random.below(if ledger.in_pass { 90 } else { 100 }), uid) {
        (0..25, _) | (_, None) => {
            let new = ledger.new_body();
            let seen: &[&str] = if random.one_in(3) { &["\\Seen"] } else { &[] };
            let bytes = body(&new).replace('\n', "\r\n");
            state.append(&name, bytes.as_bytes(), seen, i64::try_from(date(&new)).unwrap());
            ledger.note(user, &new, Deed::Created, &name);
            if !seen.is_empty() {
                ledger.note(user, &new, Deed::Set("\\Seen"), &name);
            }
        }
        (25..55, Some(uid)) => {
            let (flag, _) = FLAGS[usize::try_from(random.below(4)).unwrap()];
            let mut flags: Vec<String> = state.mailbox(&name).messages[&uid].flags.iter().cloned().collect();
            let had = flags.iter().position(|f| f == flag);
            match had {
                Some(at) => drop(flags.remove(at)),
                None => flags.push(flag.to_owned()),
            }
            state.set_flags(&name, uid, &flags.iter().map(String::as_str).collect::<Vec<_>>());
            let deed = if had.is_some() { Deed::Cleared(flag) } else { Deed::Set(flag) };
            ledger.note(user, &subject_of(state, uid), deed, &name);
        }
        (55..72, Some(uid)) => {
            let body = subject_of(state, uid);
            state.expunge(&name, uid);
            ledger.note(user, &body, Deed::Deleted, &name);
        }
        (72..90, Some(uid)) => {
            let to = random.of(&names).cloned().unwrap_or_default();
            if to != name {
                let body = subject_of(state, uid);
                state.move_message(&name, uid, &to);
                ledger.note(user, &body, Deed::Moved, &format!("{name} -> {to}"));
            }
        }
        (90..92, Some(_)) => state.create(&ledger.new_mailbox()),
        // The third time in a day it would be held.
        (92..94, Some(_)) if ledger.renumbered.insert(name.clone()) => {
            let messages = state.messages(&name);
            let role = state.mailbox(&name).special_use.clone();
            state.delete(&name);
            state.create(&name);
            state.mailbox_mut(&name).special_use = role;
            for message in messages.iter().rev() {
                let flags: Vec<&str> = message.flags.iter().map(String::as_str).collect();
                state.append(&name, &message.bytes, &flags, message.internal_date);
            }
            renumbered(ledger, &messages, account, &name);
        }
        (94..98, Some(_)) if !special && ledger.is_quiet(&name) => {
            let to = ledger.new_mailbox();
            state.rename(&name, &to);
            ledger.lines.push(format!("{user:?} renames {name} to {to}"));
            ledger.frozen.extend([name, to]);
        }
        (98.., Some(_)) if !special => {
            let messages = state.messages(&name);
            state.delete(&name);
            ledger.lines.push(format!("{user:?} deletes {name}"));
            messages.iter().for_each(|m| ledger.note(user, &subject(&m.bytes), Deed::Deleted, &name));
            renumbered(ledger, &messages, account, &name);
            ledger.frozen.insert(name);
        }
        _ => {}
    }
}

/// Notes what happens to all that either side has in a mailbox.
fn renumbered(ledger: &mut Ledger, messages: &[postkeep_sim::Message], account: &Account, name: &str) {
    let mut bodies: BTreeSet<String> = messages.iter().map(|m| subject(&m.bytes)).collect();
    bodies.extend(account.files(name).iter().filter_map(|file| read(file)));
    bodies.iter().for_each(|body| ledger.note(User::There, body, Deed::Renumbered, name));
}

/// Lets the user of the maildir do something.
pub fn act_here(random: &mut Random, account: &Account, ledger: &mut Ledger) {
    let user = User::Here;
    let here = mailboxes(account);
    let names: Vec<String> = here.into_iter().filter(|name| !ledger.frozen.contains(name)).collect();
    let Some(name) = random.of(&names).cloned() else { return };
    let files = account.files(&name);
    let file = random.of(&files).cloned();
    let special = name == "INBOX" || name == "Trash";
    match (random.below(if ledger.in_pass { 90 } else { 100 }), file) {
        (0..25, _) | (_, None) => {
            let new = ledger.new_body();
            create(account, &name, &new);
            ledger.note(user, &new, Deed::Created, &name);
        }
        (25..50, Some(file)) => {
            let (flag, letter) = FLAGS[usize::try_from(random.below(3)).unwrap()];
            let mut letters: BTreeSet<char> = letters(&file).chars().collect();
            let had = !letters.insert(letter);
            if had {
                letters.remove(&letter);
            }
            let Some(body) = read(&file) else { return };
            let unique = unique(&file);
            let to = place(&file).join("cur").join(format!("{unique}:2,{}", letters.iter().collect::<String>()));
            if fs::rename(&file, to).is_ok() {
                ledger.note(user, &body, if had { Deed::Cleared(flag) } else { Deed::Set(flag) }, &name);
            }
        }
        (50..65, Some(file)) => {
            if let Some(body) = read(&file).filter(|_| fs::remove_file(&file).is_ok()) {
                ledger.note(user, &body, Deed::Deleted, &name);
            }
        }
        (65..82, Some(file)) => {
            let to = random.of(&names).cloned().unwrap_or_default();
            // Letters of keywords mean something else elsewhere, and mail readers leave them behind.
            let letters: String = letters(&file).chars().filter(|letter| letter.is_ascii_uppercase()).collect();
            // A unique name is unique in its maildir, or the second file is not mirrored.
            let taken = account.files(&to).iter().any(|other| unique(other) == unique(&file));
            let target = account.maildir().join(&to).join("cur").join(format!("{}:2,{letters}", unique(&file)));
            if to != name
                && !taken
                && let Some(body) = read(&file).filter(|_| fs::rename(&file, target).is_ok())
            {
                ledger.note(user, &body, Deed::Moved, &format!("{name} -> {to}"));
            }
        }
        (82..86, Some(file)) => {
            let to = random.of(&names).cloned().unwrap_or_default();
            if let Some(body) = read(&file) {
                create(account, &to, &body);
                ledger.note(user, &body, Deed::Created, &to);
            }
        }
        (86..90, Some(file)) => {
            let Some(old) = read(&file) else { return };
            let new = ledger.new_body();
            let anew = create(account, &name, &new);
            // Where the old file is no more, the new one keeps its own name.
            if file.exists() && fs::rename(&anew, &file).is_ok() {
                ledger.note(user, &old, Deed::Deleted, &name);
            }
            ledger.note(user, &new, Deed::Created, &name);
            // It has the name, and with it the flags; a keyword too, unless it is moved before the next pass.
            let letters = letters(&file);
            for (flag, _) in FLAGS.iter().filter(|(_, letter)| letters.contains(*letter)) {
                ledger.note(user, &new, Deed::Set(flag), &name);
            }
            if letters.contains(|letter: char| letter.is_ascii_lowercase()) {
                ledger.note(user, &new, Deed::Set("work"), &name);
                ledger.note(user, &new, Deed::Cleared("work"), &name);
            }
        }
        (90..96, Some(_)) => {
            let (mailbox, new) = (ledger.new_mailbox(), ledger.new_body());
            create(account, &mailbox, &new);
            ledger.note(user, &new, Deed::Created, &mailbox);
        }
        (96.., Some(_)) if !special && ledger.is_quiet(&name) => {
            let to = ledger.new_mailbox();
            fs::rename(account.maildir().join(&name), account.maildir().join(&to)).unwrap();
            ledger.lines.push(format!("{user:?} renames {name} to {to}"));
            ledger.frozen.extend([name, to]);
        }
        _ => {}
    }
}

fn mailboxes(account: &Account) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(account.maildir()) else { return BTreeSet::new() };
    let dirs = entries.map(|e| e.unwrap().path()).filter(|path| path.join("cur").is_dir());
    dirs.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

fn create(account: &Account, mailbox: &str, body_name: &str) -> PathBuf {
    let path = account.deliver(mailbox, body(body_name).as_bytes());
    // A pass may have taken it up already, under another name.
    if path.exists() {
        account.set_date(&path, date(body_name));
    }
    path
}

fn read(file: &Path) -> Option<String> {
    fs::read(file).ok().map(|bytes| subject(&bytes))
}

fn place(file: &Path) -> &Path {
    file.parent().and_then(Path::parent).unwrap()
}

fn unique(file: &Path) -> String {
    let name = file.file_name().unwrap().to_str().unwrap();
    name.split(':').next().unwrap_or(name).to_owned()
}

fn letters(file: &Path) -> String {
    file.file_name().unwrap().to_str().unwrap().split_once(":2,").map_or(String::new(), |(_, l)| l.to_owned())
}

/// One history on its way.
struct History {
    random: Random,
    account: Arc<Account>,
    server: Server,
    ledger: Arc<Mutex<Ledger>>,
}

/// Shows, when a history ends badly, how it went.
struct Story<'a>(&'a History);

impl Drop for Story<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ledger = self.0.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            eprintln!("{}", ledger.lines.join("\n"));
        }
    }
}

impl History {
    fn begin(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let profiles = [Profile::Full, Profile::NoQresync, Profile::NoCondstore, Profile::Outlook];
        let server = Server::spawn(*random.of(&profiles).unwrap()).unwrap();
        let extra = "append_retry_after = \"1s\"\n[account.a.deletions]\nguard_count = 1000";
        let account = Account::new(server.port(), "user", "secret", extra);
        {
            let mut state = server.state();
            ["Trash", "A", "B"].into_iter().for_each(|name| state.create(name));
            state.mailbox_mut("Trash").special_use = Some("\\Trash".to_owned());
        }
        Self { random, account: Arc::new(account), server, ledger: Arc::default() }
    }

    fn act(&mut self) {
        // In the order in which a hook has them.
        let mut state = self.server.state();
        let ledger = &mut *self.ledger.lock().unwrap();
        if self.random.one_in(2) {
            act_there(&mut self.random, &mut state, &self.account, ledger);
        } else {
            act_here(&mut self.random, &self.account, ledger);
        }
    }

    /// Makes things go wrong in the next pass, perhaps. Returns the step at which it is killed.
    fn disturb(&mut self) -> Option<u64> {
        const COMMANDS: [&str; 9] =
            ["LIST", "SELECT", "UID FETCH", "UID FETCH", "APPEND", "UID STORE", "UID MOVE", "UID EXPUNGE", "CREATE"];
        let random = &mut self.random;
        let ledger = &mut *self.ledger.lock().unwrap();
        let mut kill = None;
        let command = *random.of(&COMMANDS).unwrap();
        let nth = u32::try_from(1 + random.below(4)).unwrap();
        let mut line = "pass".to_owned();
        match random.below(10) {
            0..4 => {}
            4..7 => {
                kill = Some(1 + random.below(40));
                write!(line, " killed at {kill:?}").unwrap();
            }
            7 => {
                let at = *random.of(&[At::Before, At::Unanswered, At::Middle, At::After]).unwrap();
                self.server.inject(command, When::Nth(nth), Fault::Close(at));
                write!(line, " cut {at:?} {command} {nth}").unwrap();
            }
            8 => {
                self.server.inject(command, When::Nth(nth), Fault::Answer("NO not now".to_owned()));
                write!(line, " refused {command} {nth}").unwrap();
                ledger.blind.insert(ledger.epoch);
            }
            _ => {
                let bytes = random.below(6000);
                self.server.cut_after(bytes);
                write!(line, " cut after {bytes} bytes").unwrap();
            }
        }
        if random.one_in(3) {
            let (account, ledger) = (Arc::clone(&self.account), Arc::clone(&self.ledger));
            let choices = Mutex::new(Random::new(random.below(u64::MAX)));
            let command = *random.of(&["UID FETCH", "SELECT", "UID STORE", "APPEND", "LIST"]).unwrap();
            self.server.on_command(command, nth, move |state| {
                let (random, ledger) = (&mut *choices.lock().unwrap(), &mut *ledger.lock().unwrap());
                for _ in 0..=random.below(3) {
                    if random.one_in(2) {
                        act_there(random, state, &account, ledger);
                    } else {
                        act_here(random, &account, ledger);
                    }
                }
            });
            write!(line, " with users at {command} {nth}").unwrap();
        }
        ledger.lines.push(line);
        kill
    }

    fn pass(&self, args: &[&str], kill: Option<u64>) -> i32 {
        let step = kill.map(|n| n.to_string());
        let environment: Vec<(&str, &str)> = step.iter().map(|n| ("POSTKEEP_CRASH_AT", n.as_str())).collect();
        self.ledger.lock().unwrap().in_pass = true;
        let output = self.account.run_with(args, &environment);
        let ledger = &mut *self.ledger.lock().unwrap();
        ledger.in_pass = false;
        assert!(!output.stdout.contains("united"), "a crash was taken for a lost database: {}", output.stdout);
        if output.code == 0 {
            ledger.epoch += 1;
            ledger.frozen.clear();
        }
        ledger.lines.push(format!("exit {} {}{}", output.code, output.stdout, output.stderr));
        output.code
    }

    fn run(mut self) {
        for _ in 0..4 + self.random.below(4) {
            for _ in 0..1 + self.random.below(5) {
                self.act();
            }
            let kill = self.disturb();
            self.pass(&["sync"], kill);
            self.server.calm();
        }
        // A refused upload is tried again when everything is listed.
        let full = self.random.one_in(2) || self.server.fired().iter().any(|f| f == "APPEND answer");
        self.end(if full { &["sync", "--full"] } else { &["sync"] });
    }

    fn end(&self, args: &[&str]) {
        let _story = Story(self);
        let _journal = Journal(&self.account);
        let complete = (0..4).any(|_| self.pass(args, None) == 0);
        assert!(complete, "no pass is complete");
        assert_settled(&self.account, Remote::Sim(&self.server));
        assert_eq!(self.server.violations(), Vec::<String>::new());
        let dangers: Vec<_> = self.server.commands().into_iter().filter(|c| c.danger().is_some()).collect();
        assert!(dangers.is_empty(), "{dangers:?}");
        let wrong = judge(&self.ledger.lock().unwrap(), &self.account.local());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// Tells whether a body may be there more often than it was, and with other flags: it was moved before the other side had
/// it, to or from where the server refused to let anybody look, or while a pass looked.
fn may_double(events: &[Event], ledger: &Ledger) -> bool {
    let crossing = |one: fn(&Event) -> bool, other: fn(&Event) -> bool| {
        events.iter().filter(|e| one(e)).any(|e| events.iter().any(|f| other(f) && f.crosses(e)))
    };
    let moved = |e: &Event| e.deed == Deed::Moved;
    let created = |e: &Event| e.deed == Deed::Created;
    let flagged = |e: &Event| matches!(e.deed, Deed::Set(_) | Deed::Cleared(_));
    let refused = |e: &Event| e.epochs.clone().any(|epoch| ledger.blind.contains(&epoch));
    let in_pass = |which: fn(&Event) -> bool| events.iter().any(|e| which(e) && e.is_in_pass());
    crossing(created, moved)
        || events.iter().any(|e| moved(e) && refused(e))
        || in_pass(moved)
        || in_pass(flagged) && crossing(moved, flagged)
}

/// Returns what of the end is not what the users did.
pub fn judge(ledger: &Ledger, end: &BTreeMap<String, Vec<Mail>>) -> Vec<String> {
    let mut found: BTreeMap<String, Vec<(&str, &Mail)>> = BTreeMap::new();
    for (mailbox, mails) in end {
        for mail in mails {
            found.entry(subject(&mail.bytes)).or_default().push((mailbox, mail));
        }
    }
    let mut wrong = Vec::new();
    for (body, events) in &ledger.events {
        let copies = found.remove(body).unwrap_or_default();
        let count = |deed: &Deed| events.iter().filter(|e| e.deed == *deed).count();
        let (created, deleted) = (count(&Deed::Created), count(&Deed::Deleted));
        let sure = count(&Deed::Renumbered) == 0;
        if copies.len() + deleted < created {
            wrong.push(format!("{body} was lost: {events:?}"));
        }
        let doubt = may_double(events, ledger);
        if copies.len() > created && sure && !doubt {
            wrong.push(format!("{body} is there {} times: {events:?}", copies.len()));
        }
        let last = events.last().unwrap();
        let stays_deleted = last.deed == Deed::Deleted
            && created == 1
            && sure
            && !doubt
            && !events.iter().any(|other| other.crosses(last));
        if stays_deleted && copies.iter().any(|(mailbox, _)| *mailbox != "Trash") {
            wrong.push(format!("{body} is back: {events:?}"));
        }
        if created == 1 && deleted == 0 && sure && !doubt {
            for (_, mail) in &copies {
                for (flag, _) in FLAGS {
                    let (set, cleared) = (count(&Deed::Set(flag)), count(&Deed::Cleared(flag)));
                    let has = mail.flags.contains(flag);
                    if set > 0 && cleared == 0 && !has || set == 0 && has {
                        wrong.push(format!("{body} has {:?}: {events:?}", mail.flags));
                    }
                }
            }
        }
    }
    wrong.extend(found.keys().map(|body| format!("{body} came from nowhere")));
    wrong
}

#[test]
fn a_file_moved_while_a_pass_looks_at_mailboxes_is_moved() {
    // Two mailboxes are looked at side by side, in order: by the SELECT of Trash, A was, and Z was not yet.
    for (from, to) in [("A", "Z"), ("Z", "A")] {
        let history = History::begin(0);
        let text = fs::read_to_string(history.account.config()).unwrap();
        fs::write(history.account.config(), text.replace("append_retry_after", "connections = 1\nappend_retry_after"))
            .unwrap();
        {
            let mut state = history.server.state();
            (0..20).for_each(|n| state.create(&format!("M{n}")));
            state.create("Z");
            state.append(from, body("m1").replace('\n', "\r\n").as_bytes(), &["\\Flagged"], 7);
        }
        assert_eq!(history.pass(&["sync"], None), 0);
        let moved = Arc::clone(&history.account);
        history.server.on_command("SELECT", 24, move |_| {
            let file = moved.files(from).remove(0);
            moved.move_to(&file, to);
        });
        (0..2).for_each(|_| assert_eq!(history.pass(&["sync", "--full"], None), 0));
        assert_eq!(history.server.fired(), ["SELECT run"]);
        let commands = history.server.commands().into_iter().filter(postkeep_sim::Command::changes);
        let commands: Vec<String> = commands.map(|command| command.to_string()).collect();
        assert_eq!(commands, [format!("UID MOVE 1 \"{to}\"")]);
        assert_settled(&history.account, Remote::Sim(&history.server));
    }
}

#[test]
fn random_histories_end_well() {
    let kept = KEPT.lines().filter_map(|line| line.split('#').next()?.trim().parse().ok());
    let count = if may_be_slow() { 3000 } else { 180 };
    let fresh = (0..20).map(|_| Random::fresh_seed());
    let seeds: Vec<u64> = match std::env::var("POSTKEEP_HISTORY") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => kept.chain(0..count).chain(fresh).collect(),
    };
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(BTreeSet::new()));
    // Most of a history is waiting.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if std::panic::catch_unwind(|| History::begin(seed).run()).is_err() {
                        eprintln!("that was the history of POSTKEEP_HISTORY={seed}");
                        failed.lock().unwrap().insert(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "of {} histories, those of these seeds end badly: {failed:?}", seeds.len());
}
