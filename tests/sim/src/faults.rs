//! What can go wrong on purpose. A fault waits for a command, happens at it, and is listed as fired if it had an
//! effect.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::parse::Request;
use crate::{Command, State};

/// A change of the server's state at a chosen moment.
pub type Hook = Arc<dyn Fn(&mut State) + Send + Sync>;
/// A change of one line of a reply (without CRLF); `None` leaves the line out.
pub type Editor = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A change of the bytes of a body: of the message of this UID, from these.
pub type Rewriter = Arc<dyn Fn(u32, &[u8]) -> Vec<u8> + Send + Sync>;

/// Which of the commands that fit its pattern a fault waits for, counted from when it was injected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// The n-th, from 1.
    Nth(u32),
    /// Each up to the n-th.
    First(u32),
    /// Each.
    Every,
}

impl When {
    /// Tells whether the command with this number, from 1, is meant, and whether one after it is.
    pub(crate) const fn counts(self, seen: u32) -> (bool, bool) {
        match self {
            Self::Every => (true, true),
            Self::Nth(n) => (seen == n, seen < n),
            Self::First(n) => (seen <= n, seen < n),
        }
    }
}

/// When a connection is closed, seen from a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// Before the command is carried out.
    Before,
    /// After it was carried out, before the first byte of the reply.
    Unanswered,
    /// After half of the bytes of the reply.
    Middle,
    /// After the reply.
    After,
}

/// Which of a number of lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// All of them.
    All,
    /// The second, the fourth and so on.
    EverySecond,
    /// The first half, rounded up.
    FirstHalf,
}

impl Share {
    /// Tells whether the line at `index` (from 0) of `count` lines is meant.
    #[must_use]
    pub const fn includes(self, index: usize, count: usize) -> bool {
        match self {
            Self::All => true,
            Self::EverySecond => index % 2 == 1,
            Self::FirstHalf => index < count.div_ceil(2),
        }
    }
}

/// A fault.
#[derive(Clone)]
pub enum Fault {
    /// Changes the state just before the command is carried out. See also
    /// [`crate::Server::on_command`].
    Run(Hook),
    /// Changes the state in the middle of the reply, and announces the change there: unsolicited EXISTS, EXPUNGE,
    /// VANISHED and FETCH.
    Between(Hook),
    /// Does not carry the command out and answers this, as `NO [OVERQUOTA] full`.
    Answer(String),
    /// Answers this in place of the `+` that the client waits for before it sends a literal.
    Refuse(String),
    /// Closes the connection.
    Close(At),
    /// Leaves FETCH lines without a body (for LIST: LIST and STATUS lines) out of the reply, and says OK.
    DropLines(Share),
    /// Leaves the FETCH lines of these UIDs out of the reply, and says OK.
    Omit(Vec<u32>),
    /// Sends `NIL` in place of each body.
    BodyNil,
    /// Sends `""` in place of each body.
    BodyEmpty,
    /// Changes the bytes of each body.
    Body(Rewriter),
    /// Gives in place of the bodies of these UIDs what Exchange gives for a message that it cannot convert: for BODY[]
    /// a text about that, for BODY.PEEK[] the same if `peek`, else no body at all.
    Placeholder {
        /// The UIDs.
        uids: Vec<u32>,
        /// BODY.PEEK[] gives the text too.
        peek: bool,
    },
    /// Does not carry out a FETCH that names one of these UIDs, and answers this.
    RefuseUids(Vec<u32>, String),
    /// Carries out UID COPY or UID MOVE for no message, and says OK.
    MoveNothing,
    /// Answers this in place of the whole reply, with the tag where it says `{tag}`; the connection ends after it if
    /// there is a `* BYE` in it.
    Script(String),
    /// Says `* BYE` and this in the middle of the reply, and ends the connection.
    Bye(String),
    /// Says OK to a sign-in, and then `BAD User is authenticated but not connected.` to the first command, and again to
    /// the second, when it ends the connection. CAPABILITY is answered.
    NotConnected,
    /// Answers this command and all that come within `time` by the server's clock with the time that remains, whatever
    /// connection they come by. See [`crate::Server::impatient`].
    Throttle {
        /// How long.
        time: Duration,
        /// The answer is BAD, not NO.
        bad: bool,
    },
    /// Sends these bytes in the middle of the reply, as they are.
    Send(Vec<u8>),
    /// Changes each line of the reply, the tagged one included. Lines that are not text are left alone.
    Edit(Editor),
    /// Never answers; the connection stays open.
    Stall,
    /// Carries the command out this long after its connection was closed, which is at once: for APPEND, the message
    /// appears when nobody expects it any more.
    Zombie(Duration),
}

