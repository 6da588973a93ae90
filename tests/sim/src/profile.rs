//! What the server announces, and so understands.

use crate::quirks::Quirks;

/// A set of capabilities. A command that needs one that is not in the set is answered with BAD, and is a violation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// Every extension that the simulation knows.
    Full,
    /// [`Profile::Full`] without QRESYNC and NOTIFY.
    NoQresync,
    /// [`Profile::Full`] without QRESYNC, NOTIFY and CONDSTORE: no mod-sequence is sent or understood.
    NoCondstore,
    /// What Outlook.com announces, and nothing else of it: the answers are those of the other profiles.
    Outlook,
    /// IMAP4rev1 and nothing else. The greeting and the answer to LOGIN name no capabilities either.
    Bare,
    /// Outlook.com as it was from 2018 to 2024, with its mailboxes, its words and its [`Quirks::exchange`].
    ExoClassic,
    /// Outlook.com as it is in 2026: as [`Profile::ExoClassic`], but it takes no passwords.
    Exo2026,
    /// As [`Profile::Exo2026`], on a backend that also announces IMAP4rev2, which does not work.
    Exo2026Rev2,
}

/// What Exchange announces after the sign-in, from 2018 on.
const EXCHANGE_AFTER: &str = "IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT \
    CLIENTACCESSRULES CLIENTNETWORKPRESENCELOCATION BACKENDAUTHENTICATE CHILDREN IDLE NAMESPACE LITERAL+";

impl Profile {
    /// The profiles that are no particular provider's, for tests that run over all of them.
    pub const ALL: [Self; 5] = [Self::Full, Self::NoQresync, Self::NoCondstore, Self::Outlook, Self::Bare];
    /// The profiles that speak as Outlook.com does.
    pub const EXCHANGE: [Self; 3] = [Self::ExoClassic, Self::Exo2026, Self::Exo2026Rev2];

    /// Returns the capabilities after the sign-in as the server sends them, separated by spaces.
    #[must_use]
    pub const fn capabilities(self) -> &'static str {
        match self {
            Self::Full => {
                "IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 LITERAL+ SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE \
                 SPECIAL-USE LIST-EXTENDED LIST-STATUS MULTIAPPEND ESEARCH ENABLE CONDSTORE QRESYNC NOTIFY"
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
            Self::ExoClassic | Self::Exo2026 => EXCHANGE_AFTER,
            Self::Exo2026Rev2 => {
                "IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT ENABLE IMAP4rev2 \
                 CLIENTACCESSRULES CLIENTNETWORKPRESENCELOCATION BACKENDAUTHENTICATE BACKENDAUTHENTICATE-IR CHILDREN \
                 IDLE NAMESPACE LITERAL+"
            }
        }
    }

    /// Returns the capabilities before the sign-in.
    #[must_use]
    pub const fn capabilities_before(self) -> &'static str {
        match self {
            Self::ExoClassic => {
                "IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+"
            }
            Self::Exo2026 | Self::Exo2026Rev2 => {
                "IMAP4 IMAP4rev1 AUTH=XOAUTH2 LOGINDISABLED SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE \
                 LITERAL+"
            }
            _ => self.capabilities(),
        }
    }

    /// Tells whether `capability` is announced after the sign-in, or before it if it tells how to sign in.
    #[must_use]
    pub fn has(self, capability: &str) -> bool {
        let before = ["AUTH=", "LOGINDISABLED", "SASL-IR"].iter().any(|c| capability.starts_with(c));
        let list = if before { self.capabilities_before() } else { self.capabilities() };
        list.split(' ').any(|c| c.eq_ignore_ascii_case(capability))
    }

    /// Tells whether the server speaks as Outlook.com does.
    #[must_use]
    pub const fn is_exchange(self) -> bool {
        matches!(self, Self::ExoClassic | Self::Exo2026 | Self::Exo2026Rev2)
    }

    /// Returns what such a server does that no capability tells.
    #[must_use]
    pub fn quirks(self) -> Quirks {
        match self {
            Self::ExoClassic => Quirks { basic_auth: true, ..Quirks::exchange() },
            Self::Exo2026 | Self::Exo2026Rev2 => Quirks::exchange(),
            _ => Quirks::default(),
        }
    }

    /// Returns the first line that a client gets, without its CRLF.
    pub(crate) fn greeting(self) -> String {
        match self {
            Self::Bare => "* OK ready".to_owned(),
            // What is in brackets is the name of a machine in base64 of UTF-16, and no response code.
            Self::ExoClassic => {
                "* OK The Microsoft Exchange IMAP4 service is ready. [RgBSADIAUAAyADgAMQBDAEEAMAAwADUAOQA=]".to_owned()
            }
            Self::Exo2026 | Self::Exo2026Rev2 => {
                "* OK Microsoft Exchange IMAP4 service ready. 3f0c1d52-7a0e-4f0b-9f6e-2a54b2f3c9d1 \
                 (tcpproxy/15.21.0406.000 BACKENDAUTHENTICATE) [RgBSADIAUAAyADgAMQBDAEEAMAAwADUAOQA=]"
                    .to_owned()
            }
            _ => format!("* OK [CAPABILITY {}] ready", self.capabilities_before()),
        }
    }
}
