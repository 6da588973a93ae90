//! How long what was removed has been in the graveyard.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::{Error, Tx};

/// The time that is known to have passed, and since when each day of the graveyard is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lifetime {
    /// In which boot of the machine it was last counted; empty where the system does not tell.
    pub boot: String,
    /// How long the machine had been on then, in seconds.
    pub boot_clock: i64,
    /// What the clock on the wall said then, in seconds since 1970.
    pub wall: i64,
    /// The seconds that have passed for certain since counting began.
    pub counted: i64,
    /// The days that were found to be over, and what was counted when that was first so.
    pub over: BTreeMap<Date, i64>,
}

impl Tx<'_> {
    /// Returns how long things have been in the graveyard; `None` if that was never written down.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn lifetime(&self) -> Result<Option<Lifetime>, Error> {
        let what = "read how long the graveyard has kept its days";
        let rows =
            self.all(what, "SELECT day, since FROM grave", [], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
        // What is no day has no directory either.
        let over = rows.into_iter().filter_map(|(day, since)| Some((day.parse().ok()?, since))).collect();
        self.first(what, "SELECT boot, boot_clock, wall, counted FROM lifetime", [], |row| {
            let (boot, boot_clock, wall, counted) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(Lifetime { boot, boot_clock, wall, counted, over })
        })
    }

    /// Writes down how long things have been in the graveyard.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn set_lifetime(&self, lifetime: &Lifetime) -> Result<(), Error> {
        let what = "write down how long the graveyard has kept its days";
        let sql = "INSERT INTO lifetime (id, boot, boot_clock, wall, counted) VALUES (1, ?1, ?2, ?3, ?4) \
                   ON CONFLICT (id) DO UPDATE SET boot = excluded.boot, boot_clock = excluded.boot_clock, \
                   wall = excluded.wall, counted = excluded.counted";
        self.execute_one(what, sql, (&lifetime.boot, lifetime.boot_clock, lifetime.wall, lifetime.counted))?;
        self.execute(what, "DELETE FROM grave", [])?;
        for (day, since) in &lifetime.over {
            self.execute_one(what, "INSERT INTO grave (day, since) VALUES (?1, ?2)", (day.to_string(), since))?;
        }
        Ok(())
    }
}