impl Fault {
    /// Changes each line of the reply by `edit`; `None` leaves it out.
    pub fn edit(edit: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self::Edit(Arc::new(edit))
    }

    /// Leaves out of the reply the response code that begins with `name`, as `APPENDUID` or `UIDNEXT`. An
    /// untagged line goes with it, a tagged one stays.
    #[must_use]
    pub fn without_code(name: &str) -> Self {
        let open = format!("[{name} ");
        Self::edit(move |line| match line.split_once(&open) {
            Some((head, _)) if head.starts_with('*') => None,
            Some((head, tail)) => Some(format!("{head}{}", tail.split_once("] ").map_or("", |(_, text)| text))),
            None => Some(line.to_owned()),
        })
    }

    /// Gives the response code that begins with `name` these arguments, as `0` for UIDVALIDITY.
    #[must_use]
    pub fn with_code(name: &str, arguments: &str) -> Self {
        let (open, arguments) = (format!("[{name} "), arguments.to_owned());
        Self::edit(move |line| match line.split_once(&open) {
            Some((head, tail)) => {
                let text = tail.split_once(']').map_or("", |(_, text)| text);
                Some(format!("{head}{open}{arguments}]{text}"))
            }
            None => Some(line.to_owned()),
        })
    }

    /// Puts the code into the OK of a sign-in that Exchange gives while it moves the mailbox to another machine.
    #[must_use]
    pub fn wrong_server() -> Self {
        const CODE: &str = "[Error=\"Microsoft.Exchange.Data.Storage.WrongServerException:Cross Server access is not \
            allowed for mailbox 5d1fa9e3-9d04-4b1c-8e55-0a7b3f1c2d4e\" AuthResultFromPopImapEnd=0 \
            Proxy=AM0PR01MB0001.EURPRD01.PROD.OUTLOOK.COM:1993:SSL MailboxBE=AM0PR01MB0001.EURPRD01.PROD.OUTLOOK.COM \
            Service=Imap4]";
        Self::edit(|line| Some(line.replacen(" OK ", &format!(" OK {CODE} "), 1)))
    }

    /// Ends the session as Exchange does when the access token has run out.
    #[must_use]
    pub fn token_expired() -> Self {
        Self::Bye("Session invalidated - AccessTokenExpired".to_owned())
    }

    /// Sends a FETCH and an EXPUNGE of sequence numbers that do not exist.
    #[must_use]
    pub fn stray() -> Self {
        Self::Send(b"* 99999 FETCH (FLAGS (\\Seen))\r\n* 99999 EXPUNGE\r\n".to_vec())
    }

    /// Sends the beginning of a FETCH whose body has this size, and not more: `4294967295` must not be believed.
    #[must_use]
    pub fn huge_literal(size: u64) -> Self {
        Self::Send(format!("* 1 FETCH (UID 1 BODY[] {{{size}}}\r\n").into_bytes())
    }

    /// Sends a FETCH whose parentheses are this deep.
    #[must_use]
    pub fn deep_parentheses(depth: usize) -> Self {
        Self::Send(format!("* 1 FETCH (BODY {}{})\r\n", "(".repeat(depth), ")".repeat(depth)).into_bytes())
    }

    /// Returns the name under which it is listed as fired.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Between(_) => "between",
            Self::Answer(_) => "answer",
            Self::Refuse(_) => "refuse",
            Self::Close(_) => "close",
            Self::DropLines(_) => "drop-lines",
            Self::Omit(_) => "omit",
            Self::BodyNil => "body-nil",
            Self::BodyEmpty => "body-empty",
            Self::Body(_) => "body",
            Self::Placeholder { .. } => "placeholder",
            Self::RefuseUids(..) => "refuse-uids",
            Self::MoveNothing => "move-nothing",
            Self::Script(_) => "script",
            Self::Bye(_) => "bye",
            Self::NotConnected => "not-connected",
            Self::Throttle { .. } => "throttle",
            Self::Send(_) => "send",
            Self::Edit(_) => "edit",
            Self::Stall => "stall",
            Self::Zombie(_) => "zombie",
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fault that waits.
struct Armed {
    pattern: String,
    when: When,
    seen: u32,
    fault: Fault,
}

/// A plan: the faults that wait and those that fired.
#[derive(Default)]
pub struct Faults {
    armed: Vec<Armed>,
    random: Option<Random>,
    /// The bytes that may still be sent to clients before a connection is cut.
    pub(crate) budget: Option<u64>,
    pub(crate) fired: Vec<String>,
}

impl Faults {
    /// Returns a plan in which `intensity` of 1000 commands meet a fault such as a sick Exchange has: a closed
    /// connection, a refusal, a FETCH that leaves lines out. Which ones depends on the seed, the command, and how often
    /// the same command came before, so that it is the same however the connections are interleaved. Nothing in it
    /// needs the clock to be moved.
    #[must_use]
    pub fn random(seed: u64, intensity: u32) -> Self {
        Self { random: Some(Random { seed, intensity, seen: BTreeMap::new() }), ..Self::default() }
    }

