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
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static PASSED: AtomicU64 = AtomicU64::new(0);
    static CRASH_AT: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var("POSTKEEP_CRASH_AT").ok().and_then(|n| n.parse().ok()));
    static STEPS: LazyLock<Option<std::path::PathBuf>> =
        LazyLock::new(|| std::env::var_os("POSTKEEP_STEPS").map(Into::into));

    let step = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    if let Some(path) = STEPS.as_ref()
        && let Err(error) = write_down(path, &format!("{step} {what}\n"))
    {
        tracing::warn!(%error, "could not write down a step");
    }
    if *CRASH_AT == Some(step) {
        // SIGKILL, not abort(): no handler runs, nothing is flushed.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Appends a line to a file by a single write(2): so no two threads get into each other's lines.
#[cfg(debug_assertions)]
fn write_down(file: &std::path::Path, line: &str) -> std::io::Result<()> {
    use std::io::Write;

    std::fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(line.as_bytes())
}

/// Marks that the effect called `what` is about to happen; does nothing in this build.
#[cfg(not(debug_assertions))]
#[inline]
pub fn before(_what: &'static str) {}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn threads_do_not_get_into_each_others_lines() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("steps");
        let line = |thread: usize, n: usize| format!("{n} the step number {n} of thread {thread}");
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (file, line) = (&file, &line);
                scope.spawn(move || {
                    for n in 0..200 {
                        super::write_down(file, &(line(thread, n) + "\n")).unwrap();
                    }
                });
            }
        });
        let written = std::fs::read_to_string(&file).unwrap();
        let expected: BTreeSet<String> = (0..8).flat_map(|thread| (0..200).map(move |n| line(thread, n))).collect();
        assert_eq!(written.lines().map(str::to_owned).collect::<BTreeSet<_>>(), expected);
        assert_eq!(written.lines().count(), expected.len());
    }
}
