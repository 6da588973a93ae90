//! What a provider does differently, as data.

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
    /// RFC822.SIZE is the length of what BODY[] gives; where not, a fingerprint's size identifies nothing.
    pub sizes_exact: bool,
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
            sizes_exact: true,
            ignore: Vec::new(),
        }
    }
}

impl Quirks {
    /// Returns those of Outlook.com: commands above 4096 bytes are refused, pipelined commands get lost, RFC822.SIZE
    /// is an estimate, and what is announced along with IMAP4rev2 does not work.
    #[must_use]
    pub fn outlook() -> Self {
        Self {
            pipelining: false,
            max_command_bytes: 4000,
            body_batch: 200,
            flag_batch: 5000,
            sizes_exact: false,
            ignore: vec!["IMAP4rev2".to_owned(), "ENABLE".to_owned()],
        }
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
}