    pub(crate) fn inject(&mut self, pattern: &str, when: When, fault: Fault) {
        self.armed.push(Armed { pattern: pattern.to_owned(), when, seen: 0, fault });
    }

    pub(crate) fn calm(&mut self) {
        self.armed.clear();
        (self.budget, self.random) = (None, None);
    }

    /// Returns the faults that are due at a command that has been received whole, and counts it.
    pub(crate) fn due(&mut self, command: &Command) -> Due {
        let mut faults = self.take(command, |f| !matches!(f, Fault::Refuse(_)));
        faults.extend(self.random.as_mut().and_then(|random| random.draw(command)));
        Due {
            command: command.name.clone(),
            peeks: command.args.to_ascii_uppercase().contains("BODY.PEEK["),
            faults: faults.into_iter().map(|f| (f, false)).collect(),
            ended: false,
        }
    }

    /// Returns the refusal that is due in place of the `+` of a command, and counts it.
    pub(crate) fn refusal(&mut self, command: &Command) -> Option<String> {
        let due = self.take(command, |f| matches!(f, Fault::Refuse(_)));
        let refusal = due.into_iter().find_map(|f| if let Fault::Refuse(text) = f { Some(text) } else { None });
        self.fired.extend(refusal.iter().map(|_| format!("{} refuse", command.name)));
        refusal
    }

    /// Lists those of `due` that have had an effect as fired.
    pub(crate) fn fire(&mut self, due: &mut Due) {
        for (fault, hit) in &mut due.faults {
            if std::mem::take(hit) {
                self.fired.push(format!("{} {}", due.command, fault.name()));
            }
        }
    }

    fn take(&mut self, command: &Command, kind: impl Fn(&Fault) -> bool) -> Vec<Fault> {
        let mut due = Vec::new();
        self.armed.retain_mut(|armed| {
            if !command.fits(&armed.pattern) || !kind(&armed.fault) {
                return true;
            }
            armed.seen += 1;
            let (now, stays) = armed.when.counts(armed.seen);
            if now {
                due.push(armed.fault.clone());
            }
            stays
        });
        due
    }
}

/// Faults by a seed.
struct Random {
    seed: u64,
    intensity: u32,
    /// How often each command came.
    seen: BTreeMap<String, u32>,
}

impl Random {
    fn draw(&mut self, command: &Command) -> Option<Fault> {
        let text = command.to_string();
        let seen = self.seen.entry(text.clone()).or_default();
        *seen += 1;
        let mut hasher = openssl::sha::Sha256::new();
        hasher.update(format!("{} {seen} {text}", self.seed).as_bytes());
        let hash = hasher.finish();
        let number =
            |at: usize| usize::from(hash[at]) << 16 | usize::from(hash[at + 1]) << 8 | usize::from(hash[at + 2]);
        if number(0) % 1000 >= self.intensity as usize {
            return None;
        }
        let mut kinds = sickness(&command.name);
        (!kinds.is_empty()).then(|| kinds.swap_remove(number(3) % kinds.len()))
    }
}

/// Returns the faults that a sick Exchange has at this command.
fn sickness(name: &str) -> Vec<Fault> {
    let unavailable = || Fault::Answer("NO Server Unavailable. 15".to_owned());
    let hung_up = || Fault::Script("* BYE Connection closed. 14\r\n".to_owned());
    let mut kinds = vec![Fault::Close(At::Before), Fault::Close(At::Unanswered)];
    match name {
        "CAPABILITY" | "LOGOUT" | "ID" | "NAMESPACE" | "ENABLE" => {}
        "LOGIN" | "AUTHENTICATE" => kinds.extend([Fault::NotConnected, hung_up()]),
        "IDLE" => kinds = vec![Fault::Close(At::Middle), Fault::token_expired()],
        "LIST" => {
            let lost = "Server Unavailable. 15\r\n* BYE Connection closed.\r\n";
            kinds.extend([unavailable(), Fault::Close(At::Middle), Fault::Script(lost.to_owned())]);
        }
        "UID FETCH" => kinds.extend([
            unavailable(),
            Fault::Close(At::Middle),
            Fault::token_expired(),
            Fault::stray(),
            Fault::DropLines(Share::EverySecond),
            Fault::DropLines(Share::FirstHalf),
        ]),
        "UID MOVE" => kinds.extend([unavailable(), Fault::Close(At::Middle), Fault::MoveNothing]),
        _ => kinds.extend([unavailable(), hung_up(), Fault::Close(At::Middle), Fault::Close(At::After)]),
    }
    kinds
}

/// The faults that are due at one command, each with whether it has had an effect.
pub(crate) struct Due {
    command: String,
    /// The command reads bodies by BODY.PEEK.
    pub(crate) peeks: bool,
    pub(crate) faults: Vec<(Fault, bool)>,
    /// A fault has said BYE.
    pub(crate) ended: bool,
}

impl Due {
    /// Returns the next hook that runs before the command, and marks it.
    pub(crate) fn next_hook(&mut self) -> Option<Hook> {
        let waits = |(fault, hit): &&mut (Fault, bool)| matches!(fault, Fault::Run(_)) && !*hit;
        let (fault, hit) = self.faults.iter_mut().find(waits)?;
        *hit = true;
        if let Fault::Run(hook) = fault { Some(hook.clone()) } else { None }
    }

