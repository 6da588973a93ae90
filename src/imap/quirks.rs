//! What a provider does differently, as data.

/// Something that a provider does, or does not do, whatever it announces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Habit {
    /// RFC822.SIZE is an estimate, so that a fingerprint's size identifies nothing.
    EstimatesSizes,
    /// There is no counter of changes, but SEARCH tells flags exactly, and no other flags than the system's can be kept:
    /// what changed is found by a sweep.
    Sweeps,
    /// `\Flagged` that came with APPEND is lost; it has to be stored afterwards.
    ForgetsFlagged,
    /// FETCH gives the flags from before a STORE, until CHECK.
    LagsAfterStore,
    /// Mailbox names that differ by case only are one.
    IgnoresCase,
    /// The server puts a copy of what is sent into `\Sent` by itself, under another Message-ID, and many minutes later.
    CopiesSent,
    /// Messages are listed and not given, or given as a text about that, or refused; for minutes or for good.
    Withholds,
    /// The header of a message changes when a flag is set, or when it is appended: another one tells of no other message.
    Rewrites,
    /// A mailbox with a new UIDVALIDITY shows its messages little by little.
    RenumbersSlowly,
    /// Special mailboxes have no attribute where they were not made by the service, but names in the user's language.
    NamesRoles,
}

/// The ways in which a provider differs from what it announces. The default is a server without any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quirks {
    /// Several commands may be on their way at once.
    pub pipelining: bool,
    /// The longest command line that is sent, in bytes; also bounds the UID sets in it.
    pub max_command_bytes: usize,
    /// How many messages one command asks the bodies of.
    pub body_batch: u32,
    /// How many messages one command asks the flags of, roughly.
    pub flag_batch: u32,
    /// What it does differently.
    pub habits: &'static [Habit],
    /// Capabilities that are announced, but are to be treated as if they were not; in any case.
    pub ignore: Vec<String>,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            pipelining: true,
            // RFC 7162 §4 asks servers to take 8192 bytes.
            max_command_bytes: 8000,
            body_batch: 500,
            flag_batch: 20_000,
            habits: &[],
            ignore: Vec::new(),
        }
    }
}

/// What Exchange does, in the cloud and elsewhere.
const EXCHANGE: &[Habit] = &[
    Habit::EstimatesSizes,
    Habit::Sweeps,
    Habit::ForgetsFlagged,
    Habit::LagsAfterStore,
    Habit::IgnoresCase,
    Habit::CopiesSent,
    Habit::Withholds,
    Habit::Rewrites,
    Habit::RenumbersSlowly,
    Habit::NamesRoles,
];

impl Quirks {
    /// Returns those of Outlook.com: commands above 4096 bytes are refused, pipelined commands get lost, and what is
    /// announced along with IMAP4rev2 does not work.
    #[must_use]
    pub fn outlook() -> Self {
        Self {
            pipelining: false,
            max_command_bytes: 4000,
            body_batch: 200,
            flag_batch: 5000,
            habits: EXCHANGE,
            ignore: vec!["IMAP4rev2".to_owned(), "ENABLE".to_owned()],
        }
    }

    /// Returns those of the server that has this name, as far as a name tells.
    #[must_use]
    pub fn of_host(host: &str) -> Self {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let is = |domain: &str| host == domain || host.ends_with(&format!(".{domain}"));
        if ["outlook.com", "office365.com", "outlook.office.com"].into_iter().any(is) {
            Self::outlook()
        } else {
            Self::default()
        }
    }

    /// Tells whether a server says of itself, in its greeting or in its answer to ID, that it is Exchange. The greeting has
    /// changed over the years; these words have been in all of them.
    #[must_use]
    pub(super) fn is_exchange(words: &str) -> bool {
        let words = words.to_ascii_lowercase();
        ["exchange imap4 service", "microsoft.exchange.imap4"].iter().any(|sign| words.contains(sign))
    }

    /// Tells whether the provider does this.
    #[must_use]
    pub fn has(&self, habit: Habit) -> bool {
        self.habits.contains(&habit)
    }

    /// Returns how long a UID set may be in a command that also holds `arguments` bytes of other arguments.
    pub(super) fn set_bytes(&self, arguments: usize) -> usize {
        // The tag, the name of the command, and the items of the longest FETCH.
        const WORDS: usize = 100;
        self.max_command_bytes.saturating_sub(WORDS + arguments).max(WORDS)
    }

    /// Returns how many commands may be on their way at once, where `most` would do.
    pub(super) fn window(&self, most: usize) -> usize {
        if self.pipelining { most } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlook_gets_one_command_at_a_time() {
        assert_eq!((Quirks::default().window(4), Quirks::outlook().window(4)), (4, 1));
    }

    #[test]
    fn exchange_is_known_by_its_name_and_its_words() {
        let table = [
            ("imap-mail.outlook.com", true),
            ("Outlook.Office365.com.", true),
            ("outlook.office.com", true),
            ("imap.example.org", false),
            ("notoutlook.com", false),
            ("outlook.com.example.org", false),
        ];
        for (host, exchange) in table {
            assert_eq!(Quirks::of_host(host) == Quirks::outlook(), exchange, "{host}");
        }
        let words = [
            ("The Microsoft Exchange IMAP4 service is ready. [RgBSADIA]", true),
            ("Microsoft Exchange IMAP4 service ready. 3f (tcpproxy/15.21 BACKENDAUTHENTICATE) [RgBS]", true),
            ("(\"name\" \"Microsoft.Exchange.Imap4.Imap4Server\" \"version\" \"15.20\")", true),
            ("Dovecot ready.", false),
        ];
        for (text, exchange) in words {
            assert_eq!(Quirks::is_exchange(text), exchange, "{text}");
        }
    }
}
