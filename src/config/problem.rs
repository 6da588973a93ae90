//! What is wrong with a configuration, and where.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Why there is no configuration.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// There is no home directory to look into.
    #[error(
        "neither $XDG_CONFIG_HOME nor $HOME is set, so there is no default configuration; name one with --config FILE"
    )]
    NoHome,
    /// The file is not there.
    #[error("there is no configuration {}; write one, or name another with --config FILE", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file can be read, but not used.
    #[error("{}", render(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it, in the order of the file.
        problems: Vec<Problem>,
    },
}

/// Something wrong at a place of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub text: String,
    /// The line with a mark under the place.
    excerpt: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, text, excerpt } = self;
        write!(f, "{line}:{column}: {text}\n{excerpt}")
    }
}

fn render(path: &std::path::Path, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|p| format!("{}:{p}", path.display())).collect();
    lines.join("\n")
}

/// A problem whose place is still a range of bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    /// Where.
    pub(super) span: Range<usize>,
    /// What is wrong.
    pub(super) text: String,
}

impl Fault {
    pub(super) fn new(span: Range<usize>, text: impl Into<String>) -> Self {
        Self { span, text: text.into() }
    }
}

/// Finds the lines and columns of faults and puts them in the order of the file.
pub(super) fn locate(text: &str, mut faults: Vec<Fault>) -> Vec<Problem> {
    faults.sort_by_key(|fault| fault.span.start);
    faults.into_iter().map(|fault| place(text, &fault)).collect()
}

fn place(text: &str, fault: &Fault) -> Problem {
    let start = floor(text, fault.span.start);
    let from = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let to = text[from..].find('\n').map_or(text.len(), |at| from + at);
    let end = floor(text, fault.span.end).clamp(start, to.max(start));
    let line = text[..from].matches('\n').count() + 1;
    let before = text[from..start].chars().count();
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    // Tabs are kept, so that the mark stands under its place whatever their width.
    let indent: String = text[from..start].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let mark = "^".repeat(text[start..end].chars().count().max(1));
    let excerpt =
        format!(" {number} | {}\n {margin} | {indent}{mark}", shown(&text[from..to], end.saturating_sub(from)));
    Problem { line, column: before + 1, text: fault.text.clone(), excerpt }
}

/// Returns as much of a line as may be shown: up to the end of the mark, and no value where it could be a secret that
/// someone wrote into the file (this program has no key for one, but an error text often ends up in a log).
fn shown(line: &str, end: usize) -> String {
    let key = line.find('=').map_or(line, |at| &line[..at]);
    let delicate = ["pass", "secret", "token", "pwd"].iter().any(|word| key.to_ascii_lowercase().contains(word));
    let end = if delicate { end.min(key.len()) } else { end };
    let (head, tail) = line.split_at(floor(line, end));
    let dots = if tail.trim_end().is_empty() { "" } else { " …" };
    let plain: String = head.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
    format!("{}{dots}", plain.trim_end())
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Returns the candidate most like `word`, if one is like it at all.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |other: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &other.to_lowercase());
    let best = candidates.into_iter().map(|c| (likeness(c), c)).min_by_key(|(distance, _)| *distance)?;
    // A third of the word may be wrong: "hots" is near "host", "color" is near nothing here.
    (best.0 <= (word.chars().count() / 3).max(2)).then_some(best.1)
}
