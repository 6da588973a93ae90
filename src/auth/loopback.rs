//! Where the browser comes back to (RFC 8252 §7.3): a listener on this machine, for one visit.
//!
//! Everyone on the machine can knock, and every page in the browser can make it knock; only who brings the right `state`
//! is let in, once.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use oauth2::url::form_urlencoded;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::page::{self, Page};
use crate::model::Secret;

/// A code has one or two kilobytes; browsers add their headers.
const MOST_BYTES: usize = 32 * 1024;
/// A browser sends its request at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// A browser opens two or three connections; more is somebody who plays.
const MOST_GUESTS: usize = 16;
/// Another program may have the port on the other protocol.
const TRIES: u32 = 16;

/// Waits for the browser.
#[derive(Debug)]
pub(super) struct Loopback {
    v4: TcpListener,
    /// None on a machine without IPv6.
    v6: Option<TcpListener>,
    port: u16,
}

/// What the browser brought.
#[derive(Debug)]
pub(super) enum Brought {
    /// A code to get tokens for (RFC 6749 §4.1.2).
    Code(Secret),
    /// An error and its description (RFC 6749 §4.1.2.1), in the server's words.
    Error(String, String),
}

/// A browser that came back, and waits for its page.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) brought: Brought,
    stream: TcpStream,
}

