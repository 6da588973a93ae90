//! What the server refuses: it is told, and tried again another time; the rest of the plan goes on.

use super::Site;
use crate::db::Tx;
use crate::engine::Error;
use crate::engine::again::{self, Halves};
use crate::engine::cycle::Outcome;
use crate::haste::shortened;
use crate::imap::{self, Session};
use crate::model::{LinkId, UidSet};

/// Asks for something about messages, part by part. Where that is refused for a part, it is asked for again for each half of
/// those of its messages that are still there, so that one of them does not stand in the way of the others. Returns what
/// each that was done gave, and what was refused.
pub(super) async fn by_halves<T>(
    session: &mut Session,
    parts: Vec<UidSet>,
    mut ask: impl AsyncFnMut(&mut Session, &UidSet) -> Result<T, imap::Error>,
) -> Result<(Vec<T>, Vec<(UidSet, imap::Error)>), imap::Error> {
    let (mut halves, mut done) = (Halves::new(parts), Vec::new());
    while let Some(part) = halves.next() {
        match ask(session, &part).await {
            Ok(one) => done.push(one),
            Err(error) if error.is_no() => {
                let left = session.present(&part).await?;
                halves.refuse(&left, error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((done, halves.refused()))
}

/// Notes that the server refused something about these messages; `what` says what, as in "to move it".
pub(super) async fn refused(
    site: &Site<'_>,
    links: Vec<LinkId>,
    what: &str,
    error: &imap::Error,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    outcome.refused = true;
    site.pass.refused.borrow_mut().extend(links.iter().copied());
    let of = if links.len() == 1 { "a message" } else { "some messages" };
    let when = if again::may_pass(error) { "again by itself" } else { "again by the next postkeep sync" };
    site.pass.problem(&site.mailbox.name, format!("{what} was refused for {of}, and is tried {when}: {error}"));
    let (why, passes) = (error.to_string(), again::may_pass(error));
    let now = site.pass.now();
    let write = site.pass.commit(move |tx| links.iter().try_for_each(|link| refuse(tx, *link, &why, passes, now)));
    write.await
}

/// Writes down that the server refused something about a message.
pub(super) fn refuse(tx: &Tx<'_>, link: LinkId, why: &str, passes: bool, now: i64) -> Result<(), crate::db::Error> {
    tx.refuse(link, why, |tries| passes.then(|| now + shortened_pause(tries)))
}

/// Rounded up: a moment too early would be in vain.
fn shortened_pause(tries: u32) -> i64 {
    let pause = std::time::Duration::from_secs(u64::try_from(again::pause(tries)).unwrap_or_default());
    i64::try_from(shortened(pause).as_millis().div_ceil(1000)).unwrap_or(i64::MAX / 2)
}
