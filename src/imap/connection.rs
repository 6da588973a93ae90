//! A connection: commands out, answers in, everything in order and nothing overlooked.
//!
//! There is no task behind it: whoever awaits a command drives the connection. Commands go out in *flights*, several on
//! their way at once; each answer comes out of [`Flight::next`] in the order in which it arrived, and each command's
//! end with its status. A flight that is given up halfway leaves answers unread, which would be taken for those of the
//! next command; so the connection is of no more use then.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Display;

use tracing::{debug, trace, warn};

use super::command::{Command, Literals};
use super::parse::{Code, Data};
use super::select::Selected;
use super::wire::{Answer, Status, Wire};
use super::{Error, Quirks, error};

/// What the server says it can do (RFC 3501 §7.2.1), less what the provider is known not to be able to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Capabilities(BTreeSet<String>);

impl Capabilities {
    /// Tells whether the server has a capability; in any case.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(&name.to_ascii_uppercase())
    }

    /// Returns these less what a provider that has just been recognised is known not to be able to.
    pub(super) fn less(&self, quirks: &Quirks) -> Self {
        Self::new(self.0.iter().cloned(), quirks)
    }

    pub(crate) fn new(names: impl IntoIterator<Item = String>, quirks: &Quirks) -> Self {
        let ignored = |name: &String| quirks.ignore.iter().any(|i| i.eq_ignore_ascii_case(name));
        Self(names.into_iter().map(|n| n.to_ascii_uppercase()).filter(|n| !ignored(n)).collect())
    }

    pub(super) fn literals(&self) -> Literals {
        match (self.has("LITERAL+"), self.has("LITERAL-")) {
            (true, _) => Literals::Plus,
            (false, true) => Literals::Minus,
            (false, false) => Literals::Synchronizing,
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) command: &'static str,
    pub(super) status: Status,
    pub(super) code: Code,
    pub(super) text: String,
}

impl Outcome {
    /// Returns the code of an OK.
    ///
    /// # Errors
    /// [`Error::Refused`] for NO, [`Error::Bad`] or [`Error::Confused`] for BAD; [`Error::Unavailable`],
    /// [`Error::Throttled`] or [`Error::NotConnected`] for either if the server is unwell.
    pub(super) fn check(self, mailbox: Option<&dyn Display>) -> Result<Code, Error> {
        let Self { command, status, code, text } = self;
        if status == Status::Ok {
            return Ok(code);
        }
        if let Some(error) = error::unavailable(&code.name, &text) {
            return Err(error);
        }
        let mailbox = mailbox.map(ToString::to_string);
        Err(match status {
            Status::No => Error::Refused { command, mailbox, code: code.name, text },
            _ if error::lost_track(&text) => Error::Confused { command, mailbox, text },
            _ => Error::Bad { command, mailbox, text },
        })
    }
}

/// What comes out of a flight.
#[derive(Debug)]
pub(super) enum Event {
    /// An answer that belongs to no command in particular.
    Answer(Answer),
    /// The command of this number, counted from 0 in the order given, ended.
    Done(usize, Outcome),
}

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) capabilities: Capabilities,
    pub(super) quirks: Quirks,
    pub(super) selected: Option<Selected>,
    /// EXISTS of the mailbox that is selected or just being selected, less what was expunged since.
    pub(super) exists: u32,
    tags: u64,
    /// Commands are on their way whose answers nobody has read.
    busy: bool,
    ended: Option<String>,
    bye: Option<String>,
}

impl Connection {
    pub(super) fn new(wire: Wire, quirks: Quirks) -> Self {
        Self {
            wire,
            capabilities: Capabilities::default(),
            quirks,
            selected: None,
            exists: 0,
            tags: 0,
            busy: false,
            ended: None,
            bye: None,
        }
    }

    /// Begins a command.
    pub(super) fn command(&self, name: &'static str) -> Command {
        Command::new(name, self.capabilities.literals())
    }

    /// Makes the connection unusable.
    pub(super) fn end(&mut self, why: &str) {
        self.ended.get_or_insert_with(|| why.to_owned());
    }

