//! Starts the user's programs when something happened: one at a time, after things have calmed down, for a limited time.
//! Their failure is told, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::{account, clock};
use crate::config;
use crate::engine::report::{Deed, FileChange, Outcome};
use crate::model::MailboxName;

/// A program is started when nothing has changed for so long, …
const CALM: Duration = Duration::from_millis(500);
/// … or when the first change is this old.
const LONGEST_CALM: Duration = Duration::from_secs(10);
/// More lines than this are not kept: the program is started at once, and again for what follows.
const MOST: usize = 10_000;
/// A program that takes longer is stopped.
const TIME_LIMIT: Duration = Duration::from_secs(10 * 60);
/// The user is told again of what has not changed after this time.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What the user is told of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub(super) struct Attention {
    account: String,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mailbox: Option<String>,
}

impl Attention {
    /// Removals of a mailbox wait for approval.
    pub(super) fn held(account: &str, mailbox: &MailboxName) -> Self {
        Self { account: account.to_owned(), reason: "held", mailbox: Some(mailbox.to_string()) }
    }
}

/// A line about a file, as `changed` reads it.
#[derive(Serialize)]
struct Line<'a> {
    account: &'a str,
    mailbox: &'a str,
    change: Deed,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_path: Option<String>,
}

#[derive(Debug)]
enum Message {
    Changed { line: String, is_new_mail: bool },
    Attention(Attention),
    Succeeded(String),
    End,
}

/// Where it is told what happened; clones lead to the same place.
#[derive(Clone, Debug)]
pub(super) struct Hooks(mpsc::UnboundedSender<Message>);

impl Hooks {
    /// Tells of a file that changed.
    pub(super) fn changed(&self, account: &str, watched: &[String], change: &FileChange) {
        let FileChange { mailbox, deed, path, old_path } = change;
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let (path, old_path) = (text(path), old_path.as_deref().map(text));
        let line = Line { account, mailbox: mailbox.as_str(), change: *deed, path, old_path };
        let is_watched = mailbox.is_inbox() || watched.iter().any(|name| name == mailbox.as_str());
        if let Ok(line) = serde_json::to_string(&line) {
            self.tell(Message::Changed { line, is_new_mail: is_watched && *deed == Deed::Arrived });
        }
    }

    /// Tells that the user is needed.
    pub(super) fn attention(&self, attention: Attention) {
        self.tell(Message::Attention(attention));
    }

    /// Tells that an account was mirrored.
    pub(super) fn succeeded(&self, account: &str) {
        self.tell(Message::Succeeded(account.to_owned()));
    }

    /// Tells how an account could not be mirrored.
    pub(super) fn failed(&self, account: &str, outcome: Outcome) {
        if account::needs_the_user(outcome) {
            let reason = if outcome == Outcome::SignIn { "sign_in" } else { "held" };
            self.attention(Attention { account: account.to_owned(), reason, mailbox: None });
        }
    }

    /// Tells that nothing more will be told: what was, is passed on at once, and then whoever starts the programs ends.
    pub(super) fn end(&self) {
        self.tell(Message::End);
    }

    fn tell(&self, message: Message) {
        // Nobody listens when all ends.
        let _ = self.0.send(message);
    }
}

/// What was told and not yet passed on.
#[derive(Default)]
struct Pending {
    changed: Vec<String>,
    new_mail: Vec<String>,
    first: Option<Instant>,
    last: Option<Instant>,
    attention: BTreeSet<Attention>,
    /// When the user was told of what.
    told: BTreeMap<Attention, Duration>,
    /// When an account was mirrored last.
    succeeded: BTreeMap<String, Duration>,
}

/// Returns where things are told, and what starts the programs.
pub(super) fn hooks(settings: watch::Receiver<config::Hooks>) -> (Hooks, impl Future<Output = ()>) {
    let (tell, told) = mpsc::unbounded_channel();
    (Hooks(tell), serve(settings, told))
}

async fn serve(changing: watch::Receiver<config::Hooks>, mut told: mpsc::UnboundedReceiver<Message>) {
    let (mut pending, mut ends) = (Pending::default(), false);
    while !ends {
        let settings = changing.borrow().clone();
        let due = pending.due().unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
        tokio::select! {
            message = told.recv() => match message {
                Some(Message::End) | None => ends = true,
                Some(message) => pending.take(message, &settings),
            },
            () = sleep_until(due) => {}
        }
        pending.notice_silence(clock::now());
        for attention in std::mem::take(&mut pending.attention) {
            let line = serde_json::to_string(&attention).unwrap_or_default() + "\n";
            run("attention", &settings.attention, line).await;
        }
        if ends || pending.due().is_some_and(|due| due <= Instant::now()) {
            (pending.first, pending.last) = (None, None);
            run("changed", &settings.changed, lines(std::mem::take(&mut pending.changed))).await;
            run("new_mail", &settings.new_mail, lines(std::mem::take(&mut pending.new_mail))).await;
        }
    }
}

fn lines(lines: Vec<String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}

