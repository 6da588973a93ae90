//! Transcripts: what the session makes of a server's bytes, whole and cut into single ones.

mod failures;
mod transcripts;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::sign_in::sign_in;
use super::*;
use crate::model::{Flags, Secret, Uid, UidSet};

/// What a server does: for each command that begins so, it sends this. `%` stands for the tag. A line that begins with
/// `>` is no command but what follows a literal or a challenge. What it says last may be without a command.
type Script<'a> = [(&'a str, &'a [u8])];

/// All that the session makes use of.
const FULL: &str = "IMAP4rev1 LITERAL+ ENABLE ID NAMESPACE QRESYNC CONDSTORE ESEARCH UIDPLUS MOVE MULTIAPPEND UNSELECT \
                    IDLE LIST-EXTENDED LIST-STATUS SPECIAL-USE";
/// What every server has.
const BARE: &str = "IMAP4rev1";

/// A mailbox of three messages.
const SELECT: (&str, &[u8]) = (
    "SELECT \"INBOX\"",
    b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 10] x\r\n\
      * OK [PERMANENTFLAGS (\\Seen \\*)] x\r\n% OK [READ-WRITE] done\r\n",
);

fn connect() -> Connect {
    Connect {
        host: "test".into(),
        other_hosts: vec![],
        port: 0,
        tls: Tls::None,
        spool_dir: std::env::temp_dir(),
        max_literal: 1 << 20,
        timeout: Duration::from_secs(90),
        connect_timeout: Duration::from_secs(30),
        quirks: Quirks::default(),
        route: Route::default(),
    }
}

fn password() -> Credentials {
    Credentials::Password { username: "u".into(), password: Secret::new("canary".into()) }
}

/// A server that follows a script and then ends the connection; in the end the number of lines that it used up.
struct Server {
    stream: DuplexStream,
    chunk: usize,
}

