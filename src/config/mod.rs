//! Validated settings: what the file says, checked once, so that nothing after this needs to ask again.
//!
//! [`Config::load`] reads the file; `read` turns the text into the shape of `raw` and finds unknown keys and wrong
//! types, `check` turns that into the types below and finds everything else. All problems of a file are told at once.

mod check;
mod excludes;
mod filter;
mod outlook;
mod paths;
mod problem;
mod raw;
mod read;
#[cfg(test)]
mod tests;
mod units;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

pub use filter::{Filter, Pattern};
pub use paths::{StateDirError, prepare_state_dir};
pub(crate) use problem::nearest;
pub use problem::{Error, Problem};
pub(crate) use units::duration;

use crate::auth::PasswordSource;
use crate::model::Digest;

/// Everything that the file says.
#[derive(Clone, Debug)]
pub struct Config {
    /// The accounts, ordered by name; at least one.
    pub accounts: Vec<Account>,
    /// Programs to start when something happened.
    pub hooks: Hooks,
    /// Where the program keeps its own files.
    pub daemon: Daemon,
}

/// A login with a root of maildirs.
#[derive(Clone, PartialEq, Debug)]
pub struct Account {
    /// Its name: letters, digits, `-` and `_`, since it becomes a file name.
    pub name: String,
    /// The provider, where the user named one.
    pub provider: Option<Provider>,
    /// The server's name or address.
    pub host: String,
    /// Other names of the same service, for when the first cannot be reached.
    pub other_hosts: Vec<String>,
    /// The server's port.
    pub port: u16,
    /// How the connection is secured.
    pub tls: TlsMode,
    /// A file with certificates of authorities to trust besides those of the system.
    pub tls_ca_file: Option<PathBuf>,
    /// SHA-256 digests of public keys (SPKI), one of which the server must show; empty if any trusted one will do.
    pub tls_pins: Vec<Digest>,
    /// The name to sign in with.
    pub username: String,
    /// The address, for people.
    pub email: String,
    /// How to sign in.
    pub auth: Auth,
    /// The root of its maildirs: absolute and normalised.
    pub maildir: PathBuf,
    /// How mailboxes are laid out under the root.
    pub layout: Layout,
    /// What happens to CRLF.
    pub line_endings: LineEndings,
    /// The mailboxes to mirror.
    pub mailboxes: Filter,
    /// The mailboxes that get a connection in IDLE where the server has no NOTIFY.
    pub watch: Vec<String>,
    /// How many connections there are at most, all together.
    pub connections: usize,
    /// How often what is not watched is looked at.
    pub poll_interval: Duration,
    /// Larger messages are skipped, in bytes.
    pub max_message_size: u64,
    /// Which side may be changed.
    pub direction: Direction,
    /// What a deletion on one side means on the other.
    pub deletions: Deletions,
    /// Where only a sweep tells which flags changed, how old the last one may be.
    pub sweep_after: Duration,
    /// How long after a lost connection an upload is asked for before it is repeated; at least a second.
    pub append_retry_after: Duration,
    /// Whether the connection is compressed (RFC 4978) where the server can.
    pub compress: bool,
}

/// A provider that is known to differ from others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Outlook.com, and Exchange Online.
    Outlook,
}

/// How the connection is secured. There is no STARTTLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// TLS from the first byte (RFC 8314 §3.2).
    Implicit,
    /// None; for loopback addresses only.
    None,
}

/// How to sign in.
#[derive(Clone, PartialEq, Debug)]
pub enum Auth {
    /// By a password.
    Password(PasswordSource),
    /// By an access token (RFC 6749, XOAUTH2).
    OAuth2(OAuth),
}

/// Where access tokens come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OAuth {
    /// The id under which this program is registered; there is none of its own.
    pub client_id: Option<String>,
    /// The name to sign in with, if the configuration has one; else it is that of who signed in.
    pub username: Option<String>,
    /// What is asked for, separated by spaces (RFC 6749 §3.3).
    pub scope: String,
    /// Where the user's browser is sent (RFC 6749 §3.1).
    pub authorize_url: Option<String>,
    /// Where tokens are handed out (RFC 6749 §3.2).
    pub token_url: String,
    /// Where a device code is handed out (RFC 8628 §3.1).
    pub device_url: Option<String>,
    /// Where the refresh token is kept.
    pub token_store: TokenStore,
}

/// Where the refresh token is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenStore {
    /// In the Secret Service if there is one, else in a file.
    #[default]
    Auto,
    /// In the Secret Service.
    Keyring,
    /// In a file of mode 0600.
    File,
}

