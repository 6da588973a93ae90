//! Are events about files news, or only what a pass did itself? Decided by what the base says of these files. Pure.

use std::collections::BTreeMap;

use crate::maildir::{self, Fate};
use crate::model::{Flag, Flags, Link, LinkState, UniqueName};

/// Tells whether the base does not know already what became of these files. `links` are those of their unique names.
pub(super) fn is_news(links: &[Link], files: &BTreeMap<Vec<u8>, Fate>) -> bool {
    let by_name: BTreeMap<&UniqueName, &Link> = links.iter().filter_map(|link| Some((link.name()?, link))).collect();
    let here = files.iter().filter(|(_, fate)| **fate != Fate::Went);
    let came: BTreeMap<UniqueName, &[u8]> = here.map(|(file, _)| (maildir::unique_of(file), file.as_slice())).collect();
    files.iter().any(|(file, fate)| {
        let (unique, is_here) = (maildir::unique_of(file), *fate != Fate::Went);
        match (by_name.get(&unique).map(|link| &link.state), is_here) {
            (Some(LinkState::Synced { flags, .. }), true) => shown(file).as_ref() != Some(flags),
            // Under which name it is now is told by the event that says so.
            (Some(LinkState::Synced { .. }), false) => !came.contains_key(&unique),
            (Some(LinkState::Downloading { .. } | LinkState::Uploading { .. } | LinkState::Skipped { .. }), _) => true,
            (None, is_here) => is_here,
        }
    })
}

/// Returns the flags that a file name says; `None` if letters of keywords are among them, which mean something else in
/// each maildir.
fn shown(file: &[u8]) -> Option<Flags> {
    let mut flags = Flags::new();
    for letter in maildir::letters_of(file) {
        flags.insert(Flag::ALL.into_iter().find(|flag| flag.letter() == *letter)?);
    }
    Some(flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LinkId, Uid};

    #[test]
    fn what_the_base_knows_already_is_no_news() {
        let link = |name: &str, flags: &[Flag]| {
            let mut all = Flags::new();
            flags.iter().for_each(|flag| all.insert(*flag));
            let (uid, name) = (Uid::new(1).unwrap(), UniqueName::new(name.as_bytes()));
            let state = LinkState::Synced { uid, name, flags: all };
            Link { id: LinkId(1), state, content: None, internal_date: None, inode: None }
        };
        let (plain, seen) = (link("a", &[]), link("a", &[Flag::Seen]));
        type Row<'a> = (&'a str, Option<&'a Link>, &'a [(&'a str, bool)], bool);
        let rows: [Row<'_>; 12] = [
            ("delivered by us", Some(&plain), &[("a", true)], false),
            ("delivered by someone", None, &[("b", true)], true),
            ("flagged by us", Some(&seen), &[("a", false), ("a:2,S", true)], false),
            ("flagged by someone", Some(&plain), &[("a", false), ("a:2,S", true)], true),
            ("put into cur by a reader", Some(&plain), &[("a", false), ("a:2,", true)], false),
            ("removed by us", None, &[("a:2,S", false)], false),
            ("removed by someone", Some(&seen), &[("a:2,S", false)], true),
            ("came and went", None, &[("x", false)], false),
            ("a keyword", Some(&seen), &[("a:2,Sa", true)], true),
            ("no info", Some(&seen), &[("a", true)], true),
            ("with more behind", Some(&seen), &[("a:2,S,x", true)], false),
            ("nothing", Some(&seen), &[], false),
        ];
        for (what, link, files, news) in rows {
            let fate = |came: bool| if came { Fate::Moved } else { Fate::Went };
            let files = files.iter().map(|(name, came)| (name.as_bytes().to_vec(), fate(*came))).collect();
            assert_eq!(is_news(link.map_or(&[], std::slice::from_ref), &files), news, "{what}");
        }
    }
}
