//! `postkeep check`: the doctor. It looks at everything that a pass needs, and changes nothing on either side; it works
//! beside a daemon. What is found is judged by `findings`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::findings::{self, Access, FileSystem, Finding, Left, Mark};
use super::output::{self, Paint, harmless};
use super::time::Moment;
use super::{Exit, Failure, live, service, signals};
use crate::auth::TokenError;
use crate::config::{Account, Auth, Config, Layout, Provider, TlsMode};
use crate::db::{AccountState, Db, Service};
use crate::engine::root::{judge, with_what_came};
use crate::engine::{self, Visit};
use crate::imap::{self, Habit, Quirks, Session};
use crate::maildir::{self, Root};

/// Look whether everything is as it should be, and say what to do where it is not
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The account [default: all]
    #[arg(value_name = "ACCOUNT")]
    account: Option<String>,
    /// Ask no server
    #[arg(long)]
    offline: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What was found about an account.
#[derive(Debug, Serialize)]
struct Examined {
    account: String,
    findings: Vec<Finding>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    findings: &'a [Finding],
    accounts: &'a [Examined],
    exit_code: u8,
}

/// Runs the command. `file` is the configuration that was named, if one was.
pub(super) async fn run(args: &Args, file: Option<&Path>, paint: Paint) -> Result<Exit, Failure> {
    let mut stop = signals::stop_on_signal().map_err(super::no_signals)?;
    let (general, accounts) = tokio::select! {
        found = examine(args, file) => found?,
        // A sign-in that is being renewed is kept in any case.
        _ = stop.wait_for(|stop| *stop) => {
            return Err(Failure { exit: Exit::Partial, text: "stopped before everything was looked at".to_owned() });
        }
    };
    let all = general.iter().chain(accounts.iter().flat_map(|account| &account.findings));
    let exit = Exit::of_all(all.map(|finding| finding.mark.exit()));
    let text = if args.json {
        let document = Document { findings: &general, accounts: &accounts, exit_code: exit.code() };
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        render(&general, &accounts, paint)
    };
    output::print(&text)?;
    Ok(exit)
}

async fn examine(args: &Args, file: Option<&Path>) -> Result<(Vec<Finding>, Vec<Examined>), Failure> {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            let finding = Finding::problem("configuration", Exit::Usage, error.to_string());
            return Ok((vec![finding], Vec::new()));
        }
    };
    let chosen: Vec<&Account> = match &args.account {
        Some(name) => vec![super::account(&config, name)?],
        None => config.accounts.iter().collect(),
    };
    let mut accounts = Vec::new();
    for account in chosen {
        accounts
            .push(Examined { account: account.name.clone(), findings: about(account, &config, args.offline).await });
    }
    Ok((general(&config, file).await, accounts))
}

/// Finds out what concerns all accounts.
async fn general(config: &Config, file: Option<&Path>) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some((path, access)) = Config::path(file).ok().and_then(|path| Some((path.clone(), access(&path)?))) {
        found.push(findings::configuration(&path, access, config.accounts.len()));
    }
    let state_dir = &config.daemon.state_dir;
    found.push(findings::state_dir(state_dir, access(state_dir), &open_files(state_dir)));
    let directories = config.accounts.iter().map(watched_directories).sum();
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").ok();
    found.push(findings::inotify(directories, most.and_then(|text| text.trim().parse().ok())));
    found.push(match live::ask(config).await {
        Ok(daemon) => findings::daemon(daemon.is_some(), service::unit().is_some_and(|unit| unit.exists())),
        Err(failure) => Finding::problem("daemon", failure.exit, failure.text),
    });
    found
}

/// Returns whose a file is and who may use it; none if there is no such file.
fn access(path: &Path) -> Option<Access> {
    let found = fs::metadata(path).ok()?;
    Some(Access { ours: found.uid() == rustix::process::geteuid().as_raw(), mode: found.mode() & 0o7777 })
}

