//! UID STORE (RFC 3501 §6.4.6, RFC 7162 §3.1.3) and UID EXPUNGE (RFC 4315 §2.1).

use super::command::Command;
use super::{Error, Habit, Session};
use crate::model::{Flag, FlagChange, Flags, ModSeq, UidSet};
use crate::step;

/// How many messages one command changes or expunges; throttling servers take more for an attack.
const BATCH: u32 = 500;
/// Commands on their way at once.
const WINDOW: usize = 4;

impl Session {
    /// Adds and removes flags of messages of the selected mailbox; those that others changed since `unchanged_since`
    /// are left alone. Returns those.
    ///
    /// # Errors
    /// [`Error::Refused`] if any part was refused; others may have been carried out. Those of a connection that breaks.
    pub async fn store(
        &mut self,
        uids: &UidSet,
        change: &FlagChange,
        unchanged_since: Option<ModSeq>,
    ) -> Result<UidSet, Error> {
        let counted = self.connection.selected.as_ref().is_some_and(|s| s.highest_mod_seq.is_some());
        let Some(limit) = unchanged_since.filter(|_| counted) else {
            let mut commands = self.store_commands(uids, '+', &change.add, None);
            commands.extend(self.store_commands(uids, '-', &change.remove, None));
            return self.run_store(commands).await;
        };
        if change.add.is_empty() {
            let commands = self.store_commands(uids, '-', &change.remove, Some(limit));
            return self.run_store(commands).await;
        }
        let commands = self.store_commands(uids, '+', &change.add, Some(limit));
        let modified = self.run_store(commands).await?;
        // The first half moved the counters, so the second cannot be made to depend on them.
        let rest: UidSet = uids.iter().filter(|uid| !modified.contains(*uid)).collect();
        let commands = self.store_commands(&rest, '-', &change.remove, None);
        self.run_store(commands).await?;
        Ok(modified)
    }

    /// Removes messages of the selected mailbox for good: exactly these, whatever else is marked as deleted.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the server has no UIDPLUS: the messages are marked `\Deleted` then, and nothing more,
    /// for a plain EXPUNGE would take those along that others marked. [`Error::Refused`], or those of a connection that
    /// breaks; some may be gone then.
    pub async fn expunge(&mut self, uids: &UidSet) -> Result<(), Error> {
        let deleted: Flags = [Flag::Deleted].into_iter().collect();
        let mailbox = self.here()?;
        let commands = self.store_commands(uids, '+', &deleted, None);
        self.run_store(commands).await?;
        if !self.connection.capabilities.has("UIDPLUS") {
            return Err(Error::Unsupported("UIDPLUS, so the messages are only marked as deleted"));
        }
        let command = |set: &UidSet| self.connection.command("UID EXPUNGE").words(set);
        let commands: Vec<Command> = self.batches(uids, 0).iter().map(command).collect();
        if !commands.is_empty() {
            step::before("expunge");
        }
        self.connection.run_all(commands, WINDOW, Some(&mailbox), |_| Ok(())).await.map(|_| ())
    }

    fn batches(&self, uids: &UidSet, arguments: usize) -> Vec<UidSet> {
        uids.chunks(self.connection.quirks.set_bytes(arguments), BATCH)
    }

    fn store_commands(&self, uids: &UidSet, sign: char, flags: &Flags, limit: Option<ModSeq>) -> Vec<Command> {
        if flags.is_empty() {
            return Vec::new();
        }
        let command = |set: &UidSet| {
            let command = self.connection.command("UID STORE").words(set);
            let command = match limit {
                Some(limit) => command.words(format_args!("(UNCHANGEDSINCE {limit})")),
                None => command,
            };
            command.words(format_args!("{sign}FLAGS.SILENT {flags}"))
        };
        self.batches(uids, flags.to_string().len()).iter().map(command).collect()
    }

    async fn run_store(&mut self, commands: Vec<Command>) -> Result<UidSet, Error> {
        let mailbox = self.here()?;
        if !commands.is_empty() {
            step::before("store");
        }
        let codes = self.connection.run_all(commands, WINDOW, Some(&mailbox), |_| Ok(())).await?;
        if !codes.is_empty() && self.connection.quirks.has(Habit::LagsAfterStore) {
            let check = self.connection.command("CHECK");
            self.connection.run(check, Some(&mailbox)).await?;
        }
        let mut modified = UidSet::default();
        for code in codes.iter().filter(|c| c.is("MODIFIED")) {
            let set = code.set().ok_or_else(|| Error::nonsense(Some(&mailbox), "MODIFIED without UIDs"))?;
            set.ranges().for_each(|(a, b)| modified.insert_range(a, b));
        }
        Ok(modified)
    }
}
