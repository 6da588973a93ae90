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
///
/// In the base it is that of the message as served, but for marks ([`WithoutMarks`](super::WithoutMarks)): where only one
/// of the two copies has one, it is that of the bytes that both have in common; and where the server gives and takes marks
/// as it likes, it is that of the message without any. So whoever checks a copy against the base takes [`Keys::is`]: the
/// copy, or the copy without marks, has this digest. No file and no message is changed for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContentKey {
    /// The digest of the message as served.
    pub digest: Digest,
    /// What is known of it without its body.
    pub fingerprint: Fingerprint,
}

/// What identifies a copy of a message: as it is, and without its marks, if it has any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keys {
    /// All of it.
    pub whole: ContentKey,
    /// Without its marks.
    pub bare: Option<ContentKey>,
    /// Without those of mbsync, where it has others too. Some bases know it so: once no other marks were known.
    pub without_tuid: Option<ContentKey>,
}

impl Keys {
    /// Makes them of a copy that has no marks, or whose marks are not known.
    #[must_use]
    pub fn unmarked(whole: ContentKey) -> Self {
        Self { whole, bare: None, without_tuid: None }
    }

    /// Tells whether this is a copy of the message with that content.
    #[must_use]
    pub fn is(&self, content: ContentKey) -> bool {
        self.each().any(|own| own == content)
    }

    /// Returns the content of a copy as it is, and then without marks.
    pub fn each(&self) -> impl Iterator<Item = ContentKey> {
        [Some(self.whole), self.bare, self.without_tuid].into_iter().flatten()
    }

    /// Returns the content of a copy without marks.
    #[must_use]
    pub fn unmarked_content(&self) -> ContentKey {
        self.bare.unwrap_or(self.whole)
    }
}