impl Pending {
    fn due(&self) -> Option<Instant> {
        if self.changed.len().max(self.new_mail.len()) >= MOST {
            return self.last;
        }
        Some((self.last? + CALM).min(self.first? + LONGEST_CALM))
    }

    fn take(&mut self, message: Message, settings: &config::Hooks) {
        match message {
            Message::Changed { line, is_new_mail } => {
                let wants_new_mail = is_new_mail && !settings.new_mail.is_empty();
                if settings.changed.is_empty() && !wants_new_mail {
                    return;
                }
                let now = Instant::now();
                (self.first, self.last) = (Some(self.first.unwrap_or(now)), Some(now));
                if wants_new_mail {
                    self.new_mail.push(line.clone());
                }
                if !settings.changed.is_empty() {
                    self.changed.push(line);
                }
            }
            Message::Attention(attention) => self.call(attention, clock::now()),
            Message::Succeeded(account) => {
                // Once it works again, the next time that it does not is news.
                self.told.retain(|told, _| told.account != account || told.mailbox.is_some());
                self.succeeded.insert(account, clock::now());
            }
            Message::End => {}
        }
    }

    /// Calls the user, unless that was done already.
    fn call(&mut self, attention: Attention, now: Duration) {
        if self.told.get(&attention).is_none_or(|at| now.saturating_sub(*at) >= DAY) {
            self.told.insert(attention.clone(), now);
            self.attention.insert(attention);
        }
    }

    /// Calls the user for accounts that were not mirrored for a day.
    fn notice_silence(&mut self, now: Duration) {
        let silent = self.succeeded.iter().filter(|(_, at)| now.saturating_sub(**at) >= DAY);
        for account in silent.map(|(account, _)| account.clone()).collect::<Vec<_>>() {
            self.call(Attention { account, reason: "nothing_for_a_day", mailbox: None }, now);
        }
    }
}

/// Starts a program, gives it its input, and waits until it has ended.
async fn run(hook: &'static str, words: &[String], input: String) {
    let Some((program, arguments)) = words.split_first() else { return };
    if input.is_empty() {
        return;
    }
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // A group of its own, so that what it starts is stopped along with it.
    let child = command.process_group(0).kill_on_drop(true).spawn();
    match child {
        Ok(child) => match timeout(TIME_LIMIT, finish(child, input)).await {
            Ok(Ok(())) => tracing::debug!(hook, program, "a hook was run"),
            Ok(Err(why)) => tracing::warn!(hook, program, why, "a hook failed"),
            Err(_) => tracing::warn!(hook, program, seconds = TIME_LIMIT.as_secs(), "a hook took too long"),
        },
        Err(error) => tracing::warn!(hook, program, %error, "a hook could not be started"),
    }
}

/// Stops the group of a program that has not ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0
            && let Err(error) = kill_process_group(pid, Signal::KILL)
        {
            tracing::debug!(%error, "the programs of a hook had ended already");
        }
    }
}

async fn finish(mut child: Child, input: String) -> Result<(), String> {
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program need not read what it is told.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let read = async {
        let mut said = Vec::new();
        if let Some(stderr) = stderr {
            let _ = stderr.take(4096).read_to_end(&mut said).await;
        }
        said
    };
    let ((), said, status) = tokio::join!(write, read, child.wait());
    group.0 = None;
    let said = String::from_utf8_lossy(&said);
    let said = said.lines().next().map_or(String::new(), |line| format!(": {}", line.escape_debug()));
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{status}{said}")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_user_is_called_once_a_day_for_the_same_thing() {
        let held = || Attention::held("a", &"INBOX".into());
        let mut pending = Pending::default();
        let rows = [(0, 1), (10, 0), (86_399, 0), (86_400, 1)];
        for (at, calls) in rows {
            pending.call(held(), seconds(at));
            assert_eq!(std::mem::take(&mut pending.attention).len(), calls, "{at}");
        }
        pending.call(Attention::held("a", &"Sent".into()), seconds(86_401));
        assert_eq!(pending.attention.len(), 1);
    }

    #[test]
    fn an_account_that_was_silent_for_a_day_calls() {
        let mut pending = Pending::default();
        pending.succeeded.insert("a".into(), seconds(100));
        pending.notice_silence(seconds(86_499));
        assert!(pending.attention.is_empty());
        pending.notice_silence(seconds(86_500));
        pending.notice_silence(seconds(86_501));
        let lines: Vec<_> = pending.attention.iter().map(|a| serde_json::to_string(a).unwrap()).collect();
        assert_eq!(lines, [r#"{"account":"a","reason":"nothing_for_a_day"}"#]);
    }

    #[tokio::test]
    async fn a_program_that_fails_says_why_and_one_that_does_not_read_is_no_failure() {
        let run = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
            let child = command.process_group(0).kill_on_drop(true).spawn().unwrap();
            finish(child, "x".repeat(1 << 20))
        };
        assert_eq!(run("cat >/dev/null").await, Ok(()));
        assert_eq!(run("exit 0").await, Ok(()));
        assert_eq!(run("echo no >&2; exit 3").await, Err("exit status: 3: no".to_owned()));
    }
}
