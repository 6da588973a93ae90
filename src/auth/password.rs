//! Passwords: from a program, a file, or a credential of systemd. Read anew at each sign-in, never kept.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroizing;

use crate::model::Secret;

/// A program that asks its user for something has this long.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// What a program wrote before it ended is in the pipe by then; one that it left behind may hold the pipe open for good.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Longer is no password.
const MOST_BYTES: usize = 64 * 1024;
/// As much of a program's complaint as is shown.
const MOST_COMPLAINT: usize = 2048;

/// Where a password comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// The first line that a program writes; the program and its arguments, without a shell.
    Command(Vec<String>),
    /// The first line of a file that only its owner may read.
    File(PathBuf),
    /// The first line of a credential that systemd hands over, by name.
    Credential(String),
}

/// Arguments are left out: a secret among them would be in the log.
impl fmt::Debug for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => write!(f, "Command({:?}, …)", program(command)),
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Credential(name) => write!(f, "Credential({name:?})"),
        }
    }
}

/// Why there is no password.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The program cannot be started.
    #[error("password_command: cannot start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program failed.
    #[error("password_command: {program} ended with {status}{}", told(said))]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to standard error, without control characters.
        said: String,
    },
    /// The program did not end.
    #[error("password_command: {program} gave no password within {} seconds", limit.as_secs())]
    TimedOut {
        /// The program.
        program: String,
        /// How long it had.
        limit: Duration,
    },
    /// The file cannot be read.
    #[error("cannot read the password in {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is a directory, a pipe or a device.
    #[error("the password file {} is not a file", path.display())]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// Others may read the file.
    #[error("the password file {} can be read by others (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to someone else.
    #[error("the password file {} belongs to user {owner}, who could change it; it must be yours or root's", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// systemd handed over no credentials.
    #[error(
        "password_credential = \"{name}\": $CREDENTIALS_DIRECTORY is not set; is this started by systemd, with LoadCredential={name}:…?"
    )]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// The name of the credential would lead out of the directory.
    #[error("\"{name}\" is not the name of a credential")]
    BadName {
        /// The name.
        name: String,
    },
    /// There is nothing in the first line.
    #[error("{from} gave an empty password")]
    Empty {
        /// Where it should have come from.
        from: String,
    },
    /// It is no text or too long.
    #[error("{from} gave what is no password: {why}")]
    NotText {
        /// Where it came from.
        from: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

fn told(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!("; it said: {said}") }
}

fn program(command: &[String]) -> &str {
    command.first().map_or("", String::as_str)
}

impl PasswordSource {
    /// Returns the password.
    ///
    /// # Errors
    /// [`Error`], which never has the password in it.
    pub async fn password(&self) -> Result<Secret, Error> {
        match self {
            Self::Command(command) => run(command, COMMAND_LIMIT).await,
            Self::File(path) => read_file(path, Guarded::Yes),
            Self::Credential(name) => {
                let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
                credential(directory.as_deref(), name)
            }
        }
    }
}

/// systemd lets nobody else into the directory of credentials, and marks an access list by bits of the group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guarded {
    Yes,
    BySystemd,
}

fn credential(directory: Option<&Path>, name: &str) -> Result<Secret, Error> {
    if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(Error::BadName { name: name.to_owned() });
    }
    let directory = directory.ok_or_else(|| Error::NoCredentials { name: name.to_owned() })?;
    read_file(&directory.join(name), Guarded::BySystemd)
}

fn read_file(path: &Path, guarded: Guarded) -> Result<Secret, Error> {
    let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
    // Not blocking: a pipe in the place of the file must not stop the program. A symbolic link is followed, since
    // keepers of secrets make them; what counts is the file that was opened.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    if guarded == Guarded::Yes {
        if found.mode() & 0o077 != 0 {
            return Err(Error::Open { path: path.to_owned(), mode: found.mode() & 0o7777 });
        }
        if found.uid() != rustix::process::geteuid().as_raw() && found.uid() != 0 {
            return Err(Error::Foreign { path: path.to_owned(), owner: found.uid() });
        }
    }
    let mut bytes = buffer();
    file.take(MOST_BYTES as u64).read_to_end(&mut bytes).map_err(unreadable)?;
    first_line(&bytes, &path.display().to_string())
}

