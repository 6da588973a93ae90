//! An account on a simulated server, with both of its sides in view.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postkeep_sim::{Ca, OAuth, Options as Simulation, Profile, Server, oauth};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::Error;
use super::acts::{BEFORE, COLLECTED, Collected};
use super::message::{message, subject, with_lf, with_picture};
use crate::auth::Login;
use crate::config::{Account, Auth, Config, prepare_state_dir};
use crate::daemon::{Answer, Client, LiveAccount, Request};
use crate::imap::modified_utf7;
use crate::model::MailboxName;

const EMAIL: &str = "you@outlook.com";
/// The sign-in takes a moment; whatever takes longer has failed.
const SIGN_IN_LIMIT: Duration = Duration::from_secs(60);
/// Message files of a demonstration get these, and count on from here.
const FIRST_DATE: i64 = 1_793_606_400;

/// A simulated Outlook.com with its sign-in service, and an account on it that is mirrored into a directory.
pub struct Stage {
    server: Server,
    sign_in: OAuth,
    /// What the program keeps besides the mirror; it goes with the stage.
    private: TempDir,
    config: Config,
    /// How many messages there have been.
    written: Cell<u32>,
}

/// How much both sides hold alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sums {
    /// Mailboxes that are mirrored.
    pub mailboxes: usize,
    /// Messages in them.
    pub messages: usize,
}

/// The messages of each mailbox, each with its flags, in a form that both sides have in common.
type Tree = BTreeMap<String, Vec<(Vec<u8>, String)>>;

impl Stage {
    /// Starts the servers, with some mail, and makes the account; its mirror goes to `mirror`, which must be empty.
    ///
    /// # Errors
    /// [`Error`], if `mirror` is not empty, or the system lacks something.
    pub fn open(mirror: &Path) -> Result<Self, Error> {
        prepare_mirror(mirror)?;
        let private = tempfile::Builder::new().prefix("postkeep-demo.").tempdir();
        let private = private.map_err(Error::doing("make a temporary directory"))?;
        let ca = Ca::new().map_err(Error::doing("make a certificate"))?;
        let options = Simulation::from(Profile::Exo2026).tls(&ca);
        let server = Server::spawn(options).map_err(Error::doing("start the simulated server"))?;
        let sign_in = OAuth::spawn(&server, None).map_err(Error::doing("start the simulated sign-in service"))?;
        EMAIL.clone_into(&mut sign_in.directory().user);
        let ca_file = ca.write_to(private.path()).map_err(Error::doing("write a certificate"))?;
        let config_file = private.path().join("config.toml");
        let text = config_text(&server, &sign_in, mirror, private.path(), &ca_file);
        fs::write(&config_file, text).map_err(Error::doing("write the configuration"))?;
        let config = Config::load(Some(&config_file))?;
        let stage = Self { server, sign_in, private, config, written: Cell::new(0) };
        COLLECTED.iter().for_each(|collected| stage.collect(collected));
        for (mailbox, from, subject, flags) in BEFORE {
            stage.put_there(mailbox, from, subject, flags);
        }
        Ok(stage)
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns its file, for other commands of the program while the stage is there.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.private.path().join("config.toml")
    }

    /// Returns the port on loopback at which the simulated server listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Signs in as a user does, at the page of the simulated sign-in service; returns the user's name.
    ///
    /// # Errors
    /// [`Error`], with what the sign-in service said.
    pub async fn sign_in(&self) -> Result<String, Error> {
        let account = self.account()?;
        let Auth::OAuth2(oauth) = &account.auth else {
            return Err(Error::new("the account of the demonstration does not sign in with OAuth 2.0"));
        };
        let state_dir = &self.config.daemon.state_dir;
        prepare_state_dir(state_dir).map_err(|error| Error::new(error.to_string()))?;
        let login = Login::new(account, oauth, state_dir)?;
        let (failed, failure) = oneshot::channel();
        let signing_in = login.by_browser(SIGN_IN_LIMIT, |address| {
            let address = address.to_owned();
            // In place of the user's browser.
            tokio::task::spawn_blocking(move || {
                let visit = oauth::press(&address).and_then(|location| oauth::get(&location));
                if let Err(error) = visit {
                    // Nobody listens any more if the sign-in came to an end.
                    drop(failed.send(error));
                }
            });
        });
        let signed_in = tokio::select! {
            signed_in = signing_in => signed_in?,
            Ok(error) = failure => return Err(Error::new(format!("the sign-in page cannot be opened: {error}"))),
        };
        signed_in.name.ok_or_else(|| Error::new("the sign-in service does not tell who signed in"))
    }

