//! One connection: reads commands, lets the faults happen, sends replies.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::command::literal;
use crate::execute::{Context, Line, Reply};
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
                let refusal = self.shared.lock().faults.refusal(&command.name);
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
        let due = {
            let mut inner = self.shared.lock();
            let due = inner.faults.due(&command.name);
            inner.commands.push(command.clone());
            for fault in &due.0 {
                if let Fault::Run(hook) = fault {
                    hook(&mut inner.state);
                }
            }
            due
        };
        if due.0.iter().any(|f| matches!(f, Fault::Run(_))) {
            self.shared.announce();
        }
        let request = parse::request(rest, self.profile);
        if due.closes(At::Before) {
            return Err(Closed);
        }
        if due.stalls() {
            // Until the client gives up.
            while self.reader.read_until(b'\n', &mut Vec::new()).await? > 0 {}
            return Err(Closed);
        }
        if let Some(text) = due.answer() {
            return self.send(format!("{tag} {text}\r\n").as_bytes()).await;
        }
        match request {
            Err(reason) => {
                self.violation(&format!("{command}: {reason}"));
                self.send(format!("{tag} BAD {reason}\r\n").as_bytes()).await
            }
            Ok(Request::Idle) => self.idle(&tag, &due).await,
            Ok(Request::Authenticate { mechanism, initial }) => self.authenticate(&tag, &mechanism, initial).await,
            Ok(request) => match due.zombie() {
                Some(delay) => {
                    self.rise_later(tag, request, delay);
                    Err(Closed)
                }
                None => self.answer(&tag, &command, request, &due).await,
            },
        }
    }

    /// Carries out a command and sends its reply, with the news about the selected mailbox and the faults that are due.
    async fn answer(&mut self, tag: &str, command: &Command, request: Request, due: &Due) -> Result<(), Closed> {
        let shared = self.shared.clone();
        let (out, ends) = {
            let mut inner = shared.lock();
            let gone = self.context.selected.is_some() && self.context.mailbox(&mut inner.state).is_none();
            if gone {
                (b"* BYE the selected mailbox is not what it was\r\n".to_vec(), true)
            } else {
                self.context.zone = inner.state.zone;
                let reply = self.context.execute(&mut inner.state, self.profile, tag, request);
                if reply.wrong {
                    inner.violations.push(format!("{command}: {}", reply.status));
                }
                (self.context.render(&mut inner, tag, &reply, due), reply.ends)
            }
        };
        shared.announce();
        if due.closes(At::Unanswered) {
            return Err(Closed);
        }
        if due.closes(At::Middle) {
            self.send(&out[..out.len() / 2]).await?;
            return Err(Closed);
        }
        self.send(&out).await?;
        if ends || due.closes(At::After) { Err(Closed) } else { Ok(()) }
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

    async fn idle(&mut self, tag: &str, due: &Due) -> Result<(), Closed> {
        if self.context.selected.is_none() {
            self.violation("IDLE without a selected mailbox");
            return self.send(format!("{tag} BAD no mailbox is selected\r\n").as_bytes()).await;
        }
        let shared = self.shared.clone();
        let mut changes = shared.changed.subscribe();
        self.send(b"+ idling\r\n").await?;
        let mut done = Vec::new();
        loop {
            let news = self.context.news(&mut shared.lock().state);
            self.send(&news.ok_or(Closed)?).await?;
            if due.closes(At::Middle) {
                return Err(Closed);
            }
            let mut line = (&mut self.reader).take(LINE);
            tokio::select! {
                read = line.read_until(b'\n', &mut done) => {
                    read?;
                    break;
                }
                _ = changes.changed() => {}
            }
        }
        if done.is_empty() {
            return Err(Closed);
        }
        if !done.eq_ignore_ascii_case(b"DONE\r\n") {
            self.violation(&format!("a line in IDLE that is not DONE: {}", String::from_utf8_lossy(&done)));
        }
        self.send(format!("{tag} OK done\r\n").as_bytes()).await
    }

    async fn authenticate(&mut self, tag: &str, mechanism: &str, initial: Option<Vec<u8>>) -> Result<(), Closed> {
        if self.context.logged_in {
            self.violation("AUTHENTICATE when signed in");
            return self.send(format!("{tag} BAD signed in already\r\n").as_bytes()).await;
        }
        let response = match initial {
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
                return self.send(format!("{tag} BAD {reason}\r\n").as_bytes()).await;
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
        let reply = self.context.signed_in(self.profile);
        self.send(format!("{tag} {}\r\n", reply.status).as_bytes()).await
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

impl Context {
    /// Returns what the client must be told about its selected mailbox, or `None` if that is not what it was.
    fn news(&mut self, state: &mut State) -> Option<Vec<u8>> {
        let Some(mut view) = self.selected.take() else { return Some(Vec::new()) };
        let mailbox = state.mailboxes.values().find(|m| m.incarnation == view.incarnation)?;
        let news = view.news(mailbox, self.condstore, self.qresync);
        self.selected = Some(view);
        Some(news)
    }

    /// Returns a reply as bytes: its lines, the news, the tagged line; with the faults that are due.
    fn render(&mut self, inner: &mut Inner, tag: &str, reply: &Reply, due: &Due) -> Vec<u8> {
        let mut out = Vec::new();
        let kept = kept(&reply.lines, &due.0);
        for (i, line) in kept.iter().enumerate() {
            if i == kept.len() / 2 {
                self.interrupt(inner, due, &mut out);
            }
            if let Some(line) = self.line(line) {
                edited(&line, &due.0, &mut out);
            }
        }
        if kept.is_empty() {
            self.interrupt(inner, due, &mut out);
        }
        out.extend(self.news(&mut inner.state).unwrap_or_default());
        edited(format!("{tag} {}", reply.status).as_bytes(), &due.0, &mut out);
        out
    }

    fn interrupt(&mut self, inner: &mut Inner, due: &Due, out: &mut Vec<u8>) {
        for fault in &due.0 {
            match fault {
                Fault::Send(bytes) => out.extend(bytes),
                Fault::Between(hook) => {
                    hook(&mut inner.state);
                    out.extend(self.news(&mut inner.state).unwrap_or_default());
                }
                _ => {}
            }
        }
    }

    fn line(&self, line: &Line) -> Option<Vec<u8>> {
        match line {
            Line::Fetch { uid, items } => {
                let sequence = self.selected.as_ref()?.sequence(*uid)?;
                let mut out = format!("* {sequence} FETCH (").into_bytes();
                out.extend(items);
                out.push(b')');
                Some(out)
            }
            Line::Listed(text) | Line::Other(text) => Some(format!("* {text}").into_bytes()),
        }
    }
}

/// Returns the lines that the faults leave.
fn kept<'a>(lines: &'a [Line], due: &[Fault]) -> Vec<&'a Line> {
    let listed = |line: &&Line| !matches!(line, Line::Other(_));
    let count = lines.iter().filter(listed).count();
    let mut index = 0;
    let keeps = |line: &&Line| {
        let i = index;
        index += usize::from(listed(line));
        let uid = if let Line::Fetch { uid, .. } = line { Some(*uid) } else { None };
        !due.iter().any(|fault| match fault {
            Fault::DropLines(share) => listed(line) && share.includes(i, count),
            Fault::Omit(uids) => uid.is_some_and(|u| uids.contains(&u)),
            _ => false,
        })
    };
    lines.iter().filter(keeps).collect()
}

/// Adds a line with its CRLF as the faults change it.
fn edited(line: &[u8], due: &[Fault], out: &mut Vec<u8>) {
    let mut line = line.to_vec();
    for fault in due {
        match fault {
            Fault::BodyNil => line = without_body(line, b"NIL"),
            Fault::BodyEmpty => line = without_body(line, b"\"\""),
            Fault::Edit(edit) => {
                if let Ok(text) = std::str::from_utf8(&line) {
                    match edit(text) {
                        Some(text) => line = text.into_bytes(),
                        None => return,
                    }
                }
            }
            _ => {}
        }
    }
    out.extend(line);
    out.extend(b"\r\n");
}

/// Returns a FETCH line with `instead` in place of the literal that it ends with.
fn without_body(line: Vec<u8>, instead: &[u8]) -> Vec<u8> {
    let name = line.windows(5).position(|w| w == b"BODY[");
    let open = name.and_then(|n| line[n..].iter().position(|&b| b == b'{').map(|i| n + i));
    match open {
        Some(open) => [&line[..open], instead, b")"].concat(),
        None => line,
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
