//! The base: what both sides had when they last agreed, a row a message.

use super::{ContentKey, Flags, LinkId, Uid, UniqueName};

/// One message of the base.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The database's number of it.
    pub id: LinkId,
    /// How far it is.
    pub state: LinkState,
    /// Its content, once known.
    pub content: Option<ContentKey>,
    /// INTERNALDATE (RFC 3501 §2.3.3) in seconds since 1970, once known.
    pub internal_date: Option<i64>,
    /// The inode of the local file when it was last seen to hold this content; a hint, not an identity.
    pub inode: Option<u64>,
}

/// How far a link is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// Both sides have the message, and once agreed on these flags.
    Synced {
        /// The server's number of it.
        uid: Uid,
        /// The local file.
        name: UniqueName,
        /// The flags that both sides had.
        flags: Flags,
    },
    /// Intent: the message is being fetched, and its file will have this name.
    Downloading {
        /// The server's number of it.
        uid: Uid,
        /// The name that its file will have.
        name: UniqueName,
        /// The flags that its file will have.
        flags: Flags,
    },
    /// Intent: the file is being appended; the server may or may not have it by now.
    Uploading {
        /// The local file.
        name: UniqueName,
        /// The flags that the server will get.
        flags: Flags,
        /// UIDNEXT when the intent was written: the copy, if there is one, has this UID or a later one.
        uid_next: Uid,
        /// When the intent was written, in seconds since 1970; later than now where the server may bring the message by
        /// itself until then, so that it is not sent.
        since: i64,
    },
    /// Cannot be transferred; nothing is done until something about it changes.
    Skipped {
        /// The message, if it is the server's.
        uid: Option<Uid>,
        /// The file, if it is ours.
        name: Option<UniqueName>,
        /// Why.
        reason: SkipReason,
    },
}

/// Why a message is not transferred.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SkipReason {
    /// Larger than the configured `max_message_size`; bytes.
    TooLarge(u64),
    /// The server does not give or take it; its words.
    Refused(String),
    /// The message has no content, or its file is unreadable, or no file; what it is.
    Unusable(String),
    /// Deleted on the other side, and kept on this one by the user's policy.
    Kept,
}

impl SkipReason {
    /// Returns the reason as a sentence for the user.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::TooLarge(bytes) => format!("larger than max_message_size ({bytes} bytes)"),
            Self::Refused(text) => format!("refused by the server: {text}"),
            Self::Unusable(text) => format!("not usable: {text}"),
            Self::Kept => "kept, though deleted on the other side".to_owned(),
        }
    }
}

impl Link {
    /// Returns the UID, if the link has one.
    #[must_use]
    pub fn uid(&self) -> Option<Uid> {
        match &self.state {
            LinkState::Synced { uid, .. } | LinkState::Downloading { uid, .. } => Some(*uid),
            LinkState::Skipped { uid, .. } => *uid,
            LinkState::Uploading { .. } => None,
        }
    }

    /// Returns the file's name, if the link has one.
    #[must_use]
    pub fn name(&self) -> Option<&UniqueName> {
        match &self.state {
            LinkState::Synced { name, .. }
            | LinkState::Downloading { name, .. }
            | LinkState::Uploading { name, .. } => Some(name),
            LinkState::Skipped { name, .. } => name.as_ref(),
        }
    }
}

/// One of the two sides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    /// The Maildir.
    Local,
    /// The server.
    Remote,
}
