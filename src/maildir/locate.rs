//! Finds messages of which the names are known, without listing the maildir where that can be helped.

use std::collections::{BTreeMap, BTreeSet};

use rustix::fs::FileType;

use super::error::failed;
use super::name::{self, spell, split};
use super::{Error, FileRef, Keywords, Located, Maildir, sys};
use crate::model::{Flags, Place, UniqueName};

/// Where messages are.
pub(super) type Found = BTreeMap<UniqueName, FileRef>;

impl Maildir {
    /// Returns where messages are of which the unique names and the flags are known, those that are there.
    ///
    /// It looks where such a file usually is, and lists the maildir only for those that are not.
    ///
    /// # Errors
    /// Those of looking and listing.
    pub fn locate(&self, wanted: &BTreeMap<UniqueName, Flags>) -> Result<BTreeMap<UniqueName, Located>, Error> {
        let keywords = self.keywords()?;
        let (mut located, mut missed) = (BTreeMap::new(), BTreeSet::new());
        for (unique, flags) in wanted {
            match self.guess(unique, flags, &keywords)? {
                Some(found) => drop(located.insert(unique.clone(), found)),
                None => drop(missed.insert(unique.clone())),
            }
        }
        if !missed.is_empty() {
            for (unique, file) in self.find(&missed)? {
                if let Some(found) = self.look(file, &keywords)? {
                    located.insert(unique, found);
                }
            }
        }
        Ok(located)
    }

    /// Looks for a message under the names that it has if no mail reader writes unusual ones.
    fn guess(&self, unique: &UniqueName, flags: &Flags, keywords: &Keywords) -> Result<Option<Located>, Error> {
        let (unique, letters) = (unique.as_bytes(), keywords.spell(flags));
        let spelled = spell(unique, &letters, b"");
        // Of several with one unique name, the one that a scan keeps.
        let names: &[(Place, &[u8])] = if letters.is_empty() {
            &[(Place::Cur, unique), (Place::Cur, &spelled), (Place::New, unique)]
        } else {
            &[(Place::Cur, &spelled)]
        };
        for (place, file) in names {
            if let Some(found) = self.look(FileRef::new(*place, file), keywords)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn look(&self, file: FileRef, keywords: &Keywords) -> Result<Option<Located>, Error> {
        match sys::look(self.place(file.place), file.file_name()) {
            Ok(Some((inode, FileType::RegularFile))) => {
                let flags = name::flags(file.file_name(), keywords);
                Ok(Some(Located { file, flags, inode }))
            }
            Ok(Some(_) | None) => Ok(None),
            Err(error) => Err(failed("look at", &self.path_of(&file))(error)),
        }
    }

    /// Returns where the messages with these unique names are now; sorted names, one listing.
    pub(super) fn find(&self, wanted: &BTreeSet<UniqueName>) -> Result<Found, Error> {
        let mut found = Found::new();
        let wanted: BTreeSet<&[u8]> = wanted.iter().map(UniqueName::as_bytes).collect();
        for place in [Place::New, Place::Cur] {
            let each = |entry: sys::Listed<'_>| {
                let unique = split(entry.name).0;
                if entry.kind != FileType::RegularFile || !wanted.contains(unique) {
                    return;
                }
                let file = FileRef::new(place, entry.name);
                let first = found.entry(UniqueName::new(unique)).or_insert_with(|| file.clone());
                // Of several, the one that a scan keeps: in `cur/` before in `new/`, then in the order of the names.
                if first.place != place || file < *first {
                    *first = file;
                }
            };
            let path = self.path().join(name::directory(place));
            sys::list(self.place(place), each).map_err(failed("list", &path))?;
        }
        Ok(found)
    }
}
