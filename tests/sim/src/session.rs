//! One connection: reads commands, lets the faults happen, sends replies.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::command::literal;
use crate::execute::{Context, Reply};
use crate::faults::{At, Due, Fault};
use crate::lex;
use crate::parse::{self, Request};
use crate::{Command, Inner, Profile, Shared, State};

/// The longest line that a client may send without its literals (RFC 7162 §4).
const LINE: u64 = 8192;
/// The largest literal that is read.
const LITERAL: usize = 256 << 20;

/// The connection is to end: why does not matter, the client sees it.
struct Closed;

impl From<io::Error> for Closed {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(stream: TcpStream, shared: Arc<Shared>, number: u32) {
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (profile, context) = (shared.profile, Context::default());
    let mut session = Session { reader: BufReader::new(reader), writer, shared, profile, number, context };
    // Both ends of a session are the same to us: the writer is shut down when it is dropped.
    let _ = session.run().await;
}

struct Session {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    shared: Arc<Shared>,
    profile: Profile,
    number: u32,
    context: Context,
}

impl Session {
    async fn run(&mut self) -> Result<(), Closed> {
        let greeting = match self.profile {
            Profile::Bare => "* OK ready\r\n".to_owned(),
            _ => format!("* OK [CAPABILITY {}] ready\r\n", self.profile.capabilities()),
        };
        self.send(greeting.as_bytes()).await?;
        loop {
            let input = self.read().await?;
            self.command(&input).await?;
        }
    }

    /// Reads a command with its literals, and without its last CRLF.
    async fn read(&mut self) -> Result<Vec<u8>, Closed> {
        let mut input = Vec::new();
        loop {
            let start = input.len();
            (&mut self.reader).take(LINE + 2).read_until(b'\n', &mut input).await?;
            let Some(line) = input[start..].strip_suffix(b"\r\n") else {
                if input.len() > start {
                    let part = String::from_utf8_lossy(&input[start..]).into_owned();
                    self.violation(&format!("a line that is too long or does not end with CRLF: {part}"));
                    self.send(b"* BAD a line that is none\r\n").await?;
                }
                return Err(Closed);
            };
            let Some((size, waits)) = literal(line) else {
                input.truncate(input.len() - 2);
                return Ok(input);
            };
            if size > LITERAL || !(waits || self.profile.has("LITERAL+")) {
                self.violation("a literal that is too large or not waited for");
                self.send(b"* BAD a literal that is not allowed\r\n").await?;
                return Err(Closed);
            }
            if waits {
                let (tag, rest) = split(&input);
                let command = Command::read(self.number, rest);
                let refusal = self.shared.lock().faults.refusal(&command);
                if let Some(text) = refusal {
                    self.shared.lock().commands.push(command);
                    let line = format!("{} {text}\r\n", String::from_utf8_lossy(tag));
                    self.send(line.as_bytes()).await?;
                    input.clear();
                    continue;
                }
                self.send(b"+ go on\r\n").await?;
            }
            let body = input.len();
            input.resize(body + size, 0);
            self.reader.read_exact(&mut input[body..]).await?;
        }
    }

