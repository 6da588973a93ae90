//! How the program ends.

use std::process::ExitCode;

use crate::engine::report::Outcome;

/// How the program ends: what scripts depend on.
///
/// Ordered by how much it needs a person. Where several accounts end differently, the code is that of the greatest:
/// one that passes by itself (5, 6) never hides one that does not. So a script may take 5 and 6 for "try again later".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Exit {
    /// 0: done, and everything asked for is in sync.
    Done,
    /// 5: a server cannot be reached or asks to come back later; nothing is broken.
    Unreachable,
    /// 6: another postkeep has this account.
    Busy,
    /// 1: something could not be done; the rest was.
    Partial,
    /// 4: something waits for `approve`, or a root is not the one it was.
    Held,
    /// 3: the user must sign in.
    SignIn,
    /// 2: wrong usage or configuration.
    Usage,
}

impl Exit {
    /// Returns the number that the system gets.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Partial => 1,
            Self::Usage => 2,
            Self::SignIn => 3,
            Self::Held => 4,
            Self::Unreachable => 5,
            Self::Busy => 6,
        }
    }

    /// Returns how the program ends when its parts end like this.
    #[must_use]
    pub fn of_all(parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().max().unwrap_or(Self::Done)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<Outcome> for Exit {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::InSync => Self::Done,
            Outcome::Partial | Outcome::Stopped => Self::Partial,
            Outcome::SignIn => Self::SignIn,
            Outcome::Held => Self::Held,
            Outcome::Unreachable => Self::Unreachable,
            Outcome::Busy => Self::Busy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_that_are_promised() {
        let all = [Exit::Done, Exit::Partial, Exit::Usage, Exit::SignIn, Exit::Held, Exit::Unreachable, Exit::Busy];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_needs_a_person_most_decides() {
        let order = [Exit::Usage, Exit::SignIn, Exit::Held, Exit::Partial, Exit::Busy, Exit::Unreachable, Exit::Done];
        for (n, worse) in order.into_iter().enumerate() {
            for better in order.into_iter().skip(n) {
                assert_eq!(Exit::of_all([worse, better]), worse);
                assert_eq!(Exit::of_all([better, worse]), worse);
            }
        }
        assert_eq!(Exit::of_all([]), Exit::Done);
    }
}
