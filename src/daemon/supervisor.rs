//! Starts the accounts, stops them, and tells them and the world what concerns all of them.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};

use super::account::{Ask, Event, Keeper};
use super::clock::{self, Ticks};
use super::control::{self, Answer, Control, Request};
use super::hooks::{Hooks, hooks};
use super::live::{Board, Live, LiveAccount, State};
use super::metrics::Metrics;
use super::network::Network;
use super::probe;
use super::sleep::{self, Sleep};
use super::systemd::Systemd;
use crate::config::{self, Account, Config, Daemon, Filter, Pattern};
use crate::engine;
use crate::engine::report::Approve;

/// How often it is looked whether all goes well.
const TICK: Duration = Duration::from_secs(10);
/// Nobody needs to know it more often.
const SHORTEST_TICK: Duration = Duration::from_millis(100);
/// How long accounts are waited for when all is to end. What they are at is dropped; what is done is kept.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long the programs are waited for after that, which are told of what was done last.
const LAST_HOOKS: Duration = Duration::from_millis(1500);
/// An account whose loop did not turn for so long hangs.
const HANGS: Duration = Duration::from_secs(120);

/// What the daemon is started with.
pub struct Start {
    /// The settings.
    pub config: Config,
    /// Reads the settings again; a text says what is wrong with them.
    pub reload: Box<dyn Fn() -> Result<Config, String>>,
    /// Becomes true when it is to end.
    pub stop: watch::Receiver<bool>,
}

/// Why the daemon ends.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// Another one is there.
    #[error("another postkeep daemon listens at {0}; postkeep status asks it")]
    Running(String),
    /// The control socket cannot be used.
    #[error("cannot use the control socket {path}: {source}")]
    Control {
        /// The socket.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not give what is needed.
    #[error("cannot watch the system: {0}")]
    System(#[from] io::Error),
    /// Only a new process can mend it.
    #[error("account {account}: {source}")]
    Account {
        /// The account.
        account: String,
        /// What happened.
        source: Box<engine::Error>,
    },
    /// A part of the program ended unexpectedly.
    #[error("a part of the daemon ended unexpectedly: {0}")]
    Panic(#[from] JoinError),
}

/// An account that is being kept.
struct Kept {
    tell: mpsc::UnboundedSender<Event>,
    board: Board,
    beat: watch::Receiver<Duration>,
    begun: watch::Receiver<bool>,
    settings: Account,
    stop: watch::Sender<bool>,
}

/// What an account's task ends with.
type Ended = (String, Result<(), engine::Error>);

struct Supervisor {
    start: Start,
    accounts: BTreeMap<String, Kept>,
    /// Accounts that are to end, and the settings that they are to begin anew with, if any.
    ending: BTreeMap<String, Option<Account>>,
    tell_hooks: watch::Sender<config::Hooks>,
    metrics: Option<Metrics>,
    tasks: JoinSet<Ended>,
    hooks: Hooks,
    systemd: Systemd,
    since: i64,
    is_ready: bool,
}

/// Runs until it is to stop.
///
/// # Errors
/// [`Error`]; then the process is to end, and systemd starts it again.
pub async fn run(start: Start) -> Result<(), Error> {
    let socket = start.config.daemon.socket.clone();
    let control = Control::open(&socket).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::Running(socket.display().to_string()),
        _ => Error::Control { path: socket.display().to_string(), source },
    })?;
    probe::tell();
    let (tell_hooks, settings) = watch::channel(start.config.hooks.clone());
    let (hooks, serve_hooks) = hooks(settings);
    let metrics = start.config.daemon.metrics_file.clone().map(Metrics::new);
    let mut supervisor = Supervisor {
        start,
        accounts: BTreeMap::new(),
        ending: BTreeMap::new(),
        tell_hooks,
        metrics,
        tasks: JoinSet::new(),
        hooks,
        systemd: Systemd::from_environment(),
        since: clock::unix_now(),
        is_ready: false,
    };
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            for account in supervisor.start.config.accounts.clone() {
                supervisor.begin(account);
            }
            let mut serve_hooks = std::pin::pin!(serve_hooks);
            let result = tokio::select! {
                result = supervisor.supervise(&control) => result,
                () = &mut serve_hooks => return Ok(()),
            };
            supervisor.hooks.end();
            if tokio::time::timeout(LAST_HOOKS, serve_hooks).await.is_err() {
                tracing::warn!("gave up a hook that had not ended");
            }
            result
        })
        .await
}