    /// Marks that answers are awaited, until [`Self::settle`].
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection ended, or an earlier command was given up halfway.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        if let Some(text) = &self.ended {
            return Err(Error::Closed { text: text.clone() });
        }
        if self.busy {
            return Err(Error::Closed { text: "an earlier command was given up halfway".into() });
        }
        self.busy = true;
        Ok(())
    }

    /// Marks that every answer was read.
    pub(super) fn settle(&mut self) {
        self.busy = false;
    }

    /// Returns a new tag, and puts it into the queue with what follows it.
    pub(super) fn send(&mut self, name: &'static str, first: &[u8], secret: bool) -> String {
        // Never used twice, so a late answer is never taken for another command's.
        self.tags += 1;
        let tag = format!("A{}", self.tags);
        trace!(command = name, tag, "sent");
        self.wire.queue(tag.as_bytes(), false);
        self.wire.queue(b" ", false);
        self.wire.queue(first, secret);
        tag
    }

    /// Begins a flight of commands, at most `window` of them on their way at once. No bytes are sent before it is asked
    /// for its first event.
    ///
    /// # Errors
    /// Those of [`Self::begin`].
    pub(super) fn fly(&mut self, commands: Vec<Command>, window: usize) -> Result<Flight<'_>, Error> {
        self.begin()?;
        let window = self.quirks.window(window);
        let waiting = commands.into_iter().enumerate().collect();
        Ok(Flight { connection: self, waiting, flying: Vec::new(), window, answers: 0 })
    }

    /// Runs commands, hands each answer to `on`, and returns the code of each command's OK.
    ///
    /// All answers are read even after an error, so the connection stays in step.
    ///
    /// # Errors
    /// The first of: an error of `on`, a command that was refused, a connection that broke.
    pub(super) async fn run_all(
        &mut self,
        commands: Vec<Command>,
        window: usize,
        mailbox: Option<&(dyn Display + Sync)>,
        mut on: impl FnMut(Answer) -> Result<(), Error> + Send,
    ) -> Result<Vec<Code>, Error> {
        let mut codes: Vec<Code> = (0..commands.len()).map(|_| Code::default()).collect();
        let mut first = Ok(());
        let mut flight = self.fly(commands, window)?;
        while let Some(event) = flight.next().await? {
            let result = match event {
                Event::Answer(answer) if first.is_ok() => on(answer),
                Event::Answer(_) => Ok(()),
                Event::Done(index, outcome) => {
                    outcome.check(mailbox.map(|m| m as &dyn Display)).map(|code| codes[index] = code)
                }
            };
            first = first.and(result);
        }
        first.map(|()| codes)
    }

    /// Runs one command whose answers do not matter, and returns the code of its OK.
    ///
    /// # Errors
    /// Those of [`Self::run_all`].
    pub(super) async fn run(
        &mut self,
        command: Command,
        mailbox: Option<&(dyn Display + Sync)>,
    ) -> Result<Code, Error> {
        let codes = self.run_all(vec![command], 1, mailbox, |_| Ok(())).await?;
        Ok(codes.into_iter().next().unwrap_or_default())
    }

    /// Returns the next answer, once the state of the mailbox follows it. Safe to cancel.
    ///
    /// # Errors
    /// The connection broke; it is of no more use then.
    pub(super) async fn receive(&mut self) -> Result<Answer, Error> {
        let answer = self.wire.next().await;
        self.note(answer)
    }

    /// As [`Self::receive`], but waits however long it takes.
    ///
    /// # Errors
    /// Those of [`Self::receive`], but for the timeout.
    pub(super) async fn receive_in_silence(&mut self) -> Result<Answer, Error> {
        let answer = self.wire.next_in_silence().await;
        self.note(answer)
    }

    fn note(&mut self, answer: Result<Answer, Error>) -> Result<Answer, Error> {
        let error = match answer {
            Ok(answer) => match self.follow(&answer) {
                Ok(()) => return Ok(answer),
                Err(error) => error,
            },
            // Its last words say more than that it is gone.
            Err(Error::Closed { text }) => match self.bye.take() {
                Some(bye) => error::goodbye(bye),
                None => Error::Closed { text },
            },
            Err(error) => error,
        };
        self.end(&error.to_string());
        Err(error)
    }

    /// Applies what an answer says about the mailbox and the connection.
    fn follow(&mut self, answer: &Answer) -> Result<(), Error> {
        match answer {
            Answer::Exists(count) => self.exists = *count,
            Answer::Expunge => self.exists = self.exists.saturating_sub(1),
            Answer::Data(Data::Vanished { earlier: false, uids }) => {
                self.exists = self.exists.saturating_sub(u32::try_from(uids.len()).unwrap_or(u32::MAX));
            }
            Answer::Untagged { status: Status::Bye, text, .. } => self.bye = Some(text.clone()),
            Answer::Untagged { code, text, .. } if code.is("ALERT") => warn!(text, "the server says"),
            Answer::Untagged { status: Status::No | Status::Bad, text, .. } => warn!(text, "the server warned"),
            Answer::Data(Data::Stray(line)) => {
                let text = error::words(line);
                if let Some(error) = error::unavailable("", &text) {
                    return Err(error);
                }
                debug!("skipped a line that is no answer");
            }
            _ => {}
        }
        if let Some(selected) = &mut self.selected {
            selected.exists = self.exists;
        }
        Ok(())
    }
}

