//! One connection: reads commands, lets the faults happen, sends replies.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::io::{ReadHalf, WriteHalf};

use crate::command::literal;
use crate::exchange;
use crate::execute::{Context, Reply};
use crate::faults::{At, Due, Fault};
use crate::parse::{self, Request};
use crate::quirks::{NotConnected, Pipelining};
use crate::{Command, Inner, Profile, Shared};

/// The largest literal that is read.
const LITERAL: usize = 256 << 20;
/// The longest line that is read, to be refused.
const ANY_LINE: u64 = 1 << 20;
/// The longest line of AUTHENTICATE where the others are shorter: a token alone has up to 4 KB.
const SIGN_IN_LINE: usize = 10_240;

/// The connection is to end: why does not matter, the client sees it.
pub(crate) struct Closed;

impl From<io::Error> for Closed {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// A connection, in clear or in TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Serves one connection to its end.
pub(crate) async fn serve(stream: Box<dyn Stream>, shared: Arc<Shared>, number: u32, ipv6: bool) {
    let (reader, writer) = tokio::io::split(stream);
    let profile = shared.profile;
    let mut session = Session {
        reader: BufReader::new(reader),
        writer,
        shared,
        profile,
        number,
        ipv6,
        context: Context::default(),
        ends: None,
        lost: None,
        bad: 0,
        ahead: false,
        held: None,
    };
    // How it ended is the same to us; the rest of what was sent must go out before the connection does.
    let _ = session.run().await;
    let _ = session.writer.shutdown().await;
}

pub(crate) struct Session {
    pub(crate) reader: BufReader<ReadHalf<Box<dyn Stream>>>,
    writer: WriteHalf<Box<dyn Stream>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) profile: Profile,
    number: u32,
    ipv6: bool,
    pub(crate) context: Context,
    /// When the token runs out that this session was opened with.
    pub(crate) ends: Option<Duration>,
    /// The session leads to no mailbox, and has said so this many times.
    lost: Option<u32>,
    /// How many commands were answered BAD.
    bad: u32,
    /// The command that is read next was sent before the one before it was answered.
    ahead: bool,
    /// A reply that waits for that of the next command.
    held: Option<Vec<u8>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.lock().signed_in.remove(&self.number);
    }
}

impl Session {
    async fn run(&mut self) -> Result<(), Closed> {
        let greeting = self.profile.greeting() + "\r\n";
        self.send(greeting.as_bytes()).await?;
        loop {
            self.notify().await?;
            let Some(input) = self.read().await? else { continue };
            self.command(&input).await?;
        }
    }

    /// Tells changes as they happen until the client sends something, if it has asked for that by NOTIFY.
    async fn notify(&mut self) -> Result<(), Closed> {
        let mut changes = self.shared.changed.subscribe();
        while self.context.notified.is_some() {
            let out = self.context.news(&mut self.shared.clone().lock().state).ok_or(Closed)?;
            self.send(&out).await?;
            tokio::select! {
                filled = self.reader.fill_buf() => {
                    filled?;
                    return Ok(());
                }
                _ = changes.changed() => {}
            }
        }
        Ok(())
    }

    /// Reads a command with its literals, and without its last CRLF. `None` if it was refused already.
    async fn read(&mut self) -> Result<Option<Vec<u8>>, Closed> {
        let mut input = Vec::new();
        loop {
            let start = input.len();
            (&mut self.reader).take(ANY_LINE).read_until(b'\n', &mut input).await?;
            let Some(line) = input[start..].strip_suffix(b"\r\n") else {
                if input.len() > start {
                    let part = String::from_utf8_lossy(&input[start..]).into_owned();
                    self.violation(&format!("a line that is too long or does not end with CRLF: {part}"));
                    self.send(b"* BAD a line that is none\r\n").await?;
                }
                return Err(Closed);
            };
            if self.is_too_long(&input, line) {
                let line = line.to_vec();
                self.refuse_line(&input, &line).await?;
                return Ok(None);
            }
            let Some((size, waits)) = literal(line) else {
                input.truncate(input.len() - 2);
                return Ok(Some(input));
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
                self.send(if self.profile.is_exchange() {
                    b"+ Ready for additional command text.\r\n"
                } else {
                    b"+ go on\r\n"
                })
                .await?;
            }
            let body = input.len();
            input.resize(body + size, 0);
            self.reader.read_exact(&mut input[body..]).await?;
        }
    }

