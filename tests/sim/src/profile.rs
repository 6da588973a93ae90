//! What the server announces, and so understands.

/// A set of capabilities. A command that needs one that is not in the set is answered with BAD, and is a violation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// Every extension that the simulation knows.
    Full,
    /// [`Profile::Full`] without QRESYNC.
    NoQresync,
    /// [`Profile::Full`] without QRESYNC and CONDSTORE: no mod-sequence is sent or understood.
    NoCondstore,
    /// What Outlook.com announces.
    Outlook,
    /// IMAP4rev1 and nothing else. The greeting and the answer to LOGIN name no capabilities either.
    Bare,
}

impl Profile {
    /// Every profile, for tests that run over all of them.
    pub const ALL: [Self; 5] = [Self::Full, Self::NoQresync, Self::NoCondstore, Self::Outlook, Self::Bare];

    /// Returns the capabilities as the server sends them, separated by spaces.
    #[must_use]
    pub const fn capabilities(self) -> &'static str {
        match self {
            Self::Full => {
                "IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 LITERAL+ SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE \
                 SPECIAL-USE LIST-EXTENDED LIST-STATUS MULTIAPPEND ESEARCH ENABLE CONDSTORE QRESYNC"
            }
            Self::NoQresync => {
                "IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 LITERAL+ SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE \
                 SPECIAL-USE LIST-EXTENDED LIST-STATUS MULTIAPPEND ESEARCH ENABLE CONDSTORE"
            }
            Self::NoCondstore => {
                "IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 LITERAL+ SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE \
                 SPECIAL-USE LIST-EXTENDED LIST-STATUS MULTIAPPEND ESEARCH ENABLE"
            }
            Self::Outlook => {
                "IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE \
                 LITERAL+"
            }
            Self::Bare => "IMAP4rev1",
        }
    }

    /// Tells whether `capability` is announced.
    #[must_use]
    pub fn has(self, capability: &str) -> bool {
        self.capabilities().split(' ').any(|c| c.eq_ignore_ascii_case(capability))
    }
}
