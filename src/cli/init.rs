//! `postkeep init`: asks for what is needed, signs in, shows what will be mirrored, and writes the configuration.

use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::login::{self, How};
use super::output::{self, harmless};
use super::{Exit, Failure, findings, service, signals};
use crate::auth::{Login, SignedIn};
use crate::config::{Account, Auth, Config, Filter, prepare_state_dir};
use crate::engine::Visit;
use crate::imap::{Habit, Quirks};

/// Ask for what is needed, sign in, and write the configuration
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    how: How,
}

/// This command.
const OWN: &str = "postkeep init";

/// What an address tells of where its mailbox is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Provider {
    Outlook,
    /// A server that is known, or guessed.
    Server(String),
}

/// Servers whose name does not follow from that of the domain.
const SERVERS: [(&str, &[&str]); 6] = [
    ("imap.gmail.com", &["gmail.com", "googlemail.com"]),
    ("imap.mail.me.com", &["icloud.com", "me.com", "mac.com"]),
    ("imap.mail.yahoo.com", &["yahoo.com", "ymail.com"]),
    ("imap.gmx.net", &["gmx.net", "gmx.de", "gmx.at", "gmx.ch"]),
    ("imap.fastmail.com", &["fastmail.com", "fastmail.fm"]),
    ("posteo.de", &["posteo.de", "posteo.net"]),
];

/// Returns where the mailbox of an address probably is.
fn provider(email: &str) -> Provider {
    let domain = email.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    // outlook.com, hotmail.fr, live.co.uk: these names are Microsoft's in every country.
    let first = domain.split('.').next().unwrap_or_default();
    if ["outlook", "hotmail", "live", "msn", "passport"].contains(&first) {
        return Provider::Outlook;
    }
    let known = SERVERS.iter().find(|(_, domains)| domains.contains(&domain.as_str()));
    Provider::Server(known.map_or_else(|| format!("imap.{domain}"), |(host, _)| (*host).to_owned()))
}

/// What was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Answers {
    email: String,
    name: String,
    maildir: String,
    server: Place,
}

/// Where the mailbox is, and how to get in.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    /// At Outlook.com or, with a tenant, Exchange Online.
    Outlook {
        client_id: String,
        tenant: Option<&'static str>,
    },
    Server {
        host: String,
        port: Option<u16>,
        encrypted: bool,
        username: String,
        password_command: Vec<String>,
    },
}

/// Returns the text of the configuration.
fn configuration(answers: &Answers) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let Answers { email, name, maildir, server } = answers;
    let mut text = format!("[account.{name}]\n");
    // Writing to a String cannot fail.
    match server {
        Place::Outlook { .. } => text.push_str("provider = \"outlook\"\n"),
        Place::Server { host, port, encrypted, .. } => {
            let _ = writeln!(text, "host = {}", quoted(host));
            if let Some(port) = port {
                let _ = writeln!(text, "port = {port}");
            }
            if !encrypted {
                text.push_str("tls = \"none\"\n");
            }
        }
    }
    let _ = writeln!(text, "email = {}", quoted(email));
    if let Place::Server { username, password_command, .. } = server {
        if username != email {
            let _ = writeln!(text, "username = {}", quoted(username));
        }
        let command: Vec<String> = password_command.iter().map(|word| quoted(word)).collect();
        let _ = writeln!(text, "password_command = [{}]", command.join(", "));
    }
    let _ = writeln!(text, "maildir = {}", quoted(maildir));
    if let Place::Outlook { client_id, tenant } = server {
        let _ = writeln!(text, "\n[account.{name}.oauth]\nclient_id = {}", quoted(client_id));
        if let Some(tenant) = tenant {
            let _ = writeln!(text, "tenant = {}", quoted(tenant));
        }
    }
    text
}