    /// Asks the daemon what it does with the account; `None` if it does not answer yet.
    pub async fn live(&self) -> Option<LiveAccount> {
        let mut daemon = Client::connect(&self.config.daemon.socket).await.ok()??;
        match daemon.ask(&Request::Status).await.ok()? {
            Answer::Status(live) => live.accounts.into_iter().next(),
            _ => None,
        }
    }

    /// Compares both sides, byte for byte and flag for flag.
    ///
    /// # Errors
    /// [`Error`], with what differs.
    pub fn compare(&self) -> Result<Sums, Error> {
        let (here, there) = (self.tree_here()?, self.tree_there()?);
        let names: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        let differing: Vec<&str> =
            names.into_iter().filter(|name| here.get(*name) != there.get(*name)).map(String::as_str).collect();
        if differing.is_empty() {
            Ok(Sums { mailboxes: here.len(), messages: here.values().map(Vec::len).sum() })
        } else {
            Err(Error::new(format!("both sides differ in {}", differing.join(", "))))
        }
    }

    fn account(&self) -> Result<&Account, Error> {
        self.config.accounts.first().ok_or_else(|| Error::new("the configuration of the demonstration has no account"))
    }

    fn root(&self) -> Result<&Path, Error> {
        Ok(&self.account()?.maildir)
    }

    fn tree_there(&self) -> Result<Tree, Error> {
        let filter = &self.account()?.mailboxes;
        let state = self.server.state();
        let mirrored = state.mailboxes.keys().filter(|name| filter.matches(&MailboxName::from(name.as_str())));
        let tree = mirrored.map(|name| {
            let messages = state.messages(name).into_iter().map(|m| (with_lf(&m.bytes), letters(&m.flags)));
            (name.clone(), sorted(messages))
        });
        Ok(tree.collect())
    }

    fn tree_here(&self) -> Result<Tree, Error> {
        let root = self.root()?;
        let mut tree = Tree::new();
        for name in maildirs(root, root)? {
            let files = files(&root.join(&name))?;
            let messages = files.into_iter().map(|file| (file.bytes, file.letters));
            tree.insert(on_the_wire(&name), sorted(messages));
        }
        Ok(tree)
    }
}

/// What is done, and seen, on the server.
impl Stage {
    fn collect(&self, collected: &Collected) {
        let Collected { mailbox, count, from, subject, text, pictures } = collected;
        let mailbox = on_the_wire(mailbox);
        for n in 1..=*count {
            let number = self.count();
            let write = if *pictures { with_picture } else { message };
            let bytes = write(number, from, &format!("{subject}, {n}"), text);
            let flags: &[&str] = match n {
                // The newest ones are still to be read.
                n if n + 5 > *count => &[],
                n if n % 11 == 0 => &["\\Flagged", "\\Seen"],
                n if n % 4 == 0 => &["\\Answered", "\\Seen"],
                _ => &["\\Seen"],
            };
            let mut state = self.server.state();
            if !state.mailboxes.contains_key(&mailbox) {
                state.create(&mailbox);
            }
            state.append(&mailbox, &bytes, flags, FIRST_DATE + i64::from(number));
        }
    }

    fn put_there(&self, mailbox: &str, from: &str, subject: &str, flags: &[&str]) {
        let number = self.count();
        let bytes = message(number, from, subject, "This is a message of the demonstration.");
        self.server.state().append(mailbox, &bytes, flags, FIRST_DATE + i64::from(number));
    }

    fn uid(&self, mailbox: &str, wanted: &str) -> Result<u32, Error> {
        let messages = self.server.state().messages(mailbox);
        let found = messages.iter().find(|m| subject(&m.bytes) == Some(wanted)).map(|m| m.uid);
        found.ok_or_else(|| Error::new(format!("the server has no message \"{wanted}\" in {mailbox}")))
    }

    pub(super) fn arrives(&self, mailbox: &str, from: &str, subject: &str) -> Result<(), Error> {
        self.put_there(mailbox, from, subject, &[]);
        Ok(())
    }

    pub(super) fn flag_there(&self, mailbox: &str, subject: &str, flags: &[&str]) -> Result<(), Error> {
        let uid = self.uid(mailbox, subject)?;
        self.server.state().set_flags(mailbox, uid, flags);
        Ok(())
    }

    pub(super) fn move_there(&self, from: &str, subject: &str, to: &str) -> Result<(), Error> {
        let uid = self.uid(from, subject)?;
        let mut state = self.server.state();
        if !state.mailboxes.contains_key(to) {
            state.create(to);
        }
        state.move_message(from, uid, to);
        Ok(())
    }

