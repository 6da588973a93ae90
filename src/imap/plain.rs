//! Reads the FETCH answers that nearly all are: the items that this program asks for, spelled as RFC 9051 §7.5.2 has
//! them, with single spaces between. A mailbox has as many of them as messages, so they go this short way.
//!
//! Whatever is spelled otherwise is left to imap-proto; this reader never guesses.

use super::Body;
use super::parse::Cursor;
use super::wire::Fetch;
use crate::model::{Flags, Uid};

/// What the guard puts in the place of a literal, less its number.
pub(super) const MARKER: &[u8] = b"{3}\r\n\0";

/// Reads a whole FETCH whose literals were replaced by markers, and takes them; `None`, with all as it was, if it is
/// not a plain one.
pub(super) fn fetch(line: &[u8], literals: &mut [Body]) -> Option<Fetch> {
    let mut at = Cursor(line.strip_prefix(b"* ")?);
    let sequence = u32::try_from(at.number()?).ok()?;
    at.0 = at.0.strip_prefix(b" FETCH (")?;
    let (mut fetch, mut header, mut body) = (Fetch { sequence, ..Fetch::default() }, None, None);
    loop {
        let item = at.until(b" ");
        at.eat(b' ').then_some(())?;
        match item {
            b"UID" if fetch.uid.is_none() => {
                fetch.uid = Some(Uid::new(u32::try_from(at.number()?).ok()?.into()).ok()?);
            }
            b"FLAGS" if fetch.flags.is_none() => fetch.flags = Some(flags(&mut at)?),
            b"MODSEQ" if fetch.mod_seq.is_none() => {
                at.eat(b'(').then_some(())?;
                fetch.mod_seq = Some(at.number()?);
                at.eat(b')').then_some(())?;
            }
            b"INTERNALDATE" if fetch.internal_date.is_none() => fetch.internal_date = Some(date(&mut at)?),
            b"RFC822.SIZE" if fetch.size.is_none() => fetch.size = Some(u32::try_from(at.number()?).ok()?.into()),
            b"BODY[]" if body.is_none() => body = Some(literal(&mut at)?),
            b"BODY[HEADER]" if header.is_none() => header = Some(literal(&mut at)?),
            _ => return None,
        }
        if at.eat(b')') {
            break;
        }
        at.eat(b' ').then_some(())?;
    }
    let there = |index: &Option<usize>| index.is_none_or(|index| index < literals.len());
    let one = header.is_none() || header != body;
    (at.0.is_empty() && one && there(&header) && there(&body)).then_some(())?;
    let mut take = |index: Option<usize>| Some(std::mem::replace(literals.get_mut(index?)?, Body::Nothing));
    (fetch.header, fetch.body) = (take(header), take(body));
    Some(fetch)
}

/// Takes a list of flags that are all atoms.
fn flags(at: &mut Cursor<'_>) -> Option<Flags> {
    at.eat(b'(').then_some(())?;
    let mut flags = Flags::new();
    if at.eat(b')') {
        return Some(flags);
    }
    loop {
        let name = at.until(b" )");
        let atom = name.strip_prefix(b"\\").unwrap_or(name);
        let plain = |byte: &u8| byte.is_ascii_graphic() && !b"(){%*\"\\]".contains(byte);
        (!atom.is_empty() && atom.iter().all(plain)).then_some(())?;
        flags.insert_imap(std::str::from_utf8(name).ok()?);
        if at.eat(b')') {
            return Some(flags);
        }
        at.eat(b' ').then_some(())?;
    }
}

