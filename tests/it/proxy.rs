//! Stands between a client and a real server: logs commands, hides capabilities, makes replies fail.
//!
//! It works on lines and literals of plain connections; one thread for each direction.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use postkeep_sim::{Command, Share, When, literal};

/// What happens to a command or its reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// FETCH lines without a body are left out, and OK is said.
    DropFetch(Share),
    /// The server carries the command out; the tagged reply is swallowed and the connection closed.
    Swallow,
    /// The command never reaches the server; the connection stays open.
    Stall,
}

#[derive(Default)]
struct Inner {
    armed: Vec<(String, When, u32, Fault)>,
    fired: Vec<String>,
    /// The bytes that may still go to clients before a connection is cut.
    budget: Option<u64>,
    commands: Vec<Command>,
    refused: Vec<String>,
    connections: u32,
    /// The connections that are open by their numbers: to the client, to the server.
    streams: BTreeMap<u32, [TcpStream; 2]>,
    stopped: bool,
}

struct Shared {
    upstream: u16,
    hidden: Vec<&'static str>,
    inner: Mutex<Inner>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A running proxy; it ends with its connections when it is dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy to a port on 127.0.0.1. What belongs to the capabilities `hidden` (of QRESYNC, CONDSTORE,
    /// UIDPLUS, MOVE) is answered with BAD, and taken out of replies.
    pub fn start(upstream: u16, hidden: &[&'static str]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { upstream, hidden: hidden.to_vec(), inner: Mutex::default() });
        let thread = {
            let shared = shared.clone();
            std::thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    if shared.lock().stopped {
                        return;
                    }
                    connect(&shared, client);
                }
            })
        };
        Self { port, shared, thread: Some(thread) }
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes `fault` happen at a command that fits `pattern` by its first line ([`Command::fits`]).
    pub fn inject(&self, pattern: &str, when: When, fault: Fault) {
        self.shared.lock().armed.push((pattern.to_owned(), when, 0, fault));
    }

    /// Cuts the connection over which the byte after the next `bytes` would go to a client. Fires as `cut`.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.lock().budget = Some(bytes);
    }

    /// Resets all connections, as a router does that has forgotten them (RST). Fires as `reset`, if there are any.
    pub fn reset(&self) {
        let mut inner = self.shared.lock();
        let streams = std::mem::take(&mut inner.streams);
        if !streams.is_empty() {
            inner.fired.push("reset".to_owned());
        }
        for [client, server] in streams.into_values() {
            // The last one to close it makes it end so; reading ends at once, and with it whoever reads.
            let _ = rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO));
            let _ = (client.shutdown(Shutdown::Read), server.shutdown(Shutdown::Both));
        }
    }

    /// Returns how many connections are open.
    pub fn open(&self) -> usize {
        self.shared.lock().streams.len()
    }

    /// Takes back the faults that still wait.
    pub fn calm(&self) {
        let mut inner = self.shared.lock();
        inner.armed.clear();
        inner.budget = None;
    }

    /// Returns the faults that had an effect, in order.
    pub fn fired(&self) -> Vec<String> {
        self.shared.lock().fired.clone()
    }

    /// Returns the commands received, in order.
    pub fn commands(&self) -> Vec<Command> {
        self.shared.lock().commands.clone()
    }

    /// Returns the commands that were answered with BAD because what they need is hidden.
    pub fn refused(&self) -> Vec<String> {
        self.shared.lock().refused.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut inner = self.shared.lock();
            inner.stopped = true;
            inner.streams.values().flatten().for_each(|s| drop(s.shutdown(Shutdown::Both)));
        }
        // The last connection only wakes the thread that accepts.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the two directions of a connection share: the commands that wait for their tagged reply.
type Pending = Arc<Mutex<BTreeMap<Vec<u8>, (String, Option<Fault>)>>>;

fn connect(shared: &Arc<Shared>, client: TcpStream) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.upstream)) else { return };
    // A command goes out in several writes, none of which is to wait for an acknowledgement.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let number = {
        let mut inner = shared.lock();
        inner.connections += 1;
        let number = inner.connections;
        let (Ok(to_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
        inner.streams.insert(number, [to_client, to_server]);
        number
    };
    let pending = Pending::default();
    let (Ok(client_in), Ok(server_in)) = (client.try_clone(), server.try_clone()) else { return };
    let up = Up { shared: shared.clone(), pending: pending.clone(), number, client: client_in, server };
    let down = Down { shared: shared.clone(), pending, client, held: Vec::new() };
    let shared = shared.clone();
    std::thread::spawn(move || {
        let _ = up.run();
    });
    std::thread::spawn(move || {
        let _ = down.run(server_in);
        // Those that were reset are not there any more.
        let open = shared.lock().streams.remove(&number);
        open.iter().flatten().for_each(|s| drop(s.shutdown(Shutdown::Both)));
    });
}

