//! Which mailboxes are mirrored: patterns in order, the last match decides.

use std::fmt;

use crate::model::MailboxName;

/// Patterns over mailbox names, in order: the last one that matches decides. What none matches is in if the first
/// pattern is negated (it takes away from everything), else out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    patterns: Vec<Pattern>,
}

/// `*` stands for any characters but `/`, `**` for any characters; all others, `[` and `?` too, for themselves.
/// A `!` in front negates. The first component `INBOX` is matched in any case, as in [`MailboxName`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    negated: bool,
    glob: String,
}

impl Pattern {
    /// Reads a pattern; returns `None` for an empty one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let (negated, glob) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let inbox = glob.split('/').next().filter(|first| first.eq_ignore_ascii_case("INBOX"));
        let glob = inbox.map_or_else(|| glob.to_owned(), |first| format!("INBOX{}", &glob[first.len()..]));
        (!glob.is_empty()).then_some(Self { negated, glob })
    }

    /// Tells whether the pattern takes mailboxes away.
    #[must_use]
    pub const fn is_negated(&self) -> bool {
        self.negated
    }

    fn matches(&self, name: &str) -> bool {
        glob_matches(&self.glob, name)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.negated { "!" } else { "" }, self.glob)
    }
}

impl Filter {
    /// Returns the filter of these patterns; none at all let every mailbox in.
    #[must_use]
    pub const fn new(patterns: Vec<Pattern>) -> Self {
        Self { patterns }
    }

    /// Returns the patterns, in order.
    #[must_use]
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Tells whether the mailbox is mirrored.
    #[must_use]
    pub fn matches(&self, name: &MailboxName) -> bool {
        let otherwise = self.patterns.first().is_none_or(Pattern::is_negated);
        let last = self.patterns.iter().rev().find(|p| p.matches(name.as_str()));
        last.map_or(otherwise, |p| !p.negated)
    }
}

/// Matches without recursion, in a time bounded by the product of the lengths: after a mismatch only the place of the
/// last `**`, or of a `*` after it, is tried again one character further on.
fn glob_matches(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    let (mut g, mut n) = (0, 0);
    let (mut star, mut stars) = (None, None);
    loop {
        match glob.get(g) {
            Some('*') if glob.get(g + 1) == Some(&'*') => {
                g += 2;
                (stars, star) = (Some((g, n)), None);
            }
            Some('*') => {
                g += 1;
                star = Some((g, n));
            }
            None if n == name.len() => return true,
            Some(c) if name.get(n) == Some(c) => (g, n) = (g + 1, n + 1),
            Some(_) | None => match (star, stars) {
                (Some((after, from)), _) if name.get(from).is_some_and(|c| *c != '/') => {
                    star = Some((after, from + 1));
                    (g, n) = (after, from + 1);
                }
                (_, Some((after, from))) if from < name.len() => {
                    (stars, star) = (Some((after, from + 1)), None);
                    (g, n) = (after, from + 1);
                }
                (_, _) => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(patterns: &[&str]) -> Filter {
        Filter::new(patterns.iter().map(|p| Pattern::new(p).unwrap()).collect())
    }

    #[test]
    fn the_last_match_decides() {
        let rows: &[(&[&str], &[&str], &[&str])] = &[
            (&[], &["INBOX", "a/b/c"], &[]),
            (&["*"], &["INBOX", "Sent", "Sent Items"], &["Lists/rust", "a/b/c"]),
            (&["**"], &["INBOX", "a/b/c"], &[]),
            (&["*", "!Junk", "!Lists/**"], &["INBOX", "Lists"], &["Junk", "Lists/rust", "Other/x"]),
            (&["!Junk"], &["INBOX", "Junk/sub", "a/b"], &["Junk"]),
            (&["!Lists/**", "Lists/rust"], &["Lists/rust", "INBOX", "Lists"], &["Lists/c", "Lists/rust/old"]),
            (&["inbox"], &["INBOX", "Inbox", "inbox"], &["INBOX/sub", "Sent"]),
            (&["Inbox/*"], &["INBOX/sub", "inbox/sub"], &["INBOX", "INBOX/a/b"]),
            (&["[Gmail]/All Mail"], &["[Gmail]/All Mail"], &["G/All Mail"]),
            (&["**/rust"], &["a/rust", "a/b/rust"], &["rust", "a/rust/c"]),
            (&["a*/**b*"], &["ax/b", "a/c/d/b", "a/bb"], &["a", "ax/c", "b/b", "a/b/c"]),
            (&["*ü*"], &["Entwürfe", "ü"], &["Entwurf", "a/ü"]),
        ];
        for (patterns, within, without) in rows {
            let filter = filter(patterns);
            for name in *within {
                assert!(filter.matches(&MailboxName::from(*name)), "{patterns:?} must let {name} in");
            }
            for name in *without {
                assert!(!filter.matches(&MailboxName::from(*name)), "{patterns:?} must keep {name} out");
            }
        }
    }

    #[test]
    fn an_empty_pattern_is_none() {
        assert!(Pattern::new("!").is_none() && Pattern::new("").is_none());
    }

    /// The obvious matcher: tries everything.
    fn slow(glob: &[char], name: &[char]) -> bool {
        match (glob, name) {
            ([], []) => true,
            (['*', '*', rest @ ..], _) => (0..=name.len()).any(|n| slow(rest, &name[n..])),
            (['*', rest @ ..], _) => {
                let end = name.iter().position(|c| *c == '/').unwrap_or(name.len());
                (0..=end).any(|n| slow(rest, &name[n..]))
            }
            ([g, rest @ ..], [n, more @ ..]) => g == n && slow(rest, more),
            ([_, ..], []) | ([], [_, ..]) => false,
        }
    }

    proptest! {
        #[test]
        fn the_quick_matcher_agrees_with_the_obvious_one(glob in "[ab/*]{0,10}", name in "[ab/]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(glob_matches(&glob, &name), slow(&chars(&glob), &chars(&name)));
        }

        #[test]
        fn a_last_pattern_that_names_a_mailbox_decides_it(before in prop::collection::vec("!?[a-c*]{1,4}", 0..4), name in "[a-c]{1,3}") {
            let mut patterns: Vec<Pattern> = before.iter().filter_map(|p| Pattern::new(p)).collect();
            let mailbox = MailboxName::from(name.as_str());
            patterns.push(Pattern::new(&name).unwrap());
            prop_assert!(Filter::new(patterns.clone()).matches(&mailbox));
            patterns.push(Pattern::new(&format!("!{name}")).unwrap());
            prop_assert!(!Filter::new(patterns).matches(&mailbox));
        }
    }
}