    pub(super) fn delete_there(&self, mailbox: &str, subject: &str) -> Result<(), Error> {
        let uid = self.uid(mailbox, subject)?;
        self.server.state().expunge(mailbox, uid);
        Ok(())
    }

    /// Describes each message that the server has, by mailbox and UID.
    #[must_use]
    pub fn there(&self) -> BTreeMap<(String, u32), String> {
        let state = self.server.state();
        let all = state.mailboxes.iter().flat_map(|(name, mailbox)| mailbox.messages.values().map(move |m| (name, m)));
        let described = all.map(|(name, m)| {
            let shown = format!("{name}: UID {}, {}", m.uid, in_words(&m.flags));
            let subject = subject(&m.bytes).map_or_else(String::new, |subject| format!(", \"{subject}\""));
            ((name.clone(), m.uid), shown + &subject)
        });
        described.collect()
    }

    /// Describes a message if the server has it with exactly these flags.
    pub(super) fn shown_there(&self, mailbox: &str, wanted: &str, flags: &[&str]) -> Option<String> {
        let state = self.server.state();
        let messages = &state.mailboxes.get(mailbox)?.messages;
        let message = messages.values().find(|m| subject(&m.bytes) == Some(wanted))?;
        let wanted_flags: BTreeSet<&str> = flags.iter().copied().collect();
        let shown: BTreeSet<&str> = message.flags.iter().map(String::as_str).collect();
        (shown == wanted_flags).then(|| format!("{mailbox}: UID {}, {}", message.uid, in_words(&message.flags)))
    }
}

/// What is done, and seen, in the Maildirs, as a mail reader does it.
impl Stage {
    fn file(&self, mailbox: &str, wanted: &str) -> Result<File, Error> {
        let found = files(&self.root()?.join(mailbox))?.into_iter().find(|file| subject(&file.bytes) == Some(wanted));
        found.ok_or_else(|| Error::new(format!("there is no file of the message \"{wanted}\" in {mailbox}")))
    }

    pub(super) fn flag_here(&self, mailbox: &str, subject: &str, letters: &str) -> Result<(), Error> {
        let file = self.file(mailbox, subject)?;
        let to = self.root()?.join(mailbox).join("cur").join(format!("{}:2,{letters}", file.unique));
        fs::rename(&file.path, to).map_err(Error::doing("rename a file"))
    }

    pub(super) fn move_here(&self, from: &str, subject: &str, to: &str) -> Result<(), Error> {
        let file = self.file(from, subject)?;
        let maildir = self.root()?.join(to);
        make_maildir(&maildir)?;
        let target = maildir.join("cur").join(format!("{}:2,{}", file.unique, file.letters));
        fs::rename(&file.path, target).map_err(Error::doing("move a file"))
    }

    pub(super) fn write_here(&self, mailbox: &str, subject: &str) -> Result<(), Error> {
        let number = self.count();
        let maildir = self.root()?.join(mailbox);
        let name = format!("{}.{number}.demo", FIRST_DATE + i64::from(number));
        let bytes = with_lf(&message(number, "You <you@outlook.com>", subject, "To be continued."));
        fs::write(maildir.join("tmp").join(&name), bytes).map_err(Error::doing("write a file"))?;
        let to = maildir.join("cur").join(format!("{name}:2,D"));
        fs::rename(maildir.join("tmp").join(&name), to).map_err(Error::doing("move a file"))
    }

    pub(super) fn delete_here(&self, mailbox: &str, subject: &str) -> Result<(), Error> {
        fs::remove_file(self.file(mailbox, subject)?.path).map_err(Error::doing("remove a file"))
    }

    /// Describes a file if it is there with exactly these letters.
    pub(super) fn shown_here(&self, mailbox: &str, subject: &str, letters: &str) -> Option<String> {
        let file = self.file(mailbox, subject).ok().filter(|file| file.letters == letters)?;
        let path = file.path.strip_prefix(self.root().ok()?).ok()?;
        Some(path.display().to_string())
    }

    /// Describes a file in the graveyard, if it is there.
    pub(super) fn buried(&self, wanted: &str) -> Option<String> {
        let graveyard = self.config.daemon.state_dir.join("graveyard");
        let found = all_files(&graveyard)
            .into_iter()
            .find(|path| fs::read(path).is_ok_and(|bytes| subject(&bytes) == Some(wanted)))?;
        Some(format!("the graveyard has it: {}", found.strip_prefix(&graveyard).ok()?.display()))
    }
}

