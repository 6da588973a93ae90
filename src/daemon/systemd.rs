//! Talks to systemd: whether the daemon is ready, what it does, and that it is alive (sd_notify(3)).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

/// The way to systemd; nothing is sent where there is none.
#[derive(Debug)]
pub(super) struct Systemd {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    status: String,
}

impl Systemd {
    /// Returns the way that the environment names.
    pub(super) fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let open = || -> io::Result<_> {
                let address = match name.as_bytes().strip_prefix(b"@") {
                    Some(name) => SocketAddr::from_abstract_name(name)?,
                    None => SocketAddr::from_pathname(Path::new(&name))?,
                };
                let socket = UnixDatagram::unbound()?;
                // Nothing waits for systemd, whatever that is busy with.
                socket.set_nonblocking(true)?;
                Ok((socket, address))
            };
            open().inspect_err(|error| tracing::warn!(%error, "cannot talk to systemd")).ok()
        });
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|_| is_ours).map(Duration::from_micros);
        Self { socket, watchdog, status: String::new() }
    }

    /// Returns within which time it must be told that the daemon is alive, if at all.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The daemon does what it is for. Returns whether that could be told.
    pub(super) fn ready(&self) -> bool {
        self.send("READY=1")
    }

    /// The daemon reads its configuration again; to be followed by [`Self::ready`].
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1000));
    }

    /// The daemon ends.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The daemon is alive.
    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Tells in a sentence what the daemon does, if that is another one than before.
    pub(super) fn status(&mut self, sentence: String) {
        if sentence != self.status && self.send(&format!("STATUS={sentence}")) {
            self.status = sentence;
        }
    }

    fn send(&self, text: &str) -> bool {
        let Some((socket, address)) = &self.socket else { return true };
        match socket.send_to_addr(text.as_bytes(), address) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, text, "systemd was not told");
                false
            }
        }
    }
}