/// How mailboxes are laid out under the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
pub enum Layout {
    /// `root/Lists/rust/{cur,new,tmp}`
    #[default]
    #[serde(rename = "nested")]
    Nested,
    /// `root/.Lists.rust/{cur,new,tmp}`, with `INBOX` in the root itself.
    #[serde(rename = "maildir++")]
    PlusPlus,
}

/// What happens to CRLF.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineEndings {
    /// It becomes LF where that can be undone exactly.
    #[default]
    Lf,
    /// It stays as served.
    Keep,
}

/// Which side may be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Either.
    #[default]
    Both,
    /// Only the local one: a backup.
    Pull,
}

/// What a deletion on one side means on the other, and when it is held.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Deletions {
    /// What happens locally to what was deleted on the server.
    pub on_server: OnServer,
    /// What happens on the server to what was deleted locally.
    pub on_local: OnLocal,
    /// How long removed files stay recoverable.
    pub graveyard: Duration,
    /// A pass, or 24 hours, that would delete more than this many …
    pub guard_count: u64,
    /// … and more than this part of the mailbox (0 to 1) is held.
    pub guard_share: f64,
}

/// What happens locally to what was deleted on the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnServer {
    /// It is removed.
    #[default]
    Remove,
    /// It is kept.
    Keep,
}

/// What happens on the server to what was deleted locally.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLocal {
    /// Moved to the trash mailbox if there is one, else copied to the graveyard and expunged.
    #[default]
    Auto,
    /// Moved to the trash mailbox.
    Trash,
    /// Expunged.
    Expunge,
    /// Kept.
    Keep,
}

/// Programs to start when something happened; empty means none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hooks {
    /// After a pass that changed local files.
    pub changed: Vec<String>,
    /// For mail that arrived in `INBOX` or a watched mailbox.
    pub new_mail: Vec<String>,
    /// When the user is needed.
    pub attention: Vec<String>,
}

/// Where the program keeps its own files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Daemon {
    /// The directory of databases and the graveyard; see [`prepare_state_dir`].
    pub state_dir: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Where metrics are written, if anywhere.
    pub metrics_file: Option<PathBuf>,
}

impl Config {
    /// Reads and checks the file: `path`, or the default one under `$XDG_CONFIG_HOME`.
    ///
    /// # Errors
    /// [`Error`] if it cannot be read, or with every problem in it.
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        let path = Self::path(path)?;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Error::Missing { path }),
            Err(source) => return Err(Error::Unreadable { path, source }),
        };
        Self::read(&text, path)
    }

    /// Checks the text of a file, which is or will be at `path`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every problem in it.
    pub fn read(text: &str, path: PathBuf) -> Result<Self, Error> {
        Self::parse(text, &|name| std::env::var_os(name)).map_err(|problems| Error::Invalid { path, problems })
    }

    /// Returns the path of the file: `path`, or the default one under `$XDG_CONFIG_HOME`.
    ///
    /// # Errors
    /// [`Error::NoHome`] if there is no default one.
    pub fn path(path: Option<&Path>) -> Result<PathBuf, Error> {
        match path {
            Some(path) => Ok(path.to_owned()),
            None => paths::default_config(&|name| std::env::var_os(name)).ok_or(Error::NoHome),
        }
    }

    /// Returns the account of that name.
    #[must_use]
    pub fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.iter().find(|a| a.name == name)
    }

    fn parse(text: &str, env: paths::Env<'_>) -> Result<Self, Vec<Problem>> {
        let raw = read::read(text).map_err(|faults| problem::locate(text, faults))?;
        check::check(raw, env).map_err(|faults| problem::locate(text, faults))
    }
}

impl Daemon {
    /// Returns the database of an account.
    #[must_use]
    pub fn database(&self, account: &str) -> PathBuf {
        self.state_dir.join(format!("{account}.sqlite3"))
    }
}

impl Account {
    /// Returns a text of all that could make messages look deleted when it changes: compare it with the one that the
    /// last pass was made under, and remove nothing in a pass where they differ.
    #[must_use]
    pub fn scope(&self) -> String {
        let mut text = String::new();
        let layout = match self.layout {
            Layout::Nested => "nested",
            Layout::PlusPlus => "maildir++",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "host {:?}\nusername {:?}\nmaildir {:?}", self.host, self.username, self.maildir);
        let _ = writeln!(text, "layout {layout}\nmax_message_size {}", self.max_message_size);
        self.mailboxes.patterns().iter().for_each(|p| {
            let _ = writeln!(text, "mailboxes {:?}", p.to_string());
        });
        text
    }
}
