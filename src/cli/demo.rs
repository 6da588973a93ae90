//! `postkeep demo`: a simulated Outlook.com, kept the same as a mirror by the daemon, with changes on both sides that cross.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::watch;

use super::output::{self, Paint, harmless, many};
use super::{Exit, Failure};
use crate::daemon;
use crate::demo::{ACTS, Act, Error, Side, Stage, Sums, greeting};

/// How often it is looked whether the other side shows a change: as exactly it is told how long that took.
const LOOK: Duration = Duration::from_millis(5);
/// How often both sides are compared as a whole.
const COMPARE: Duration = Duration::from_millis(50);
/// Whatever takes longer to cross has failed, on the slowest machine.
const LIMIT: Duration = Duration::from_secs(120);
/// How long who reads along is given for each change.
const READING: Duration = Duration::from_millis(900);
/// How often a message arrives, once all acts are over.
const ARRIVALS: Duration = Duration::from_secs(20);

/// Show it all at work, without an account: a simulated Outlook.com on this machine, and its mirror
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the mirror goes: an empty directory [default: a new temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// End when everything has crossed, instead of at Ctrl-C
    #[arg(long)]
    once: bool,
}

/// How things are shown.
struct Screen {
    paint: Paint,
    /// Bars on standard error, which are seen on a terminal only.
    bars: MultiProgress,
    /// Somebody reads along.
    is_read: bool,
}

/// Runs the command.
pub(super) async fn run(args: &Args, paint: Paint, bars: MultiProgress) -> Result<Exit, Failure> {
    let screen = Screen { paint, bars, is_read: std::io::stdout().is_terminal() };
    let mirror = mirror(args.dir.as_deref())?;
    let mut stop = super::signals::stop_on_signal().map_err(super::no_signals)?;
    let stage = Stage::open(&mirror)?;
    output::print(&format!(
        "A simulated Outlook.com listens on 127.0.0.1:{}, with TLS.\nThe mirror is in {}.\n\n",
        stage.port(),
        harmless(&mirror.display().to_string())
    ))?;
    let name = stage.sign_in().await?;
    output::print(&format!("Signed in as {}, by OAuth 2.0.\n", harmless(&name)))?;

    let (end, ended) = watch::channel(false);
    let mut keeping = std::pin::pin!(daemon::run(start(&stage, end.clone(), ended)));
    let show = async {
        mirrored(&stage, &screen).await?;
        for act in &ACTS {
            play(&stage, act, &screen).await?;
        }
        let Sums { mailboxes, messages } = equal(&stage).await?;
        let sums = format!("{} in {mailboxes} mailboxes", many(messages as u64, "message"));
        output::print(&format!("\n{}\n", paint.good(&format!("Both sides are the same: {sums}."))))?;
        if !args.once {
            output::print(&farewell(&stage, &mirror))?;
            go_on(&stage, &screen).await?;
        }
        Ok(Exit::Done)
    };
    let shown = tokio::select! {
        kept = &mut keeping => return kept.map(|()| Exit::Done).map_err(failed),
        shown = show => shown,
        _ = stop.wait_for(|stop| *stop) => Ok(Exit::Done),
    };
    end.send_replace(true);
    keeping.await.map_err(failed)?;
    shown
}

/// Returns what the daemon is started with. It ends when it is told to `end`, or the terminal is closed.
fn start(stage: &Stage, end: watch::Sender<bool>, ended: watch::Receiver<bool>) -> daemon::Start {
    let reload = move || {
        end.send_replace(true);
        Err("there is nothing to read again, so the demonstration ends".to_owned())
    };
    daemon::Start { config: stage.config().clone(), reload: Box::new(reload), stop: ended }
}