impl Stage {
    fn count(&self) -> u32 {
        self.written.set(self.written.get() + 1);
        self.written.get()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What the servers saw that they should not have seen is a mistake of the program.
        for violation in self.server.violations().into_iter().chain(self.sign_in.violations()) {
            tracing::warn!(violation, "the simulated server complains");
        }
    }
}

fn prepare_mirror(mirror: &Path) -> Result<(), Error> {
    let shown = mirror.display();
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(mirror);
    made.map_err(Error::doing(format_args!("make the directory {shown}")))?;
    let mut entries = fs::read_dir(mirror).map_err(Error::doing(format_args!("read the directory {shown}")))?;
    match entries.next() {
        None => Ok(()),
        // What lies there would go to the simulated server, which is right, but not what is to be shown.
        Some(_) => Err(Error::new(format!("{shown} is not empty; name a directory that is, or none"))),
    }
}

fn config_text(server: &Server, sign_in: &OAuth, mirror: &Path, private: &Path, ca_file: &Path) -> String {
    let endpoint = |name| sign_in.endpoint("consumers", name);
    format!(
        "[daemon]\nstate_dir = {:?}\nsocket = {:?}\n\n[account.demo]\nprovider = \"outlook\"\nhost = \"localhost\"\n\
         port = {}\ntls_ca_file = {ca_file:?}\nemail = \"{EMAIL}\"\nmaildir = {mirror:?}\n\n[account.demo.oauth]\n\
         client_id = \"demo\"\nauthorize_url = {:?}\ntoken_url = {:?}\ndevice_url = {:?}\ntoken_store = \"file\"\n",
        private.join("state"),
        private.join("control.sock"),
        server.port(),
        endpoint("authorize"),
        endpoint("token"),
        endpoint("devicecode"),
    )
}

/// A message file.
struct File {
    path: PathBuf,
    unique: String,
    letters: String,
    bytes: Vec<u8>,
}

/// Returns the message files of a Maildir.
fn files(maildir: &Path) -> Result<Vec<File>, Error> {
    let mut files = Vec::new();
    for sub in ["new", "cur"] {
        let dir = maildir.join(sub);
        let reading = || Error::doing(format!("read {}", dir.display()));
        for entry in fs::read_dir(&dir).map_err(reading())? {
            let path = entry.map_err(reading())?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (unique, letters) = name.split_once(":2,").unwrap_or((&name, ""));
            let bytes = fs::read(&path).map_err(reading())?;
            files.push(File { unique: unique.to_owned(), letters: letters.to_owned(), bytes, path });
        }
    }
    Ok(files)
}

/// Returns the names of the Maildirs below a directory, relative to `root`.
fn maildirs(root: &Path, dir: &Path) -> Result<BTreeSet<String>, Error> {
    let mut names = BTreeSet::new();
    let reading = || Error::doing(format!("read {}", dir.display()));
    for entry in fs::read_dir(dir).map_err(reading())? {
        let path = entry.map_err(reading())?.path();
        let name = path.file_name().unwrap_or_default();
        if !path.is_dir() || ["cur", "new", "tmp"].iter().any(|own| name == *own) {
            continue;
        }
        if path.join("cur").is_dir() {
            names.insert(path.strip_prefix(root).unwrap_or(&path).display().to_string());
        }
        names.extend(maildirs(root, &path)?);
    }
    Ok(names)
}

/// Returns all files below a directory that can be listed.
fn all_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    entries.flat_map(|path| if path.is_dir() { all_files(&path) } else { vec![path] }).collect()
}

fn make_maildir(maildir: &Path) -> Result<(), Error> {
    for sub in ["cur", "new", "tmp"] {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(maildir.join(sub));
        made.map_err(Error::doing("make a Maildir"))?;
    }
    Ok(())
}

fn in_words(flags: &BTreeSet<String>) -> String {
    if flags.is_empty() { "no flags".to_owned() } else { flags.iter().cloned().collect::<Vec<_>>().join(" ") }
}

/// Returns the info letters of a server's flags.
fn letters(flags: &BTreeSet<String>) -> String {
    let table = [("\\Draft", 'D'), ("\\Flagged", 'F'), ("\\Answered", 'R'), ("\\Seen", 'S'), ("\\Deleted", 'T')];
    table.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, letter)| letter).collect()
}

/// Returns the name of a mailbox as the server has it.
fn on_the_wire(name: &str) -> String {
    String::from_utf8_lossy(&modified_utf7(name)).into_owned()
}

fn sorted(messages: impl Iterator<Item = (Vec<u8>, String)>) -> Vec<(Vec<u8>, String)> {
    let mut messages: Vec<_> = messages.collect();
    messages.sort();
    messages
}
