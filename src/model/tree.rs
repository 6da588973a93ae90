//! What was seen on each side. Both trees may be partial: what they do not name is as the base has it.

use std::collections::BTreeMap;

use super::{Flags, GoneLocal, GoneRemote, ModSeq, Uid, UidValidity, UniqueName};

/// How far a mailbox on the server was observed: the values that the server gave *before* a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// The epoch of the UIDs.
    pub uid_validity: UidValidity,
    /// The UID that the next message will get, or a later one.
    pub uid_next: Uid,
    /// The change counter, where the server has one (RFC 7162).
    pub highest_mod_seq: Option<ModSeq>,
    /// How many messages there were.
    pub messages: u32,
    /// How many of them were unread, where STATUS told; it gives away some flag changes to servers without CONDSTORE.
    pub unseen: Option<u32>,
}

/// A message on the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteMessage {
    /// Its flags.
    pub flags: Flags,
    /// Its change counter, where the server has one.
    pub mod_seq: Option<ModSeq>,
}

/// What was seen of a mailbox on the server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Remote {
    /// The messages that the observation named.
    pub messages: BTreeMap<Uid, RemoteMessage>,
    /// The messages that are proven to be gone.
    pub gone: GoneRemote,
}

/// Which of its two directories a file is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// `new/`: no mail reader has seen it.
    New,
    /// `cur/`
    Cur,
}

/// A message file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalMessage {
    /// Its flags.
    pub flags: Flags,
    /// Where it is.
    pub place: Place,
    /// Its inode number.
    pub inode: u64,
    /// True if the file is another one than the base knows under this name, with other content.
    pub replaced: bool,
}

/// What was seen of a maildir.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Local {
    /// The files that differ from the base, or whose message changed on the server.
    pub messages: BTreeMap<UniqueName, LocalMessage>,
    /// The files that are proven to be gone.
    pub gone: GoneLocal,
}
