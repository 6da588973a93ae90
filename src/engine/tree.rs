//! Decides what is to become of each mailbox: by where it exists, and whether it is known.
//! Pure: no I/O, no clock. See [`crate`] for the map.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{MailboxId, MailboxName};

/// What to do with a mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Both sides have it, or will have it as soon as its maildir was made: mirror it.
    Mirror {
        /// Its name.
        name: MailboxName,
        /// The database's number of it, if it is known.
        known: Option<MailboxId>,
        /// Its maildir is to be made.
        make_maildir: bool,
    },
    /// It is new here: make it on the server.
    Create {
        /// Its name.
        name: MailboxName,
    },
    /// Its maildir is missing: it was renamed, or else nothing is done to it, neither here nor on the server.
    MaildirMissing {
        /// The database's number of it.
        known: MailboxId,
        /// Its name.
        name: MailboxName,
    },
    /// The server lists it no more: it was renamed, or else is gone once that is confirmed.
    GoneThere {
        /// The database's number of it.
        known: MailboxId,
        /// Its name.
        name: MailboxName,
    },
    /// Both sides have lost it.
    Forget {
        /// The database's number of it.
        known: MailboxId,
        /// Its name.
        name: MailboxName,
    },
}

/// Returns a step for every mailbox that `listed`, `known` or `here` names: first for those that are known, then for the
/// new ones, each in the order of their names. So whoever finds that one was renamed can take up the new name first.
#[must_use]
pub fn reconcile(
    listed: &BTreeSet<MailboxName>,
    known: &BTreeMap<MailboxName, MailboxId>,
    here: &BTreeSet<MailboxName>,
    push: bool,
) -> Vec<Step> {
    let of_known = known.iter().map(|(name, id)| {
        let (name, known) = (name.clone(), *id);
        match (listed.contains(&name), here.contains(&name)) {
            (true, true) => Step::Mirror { name, known: Some(known), make_maildir: false },
            (true, false) => Step::MaildirMissing { known, name },
            (false, true) => Step::GoneThere { known, name },
            (false, false) => Step::Forget { known, name },
        }
    });
    let new_there = listed.iter().filter(|name| !known.contains_key(name)).map(|name| {
        let make_maildir = !here.contains(name);
        Step::Mirror { name: name.clone(), known: None, make_maildir }
    });
    let new_here = here.iter().filter(|name| push && !known.contains_key(name) && !listed.contains(name));
    let new_here = new_here.map(|name| Step::Create { name: name.clone() });
    of_known.chain(new_there).chain(new_here).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(listed: &[&str], known: &[&str], here: &[&str], push: bool) -> Vec<String> {
        let set = |names: &[&str]| names.iter().map(|&n| n.into()).collect::<BTreeSet<MailboxName>>();
        let known = (0..).zip(known).map(|(i, &n)| (n.into(), MailboxId(i))).collect();
        let text = |step: &Step| match step {
            Step::Mirror { name, known, make_maildir } => {
                let new = if known.is_some() { "" } else { " new" };
                format!("mirror {name}{new}{}", if *make_maildir { " make" } else { "" })
            }
            Step::Create { name } => format!("create {name}"),
            Step::MaildirMissing { name, .. } => format!("maildir missing {name}"),
            Step::GoneThere { name, .. } => format!("gone there {name}"),
            Step::Forget { name, .. } => format!("forget {name}"),
        };
        reconcile(&set(listed), &known, &set(here), push).iter().map(text).collect()
    }

    #[test]
    fn every_combination_has_one_step() {
        // There, known, here: all eight.
        assert_eq!(table(&[], &[], &[], true), [""; 0]);
        assert_eq!(table(&["A"], &[], &[], true), ["mirror A new make"]);
        assert_eq!(table(&["A"], &[], &["A"], true), ["mirror A new"]);
        assert_eq!(table(&["A"], &["A"], &[], true), ["maildir missing A"]);
        assert_eq!(table(&["A"], &["A"], &["A"], true), ["mirror A"]);
        assert_eq!(table(&[], &["A"], &["A"], true), ["gone there A"]);
        assert_eq!(table(&[], &["A"], &[], true), ["forget A"]);
        assert_eq!(table(&[], &[], &["A"], true), ["create A"]);
        assert_eq!(table(&[], &[], &["A"], false), [""; 0]);
    }

    #[test]
    fn what_is_known_comes_before_what_is_new() {
        assert_eq!(table(&["A"], &["B"], &["B"], true), ["gone there B", "mirror A new make"]);
        assert_eq!(table(&["B"], &["B"], &["A"], true), ["maildir missing B", "create A"]);
    }
}
