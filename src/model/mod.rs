//! The words of the domain as types. Nothing here does I/O, reads a clock or draws a random number.
//!
//! A *mailbox* is a set of messages on the server, a *maildir* its directory here, an *account* a login with a root of
//! maildirs, a *message* one mail, a *link* the row that says what both sides had when they last agreed.

mod flags;
mod ids;
mod key;
mod link;
mod mark;
mod name;
mod proof;
mod secret;
mod tree;

pub use flags::{Flag, FlagChange, Flags, Keyword};
pub use ids::{LinkId, MailboxId, ModSeq, OutOfRange, Uid, UidSet, UidValidity};
pub use key::{ContentKey, Digest, Fingerprint, Keys};
pub use link::{Link, LinkState, Side, SkipReason};
pub use mark::{TUID_LINE, WithoutMarks};
pub use name::{MailboxName, UniqueName, misleads};
pub use proof::{Doubt, GoneLocal, GoneRemote, LocalEvidence, Proof, RemoteEvidence};
pub use secret::Secret;
pub use tree::{Cursor, Local, LocalMessage, Place, Remote, RemoteMessage};
