//! A simulated IMAP server, and a simulated sign-in service: in memory, deterministic, on loopback ports, with faults
//! on purpose.
//!
//! Tests read and change what the server keeps while it runs ([`Server::state`]), ask what it was told
//! ([`Server::commands`], [`Server::violations`]), and make things go wrong: at a command by a [`Fault`]
//! ([`Server::inject`], [`Server::on_command`]), always by the [`Quirks`] in [`State::quirks`], by chance with
//! [`Faults::random`]. Time passes when a test lets it ([`State::advance`]): tokens run out then, throttling ends, and
//! what was to come later ([`State::later`]) comes.
//!
//! It reads commands strictly: what the grammar or the [`Profile`] does not allow gets BAD and is a violation, and so is
//! what imap-codec reads differently.
//!
//! ```no_run
//! use postkeep_sim::{Ca, Fault, OAuth, Options, Profile, Server, When};
//!
//! let ca = Ca::new()?;
//! let server = Server::spawn(Options::from(Profile::Exo2026).tls(&ca).ipv6())?;
//! let oauth = OAuth::spawn(&server, None)?;
//! let ca_file = ca.write_to(std::path::Path::new("."))?; // for tls_ca_file; the host is `localhost`
//! println!("IMAP at {}, sign-in at {}, CA in {}", server.port(), oauth.endpoint("consumers", "token"), ca_file.display());
//! server.inject("UID FETCH BODY.PEEK[]", When::First(2), Fault::Omit(vec![3]));
//! server.state().quirks.max_connections = Some(4);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! `session` reads and sends, `parse` reads commands, `execute` carries them out on a [`State`], `view` knows what each
//! client has been told; `exchange` has the words of Outlook.com, [`oauth`] the sign-in service.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

#[cfg(feature = "second-opinion")]
mod codec;
mod command;
mod contents;
mod date;
mod exchange;
mod execute;
mod faults;
mod idle;
mod lex;
mod mailboxes;
mod messages;
mod notify;
pub mod oauth;
mod parse;
mod profile;
mod quirks;
mod render;
mod search;
mod session;
mod sign_in;
mod state;
mod tls;
mod view;

#[cfg(test)]
mod tests;

pub use command::{Command, literal};
pub use contents::Messages;
pub use exchange::Language;
pub use faults::{At, Editor, Fault, Faults, Hook, Rewriter, Share, When};
pub use oauth::{HttpFault, OAuth};
pub use profile::Profile;
pub use quirks::{NotConnected, Pipelining, Quirks, Sizes, Unkept};
pub use state::{Grant, Mailbox, Message, State};
pub use tls::Ca;

/// What server to start. A [`Profile`] alone is one in clear text on 127.0.0.1.
#[derive(Clone)]
pub struct Options {
    profile: Profile,
    language: Language,
    ca: Option<Ca>,
    ipv6: bool,
}

impl From<Profile> for Options {
    fn from(profile: Profile) -> Self {
        Self { profile, language: Language::English, ca: None, ipv6: false }
    }
}

impl Options {
    /// Names the mailboxes of an Exchange account in this language.
    #[must_use]
    pub fn language(self, language: Language) -> Self {
        Self { language, ..self }
    }

    /// Speaks TLS from the first byte, with the certificate of `ca`.
    #[must_use]
    pub fn tls(self, ca: &Ca) -> Self {
        Self { ca: Some(ca.clone()), ..self }
    }

    /// Listens on ::1 too, at the same port, where the machine has IPv6; see [`Server::ipv6`].
    #[must_use]
    pub fn ipv6(self) -> Self {
        Self { ipv6: true, ..self }
    }
}

/// What the sessions and the test share.
struct Shared {
    profile: Profile,
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    state: State,
    faults: faults::Faults,
    commands: Vec<Command>,
    violations: Vec<String>,
    /// The numbers of the connections that are signed in.
    signed_in: BTreeSet<u32>,
    /// Until when the account is throttled, and whether the answer is BAD.
    throttled: Option<(Duration, bool)>,
    /// The commands that came while it was.
    impatient: Vec<Command>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the sessions in IDLE.
    fn announce(&self) {
        self.changed.send_replace(());
    }
}

