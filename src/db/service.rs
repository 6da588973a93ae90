//! How the server treats the account: what outlasts a run of the program, so that the next one does not make it worse.

use super::{Error, Tx};

/// How the server treats the account, with times in seconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// Until when it must be left alone, and why: a sentence without its full stop.
    pub quiet: Option<(i64, String)>,
    /// Since when sign-ins have led to no mailbox.
    pub not_connected_since: Option<i64>,
    /// How many have since then.
    pub not_connected: u32,
    /// Until when only IPv4 is used.
    pub ipv4_until: Option<i64>,
}

/// Nobody has to be left alone for longer, in seconds: a time further away was written by a clock that was wrong.
const LONGEST_QUIET: i64 = 60 * 60 + 60;

impl Service {
    /// Returns until when nothing may be tried, and why, if that is so now.
    #[must_use]
    pub fn quiet_at(&self, now: i64) -> Option<(i64, &str)> {
        let (until, why) = self.quiet.as_ref()?;
        (now < *until && *until - now <= LONGEST_QUIET).then_some((*until, why.as_str()))
    }
}

impl Tx<'_> {
    /// Returns how the server treats the account.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn service(&self) -> Result<Service, Error> {
        let sql = "SELECT quiet_until, quiet_why, not_connected_since, not_connected, ipv4_until FROM service";
        self.one("read how the server treats the account", sql, [], |row| {
            let until: Option<i64> = row.get(0)?;
            Ok(Service {
                quiet: until.map(|until| Ok::<_, rusqlite::Error>((until, row.get(1)?))).transpose()?,
                not_connected_since: row.get(2)?,
                not_connected: row.get(3)?,
                ipv4_until: row.get(4)?,
            })
        })
    }

    /// Writes how the server treats the account.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn set_service(&self, service: &Service) -> Result<(), Error> {
        let sql = "UPDATE service SET quiet_until = ?1, quiet_why = ?2, not_connected_since = ?3, not_connected = ?4, \
                   ipv4_until = ?5";
        let quiet = service.quiet.as_ref();
        let row = (
            quiet.map(|(until, _)| *until),
            quiet.map(|(_, why)| why),
            service.not_connected_since,
            service.not_connected,
            service.ipv4_until,
        );
        self.execute_one("write how the server treats the account", sql, row)
    }
}