impl Server {
    async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.stream.read_u8().await.ok()?);
        }
        Some(String::from_utf8_lossy(&line[..line.len() - 2]).into_owned())
    }

    async fn say(&mut self, tag: &str, bytes: &[u8]) {
        let text = bytes.split(|b| *b == b'%').collect::<Vec<_>>().join(tag.as_bytes());
        for chunk in text.chunks(self.chunk) {
            // The client may have given up already.
            if self.stream.write_all(chunk).await.is_err() {
                return;
            }
            if self.chunk == 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn follow(mut self, greeting: String, script: Vec<(String, Vec<u8>)>) -> usize {
        self.say("", greeting.as_bytes()).await;
        let (mut tag, mut used) = (String::new(), 0);
        while let Some((expected, answer)) = script.get(used) {
            let Some(line) = self.line().await else { break };
            let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match expected.strip_prefix('>') {
                Some(literal) => assert!(line.starts_with(literal), "expected {literal:?}, got {line:?}"),
                None => {
                    first.clone_into(&mut tag);
                    assert!(rest.starts_with(expected), "expected {expected:?}, got {line:?}");
                }
            }
            self.say(&tag.clone(), answer).await;
            used += 1;
        }
        used
    }
}

/// Starts a server; its end tells how much of the script was used.
fn serve(greeting: &str, script: &Script<'_>, chunk: usize) -> (DuplexStream, JoinHandle<usize>) {
    // Single bytes also go through a pipe that is nearly always full, in both directions.
    let (near, far) = tokio::io::duplex(if chunk == 1 { 16 } else { 1 << 20 });
    let script = script.iter().map(|(c, a)| ((*c).to_owned(), a.to_vec())).collect();
    let server = Server { stream: far, chunk };
    (near, tokio::spawn(server.follow(greeting.to_owned(), script)))
}

/// The lines of a sign-in with a password, before the script proper.
fn introduction(capabilities: &str) -> Vec<(String, Vec<u8>)> {
    let mut lines = vec![(
        "AUTHENTICATE PLAIN AHUAY2FuYXJ5".to_owned(),
        format!("% OK [CAPABILITY {capabilities}] in\r\n").into_bytes(),
    )];
    let has = |name: &str| capabilities.split(' ').any(|c| c == name);
    if has("ENABLE") {
        lines.push(("ENABLE QRESYNC".into(), b"* ENABLED QRESYNC\r\n% OK x\r\n".to_vec()));
    }
    if has("ID") {
        lines.push(("ID (\"name\" \"postkeep\"".into(), b"* ID NIL\r\n% OK x\r\n".to_vec()));
    }
    if has("NAMESPACE") {
        lines
            .push(("NAMESPACE".into(), b"* NAMESPACE ((\"\" \"/\")) NIL ((\"Shared/\" \"/\"))\r\n% OK x\r\n".to_vec()));
    } else {
        lines.push(("LIST \"\" \"\"".into(), b"* LIST (\\Noselect) \"/\" \"\"\r\n% OK x\r\n".to_vec()));
    }
    lines
}

/// Runs a signed-in session against a script, with its bytes whole or single, and checks that all of it was used.
async fn play_in<T>(
    capabilities: &str,
    script: &Script<'_>,
    chunk: usize,
    run: impl AsyncFnOnce(&mut Session) -> T,
) -> T {
    let head = introduction(capabilities);
    let head = head.iter().map(|(c, a)| (c.as_str(), a.as_slice()));
    let script: Vec<(&str, &[u8])> = head.chain(script.iter().copied()).collect();
    let greeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hello\r\n";
    let (stream, server) = serve(greeting, &script, chunk);
    let mut session = sign_in(Box::new(stream), &connect(), &password()).await.unwrap();
    let result = run(&mut session).await;
    drop(session);
    assert_eq!(server.await.unwrap(), script.len(), "the script was not used up");
    result
}

/// Runs a session against a script twice: bytes whole and single. Both must come to the same.
async fn play<T: std::fmt::Debug>(capabilities: &str, script: &Script<'_>, run: impl AsyncFn(&mut Session) -> T) -> T {
    let whole = play_in(capabilities, script, usize::MAX, &run).await;
    let single = play_in(capabilities, script, 1, &run).await;
    assert_eq!(format!("{whole:?}"), format!("{single:?}"));
    whole
}

fn inbox() -> RawName {
    RawName::new(b"INBOX")
}

fn uid(n: u64) -> Uid {
    Uid::new(n).unwrap()
}

fn set(uids: &[u64]) -> UidSet {
    uids.iter().map(|n| uid(*n)).collect()
}

fn flags(names: &[&str]) -> Flags {
    let mut flags = Flags::new();
    assert!(names.iter().all(|n| flags.insert_imap(n)));
    flags
}

fn outgoing(body: &[u8], names: &[&str]) -> Outgoing {
    Outgoing {
        flags: flags(names),
        internal_date: 0,
        length: body.len() as u64,
        content: Box::new(std::io::Cursor::new(body.to_vec())),
    }
}

/// Collects the bodies: UID, flags, date, and the bytes or nothing.
async fn bodies(session: &mut Session, uids: &UidSet) -> (Result<(), Error>, Vec<(Uid, String, i64, Option<String>)>) {
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let collect = async {
        let mut all = Vec::new();
        while let Some(Fetched { uid, flags, internal_date, body }) = receive.recv().await {
            let body = match body {
                Body::Memory(bytes) => Some(bytes.escape_ascii().to_string()),
                Body::File(_, length) => Some(format!("file of {length}")),
                Body::Nothing => None,
            };
            all.push((uid, flags.to_string(), internal_date, body));
        }
        all
    };
    tokio::join!(session.bodies(uids, send), collect)
}

/// Returns how much processor time this thread has used, which does not depend on who else is busy.
pub(super) fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// A session and each of its futures may be moved between threads.
const _: fn(&mut Session, tokio::sync::mpsc::Sender<Fetched>) = |s, out| {
    fn movable<T: Send>(_: T) {}
    let (change, uids) = (crate::model::FlagChange::default(), UidSet::default());
    movable(Session::open(&connect(), &password()));
    movable(s.list());
    movable(s.observe(&inbox(), None, false));
    movable(s.bodies(&uids, out));
    movable(s.fingerprints(&uids));
    movable(s.store(&uids, &change, None));
    movable(s.append(&inbox(), Vec::new()));
    movable(s.move_to(&uids, &inbox()));
    movable(s.expunge(&uids));
    movable(s.idle(async {}, Duration::ZERO, |_| ()));
};