/// Returns the files with secrets and mail headers that others could read or change, with their modes.
fn open_files(state_dir: &Path) -> Vec<(String, u32)> {
    let Ok(entries) = fs::read_dir(state_dir) else { return Vec::new() };
    let files = entries.filter_map(|entry| {
        let (name, path) = entry.ok().map(|entry| (entry.file_name(), entry.path()))?;
        let name = name.into_string().ok().filter(|n| n.ends_with(".token") || n.ends_with(".sqlite3"))?;
        let mode = access(&path)?.mode;
        (mode & 0o077 != 0).then_some((name, mode))
    });
    let mut files: Vec<_> = files.collect();
    // Sign-ins first.
    files.sort_by_key(|(name, _)| (!name.ends_with(".token"), name.clone()));
    files
}

fn layout(account: &Account) -> maildir::Layout {
    match account.layout {
        Layout::Nested => maildir::Layout::Nested,
        Layout::PlusPlus => maildir::Layout::PlusPlus,
    }
}

/// Returns how many directories the daemon watches for an account.
fn watched_directories(account: &Account) -> u64 {
    let Ok(Some(root)) = Root::open(&account.maildir, layout(account)) else { return 0 };
    let Ok(found) = root.mailboxes() else { return 0 };
    let above: BTreeSet<&Path> = found.iter().flat_map(|(_, path)| path.ancestors()).collect();
    (2 * found.len() + above.len()) as u64
}

/// Finds out what concerns one account.
async fn about(account: &Account, config: &Config, offline: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    if account.provider == Some(Provider::Outlook) {
        found.push(findings::only_mailboxes());
    }
    // A copy: to open the database itself could change it.
    let state = match Db::scratch(&config.daemon.database(&account.name)) {
        Ok(db) => db.read(|tx| Ok((tx.account()?, tx.service()?))).await,
        Err(error) => Err(error),
    };
    let service = match state {
        Ok((state, service)) => {
            found.extend(here(account, state));
            service
        }
        Err(error) => {
            found.push(Finding::problem("database", Exit::Partial, error.to_string()));
            Service::default()
        }
    };
    there(account, &config.daemon.state_dir, &service, offline, &mut found).await;
    found
}

