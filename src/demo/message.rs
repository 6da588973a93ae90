//! The mail that is shown: small, and told apart by its subjects.

/// Writes a message as a server keeps it, with CRLF; `number` makes it unlike all others.
pub(super) fn message(number: u32, from: &str, subject: &str, text: &str) -> Vec<u8> {
    let (hour, minute) = (8 + number / 60 % 12, number % 60);
    format!(
        "From: {from}\r\nTo: You <you@outlook.com>\r\nSubject: {subject}\r\n\
         Date: Mon, 2 Nov 2026 {hour:02}:{minute:02}:00 +0000\r\nMessage-ID: <{number}@demo.example>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
    )
    .into_bytes()
}

/// Returns a message as the other side has it: lines end with LF here.
pub(super) fn with_lf(message: &[u8]) -> Vec<u8> {
    let mut lines: Vec<u8> = Vec::with_capacity(message.len());
    for (i, byte) in message.iter().enumerate() {
        if *byte != b'\r' || message.get(i + 1) != Some(&b'\n') {
            lines.push(*byte);
        }
    }
    lines
}

/// Returns the subject of a message of [`message`].
pub(super) fn subject(message: &[u8]) -> Option<&str> {
    let line = message.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Subject: "))?;
    std::str::from_utf8(line).ok().map(|text| text.trim_end_matches('\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_show_the_same_message() {
        let there = message(1, "Ann <ann@example.net>", "Lunch?", "At one?");
        let here = with_lf(&there);
        assert!(!here.contains(&b'\r') && here.len() < there.len());
        assert_eq!((subject(&there), subject(&here)), (Some("Lunch?"), Some("Lunch?")));
        assert_eq!(with_lf(b"a\rb\r\n\r"), b"a\rb\n\r");
    }
}
