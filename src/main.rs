//! The postkeep program: prepares the process, then runs the command.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::MultiProgress;
use postkeep::cli::{self, Cli, Exit, output};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The engine waits far more than it computes.
const WORKERS: usize = 2;
/// How long it is waited at the end for what blocks.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // Whatever is made is the user's alone, also where no mode is given.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    raise_limit_of_files();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too; a reader that has gone away is none.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(Exit::Usage.into(), ExitCode::from);
        }
    };
    let bars = MultiProgress::new();
    match journal().filter(|_| cli.is_daemon()) {
        Some(journal) => tracing_subscriber::registry()
            .with(EnvFilter::new(cli.log_filter()))
            .with(journal.with_field_prefix(None))
            .init(),
        None => log_to_standard_error(&cli, bars.clone()),
    }
    match start(cli, bars) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(&format!("postkeep: {}", failure.text));
            failure.exit.into()
        }
    }
}

/// A batch of messages holds each of its files open until all of them are durable; the usual soft limit is for programs
/// that use select(2).
fn raise_limit_of_files() {
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_err() {
        tracing::debug!("the limit of open files stays as it was");
    }
}

fn start(cli: Cli, bars: MultiProgress) -> Result<Exit, cli::Failure> {
    let cannot = |error| cli::Failure { exit: Exit::Partial, text: format!("cannot start threads: {error}") };
    let mut builder = if cli.is_daemon() {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.worker_threads(WORKERS).enable_all().build().map_err(cannot)?;
    let end = runtime.block_on(cli::run(cli, bars));
    // What still blocks then is as good as killed: whatever it is at is found again by its intent.
    runtime.shutdown_timeout(PATIENCE);
    end
}

/// Returns the journal, if that is where standard error leads: so fields stay fields.
fn journal() -> Option<tracing_journald::Layer> {
    // Device and inode of the stream (systemd.exec(5)).
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let stderr = rustix::fs::fstat(io::stderr()).ok()?;
    if stream != format!("{}:{}", stderr.st_dev, stderr.st_ino) {
        return None;
    }
    tracing_journald::layer().ok()
}

fn log_to_standard_error(cli: &Cli, bars: MultiProgress) {
    let subscriber = tracing_subscriber::fmt()
        // The filter was read once already, as an argument.
        .with_env_filter(EnvFilter::new(cli.log_filter()))
        .with_ansi(output::wants_color(cli.global.color, &io::stderr()))
        .with_writer(BesideBars(bars))
        // Else a closed standard error would be reported there, by a panic.
        .log_internal_errors(false)
        .finish();
    // Not `init`: that lets in what other crates write by way of `log`, and ureq_proto writes bodies there, tokens and all.
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        output::complain("postkeep: there is a log already");
    }
}

/// Writes to standard error so that bars and lines do not mix.
struct BesideBars(MultiProgress);

impl<'a> MakeWriter<'a> for BesideBars {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

struct Line<'a>(&'a MultiProgress);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().lock().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