impl Supervisor {
    fn begin(&mut self, account: Account) {
        let name = account.name.clone();
        let (tell, told) = mpsc::unbounded_channel();
        let (beat, beats) = watch::channel(clock::now());
        let (begun, has_begun) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let (board, settings) = (Board::new(&name), account.clone());
        let keeper = Keeper {
            account,
            state_dir: self.start.config.daemon.state_dir.clone(),
            board: board.clone(),
            hooks: self.hooks.clone(),
            beat,
            begun,
            stop: stopped,
        };
        let (tell_own, own_name) = (tell.clone(), name.clone());
        self.tasks.spawn_local(async move { (own_name, keeper.keep(tell_own, told).await) });
        self.accounts.insert(name, Kept { tell, board, beat: beats, begun: has_begun, settings, stop });
    }

    async fn supervise(&mut self, control: &Control) -> Result<(), Error> {
        // Twice as often as systemd wants to hear of it (sd_watchdog_enabled(3)).
        let often = self.systemd.watchdog().map_or(TICK, |time| TICK.min(time / 2));
        let mut ticks = Ticks::every(often.max(SHORTEST_TICK))?;
        // Without it changes are noticed by what no longer answers.
        let mut network = Network::watch().inspect_err(|error| tracing::info!(%error, "cannot watch the network")).ok();
        let mut sleeps = sleep::watch();
        let mut stop = self.start.stop.clone();
        let mut hangups = signal(SignalKind::hangup())?;
        loop {
            self.tell_systemd();
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return self.end().await,
                suspended = ticks.next() => if let Some(time) = suspended? {
                    tracing::info!(seconds = time.as_secs(), "the machine was suspended");
                    self.tell_all(|| Event::Fresh("the machine was suspended"));
                },
                Some(sleep) = sleeps.recv() => match sleep {
                    Sleep::Falls => self.tell_all(|| Event::Sleeps),
                    Sleep::Ends => {
                        // The clock is not to tell it once more.
                        ticks.forget();
                        self.tell_all(|| Event::Fresh("the machine woke up"));
                    }
                },
                changed = changed(&mut network) => match changed {
                    Ok(()) => self.tell_all(|| Event::Fresh("the network is another one")),
                    Err(error) => {
                        tracing::warn!(%error, "no longer watches the network");
                        network = None;
                    }
                },
                _ = hangups.recv() => self.reload(),
                () = begun(&self.accounts), if !self.is_ready => {}
                stream = control.accept() => match stream {
                    Ok(stream) => self.serve(stream),
                    Err(error) => tracing::warn!(%error, "somebody could not ask"),
                },
                Some(ended) = self.tasks.join_next() => self.ended(ended)?,
            }
        }
    }

    fn tell_all(&self, event: impl Fn() -> Event) {
        for kept in self.accounts.values() {
            // One that has ended needs not be told.
            let _ = kept.tell.send(event());
        }
    }

    fn ended(&mut self, ended: Result<Ended, JoinError>) -> Result<(), Error> {
        let (account, result) = ended?;
        result.map_err(|source| Error::Account { account: account.clone(), source: Box::new(source) })?;
        self.accounts.remove(&account);
        if let Some(settings) = self.ending.remove(&account).flatten() {
            self.begin(settings);
        }
        Ok(())
    }

    /// Reads the settings again, and begins those accounts anew whose settings are others. With settings that are wrong
    /// nothing changes.
    fn reload(&mut self) {
        self.systemd.reloading();
        match (self.start.reload)() {
            Ok(config) => self.apply(config),
            Err(error) => tracing::error!(error, "the configuration is wrong, so the old one holds"),
        }
        // Else it is told by the next look.
        self.is_ready = self.systemd.ready();
    }

    fn apply(&mut self, config: Config) {
        let old = &self.start.config.daemon;
        if (&config.daemon.state_dir, &config.daemon.socket) != (&old.state_dir, &old.socket) {
            tracing::warn!("state_dir and socket are what they were until the daemon is started again");
        }
        if config.daemon.metrics_file != old.metrics_file {
            self.metrics = config.daemon.metrics_file.clone().map(Metrics::new);
        }
        self.tell_hooks.send_replace(config.hooks.clone());
        let now: BTreeMap<&str, &Account> =
            self.accounts.iter().map(|(n, kept)| (n.as_str(), &kept.settings)).collect();
        let changes = changes(&now, &config.accounts);
        tracing::info!(changed = changes.len(), "read the configuration again");
        for (name, settings) in changes {
            match (self.accounts.get(&name), settings) {
                (Some(kept), settings) => {
                    // What it is at is brought to an end: nobody else may begin in the middle of it. It has ended
                    // already if nobody hears this.
                    let _ = kept.tell.send(Event::Leave);
                    self.ending.insert(name, settings);
                }
                (None, Some(settings)) => self.begin(settings),
                (None, None) => {}
            }
        }
        let Daemon { state_dir, socket, .. } = self.start.config.daemon.clone();
        self.start.config = Config { daemon: Daemon { state_dir, socket, ..config.daemon }, ..config };
    }

    /// Tells systemd whether the daemon is ready, what it does, and, if every loop turns, that it is alive.
    fn tell_systemd(&mut self) {
        let live: Vec<LiveAccount> = self.accounts.values().map(|kept| kept.board.read()).collect();
        self.systemd.status(sentence(&live));
        if let Some(metrics) = &mut self.metrics {
            metrics.write(&live);
        }
        if !self.is_ready && self.accounts.values().all(|kept| *kept.begun.borrow()) {
            self.is_ready = self.systemd.ready();
        }
        let now = clock::now();
        let turns = |kept: &Kept| now.saturating_sub(*kept.beat.borrow()) < HANGS;
        if self.systemd.watchdog().is_some() && self.accounts.values().all(turns) {
            self.systemd.alive();
        }
    }

    fn serve(&self, stream: tokio::net::UnixStream) {
        let asked: BTreeMap<String, mpsc::UnboundedSender<Event>> =
            self.accounts.iter().map(|(name, kept)| (name.clone(), kept.tell.clone())).collect();
        let boards: Vec<Board> = self.accounts.values().map(|kept| kept.board.clone()).collect();
        let (since, state_dir) = (self.since, self.start.config.daemon.state_dir.clone());
        tokio::task::spawn_local(async move {
            let answer = async |request| match request {
                Request::Status => {
                    let accounts = boards.iter().map(Board::read).collect();
                    Answer::Status(Live { pid: std::process::id(), since, accounts })
                }
                Request::Sync { account, mailboxes, full, dry_run } => {
                    let patterns = mailboxes.iter().filter_map(|text| Pattern::new(text)).collect();
                    let (reply, report) = oneshot::channel();
                    let ask = Ask::Sync { mailboxes: Filter::new(patterns), full, dry_run, reply };
                    pass_on(&asked, &account, ask, report, Answer::Report).await
                }
                Request::Approve { account, mailbox, undo } => {
                    let mailbox = mailbox.as_deref().map(Into::into);
                    let what = Approve { mailbox, undo, state_dir: state_dir.clone() };
                    let (reply, approved) = oneshot::channel();
                    pass_on(&asked, &account, Ask::Approve { what, reply }, approved, |approved| match approved {
                        Ok(mailboxes) => Answer::Approved { mailboxes },
                        Err(text) => Answer::Failed { text },
                    })
                    .await
                }
            };
            if let Err(error) = control::serve(stream, answer).await {
                tracing::debug!(%error, "somebody who asked went away");
            }
        });
    }

    async fn end(&mut self) -> Result<(), Error> {
        self.systemd.stopping();
        for kept in self.accounts.values() {
            kept.stop.send_replace(true);
        }
        let rest = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::warn!(%error, "an account did not end as it should");
                }
            }
        };
        if tokio::time::timeout(FAREWELL, rest).await.is_err() {
            tracing::warn!("an account took too long to end");
        }
        Ok(())
    }
}

