//! How a command that takes long is stopped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Returns what becomes true at the first SIGINT or SIGTERM. The second ends the program at once, with the code that
/// shells give to a program ended by it.
///
/// # Errors
/// What the system says if it cannot tell of signals.
pub(super) fn stop_on_signal() -> io::Result<watch::Receiver<bool>> {
    let once = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: at the first signal, the flag is looked at before it is set.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&once))?;
        signal_hook::flag::register(signal, Arc::clone(&once))?;
    }
    let (stop, stopped) = watch::channel(false);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::warn!("stopping as soon as nothing is half done; a second signal stops at once");
        // Nobody listens any more when the pass is over, and then there is nothing to stop.
        let _ = stop.send(true);
        stop.closed().await;
    });
    Ok(stopped)
}