/// A command on its way.
#[derive(Debug)]
struct Flying {
    index: usize,
    tag: String,
    name: &'static str,
    /// What the server has to ask for.
    rest: VecDeque<Vec<u8>>,
    secret: bool,
}

/// Commands on their way, and those that wait for their turn.
#[derive(Debug)]
pub(super) struct Flight<'a> {
    connection: &'a mut Connection,
    waiting: VecDeque<(usize, Command)>,
    flying: Vec<Flying>,
    window: usize,
    answers: u64,
}

impl Flight<'_> {
    /// Returns the next event, or nothing once every command ended.
    ///
    /// Safe to cancel as long as it is called again until it returns nothing.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            self.launch();
            if self.flying.is_empty() {
                self.connection.settle();
                return Ok(None);
            }
            match self.connection.receive().await? {
                Answer::Tagged { tag, status, code, text } => {
                    let Some(at) = self.flying.iter().position(|f| f.tag == tag) else {
                        return Err(self.broken("an answer to a command that was never sent"));
                    };
                    let Flying { index, name, .. } = self.flying.remove(at);
                    trace!(command = name, tag, ?status, code = code.name, "answered");
                    return Ok(Some(Event::Done(index, Outcome { command: name, status, code, text })));
                }
                Answer::Continue => {
                    if let Some(flying) = self.flying.last_mut()
                        && let Some(part) = flying.rest.pop_front()
                    {
                        self.connection.wire.queue(&part, flying.secret);
                    }
                }
                answer => {
                    self.answers += 1;
                    // Four lines a message, and room for what comes unasked; more is a server that never ends.
                    if self.answers > 4 * u64::from(self.connection.exists.max(10_000)) + 10_000 {
                        return Err(self.broken("far more answers than there are messages"));
                    }
                    return Ok(Some(Event::Answer(answer)));
                }
            }
        }
    }

    /// Sends what may be on its way at once. Nothing is sent after a command that waits to be asked for its literal.
    fn launch(&mut self) {
        while self.flying.len() < self.window
            && self.flying.last().is_none_or(|f| f.rest.is_empty())
            && let Some((index, command)) = self.waiting.pop_front()
        {
            let Command { name, parts, secret, .. } = command;
            let mut parts: VecDeque<Vec<u8>> = parts.into();
            if let Some(last) = parts.back_mut() {
                last.extend_from_slice(b"\r\n");
            }
            // The line end of a part that is waited for is that of the announcement.
            let first = parts.pop_front().unwrap_or_default();
            let tag = self.connection.send(name, &first, secret);
            self.flying.push(Flying { index, tag, name, rest: parts, secret });
        }
    }

    fn broken(&mut self, what: &str) -> Error {
        self.connection.end(what);
        Error::Protocol(what.to_owned())
    }
}