/// Takes a quoted date.
fn date(at: &mut Cursor<'_>) -> Option<String> {
    at.eat(b'"').then_some(())?;
    let text = at.until(b"\"");
    let plain = |byte: &u8| (byte.is_ascii_graphic() || *byte == b' ') && *byte != b'\\';
    (at.eat(b'"') && text.iter().all(plain)).then_some(())?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

/// Takes a marker; returns the number of its literal.
fn literal(at: &mut Cursor<'_>) -> Option<usize> {
    at.0 = at.0.strip_prefix(MARKER)?;
    usize::try_from(at.number()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::wire::read_slowly;
    use super::*;

    fn bodies() -> Vec<Body> {
        vec![Body::Memory(b"one".to_vec()), Body::Memory(b"two".to_vec())]
    }

    /// What both readers make of an answer, if the short way is open to it.
    fn both(line: &str) -> Option<(String, String)> {
        let mut literals = bodies();
        let Some(fetch) = fetch(line.as_bytes(), &mut literals) else {
            assert_eq!(format!("{literals:?}"), format!("{:?}", bodies()), "something was taken of {line:?}");
            return None;
        };
        Some((format!("{:?}", Some(fetch)), format!("{:?}", read_slowly(line.as_bytes(), bodies()))))
    }

    #[test]
    fn what_is_asked_for_goes_the_short_way() {
        for line in [
            "* 1 FETCH (UID 7 FLAGS (\\Seen $Forwarded work) MODSEQ (12))",
            "* 1 FETCH (UID 7 FLAGS ())",
            "* 1 FETCH (MODSEQ (9) UID 7 RFC822.SIZE 12)",
            "* 4294967295 FETCH (UID 4294967295 FLAGS (\\Recent \\Flagged) INTERNALDATE \" 1-Feb-2024 00:00:00 +0100\" \
             BODY[] {3}\r\n\x0000)",
            "* 1 FETCH (UID 7 RFC822.SIZE 1 BODY[HEADER] {3}\r\n\x0000 BODY[] {3}\r\n\x0001)",
        ] {
            let (short, long) = both(line).unwrap_or_else(|| panic!("not the short way: {line:?}"));
            assert_eq!(short, long, "{line:?}");
        }
    }

    #[test]
    fn what_is_unusual_goes_the_long_way() {
        for line in [
            "* 1 FETCH (UID 0 FLAGS ())",
            "* 1 FETCH (UID 4294967296)",
            "* 4294967296 FETCH (UID 1)",
            "* 1 FETCH (UID 1 UID 2)",
            "* 1 FETCH (UID 1  FLAGS ())",
            "* 1 FETCH (UID 1 FLAGS (a]b))",
            "* 1 FETCH (UID 1 FLAGS ( \\Seen))",
            "* 1 FETCH (UID 1 INTERNALDATE NIL)",
            "* 1 FETCH (UID 1 INTERNALDATE \"\\\"\")",
            "* 1 FETCH (UID 1 BODY[] NIL)",
            "* 1 FETCH (UID 1 BODY[] \"text\")",
            "* 1 FETCH (UID 1 BODY[]<0> {3}\r\n\x0000)",
            "* 1 FETCH (UID 1 BODY[] {3}\r\n\x0002)",
            "* 1 FETCH (UID 1 BODY[] {3}\r\n\x0000 BODY[HEADER] {3}\r\n\x0000)",
            "* 1 FETCH (UID 1 ENVELOPE (NIL))",
            "* 1 FETCH (UID 1) more",
            "* 1 FETCH (UID 1",
            "* 1 FETCH ()",
            "* 1 FETCH",
            "",
        ] {
            assert_eq!(both(line), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn both_ways_lead_to_the_same(
            items in prop::collection::vec(
                prop_oneof![
                    Just("UID 5".to_owned()), Just("MODSEQ (77)".to_owned()), Just("RFC822.SIZE 9".to_owned()),
                    Just("BODY[] {3}\r\n\x0000".to_owned()), Just("BODY[HEADER] {3}\r\n\x0001".to_owned()),
                    Just("INTERNALDATE \"17-Jul-1996 02:44:25 -0700\"".to_owned()),
                    "FLAGS \\([ -~]{0,12}\\)", "FLAGS \\((\\\\Seen )?[a-z$]{1,6}\\)", "INTERNALDATE \"[ -~]{0,12}\"", "[ -~]{0,20}",
                ],
                1..5,
            ),
        ) {
            let line = format!("* 12 FETCH ({})", items.join(" "));
            if let Some((short, long)) = both(&line) {
                prop_assert_eq!(short, long);
            }
        }
    }
}