impl Loopback {
    /// Opens a port that is free.
    ///
    /// # Errors
    /// What the system says if there is none.
    pub(super) async fn open() -> io::Result<Self> {
        let mut last = None;
        for _ in 0..TRIES {
            let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let port = v4.local_addr()?.port();
            match TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
                Ok(v6) => return Ok(Self { v4, v6: Some(v6), port }),
                // A browser that tries IPv6 first must not reach another program there.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = Some(error),
                Err(_) => return Ok(Self { v4, v6: None, port }),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
    }

    /// Returns the address that the browser is to come back to. Microsoft takes any port of `http://localhost`, and no path.
    pub(super) fn redirect(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// Waits for the one visit that brings `state`; then the port is closed. Everyone else gets a page that says so.
    /// Nothing is returned when the time is up.
    pub(super) async fn wait(self, state: &Secret, limit: Duration) -> Option<Visit> {
        timeout(limit, self.receive(state)).await.ok()
    }

    async fn receive(self, state: &Secret) -> Visit {
        let expected: [u8; 32] = Sha256::digest(state.expose()).into();
        let mut guests: JoinSet<Option<Visit>> = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                gone = guests.join_next(), if !guests.is_empty() => match gone {
                    Some(Ok(Some(visit))) => return visit,
                    _ => continue,
                },
                accepted = self.v4.accept() => accepted,
                accepted = accept(self.v6.as_ref()) => accepted,
            };
            match accepted {
                Ok((stream, _)) if guests.len() < MOST_GUESTS => {
                    guests.spawn(async move { timeout(PATIENCE, serve(stream, &expected)).await.ok().flatten() });
                }
                Ok(_) => {}
                // Out of descriptors, perhaps; those who are here will go.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

impl Visit {
    /// Shows the page that the browser waits for; that it went away is no failure.
    pub(super) async fn show(mut self, page: &Page) {
        let _ = timeout(PATIENCE, answer(&mut self.stream, page)).await;
    }
}

/// Reads a request; returns the browser that is waited for, and sends everyone else away.
async fn serve(mut stream: TcpStream, expected: &[u8]) -> Option<Visit> {
    let head = read_head(&mut stream).await?;
    let page = match judge(&head, expected) {
        Ok(brought) => return Some(Visit { brought, stream }),
        Err(page) => page,
    };
    let _ = answer(&mut stream, &page).await;
    None
}

/// Reads up to the empty line; nothing if there is none.
async fn read_head(stream: &mut TcpStream) -> Option<Zeroizing<Vec<u8>>> {
    let mut head = Zeroizing::new(Vec::with_capacity(MOST_BYTES));
    loop {
        let room = MOST_BYTES - head.len();
        if room == 0 {
            let _ = answer(stream, &page::too_long()).await;
            return None;
        }
        match (&mut *stream).take(room as u64).read_buf(&mut *head).await {
            Ok(1..) if head.windows(4).any(|w| w == b"\r\n\r\n") => return Some(head),
            Ok(1..) => {}
            Ok(0) | Err(_) => return None,
        }
    }
}

/// Returns what a request brought, or the page for who brought nothing, or not what is waited for.
fn judge(head: &[u8], expected: &[u8]) -> Result<Brought, Page> {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| page::not_here())?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(page::not_here());
    };
    if method != "GET" || !version.starts_with("HTTP/1.") {
        return Err(page::not_that_way());
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path != "/" {
        return Err(page::not_here());
    }
    let once = |name: &str| {
        let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
        let value = values.next().map(|(_, value)| value.into_owned());
        value.filter(|_| values.next().is_none())
    };
    // Compared by their digests, so that how long it takes says nothing.
    let state = once("state").map(Zeroizing::new);
    if state.is_none_or(|state| Sha256::digest(state.as_bytes()).as_slice() != expected) {
        return Err(page::another_sign_in());
    }
    match (once("code"), once("error")) {
        (Some(code), None) if !code.is_empty() => Ok(Brought::Code(Secret::new(code))),
        (_, Some(error)) => Ok(Brought::Error(error, once("error_description").unwrap_or_default())),
        (Some(_) | None, None) => Err(page::another_sign_in()),
    }
}

async fn answer(stream: &mut TcpStream, page: &Page) -> io::Result<()> {
    stream.write_all(page.response().as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = "right";

    /// Sends a request and returns the whole answer.
    async fn talk(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn get(target: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    }

    #[test]
    fn requests_are_judged() {
        let expected = Sha256::digest(STATE);
        let rows = [
            (get("/?code=abc%2B%2F&state=right"), Ok("code abc+/")),
            (get("/?session_state=x&state=right&code=a"), Ok("code a")),
            (
                get("/?error=access_denied&error_description=The+user+said+no&state=right"),
                Ok("access_denied The user said no"),
            ),
            (get("/?error=server_error&state=right"), Ok("server_error ")),
            (get("/?code=a&state=wrong"), Err(400)),
            (get("/?code=a"), Err(400)),
            (get("/?code=a&state=right&state=right"), Err(400)),
            (get("/?code=a&code=b&state=right"), Err(400)),
            (get("/?code=&state=right"), Err(400)),
            (get("/?state=right"), Err(400)),
            (get("/"), Err(400)),
            (get("/favicon.ico"), Err(404)),
            (get("/other?code=a&state=right"), Err(404)),
            (get("http://evil.example/?code=a&state=right"), Err(404)),
            ("POST /?code=a&state=right HTTP/1.1\r\n\r\n".to_owned(), Err(405)),
            ("GET /?code=a&state=right SPDY\r\n\r\n".to_owned(), Err(405)),
            ("\r\n\r\n".to_owned(), Err(404)),
        ];
        for (request, result) in rows {
            let judged = judge(request.as_bytes(), &expected);
            let judged = match &judged {
                Ok(Brought::Code(code)) => Ok(format!("code {}", code.expose())),
                Ok(Brought::Error(error, description)) => Ok(format!("{error} {description}")),
                Err(page) => Err(page.status()),
            };
            assert_eq!(judged, result.map(str::to_owned), "{request}");
        }
    }

    #[tokio::test]
    async fn only_the_one_that_is_waited_for_is_let_in() {
        let loopback = Loopback::open().await.unwrap();
        let port = loopback.port;
        assert_eq!(loopback.redirect(), format!("http://localhost:{port}"));
        let state = Secret::new(STATE.to_owned());
        let browser = async {
            // Opened ahead of need, and never used, as browsers do.
            let _idle = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            assert!(talk(port, &get("/?code=a&state=wrong")).await.starts_with("HTTP/1.1 400 "));
            assert!(talk(port, &get("/favicon.ico")).await.starts_with("HTTP/1.1 404 "));
            let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(MOST_BYTES));
            assert!(talk(port, &long[..MOST_BYTES]).await.starts_with("HTTP/1.1 431 "));
            talk(port, &get("/?code=a&state=right")).await
        };
        let host = async {
            let visit = loopback.wait(&state, Duration::from_secs(60)).await.unwrap();
            assert!(matches!(&visit.brought, Brought::Code(code) if code.expose() == "a"));
            // Closed, though the browser still waits. A child of another test has it until it has become its program.
            let until = tokio::time::Instant::now() + Duration::from_secs(30);
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
                assert!(tokio::time::Instant::now() < until, "it is still open");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            visit.show(&page::another_sign_in()).await;
        };
        let (answer, ()) = tokio::join!(browser, host);
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\r\n\r\n<!DOCTYPE html>"), "{answer}");
    }

    #[tokio::test]
    async fn both_protocols_reach_it() {
        let loopback = Loopback::open().await.unwrap();
        if loopback.v6.is_some() {
            let port = loopback.port;
            let state = Secret::new(STATE.to_owned());
            let browser = async {
                let mut stream = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
                stream.write_all(get("/?error=access_denied&state=right").as_bytes()).await.unwrap();
                stream
            };
            let (_stream, visit) = tokio::join!(browser, loopback.wait(&state, Duration::from_secs(60)));
            assert!(matches!(visit.unwrap().brought, Brought::Error(error, _) if error == "access_denied"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let loopback = Loopback::open().await.unwrap();
        assert!(loopback.wait(&Secret::new(STATE.to_owned()), Duration::from_secs(600)).await.is_none());
    }
}