/// Large enough from the start that it is never moved, which would leave a copy behind.
fn buffer() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(MOST_BYTES + 1))
}

fn first_line(bytes: &[u8], from: &str) -> Result<Secret, Error> {
    let not_text = |why| Error::NotText { from: from.to_owned(), why };
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(Error::Empty { from: from.to_owned() });
    }
    if line.len() >= MOST_BYTES {
        return Err(not_text("it is too long"));
    }
    if line.contains(&0) || line.contains(&b'\r') {
        return Err(not_text("it holds a control character that no server takes"));
    }
    let text = std::str::from_utf8(line).map_err(|_| not_text("it is not UTF-8"))?;
    Ok(Secret::new(text.to_owned()))
}

async fn run(command: &[String], limit: Duration) -> Result<Secret, Error> {
    let name = program(command).to_owned();
    let start = |source| Error::Start { program: name.clone(), source };
    let mut child = tokio::process::Command::new(&name)
        .args(command.get(1..).unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let (output, complaint) = (child.stdout.take(), child.stderr.take());
    let (mut bytes, mut said) = (buffer(), Vec::new());
    let work = async {
        let mut listen = std::pin::pin!(async {
            tokio::join!(keep_first(output, &mut bytes, MOST_BYTES), keep_last(complaint, &mut said, MOST_COMPLAINT))
        });
        tokio::select! {
            status = child.wait() => {
                // It may be silence that makes this elapse, or a program left behind; what was said counts.
                let _ = tokio::time::timeout(LAST_WORDS, listen).await;
                status
            }
            _ = &mut listen => child.wait().await,
        }
    };
    let timed_out = |_| Error::TimedOut { program: name.clone(), limit };
    let status = tokio::time::timeout(limit, work).await.map_err(timed_out)?.map_err(start)?;
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        let plain: String = said.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        return Err(Error::Failed { program: name, status, said: plain });
    }
    first_line(&bytes, &format!("password_command {name}"))
}

/// Reads to the end and keeps the first bytes. A broken pipe ends it like an end: how the program ended says more.
async fn keep_first(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>, most: usize) {
    let Some(mut from) = from else { return };
    let mut part = Zeroizing::new([0; 4096]);
    while let Ok(read @ 1..) = from.read(&mut *part).await {
        into.extend_from_slice(&part[..read.min(most - into.len())]);
    }
}

