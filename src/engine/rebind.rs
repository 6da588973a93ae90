//! Pairs messages on the server with files by content, where the numbers that linked them hold no more: after a change of
//! UIDVALIDITY, a lost database, a server restored from a backup, or at the first contact with a tree that is there already.
//! Pure: no I/O, no clock. See [`crate`] for the map.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{ContentKey, Digest, Fingerprint, Uid, UniqueName};

/// A message on the server that no link stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unlinked {
    /// Its UID.
    pub uid: Uid,
    /// What is known of it without its body.
    pub fingerprint: Fingerprint,
    /// The same of what it is without its marks, if it has any.
    pub bare: Option<Fingerprint>,
    /// INTERNALDATE, in seconds since 1970.
    pub internal_date: i64,
}

/// A file that no link stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unbound {
    /// Its unique name.
    pub name: UniqueName,
    /// Its content.
    pub content: ContentKey,
    /// Its mtime, in seconds since 1970.
    pub internal_date: i64,
}

/// The outcome of [`rebind`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rebound {
    /// Messages and the files that have the same content; every one at most once.
    pub pairs: Vec<(Uid, UniqueName)>,
    /// Messages that share their fingerprint with others: only their digest can tell, so call again with it.
    pub ambiguous: BTreeSet<Uid>,
}

/// Pairs messages and files of the same content. `n` equal messages and `m` equal files make `min(n, m)` pairs, those of
/// equal dates first: equal mails are counted, never merged.
///
/// A fingerprint that one message and one file have settles it. Where more share one, the digests decide; `digests` holds
/// those that were fetched so far.
#[must_use]
pub fn rebind(messages: &[Unlinked], files: &[Unbound], digests: &BTreeMap<Uid, Digest>) -> Rebound {
    let mut groups: BTreeMap<Fingerprint, (Vec<&Unlinked>, Vec<&Unbound>)> = BTreeMap::new();
    for message in messages {
        groups.entry(message.fingerprint).or_default().0.push(message);
    }
    for file in files {
        groups.entry(file.content.fingerprint).or_default().1.push(file);
    }
    let mut out = Rebound::default();
    for (messages, files) in groups.into_values() {
        match (messages.as_slice(), files.as_slice()) {
            ([], _) | (_, []) => {}
            ([message], [file]) => out.pairs.push((message.uid, file.name.clone())),
            (messages, _) if messages.iter().any(|m| !digests.contains_key(&m.uid)) => {
                out.ambiguous.extend(messages.iter().map(|m| m.uid));
            }
            (messages, files) => pair_by_digest(messages, files, digests, &mut out.pairs),
        }
    }
    out.pairs.sort_unstable();
    out
}

fn pair_by_digest(
    messages: &[&Unlinked],
    files: &[&Unbound],
    digests: &BTreeMap<Uid, Digest>,
    pairs: &mut Vec<(Uid, UniqueName)>,
) {
    let mut free: BTreeSet<usize> = (0..files.len()).collect();
    // Those whose dates agree first, so that identical mails keep their dates.
    for same_date in [true, false] {
        for message in messages {
            if pairs.iter().any(|(uid, _)| *uid == message.uid) {
                continue;
            }
            let fits = |&i: &usize| {
                digests.get(&message.uid) == Some(&files[i].content.digest)
                    && (!same_date || files[i].internal_date == message.internal_date)
            };
            if let Some(i) = free.iter().copied().find(fits) {
                free.remove(&i);
                pairs.push((message.uid, files[i].name.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message or file: which header it has, which body, which date. Equal headers may go with different bodies.
    type Mail = (u8, u8, i64);

    fn content((header, body, _): Mail) -> ContentKey {
        let fingerprint = Fingerprint { header: Digest([header; 32]), size: 100 };
        let mut digest = [header; 32];
        digest[0] = body;
        ContentKey { digest: Digest(digest), fingerprint }
    }

    fn rebind_all(messages: &[Mail], files: &[Mail]) -> (Vec<(Uid, UniqueName)>, usize) {
        let uid = |i: usize| Uid::new(i as u64 + 1).unwrap();
        let unlinked: Vec<_> = (0..messages.len())
            .map(|i| Unlinked {
                uid: uid(i),
                fingerprint: content(messages[i]).fingerprint,
                bare: None,
                internal_date: messages[i].2,
            })
            .collect();
        let unbound: Vec<_> = (0..files.len())
            .map(|i| Unbound {
                name: UniqueName::new(format!("{i:03}").as_bytes()),
                content: content(files[i]),
                internal_date: files[i].2,
            })
            .collect();
        let first = rebind(&unlinked, &unbound, &BTreeMap::new());
        let digests = first
            .ambiguous
            .iter()
            .map(|u| (*u, content(messages[u.get() as usize - 1]).digest))
            .collect::<BTreeMap<_, _>>();
        let second = rebind(&unlinked, &unbound, &digests);
        assert!(second.ambiguous.is_empty());
        (second.pairs, digests.len())
    }

    proptest! {
        #[test]
        fn equal_mails_are_counted(
            messages in prop::collection::vec((0u8..4, 0u8..2, 0i64..2), 0..12),
            files in prop::collection::vec((0u8..4, 0u8..2, 0i64..2), 0..12),
        ) {
            let (pairs, fetched) = rebind_all(&messages, &files);
            let (mut uids, mut names) = (BTreeSet::new(), BTreeSet::new());
            for (uid, name) in &pairs {
                prop_assert!(uids.insert(*uid) && names.insert(name.clone()));
            }
            for header in 0..4 {
                let with = |side: &[Mail]| side.iter().filter(|m| m.0 == header).copied().collect::<Vec<_>>();
                let (there, here) = (with(&messages), with(&files));
                let of_header = pairs.iter().filter(|(u, _)| messages[u.get() as usize - 1].0 == header).count();
                if there.len() == 1 && here.len() == 1 {
                    prop_assert_eq!(of_header, 1);
                } else {
                    let equal: usize = (0..2)
                        .map(|b| there.iter().filter(|m| m.1 == b).count().min(here.iter().filter(|m| m.1 == b).count()))
                        .sum();
                    prop_assert_eq!(of_header, equal);
                }
            }
            if fetched == 0 {
                prop_assert!(pairs.len() <= messages.len().min(files.len()));
            }
        }
    }

    #[test]
    fn identical_mails_keep_their_dates() {
        let (pairs, _) = rebind_all(&[(1, 0, 10), (1, 0, 20)], &[(1, 0, 20), (1, 0, 10)]);
        let names: Vec<_> = pairs.iter().map(|(_, name)| name.to_string()).collect();
        assert_eq!(names, ["001", "000"]);
    }

    #[test]
    fn a_mail_alone_is_matched_without_its_body() {
        let (pairs, fetched) = rebind_all(&[(1, 0, 10), (2, 0, 10)], &[(2, 0, 99), (3, 0, 10)]);
        assert_eq!((pairs.len(), fetched), (1, 0));
    }
}