/// Waits until it is known of one more account whether it can be mirrored.
async fn begun(accounts: &BTreeMap<String, Kept>) {
    let waiting = accounts.values().map(|kept| kept.begun.clone()).filter(|begun| !*begun.borrow());
    let waits = waiting.map(|mut begun| {
        Box::pin(async move {
            // Its end is told otherwise.
            let _ = begun.wait_for(|begun| *begun).await;
        })
    });
    let waits: Vec<_> = waits.collect();
    if waits.is_empty() {
        std::future::pending::<()>().await;
    }
    futures_util::future::select_all(waits).await;
}

/// Returns the accounts that are to end, and those that are to begin with the settings that they have then.
fn changes(now: &BTreeMap<&str, &Account>, wanted: &[Account]) -> BTreeMap<String, Option<Account>> {
    let new = wanted.iter().filter(|account| now.get(account.name.as_str()) != Some(account));
    let begin = new.map(|account| (account.name.clone(), Some(account.clone())));
    let gone = now.keys().filter(|name| wanted.iter().all(|account| account.name != **name));
    gone.map(|name| ((*name).to_owned(), None)).chain(begin).collect()
}

async fn changed(network: &mut Option<Network>) -> io::Result<()> {
    match network {
        Some(network) => network.changed().await,
        None => std::future::pending().await,
    }
}