/// Client to server.
struct Up {
    shared: Arc<Shared>,
    pending: Pending,
    number: u32,
    client: TcpStream,
    server: TcpStream,
}

impl Up {
    fn run(mut self) -> io::Result<()> {
        let mut reader = BufReader::new(self.client.try_clone()?);
        // The command so far, with its literals.
        let mut input = Vec::new();
        loop {
            let start = input.len();
            if reader.read_until(b'\n', &mut input)? == 0 {
                return self.server.shutdown(Shutdown::Write);
            }
            let line = input[start..].to_vec();
            let size = line.strip_suffix(b"\r\n").and_then(literal);
            let (tag, rest) = split(&input);
            let (tag, command) = (tag.to_vec(), Command::read(self.number, rest.trim_ascii_end()));
            if let Some(word) = hidden_word(&command, &self.shared.hidden) {
                self.shared.lock().refused.push(format!("{command}: {word} is not announced"));
                let text = format!("{} BAD {word} is not announced\r\n", String::from_utf8_lossy(&tag));
                self.client.write_all(text.as_bytes())?;
                if let Some((size, false)) = size {
                    io::copy(&mut (&mut reader).take(size as u64), &mut io::sink())?;
                    reader.read_until(b'\n', &mut Vec::new())?;
                }
                input.clear();
                continue;
            }
            if start == 0 && !rest.is_empty() && self.begins(tag, &command) == Some(Fault::Stall) {
                let stalled = io::copy(&mut reader, &mut io::sink());
                self.server.shutdown(Shutdown::Both)?;
                return stalled.map(|_| ());
            }
            self.server.write_all(&line)?;
            match size {
                Some((size, _)) => {
                    let body = input.len();
                    input.resize(body + size, 0);
                    reader.read_exact(&mut input[body..])?;
                    self.server.write_all(&input[body..])?;
                }
                None => {
                    // Not DONE and not a SASL response.
                    if !rest_is_empty(&input) {
                        self.shared.lock().commands.push(command);
                    }
                    input.clear();
                }
            }
        }
    }

    /// Notes a command that has begun; returns the fault that is due at it.
    fn begins(&self, tag: Vec<u8>, command: &Command) -> Option<Fault> {
        let mut inner = self.shared.lock();
        let mut due = None;
        inner.armed.retain_mut(|(pattern, when, seen, fault)| {
            let fits = command.fits(pattern);
            *seen += u32::from(fits);
            let now = fits && due.is_none() && (*when == When::Every || *when == When::Nth(*seen));
            if now {
                due = Some(*fault);
            }
            *when == When::Every || !now
        });
        if due == Some(Fault::Stall) {
            inner.fired.push(format!("{} stall", command.name));
        }
        self.pending.lock().unwrap_or_else(|e| e.into_inner()).insert(tag, (command.name.clone(), due));
        due
    }
}

/// Server to client.
struct Down {
    shared: Arc<Shared>,
    pending: Pending,
    client: TcpStream,
    /// FETCH lines of a listing of which a share is to be dropped.
    held: Vec<Vec<u8>>,
}

impl Down {
    fn run(mut self, server: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(server);
        while let Some(response) = read_response(&mut reader)? {
            let (tag, _) = split(&response);
            let done = self.pending.lock().unwrap_or_else(|e| e.into_inner()).remove(tag);
            let Some((name, fault)) = done else {
                let lists =
                    response.starts_with(b"* ") && contains(&response, b" FETCH (") && !contains(&response, b"}\r\n");
                if lists && self.drops() {
                    self.held.push(response);
                } else {
                    self.forward(&response)?;
                }
                continue;
            };
            match fault {
                Some(Fault::Swallow) => {
                    self.shared.lock().fired.push(format!("{name} swallow"));
                    return Ok(());
                }
                Some(Fault::DropFetch(share)) => {
                    let held = std::mem::take(&mut self.held);
                    let count = held.len();
                    if (0..count).any(|i| share.includes(i, count)) {
                        self.shared.lock().fired.push(format!("{name} drop-fetch"));
                    }
                    for (_, line) in held.iter().enumerate().filter(|(i, _)| !share.includes(*i, count)) {
                        self.forward(line)?;
                    }
                }
                Some(Fault::Stall) | None => {}
            }
            self.forward(&response)?;
        }
        Ok(())
    }