/// Reads to the end and keeps the last bytes.
async fn keep_last(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>, most: usize) {
    let Some(mut from) = from else { return };
    let mut part = [0; 1024];
    while let Ok(read @ 1..) = from.read(&mut part).await {
        into.extend_from_slice(&part[..read]);
        into.drain(..into.len().saturating_sub(most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn sh(script: &str) -> PasswordSource {
        PasswordSource::Command(["sh", "-c", script].map(str::to_owned).to_vec())
    }

    async fn text(source: &PasswordSource) -> Result<String, String> {
        source.password().await.map(|s| s.expose().to_owned()).map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn a_command_gives_its_first_line() {
        let rows = [
            ("echo hunter2", "hunter2"),
            ("printf hunter2", "hunter2"),
            ("printf 'hunter2\\r\\nlogin: x\\n'", "hunter2"),
            ("echo ' a b '", " a b "),
            ("echo pässwort; echo complaint >&2", "pässwort"),
            ("if read x; then echo stdin; else echo none; fi", "none"),
            ("echo hunter2; yes | head -c 300000", "hunter2"),
        ];
        for (script, password) in rows {
            assert_eq!(text(&sh(script)).await.as_deref(), Ok(password), "{script}");
        }
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why() {
        let rows = [
            (
                "echo hunter2; echo no such key >&2; exit 3",
                "password_command: sh ended with exit status: 3; it said: no such key",
            ),
            ("exit 1", "password_command: sh ended with exit status: 1"),
            ("printf 'a\\033[31mb\\n' >&2; exit 1", "password_command: sh ended with exit status: 1; it said: a [31mb"),
            ("kill -9 $$", "password_command: sh ended with signal: 9 (SIGKILL)"),
            ("true", "password_command sh gave an empty password"),
            ("echo; echo second", "password_command sh gave an empty password"),
            ("printf '\\377\\n'", "password_command sh gave what is no password: it is not UTF-8"),
            (
                "printf 'a\\000b\\n'",
                "password_command sh gave what is no password: it holds a control character that no server takes",
            ),
            ("head -c 70000 /dev/zero | tr '\\0' x", "password_command sh gave what is no password: it is too long"),
        ];
        for (script, error) in rows {
            assert_eq!(text(&sh(script)).await, Err(error.to_owned()), "{script}");
        }
        let missing = PasswordSource::Command(vec!["/nowhere/at/all".to_owned()]);
        let error = text(&missing).await.unwrap_err();
        assert!(error.starts_with("password_command: cannot start /nowhere/at/all: "), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_does_not_end_is_ended() {
        let command = ["sleep", "1000"].map(str::to_owned);
        let error = run(&command, COMMAND_LIMIT).await.unwrap_err();
        assert_eq!(error.to_string(), "password_command: sleep gave no password within 60 seconds");
    }

    #[tokio::test]
    async fn what_a_command_leaves_running_is_not_waited_for() {
        let began = std::time::Instant::now();
        assert_eq!(text(&sh("sleep 30 & echo hunter2")).await.as_deref(), Ok("hunter2"));
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_file_is_its_owners_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("password");
        std::fs::write(&path, "hunter2\nsecond\n").unwrap();
        let source = PasswordSource::File(path.clone());
        for (mode, fine) in
            [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o666, false), (0o610, false)]
        {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            match text(&source).await {
                Ok(password) => assert!(fine && password == "hunter2", "{mode:o}"),
                Err(error) => assert!(!fine && error.contains(&format!("mode {mode:04o}")), "{mode:o}: {error}"),
            }
        }
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(PasswordSource::File(link.clone()).password().await, Err(Error::Open { .. })));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(text(&PasswordSource::File(link)).await.as_deref(), Ok("hunter2"));
    }

    #[tokio::test]
    async fn what_is_no_password_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str| PasswordSource::File(root.path().join(name));
        assert!(matches!(file("none").password().await, Err(Error::Unreadable { .. })));
        std::fs::create_dir(root.path().join("dir")).unwrap();
        assert!(matches!(file("dir").password().await, Err(Error::NotAFile { .. })));
        let made = std::process::Command::new("mkfifo").arg("-m600").arg(root.path().join("pipe")).status().unwrap();
        assert!(made.success());
        assert!(matches!(file("pipe").password().await, Err(Error::NotAFile { .. })));
        std::fs::write(root.path().join("empty"), "").unwrap();
        std::fs::set_permissions(root.path().join("empty"), PermissionsExt::from_mode(0o600)).unwrap();
        assert!(matches!(file("empty").password().await, Err(Error::Empty { .. })));
    }

    #[test]
    fn credentials_come_from_their_directory_only() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("mail"), "hunter2\n").unwrap();
        std::fs::set_permissions(root.path().join("mail"), PermissionsExt::from_mode(0o440)).unwrap();
        assert_eq!(credential(Some(root.path()), "mail").unwrap().expose(), "hunter2");
        for name in ["../mail", "/etc/passwd", "", ".", "..", "a/b"] {
            assert!(matches!(credential(Some(root.path()), name), Err(Error::BadName { .. })), "{name}");
        }
        let error = credential(None, "mail").unwrap_err().to_string();
        assert!(error.contains("$CREDENTIALS_DIRECTORY is not set"), "{error}");
    }

    #[tokio::test]
    async fn nothing_prints_the_password() {
        let command = sh("echo hunter2");
        assert_eq!(format!("{command:?}"), "Command(\"sh\", …)");
        let secret = command.password().await.unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
        let error = sh("echo hunter2; exit 1").password().await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
