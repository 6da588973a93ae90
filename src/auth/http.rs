//! One request to an authorization server, and its answer. Blocks, but not for long.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use oauth2::http::HeaderMap;
use oauth2::http::header::{DATE, RETRY_AFTER};
use oauth2::{HttpRequest, HttpResponse};
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// All of a request and its answer has this long.
const LIMIT: Duration = Duration::from_secs(30);
/// An answer with tokens has a few kilobytes.
const MOST_BYTES: u64 = 1 << 20;
/// The cap keeps a slip of the server from silencing the account for days.
const MOST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Why there is no answer that says anything.
#[derive(thiserror::Error, Debug)]
pub(super) enum HttpError {
    /// The server cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The server asks to come back later, or is not well.
    #[error("it answered HTTP {status}{}{}", told(said), asked(pause))]
    Unwell {
        /// The status of the answer.
        status: u16,
        /// How long it asked to be left alone.
        pause: Option<Duration>,
        /// The error that it named.
        said: Option<String>,
    },
}

fn told(said: &Option<String>) -> String {
    said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default()
}

fn asked(pause: &Option<Duration>) -> String {
    pause.map(|pause| format!(" and asks to be left alone for {} seconds", pause.as_secs())).unwrap_or_default()
}

/// Sends requests to authorization servers. Follows no redirect: that would take a secret elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Http {
    agent: Agent,
    limit: Duration,
    /// By how many seconds the server's clock was ahead in its last answer, if it told; shared by all clones.
    clock_ahead: Arc<Mutex<Option<i64>>>,
}

impl Http {
    /// Makes a client that trusts the authorities of the system and those in `ca_file`.
    ///
    /// # Errors
    /// Why the file cannot be used.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        Self::with_limit(ca_file, LIMIT)
    }

    fn with_limit(ca_file: Option<&Path>, limit: Duration) -> Result<Self, String> {
        let roots = match ca_file {
            Some(path) => RootCerts::from(with_those_of_the_system(path)?),
            None => RootCerts::PlatformVerifier,
        };
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(roots).build())
            .timeout_global(Some(limit))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // Mail does not go through a proxy either.
            .proxy(None)
            .user_agent(concat!("postkeep/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: Agent::new_with_config(config), limit, clock_ahead: Arc::default() })
    }

    /// Sends a request and returns the answer, if it is one of OAuth: tokens, or an error that the server names.
    ///
    /// # Errors
    /// [`HttpError`] for everything else. Nothing of the request is in it.
    pub(super) fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let fault = |error: ureq::Error| HttpError::Unreachable(self.plain(&error));
        let answer = self.agent.run(request).map_err(fault)?;
        let (parts, body) = answer.into_parts();
        *self.clock_ahead.lock().unwrap_or_else(PoisonError::into_inner) = ahead(&parts.headers, Timestamp::now());
        let body = body.into_with_config().limit(MOST_BYTES).read_to_vec().map_err(fault)?;
        let status = parts.status.as_u16();
        let named = error_in(&body);
        let unwell = status == 429 || parts.status.is_server_error() || named.is_none();
        if !parts.status.is_success() && unwell {
            let pause = retry_after(&parts.headers, Timestamp::now());
            return Err(HttpError::Unwell { status, pause, said: named });
        }
        Ok(HttpResponse::from_parts(parts, body))
    }

    /// Returns by how many seconds the server's clock was ahead of ours in its last answer, if it told.
    pub(super) fn clock_ahead(&self) -> Option<i64> {
        *self.clock_ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what happened in words that hold neither the address nor a body.
    fn plain(&self, error: &ureq::Error) -> String {
        match error {
            ureq::Error::Timeout(_) => format!("no answer within {} seconds", self.limit.as_secs_f32()),
            ureq::Error::HostNotFound => "its name has no address".to_owned(),
            ureq::Error::BodyExceedsLimit(_) => "its answer is far too long".to_owned(),
            ureq::Error::Io(error) => error.to_string(),
            ureq::Error::NativeTls(error) => format!("no TLS connection that can be trusted: {error}"),
            _ => "its answer is no HTTP".to_owned(),
        }
    }
}

/// Returns the error that an answer names (RFC 6749 §5.2).
fn error_in(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(super::error::words(json.get("error")?.as_str()?, &[]))
}

/// Returns how long the server asks to be left alone (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(until.duration_since(now)).unwrap_or_default()
        }
    };
    Some(pause.min(MOST_PAUSE))
}

/// Returns by how many seconds the server's clock is ahead (RFC 9110 §6.6.1), to about the time that the answer took.
fn ahead(headers: &HeaderMap, now: Timestamp) -> Option<i64> {
    let there = jiff::fmt::rfc2822::parse(headers.get(DATE)?.to_str().ok()?.trim()).ok()?.timestamp();
    Some(there.as_second().saturating_sub(now.as_second()))
}

fn with_those_of_the_system(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = std::fs::read(path).map_err(|error| format!("could not read tls_ca_file {}: {error}", path.display()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(format!("could not read tls_ca_file {}: {error}", path.display())),
        }
    }
    if certificates.is_empty() {
        return Err(format!("tls_ca_file {} holds no PEM certificate", path.display()));
    }
    // What cannot be read of the system's is missed only by a server that needs it, which then is not trusted.
    let system = rustls_native_certs::load_native_certs().certs;
    certificates.extend(system.iter().map(|der| Certificate::from_der(der).to_owned()));
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oauth2::http::HeaderValue;

    #[test]
    fn a_pause_is_understood_and_capped() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let rows = [
            ("120", Some(120)),
            ("Thu, 01 Jan 2026 00:02:00 GMT", Some(120)),
            ("Wed, 31 Dec 2025 23:00:00 GMT", Some(0)),
            ("99999999", Some(3600)),
            ("soon", None),
            ("-1", None),
        ];
        for (text, seconds) in rows {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn the_clock_of_the_server_is_read() {
        let now = "2026-11-25T10:00:00Z".parse().unwrap();
        let rows = [
            ("Wed, 25 Nov 2026 10:00:07 GMT", Some(7)),
            ("Wed, 25 Nov 2026 09:00:00 GMT", Some(-3600)),
            ("yesterday", None),
        ];
        for (text, seconds) in rows {
            let headers = HeaderMap::from_iter([(DATE, text.parse().unwrap())]);
            assert_eq!(ahead(&headers, now), seconds, "{text}");
        }
        assert_eq!(ahead(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_server_that_says_nothing_is_given_up() {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let request = oauth2::http::Request::post(url).body(b"hunter2".to_vec()).unwrap();
        let http = Http::with_limit(None, Duration::from_millis(50)).unwrap();
        assert_eq!(http.call(request).unwrap_err().to_string(), "no answer within 0.05 seconds");
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(Http::new(Some(&path)).unwrap_err().contains("could not read tls_ca_file"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(Http::new(Some(&path)).unwrap_err().contains("holds no PEM certificate"));
        Http::new(None).unwrap();
    }
}