    async fn command(&mut self, input: &[u8]) -> Result<(), Closed> {
        let (tag, rest) = split(input);
        let tag = String::from_utf8_lossy(tag).into_owned();
        if tag.is_empty() || !tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
            self.violation(&format!("a tag that is none: {tag:?}"));
            return self.send(b"* BAD a tag that is none\r\n").await;
        }
        let command = Command::read(self.number, rest);
        let mut due = {
            let mut inner = self.shared.lock();
            let mut due = inner.faults.due(&command);
            inner.commands.push(command.clone());
            while let Some(hook) = due.next_hook() {
                hook(&mut inner.state);
            }
            inner.faults.fire(&mut due);
            due
        };
        self.shared.announce();
        let request = parse::request(rest, self.profile);
        let answer = due.hit(|f| if let Fault::Answer(text) = f { Some(text.clone()) } else { None });
        let stalls = due.hit(|f| matches!(f, Fault::Stall).then_some(()));
        let closes = due.hit(|f| matches!(f, Fault::Close(At::Before)).then_some(()));
        self.shared.lock().faults.fire(&mut due);
        if closes.is_some() {
            return Err(Closed);
        }
        if stalls.is_some() {
            // Until the client gives up.
            while self.reader.read_until(b'\n', &mut Vec::new()).await? > 0 {}
            return Err(Closed);
        }
        if let Some(text) = answer {
            return self.send(format!("{tag} {text}\r\n").as_bytes()).await;
        }
        match request {
            Err(reason) => {
                self.violation(&format!("{command}: {reason}"));
                self.send(format!("{tag} BAD {reason}\r\n").as_bytes()).await
            }
            Ok(Request::Idle) => self.idle(&tag, due).await,
            Ok(Request::Authenticate { mechanism, initial }) => {
                self.authenticate(&tag, &mechanism, initial).await?;
                let reply = self.context.signed_in(self.profile);
                self.answer(&tag, due, |_, _| reply).await
            }
            Ok(request) => match due.hit(|f| if let Fault::Zombie(delay) = f { Some(*delay) } else { None }) {
                Some(delay) => {
                    self.shared.lock().faults.fire(&mut due);
                    self.rise_later(tag, request, delay);
                    Err(Closed)
                }
                None => {
                    let profile = self.profile;
                    let carry_out = |context: &mut Context, inner: &mut Inner| {
                        let reply = context.execute(&mut inner.state, profile, &tag, request);
                        if reply.wrong {
                            inner.violations.push(format!("{command}: {}", reply.status));
                        }
                        reply
                    };
                    self.answer(&tag, due, carry_out).await
                }
            },
        }
    }

    /// Carries out a command and sends its reply, with the news about the selected mailbox and the faults that are due.
    async fn answer(
        &mut self,
        tag: &str,
        mut due: Due,
        carry_out: impl FnOnce(&mut Context, &mut Inner) -> Reply,
    ) -> Result<(), Closed> {
        let (out, ends, close) = {
            let mut inner = self.shared.lock();
            let gone = self.context.selected.is_some() && self.context.mailbox(&mut inner.state).is_none();
            let (out, ends) = if gone {
                (b"* BYE the selected mailbox is not what it was\r\n".to_vec(), true)
            } else {
                self.context.zone = inner.state.zone;
                let reply = carry_out(&mut self.context, &mut inner);
                (self.context.render(&mut inner.state, tag, &reply, &mut due), reply.ends)
            };
            let close = due.hit(|f| if let Fault::Close(at) = f { Some(*at) } else { None });
            inner.faults.fire(&mut due);
            (out, ends, close)
        };
        self.shared.announce();
        let sent = match close {
            Some(At::Unanswered) => 0,
            Some(At::Middle) => out.len() / 2,
            _ => out.len(),
        };
        self.send(&out[..sent]).await?;
        if ends || close.is_some() { Err(Closed) } else { Ok(()) }
    }