    /// Returns the answer to a FETCH that names a UID which a fault refuses.
    pub(crate) fn refused_uid(&mut self, request: &Request) -> Option<String> {
        let Request::Fetch { set, .. } = request else { return None };
        self.hit(|f| match f {
            Fault::RefuseUids(uids, text) if uids.iter().any(|&uid| set.contains(uid, u32::MAX)) => Some(text.clone()),
            _ => None,
        })
    }

    /// Returns what the first fault that `which` accepts asks for, and marks it.
    pub(crate) fn hit<T>(&mut self, which: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        self.faults.iter_mut().find_map(|(fault, hit)| which(fault).inspect(|_| *hit = true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_is_counted_from_the_injection() {
        let mut faults = Faults::default();
        faults.inject("noop", When::Nth(2), Fault::Stall);
        faults.inject("NOOP", When::Every, Fault::BodyNil);
        let names =
            |f: &mut Faults| f.due(&Command::read(1, b"NOOP")).faults.iter().map(|(f, _)| f.name()).collect::<Vec<_>>();
        assert_eq!(names(&mut faults), ["body-nil"]);
        assert_eq!(names(&mut faults), ["stall", "body-nil"]);
        assert_eq!(names(&mut faults), ["body-nil"]);
    }

    #[test]
    fn only_what_had_an_effect_has_fired() {
        let mut faults = Faults::default();
        faults.inject("NOOP", When::Nth(1), Fault::Stall);
        faults.inject("NOOP", When::Nth(1), Fault::BodyNil);
        let mut due = faults.due(&Command::read(1, b"NOOP"));
        assert!(due.hit(|f| matches!(f, Fault::Stall).then_some(())).is_some());
        faults.fire(&mut due);
        faults.fire(&mut due);
        assert_eq!(faults.fired, ["NOOP stall"]);
    }

    #[test]
    fn a_seed_says_which_faults_happen() {
        let drawn = |seed: u64, connection: u32| {
            let mut faults = Faults::random(seed, 300);
            let names = (0..200).flat_map(|i| {
                let command = Command::read(connection, format!("UID FETCH {} FLAGS", i % 50).as_bytes());
                faults.due(&command).faults.into_iter().map(|(f, _)| f.name()).collect::<Vec<_>>()
            });
            names.collect::<Vec<_>>()
        };
        assert_eq!(drawn(7, 1), drawn(7, 2));
        assert_ne!(drawn(7, 1), drawn(8, 1));
        assert!((30..90).contains(&drawn(7, 1).len()), "{}", drawn(7, 1).len());
        let mut faults = Faults::random(7, 1000);
        faults.calm();
        assert!(faults.due(&Command::read(1, b"NOOP")).faults.is_empty());
    }

    #[test]
    fn shares() {
        let lines = |share: Share| (0..5).filter(|&i| share.includes(i, 5)).collect::<Vec<_>>();
        assert_eq!(lines(Share::All), [0, 1, 2, 3, 4]);
        assert_eq!(lines(Share::EverySecond), [1, 3]);
        assert_eq!(lines(Share::FirstHalf), [0, 1, 2]);
    }

    #[test]
    fn codes_are_edited() {
        let edited = |fault: Fault, line: &str| match fault {
            Fault::Edit(edit) => edit(line),
            _ => None,
        };
        let reply = "a OK [APPENDUID 1 2] done";
        assert_eq!(edited(Fault::without_code("APPENDUID"), reply).unwrap(), "a OK done");
        assert_eq!(edited(Fault::with_code("APPENDUID", "7 8"), reply).unwrap(), "a OK [APPENDUID 7 8] done");
        assert_eq!(edited(Fault::without_code("UIDNEXT"), "* OK [UIDNEXT 5] x"), None);
    }
}
