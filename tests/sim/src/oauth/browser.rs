//! The part of the user's browser, over plain HTTP.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::http::encoded;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gets a page. Returns the head and the body of the answer, whatever its status.
///
/// # Errors
/// If there is no answer, or `url` is not `http://…`.
pub fn get(url: &str) -> io::Result<(String, String)> {
    request("GET", url, "")
}

/// Opens the sign-in page at `url`, presses its button, and returns the address to which that leads, without going
/// there.
///
/// # Errors
/// If there is no page with a form, or pressing its button leads nowhere.
pub fn press(url: &str) -> io::Result<String> {
    let (head, page) = get(url)?;
    if !head.starts_with("HTTP/1.1 200 ") || !page.contains("<form ") {
        return Err(io::Error::other(format!("no sign-in page: {page}")));
    }
    let value = |line: &str, name: &str| {
        let text = line.split_once(&format!(" {name}=\""))?.1.split_once('"')?.0;
        Some(text.replace("&lt;", "<").replace("&quot;", "\"").replace("&amp;", "&"))
    };
    let fields = page.lines().filter(|l| l.starts_with("<input ")).filter_map(|l| {
        let (name, value) = (value(l, "name")?, value(l, "value")?);
        Some(format!("{}={}", encoded(&name), encoded(&value)))
    });
    let form = fields.collect::<Vec<_>>().join("&");
    let (head, page) = request("POST", url.split_once('?').map_or(url, |(path, _)| path), &form)?;
    let location = head.lines().find_map(|l| l.strip_prefix("Location: "));
    location.map(ToOwned::to_owned).ok_or_else(|| io::Error::other(format!("no redirection: {page}")))
}

fn request(method: &str, url: &str, form: &str) -> io::Result<(String, String)> {
    let rest = url.strip_prefix("http://").ok_or_else(|| io::Error::other("only http:// can be opened here"))?;
    let split = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(split);
    let slash = if path.starts_with('/') { "" } else { "/" };
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = match method {
        "POST" => {
            format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}", form.len())
        }
        _ => "\r\n".to_owned(),
    };
    let text = format!("{method} {slash}{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{body}");
    stream.write_all(text.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no answer in HTTP"))?;
    Ok((head.to_owned(), body.to_owned()))
}
