//! Brings the schema of a database to the one that this program knows.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::Error;

/// The steps from nothing to the newest schema. A step that was released is never changed again.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_base.sql"),
    include_str!("../../migrations/0002_failures.sql"),
    include_str!("../../migrations/0003_service.sql"),
    include_str!("../../migrations/0004_renames.sql"),
    include_str!("../../migrations/0005_lifetime.sql"),
    include_str!("../../migrations/0006_again.sql"),
];

/// Returns an error if a newer program has written the database; reads only.
pub(super) fn refuse_newer(conn: &Connection, file: &Path) -> Result<(), Error> {
    let (found, known) = (version(conn, file)?, newest(MIGRATIONS));
    if found > known { Err(Error::Newer { found, known }) } else { Ok(()) }
}

/// Takes every step that the database has not taken yet, each in a transaction of its own.
pub(super) fn migrate(conn: &mut Connection, file: &Path) -> Result<(), Error> {
    run(conn, file, MIGRATIONS)
}

fn run(conn: &mut Connection, file: &Path, steps: &[&str]) -> Result<(), Error> {
    let failed = |error| Error::sqlite(error, "migrate the schema", file);
    // Without this look an open would wait for a writer although there is nothing to do.
    while version(conn, file)? < newest(steps) {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        // Asked again: another process may have taken the step while this one waited for the lock.
        let found = version(&transaction, file)?;
        let Some((step, to)) = steps.iter().zip(1u32..).nth(found as usize) else { break };
        transaction.execute_batch(step).map_err(failed)?;
        transaction.pragma_update(None, "user_version", to).map_err(failed)?;
        crate::step::before("commit");
        transaction.commit().map_err(failed)?;
        tracing::info!(file = %file.display(), schema = to, "migrated the database");
    }
    Ok(())
}

fn version(conn: &Connection, file: &Path) -> Result<u32, Error> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| Error::sqlite(error, "read the schema version", file))
}

fn newest(steps: &[&str]) -> u32 {
    u32::try_from(steps.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "test";

    fn tables(conn: &Connection) -> Vec<String> {
        let mut statement = conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn nothing_becomes_the_newest_schema() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, Path::new(FILE)).unwrap();
        assert_eq!(version(&conn, Path::new(FILE)).unwrap(), newest(MIGRATIONS));
        let expected =
            "account again grave held held_mailbox journal lifetime link mailbox renaming service sqlite_sequence";
        assert_eq!(tables(&conn).join(" "), expected);
        let strict = "SELECT count(*) FROM pragma_table_list WHERE strict AND schema = 'main'";
        assert_eq!(conn.query_row(strict, [], |row| row.get::<_, i64>(0)).unwrap(), 11);
    }

    #[test]
    fn an_old_database_is_taken_along() {
        let mut conn = Connection::open_in_memory().unwrap();
        run(&mut conn, Path::new(FILE), &MIGRATIONS[..1]).unwrap();
        let old = "INSERT INTO mailbox (name, must_list, must_scan) VALUES ('INBOX', 0, 0); \
                   INSERT INTO held_mailbox (mailbox, reason) VALUES (1, 'missing'); \
                   UPDATE account SET generation = 7, nonce = 'x'";
        conn.execute_batch(old).unwrap();
        migrate(&mut conn, Path::new(FILE)).unwrap();
        let sql = "SELECT generation, failure IS NULL, (SELECT cause FROM held_mailbox) FROM account";
        let row = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        assert_eq!(row, (7, true, 0));
    }

    #[test]
    fn what_was_withheld_is_still_tried_again() {
        let mut conn = Connection::open_in_memory().unwrap();
        run(&mut conn, Path::new(FILE), &MIGRATIONS[..5]).unwrap();
        let old = "INSERT INTO mailbox (name, must_list, must_scan) VALUES ('INBOX', 0, 0); \
                   INSERT INTO link (mailbox, state, uid, flags, keywords, reason, reason_text) \
                   VALUES (1, 3, 7, 0, '', 1, 'no'); INSERT INTO withheld VALUES (1, 3, 1000)";
        conn.execute_batch(old).unwrap();
        migrate(&mut conn, Path::new(FILE)).unwrap();
        let sql = "SELECT link, tries, next_at FROM again";
        let row = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        assert_eq!(row, (1, 3, 1000));
    }

    #[test]
    fn each_step_is_taken_once_and_a_failed_one_leaves_nothing() {
        let (first, bad) = ("CREATE TABLE a (x) ;", "CREATE TABLE b (x); SELECT nonsense;");
        let mut conn = Connection::open_in_memory().unwrap();
        run(&mut conn, Path::new(FILE), &[first]).unwrap();
        assert!(run(&mut conn, Path::new(FILE), &[first, bad]).is_err());
        assert_eq!((tables(&conn), version(&conn, Path::new(FILE)).unwrap()), (vec!["a".to_owned()], 1));
        run(&mut conn, Path::new(FILE), &[first, "CREATE TABLE b (x);", "CREATE TABLE c (x);"]).unwrap();
        assert_eq!((tables(&conn).join(" "), version(&conn, Path::new(FILE)).unwrap()), ("a b c".to_owned(), 3));
    }
}
