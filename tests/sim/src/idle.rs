//! IDLE (RFC 2177).

use tokio::io::{AsyncBufReadExt, AsyncReadExt};

use crate::faults::{At, Due, Fault};
use crate::session::{Closed, Session};

/// The longest line that a client may send in IDLE.
const LINE: u64 = 8192;

impl Session {
    /// Tells changes as they happen until the client says DONE. The faults of a reply happen right after the `+`.
    pub(crate) async fn idle(&mut self, tag: &str, mut due: Due) -> Result<(), Closed> {
        let exchange = self.profile.is_exchange();
        // Exchange allows it (RFC 2177 does not ask for a mailbox), and has nothing to tell then.
        if self.context.selected.is_none() && !exchange {
            self.violation("IDLE without a selected mailbox");
            return self.send(format!("{tag} BAD no mailbox is selected\r\n").as_bytes()).await;
        }
        let mut changes = self.shared.changed.subscribe();
        let (quirks, exists, close) = {
            let mut inner = self.shared.lock();
            let close = due.hit(|f| if let Fault::Close(at) = f { Some(*at) } else { None });
            inner.faults.fire(&mut due);
            let exists = self.context.mailbox(&mut inner.state).map_or(0, |(_, m)| m.messages.len());
            (inner.state.quirks.clone(), exists, close)
        };
        if close == Some(At::Unanswered) {
            return Err(Closed);
        }
        let mut out = Vec::new();
        if quirks.idle_news_first {
            out.extend(format!("* {exists} EXISTS\r\n").bytes());
        }
        let ready = if exchange { "+ IDLE accepted, awaiting DONE command.\r\n" } else { "+ idling\r\n" };
        out.extend(ready.bytes());
        let mut line = Vec::new();
        loop {
            {
                let mut inner = self.shared.lock();
                self.context.interrupt(&mut inner.state, &mut due, &mut out);
                inner.faults.fire(&mut due);
                if !quirks.idle_silent {
                    out.extend(self.context.news(&mut inner.state).ok_or(Closed)?);
                }
            }
            self.send(&std::mem::take(&mut out)).await?;
            if close == Some(At::Middle) || due.ended {
                return Err(Closed);
            }
            self.token_must_last().await?;
            due.faults.clear();
            let mut reader = (&mut self.reader).take(LINE);
            tokio::select! {
                read = reader.read_until(b'\n', &mut line) => {
                    read?;
                    break;
                }
                _ = changes.changed() => {}
            }
        }
        if line.is_empty() {
            return Err(Closed);
        }
        if !line.eq_ignore_ascii_case(b"DONE\r\n") {
            self.violation(&format!("a line in IDLE that is not DONE: {}", String::from_utf8_lossy(&line)));
        }
        let done = if exchange { "OK IDLE completed." } else { "OK done" };
        self.reply(format!("{tag} {done}\r\n").into_bytes()).await?;
        if close.is_some() { Err(Closed) } else { Ok(()) }
    }
}
