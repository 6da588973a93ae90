//! The operations, and their one-line text: what a dry run prints, the journal keeps and snapshot tests compare.
//! Pure: no I/O, no clock. See [`crate`] for the map.

use std::fmt;

use crate::model::{FlagChange, Flags, LinkId, MailboxName, Proof, Side, Uid, UniqueName};

/// One thing to do to one message, so that both sides agree about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Deliver the server's message here.
    Download {
        /// The row that already stands for it.
        link: Option<LinkId>,
        /// The message.
        uid: Uid,
        /// The name that an earlier attempt chose.
        name: Option<UniqueName>,
        /// Its flags on the server.
        flags: Flags,
    },
    /// Append the file to the server's mailbox.
    Upload {
        /// The row that already stands for it.
        link: Option<LinkId>,
        /// The file.
        name: UniqueName,
        /// Its flags here.
        flags: Flags,
    },
    /// Change flags on either side, or only write down that they agree.
    MergeFlags {
        /// The row.
        link: LinkId,
        /// The message.
        uid: Uid,
        /// The file.
        name: UniqueName,
        /// What to change on the server.
        remote: FlagChange,
        /// What to change here.
        local: FlagChange,
        /// What the base is to have afterwards.
        agreed: Flags,
    },
    /// Complete a half that was found: the file or the message that an intent promised is there.
    Adopt {
        /// The row.
        link: LinkId,
        /// The message.
        uid: Uid,
        /// The file.
        name: UniqueName,
    },
    /// Both sides moved a message to this mailbox: what they have here is one message, and its row comes along.
    Join {
        /// The row in the mailbox that it left.
        link: LinkId,
        /// The row that already stands for the message here, if there is one.
        into: Option<LinkId>,
        /// The message.
        uid: Uid,
        /// The file.
        name: UniqueName,
    },
    /// The file under this name is another message now: the old one has no file any more.
    Supersede {
        /// The row.
        link: LinkId,
        /// The file.
        name: UniqueName,
    },
    /// Leave the copy that is left as it is, for good, by the user's policy.
    Keep {
        /// The row.
        link: LinkId,
        /// Which side still has the message.
        side: Side,
    },
    /// Drop a row that stands for nothing any more.
    Forget {
        /// The row.
        link: LinkId,
    },
    /// Move the server's message to where its file was moved.
    Move {
        /// The row in the mailbox that it leaves.
        link: LinkId,
        /// The message there.
        uid: Uid,
        /// The mailbox that it goes to.
        to: MailboxName,
        /// The row that stands for the file there, if there is one.
        into: Option<LinkId>,
        /// The file there.
        name: UniqueName,
        /// The file's flags.
        flags: Flags,
    },
    /// Move the file to where the server's message was moved.
    Follow {
        /// The row: in the mailbox that the file leaves, or in the one that both sides moved it out of.
        link: LinkId,
        /// The file.
        name: UniqueName,
        /// The mailbox that it goes to.
        to: MailboxName,
        /// The row that already stands for the message there, if there is one.
        into: Option<LinkId>,
        /// The message there.
        uid: Uid,
        /// The message's flags.
        flags: Flags,
    },
    /// Remove the file to the graveyard.
    Remove {
        /// The row.
        link: LinkId,
        /// The file.
        name: UniqueName,
        /// The flags that it had when this was decided.
        flags: Flags,
        /// That the server's copy is gone.
        proof: Proof,
    },
    /// Remove the message from the server's mailbox.
    Expunge {
        /// The row.
        link: LinkId,
        /// The message.
        uid: Uid,
        /// The flags that it had when this was decided.
        flags: Flags,
        /// That the file is gone.
        proof: Proof,
    },
}

/// Why an op is in a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Never seen before on the server.
    NewOnServer,
    /// Never seen before here.
    NewHere,
    /// Deleted here, but changed on the server: the deletion is overruled.
    ChangedOnServer,
    /// Deleted on the server, but changed here: the deletion is overruled.
    ChangedHere,
    /// An earlier attempt was interrupted.
    Interrupted,
    /// The reason for which it was skipped holds no more.
    SkippedBefore,
    /// Flags differ.
    FlagsDiffer,
    /// Deleted on the server.
    DeletedOnServer,
    /// Deleted here.
    DeletedHere,
    /// Deleted on both sides.
    DeletedOnBoth,
    /// Replaced here by another message under the same name.
    ReplacedHere,
    /// Moved on the server.
    MovedOnServer,
    /// Moved here.
    MovedHere,
    /// Moved on both sides: the server's place wins.
    MovedOnBoth,
}

