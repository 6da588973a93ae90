//! Waiting for file descriptors that the standard library has no type for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Returns what waits until there is something to read.
///
/// # Errors
/// The system's.
#[allow(
    deprecated,
    reason = "what `register` wants to be promised holds for an OwnedFd: it is always the same descriptor"
)]
pub(crate) fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}