    fn drops(&self) -> bool {
        let pending = self.pending.lock().unwrap_or_else(|e| e.into_inner());
        pending.values().any(|(_, fault)| matches!(fault, Some(Fault::DropFetch(_))))
    }

    /// Sends a response as far as it is not hidden and the connection is not to be cut in it.
    fn forward(&mut self, response: &[u8]) -> io::Result<()> {
        let shown = shown(response, &self.shared.hidden);
        let allowed = {
            let mut inner = self.shared.lock();
            match inner.budget {
                Some(budget) if budget < shown.len() as u64 => {
                    inner.budget = None;
                    inner.fired.push("cut".to_owned());
                    budget as usize
                }
                Some(ref mut budget) => {
                    *budget -= shown.len() as u64;
                    shown.len()
                }
                None => shown.len(),
            }
        };
        self.client.write_all(&shown[..allowed])?;
        if allowed < shown.len() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

/// Returns the first word of a command that belongs to a hidden capability.
fn hidden_word(command: &Command, hidden: &[&str]) -> Option<String> {
    let quoted_out: String = command.args.split('"').step_by(2).collect();
    let words = quoted_out.to_ascii_uppercase();
    let has = |w: &&&str| words.split([' ', '(', ')']).any(|x| x == **w);
    let of = |capability: &str| -> &[&str] {
        match capability {
            "QRESYNC" => &["QRESYNC", "VANISHED"],
            "CONDSTORE" => &["CONDSTORE", "CHANGEDSINCE", "UNCHANGEDSINCE", "MODSEQ", "HIGHESTMODSEQ"],
            _ => &[],
        }
    };
    let by_name = match command.name.as_str() {
        "UID EXPUNGE" => "UIDPLUS",
        "UID MOVE" | "MOVE" => "MOVE",
        _ => "",
    };
    hidden.iter().find_map(|c| {
        if *c == by_name { Some((*c).to_owned()) } else { of(c).iter().find(has).map(|w| (*w).to_owned()) }
    })
}

/// Returns a response without what belongs to hidden capabilities; nothing of some untagged lines is left.
fn shown(response: &[u8], hidden: &[&str]) -> Vec<u8> {
    if !hidden.is_empty() && contains(response, b"CAPABILITY IMAP4") {
        let text = String::from_utf8_lossy(response);
        return hidden.iter().fold(text.into_owned(), |t, word| t.replace(&format!(" {word}"), "")).into_bytes();
    }
    let mut codes = Vec::new();
    if hidden.contains(&"CONDSTORE") {
        codes.extend(["HIGHESTMODSEQ", "NOMODSEQ"]);
    }
    if hidden.contains(&"UIDPLUS") {
        codes.extend(["APPENDUID", "COPYUID"]);
    }
    for code in codes {
        let open = format!("[{code}");
        let line = response.split(|&b| b == b'\n').next().unwrap_or_default();
        let Some(at) = line.windows(open.len()).position(|w| w == open.as_bytes()) else { continue };
        if response.starts_with(b"*") {
            return Vec::new();
        }
        let end = line[at..].iter().position(|&b| b == b']').map_or(line.len(), |i| at + i + 1);
        return [&response[..at], response[end..].trim_ascii_start()].concat();
    }
    response.to_vec()
}

/// Reads a response with its literals, or `None` at the end.
fn read_response(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    loop {
        let start = out.len();
        reader.read_until(b'\n', &mut out)?;
        if !out[start..].ends_with(b"\n") {
            return Ok(None);
        }
        let Some((size, _)) = out[start..].strip_suffix(b"\r\n").and_then(literal) else { return Ok(Some(out)) };
        let body = out.len();
        out.resize(body + size, 0);
        reader.read_exact(&mut out[body..])?;
    }
}

fn split(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|&b| b == b' ') {
        Some(space) => (&input[..space], &input[space + 1..]),
        None => (&[], &[]),
    }
}

fn rest_is_empty(input: &[u8]) -> bool {
    split(input).1.is_empty()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|w| w == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Reader;
    use postkeep_sim::{Profile, Server};

    fn server() -> Server {
        let server = Server::spawn(Profile::Full).unwrap();
        for text in [b"a", b"b", b"c"] {
            server.state().append("INBOX", text, &[], 0);
        }
        server
    }

    fn login(proxy: &Proxy) -> Reader {
        Reader::login(proxy.port(), "user", "secret").unwrap()
    }

    #[test]
    fn it_passes_on_and_logs() {
        let server = server();
        let proxy = Proxy::start(server.port(), &[]);
        let mut reader = login(&proxy);
        reader.append("INBOX", "", "01-Jan-1970 00:00:00 +0000", b"x y\r\nz");
        assert_eq!(reader.mails("INBOX").len(), 4);
        let names: Vec<String> = proxy.commands().into_iter().map(|c| c.to_string()).collect();
        assert_eq!(names[1], "APPEND \"INBOX\" () \"01-Jan-1970 00:00:00 +0000\" {6}");
        assert_eq!(proxy.commands(), server.commands());
    }

    #[test]
    fn lines_are_dropped() {
        let server = server();
        let proxy = Proxy::start(server.port(), &[]);
        let mut reader = login(&proxy);
        reader.ok("SELECT INBOX");
        for (share, left) in [(Share::All, 0), (Share::EverySecond, 2), (Share::FirstHalf, 1)] {
            proxy.inject("UID FETCH", When::Nth(1), Fault::DropFetch(share));
            assert_eq!(reader.ok("UID FETCH 1:* FLAGS").len(), left);
        }
        assert_eq!(reader.ok("UID FETCH 1:* FLAGS").len(), 3);
        assert_eq!(proxy.fired(), ["UID FETCH drop-fetch"; 3]);
    }

    #[test]
    fn connections_are_cut_and_stalled() {
        let server = server();
        let proxy = Proxy::start(server.port(), &[]);
        proxy.inject("CREATE", When::Nth(2), Fault::Swallow);
        let mut reader = login(&proxy);
        reader.ok("CREATE one");
        assert!(reader.command("CREATE two").is_err());
        assert!(server.state().mailboxes.contains_key("two"));
        let mut reader = login(&proxy);
        proxy.cut_after(5);
        assert!(reader.command("NOOP").is_err());
        let mut reader = login(&proxy);
        proxy.inject("NOOP", When::Nth(1), Fault::Stall);
        let fired = || proxy.fired().len() == 3;
        let waiting = std::thread::spawn(move || reader.command("NOOP").is_err());
        while !fired() {
            std::thread::yield_now();
        }
        assert!(!waiting.is_finished());
        assert_eq!(proxy.fired(), ["CREATE swallow", "cut", "NOOP stall"]);
        drop(proxy);
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn connections_are_reset_and_forgotten_when_they_end() {
        let server = server();
        let proxy = Proxy::start(server.port(), &[]);
        let mut reader = login(&proxy);
        reader.ok("NOOP");
        assert_eq!(proxy.open(), 1);
        proxy.reset();
        let error = (0..).find_map(|_| reader.command("NOOP").err()).unwrap();
        assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{error}");
        assert_eq!(proxy.fired(), ["reset"]);
        drop(login(&proxy));
        while proxy.open() > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn hidden_capabilities_are_refused_and_stripped() {
        let server = server();
        let proxy = Proxy::start(server.port(), &["QRESYNC", "CONDSTORE", "UIDPLUS", "MOVE"]);
        let mut reader = login(&proxy);
        let capability = reader.ok("CAPABILITY");
        assert!(!["QRESYNC", "CONDSTORE", "UIDPLUS", "MOVE"].iter().any(|c| contains(&capability[0], c.as_bytes())));
        let select = reader.ok("SELECT INBOX");
        assert!(!select.iter().any(|l| contains(l, b"MODSEQ")), "{select:?}");
        let (_, status) = reader.command("UID COPY 1 INBOX").unwrap();
        assert_eq!(status, "OK done");
        let refused = [
            "UID FETCH 1 MODSEQ",
            "SELECT INBOX (CONDSTORE)",
            "UID FETCH 1 FLAGS (CHANGEDSINCE 1)",
            "UID STORE 1 (UNCHANGEDSINCE 1) +FLAGS (a)",
            "STATUS INBOX (HIGHESTMODSEQ)",
            "ENABLE QRESYNC",
            "UID MOVE 1 INBOX",
            "UID EXPUNGE 1",
        ];
        for command in refused {
            assert!(reader.command(command).unwrap().1.starts_with("BAD"), "{command}");
        }
        assert_eq!(proxy.refused().len(), refused.len());
        reader.ok("STATUS \"INBOX\" (MESSAGES)");
        assert_eq!(server.violations(), Vec::<String>::new());
    }
}