/// Lets an account answer.
async fn pass_on<T>(
    accounts: &BTreeMap<String, mpsc::UnboundedSender<Event>>,
    account: &str,
    ask: Ask,
    reply: oneshot::Receiver<T>,
    answer: impl FnOnce(T) -> Answer,
) -> Answer {
    let Some(tell) = accounts.get(account) else { return Answer::NotMine };
    let ended = || Answer::Failed { text: format!("account {account} has just ended") };
    if tell.send(Event::Asked(ask)).is_err() {
        return ended();
    }
    match reply.await {
        Ok(reply) => answer(reply),
        Err(_) => ended(),
    }
}

/// Returns in a sentence what the daemon does.
fn sentence(accounts: &[LiveAccount]) -> String {
    let troubled = |live: &&LiveAccount| live.problem.is_some();
    let words = |live: &LiveAccount| match (&live.problem, live.state) {
        (Some(problem), _) => format!("{}: {}", live.account, problem.escape_debug()),
        (None, State::Starting) => format!("{} is starting", live.account),
        (None, State::Sweeping) => format!("{}: looking at everything", live.account),
        (None, State::Working) => format!("{}: mirroring changes", live.account),
        (None, State::Watching | State::Waiting) => format!("{}: waiting for changes", live.account),
    };
    let mut sorted: Vec<&LiveAccount> = accounts.iter().collect();
    sorted.sort_by_key(|live| !troubled(live));
    sorted.into_iter().map(words).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_begins_with_what_is_wrong() {
        let live = |account: &str, state, problem: Option<&str>| LiveAccount {
            account: account.to_owned(),
            state,
            problem: problem.map(str::to_owned),
            ..LiveAccount::default()
        };
        let accounts =
            [live("a", State::Watching, None), live("b", State::Waiting, Some("cannot reach h:993: no route\n"))];
        assert_eq!(sentence(&accounts), "b: cannot reach h:993: no route\\n; a: waiting for changes");
    }
}