/// Returns where the mirror goes: absolute, since the program works with it from anywhere.
fn mirror(dir: Option<&Path>) -> Result<PathBuf, Failure> {
    let made = match dir {
        Some(dir) => std::path::absolute(dir),
        None => tempfile::Builder::new().prefix("postkeep-mirror.").tempdir().map(tempfile::TempDir::keep),
    };
    made.map_err(|error| Failure {
        exit: Exit::Partial,
        text: format!("cannot make a directory for the mirror: {error}"),
    })
}

/// Waits until the daemon has mirrored everything and watches both sides.
async fn mirrored(stage: &Stage, screen: &Screen) -> Result<(), Failure> {
    let began = Instant::now();
    let bar = screen.bar("[{bar:24}] {pos}/{len} {wide_msg}");
    bar.set_message("mirroring");
    let watches = async || {
        let live = stage.live().await?;
        let (planned, done) = live.mailboxes.values().fold((0, 0), |(p, d), one| (p + one.planned, d + one.done));
        bar.set_length(planned);
        bar.set_position(done);
        (live.files_watched && !live.watched.is_empty() && live.swept_at.is_some()).then_some(())
    };
    let what = "the first pass";
    until(stage, what, COMPARE, watches).await?;
    let Sums { mailboxes, messages } = equal(stage).await?;
    bar.finish_and_clear();
    output::print(&format!(
        "Mirrored {} in {mailboxes} mailboxes in {}. The daemon watches both sides from now on.\n\n{}\n",
        many(messages as u64, "message"),
        spent(began.elapsed()),
        screen.paint.strong("Now things happen:")
    ))?;
    Ok(())
}

/// Lets something happen on one side, waits until the other side shows it, and tells how long that took.
async fn play(stage: &Stage, act: &Act, screen: &Screen) -> Result<(), Failure> {
    if screen.is_read {
        tokio::time::sleep(READING).await;
    }
    cross(stage, act.side, act.what, || (act.perform)(stage), || (act.shows)(stage), screen).await
}

async fn cross(
    stage: &Stage,
    side: Side,
    what: &str,
    perform: impl FnOnce() -> Result<(), Error>,
    shows: impl Fn() -> Option<String>,
    screen: &Screen,
) -> Result<(), Failure> {
    let (from, to) = match side {
        Side::There => ("on the server", "here"),
        Side::Here => ("here", "on the server"),
    };
    output::print(&format!("  {from:>13}  {what}\n"))?;
    let bar = screen.bar(&format!("  {to:>13}  {{spinner}}"));
    bar.enable_steady_tick(READING / 10);
    let began = Instant::now();
    perform()?;
    let shown = until(stage, what, LOOK, async || shows()).await?;
    let took = spent(began.elapsed());
    bar.finish_and_clear();
    output::print(&format!("  {to:>13}  {} after {took}\n", screen.paint.good(&harmless(&shown))))?;
    Ok(())
}

/// Waits until both sides are the same.
async fn equal(stage: &Stage) -> Result<Sums, Failure> {
    let what = "everything";
    match until(stage, what, COMPARE, async || stage.compare().ok()).await {
        Ok(sums) => Ok(sums),
        // What differs says more.
        Err(failure) => Ok(stage
            .compare()
            .map_err(|error| Failure { text: format!("{failure}; {error}", failure = failure.text), ..failure })?),
    }
}

/// Looks again and again until there is what is looked for.
async fn until<T>(
    stage: &Stage,
    what: &str,
    often: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T, Failure> {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if Instant::now() > end {
            return Err(late(what, stage.live().await.and_then(|live| live.problem).as_deref()).into());
        }
        tokio::time::sleep(often).await;
    }
}

/// Returns what is said of something that has not crossed in time, and of what the daemon knows to be wrong.
fn late(what: &str, problem: Option<&str>) -> Error {
    let why = problem.map_or_else(String::new, |problem| format!("; the daemon says: {}", harmless(problem)));
    Error(format!("this did not cross within {} seconds: {what}{why}", LIMIT.as_secs()))
}