    /// Tells whether a line of this command is longer than it may be.
    fn is_too_long(&self, input: &[u8], line: &[u8]) -> bool {
        let limit = self.shared.lock().state.quirks.max_line;
        let signs_in = || Command::read(0, split(input).1).name == "AUTHENTICATE";
        line.len() > limit && (line.len() > SIGN_IN_LINE || !signs_in())
    }

    /// Answers a line that is too long, which may announce a literal.
    async fn refuse_line(&mut self, input: &[u8], line: &[u8]) -> Result<(), Closed> {
        let (tag, rest) = split(input);
        let name = Command::read(self.number, rest).name;
        self.violation(&format!("a line of {} bytes, which is too long: {name}", line.len()));
        if !self.profile.is_exchange() {
            self.send(b"* BAD a line that is too long\r\n").await?;
            return Err(Closed);
        }
        if let Some((size, false)) = literal(line) {
            self.reader.read_exact(&mut vec![0; size.min(LITERAL)]).await?;
            self.reader.read_until(b'\n', &mut Vec::new()).await?;
        }
        let tag = String::from_utf8_lossy(tag).into_owned();
        self.answer_bad(&tag, exchange::BAD_SHAPE).await
    }

    async fn command(&mut self, input: &[u8]) -> Result<(), Closed> {
        let (tag, rest) = split(input);
        let tag = String::from_utf8_lossy(tag).into_owned();
        if tag.is_empty() || !tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
            self.violation(&format!("a tag that is none: {tag:?}"));
            return self.send(b"* BAD a tag that is none\r\n").await;
        }
        let command = Command::read(self.number, rest);
        let mut due = self.begin(&command);
        self.shared.announce();
        if std::mem::take(&mut self.ahead) && !self.takes_ahead(&tag, &command).await? {
            return Ok(());
        }
        self.token_must_last().await?;
        if self.is_answered(&tag, &command, &mut due).await? {
            return Ok(());
        }
        if self.is_lost(&tag, &command).await? {
            return Ok(());
        }
        let quirks = self.shared.lock().state.quirks.clone();
        let parsed = parse::request(rest, self.profile, &quirks);
        #[cfg(feature = "second-opinion")]
        let parsed = parsed.and_then(|request| crate::codec::agrees(rest, &request).map(|()| request));
        match parsed {
            Err(reason) => {
                self.violation(&format!("{command}: {reason}"));
                let text = match self.profile.is_exchange() {
                    true => exchange::refusal(&reason).to_owned(),
                    false => format!("BAD {reason}"),
                };
                self.answer_bad(&tag, &text).await
            }
            Ok(Request::Idle) => self.idle(&tag, due).await,
            Ok(Request::Authenticate { mechanism, initial }) => {
                self.authenticate(&tag, &mechanism, initial).await?;
                let refused = mechanism == "PLAIN" && !self.shared.lock().state.quirks.basic_auth;
                let reply = if refused { crate::execute::no_passwords() } else { self.context.signed_in(self.profile) };
                self.signed_in(&mut due);
                self.answer(&tag, &command, due, |_, _| reply).await
            }
            Ok(request) => match due.hit(|f| if let Fault::Zombie(delay) = f { Some(*delay) } else { None }) {
                Some(delay) => {
                    self.shared.lock().faults.fire(&mut due);
                    self.rise_later(tag, request, delay);
                    Err(Closed)
                }
                None => self.carry_out(&tag, &command, request, due).await,
            },
        }
    }

    /// Does what the faults want done in place of carrying a command out. Tells whether that was all.
    async fn is_answered(&mut self, tag: &str, command: &Command, due: &mut Due) -> Result<bool, Closed> {
        let answer = due.hit(|f| if let Fault::Answer(text) = f { Some(text.clone()) } else { None });
        let script = due.hit(|f| if let Fault::Script(text) = f { Some(text.clone()) } else { None });
        let stalls = due.hit(|f| matches!(f, Fault::Stall).then_some(()));
        let closes = due.hit(|f| matches!(f, Fault::Close(At::Before)).then_some(()));
        let throttled = self.throttled(command, due);
        self.shared.lock().faults.fire(due);
        if closes.is_some() {
            return Err(Closed);
        }
        if stalls.is_some() {
            // Until the client gives up.
            while self.reader.read_until(b'\n', &mut Vec::new()).await? > 0 {}
            return Err(Closed);
        }
        if let Some(text) = answer.or(throttled) {
            return self.send(format!("{tag} {text}\r\n").as_bytes()).await.map(|()| true);
        }
        if let Some(text) = script {
            self.send(text.replace("{tag}", tag).as_bytes()).await?;
            return if text.contains("* BYE") { Err(Closed) } else { Ok(true) };
        }
        Ok(false)
    }

    /// Takes the faults that are due at a command, and runs those that come before it.
    fn begin(&self, command: &Command) -> Due {
        let mut inner = self.shared.lock();
        let mut due = inner.faults.due(command);
        inner.commands.push(command.clone());
        while let Some(hook) = due.next_hook() {
            hook(&mut inner.state);
        }
        inner.faults.fire(&mut due);
        due
    }

    async fn carry_out(&mut self, tag: &str, command: &Command, request: Request, mut due: Due) -> Result<(), Closed> {
        let (profile, signs_in) = (self.profile, matches!(request, Request::Login { .. }));
        let nothing = due.hit(|f| matches!(f, Fault::MoveNothing).then_some(())).is_some();
        let unconverted = due.refused_uid(&request);
        let carry_out = |context: &mut Context, inner: &mut Inner| {
            if let Some(text) = unconverted {
                return Reply::exact(&text);
            }
            let request = if nothing { request.of_nothing() } else { request };
            let reply = context.execute(&mut inner.state, profile, tag, request);
            if reply.wrong {
                inner.violations.push(format!("{command}: {}", reply.status));
            }
            reply
        };
        if !signs_in {
            return self.answer(tag, command, due, carry_out).await;
        }
        let reply = carry_out(&mut self.context, &mut self.shared.clone().lock());
        self.signed_in(&mut due);
        self.answer(tag, command, due, |_, _| reply).await
    }

    /// Carries out a command and sends its reply, with the news about the selected mailbox and the faults that are due.
    async fn answer(
        &mut self,
        tag: &str,
        command: &Command,
        mut due: Due,
        carry_out: impl FnOnce(&mut Context, &mut Inner) -> Reply,
    ) -> Result<(), Closed> {
        let (out, ends, close, bad) = {
            let mut inner = self.shared.lock();
            let gone = self.context.selected.is_some() && self.context.mailbox(&mut inner.state).is_none();
            let (out, ends, bad) = if gone {
                (b"* BYE the selected mailbox is not what it was\r\n".to_vec(), true, false)
            } else {
                self.context.zone = inner.state.zone;
                let mut reply = carry_out(&mut self.context, &mut inner);
                if self.profile.is_exchange() {
                    exchange::worded(&command.name, &mut reply);
                }
                let bad = reply.status.starts_with("BAD");
                let mut out = self.context.render(&mut inner.state, tag, &reply, &mut due);
                if reply.status == exchange::NO_PASSWORDS {
                    out.extend(format!("* {}\r\n", exchange::SIGNING_OFF).bytes());
                }
                (out, reply.ends || due.ended, bad)
            };
            let close = due.hit(|f| if let Fault::Close(at) = f { Some(*at) } else { None });
            inner.faults.fire(&mut due);
            (out, ends, close, bad)
        };
        self.shared.announce();
        let sent = match close {
            Some(At::Unanswered) => 0,
            Some(At::Middle) => out.len() / 2,
            _ => out.len(),
        };
        self.reply(out[..sent].to_vec()).await?;
        if ends || close.is_some() {
            return Err(Closed);
        }
        if bad { self.count_bad().await } else { Ok(()) }
    }

    /// Sends the end of a reply, or keeps it back until the next command has been answered.
    pub(crate) async fn reply(&mut self, out: Vec<u8>) -> Result<(), Closed> {
        self.ahead = self.more_came().await;
        let reorders = self.shared.lock().state.quirks.pipelining == Pipelining::Reordered;
        if self.ahead && reorders && self.held.is_none() {
            self.held = Some(out);
            return Ok(());
        }
        self.send(&out).await?;
        match self.held.take() {
            Some(held) => self.send(&held).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn answer_bad(&mut self, tag: &str, text: &str) -> Result<(), Closed> {
        self.reply(format!("{tag} {text}\r\n").into_bytes()).await?;
        if text.starts_with("BAD") { self.count_bad().await } else { Ok(()) }
    }

    async fn count_bad(&mut self) -> Result<(), Closed> {
        self.bad += 1;
        let limit = self.shared.lock().state.quirks.max_bad;
        if limit.is_some_and(|max| self.bad >= max) {
            self.send(exchange::CLOSED.as_bytes()).await?;
            return Err(Closed);
        }
        Ok(())
    }

    /// Tells whether the client has sent more already.
    async fn more_came(&mut self) -> bool {
        let mut reader = Pin::new(&mut self.reader);
        poll_fn(|cx| match reader.as_mut().poll_fill_buf(cx) {
            Poll::Ready(Ok(bytes)) => Poll::Ready(!bytes.is_empty()),
            _ => Poll::Ready(false),
        })
        .await
    }

    /// Tells whether a command that was sent ahead is carried out; if not, it has got its answer, or none.
    async fn takes_ahead(&mut self, tag: &str, command: &Command) -> Result<bool, Closed> {
        let how = self.shared.lock().state.quirks.pipelining;
        match how {
            Pipelining::Answered | Pipelining::Reordered => Ok(true),
            Pipelining::Dropped => Ok(false),
            Pipelining::Refused => {
                self.violation(&format!("{command}: sent before the command before it was answered"));
                self.answer_bad(tag, exchange::BAD_STATE).await.map(|()| false)
            }
        }
    }

    /// Ends the session if its token has run out.
    pub(crate) async fn token_must_last(&mut self) -> Result<(), Closed> {
        let over = {
            let inner = self.shared.lock();
            inner.state.quirks.ends_with_token && self.ends.is_some_and(|end| end <= inner.state.now())
        };
        if over {
            self.send(exchange::TOKEN_EXPIRED.as_bytes()).await?;
            return Err(Closed);
        }
        Ok(())
    }

    /// Returns the answer to a command while the account is throttled.
    fn throttled(&self, command: &Command, due: &mut Due) -> Option<String> {
        if command.name == "LOGOUT" {
            return None;
        }
        let mut inner = self.shared.lock();
        let now = inner.state.now();
        match due.hit(|f| if let Fault::Throttle { time, bad } = f { Some((*time, *bad)) } else { None }) {
            Some((time, bad)) => inner.throttled = Some((now + time, bad)),
            None if inner.throttled.is_some_and(|(until, _)| until > now) => inner.impatient.push(command.clone()),
            None => return None,
        }
        let (until, bad) = inner.throttled?;
        let (word, rest) = (if bad { "BAD" } else { "NO" }, (until - now).as_millis());
        Some(format!("{word} Request is throttled. Suggested Backoff Time: {rest} milliseconds"))
    }

    /// Notes a sign-in that has just succeeded, and whether it leads to a mailbox.
    fn signed_in(&mut self, due: &mut Due) {
        if !self.context.logged_in {
            return;
        }
        let mut inner = self.shared.lock();
        inner.signed_in.insert(self.number);
        let quirks = &inner.state.quirks;
        let lost = match quirks.not_connected {
            NotConnected::Nobody => false,
            NotConnected::OverIpv6 => self.ipv6,
            NotConnected::Everybody => true,
        };
        let many = quirks.max_connections.is_some_and(|max| inner.signed_in.len() > max);
        if many {
            quirks.note("max_connections");
        }
        let fault = due.hit(|f| matches!(f, Fault::NotConnected).then_some(())).is_some();
        self.lost = (lost || many || fault).then_some(0);
    }

    /// Answers a command in a session that leads to no mailbox; the second time the session ends.
    async fn is_lost(&mut self, tag: &str, command: &Command) -> Result<bool, Closed> {
        let Some(said) = self.lost else { return Ok(false) };
        if ["CAPABILITY", "LOGOUT"].contains(&command.name.as_str()) {
            return Ok(false);
        }
        self.lost = Some(said + 1);
        self.send(format!("{tag} {}\r\n", exchange::NOT_CONNECTED).as_bytes()).await?;
        if said > 0 {
            self.send(exchange::CLOSED.as_bytes()).await?;
            return Err(Closed);
        }
        Ok(true)
    }

    /// Carries out a command a while after the connection that it came by is gone.
    fn rise_later(&mut self, tag: String, request: Request, delay: Duration) {
        let (shared, profile) = (self.shared.clone(), self.profile);
        let mut context = std::mem::take(&mut self.context);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            context.execute(&mut shared.lock().state, profile, &tag, request);
            shared.announce();
        });
    }

    /// Reads one line of an exchange that is no command.
    pub(crate) async fn line(&mut self) -> Result<Vec<u8>, Closed> {
        let mut line = Vec::new();
        (&mut self.reader).take(ANY_LINE).read_until(b'\n', &mut line).await?;
        line.strip_suffix(b"\r\n").map(<[u8]>::to_vec).ok_or(Closed)
    }

    pub(crate) fn violation(&self, text: &str) {
        self.shared.lock().violations.push(text.to_owned());
    }

    /// Sends bytes, unless the connection is to be cut among them.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Closed> {
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
        self.writer.flush().await?;
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
