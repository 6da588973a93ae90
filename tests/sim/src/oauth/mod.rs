//! A simulated sign-in service: the three endpoints of Microsoft's that a mail program needs (RFC 6749, RFC 7636,
//! RFC 8628), over HTTP or HTTPS on loopback.
//!
//! The tokens that it gives out are accepted by the [`Server`] that it belongs to, and by its clock they run out.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

mod browser;
mod directory;
mod http;

pub use browser::{get, press};
pub use directory::{AADSTS_ABUSE, AADSTS_EXPIRED, CONSUMERS, Device, DeviceState, Directory, IMAP_SCOPE, Refresh};
pub use http::HttpRequest;

use crate::session::Stream;
use crate::{Ca, Server, Shared, When};
use http::Response;

/// What can go wrong at the sign-in service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpFault {
    /// Answers this status with a page that is no JSON, and with these headers, as 500, or 429 with `Retry-After`.
    Status(u16, Vec<(&'static str, String)>),
    /// Answers this status and this body.
    Body(u16, String),
    /// Answers status 400 and this error with its description, as `slow_down`; does nothing else.
    Error(&'static str, String),
    /// Never answers.
    Stall,
    /// Closes the connection without an answer, and has done nothing.
    Close,
    /// Does what it is asked for, and closes the connection without an answer: the new refresh token is lost.
    Lose,
}

impl HttpFault {
    /// Answers `slow_down` (RFC 8628 §3.5).
    #[must_use]
    pub fn slow_down() -> Self {
        Self::Error("slow_down", "AADSTS90055: The tenant exceeded the polling rate. Slow down.".to_owned())
    }

    /// Answers that the refresh token is not good.
    #[must_use]
    pub fn expired() -> Self {
        Self::Error("invalid_grant", AADSTS_EXPIRED.to_owned())
    }

    /// Answers that the account is restricted.
    #[must_use]
    pub fn abuse() -> Self {
        Self::Error("invalid_grant", AADSTS_ABUSE.to_owned())
    }

    /// Answers 429 with this Retry-After in seconds.
    #[must_use]
    pub fn too_many(seconds: u32) -> Self {
        Self::Status(429, vec![("Retry-After", seconds.to_string())])
    }

    /// Returns the name under which it is listed as fired.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Status(..) => "status",
            Self::Body(..) => "body",
            Self::Error(..) => "error",
            Self::Stall => "stall",
            Self::Close => "close",
            Self::Lose => "lose",
        }
    }
}

struct Armed {
    pattern: String,
    when: When,
    seen: u32,
    fault: HttpFault,
}

#[derive(Default)]
struct Inner {
    directory: Directory,
    armed: Vec<Armed>,
    fired: Vec<String>,
    requests: Vec<HttpRequest>,
    violations: Vec<String>,
}

impl Inner {
    /// Returns the first fault that is due at a request, and counts it.
    fn due(&mut self, label: &str) -> Option<HttpFault> {
        let mut due = None;
        self.armed.retain_mut(|armed| {
            if !label.starts_with(&armed.pattern) || due.is_some() {
                return true;
            }
            armed.seen += 1;
            let (now, stays) = armed.when.counts(armed.seen);
            due = now.then(|| armed.fault.clone());
            stays
        });
        self.fired.extend(due.iter().map(|fault| format!("{label} {}", fault.name())));
        due
    }
}

