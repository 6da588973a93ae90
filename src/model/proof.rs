//! Absence needs proof: the only way to the values without which no removal can be written down.
//!
//! A message that a listing does not name is *unknown*. It is *gone* when the evidence below holds, and the functions
//! here are the only makers of [`GoneRemote`], [`GoneLocal`] and the [`Proof`] that a removal carries.

use std::collections::BTreeSet;
use std::fmt;

use super::{Uid, UniqueName};

/// Permission to remove one copy of a message, because the other is proven to be gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Proof(());

/// Messages that are proven to be gone from the server.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct GoneRemote(BTreeSet<Uid>);

/// Files that are proven to be gone from the maildir.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct GoneLocal(BTreeSet<UniqueName>);

/// What is known about a listing of a mailbox on the server.
#[derive(Clone, Debug)]
pub struct RemoteEvidence {
    /// The listing ended with a tagged OK on an unbroken connection.
    pub ended: bool,
    /// How many messages the server has by the listing: those it named, or those known before less those it called
    /// gone.
    pub counted: u64,
    /// EXISTS after the listing (RFC 3501 §7.3.1).
    pub exists: u64,
    /// UIDVALIDITY is the one that the base was made under.
    pub same_validity: bool,
    /// UIDNEXT and HIGHESTMODSEQ did not go back since the base was made.
    pub went_forward: bool,
    /// The messages that the listing did not name, or called gone.
    pub missing: BTreeSet<Uid>,
    /// Those of `missing` that were there when the server was asked again for exactly them; `None` if it was not.
    pub found_again: Option<BTreeSet<Uid>>,
}

/// What is known about a scan of a maildir.
#[derive(Clone, Debug)]
pub struct LocalEvidence {
    /// The marker in the root is the one that belongs to the database.
    pub marker: bool,
    /// Every directory read ended without an error.
    pub ended: bool,
    /// `new` was read before `cur`.
    pub new_first: bool,
    /// Neither directory changed between the beginning of the first read and the end of the last.
    pub unchanged: bool,
    /// The names that the scan did not find.
    pub missing: BTreeSet<UniqueName>,
}

/// Why something missing is not proven to be gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// The listing broke off.
    Unfinished,
    /// The listing does not agree with the number of messages that the server says there are.
    Count {
        /// How many there are by the listing.
        counted: u64,
        /// How many the server says there are.
        exists: u64,
    },
    /// UIDVALIDITY changed.
    Validity,
    /// UIDNEXT or HIGHESTMODSEQ went back: the server was restored from a backup.
    WentBack,
    /// The server was not asked again.
    NotAskedAgain,
    /// The root is not the one it was.
    Marker,
    /// The directories were read in the order in which a message can slip through.
    Order,
    /// A mail program was at work during the scan.
    Changing,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished => f.write_str("the listing was not complete"),
            Self::Count { counted, exists } => {
                write!(f, "the server listed {counted} messages but says there are {exists}")
            }
            Self::Validity => f.write_str("the server renumbered the mailbox"),
            Self::WentBack => f.write_str("the server's counters went back, as after a restored backup"),
            Self::NotAskedAgain => f.write_str("the server was not asked a second time"),
            Self::Marker => f.write_str("the maildir root is not the one it was"),
            Self::Order => f.write_str("cur was read before new"),
            Self::Changing => f.write_str("the maildir changed while it was read"),
        }
    }
}

impl GoneRemote {
    /// Returns the messages that the evidence proves to be gone: those missing that were not found again.
    ///
    /// # Errors
    /// The first [`Doubt`] that the evidence leaves; then nothing is gone.
    pub fn prove(evidence: &RemoteEvidence) -> Result<Self, Doubt> {
        let RemoteEvidence { ended, counted, exists, same_validity, went_forward, missing, found_again } = evidence;
        match (ended, same_validity, went_forward, counted == exists, found_again) {
            (false, _, _, _, _) => Err(Doubt::Unfinished),
            (_, false, _, _, _) => Err(Doubt::Validity),
            (_, _, false, _, _) => Err(Doubt::WentBack),
            (_, _, _, false, _) => Err(Doubt::Count { counted: *counted, exists: *exists }),
            (_, _, _, _, None) if !missing.is_empty() => Err(Doubt::NotAskedAgain),
            (true, true, true, true, found) => {
                Ok(Self(missing.iter().filter(|u| found.as_ref().is_none_or(|f| !f.contains(u))).copied().collect()))
            }
        }
    }

