//! The mail that is shown, told apart by its subjects.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Writes a message as a server keeps it, with CRLF; `number` makes it unlike all others.
pub(super) fn message(number: u32, from: &str, subject: &str, text: &str) -> Vec<u8> {
    let header = header(number, from, subject);
    format!("{header}Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{text}\r\n")
        .into_bytes()
}

/// Writes a message with a picture attached.
pub(super) fn with_picture(number: u32, from: &str, subject: &str, text: &str) -> Vec<u8> {
    let header = header(number, from, subject);
    // No picture that a viewer could show; its bytes look as random as those of one, and are the same each time.
    let pixels = (0..8000 + number % 7 * 4000).scan(number, |state, _| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(state.to_be_bytes()[0])
    });
    let coded = STANDARD.encode(pixels.collect::<Vec<u8>>());
    let mut lines = String::new();
    let mut rest = coded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(76));
        lines.push_str(line);
        lines.push_str("\r\n");
        rest = more;
    }
    format!(
        "{header}Content-Type: multipart/mixed; boundary=\"=-{number}\"\r\n\r\n--=-{number}\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{text}\r\n\r\n--=-{number}\r\n\
         Content-Type: image/jpeg\r\nContent-Disposition: attachment; filename=\"{number}.jpg\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{lines}--=-{number}--\r\n"
    )
    .into_bytes()
}

fn header(number: u32, from: &str, subject: &str) -> String {
    let (day, hour, minute) = (1 + number / 20 % 28, 8 + number % 12, number % 60);
    format!(
        "From: {from}\r\nTo: You <you@outlook.com>\r\nSubject: {subject}\r\n\
         Date: {day} Oct 2026 {hour:02}:{minute:02}:00 +0000\r\nMessage-ID: <{number}@demo.example>\r\n\
         MIME-Version: 1.0\r\n"
    )
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
        let picture = with_picture(2, "Ann <ann@example.net>", "Photographs", "From the lake.");
        assert_eq!(subject(&picture), Some("Photographs"));
        let longest = picture.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
        assert!(picture.len() > 10_000 && longest <= Some(120), "{longest:?}");
    }
}