/// Looks at the disk.
fn here(account: &Account, state: AccountState) -> Vec<Finding> {
    let mut found = Vec::new();
    let path = &account.maildir;
    let opened = Root::open(path, layout(account)).and_then(|root| {
        let marker = root.as_ref().map(Root::marker).transpose()?.flatten();
        Ok((root.is_some(), marker))
    });
    let is_there = match opened {
        Ok((is_there, marker)) => {
            let state = with_what_came(state, marker.as_ref());
            match judge(&account.name, path, is_there, marker.as_ref(), &state) {
                Ok(_) => Ok(is_there),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(engine::Error::from(error)),
    };
    let place = existing(path);
    let writable = rustix::fs::access(&place, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok();
    found.push(match (is_there, access(path)) {
        (Err(error), _) => Finding::problem("maildir", error.outcome().into(), error.to_string()),
        (Ok(true), Some(access)) => findings::root(path, access, writable),
        (Ok(_), _) if writable => {
            Finding::ok("maildir", format!("{} is not there yet; the first sync makes it", path.display()))
        }
        (Ok(_), _) => {
            let text = format!("{} is not there, and {} cannot be written to", path.display(), place.display());
            Finding::problem("maildir", Exit::Partial, text).advise("make it, and let it be yours")
        }
    });
    if let Ok(stat) = rustix::fs::statvfs(&place) {
        let files = (stat.f_files > 0).then_some(stat.f_favail);
        found.push(findings::disk(&place, Left { bytes: stat.f_bavail.saturating_mul(stat.f_frsize), files }));
        if let Ok(kind) = rustix::fs::statfs(&place) {
            // The type of the number differs between machines; as many bits as the kinds have are the same on all.
            let kind = u64::from(u32::try_from(i128::from(kind.f_type) & 0xffff_ffff).unwrap_or(0));
            let found_kind = FileSystem { kind, longest_name: stat.f_namemax, ignores_case: ignores_case(path) };
            found.push(findings::file_system(found_kind));
        }
    }
    found
}

/// Returns the path, or the nearest above it that is there.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// Tells whether the marker of a root is found under another spelling; none if there is no marker.
fn ignores_case(root: &Path) -> Option<bool> {
    let inode = |name: &str| fs::metadata(root.join(name)).ok().map(|found| found.ino());
    let marker = inode(".postkeep")?;
    Some(inode(".POSTKEEP") == Some(marker))
}

/// Looks at the sign-in and the server.
async fn there(account: &Account, state_dir: &Path, service: &Service, offline: bool, found: &mut Vec<Finding>) {
    if matches!(account.auth, Auth::Password(_)) && Quirks::of_host(&account.host).has(Habit::Sweeps) {
        found.push(findings::password_at_outlook(&account.name));
        return;
    }
    let now = Timestamp::now().as_second();
    let ipv4_only = service.ipv4_until.is_some_and(|until| until > now);
    let visit = match Visit::new(account, state_dir, ipv4_only) {
        Ok(visit) => visit,
        Err(error) => {
            found.push(failed(account, &error));
            return;
        }
    };
    let quiet = service.quiet_at(now);
    if offline || quiet.is_some() {
        found.push(kept(account, &visit).await);
        found.push(match quiet {
            Some((until, why)) => {
                let until = Moment::from_seconds(until).exact(&TimeZone::system());
                let text = format!("it is left alone until {until}, since {why}; so it was not asked");
                Finding::problem("server", Exit::Unreachable, text)
            }
            None => Finding::ok("server", format!("{}:{} was not asked (--offline)", account.host, account.port)),
        });
        return;
    }
    if let Err(error) = ask(account, &visit, now, found).await {
        found.push(failed(account, &error));
    }
    visit.close().await;
}

/// Looks whether there is a sign-in, without using it.
async fn kept(account: &Account, visit: &Visit<'_>) -> Finding {
    match visit.tokens() {
        None => Finding::ok("sign_in", format!("{} signs in with a password, which was not tried", account.username)),
        Some(tokens) => match tokens.kept().await {
            Ok((place, name)) => {
                let text = findings::kept(&place.to_string(), name.as_deref());
                Finding::ok("sign_in", format!("{text}; it was not tried"))
            }
            Err(error) => failed(account, &error.into()),
        },
    }
}

/// Signs in and asks the server what it can do.
async fn ask(account: &Account, visit: &Visit<'_>, now: i64, found: &mut Vec<Finding>) -> Result<(), engine::Error> {
    if let Some(tokens) = visit.tokens() {
        let (place, name) = tokens.kept().await?;
        let token = tokens.token().await;
        found.push(findings::clock(tokens.clock_ahead()));
        let token = token?;
        let name = token.username().map(ToOwned::to_owned).or(name);
        found.push(findings::renewed(&place.to_string(), name.as_deref(), token.lifetime()));
        if let Some(complaint) = tokens.complaint().await {
            found.push(Finding::problem("sign_in", Exit::Partial, complaint));
        }
    } else {
        found.push(findings::clock(None));
    }
    let mut session = visit.session().await?;
    found.extend(server(account, &session, now));
    if visit.tokens().is_none() {
        found.push(Finding::ok("sign_in", format!("the server lets {} in with the password", account.username)));
    }
    let lists = session.list().await?;
    let selectable = lists.mailboxes.iter().filter(|listed| listed.selectable);
    let (mirrored, left_out): (Vec<_>, Vec<_>) = selectable.partition(|listed| account.mailboxes.matches(&listed.name));
    let left_out: Vec<String> = left_out.iter().map(|listed| listed.name.to_string()).collect();
    found.push(findings::mailboxes(mirrored.len(), &left_out));
    for (name, why) in &lists.unusable {
        found.push(Finding::problem("mailboxes", Exit::Partial, format!("{name} cannot be mirrored: {why}")));
    }
    session.give_back();
    Ok(())
}

/// Tells of the connection, and of what the server can do.
fn server(account: &Account, session: &Session, now: i64) -> Vec<Finding> {
    let capabilities = session.capabilities();
    let mut found = Vec::new();
    if let Some(way) = session.way() {
        let day = |until: i64| Timestamp::from_second(until).map(|until| until.strftime("%Y-%m-%d").to_string());
        let on = way.certificate_until.and_then(|until| day(until).ok()).unwrap_or_default();
        let encrypted = account.tls == TlsMode::Implicit;
        found.push(findings::tls(encrypted, &way.host, way.certificate_until, &on, now));
        if way.host != account.host {
            let text = format!("{} could not be reached; {} serves the same mailbox", account.host, way.host);
            found.push(Finding::note("server", text));
        }
    }
    found.push(findings::strategy(capabilities, session.quirks()));
    found.push(findings::watching(capabilities, &account.watch, &every(account.poll_interval.as_secs())));
    found.push(findings::extensions(capabilities));
    found
}

fn every(seconds: u64) -> String {
    if seconds.is_multiple_of(60) { output::many(seconds / 60, "minute") } else { output::many(seconds, "second") }
}

/// Returns what an error says, and what to do about it where it does not say that itself.
fn failed(account: &Account, error: &engine::Error) -> Finding {
    let exit = Exit::from(error.outcome());
    let text = error.to_string();
    let (host, port) = (&account.host, account.port);
    match error {
        engine::Error::Token(TokenError::NoClientId { account }) => findings::no_client_id(account),
        engine::Error::Imap(imap::Error::Certificate { .. }) => Finding::problem("tls", exit, text).advise(
            "nothing was sent; if the server is one of your own, name the certificate of its authority in tls_ca_file",
        ),
        engine::Error::Imap(imap::Error::Unreachable { .. }) => Finding::problem("server", exit, text)
            .advise(format!("is this machine online, and does a server listen at {host}, port {port}?")),
        engine::Error::Imap(imap::Error::NotConnected { .. }) => Finding::problem("server", exit, text).advise(
            "see whether IMAP is allowed in the settings of the mailbox (Outlook.com: Settings, Mail, Forwarding and IMAP), \
             and whether the sign-in is that of this mailbox",
        ),
        engine::Error::Imap(imap::Error::SignIn { .. }) => Finding::problem("sign_in", exit, text).advise(format!(
            "see whether username and password of [account.{}] are right",
            account.name
        )),
        engine::Error::Auth(_) | engine::Error::Token(_) | engine::Error::SignIn(_) => {
            Finding::problem("sign_in", exit, text)
        }
        _ => Finding::problem("server", exit, text),
    }
}

fn render(general: &[Finding], accounts: &[Examined], paint: Paint) -> String {
    let mut text = listed(general, paint);
    for Examined { account, findings } in accounts {
        text.push_str(&format!("{}\n{}", paint.strong(account), listed(findings, paint)));
    }
    text
}

/// Returns a line for each finding, and one for what to do about it.
fn listed(findings: &[Finding], paint: Paint) -> String {
    let mut text = String::new();
    for Finding { topic, mark, text: what, advice } in findings {
        let word = format!("{:<7}", mark.word());
        let word = match mark {
            Mark::Ok => paint.good(&word),
            Mark::Note => paint.strong(&word),
            Mark::Problem(_) => paint.bad(&word),
        };
        // The excerpt of a configuration has lines of its own.
        let what: Vec<String> = what.lines().map(harmless).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {word} {topic}: {}", what.join("\n          "));
        if let Some(advice) = advice {
            let _ = writeln!(text, "          {}", harmless(advice));
        }
    }
    text
}
