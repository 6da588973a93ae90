//! Decides what is to become of each mailbox: which exist where, which were renamed, which are gone.
//! Pure: no I/O, no clock. See [`crate`] for the map.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{MailboxId, MailboxName, UidValidity};

/// A mailbox as the server lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its name.
    pub name: MailboxName,
    /// The epoch of its UIDs, where STATUS told.
    pub uid_validity: Option<UidValidity>,
}

/// A mailbox as the database knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// The database's number of it.
    pub id: MailboxId,
    /// Its name.
    pub name: MailboxName,
    /// The epoch under which its links hold.
    pub uid_validity: Option<UidValidity>,
}

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
    /// It may have been renamed on the server: if so, rename its maildir.
    RenamedThere {
        /// The database's number of it.
        known: MailboxId,
        /// Its name so far.
        from: MailboxName,
        /// Its new name.
        to: MailboxName,
    },
    /// Its maildir may have been renamed: if so, rename it on the server.
    RenamedHere {
        /// The database's number of it.
        known: MailboxId,
        /// Its name so far.
        from: MailboxName,
        /// Its new name.
        to: MailboxName,
    },
    /// Its maildir is missing: nothing is done to it, neither here nor on the server.
    MaildirMissing {
        /// The database's number of it.
        known: MailboxId,
        /// Its name.
        name: MailboxName,
    },
    /// The server lists it no more.
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

/// Returns a step for every mailbox that `listed`, `known` or `here` names, in the order of their names.
///
/// A rename is only a candidate: whoever carries it out must find the messages under the new name first.
#[must_use]
pub fn reconcile(listed: &[Listed], known: &[Known], here: &BTreeSet<MailboxName>, push: bool) -> Vec<Step> {
    let there: BTreeMap<&MailboxName, &Listed> = listed.iter().map(|l| (&l.name, l)).collect();
    let by_name: BTreeMap<&MailboxName, &Known> = known.iter().map(|k| (&k.name, k)).collect();
    let mut new_there: Vec<&Listed> = listed.iter().filter(|l| !by_name.contains_key(&l.name)).collect();
    let mut new_here: Vec<&MailboxName> =
        here.iter().filter(|n| !by_name.contains_key(n) && !there.contains_key(n)).collect();
    let mut steps = Vec::new();

    for k in by_name.values() {
        let (id, name) = (k.id, k.name.clone());
        match (there.contains_key(&k.name), here.contains(&k.name)) {
            (true, true) => steps.push(Step::Mirror { name, known: Some(id), make_maildir: false }),
            (true, false) => match new_here.first().copied().filter(|_| push && !k.name.is_inbox()) {
                Some(to) => {
                    new_here.remove(0);
                    steps.push(Step::RenamedHere { known: id, from: name, to: to.clone() });
                }
                None => steps.push(Step::MaildirMissing { known: id, name }),
            },
            (false, true) => {
                let same_epoch = |l: &&Listed| l.uid_validity.is_some() && l.uid_validity == k.uid_validity;
                match new_there.iter().position(|l| same_epoch(l) && !here.contains(&l.name)) {
                    Some(i) => {
                        let to = new_there.remove(i).name.clone();
                        steps.push(Step::RenamedThere { known: id, from: name, to });
                    }
                    None => steps.push(Step::GoneThere { known: id, name }),
                }
            }
            (false, false) => steps.push(Step::Forget { known: id, name }),
        }
    }
    for l in new_there {
        let make_maildir = !here.contains(&l.name);
        steps.push(Step::Mirror { name: l.name.clone(), known: None, make_maildir });
    }
    if push {
        steps.extend(new_here.into_iter().map(|name| Step::Create { name: name.clone() }));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(listed: &[(&str, u64)], known: &[(&str, u64)], here: &[&str], push: bool) -> Vec<String> {
        let validity = |n: u64| UidValidity::new(n).ok();
        let listed: Vec<_> =
            listed.iter().map(|&(n, v)| Listed { name: n.into(), uid_validity: validity(v) }).collect();
        let known: Vec<_> = (0..)
            .zip(known)
            .map(|(i, &(n, v))| Known { id: MailboxId(i), name: n.into(), uid_validity: validity(v) })
            .collect();
        let here = here.iter().map(|&n| n.into()).collect();
        let text = |step: &Step| match step {
            Step::Mirror { name, known, make_maildir } => {
                format!(
                    "mirror {name}{}{}",
                    if known.is_some() { "" } else { " new" },
                    if *make_maildir { " make" } else { "" }
                )
            }
            Step::Create { name } => format!("create {name}"),
            Step::RenamedThere { from, to, .. } => format!("renamed there {from} {to}"),
            Step::RenamedHere { from, to, .. } => format!("renamed here {from} {to}"),
            Step::MaildirMissing { name, .. } => format!("maildir missing {name}"),
            Step::GoneThere { name, .. } => format!("gone there {name}"),
            Step::Forget { name, .. } => format!("forget {name}"),
        };
        reconcile(&listed, &known, &here, push).iter().map(text).collect()
    }

    #[test]
    fn every_combination_has_one_step() {
        // There, known, here: all eight.
        assert_eq!(table(&[], &[], &[], true), [""; 0]);
        assert_eq!(table(&[("A", 1)], &[], &[], true), ["mirror A new make"]);
        assert_eq!(table(&[("A", 1)], &[], &["A"], true), ["mirror A new"]);
        assert_eq!(table(&[("A", 1)], &[("A", 1)], &[], true), ["maildir missing A"]);
        assert_eq!(table(&[("A", 1)], &[("A", 1)], &["A"], true), ["mirror A"]);
        assert_eq!(table(&[], &[("A", 1)], &["A"], true), ["gone there A"]);
        assert_eq!(table(&[], &[("A", 1)], &[], true), ["forget A"]);
        assert_eq!(table(&[], &[], &["A"], true), ["create A"]);
        assert_eq!(table(&[], &[], &["A"], false), [""; 0]);
    }

    #[test]
    fn renames_are_candidates_only_where_they_can_be() {
        assert_eq!(table(&[("B", 1)], &[("A", 1)], &["A"], true), ["renamed there A B"]);
        assert_eq!(table(&[("B", 2)], &[("A", 1)], &["A"], true), ["gone there A", "mirror B new make"]);
        assert_eq!(table(&[("B", 1)], &[("A", 1)], &["A", "B"], true), ["gone there A", "mirror B new"]);
        assert_eq!(table(&[("A", 1)], &[("A", 1)], &["B"], true), ["renamed here A B"]);
        assert_eq!(table(&[("A", 1)], &[("A", 1)], &["B"], false), ["maildir missing A"]);
        assert_eq!(table(&[("INBOX", 1)], &[("INBOX", 1)], &["B"], true), ["maildir missing INBOX", "create B"]);
    }
}
