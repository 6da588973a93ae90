//! Turns a reply into bytes, with the faults that are due.

use crate::State;
use crate::execute::{Context, Line, Reply};
use crate::faults::{Due, Fault};

impl Context {
    /// Returns what the client must be told about its selected mailbox, and about others if it has asked for that; or
    /// `None` if the selected one is not what it was.
    pub(crate) fn news(&mut self, state: &mut State) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        if let Some(view) = &mut self.selected {
            let mailbox = state.mailboxes.values().find(|m| m.incarnation == view.incarnation)?;
            out = view.news(mailbox, self.condstore, self.qresync);
        }
        if let Some(notified) = &mut self.notified {
            let selected = self.selected.as_ref().map(|v| v.incarnation);
            for line in notified.news(state, selected) {
                out.extend(format!("* {line}\r\n").bytes());
            }
        }
        Some(out)
    }

    /// Returns a reply as bytes: its lines, the news, the tagged line.
    pub(crate) fn render(&mut self, state: &mut State, tag: &str, reply: &Reply, due: &mut Due) -> Vec<u8> {
        let mut out = Vec::new();
        let kept = kept(&reply.lines, due);
        for (i, line) in kept.iter().enumerate() {
            if i == kept.len() / 2 {
                self.interrupt(state, due, &mut out);
            }
            if due.ended {
                return out;
            }
            if let Some(line) = self.line(line, due) {
                edited(line, due, &mut out);
            }
        }
        if kept.is_empty() {
            self.interrupt(state, due, &mut out);
        }
        if due.ended {
            return out;
        }
        out.extend(self.news(state).unwrap_or_default());
        edited(format!("{tag} {}", reply.status).into_bytes(), due, &mut out);
        out
    }

    /// Adds what the faults put into the middle of a reply.
    pub(crate) fn interrupt(&mut self, state: &mut State, due: &mut Due, out: &mut Vec<u8>) {
        let mut ended = false;
        for (fault, hit) in &mut due.faults {
            match fault {
                Fault::Bye(text) => {
                    out.extend(format!("* BYE {text}\r\n").bytes());
                    ended = true;
                }
                Fault::Send(bytes) => out.extend_from_slice(bytes),
                Fault::Between(hook) => {
                    hook(state);
                    out.extend(self.news(state).unwrap_or_default());
                }
                _ => continue,
            }
            *hit = true;
        }
        due.ended |= ended;
    }

    fn line(&self, line: &Line, due: &mut Due) -> Option<Vec<u8>> {
        match line {
            Line::Fetch { uid, items } => {
                let sequence = self.selected.as_ref()?.sequence(*uid)?;
                let mut out = format!("* {sequence} FETCH (").into_bytes();
                out.extend(with_other_body(*uid, items.clone(), due));
                out.push(b')');
                Some(out)
            }
            Line::Listed(text) | Line::Other(text) => Some(format!("* {text}").into_bytes()),
            Line::Bare(text) => Some(text.clone().into_bytes()),
        }
    }
}

/// Returns the lines that the faults leave.
fn kept<'a>(lines: &'a [Line], due: &mut Due) -> Vec<&'a Line> {
    // What follows looks at every byte of every body.
    if due.faults.is_empty() {
        return lines.iter().collect();
    }
    let listed = |line: &&Line| match line {
        Line::Fetch { items, .. } => !items.windows(5).any(|w| w == b"BODY["),
        Line::Listed(_) => true,
        Line::Other(_) | Line::Bare(_) => false,
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

/// What Exchange sends in place of a message that it cannot convert.
const PLACEHOLDER: &str = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\n\
    From: Microsoft Exchange Server 2010\r\n\
    Subject: Retrieval using the IMAP4 protocol failed for the following message: 20004\r\n\r\n\
    The server couldn't retrieve the following message:\r\n\r\nSubject: \"Canceled\"\r\n";

/// Returns the items of a FETCH with the body that the faults give it.
fn with_other_body(uid: u32, mut items: Vec<u8>, due: &mut Due) -> Vec<u8> {
    let peeks = due.peeks;
    for (fault, hit) in &mut due.faults {
        let Some(body) = Body::of(&items) else { return items };
        let new = match fault {
            Fault::BodyNil => body.replaced(&items, b"NIL"),
            Fault::BodyEmpty => body.replaced(&items, b"\"\""),
            Fault::Body(rewrite) => body.replaced(&items, &as_literal(&rewrite(uid, &items[body.bytes..body.end]))),
            Fault::Placeholder { uids, peek } if uids.contains(&uid) => match peeks && !*peek {
                true => body.left_out(&items),
                false => body.replaced(&items, &as_literal(PLACEHOLDER.as_bytes())),
            },
            _ => continue,
        };
        *hit |= new != items;
        items = new;
    }
    items
}

fn as_literal(bytes: &[u8]) -> Vec<u8> {
    [format!("{{{}}}\r\n", bytes.len()).as_bytes(), bytes].concat()
}

/// Where the first body stands among the items of a FETCH.
struct Body {
    /// Where its name begins.
    name: usize,
    /// Where its literal begins.
    literal: usize,
    /// Where the bytes of the literal begin.
    bytes: usize,
    end: usize,
}

impl Body {
    fn of(items: &[u8]) -> Option<Self> {
        let name = items.windows(5).position(|w| w == b"BODY[")?;
        let literal = name + items[name..].iter().position(|&b| b == b'{')?;
        let bytes = literal + items[literal..].iter().position(|&b| b == b'\n')? + 1;
        let (size, _) = crate::literal(&items[literal..bytes - 2])?;
        Some(Self { name, literal, bytes, end: bytes + size })
    }

    fn replaced(&self, items: &[u8], instead: &[u8]) -> Vec<u8> {
        [&items[..self.literal], instead, &items[self.end..]].concat()
    }

    fn left_out(&self, items: &[u8]) -> Vec<u8> {
        [items[..self.name].trim_ascii_end(), &items[self.end..]].concat()
    }
}

/// Adds a line with its CRLF as the faults change it.
fn edited(mut line: Vec<u8>, due: &mut Due, out: &mut Vec<u8>) {
    for (fault, hit) in &mut due.faults {
        let (Fault::Edit(edit), Ok(text)) = (&*fault, std::str::from_utf8(&line)) else { continue };
        match edit(text).map(String::into_bytes) {
            Some(new) => {
                *hit |= new != line;
                line = new;
            }
            None => {
                *hit = true;
                return;
            }
        }
    }
    out.extend(line);
    out.extend(b"\r\n");
}