/// The running server. It ends, with all its connections, when this is dropped.
pub struct Server {
    shared: Arc<Shared>,
    port: u16,
    ipv6: bool,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server as a task of the tokio runtime that this is called in.
    ///
    /// # Errors
    /// If no loopback port can be opened.
    pub fn start(options: impl Into<Options>) -> io::Result<Self> {
        let (door, server, stopped) = Self::open(options.into(), 0)?;
        tokio::spawn(accept(door, server.shared.clone(), stopped));
        Ok(server)
    }

    /// Starts a server on a thread of its own, for tests that are not async.
    ///
    /// # Errors
    /// If no loopback port or no thread can be had.
    pub fn spawn(options: impl Into<Options>) -> io::Result<Self> {
        Self::spawn_on(options, 0)
    }

    /// Starts a server like [`Self::spawn`] on the port that an earlier one had: to the client it was restarted.
    ///
    /// # Errors
    /// If the port is taken, or no thread can be had.
    pub fn spawn_on(options: impl Into<Options>, port: u16) -> io::Result<Self> {
        let (door, mut server, stopped) = Self::open(options.into(), port)?;
        let shared = server.shared.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || runtime.block_on(accept(door, shared, stopped));
        server.thread = Some(std::thread::Builder::new().name("sim".to_owned()).spawn(run)?);
        Ok(server)
    }

    fn open(options: Options, port: u16) -> io::Result<(Door, Self, oneshot::Receiver<()>)> {
        let Options { profile, language, ca, ipv6 } = options;
        let door = Door::open(port, ipv6, ca)?;
        let (port, ipv6) = (door.ipv4.local_addr()?.port(), door.ipv6.is_some());
        let (stop, stopped) = oneshot::channel();
        let inner = Inner { state: State::new(profile, language), ..Inner::default() };
        let shared = Arc::new(Shared { profile, inner: Mutex::new(inner), changed: watch::Sender::new(()) });
        Ok((door, Self { shared, port, ipv6, stop: Some(stop), thread: None }, stopped))
    }

    /// Ends the server, which was started on a thread of its own, with all its connections; returns what it keeps then,
    /// for the one that is started in its place.
    #[must_use]
    pub fn stop(mut self) -> State {
        self.end();
        std::mem::take(&mut self.shared.lock().state)
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Tells whether the server listens on ::1 too.
    #[must_use]
    pub fn ipv6(&self) -> bool {
        self.ipv6
    }

    /// Returns the port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns what the server keeps, to read and to change. No session does anything while this is held; clients that
    /// wait in IDLE are told of changes when it is dropped. One at a time: a second call in the same expression waits
    /// for itself.
    #[must_use]
    pub fn state(&self) -> StateGuard<'_> {
        StateGuard { inner: self.shared.lock(), changed: &self.shared.changed }
    }

    /// Makes `fault` happen at a command that fits `pattern` (as `APPEND`, `UID FETCH BODY.PEEK[]`; [`Command::fits`]).
    pub fn inject(&self, pattern: &str, when: When, fault: Fault) {
        self.shared.lock().faults.inject(pattern, when, fault);
    }

    /// Replaces the faults that wait by these, as by [`Faults::random`].
    pub fn set_faults(&self, faults: Faults) {
        let mut inner = self.shared.lock();
        let fired = std::mem::take(&mut inner.faults.fired);
        inner.faults = faults;
        inner.faults.fired = fired;
    }

    /// Runs `hook` on the state just before the `n`-th command from now that fits `pattern` is carried out.
    pub fn on_command(&self, pattern: &str, n: u32, hook: impl Fn(&mut State) + Send + Sync + 'static) {
        self.inject(pattern, When::Nth(n), Fault::Run(Arc::new(hook)));
    }

