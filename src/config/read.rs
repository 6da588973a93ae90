//! Turns the text into the shape of [`Raw`], or into all that is wrong with its shape.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::problem::{Fault, nearest};
use super::raw::Raw;

/// Reads the text.
///
/// # Errors
/// Every fault of the syntax; if there is none, every unknown key and wrong type.
pub(super) fn read(text: &str) -> Result<Raw, Vec<Fault>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let fault = |e: toml::de::Error| Fault::new(e.span().unwrap_or_default(), e.message().replace('\n', ", "));
        return Err(errors.into_iter().map(fault).collect());
    }
    let (mut raw, mut faults) = (Raw::default(), Vec::new());
    for (key, value) in root.get_ref() {
        match key.get_ref().as_ref() {
            "account" => match value.get_ref() {
                DeValue::Table(accounts) => {
                    for (name, account) in accounts {
                        let name_at = Spanned::new(name.span(), name.get_ref().to_string());
                        raw.accounts.push((name_at, section(name.span(), account, &mut faults)));
                    }
                }
                other => faults.push(not_a_table(value.span(), other)),
            },
            "hooks" => raw.hooks = section(key.span(), value, &mut faults),
            "daemon" => raw.daemon = section(key.span(), value, &mut faults),
            other => faults.push(Fault::new(key.span(), unknown("section", other, &["account", "hooks", "daemon"]))),
        }
    }
    if faults.is_empty() { Ok(raw) } else { Err(faults) }
}

fn not_a_table(span: Range<usize>, found: &DeValue<'_>) -> Fault {
    Fault::new(span, format!("expected a section such as [account.NAME], found {}", article(found)))
}

/// Reads a section. serde stops at the first thing that it cannot read, so that entry is taken out and the rest is
/// read again, until all is read or what is wrong belongs to no entry.
fn section<T: DeserializeOwned + Default>(
    at: Range<usize>,
    value: &Spanned<DeValue<'_>>,
    faults: &mut Vec<Fault>,
) -> T {
    if !value.get_ref().is_table() {
        faults.push(not_a_table(value.span(), value.get_ref()));
        return T::default();
    }
    let mut value = value.clone();
    loop {
        let error = match T::deserialize(ValueDeserializer::from(value.clone())) {
            Ok(section) => return section,
            Err(error) => error,
        };
        let span = error.span().unwrap_or(at.clone());
        match value.get_mut().as_table_mut_at(&span) {
            Some(entry) => faults.push(explain(error.message(), span, &entry)),
            None => {
                faults.push(Fault::new(at, error.message()));
                return T::default();
            }
        }
    }
}

/// An entry that was taken out of a table.
struct Entry<'i> {
    key: Range<usize>,
    name: String,
    value: Spanned<DeValue<'i>>,
}

trait TakeAt<'i> {
    /// Takes out the innermost entry at the place.
    fn as_table_mut_at(&mut self, span: &Range<usize>) -> Option<Entry<'i>>;
}

impl<'i> TakeAt<'i> for DeValue<'i> {
    fn as_table_mut_at(&mut self, span: &Range<usize>) -> Option<Entry<'i>> {
        let Self::Table(table) = self else { return None };
        let here = |key: &Range<usize>, value: &Spanned<DeValue<'_>>| {
            let within = value.span().start <= span.start && span.end <= value.span().end;
            key == span || (within && !value.get_ref().is_table())
        };
        let found = table.iter().find(|(key, value)| here(&key.span(), value)).map(|(key, _)| key.clone());
        if let Some(key) = found {
            let value = table.remove(&key)?;
            return Some(Entry { key: key.span(), name: key.into_inner().into_owned(), value });
        }
        table.iter_mut().find_map(|(_, value)| value.get_mut().as_table_mut_at(span))
    }
}

/// Says in the words of the file what serde says in those of Rust; no value is repeated, since it may be a secret.
fn explain(message: &str, span: Range<usize>, entry: &Entry<'_>) -> Fault {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if span == entry.key && message.starts_with("unknown field") {
        return Fault::new(span, unknown("key", &entry.name, quoted.get(1..).unwrap_or_default()));
    }
    // Where a password comes from is told by the key alone.
    let span = if entry.name.starts_with("password") { entry.key.clone() } else { span };
    let expected = message.rsplit_once("expected ").map(|(_, expected)| expected);
    let text = match expected {
        Some(_) if message.starts_with("unknown variant") => {
            let (word, valid) = quoted.split_first().unwrap_or((&"", &[]));
            let valid_list = valid.iter().map(|v| format!("\"{v}\"")).collect::<Vec<_>>().join(", ");
            format!("{} cannot be \"{word}\"; expected {valid_list}", entry.name)
        }
        Some(expected) if message.starts_with("invalid") => {
            let found = innermost(&entry.value, &span).map_or("something else", article);
            format!("{}: expected {}, found {found}", entry.name, plain(expected))
        }
        Some(_) | None => format!("{}: {message}", entry.name),
    };
    Fault::new(span, text)
}

fn unknown(what: &str, word: &str, valid: &[&str]) -> String {
    match nearest(word, valid.iter().copied()) {
        Some(near) => format!("unknown {what} `{word}`; did you mean `{near}`?"),
        None => format!("unknown {what} `{word}`; expected one of {}", valid.join(", ")),
    }
}

/// Returns the element of a list that is at the place, or the value itself.
fn innermost<'v, 'i>(value: &'v Spanned<DeValue<'i>>, span: &Range<usize>) -> Option<&'v DeValue<'i>> {
    let DeValue::Array(list) = value.get_ref() else { return Some(value.get_ref()) };
    list.iter().find(|element| element.span() == *span).map(Spanned::get_ref).or(Some(value.get_ref()))
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(number) if number.as_str().starts_with('-') => "a negative number",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn plain(expected: &str) -> &str {
    match expected {
        "u16" => "a whole number from 0 to 65535",
        "u64" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        expected if expected.starts_with("struct ") => "a table",
        expected => expected,
    }
}