    /// Carries out a command a while after the connection that it came by is gone.
    fn rise_later(&mut self, tag: String, request: Request, delay: std::time::Duration) {
        let (shared, profile) = (self.shared.clone(), self.profile);
        let mut context = std::mem::take(&mut self.context);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            context.execute(&mut shared.lock().state, profile, &tag, request);
            shared.announce();
        });
    }

    /// Tells changes as they happen until the client says DONE. The faults of a reply happen right after the `+`.
    async fn idle(&mut self, tag: &str, mut due: Due) -> Result<(), Closed> {
        if self.context.selected.is_none() {
            self.violation("IDLE without a selected mailbox");
            return self.send(format!("{tag} BAD no mailbox is selected\r\n").as_bytes()).await;
        }
        let mut changes = self.shared.changed.subscribe();
        let (mut out, close) = (b"+ idling\r\n".to_vec(), {
            let mut inner = self.shared.lock();
            let close = due.hit(|f| if let Fault::Close(at) = f { Some(*at) } else { None });
            inner.faults.fire(&mut due);
            close
        });
        if close == Some(At::Unanswered) {
            return Err(Closed);
        }
        let mut line = Vec::new();
        loop {
            {
                let mut inner = self.shared.lock();
                self.context.interrupt(&mut inner.state, &mut due, &mut out);
                inner.faults.fire(&mut due);
                out.extend(self.context.news(&mut inner.state).ok_or(Closed)?);
            }
            self.send(&std::mem::take(&mut out)).await?;
            if close == Some(At::Middle) {
                return Err(Closed);
            }
            due.faults.clear();
            let mut reader = (&mut self.reader).take(LINE);
            tokio::select! {
                read = reader.read_until(b'\n', &mut line) => {
                    read?;
                    break;
                }
                _ = changes.changed() => {}
            }
        }
        if line.is_empty() {
            return Err(Closed);
        }
        if !line.eq_ignore_ascii_case(b"DONE\r\n") {
            self.violation(&format!("a line in IDLE that is not DONE: {}", String::from_utf8_lossy(&line)));
        }
        self.send(format!("{tag} OK done\r\n").as_bytes()).await?;
        if close.is_some() { Err(Closed) } else { Ok(()) }
    }

    /// Reads the client's part of a sign-in, and signs it in if that is right.
    async fn authenticate(&mut self, tag: &str, mechanism: &str, initial: Option<Vec<u8>>) -> Result<(), Closed> {
        let response = match initial {
            _ if self.context.logged_in => Err("signed in already".to_owned()),
            Some(response) => Ok(response),
            None => {
                self.send(b"+ \r\n").await?;
                lex::base64(&self.read().await?)
            }
        };
        let response = match response {
            Ok(response) => response,
            Err(reason) => {
                self.violation(&format!("AUTHENTICATE {mechanism}: {reason}"));
                self.send(format!("{tag} BAD {reason}\r\n").as_bytes()).await?;
                return Err(Closed);
            }
        };
        self.context.logged_in = accepts(&self.shared.lock().state, mechanism, &response);
        if !self.context.logged_in && mechanism == "XOAUTH2" {
            // {"status":"400"}: the client acknowledges the error before it is told NO.
            self.send(b"+ eyJzdGF0dXMiOiI0MDAifQ==\r\n").await?;
            if !self.read().await?.is_empty() {
                self.violation("the challenge after a refused token was not answered with an empty line");
            }
        }
        Ok(())
    }

    fn violation(&self, text: &str) {
        self.shared.lock().violations.push(text.to_owned());
    }

    /// Sends bytes, unless the connection is to be cut among them.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        let allowed = {
            let mut inner = self.shared.lock();
            match inner.faults.budget {
                Some(budget) if budget < bytes.len() as u64 => {
                    inner.faults.budget = None;
                    inner.faults.fired.push("cut".to_owned());
                    usize::try_from(budget).unwrap_or(0)
                }
                Some(ref mut budget) => {
                    *budget -= bytes.len() as u64;
                    bytes.len()
                }
                None => bytes.len(),
            }
        };
        self.writer.write_all(&bytes[..allowed]).await?;
        if allowed < bytes.len() { Err(Closed) } else { Ok(()) }
    }
}

/// Splits the tag from a command.
fn split(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|&b| b == b' ') {
        Some(space) => (&input[..space], &input[space + 1..]),
        None => (&[], input),
    }
}

/// Tells whether the response to a SASL challenge signs in (RFC 4616; XOAUTH2 as Google and Microsoft document it).
fn accepts(state: &State, mechanism: &str, response: &[u8]) -> bool {
    let text = String::from_utf8_lossy(response);
    if mechanism == "XOAUTH2" {
        let token = text.strip_suffix("\x01\x01").and_then(|t| t.split_once("\x01auth=Bearer "));
        return token.is_some_and(|(user, token)| user.starts_with("user=") && state.tokens.contains(token));
    }
    let mut parts = text.split('\0').skip(1);
    let (user, password) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    state.users.get(user).is_some_and(|p| p == password)
}
