//! The marks that programs leave in a header, and that say nothing about the message: one copy has such a line, the other
//! lacks it, and both are the same.
//!
//! - `X-TUID`: mbsync adds it to each copy that it stores, on either side.
//! - `X-Message-Flag`: Exchange gives a message with it while the message is `\Flagged`, and else without it.

/// The names of the lines, with their colons.
const MARKS: [&[u8]; 2] = [b"X-TUID:", b"X-Message-Flag:"];

/// Which of [`MARKS`] is mbsync's.
const TUID: usize = 0;

/// How long mbsync's line is as served, in bytes: the name, a space, twelve characters, CRLF.
pub const TUID_LINE: u64 = 22;

/// Passes on the bytes of a message, in pieces of any size, without the lines of its header that are marks. What a line was
/// folded into belongs to it.
#[derive(Clone)]
pub struct WithoutMarks {
    /// How many of [`MARKS`] are left out, from the first.
    marks: usize,
    at: Where,
    /// What stands on this line, while it may be such a line.
    line: Vec<u8>,
    /// The line before was left out: so is this one if it only continues it.
    after_mark: bool,
    found: [bool; MARKS.len()],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// Among the first bytes of a header line.
    Begins,
    /// Further on in one.
    Goes,
    /// In a line that is left out.
    Marked,
    /// Behind the header.
    Body,
}

impl Default for WithoutMarks {
    fn default() -> Self {
        Self { marks: MARKS.len(), at: Where::Begins, line: Vec::new(), after_mark: false, found: Default::default() }
    }
}

impl WithoutMarks {
    /// Leaves out mbsync's lines only.
    #[must_use]
    pub fn of_mbsync() -> Self {
        Self { marks: TUID + 1, ..Self::default() }
    }

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
                        self.after_mark = self.at == Where::Marked;
                        self.at = Where::Begins;
                    }
                    piece = rest;
                }
                Where::Begins => {
                    self.line.push(piece[0]);
                    piece = &piece[1..];
                    let Some(at) = self.judge() else { continue };
                    if at != Where::Marked {
                        pass_on(&self.line);
                    }
                    if self.line.ends_with(b"\n") {
                        self.after_mark = false;
                    }
                    self.line.clear();
                    self.at = at;
                }
            }
        }
    }

    /// Returns what the line is that begins so, once that is clear.
    fn judge(&mut self) -> Option<Where> {
        let begins =
            |name: &&[u8]| name.len() >= self.line.len() && name[..self.line.len()].eq_ignore_ascii_case(&self.line);
        let mark = MARKS[..self.marks].iter().position(begins);
        match (self.line.as_slice(), mark) {
            (b"\n" | b"\r\n", _) => Some(Where::Body),
            (b"\r", _) => None,
            ([b' ' | b'\t'], _) if self.after_mark => Some(Where::Marked),
            (line, Some(mark)) if line.len() == MARKS[mark].len() => {
                self.found[mark] = true;
                Some(Where::Marked)
            }
            (_, Some(_)) => None,
            (line, None) if line.ends_with(b"\n") => Some(Where::Begins),
            (_, None) => Some(Where::Goes),
        }
    }

    /// Passes on what was held back at the end; returns whether anything was left out.
    pub fn finish(&mut self, mut pass_on: impl FnMut(&[u8])) -> bool {
        pass_on(&self.line);
        self.line.clear();
        self.found()
    }

    /// Tells whether anything was left out so far.
    #[must_use]
    pub fn found(&self) -> bool {
        self.found.contains(&true)
    }

    /// Tells whether a mark of mbsync and another one were left out so far.
    #[must_use]
    pub fn found_both(&self) -> bool {
        !self.found.contains(&false)
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

    /// Returns what is passed on of a text in pieces of this size, and the filter as it is then.
    fn filtered(mut filter: WithoutMarks, text: &str, cut: usize) -> (String, WithoutMarks) {
        let mut out = Vec::new();
        text.as_bytes().chunks(cut).for_each(|piece| filter.update(piece, |part| out.extend_from_slice(part)));
        filter.finish(|part| out.extend_from_slice(part));
        (String::from_utf8(out).unwrap(), filter)
    }

    #[test]
    fn the_lines_of_the_header_are_left_out() {
        let rows: [(&str, Option<&str>); 19] = [
            ("A: b\r\nX-TUID: abcdefghijkl\r\nC: d\r\n\r\nbody\r\n", Some("A: b\r\nC: d\r\n\r\nbody\r\n")),
            ("x-tuid: abcdefghijkl\n\nbody\n", Some("\nbody\n")),
            ("A: b\r\nX-TUID:", Some("A: b\r\n")),
            ("A: b\r\nX-TUI", None),
            ("X-TUIDS: b\r\n", None),
            ("A: b\r\n\r\nX-TUID: in the body\r\n", None),
            ("\r\nX-TUID: in the body\r\n", None),
            ("A: X-TUID: b\r\n X-TUID: folded\r\n", None),
            ("", None),
            ("X-Message-Flag: Follow up\r\nA: b\r\n\r\nbody\r\n", Some("A: b\r\n\r\nbody\r\n")),
            ("A: b\nx-message-FLAG:\n\nX-Message-Flag: c\n", Some("A: b\n\nX-Message-Flag: c\n")),
            ("X-Message-Flag: a\r\n b\r\n\tc\r\n d: e\r\nA: b\r\n f\r\n\r\n", Some("A: b\r\n f\r\n\r\n")),
            ("X-Message-Flag: a\r\n \r\nA: b\r\n", Some("A: b\r\n")),
            ("X-Message-Flag: a\r\nX-TUID: b\r\n c\r\nX-TUID: d\r\nA: b\r\n", Some("A: b\r\n")),
            ("X-Message-Flag: a\r\n\r\n not folded\r\n", Some("\r\n not folded\r\n")),
            ("X-TUID: a\r\nX-T\n folded into another\r\n", Some("X-T\n folded into another\r\n")),
            ("X-Message-Fla", None),
            ("X-\r\nX-Message: a\r\nX-Message-Flags: b\r\nReply-By: c\r\n", None),
            ("\rX-TUID: a\r\n", None),
        ];
        for (text, expected) in rows {
            for cut in (1..=20).chain([1000]) {
                let (out, filter) = filtered(WithoutMarks::default(), text, cut);
                assert_eq!(out, expected.unwrap_or(text), "{text:?} by {cut}");
                assert_eq!(filter.found(), expected.is_some(), "{text:?} by {cut}");
                assert_eq!(
                    filter.is_through(),
                    text.contains("\n\r\n") || text.contains("\n\n") || text.starts_with("\r\n")
                );
            }
        }
        let line = "X-TUID: abcdefghijkl\r\n";
        assert_eq!(line.len() as u64, TUID_LINE);
    }

    #[test]
    fn the_lines_of_mbsync_alone_are_left_out() {
        let text = "X-TUID: abcdefghijkl\r\nX-Message-Flag: a\r\n b\r\nA: b\r\n\r\nbody\r\n";
        for cut in [1, 3, 1000] {
            let (out, filter) = filtered(WithoutMarks::of_mbsync(), text, cut);
            assert_eq!(out, &text[usize::try_from(TUID_LINE).unwrap()..]);
            assert!(filter.found() && !filter.found_both());
            let (out, filter) = filtered(WithoutMarks::default(), text, cut);
            assert_eq!(out, "A: b\r\n\r\nbody\r\n");
            assert!(filter.found_both());
        }
    }
}
