//! Turns a reply into bytes, with the faults that are due.

use crate::State;
use crate::execute::{Context, Line, Reply};
use crate::faults::{Due, Fault};

impl Context {
    /// Returns what the client must be told about its selected mailbox, or `None` if that is not what it was.
    pub(crate) fn news(&mut self, state: &mut State) -> Option<Vec<u8>> {
        let Some(view) = &mut self.selected else { return Some(Vec::new()) };
        let mailbox = state.mailboxes.values().find(|m| m.incarnation == view.incarnation)?;
        Some(view.news(mailbox, self.condstore, self.qresync))
    }

    /// Returns a reply as bytes: its lines, the news, the tagged line.
    pub(crate) fn render(&mut self, state: &mut State, tag: &str, reply: &Reply, due: &mut Due) -> Vec<u8> {
        let mut out = Vec::new();
        let kept = kept(&reply.lines, due);
        for (i, line) in kept.iter().enumerate() {
            if i == kept.len() / 2 {
                self.interrupt(state, due, &mut out);
            }
            if let Some(line) = self.line(line) {
                edited(line, due, &mut out);
            }
        }
        if kept.is_empty() {
            self.interrupt(state, due, &mut out);
        }
        out.extend(self.news(state).unwrap_or_default());
        edited(format!("{tag} {}", reply.status).into_bytes(), due, &mut out);
        out
    }

    /// Adds what the faults put into the middle of a reply.
    pub(crate) fn interrupt(&mut self, state: &mut State, due: &mut Due, out: &mut Vec<u8>) {
        for (fault, hit) in &mut due.faults {
            match fault {
                Fault::Send(bytes) => out.extend_from_slice(bytes),
                Fault::Between(hook) => {
                    hook(state);
                    out.extend(self.news(state).unwrap_or_default());
                }
                _ => continue,
            }
            *hit = true;
        }
    }

    fn line(&self, line: &Line) -> Option<Vec<u8>> {
        match line {
            Line::Fetch { uid, items } => {
                let sequence = self.selected.as_ref()?.sequence(*uid)?;
                let mut out = format!("* {sequence} FETCH (").into_bytes();
                out.extend(items);
                out.push(b')');
                Some(out)
            }
            Line::Listed(text) | Line::Other(text) => Some(format!("* {text}").into_bytes()),
        }
    }
}

/// Returns the lines that the faults leave.
fn kept<'a>(lines: &'a [Line], due: &mut Due) -> Vec<&'a Line> {
    let listed = |line: &&Line| match line {
        Line::Fetch { items, .. } => !items.windows(5).any(|w| w == b"BODY["),
        Line::Listed(_) => true,
        Line::Other(_) => false,
    };
    let count = lines.iter().filter(listed).count();
    let (mut index, mut kept) = (0, Vec::new());
    for line in lines {
        let mut dropped = false;
        for (fault, hit) in &mut due.faults {
            let drops = match (fault, line) {
                (Fault::DropLines(share), line) => listed(&line) && share.includes(index, count),
                (Fault::Omit(uids), Line::Fetch { uid, .. }) => uids.contains(uid),
                _ => false,
            };
            *hit |= drops;
            dropped |= drops;
        }
        index += usize::from(listed(&line));
        if !dropped {
            kept.push(line);
        }
    }
    kept
}

/// Adds a line with its CRLF as the faults change it.
fn edited(mut line: Vec<u8>, due: &mut Due, out: &mut Vec<u8>) {
    for (fault, hit) in &mut due.faults {
        let new = match (&*fault, std::str::from_utf8(&line)) {
            (Fault::BodyNil, _) => without_body(&line, b"NIL"),
            (Fault::BodyEmpty, _) => without_body(&line, b"\"\""),
            (Fault::Edit(edit), Ok(text)) => match edit(text) {
                Some(text) => text.into_bytes(),
                None => {
                    *hit = true;
                    return;
                }
            },
            _ => continue,
        };
        *hit |= new != line;
        line = new;
    }
    out.extend(line);
    out.extend(b"\r\n");
}

/// Returns a FETCH line with `instead` in place of the literal that it ends with.
fn without_body(line: &[u8], instead: &[u8]) -> Vec<u8> {
    let name = line.windows(5).position(|w| w == b"BODY[");
    let open = name.and_then(|n| line[n..].iter().position(|&b| b == b'{').map(|i| n + i));
    match open {
        Some(open) => [&line[..open], instead, b")"].concat(),
        None => line.to_vec(),
    }
}
