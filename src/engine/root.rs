//! Is this root the one that the database belongs to? Decided before anything is touched.

use super::Error;
use crate::db::AccountState;
use crate::maildir::Marker;

/// What the marker in the root says about the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// They belong together.
    Same,
    /// Neither has seen the other: the first pass.
    First,
    /// Both belong to this account, but one of them is from another time, as after a restored backup: both sides are
    /// united by content, and nothing is removed.
    Unite(Older),
}

/// Which of the two is from an earlier time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Older {
    /// The Maildir.
    Maildir,
    /// The database, or there is none.
    Database,
}

/// Returns what to make of a marker.
///
/// # Errors
/// [`Error::Held`] if the root is missing or another account's while the database knows messages: an unmounted disk or
/// a wrong path must not look like a deletion of everything.
pub fn judge(
    account: &str,
    root: &std::path::Path,
    there: bool,
    marker: Option<&Marker>,
    state: &AccountState,
) -> Result<Verdict, Error> {
    let known = state.generation > 0;
    let held = |what: String| Err(Error::Held(format!("{what}; nothing was changed on either side")));
    let root = root.display();
    match (there, marker) {
        (false, _) if known => held(format!(
            "the maildir {root} of account {account} is not there. Is its disk mounted? If it is meant to be made anew, \
             remove the account's database as well"
        )),
        (true, None) if known => held(format!(
            "the maildir {root} has no marker (.postkeep), so it is not the directory that account {account} was \
             mirrored to. Is the right disk mounted there? If it is meant to be made anew, remove the account's database \
             as well"
        )),
        (_, Some(marker)) if marker.account != account => {
            held(format!("the maildir {root} belongs to account {}, not to {account}", marker.account))
        }
        (_, None) => Ok(Verdict::First),
        (_, Some(marker)) if !known && state.pending.is_none() => {
            Ok(if marker.generation == 0 { Verdict::First } else { Verdict::Unite(Older::Database) })
        }
        (_, Some(marker)) => {
            let is = |generation: u64, nonce: &str| marker.generation == generation && marker.nonce == nonce;
            let pending = state.pending.as_ref().is_some_and(|(generation, nonce)| is(*generation, nonce));
            Ok(if pending || is(state.generation, &state.nonce) {
                Verdict::Same
            } else if marker.generation > state.generation {
                Verdict::Unite(Older::Database)
            } else {
                Verdict::Unite(Older::Maildir)
            })
        }
    }
}

/// Returns the state of the database with the generation that the root has, if that was written down as coming: a crash
/// came before it was written down as come.
#[must_use]
pub fn with_what_came(state: AccountState, marker: Option<&Marker>) -> AccountState {
    match (&state.pending, marker) {
        (Some((generation, nonce)), Some(marker)) if (*generation, nonce) == (marker.generation, &marker.nonce) => {
            AccountState { generation: *generation, nonce: nonce.clone(), pending: None, ..state }
        }
        _ => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_marker_and_database_is_judged() {
        let state = |generation, nonce: &str, pending: Option<(u64, &str)>| AccountState {
            generation,
            nonce: nonce.into(),
            pending: pending.map(|(g, n)| (g, n.into())),
            clean: true,
            scope: String::new(),
        };
        let marker = |account: &str, generation, nonce: &str| {
            Some(Marker { account: account.into(), generation, nonce: nonce.into() })
        };
        let judged = |there, marker: Option<Marker>, state: &AccountState| match judge(
            "a",
            std::path::Path::new("/m"),
            there,
            marker.as_ref(),
            state,
        ) {
            Ok(verdict) => format!("{verdict:?}"),
            Err(_) => "held".to_owned(),
        };
        let (none, known) = (state(0, "", None), state(7, "x", None));
        let rows = [
            (false, None, &none, "First"),
            (true, None, &none, "First"),
            (true, marker("a", 3, "y"), &none, "Unite(Database)"),
            (true, marker("b", 3, "y"), &none, "held"),
            (false, None, &known, "held"),
            (true, None, &known, "held"),
            (true, marker("b", 7, "x"), &known, "held"),
            (true, marker("a", 7, "x"), &known, "Same"),
            (true, marker("a", 7, "other"), &known, "Unite(Maildir)"),
            (true, marker("a", 6, "w"), &known, "Unite(Maildir)"),
            (true, marker("a", 8, "z"), &known, "Unite(Database)"),
            (true, marker("a", 8, "z"), &state(7, "x", Some((8, "z"))), "Same"),
            (true, marker("a", 7, "x"), &state(7, "x", Some((8, "z"))), "Same"),
            (true, marker("a", 1, "z"), &state(0, "", Some((1, "z"))), "Same"),
        ];
        for (there, marker, state, verdict) in rows {
            assert_eq!(judged(there, marker.clone(), state), verdict, "{marker:?} {state:?}");
            // The next generation is prepared, and the pass is killed before it reaches the root.
            let came = with_what_came(state.clone(), marker.as_ref());
            let next = AccountState { pending: Some((9, "next".into())), ..came };
            if verdict == "Same" {
                assert_eq!(judged(there, marker.clone(), &next), "Same", "{marker:?} {next:?}");
            }
        }
    }
}
