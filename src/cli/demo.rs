//! `postkeep demo`: a simulated Outlook.com, mirrored, with changes on both sides that cross.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::output::{self, Paint, harmless, many};
use super::{Exit, Failure};
use crate::demo::{ACTS, Act, Error, Side, Stage, Sums};

/// How often both sides are looked at, once all acts are over.
const EACH: Duration = Duration::from_secs(2);
/// Every so many looks, a message arrives.
const ARRIVALS: u32 = 10;

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

/// Runs the command.
pub(super) async fn run(args: &Args, paint: Paint) -> Result<Exit, Failure> {
    let mirror = mirror(args.dir.as_deref())?;
    let mut stop = super::signals::stop_on_signal().map_err(super::no_signals)?;
    let stage = Stage::open(&mirror, stop.clone())?;
    let show = async {
        first_pass(&stage, &mirror, paint).await?;
        for act in &ACTS {
            play(&stage, act, paint).await?;
        }
        let Sums { mailboxes, messages } = stage.compare()?;
        let sums = format!("{} in {mailboxes} mailboxes", many(messages as u64, "message"));
        output::print(&format!("\n{}\n", paint.good(&format!("Both sides are the same: {sums}."))))?;
        if !args.once {
            output::print(&farewell(&stage, &mirror))?;
            stay(&stage).await?;
        }
        Ok(Exit::Done)
    };
    tokio::select! {
        result = show => result,
        _ = stop.wait_for(|stop| *stop) => Ok(Exit::Done),
    }
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

async fn first_pass(stage: &Stage, mirror: &Path, paint: Paint) -> Result<(), Failure> {
    output::print(&format!(
        "A simulated Outlook.com listens on 127.0.0.1:{}, with TLS.\nThe mirror is in {}.\n\n",
        stage.port(),
        harmless(&mirror.display().to_string())
    ))?;
    let name = stage.sign_in().await?;
    output::print(&format!("Signed in as {}, by OAuth 2.0.\n", harmless(&name)))?;
    let done = stage.pass().await?;
    let Sums { mailboxes, .. } = stage.compare()?;
    let messages = many(done.downloaded, "message");
    output::print(&format!(
        "Mirrored {messages} in {mailboxes} mailboxes.\n\n{}\n",
        paint.strong("Now things happen:")
    ))?;
    Ok(())
}

/// Lets something happen on one side, makes a pass, and shows it on the other, and how long that took, with a new
/// connection and its sign-in.
async fn play(stage: &Stage, act: &Act, paint: Paint) -> Result<(), Failure> {
    let (from, to) = match act.side {
        Side::There => ("on the server", "here"),
        Side::Here => ("here", "on the server"),
    };
    output::print(&format!("  {from:>13}  {}\n", act.what))?;
    let began = Instant::now();
    (act.perform)(stage)?;
    stage.pass().await?;
    let took = began.elapsed().as_millis();
    let shown = (act.shows)(stage);
    let shown = shown.ok_or_else(|| Failure::from(Error(format!("this did not cross: {}", act.what))))?;
    output::print(&format!("  {to:>13}  {} after {took} ms\n", paint.good(&harmless(&shown))))?;
    Ok(())
}

/// Keeps both sides the same until the program is stopped.
async fn stay(stage: &Stage) -> Result<(), Failure> {
    for look in 1_u32.. {
        tokio::time::sleep(EACH).await;
        if look % ARRIVALS == 0 {
            stage.arrives("INBOX", "A friend <friend@example.net>", &format!("Greetings, {}", look / ARRIVALS))?;
        }
        stage.pass().await?;
    }
    Ok(())
}

fn farewell(stage: &Stage, mirror: &Path) -> String {
    let (config, mirror) = (stage.config_file(), mirror.display().to_string());
    format!(
        "\nIt goes on: change what you like in the mirror, and see it arrive:\n\n    mutt -f {}\n    postkeep --config {} status\n\n\
         A message arrives every {} seconds. Ctrl-C ends it; the mirror stays.\n",
        harmless(&format!("{mirror}/INBOX")),
        harmless(&config.display().to_string()),
        EACH.as_secs() * u64::from(ARRIVALS),
    )
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { exit: Exit::Partial, text: error.to_string() }
    }
}
