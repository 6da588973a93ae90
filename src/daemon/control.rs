//! The control socket: one JSON line asks, one answers, as often as the connection lasts. Only the user can reach it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::live::Live;
use crate::engine::report::{Approved, Report};

/// What the daemon can be asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What it is doing.
    Status,
    /// A complete pass over an account.
    Sync {
        /// The account.
        account: String,
        /// Patterns of the mailboxes to look at; none means all.
        mailboxes: Vec<String>,
        /// List everything.
        full: bool,
        /// Only say what would be done.
        dry_run: bool,
    },
    /// To let go what is held, or put it back.
    Approve {
        /// The account.
        account: String,
        /// The mailbox; none means every one.
        mailbox: Option<String>,
        /// Put it back.
        undo: bool,
    },
}

/// What it answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// What it is doing.
    Status(Live),
    /// What became of the pass.
    Report(Report),
    /// What became of what was held.
    Approved {
        /// The mailboxes in which something was held.
        mailboxes: Vec<Approved>,
    },
    /// It does not have this account.
    NotMine,
    /// It could not do it.
    Failed {
        /// Why: a sentence.
        text: String,
    },
}

/// A line is no longer than this; a report of very many mailboxes is the longest.
const LONGEST: u64 = 64 << 20;

/// The socket, which is there for as long as this.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Opens the socket.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::AddrInUse`] if another daemon listens there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            // Left by one that was killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Waits for somebody who asks.
    ///
    /// # Errors
    /// The system's.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // One that is left over is recognised by the next daemon.
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers everything that is asked over a connection.
///
/// # Errors
/// The connection broke.
pub(super) async fn serve<F: Future<Output = Answer>>(
    stream: UnixStream,
    answer: impl Fn(Request) -> F,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    while let Some(line) = line(&mut read).await? {
        let answer = match serde_json::from_slice(&line) {
            Ok(request) => answer(request).await,
            Err(error) => Answer::Failed { text: format!("this cannot be asked for: {error}") },
        };
        write.write_all(&(serde_json::to_string(&answer)? + "\n").into_bytes()).await?;
    }
    Ok(())
}

async fn line(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    read.take(LONGEST).read_until(b'\n', &mut line).await?;
    Ok(if line.ends_with(b"\n") { Some(line) } else { None })
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon; `None` if none runs.
    ///
    /// # Errors
    /// The system's, if it cannot be told.
    pub async fn connect(socket: &Path) -> io::Result<Option<Self>> {
        match UnixStream::connect(socket).await {
            Ok(stream) => Ok(Some(Self { stream: BufReader::new(stream) })),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Asks for something, and waits for the answer however long that takes.
    ///
    /// # Errors
    /// The daemon went away before it answered, or answered what cannot be read.
    pub async fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        let line_of_request = serde_json::to_string(request)? + "\n";
        self.stream.write_all(line_of_request.as_bytes()).await?;
        let answer = line(&mut self.stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(serde_json::from_slice(&answer)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_asked_is_answered_and_nobody_else_can_ask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/control.sock");
        assert!(Client::connect(&path).await.unwrap().is_none());
        let control = Control::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Control::open(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let server = async {
            // The first connection is that of the second daemon, which asked nothing.
            serve(control.accept().await.unwrap(), async |_| Answer::NotMine).await.unwrap();
            serve(control.accept().await.unwrap(), async |request| {
                assert_eq!(request, Request::Status);
                Answer::NotMine
            })
            .await
        };
        let client = async {
            let mut client = Client::connect(&path).await.unwrap().unwrap();
            assert_eq!(client.ask(&Request::Status).await.unwrap(), Answer::NotMine);
            client.stream.write_all(b"{\"command\":\"dance\"}\n").await.unwrap();
            let answer = line(&mut client.stream).await.unwrap().unwrap();
            assert!(String::from_utf8(answer).unwrap().contains("this cannot be asked for"));
        };
        let (served, ()) = tokio::join!(server, client);
        served.unwrap();
        drop(control);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_killed_daemon_left_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Control::open(&path).unwrap();
    }
}
