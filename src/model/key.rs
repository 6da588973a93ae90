//! What identifies the content of a message, independent of UIDs and file names.

use std::fmt;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// What can be known of a message without its body, and is the same on both sides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Fingerprint {
    /// The digest of the header as served, with CRLF line ends and without the line ends that close it.
    pub header: Digest,
    /// The length of the whole message as served, in bytes.
    pub size: u64,
}

/// The whole content: the digest decides, the fingerprint finds candidates without a download.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContentKey {
    /// The digest of the message as served.
    pub digest: Digest,
    /// What is known of it without its body.
    pub fingerprint: Fingerprint,
}