/// Returns the name of a server and its port, if one was given: `host`, `host:port`, `::1` or `[::1]:port`.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    if text.parse::<IpAddr>().is_ok() {
        return Some((text.to_owned(), None));
    }
    match text.rsplit_once(':') {
        None => Some((text.to_owned(), None)),
        Some((host, port)) => {
            let port = port.parse().ok().filter(|port| *port != 0)?;
            Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), Some(port)))
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn is_address(text: &str) -> bool {
    let plain = !text.chars().any(|c| c.is_control() || c.is_whitespace());
    plain && text.split_once('@').is_some_and(|(user, domain)| !user.is_empty() && domain.contains('.'))
}

/// Asks on standard output, and reads answers from standard input, a line each.
struct Dialogue {
    stop: watch::Receiver<bool>,
}

impl Dialogue {
    /// Asks until the answer fits; an empty one means the default, if there is one.
    async fn ask(&mut self, what: &str, default: Option<&str>, fits: impl Fn(&str) -> bool) -> Result<String, Failure> {
        self.ask_until(what, default, |answer| if fits(answer) { Ok(()) } else { Err(String::new()) }).await
    }

    /// The same, where it can be told why an answer does not fit.
    async fn ask_until(
        &mut self,
        what: &str,
        default: Option<&str>,
        fits: impl Fn(&str) -> Result<(), String>,
    ) -> Result<String, Failure> {
        loop {
            let default_text = default.map(|text| format!(" [{}]", harmless(text))).unwrap_or_default();
            output::print(&format!("{what}{default_text}: "))?;
            // Not in this thread: it has to see that it is stopped.
            let read = tokio::task::spawn_blocking(|| {
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).map(|bytes| (bytes > 0).then_some(line))
            });
            let line = tokio::select! {
                read = read => read.ok().and_then(Result::ok).flatten(),
                _ = self.stop.wait_for(|stop| *stop) => None,
            };
            let Some(line) = line else {
                let text = format!("\nthere was no answer to \"{what}\"; nothing was written");
                return Err(Failure::usage(text));
            };
            let answer = match (line.trim(), default) {
                ("", Some(default)) => default,
                (answer, _) => answer,
            };
            match fits(answer) {
                Ok(()) => return Ok(answer.to_owned()),
                Err(why) if why.is_empty() => output::print("That cannot be used; try again.\n")?,
                Err(why) => output::print(&format!("That cannot be used: {}; try again.\n", harmless(&why)))?,
            }
        }
    }

    async fn agrees(&mut self, what: &str, default: bool) -> Result<bool, Failure> {
        let default = if default { "yes" } else { "no" };
        let answer = self
            .ask(what, Some(default), |answer| ["yes", "y", "no", "n"].contains(&answer.to_ascii_lowercase().as_str()));
        Ok(answer.await?.to_ascii_lowercase().starts_with('y'))
    }

    async fn answers(&mut self) -> Result<Answers, Failure> {
        let email = self.ask("Your address", None, is_address).await?;
        let server = match provider(&email) {
            Provider::Outlook => self.outlook(None).await?,
            Provider::Server(guess) => {
                let text = self.ask("Its IMAP server", Some(&guess), |text| host_and_port(text).is_some()).await?;
                let (host, port) = host_and_port(&text).unwrap_or((text, None));
                if Quirks::of_host(&host).has(Habit::Sweeps) {
                    self.outlook(Some("organizations")).await?
                } else {
                    self.server(&email, host, port).await?
                }
            }
        };
        let name = self.ask("A name for the account", Some("personal"), is_name).await?;
        let default = format!("~/Mail/{name}");
        let answers = Answers { email, name, maildir: default.clone(), server };
        let fits = |path: &str| trouble_with(&Answers { maildir: path.to_owned(), ..answers.clone() });
        let maildir = self.ask_until("The directory for its mail", Some(&default), fits).await?;
        Ok(Answers { maildir, ..answers })
    }

    async fn outlook(&mut self, tenant: Option<&'static str>) -> Result<Place, Failure> {
        output::print(&format!(
            "Outlook.com takes no passwords; you sign in with a browser. For that postkeep needs a client_id, which says \
             what program asks for your mail.\n{}\n",
            findings::CLIENT_ID
        ))?;
        let plain = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        let client_id = self.ask("client_id", None, plain).await?;
        Ok(Place::Outlook { client_id, tenant })
    }

    async fn server(&mut self, email: &str, host: String, port: Option<u16>) -> Result<Place, Failure> {
        let encrypted = !is_this_machine(&host) || self.agrees("Is the connection encrypted (TLS)?", true).await?;
        let username = self.ask("The name to sign in with", Some(email), |name| !name.is_empty()).await?;
        let what = "A program that prints the password, with its arguments, such as: pass show mail";
        let command = self.ask(what, None, |text| !text.is_empty()).await?;
        let password_command = command.split_whitespace().map(ToOwned::to_owned).collect();
        Ok(Place::Server { host, port, encrypted, username, password_command })
    }
}