    /// Returns the permission to remove the local copy of `uid`, if it is gone.
    #[must_use]
    pub fn proof(&self, uid: Uid) -> Option<Proof> {
        self.0.contains(&uid).then_some(Proof(()))
    }

    /// Returns what is gone, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Uid> + '_ {
        self.0.iter().copied()
    }
}

impl GoneLocal {
    /// Returns the files that the evidence proves to be gone: those missing.
    ///
    /// # Errors
    /// The first [`Doubt`] that the evidence leaves; then nothing is gone.
    pub fn prove(evidence: LocalEvidence) -> Result<Self, Doubt> {
        let LocalEvidence { marker, ended, new_first, unchanged, missing } = evidence;
        match (marker, ended, new_first, unchanged) {
            (false, _, _, _) => Err(Doubt::Marker),
            (_, false, _, _) => Err(Doubt::Unfinished),
            (_, _, false, _) => Err(Doubt::Order),
            (_, _, _, false) => Err(Doubt::Changing),
            (true, true, true, true) => Ok(Self(missing)),
        }
    }

    /// Returns the permission to remove the server's copy of `name`, if it is gone.
    #[must_use]
    pub fn proof(&self, name: &UniqueName) -> Option<Proof> {
        self.0.contains(name).then_some(Proof(()))
    }

    /// Returns what is gone, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &UniqueName> {
        self.0.iter()
    }
}

#[cfg(test)]
impl GoneRemote {
    /// Returns what proves that these messages are gone, for tests of what is decided by that.
    pub(crate) fn of(missing: impl IntoIterator<Item = Uid>) -> Self {
        Self(missing.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_doubt_about_the_server_proves_nothing() {
        let uid = Uid::MIN;
        let good = RemoteEvidence {
            ended: true,
            counted: 5,
            exists: 5,
            same_validity: true,
            went_forward: true,
            missing: [uid].into(),
            found_again: Some(BTreeSet::new()),
        };
        assert!(GoneRemote::prove(&good).unwrap().proof(uid).is_some());
        let doubts = [
            (RemoteEvidence { ended: false, ..good.clone() }, Doubt::Unfinished),
            (RemoteEvidence { same_validity: false, ..good.clone() }, Doubt::Validity),
            (RemoteEvidence { went_forward: false, ..good.clone() }, Doubt::WentBack),
            (RemoteEvidence { counted: 4, ..good.clone() }, Doubt::Count { counted: 4, exists: 5 }),
            (RemoteEvidence { found_again: None, ..good.clone() }, Doubt::NotAskedAgain),
        ];
        for (evidence, doubt) in doubts {
            assert_eq!(GoneRemote::prove(&evidence), Err(doubt));
        }
        let found = RemoteEvidence { found_again: Some([uid].into()), ..good };
        assert!(GoneRemote::prove(&found).unwrap().proof(uid).is_none());
    }

    #[test]
    fn any_doubt_about_the_disk_proves_nothing() {
        let name = UniqueName::new(b"1.a");
        let good = || LocalEvidence {
            marker: true,
            ended: true,
            new_first: true,
            unchanged: true,
            missing: [name.clone()].into(),
        };
        assert!(GoneLocal::prove(good()).unwrap().proof(&name).is_some());
        let doubts = [
            (LocalEvidence { marker: false, ..good() }, Doubt::Marker),
            (LocalEvidence { ended: false, ..good() }, Doubt::Unfinished),
            (LocalEvidence { new_first: false, ..good() }, Doubt::Order),
            (LocalEvidence { unchanged: false, ..good() }, Doubt::Changing),
        ];
        for (evidence, doubt) in doubts {
            assert_eq!(GoneLocal::prove(evidence), Err(doubt));
        }
    }
}
