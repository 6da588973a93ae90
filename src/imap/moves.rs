//! UID MOVE (RFC 6851), and the way to do without it.

use super::command::Command;
use super::parse::{Code, Data};
use super::wire::Answer;
use super::{Error, RawName, Session};
use crate::model::{Flag, FlagChange, Uid, UidSet};
use crate::step;

/// How many messages one command moves.
const BATCH: u32 = 500;

/// What became of messages that were to be moved.
#[derive(Debug, Default)]
pub struct Moved {
    /// The UIDs here and there of those that the server says it moved or copied (COPYUID, RFC 4315 §3): none if it does
    /// not say, or if they were gone.
    pub pairs: Vec<(Uid, Uid)>,
    /// Those that were copied, and are here too: why the server did not remove them.
    pub doubled: Vec<(UidSet, Error)>,
}

impl Session {
    /// Moves messages of the selected mailbox to another. OK alone proves nothing: see [`Moved::pairs`].
    ///
    /// Without MOVE the messages are copied, and those that COPYUID names are expunged here; without UIDPLUS they are
    /// copied and marked `\Deleted`, if they can be.
    ///
    /// # Errors
    /// [`Error::Refused`] if nothing was moved or copied of what one command is about ([`Session::move_parts`]), with the
    /// code `TRYCREATE` if there is no such mailbox, [`Error::Nonsense`] for UIDs that were not asked for, or those of a
    /// connection that breaks; some may have been moved then.
    pub async fn move_to(&mut self, uids: &UidSet, target: &RawName) -> Result<Moved, Error> {
        let has_move = self.connection.capabilities.has("MOVE");
        let (name, effect) = if has_move { ("UID MOVE", "move") } else { ("UID COPY", "copy") };
        let mut moved = Moved::default();
        for batch in self.move_parts(uids, target) {
            let command = self.connection.command(name).words(&batch).string(target.as_bytes());
            step::before(effect);
            let copied = self.transfer(command, &batch).await?;
            let here: UidSet = copied.iter().map(|(uid, _)| *uid).collect();
            moved.pairs.extend(copied);
            if has_move {
                continue;
            }
            if self.connection.capabilities.has("UIDPLUS") {
                match self.expunge(&here).await {
                    Err(no) if no.is_no() => moved.doubled.push((here, no)),
                    done => done?,
                }
                continue;
            }
            let deleted = FlagChange { add: [Flag::Deleted].into_iter().collect(), ..FlagChange::default() };
            match self.store(&batch, &deleted, None).await {
                // The mark is for those who look at it: they stay here in any case.
                Err(no) if no.is_no() => tracing::info!(%batch, %no, "moved messages could not be marked as deleted"),
                done => drop(done?),
            }
        }
        Ok(moved)
    }

    /// Returns the messages in parts for each of which [`Session::move_to`] needs one command.
    #[must_use]
    pub fn move_parts(&self, uids: &UidSet, target: &RawName) -> Vec<UidSet> {
        uids.chunks(self.connection.quirks.set_bytes(target.as_bytes().len()), BATCH)
    }

    /// Tells whether what is moved or expunged stays in the mailbox, marked as deleted: the server has neither MOVE nor
    /// UIDPLUS, and a plain EXPUNGE would take along what others marked.
    #[must_use]
    pub fn leaves_behind(&self) -> bool {
        !["MOVE", "UIDPLUS"].iter().any(|capability| self.connection.capabilities.has(capability))
    }

    async fn transfer(&mut self, command: Command, batch: &UidSet) -> Result<Vec<(Uid, Uid)>, Error> {
        let mailbox = self.here()?;
        let mut codes = Vec::new();
        let on = |answer| {
            match answer {
                // MOVE names them before it expunges; Exchange once forgot the `* OK` in front.
                Answer::Untagged { code, .. } | Answer::Data(Data::BareCode(code)) => codes.push(code),
                _ => {}
            }
            Ok(())
        };
        let tagged = self.connection.run_all(vec![command], 1, Some(&mailbox), on).await?;
        codes.extend(tagged);
        pairs_of(&codes, batch).ok_or_else(|| Error::nonsense(Some(&mailbox), "COPYUID that cannot be read"))
    }
}

/// Returns the pairs that the codes name; nothing if any makes no sense or names what was not asked for.
fn pairs_of(codes: &[Code], asked: &UidSet) -> Option<Vec<(Uid, Uid)>> {
    let most = usize::try_from(asked.len()).unwrap_or(usize::MAX);
    let mut pairs = Vec::new();
    for code in codes.iter().filter(|c| c.is("COPYUID")) {
        let found = code.copy_uid(most)?;
        if !found.iter().all(|(uid, _)| asked.contains(*uid)) {
            return None;
        }
        pairs.extend(found);
    }
    Some(pairs)
}
