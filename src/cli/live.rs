//! `postkeep status --watch`: what is going on, on a terminal, as it goes on.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

use super::output::{self, Paint, grouped, harmless, shortened, size};
use super::standing::{AccountStatus, gather};
use super::time::Moment;
use super::{Exit, Failure, signals, status};
use crate::config::{Account, Config};
use crate::daemon::{Answer, Client, Live, LiveAccount, LiveMailbox, Request, State};

/// How often it is looked what goes on, and how often the databases are read.
const REFRESH: Duration = Duration::from_millis(500);
const REREAD: Duration = Duration::from_secs(2);

/// Asks the daemon what it is doing; `None` if none runs.
///
/// # Errors
/// It does not answer as it should.
pub(super) async fn ask(config: &Config) -> Result<Option<Live>, Failure> {
    let cannot =
        |error: io::Error| Failure { exit: Exit::Partial, text: format!("the daemon does not answer: {error}") };
    let Some(mut client) = Client::connect(&config.daemon.socket).await.map_err(cannot)? else { return Ok(None) };
    match client.ask(&Request::Status).await.map_err(cannot)? {
        Answer::Status(live) => Ok(Some(live)),
        Answer::Failed { text } => Err(Failure { exit: Exit::Partial, text }),
        Answer::Report(_) | Answer::Approved { .. } | Answer::NotMine => {
            Err(cannot(io::Error::other("with something else than was asked for")))
        }
    }
}

/// Returns in a line what the daemon does with an account.
pub(super) fn sentence(live: &LiveAccount, now: Moment, paint: Paint) -> String {
    let doing = doing(live, now);
    match &live.problem {
        Some(problem) => paint.bad(&format!("the daemon {doing}: {}", harmless(problem))),
        None => format!("the daemon is {doing}"),
    }
}

/// Shows what goes on until it is interrupted.
pub(super) async fn watch(accounts: &[&Account], config: &Config, paint: Paint) -> Result<Exit, Failure> {
    let mut stop = signals::stop_on_signal().map_err(super::no_signals)?;
    let is_terminal = io::stdout().is_terminal();
    let (mut read, mut stored, mut before) = (None::<Instant>, Vec::new(), None::<(Live, Instant)>);
    loop {
        if read.is_none_or(|at| at.elapsed() >= REREAD) {
            stored.clear();
            for account in accounts {
                stored.push(gather(account, config).await?);
            }
            read = Some(Instant::now());
        }
        let live = ask(config).await?;
        let (width, height) = terminal_size();
        let earlier = before.as_ref().map(|(live, at)| (live, at.elapsed()));
        let frame = Frame { stored: &stored, live: live.as_ref(), earlier, width, height, now: Moment::now(), paint };
        let text = frame.render();
        // Over the old picture, and then away with what is left of it: so nothing flickers.
        let text = if is_terminal { in_place(&text) } else { text + "\n" };
        output::print(&text)?;
        before = live.map(|live| (live, Instant::now()));
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(Exit::Done),
            () = tokio::time::sleep(REFRESH) => {}
        }
    }
}

fn in_place(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{line}\u{1b}[K\n")).collect();
    format!("\u{1b}[H{}\u{1b}[J", lines.trim_end_matches('\n'))
}

/// Returns columns and rows; those of an old terminal where there is none.
fn terminal_size() -> (usize, usize) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        Ok(_) | Err(_) => (80, 24),
    }
}

/// What is shown at one moment.
struct Frame<'a> {
    stored: &'a [AccountStatus],
    live: Option<&'a Live>,
    /// What was shown before, and how long ago.
    earlier: Option<(&'a Live, Duration)>,
    width: usize,
    height: usize,
    now: Moment,
    paint: Paint,
}

/// Columns beside the name: messages, last complete, state.
const BESIDE: usize = 2 + 2 + 10 + 2 + 14 + 2 + 24;

