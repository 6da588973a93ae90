//! A simulated IMAP server: in memory, deterministic, on a loopback port, with faults on purpose.
//!
//! Tests read and change what it keeps while it runs ([`Server::state`]), ask what it was told
//! ([`Server::commands`], [`Server::violations`]), and make things go wrong ([`Server::inject`],
//! [`Server::on_command`]).
//! It reads commands strictly: what the grammar or the [`Profile`] does not allow gets BAD and is a violation.
//!
//! `session` reads and sends, `parse` reads commands, `execute` carries them out on a [`State`], `view` knows what each
//! client has been told.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

mod command;
mod date;
mod execute;
mod faults;
mod lex;
mod parse;
mod profile;
mod render;
mod search;
mod session;
mod state;
mod view;

#[cfg(test)]
mod tests;

pub use command::{Command, literal};
pub use faults::{At, Editor, Fault, Hook, Share, When};
pub use profile::Profile;
pub use state::{Mailbox, Message, State};

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
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server as a task of the tokio runtime that this is called in.
    ///
    /// # Errors
    /// If no loopback port can be opened.
    pub fn start(profile: Profile) -> io::Result<Self> {
        let (listener, server, stopped) = Self::open(profile, 0)?;
        tokio::spawn(accept(listener, server.shared.clone(), stopped));
        Ok(server)
    }

    /// Starts a server on a thread of its own, for tests that are not async.
    ///
    /// # Errors
    /// If no loopback port or no thread can be had.
    pub fn spawn(profile: Profile) -> io::Result<Self> {
        Self::spawn_on(profile, 0)
    }

    /// Starts a server like [`Self::spawn`] on the port that an earlier one had: to the client it was restarted.
    ///
    /// # Errors
    /// If the port is taken, or no thread can be had.
    pub fn spawn_on(profile: Profile, port: u16) -> io::Result<Self> {
        let (listener, mut server, stopped) = Self::open(profile, port)?;
        let shared = server.shared.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || runtime.block_on(accept(listener, shared, stopped));
        server.thread = Some(std::thread::Builder::new().name("sim".to_owned()).spawn(run)?);
        Ok(server)
    }

    fn open(profile: Profile, port: u16) -> io::Result<(TcpListener, Self, oneshot::Receiver<()>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::new(Shared { profile, inner: Mutex::default(), changed: watch::Sender::new(()) });
        Ok((listener, Self { shared, port, stop: Some(stop), thread: None }, stopped))
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

    /// Returns the commands that were malformed, not announced or out of place.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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

/// Serves connections until `stopped`; then all of them end.
async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: oneshot::Receiver<()>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let mut sessions = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                number += 1;
                sessions.spawn(session::serve(stream, shared.clone(), number));
            }
        }
    }
}