    /// Closes the connection over which the byte after the next `bytes` would go out, counted over all connections.
    /// Fires as `cut`.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.lock().faults.budget = Some(bytes);
    }

    /// Takes back the faults that still wait.
    pub fn calm(&self) {
        self.shared.lock().faults.calm();
    }

    /// Returns the faults that had an effect, in order, as `UID FETCH drop-lines`.
    #[must_use]
    pub fn fired(&self) -> Vec<String> {
        self.shared.lock().faults.fired.clone()
    }

    /// Returns how many connections are signed in.
    #[must_use]
    pub fn signed_in(&self) -> usize {
        self.shared.lock().signed_in.len()
    }

    /// Returns the commands received, in order.
    #[must_use]
    pub fn commands(&self) -> Vec<Command> {
        self.shared.lock().commands.clone()
    }

    /// Returns the commands received and empties the log.
    #[must_use]
    pub fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut self.shared.lock().commands)
    }

    /// Returns the commands that came while the account was throttled ([`Fault::Throttle`]), the first one not among
    /// them.
    #[must_use]
    pub fn impatient(&self) -> Vec<Command> {
        self.shared.lock().impatient.clone()
    }

    /// Returns the commands that were malformed, not announced or out of place.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// The state of the server, locked.
pub struct StateGuard<'a> {
    inner: MutexGuard<'a, Inner>,
    changed: &'a watch::Sender<()>,
}

impl Deref for StateGuard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.inner.state
    }
}

impl DerefMut for StateGuard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.inner.state
    }
}

impl Drop for StateGuard<'_> {
    fn drop(&mut self) {
        // The sessions that wake up wait for the lock, which is released right after.
        self.changed.send_replace(());
    }
}

/// Where connections come in.
struct Door {
    ipv4: TcpListener,
    ipv6: Option<TcpListener>,
    ca: Option<Ca>,
}

impl Door {
    /// Listens on loopback, at any port if it is 0; on ::1 at the same port if that is wanted and there is IPv6.
    fn open(port: u16, ipv6: bool, ca: Option<Ca>) -> io::Result<Self> {
        loop {
            let ipv4 = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            ipv4.set_nonblocking(true)?;
            if !ipv6 {
                return Ok(Self { ipv4, ipv6: None, ca });
            }
            match TcpListener::bind((Ipv6Addr::LOCALHOST, ipv4.local_addr()?.port())) {
                Ok(ipv6) => {
                    ipv6.set_nonblocking(true)?;
                    return Ok(Self { ipv4, ipv6: Some(ipv6), ca });
                }
                // Somebody else has that port there: another one.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && port == 0 => {}
                Err(_) => return Ok(Self { ipv4, ipv6: None, ca }),
            }
        }
    }
}

/// Waits for a connection; for ever if there is no listener.
async fn next(listener: Option<&tokio::net::TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// Serves connections until `stopped`; then all of them end.
async fn accept(door: Door, shared: Arc<Shared>, mut stopped: oneshot::Receiver<()>) {
    let Ok(ipv4) = tokio::net::TcpListener::from_std(door.ipv4) else { return };
    let ipv6 = door.ipv6.and_then(|l| tokio::net::TcpListener::from_std(l).ok());
    let mut sessions = JoinSet::new();
    let mut number = 0;
    loop {
        let (accepted, over_ipv6) = tokio::select! {
            _ = &mut stopped => return,
            accepted = next(Some(&ipv4)) => (accepted, false),
            accepted = next(ipv6.as_ref()) => (accepted, true),
        };
        let Ok(stream) = accepted else { continue };
        number += 1;
        let (shared, ca, number) = (shared.clone(), door.ca.clone(), number);
        sessions.spawn(async move {
            let _ = stream.set_nodelay(true);
            let stream: Box<dyn session::Stream> = match ca {
                None => Box::new(stream),
                Some(ca) => match ca.acceptor().accept(stream).await {
                    Ok(stream) => Box::new(stream),
                    // A client that does not like the certificate.
                    Err(_) => return,
                },
            };
            session::serve(stream, shared, number, over_ipv6).await;
        });
    }
}
