//! Counts the steps between which a crash may happen, so that a test can make it happen at each of them.
//!
//! A step is one effect that outlives the process: a commit, a batch of files made durable, a batch of renames, a
//! command that changes the server. In a build without debug assertions this module does nothing.

/// Marks that the effect called `what` is about to happen.
///
/// With debug assertions, a process started with `POSTKEEP_CRASH_AT=n` in its environment dies here, as by SIGKILL,
/// at the n-th call; with `POSTKEEP_STEPS=file` it appends the name of each step to that file.
#[cfg(debug_assertions)]
pub fn before(what: &'static str) {
    use std::io::Write;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static PASSED: AtomicU64 = AtomicU64::new(0);
    static CRASH_AT: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var("POSTKEEP_CRASH_AT").ok().and_then(|n| n.parse().ok()));
    static STEPS: LazyLock<Option<std::path::PathBuf>> =
        LazyLock::new(|| std::env::var_os("POSTKEEP_STEPS").map(Into::into));

    let step = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    if let Some(path) = STEPS.as_ref() {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = file.and_then(|mut f| writeln!(f, "{step} {what}")) {
            tracing::warn!(%error, "could not write down a step");
        }
    }
    if *CRASH_AT == Some(step) {
        // SIGKILL, not abort(): no handler runs, nothing is flushed.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Marks that the effect called `what` is about to happen; does nothing in this build.
#[cfg(not(debug_assertions))]
#[inline]
pub fn before(_what: &'static str) {}