type Locked = Arc<Mutex<Inner>>;

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running service. It ends when this is dropped.
pub struct OAuth {
    inner: Locked,
    port: u16,
    tls: bool,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl OAuth {
    /// Starts a service for a mail server, on a thread of its own; in clear without `ca`.
    ///
    /// # Errors
    /// If no loopback port or no thread can be had.
    pub fn spawn(server: &Server, ca: Option<&Ca>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let (port, tls) = (listener.local_addr()?.port(), ca.is_some());
        let (stop, stopped) = oneshot::channel();
        let inner = Locked::default();
        let (mail, ca, shared) = (server.shared.clone(), ca.cloned(), inner.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || runtime.block_on(accept(listener, ca, shared, mail, stopped));
        let thread = std::thread::Builder::new().name("sim-oauth".to_owned()).spawn(run)?;
        Ok(Self { inner, port, tls, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns what stands before the tenant in the endpoints, as `http://localhost:4711`.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}://localhost:{}", if self.tls { "https" } else { "http" }, self.port)
    }

    /// Returns the address of an endpoint: `authorize`, `token` or `devicecode` of a tenant as `common`.
    #[must_use]
    pub fn endpoint(&self, tenant: &str, name: &str) -> String {
        format!("{}/{tenant}/oauth2/v2.0/{name}", self.authority())
    }

    /// Returns what the service knows, to read and to change. Not to be held together with [`Server::state`]: a request
    /// needs both.
    #[must_use]
    pub fn directory(&self) -> DirectoryGuard<'_> {
        DirectoryGuard(lock(&self.inner))
    }

    /// Makes `fault` happen at a request whose [`HttpRequest::label`] begins with `pattern`, as `token` or
    /// `token refresh_token`.
    pub fn inject(&self, pattern: &str, when: When, fault: HttpFault) {
        lock(&self.inner).armed.push(Armed { pattern: pattern.to_owned(), when, seen: 0, fault });
    }

    /// Takes back the faults that still wait.
    pub fn calm(&self) {
        lock(&self.inner).armed.clear();
    }

    /// Returns the faults that happened, in order, as `token refresh_token status`.
    #[must_use]
    pub fn fired(&self) -> Vec<String> {
        lock(&self.inner).fired.clone()
    }

    /// Returns the requests received, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<HttpRequest> {
        lock(&self.inner).requests.clone()
    }

    /// Returns what clients did that they should not.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        lock(&self.inner).violations.clone()
    }
}

impl Drop for OAuth {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The [`Directory`], locked.
pub struct DirectoryGuard<'a>(MutexGuard<'a, Inner>);

impl Deref for DirectoryGuard<'_> {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.0.directory
    }
}

impl DerefMut for DirectoryGuard<'_> {
    fn deref_mut(&mut self) -> &mut Directory {
        &mut self.0.directory
    }
}

/// Serves connections until `stopped`; then all of them end.
async fn accept(
    listener: TcpListener,
    ca: Option<Ca>,
    inner: Locked,
    mail: Arc<Shared>,
    mut stopped: oneshot::Receiver<()>,
) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (ca, inner, mail) = (ca.clone(), inner.clone(), mail.clone());
                connections.spawn(async move {
                    let stream: Box<dyn Stream> = match ca {
                        None => Box::new(stream),
                        Some(ca) => match ca.acceptor().accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    serve(stream, &inner, &mail).await;
                });
            }
        }
    }
}

async fn serve(mut stream: Box<dyn Stream>, inner: &Mutex<Inner>, mail: &Shared) {
    let request = match http::read(&mut stream).await {
        Ok(request) => request,
        Err(None) => return,
        Err(Some(reason)) => {
            lock(inner).violations.push(reason);
            let _ = Response::page(400, "<p>Bad Request</p>").send(&mut stream).await;
            return;
        }
    };
    let fault = {
        let mut inner = lock(inner);
        inner.requests.push(request.clone());
        inner.due(&request.label())
    };
    let response = match fault {
        Some(HttpFault::Stall) => return std::future::pending().await,
        Some(HttpFault::Close) => return,
        Some(HttpFault::Lose) => {
            answer(&request, inner, mail);
            return;
        }
        Some(HttpFault::Status(status, headers)) => {
            Response { headers, ..Response::page(status, "<p>Service unavailable</p>") }
        }
        Some(HttpFault::Body(status, body)) => Response::json(status, body),
        Some(HttpFault::Error(name, description)) => directory::error(name, &description),
        None => answer(&request, inner, mail),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let now = i64::try_from(now).unwrap_or(0).saturating_add(lock(inner).directory.clock_ahead);
    let mut response = response;
    response.headers.push(("Date", crate::date::write_http(now)));
    // A client that has gone does not need it.
    let _ = response.send(&mut stream).await;
}

fn answer(request: &HttpRequest, inner: &Mutex<Inner>, mail: &Shared) -> Response {
    let mut inner = lock(inner);
    let answer = inner.directory.answer(request, &mut mail.lock().state);
    answer.unwrap_or_else(|(reason, response)| {
        inner.violations.push(format!("{}: {reason}", request.label()));
        response
    })
}
