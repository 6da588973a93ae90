//! A tiny IMAP client over a raw socket, so that the client under test is not its own witness.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A message as it is compared between two sides.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mail {
    /// Its content as served.
    pub bytes: Vec<u8>,
    /// The IMAP names of its flags; keywords in lower case, since they have no case.
    pub flags: BTreeSet<String>,
    /// INTERNALDATE in seconds since 1970.
    pub date: i64,
}

/// Returns the flags that `names` are, spelled so that they can be compared. `\Recent` is not one.
pub fn flags<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let names = names.into_iter().filter(|n| !n.eq_ignore_ascii_case("\\Recent"));
    names.map(|n| if n.starts_with('\\') { n.to_owned() } else { n.to_ascii_lowercase() }).collect()
}

/// A logged-in connection. Everything unexpected panics.
pub struct Reader {
    stream: BufReader<TcpStream>,
    commands: u32,
}

impl Reader {
    /// Logs in, if the server answers and lets us in.
    pub fn login(port: u16, user: &str, password: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        let mut reader = Self { stream: BufReader::new(stream), commands: 0 };
        let greeting = reader.response()?;
        let (_, status) = reader.command(&format!("LOGIN {user} {password}"))?;
        let good = greeting.starts_with(b"* OK") && status.starts_with("OK");
        if good { Ok(reader) } else { Err(std::io::Error::other(status)) }
    }

    /// Sends a command; returns the untagged responses, literals in place, and what follows the tag.
    pub fn command(&mut self, text: &str) -> std::io::Result<(Vec<Vec<u8>>, String)> {
        self.commands += 1;
        let tag = format!("r{} ", self.commands);
        self.stream.get_mut().write_all(format!("{tag}{text}\r\n").as_bytes())?;
        let mut untagged = Vec::new();
        loop {
            let response = self.response()?;
            match response.strip_prefix(tag.as_bytes()) {
                Some(status) => return Ok((untagged, String::from_utf8_lossy(status).trim_end().to_owned())),
                None => untagged.push(response),
            }
        }
    }

    /// Sends a command that must succeed; returns the untagged responses.
    #[track_caller]
    pub fn ok(&mut self, text: &str) -> Vec<Vec<u8>> {
        let (untagged, status) = self.command(text).unwrap();
        assert!(status.starts_with("OK"), "{text}: {status}");
        untagged
    }

    /// Appends a message; `date` as in `01-Jan-2024 00:00:00 +0000`.
    #[track_caller]
    pub fn append(&mut self, mailbox: &str, flags: &str, date: &str, bytes: &[u8]) {
        // Without LITERAL+: the continuation is one more untagged response.
        let head = format!("a APPEND \"{mailbox}\" ({flags}) \"{date}\" {{{}}}\r\n", bytes.len());
        self.stream.get_mut().write_all(head.as_bytes()).unwrap();
        assert!(self.response().unwrap().starts_with(b"+"));
        self.stream.get_mut().write_all(&[bytes, b"\r\n"].concat()).unwrap();
        loop {
            let response = self.response().unwrap();
            if response.starts_with(b"a ") {
                assert!(response.starts_with(b"a OK"), "{}", String::from_utf8_lossy(&response));
                return;
            }
        }
    }

    /// Returns the names of the mailboxes that can be selected, as sent.
    pub fn mailboxes(&mut self) -> Vec<String> {
        let lines = self.ok("LIST \"\" *");
        let lines = lines.iter().map(|l| String::from_utf8_lossy(l).trim_end().to_owned());
        let name = |line: String| {
            let (attributes, rest) = line.strip_prefix("* LIST (")?.split_once(") ")?;
            let (_, name) = rest.split_once(' ')?;
            let plain = name.strip_prefix('"').and_then(|n| n.strip_suffix('"')).unwrap_or(name);
            (!attributes.contains("\\Noselect")).then(|| plain.replace("\\\"", "\"").replace("\\\\", "\\"))
        };
        lines.filter_map(name).collect()
    }

    /// Returns the messages of a mailbox with their UIDs.
    #[track_caller]
    pub fn mails(&mut self, mailbox: &str) -> Vec<(u32, Mail)> {
        self.ok(&format!("EXAMINE \"{mailbox}\""));
        let lines = self.ok("UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])");
        lines.iter().filter_map(|line| mail(line)).collect()
    }

    /// Reads a response with its literals.
    fn response(&mut self) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            let start = out.len();
            self.stream.read_until(b'\n', &mut out)?;
            let line = out[start..].strip_suffix(b"\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
            let Some((size, _)) = postkeep_sim::literal(line) else { return Ok(out) };
            let body = out.len();
            out.resize(body + size, 0);
            self.stream.read_exact(&mut out[body..])?;
        }
    }
}

/// Reads `* n FETCH (UID n FLAGS (...) INTERNALDATE "..." BODY[] {n}...)`, in any order but with the body last.
fn mail(line: &[u8]) -> Option<(u32, Mail)> {
    let end = line.windows(2).position(|w| w == b"\r\n")?;
    let head = std::str::from_utf8(&line[..end]).ok().filter(|h| h.contains(" FETCH ("))?;
    let (size, _) = postkeep_sim::literal(head.as_bytes())?;
    let after = |name: &str| head.split_once(name).map(|(_, tail)| tail);
    let uid = after("UID ")?.split([' ', ')']).next()?.parse().ok()?;
    let names = after("FLAGS (")?.split(')').next()?.split(' ').filter(|n| !n.is_empty());
    let date = after("INTERNALDATE \"")?.split('"').next()?.trim_start();
    let date = jiff::fmt::strtime::parse("%d-%b-%Y %H:%M:%S %z", date).ok()?.to_timestamp().ok()?.as_second();
    Some((uid, Mail { bytes: line.get(end + 2..end + 2 + size)?.to_vec(), flags: flags(names), date }))
}

#[test]
fn it_reads_what_the_simulation_keeps() {
    let server = postkeep_sim::Server::spawn(postkeep_sim::Profile::Bare).unwrap();
    server.state().append("INBOX", b"a\r\n{3}\r\n", &["\\Seen", "Work"], 951_782_400);
    server.state().create("a \"b\"");
    let mut reader = Reader::login(server.port(), "user", "secret").unwrap();
    reader.append("INBOX", "\\Flagged", "01-Jan-1970 00:00:05 +0000", b"b");
    let mails = reader.mails("INBOX");
    let mail = |bytes: &[u8], names: &[&str], date| Mail { bytes: bytes.into(), flags: flags(names.to_vec()), date };
    let first = mail(b"a\r\n{3}\r\n", &["\\Seen", "work"], 951_782_400);
    assert_eq!(mails, [(1, first), (2, mail(b"b", &["\\Flagged"], 5))]);
    assert_eq!(reader.mailboxes(), ["INBOX", "a \"b\""]);
    assert_eq!(server.violations(), Vec::<String>::new());
}