impl Frame<'_> {
    fn render(&self) -> String {
        let mut lines = vec![match self.live {
            Some(live) => {
                let since = Moment::from_seconds(live.since).ago(self.now);
                let text = format!("postkeep daemon (process {}), began {since}; Ctrl-C ends this view only", live.pid);
                shortened(&text, self.width)
            }
            None => self.paint.bad("no daemon runs; this is what the databases say"),
        }];
        for stored in self.stored {
            let live = self.live.and_then(|live| live.accounts.iter().find(|a| a.account == stored.account));
            lines.push(String::new());
            lines.extend(self.account(stored, live));
        }
        let fits = self.height.saturating_sub(1).max(3);
        if lines.len() > fits {
            let more = lines.len() - fits + 1;
            lines.truncate(fits - 1);
            lines.push(format!("  … and {more} more lines; a higher terminal shows them"));
        }
        lines.join("\n") + "\n"
    }

    fn account(&self, stored: &AccountStatus, live: Option<&LiveAccount>) -> Vec<String> {
        let width = self.width;
        let mut lines = Vec::new();
        let doing = live.map_or_else(|| "not mirrored".to_owned(), |live| doing(live, self.now));
        let doing = shortened(&doing, width.saturating_sub(stored.account.chars().count() + 2));
        lines.push(format!("{}: {doing}", self.paint.strong(&stored.account)));
        if let Some(problem) = live.and_then(|live| live.problem.as_ref()) {
            lines.push(self.paint.bad(&format!("  {}", shortened(&harmless(problem), width.saturating_sub(2)))));
        }
        if let Some(rates) = live.and_then(|live| self.rates(live)) {
            lines.push(format!("  {rates}"));
        }
        let name_width = width.saturating_sub(BESIDE).clamp(12, 60);
        lines.push(format!("  {:<name_width$}  {:>10}  {:<14}  NOW", "MAILBOX", "MESSAGES", "LAST COMPLETE"));
        let mut rows: Vec<_> = stored
            .mailboxes
            .iter()
            .map(|mailbox| (mailbox, live.and_then(|live| live.mailboxes.get(&mailbox.mailbox))))
            .collect();
        // What something happens to, or is wrong with, is not to be looked for.
        rows.sort_by_key(|(mailbox, live)| (live.is_none_or(|l| l.finished), mailbox.exit() == Exit::Done));
        for (mailbox, live) in rows {
            let name = shortened(&harmless(&mailbox.mailbox), name_width);
            let complete = mailbox.last_complete.map_or("never".to_owned(), |moment| moment.ago(self.now));
            let state = match live.and_then(going_on) {
                Some(text) => text,
                None => status::state(mailbox),
            };
            let state = shortened(&state, 24);
            let state = if mailbox.exit() == Exit::Done { self.paint.good(&state) } else { state };
            lines.push(format!("  {name:<name_width$}  {:>10}  {complete:<14}  {state}", grouped(mailbox.synced)));
        }
        lines
    }

    /// Returns how much is transferred in a second, if anything is.
    fn rates(&self, live: &LiveAccount) -> Option<String> {
        let (earlier, elapsed) = self.earlier?;
        let before = earlier.accounts.iter().find(|a| a.account == live.account)?;
        let done = |live: &LiveAccount| live.mailboxes.values().map(|m| m.done).sum::<u64>();
        let bytes = live.total.bytes.checked_sub(before.total.bytes)?;
        let messages = done(live).saturating_sub(done(before));
        let per_second = |count: u64| (u128::from(count) * 1000 / elapsed.as_millis().max(1)) as u64;
        (messages > 0 || bytes > 0)
            .then(|| format!("{} messages/s, {}/s", grouped(per_second(messages)), size(per_second(bytes))))
    }
}

/// Returns what goes on with an account, in words.
fn doing(live: &LiveAccount, now: Moment) -> String {
    let mut text = match live.state {
        State::Starting => "starting".to_owned(),
        State::Sweeping => "looking at everything".to_owned(),
        State::Working => "mirroring changes".to_owned(),
        State::Watching => "waiting for changes".to_owned(),
        State::Waiting => match live.retry_at {
            Some(at) => format!("tries again {}", until(at, now)),
            None => "waiting".to_owned(),
        },
    };
    // Writing to a String cannot fail.
    if let Some(at) = live.throttled_until.filter(|at| Moment::from_seconds(*at) > now) {
        let _ = write!(text, "; slowed down, goes on {}", until(at, now));
    }
    if !live.watched.is_empty() {
        let _ = write!(text, "; told of {}", harmless(&live.watched.join(", ")));
    }
    if !live.files_watched {
        text.push_str("; files are polled");
    }
    if live.waiting > 0 {
        let _ = write!(text, "; {} waiting", grouped(live.waiting));
    }
    if let Some(at) = live.swept_at {
        let _ = write!(text, "; all seen {}", Moment::from_seconds(at).ago(now));
    }
    text
}

fn until(at: i64, now: Moment) -> String {
    let seconds = Moment::from_seconds(at).0.duration_since(now.0).as_secs();
    match seconds {
        ..1 => "now".to_owned(),
        1..120 => format!("in {seconds} s"),
        _ => format!("in {} min", seconds / 60),
    }
}

/// Returns how far a mailbox is; none if nothing goes on there.
fn going_on(live: &LiveMailbox) -> Option<String> {
    if live.finished || live.planned == 0 {
        return None;
    }
    let done = live.done.min(live.planned);
    Some(format!("{} of {} ({} %)", grouped(done), grouped(live.planned), done * 100 / live.planned))
}