/// Lets a message arrive from time to time, and shows what the user's own changes become on the server, until the program
/// is stopped.
async fn go_on(stage: &Stage, screen: &Screen) -> Result<(), Failure> {
    let mut there = stage.there();
    for n in 1.. {
        let next = Instant::now() + ARRIVALS;
        while Instant::now() < next {
            tokio::time::sleep(COMPARE).await;
            let now = stage.there();
            for news in differences(&there, &now) {
                output::print(&format!("  on the server  {}\n", screen.paint.good(&harmless(&news))))?;
            }
            there = now;
        }
        let what = "a message arrives";
        cross(stage, Side::There, what, || stage.greet(n), || stage.greeted(n), screen).await?;
        // That one was shown; what the user did meanwhile was not.
        there.extend(stage.there().into_iter().filter(|(_, shown)| shown.contains(&format!("\"{}\"", greeting(n)))));
    }
    Ok(())
}

/// Describes what is new, other than it was, or gone; messages are known by mailbox and UID.
fn differences(before: &BTreeMap<(String, u32), String>, now: &BTreeMap<(String, u32), String>) -> Vec<String> {
    let changed = now.iter().filter(|(key, shown)| before.get(*key) != Some(*shown)).map(|(_, shown)| shown.clone());
    let gone = before.keys().filter(|key| !now.contains_key(*key));
    changed.chain(gone.map(|(mailbox, uid)| format!("{mailbox}: UID {uid} is gone"))).collect()
}

fn farewell(stage: &Stage, mirror: &Path) -> String {
    let (config, mirror) = (stage.config_file(), mirror.display().to_string());
    format!(
        "\nIt goes on: change what you like in the mirror, and see it arrive:\n\n    mutt -f {}\n    postkeep --config {} status\n\n\
         A message arrives every {} seconds. Ctrl-C ends it; the mirror stays.\n",
        harmless(&format!("{mirror}/INBOX")),
        harmless(&config.display().to_string()),
        ARRIVALS.as_secs(),
    )
}

/// Returns how long something took, in a unit that is read at a glance.
fn spent(time: Duration) -> String {
    match time.as_millis() {
        millis @ ..10_000 => format!("{millis} ms"),
        millis => format!("{} s", millis / 1000),
    }
}

impl Screen {
    /// Returns a bar of this form.
    fn bar(&self, template: &str) -> ProgressBar {
        // A template that cannot be read would be a mistake here; indicatif's own bar does then.
        let style = ProgressStyle::with_template(template)
            .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "));
        self.bars.add(ProgressBar::new(0)).with_style(style)
    }
}

fn failed(error: daemon::Error) -> Failure {
    Failure { exit: Exit::Partial, text: error.to_string() }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { exit: Exit::Partial, text: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_the_users_changes_is_told() {
        let view = |rows: &[(u32, &str)]| -> BTreeMap<(String, u32), String> {
            rows.iter().map(|(uid, text)| (("INBOX".to_owned(), *uid), (*text).to_owned())).collect()
        };
        let (before, now) = (view(&[(1, "a"), (2, "b"), (3, "c")]), view(&[(1, "a"), (3, "c, read"), (4, "d")]));
        assert_eq!(differences(&before, &now), ["c, read", "d", "INBOX: UID 2 is gone"]);
        assert!(differences(&now, &now).is_empty());
    }

    #[test]
    fn what_does_not_cross_is_told_with_the_reason() {
        let text = late("it is read", None).to_string();
        assert_eq!(text, "this did not cross within 120 seconds: it is read");
        let text = late("it is read", Some("cannot reach localhost\u{1b}")).to_string();
        assert!(text.starts_with("this did not cross within 120 seconds: it is read; the daemon says: cannot reach"));
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_time_is_read_at_a_glance() {
        assert_eq!([7, 9_999, 61_500].map(|millis| spent(Duration::from_millis(millis))), ["7 ms", "9999 ms", "61 s"]);
    }
}