impl Why {
    /// Returns the reason as words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NewOnServer => "new on the server",
            Self::NewHere => "new here",
            Self::ChangedOnServer => "deletion overruled: changed on the server meanwhile",
            Self::ChangedHere => "deletion overruled: changed here meanwhile",
            Self::Interrupted => "an earlier attempt was interrupted",
            Self::SkippedBefore => "skipped before, possible now",
            Self::FlagsDiffer => "flags differ",
            Self::DeletedOnServer => "deleted on the server",
            Self::DeletedHere => "deleted here",
            Self::DeletedOnBoth => "deleted on both sides",
            Self::ReplacedHere => "another message has its file name",
            Self::MovedOnServer => "moved on the server",
            Self::MovedHere => "moved here",
            Self::MovedOnBoth => "moved on both sides: the server's place wins",
        }
    }
}

/// An op and its reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// What to do.
    pub op: Op,
    /// Why.
    pub why: Why,
}

impl Op {
    /// Returns the row that the op is about, if there is one.
    #[must_use]
    pub const fn link(&self) -> Option<LinkId> {
        match self {
            Self::Download { link, .. } | Self::Upload { link, .. } => *link,
            Self::MergeFlags { link, .. }
            | Self::Adopt { link, .. }
            | Self::Join { link, .. }
            | Self::Supersede { link, .. }
            | Self::Keep { link, .. }
            | Self::Forget { link }
            | Self::Move { link, .. }
            | Self::Follow { link, .. }
            | Self::Remove { link, .. }
            | Self::Expunge { link, .. } => Some(*link),
        }
    }

    /// Returns the side that loses its copy of a message, if one does.
    #[must_use]
    pub const fn removes(&self) -> Option<Side> {
        match self {
            Self::Remove { .. } => Some(Side::Local),
            Self::Expunge { .. } => Some(Side::Remote),
            Self::Download { .. }
            | Self::Upload { .. }
            | Self::MergeFlags { .. }
            | Self::Adopt { .. }
            | Self::Join { .. }
            | Self::Supersede { .. }
            | Self::Keep { .. }
            | Self::Forget { .. }
            | Self::Move { .. }
            | Self::Follow { .. } => None,
        }
    }

    /// Returns the word for the kind of op, as the journal has it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Download { .. } => "download",
            Self::Upload { .. } => "upload",
            Self::MergeFlags { .. } => "flags",
            Self::Adopt { .. } => "adopt",
            Self::Join { .. } => "join",
            Self::Supersede { .. } => "supersede",
            Self::Keep { .. } => "keep",
            Self::Forget { .. } => "forget",
            Self::Move { .. } => "move",
            Self::Follow { .. } => "follow",
            Self::Remove { .. } => "remove",
            Self::Expunge { .. } => "expunge",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Download { uid, flags, .. } => write!(f, "{kind} uid {uid} {flags}"),
            Self::Upload { name, flags, .. } => write!(f, "{kind} {name} {flags}"),
            Self::MergeFlags { uid, name, remote, local, .. } => {
                write!(f, "{kind} uid {uid} {name}")?;
                if !remote.is_empty() {
                    write!(f, " server {remote}")?;
                }
                if !local.is_empty() {
                    write!(f, " here {local}")?;
                }
                Ok(())
            }
            Self::Adopt { uid, name, .. } | Self::Join { uid, name, .. } => write!(f, "{kind} uid {uid} {name}"),
            Self::Supersede { name, .. } => write!(f, "{kind} {name}"),
            Self::Keep { link, side } => {
                write!(f, "{kind} link {} {}", link.0, if *side == Side::Local { "here" } else { "on the server" })
            }
            Self::Forget { link } => write!(f, "{kind} link {}", link.0),
            Self::Move { uid, to, name, .. } => write!(f, "{kind} uid {uid} to {to} {name}"),
            Self::Follow { name, to, uid, .. } => write!(f, "{kind} {name} to {to} uid {uid}"),
            Self::Remove { name, .. } => write!(f, "{kind} {name}"),
            Self::Expunge { uid, .. } => write!(f, "{kind} uid {uid}"),
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op, self.why.text())
    }
}