#[cfg(test)]
mod tests {
    use super::super::standing::MailboxStatus;
    use super::*;
    use crate::daemon::Total;
    use std::collections::BTreeMap;

    const NOW: i64 = 1_793_620_800;

    fn mailbox(name: &str, synced: u64, last_complete: Option<i64>) -> MailboxStatus {
        MailboxStatus {
            mailbox: name.to_owned(),
            synced,
            pending: 0,
            withheld: vec![],
            refused: vec![],
            skipped: vec![],
            held: None,
            last_complete: last_complete.map(Moment::from_seconds),
            missing_since: None,
            problem: None,
        }
    }

    fn stored() -> Vec<AccountStatus> {
        let mut mailboxes = vec![mailbox("INBOX", 12_345, Some(NOW - 5)), mailbox("Lists/rust", 1200, None)];
        mailboxes.extend((0..30).map(|n| mailbox(&format!("Archive/{n}"), 10, Some(NOW - 120))));
        let last_complete = None;
        let (account, maildir) = ("personal".to_owned(), "/home/u/Mail".to_owned());
        vec![AccountStatus {
            account,
            maildir,
            under_way: true,
            failure: None,
            quiet: None,
            not_connected_since: None,
            last_complete,
            mailboxes,
        }]
    }

    fn live(done: u64, bytes: u64) -> Live {
        let busy = LiveMailbox { planned: 20_000, done, finished: false };
        let account = LiveAccount {
            account: "personal".to_owned(),
            state: State::Sweeping,
            mailboxes: BTreeMap::from([("Lists/rust".to_owned(), busy)]),
            watched: vec!["INBOX".to_owned()],
            files_watched: true,
            total: Total { bytes, ..Total::default() },
            swept_at: Some(NOW - 300),
            ..LiveAccount::default()
        };
        Live { pid: 4711, since: NOW - 7200, accounts: vec![account] }
    }

    fn frame(live: Option<&Live>, earlier: Option<(&Live, Duration)>, height: usize) -> String {
        let stored = stored();
        let now = Moment::from_seconds(NOW);
        let text = Frame { stored: &stored, live, earlier, width: 80, height, now, paint: Paint(false) }.render();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "wider than 80 columns:\n{text}");
        assert!(text.lines().count() < height, "higher than {height} rows:\n{text}");
        text
    }

    #[test]
    fn what_goes_on_comes_first_and_fits() {
        let (before, now) = (live(1000, 1_000_000), live(1250, 3_000_000));
        insta::assert_snapshot!(frame(Some(&now), Some((&before, Duration::from_millis(500))), 12), @r"
    postkeep daemon (process 4711), began 2 hours ago; Ctrl-C ends this view only

    personal: looking at everything; told of INBOX; all seen 5 minutes ago
      500 messages/s, 4.0 MB/s
      MAILBOX                     MESSAGES  LAST COMPLETE   NOW
      Lists/rust                     1,200  never           1,250 of 20,000 (6 %)
      INBOX                         12,345  just now        in sync
      Archive/0                         10  2 minutes ago   in sync
      Archive/1                         10  2 minutes ago   in sync
      Archive/2                         10  2 minutes ago   in sync
      … and 27 more lines; a higher terminal shows them
    ");
    }

    #[test]
    fn a_failure_says_when_it_is_tried_again() {
        let mut now = live(0, 0);
        now.accounts[0].state = State::Waiting;
        now.accounts[0].problem = Some("cannot reach imap.example.org:993: no route to host".to_owned());
        now.accounts[0].retry_at = Some(NOW + 65);
        insta::assert_snapshot!(frame(Some(&now), None, 8), @r"
    postkeep daemon (process 4711), began 2 hours ago; Ctrl-C ends this view only

    personal: tries again in 65 s; told of INBOX; all seen 5 minutes ago
      cannot reach imap.example.org:993: no route to host
      MAILBOX                     MESSAGES  LAST COMPLETE   NOW
      Lists/rust                     1,200  never           0 of 20,000 (0 %)
      … and 31 more lines; a higher terminal shows them
    ");
    }

    #[test]
    fn without_a_daemon_the_databases_say_what_they_know() {
        insta::assert_snapshot!(frame(None, None, 7), @r"
    no daemon runs; this is what the databases say

    personal: not mirrored
      MAILBOX                     MESSAGES  LAST COMPLETE   NOW
      Lists/rust                     1,200  never           never complete
      … and 31 more lines; a higher terminal shows them
    ");
    }
}
