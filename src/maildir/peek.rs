//! Looks at the few files of which it was told that something happened to them, without listing the maildir.

use std::collections::{BTreeMap, BTreeSet};

use rustix::fs::FileType;

use super::error::failed;
use super::{Error, FileRef, Located, Maildir, Stamp, name, sys, unique_of};
use crate::model::{Place, UniqueName};

/// What a look at some files has found. It proves nothing about any others, nor that one is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peek {
    /// When the directories last changed before.
    pub stamp: Stamp,
    /// The messages whose file was found, under one name and in one place.
    pub found: BTreeMap<UniqueName, Located>,
    /// Those whose file was found under none of the names, or under more than one: only a listing tells what they are.
    pub unsure: BTreeSet<UniqueName>,
}

impl Maildir {
    /// Looks at files by their names with info.
    ///
    /// # Errors
    /// Those of looking.
    pub fn peek<'a>(&self, files: impl Iterator<Item = &'a [u8]> + Clone) -> Result<Peek, Error> {
        let (stamp, keywords) = (self.stamp()?, self.keywords()?);
        let mut peek = Peek { stamp, found: BTreeMap::new(), unsure: BTreeSet::new() };
        // As a scan does: one that goes from `new` to `cur` meanwhile is seen at least once.
        for place in [Place::New, Place::Cur] {
            for file in files.clone() {
                let (unique, at) = (unique_of(file), FileRef::new(place, file));
                let seen = sys::look(self.place(place), file);
                match seen.map_err(|error| failed("look at", &self.path_of(&at))(error))? {
                    Some((inode, FileType::RegularFile)) => {
                        let flags = name::flags(file, &keywords);
                        if peek.found.insert(unique.clone(), Located { file: at, flags, inode }).is_some() {
                            peek.unsure.insert(unique);
                        }
                    }
                    Some(_) => drop(peek.unsure.insert(unique)),
                    None => {}
                }
            }
        }
        peek.unsure.extend(files.map(unique_of).filter(|unique| !peek.found.contains_key(unique)));
        peek.found.retain(|unique, _| !peek.unsure.contains(unique));
        Ok(peek)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    fn what_is_not_there_once_is_left_to_a_listing() {
        let dir = tempfile::tempdir().unwrap();
        ["tmp", "new", "cur"].iter().for_each(|part| fs::create_dir(dir.path().join(part)).unwrap());
        let root = crate::maildir::Root::open(dir.path(), crate::maildir::Layout::PlusPlus).unwrap().unwrap();
        let maildir = root.maildir(std::path::Path::new("")).unwrap().unwrap();
        for file in ["new/a", "cur/b:2,S", "new/twice", "cur/twice:2,", "cur/untold:2,F"] {
            fs::write(dir.path().join(file), file).unwrap();
        }
        fs::create_dir(dir.path().join("cur/directory")).unwrap();
        let told = ["a", "b", "b:2,S", "twice", "twice:2,", "gone:2,S", "directory"];
        let peek = maildir.peek(told.iter().map(|name| name.as_bytes())).unwrap();
        let found: Vec<_> = peek.found.iter().map(|(name, at)| (name.to_string(), at.file.path())).collect();
        let at = |name: &str, path: &str| (name.to_owned(), std::path::PathBuf::from(path));
        assert_eq!(found, [at("a", "new/a"), at("b", "cur/b:2,S")]);
        let unsure: Vec<_> = peek.unsure.iter().map(ToString::to_string).collect();
        assert_eq!(unsure, ["directory", "gone", "twice"]);
        assert_eq!(peek.stamp, maildir.stamp().unwrap());
    }
}
