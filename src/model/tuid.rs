//! The mark of mbsync: a header line that it adds to each copy that it stores, on either side, and that the other copy
//! lacks. A message with it and one without it are the same.

/// The name of the line, with its colon.
const NAME: &[u8] = b"X-TUID:";

/// How long mbsync's line is as served, in bytes: the name, a space, twelve characters, CRLF.
pub const TUID_LINE: u64 = 22;

/// Passes on the bytes of a message, in pieces of any size, without the `X-TUID` lines of its header.
#[derive(Clone, Default)]
pub struct WithoutTuid {
    at: Where,
    /// What stands on this line, while it may be such a line.
    line: Vec<u8>,
    found: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Where {
    /// Among the first bytes of a header line.
    #[default]
    Begins,
    /// Further on in one.
    Goes,
    /// In a line that is left out.
    Marked,
    /// Behind the header.
    Body,
}

impl WithoutTuid {
    /// Takes the next piece.
    pub fn update(&mut self, mut piece: &[u8], mut pass_on: impl FnMut(&[u8])) {
        while !piece.is_empty() {
            let line_end = |piece: &[u8]| piece.iter().position(|b| *b == b'\n').map_or(piece.len(), |at| at + 1);
            match self.at {
                Where::Body => return pass_on(piece),
                Where::Goes | Where::Marked => {
                    let (head, rest) = piece.split_at(line_end(piece));
                    if self.at == Where::Goes {
                        pass_on(head);
                    }
                    if head.ends_with(b"\n") {
                        self.at = Where::Begins;
                    }
                    piece = rest;
                }
                Where::Begins => {
                    self.line.push(piece[0]);
                    piece = &piece[1..];
                    self.at = match self.line.as_slice() {
                        b"\n" | b"\r\n" => Where::Body,
                        b"\r" => continue,
                        line if line.len() < NAME.len() && NAME[..line.len()].eq_ignore_ascii_case(line) => continue,
                        line if line.eq_ignore_ascii_case(NAME) => {
                            self.found = true;
                            self.line.clear();
                            Where::Marked
                        }
                        line if line.ends_with(b"\n") => Where::Begins,
                        _ => Where::Goes,
                    };
                    pass_on(&self.line);
                    self.line.clear();
                }
            }
        }
    }

    /// Passes on what was held back at the end; returns whether anything was left out.
    pub fn finish(&mut self, mut pass_on: impl FnMut(&[u8])) -> bool {
        pass_on(&self.line);
        self.line.clear();
        self.found
    }

    /// Tells whether anything was left out so far.
    #[must_use]
    pub fn found(&self) -> bool {
        self.found
    }

    /// Tells whether the header has ended: nothing is left out from here on.
    #[must_use]
    pub fn is_through(&self) -> bool {
        self.at == Where::Body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_header_are_left_out() {
        let rows: [(&str, Option<&str>); 9] = [
            ("A: b\r\nX-TUID: abcdefghijkl\r\nC: d\r\n\r\nbody\r\n", Some("A: b\r\nC: d\r\n\r\nbody\r\n")),
            ("x-tuid: abcdefghijkl\n\nbody\n", Some("\nbody\n")),
            ("A: b\r\nX-TUID:", Some("A: b\r\n")),
            ("A: b\r\nX-TUI", None),
            ("X-TUIDS: b\r\n", None),
            ("A: b\r\n\r\nX-TUID: in the body\r\n", None),
            ("\r\nX-TUID: in the body\r\n", None),
            ("A: X-TUID: b\r\n X-TUID: folded\r\n", None),
            ("", None),
        ];
        for (text, expected) in rows {
            for cut in [1, 3, 1000] {
                let (mut filter, mut out) = (WithoutTuid::default(), Vec::new());
                text.as_bytes().chunks(cut).for_each(|piece| filter.update(piece, |part| out.extend_from_slice(part)));
                let found = filter.finish(|part| out.extend_from_slice(part));
                assert_eq!(String::from_utf8(out).unwrap(), expected.unwrap_or(text));
                assert_eq!(found, expected.is_some(), "{text:?}");
            }
        }
        let line = "X-TUID: abcdefghijkl\r\n";
        assert_eq!(line.len() as u64, TUID_LINE);
    }
}
