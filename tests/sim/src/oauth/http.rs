//! As much of HTTP/1.1 as OAuth needs: one request per connection, read strictly.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::session::Stream;

/// The most bytes of a request.
const REQUEST: usize = 64 << 10;
const HEADERS: usize = 64;

/// A request as it was received. It holds secrets, which nobody has in a simulation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpRequest {
    /// `GET` or `POST`.
    pub method: String,
    /// The path without the query, as `/common/oauth2/v2.0/token`.
    pub path: String,
    /// The headers by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The fields of the query and of the form in the body.
    pub fields: BTreeMap<String, String>,
}

impl HttpRequest {
    /// Returns a field, or `""`.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Returns what a fault waits for: `token refresh_token`, `token authorization_code`, `token device_code`,
    /// `devicecode`, `authorize GET` or `authorize POST`.
    #[must_use]
    pub fn label(&self) -> String {
        let endpoint = self.path.rsplit('/').next().unwrap_or_default();
        match endpoint {
            "token" => format!("token {}", self.field("grant_type").rsplit(':').next().unwrap_or_default()),
            "authorize" => format!("authorize {}", self.method),
            other => other.to_owned(),
        }
    }
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(status: u16, body: String) -> Self {
        let kind = ("Content-Type", "application/json; charset=utf-8".to_owned());
        Self { status, headers: vec![kind, ("Cache-Control", "no-store, no-cache".to_owned())], body }
    }

    pub(crate) fn page(status: u16, body: &str) -> Self {
        let kind = ("Content-Type", "text/html; charset=utf-8".to_owned());
        let body = format!("<!DOCTYPE html>\n<html><body>\n{body}\n</body></html>\n");
        Self { status, headers: vec![kind, ("Cache-Control", "no-store, no-cache".to_owned())], body }
    }

    pub(crate) fn redirect(to: String) -> Self {
        Self { status: 302, headers: vec![("Location", to)], body: String::new() }
    }

    pub(crate) async fn send(&self, stream: &mut Box<dyn Stream>) -> std::io::Result<()> {
        let reason = match self.status {
            200 => "OK",
            302 => "Found",
            400 => "Bad Request",
            429 => "Too Many Requests",
            _ => "Error",
        };
        let mut head = format!("HTTP/1.1 {} {reason}\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", self.body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(self.body.as_bytes()).await?;
        stream.shutdown().await
    }
}

/// Reads a request.
///
/// # Errors
/// What is wrong with it; `None` if the connection ended before the first byte.
pub(crate) async fn read(stream: &mut Box<dyn Stream>) -> Result<HttpRequest, Option<String>> {
    let mut input = Vec::new();
    loop {
        match whole(&input) {
            Ok(Some(request)) => return Ok(request),
            Ok(None) if input.len() < REQUEST => {}
            Ok(None) => return Err(Some("a request that is too long".to_owned())),
            Err(reason) => return Err(Some(reason)),
        }
        match stream.read_buf(&mut input).await {
            Ok(0) | Err(_) if input.is_empty() => return Err(None),
            Ok(0) | Err(_) => return Err(Some("a request that ended early".to_owned())),
            Ok(_) => {}
        }
    }
}

/// Returns the request that begins with `input` if that is all of it.
fn whole(input: &[u8]) -> Result<Option<HttpRequest>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let status = parsed.parse(input).map_err(|e| format!("no HTTP: {e}"))?;
    let httparse::Status::Complete(start) = status else { return Ok(None) };
    let (method, target) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
    let mut headers = BTreeMap::new();
    for header in parsed.headers.iter() {
        let value = std::str::from_utf8(header.value).map_err(|_| "a header that is not UTF-8")?.to_owned();
        if headers.insert(header.name.to_ascii_lowercase(), value).is_some() {
            return Err(format!("two headers {}", header.name));
        }
    }
    if parsed.version != Some(1) || !headers.contains_key("host") {
        return Err("no HTTP/1.1 with a Host".to_owned());
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut fields = form(query)?;
    if method == "POST" {
        let length = headers.get("content-length").and_then(|l| l.parse().ok()).ok_or("POST without Content-Length")?;
        let kind = headers.get("content-type").map_or("", String::as_str);
        if !kind.starts_with("application/x-www-form-urlencoded") {
            return Err(format!("POST of {kind:?}, which is no form"));
        }
        let Some(body) = input[start..].get(..length) else { return Ok(None) };
        if input.len() > start + length {
            return Err("more than the body".to_owned());
        }
        let body = std::str::from_utf8(body).map_err(|_| "a body that is not UTF-8")?;
        for (name, value) in form(body)? {
            if fields.insert(name.clone(), value).is_some() {
                return Err(format!("two fields {name}"));
            }
        }
    } else if method != "GET" || input.len() > start {
        return Err(format!("{method} with {} bytes of a body", input.len() - start));
    }
    Ok(Some(HttpRequest { method: method.to_owned(), path: path.to_owned(), headers, fields }))
}

/// Reads `a=b&c=d`.
fn form(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut fields = BTreeMap::new();
    for pair in text.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("a field without a value: {pair}"))?;
        if fields.insert(decoded(name)?, decoded(value)?).is_some() {
            return Err(format!("two fields {name}"));
        }
    }
    Ok(fields)
}

fn decoded(text: &str) -> Result<String, String> {
    let (mut out, mut rest) = (Vec::new(), text.bytes());
    while let Some(b) = rest.next() {
        out.push(match b {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap_or(b' '), rest.next().unwrap_or(b' ')];
                let digits = std::str::from_utf8(&digits).map_err(|_| "a % that is none")?;
                u8::from_str_radix(digits, 16).map_err(|_| format!("a % that is none in {text}"))?
            }
            b if b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b) => b,
            _ => return Err(format!("a byte that must be escaped in {text}")),
        });
    }
    String::from_utf8(out).map_err(|_| "text that is not UTF-8".to_owned())
}

/// Escapes everything but letters, digits and `-._~`.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::new();
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out += &format!("%{b:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        let head = "POST /token?a=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        let text = format!("{head}Content-Length: 13\r\n\r\nb=%C3%A4+c&d=");
        assert_eq!(whole(&text.as_bytes()[..text.len() - 1]), Ok(None));
        let request = whole(text.as_bytes()).unwrap().unwrap();
        assert_eq!((request.field("a"), request.field("b"), request.field("d")), ("1", "ä c", ""));
        for bad in [
            "GET / HTTP/1.0\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET /?a=1&a=2 HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /?a=%zz HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "DELETE / HTTP/1.1\r\nHost: x\r\n\r\n",
            "\u{1}\r\n",
        ] {
            assert!(whole(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(decoded(&encoded("a b&=ä~")), Ok("a b&=ä~".to_owned()));
    }
}