/// Says why answers make no configuration, if they make none.
fn trouble_with(answers: &Answers) -> Result<(), String> {
    match Config::read(&configuration(answers), PathBuf::new()) {
        Ok(_) => Ok(()),
        Err(crate::config::Error::Invalid { problems, .. }) => {
            Err(problems.iter().map(|problem| problem.text.as_str()).collect::<Vec<_>>().join("; "))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Signs in, again and again if the user wants to.
async fn sign_in(login: &Login, name: &str, how: &How, dialogue: &mut Dialogue) -> Result<SignedIn, Failure> {
    loop {
        match login::sign_in(login, name, OWN, how, &mut dialogue.stop).await {
            Err(failure) if !*dialogue.stop.borrow() => {
                output::print(&format!("{}\n", failure.text))?;
                if !dialogue.agrees("Sign in once more?", true).await? {
                    return Err(Failure { text: "no configuration was written".to_owned(), ..failure });
                }
            }
            ended => return ended,
        }
    }
}

/// Runs the command. `file` is the configuration that was named, if one was.
pub(super) async fn run(args: &Args, file: Option<&Path>) -> Result<Exit, Failure> {
    let path = Config::path(file)?;
    if path.symlink_metadata().is_ok() {
        let text = format!(
            "there is a configuration {} already, which is left as it is; add an account to it by hand, and run: postkeep check",
            path.display()
        );
        return Err(Failure::usage(text));
    }
    let mut dialogue = Dialogue { stop: signals::stop_on_signal().map_err(super::no_signals)? };
    let text = configuration(&dialogue.answers().await?);
    let config = Config::read(&text, path.clone())?;
    let [account] = config.accounts.as_slice() else {
        return Err(Failure::usage("the answers make no account"));
    };
    prepare_state_dir(&config.daemon.state_dir)?;
    if let Auth::OAuth2(oauth) = &account.auth {
        // There is no account yet that could be signed in to otherwise.
        let login = Login::new(account, oauth, &config.daemon.state_dir)?.part_of(OWN);
        let signed_in = sign_in(&login, &account.name, &args.how, &mut dialogue).await?;
        output::print(&login::done_text(&account.name, &signed_in))?;
    }
    let mailboxes = tokio::select! {
        listed = mailboxes(account, &config) => listed?,
        _ = dialogue.stop.wait_for(|stop| *stop) => return Err(Failure::usage("stopped; no configuration was written")),
    };
    output::print(&format!("\n{}\n{text}\n", shown(&mailboxes, &account.mailboxes)))?;
    if !dialogue.agrees(&format!("Write this to {}?", path.display()), true).await? {
        output::print("No configuration was written.\n")?;
        return Ok(Exit::Done);
    }
    write(&path, &text)?;
    output::print(&format!("{} is written.\n", path.display()))?;
    let wanted = dialogue.agrees("Mirror all the time, by a service of systemd?", false).await?;
    let next = format!("Next: postkeep sync {} --dry-run, which only tells what would be done\n", account.name);
    if wanted {
        // What is written holds, whatever becomes of the service.
        service::install(file).map_err(|failure| {
            let text = format!(
                "{}\nThe account can be used all the same: postkeep sync {}, or all the time: postkeep run\n\
                 When that is put right: postkeep service install",
                failure.text, account.name
            );
            Failure { text, ..failure }
        })?;
    } else {
        output::print(&next)?;
    }
    Ok(Exit::Done)
}

/// Signs in, and returns the names of the mailboxes that can hold messages.
async fn mailboxes(account: &Account, config: &Config) -> Result<Vec<crate::model::MailboxName>, Failure> {
    let visit = Visit::new(account, &config.daemon.state_dir, false)?;
    let mut session = visit.session().await?;
    let lists = session.list().await.map_err(crate::engine::Error::from)?;
    session.give_back();
    visit.close().await;
    Ok(lists.mailboxes.into_iter().filter(|listed| listed.selectable).map(|listed| listed.name).collect())
}

/// Returns which mailboxes will be mirrored, in words.
fn shown(mailboxes: &[crate::model::MailboxName], filter: &Filter) -> String {
    let (mirrored, left_out): (Vec<_>, Vec<_>) = mailboxes.iter().partition(|name| filter.matches(name));
    let joined = |names: Vec<&crate::model::MailboxName>| {
        names.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let mut text = format!("These mailboxes will be mirrored: {}\n", joined(mirrored));
    if !left_out.is_empty() {
        let _ = writeln!(text, "These are left out, since they hold no mail: {}", joined(left_out));
    }
    text
}

/// Writes a file that was not there, for its owner only, with the directories above it.
fn write(path: &PathBuf, text: &str) -> Result<(), Failure> {
    let write = || {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| Failure {
        exit: Exit::Partial,
        text: format!("cannot write {}: {error}", path.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_tells_where_its_mailbox_is() {
        let server = |host: &str| Provider::Server(host.to_owned());
        let rows = [
            ("a@outlook.com", Provider::Outlook),
            ("a@Hotmail.FR", Provider::Outlook),
            ("a@live.co.uk", Provider::Outlook),
            ("a@msn.com", Provider::Outlook),
            ("a@gmail.com", server("imap.gmail.com")),
            ("a@me.com", server("imap.mail.me.com")),
            ("a@example.org", server("imap.example.org")),
            ("a@mail.outlook.example", server("imap.mail.outlook.example")),
        ];
        for (email, found) in rows {
            assert_eq!(provider(email), found, "{email}");
        }
        for (text, good) in [("a@b.c", true), ("a@b", false), ("@b.c", false), ("a b@c.d", false), ("", false)] {
            assert_eq!(is_address(text), good, "{text}");
        }
    }

    #[test]
    fn a_server_may_have_a_port() {
        let rows = [
            ("imap.example.org", Some(("imap.example.org", None))),
            ("h:143", Some(("h", Some(143)))),
            ("::1", Some(("::1", None))),
            ("[::1]:143", Some(("::1", Some(143)))),
            ("h:0", None),
            ("h:imap", None),
        ];
        for (text, found) in rows {
            let found = found.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(host_and_port(text), found, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let maildir = dir.path().join("it's \"mail\"").display().to_string();
        let outlook = Place::Outlook { client_id: "id".to_owned(), tenant: Some("organizations") };
        let server = Place::Server {
            host: "::1".to_owned(),
            port: Some(1143),
            encrypted: false,
            username: "ü\\\"".to_owned(),
            password_command: vec!["pass".to_owned(), "a'b".to_owned()],
        };
        for server in [outlook, server] {
            let answers = Answers { email: "a@b.c".to_owned(), name: "x".to_owned(), maildir: maildir.clone(), server };
            let text = configuration(&answers);
            let config = Config::read(&text, "/c.toml".into()).unwrap();
            assert_eq!(config.accounts[0].maildir.display().to_string(), maildir, "{text}");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c.toml");
        write(&path, "one").unwrap();
        assert!(write(&path, "two").is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        let mode = |path: &Path| std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path).unwrap()) & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }
}
