//! How the words of the domain are written into columns, and checked when they are read back.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, PathBuf};

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::model::{Digest, Flags, Keyword, LinkId, MailboxId, MailboxName, ModSeq, Uid, UidValidity, UniqueName};

/// A number that the server gave, with the check of its type.
macro_rules! number {
    ($name:ident) => {
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(unsigned(self.get().into())?.into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let number = value.as_i64()?;
                let unsigned = u64::try_from(number).map_err(|_| FromSqlError::OutOfRange(number))?;
                Self::new(unsigned).map_err(FromSqlError::other)
            }
        }
    };
}

number!(Uid);
number!(UidValidity);
number!(ModSeq);

/// A number that the database gave.
macro_rules! row_id {
    ($name:ident) => {
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                self.0.to_sql()
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value.as_i64().map(Self)
            }
        }
    };
}

row_id!(LinkId);
row_id!(MailboxId);

impl ToSql for Digest {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_slice().into())
    }
}

impl FromSql for Digest {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        FromSql::column_result(value).map(Self)
    }
}

impl ToSql for UniqueName {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_bytes().into())
    }
}

impl FromSql for UniqueName {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_blob().map(Self::new)
    }
}

impl ToSql for MailboxName {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for MailboxName {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str().map(Self::from)
    }
}

/// Returns the column for a number without a sign; SQLite has 63 bits for it.
pub(super) fn unsigned(value: u64) -> rusqlite::Result<i64> {
    i64::try_from(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// A number without a sign, in 63 bits.
pub(super) struct Unsigned(pub(super) u64);

impl FromSql for Unsigned {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number).map(Self).map_err(|_| FromSqlError::OutOfRange(number))
    }
}

/// A path below the root of the maildirs, as BLOB: read back, it still does not leave the root.
pub(super) struct Below(pub(super) PathBuf);

impl FromSql for Below {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let path = PathBuf::from(OsStr::from_bytes(value.as_blob()?));
        if path.components().all(|component| matches!(component, Component::Normal(_))) {
            return Ok(Self(path));
        }
        Err(FromSqlError::other(OutsideRoot))
    }
}

#[derive(thiserror::Error, Debug)]
#[error("a path leaves the root of the maildirs")]
struct OutsideRoot;

/// Returns the column for the keywords: a space between two, which none of them contains.
pub(super) fn keywords(flags: &Flags) -> String {
    flags.keywords().map(Keyword::as_str).collect::<Vec<_>>().join(" ")
}

/// Returns the flags of two columns.
pub(super) fn flags(bits: u8, keywords: &str) -> FromSqlResult<Flags> {
    let words = keywords.split(' ').filter(|word| !word.is_empty()).map(Keyword::new);
    let words = words.collect::<Option<Vec<_>>>().ok_or_else(|| FromSqlError::other(NoKeyword))?;
    if bits > Flags::system().bits() {
        return Err(FromSqlError::OutOfRange(bits.into()));
    }
    Ok(Flags::from_parts(bits, words))
}

#[derive(thiserror::Error, Debug)]
#[error("a keyword is none")]
struct NoKeyword;
