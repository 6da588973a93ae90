//! A transaction: the typed methods are in the files of what they are about, here is how they reach SQLite.

use std::path::Path;

use rusqlite::{CachedStatement, Connection, Params, Row, ffi};

use super::Error;

/// A transaction, given to the closures of [`Db::read`](super::Db::read) and [`Db::commit`](super::Db::commit).
///
/// Every method can fail with [`Error::Corrupt`] if the file is damaged, [`Error::NoSpace`] if the disk is full, and
/// [`Error::Sqlite`] if the disk fails or a rule of the schema is broken.
pub struct Tx<'a> {
    pub(super) conn: &'a Connection,
    pub(super) file: &'a Path,
    pub(super) writable: bool,
}

impl Tx<'_> {
    /// Runs a statement that returns no rows; returns how many it changed. `what` is for people, as in "could not …".
    pub(super) fn execute(&self, what: &str, sql: &str, params: impl Params) -> Result<usize, Error> {
        self.prepare(sql).and_then(|mut statement| statement.execute(params)).map_err(|error| self.error(error, what))
    }

    /// Runs a statement that must change exactly one row: a change to a row that is gone must not pass for made.
    pub(super) fn execute_one(&self, what: &str, sql: &str, params: impl Params) -> Result<(), Error> {
        match self.execute(what, sql, params)? {
            1 => Ok(()),
            n => Err(self.error(rusqlite::Error::StatementChangedRows(n), what)),
        }
    }

    /// Runs a query and gives each row to `f`.
    pub(super) fn each(
        &self,
        what: &str,
        sql: &str,
        params: impl Params,
        mut f: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), Error> {
        let run = || {
            let mut statement = self.prepare(sql)?;
            let mut rows = statement.query(params)?;
            while let Some(row) = rows.next()? {
                f(row)?;
            }
            Ok(())
        };
        run().map_err(|error| self.error(error, what))
    }

    /// Runs a query and collects its rows.
    pub(super) fn all<T>(
        &self,
        what: &str,
        sql: &str,
        params: impl Params,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        self.each(what, sql, params, |row| {
            found.push(read(row)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Runs a query that has one row at most.
    pub(super) fn first<T>(
        &self,
        what: &str,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        let run = || self.prepare(sql)?.query(params)?.next()?.map(read).transpose();
        run().map_err(|error| self.error(error, what))
    }

    /// Runs a query that always has a row.
    pub(super) fn one<T>(
        &self,
        what: &str,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        self.first(what, sql, params, read)?.ok_or_else(|| Error::corrupt(self.file, &format_args!("{what}: no row")))
    }

    /// Returns the error for what SQLite reported while it should `what`.
    pub(super) fn error(&self, error: rusqlite::Error, what: &str) -> Error {
        Error::sqlite(error, what, self.file)
    }

    fn prepare(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        let refuse = |code, text: &str| rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(text.to_owned()));
        let statement = self.conn.prepare_cached(sql)?;
        if !self.writable && !statement.readonly() {
            return Err(refuse(ffi::SQLITE_READONLY, "a change was asked for where only reading is allowed"));
        }
        // A full or failing disk may end the transaction by itself. What came next would be a transaction of its own.
        if self.conn.is_autocommit() {
            return Err(refuse(ffi::SQLITE_ABORT, "the transaction was already rolled back"));
        }
        Ok(statement)
    }
}
