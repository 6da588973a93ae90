//! Reads the answers that are kept from imap-proto, because it would lose something of them or cannot read them at
//! all. Nothing here recurses, panics or allocates by a number that the server sent.

use crate::model::{Uid, UidSet};

/// A place in the bytes of an answer. Each reader moves it only if it found what it looked for.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    /// Takes one given byte.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    /// Skips spaces: servers send too many and too few.
    pub(super) fn spaces(&mut self) {
        while self.eat(b' ') {}
    }

    /// Takes everything up to one of `ends`, or to the end.
    pub(super) fn until(&mut self, ends: &[u8]) -> &'a [u8] {
        let at = self.0.iter().position(|b| ends.contains(b)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(at);
        self.0 = rest;
        word
    }

    /// Takes the next word in upper case, and the spaces after it.
    pub(super) fn word(&mut self) -> String {
        let word = String::from_utf8_lossy(self.until(b" ()[]")).to_ascii_uppercase();
        self.spaces();
        word
    }

    /// Takes a number of up to 64 bits.
    pub(super) fn number(&mut self) -> Option<u64> {
        let digits = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let value = std::str::from_utf8(&self.0[..digits]).ok()?.parse().ok()?;
        self.0 = &self.0[digits..];
        Some(value)
    }

    /// Takes a quoted string or a literal (RFC 3501 §4.3).
    pub(super) fn string(&mut self) -> Option<Vec<u8>> {
        let mut at = *self;
        if at.eat(b'"') {
            let mut out = Vec::new();
            loop {
                match at.0 {
                    [b'"', rest @ ..] => {
                        *self = Cursor(rest);
                        return Some(out);
                    }
                    [b'\\', byte, rest @ ..] | [byte, rest @ ..] => {
                        out.push(*byte);
                        at.0 = rest;
                    }
                    [] => return None,
                }
            }
        }
        if !at.eat(b'{') {
            return None;
        }
        let length = usize::try_from(at.number()?).ok()?;
        let _ = at.eat(b'+');
        let rest = at.0.strip_prefix(b"}\r\n")?;
        let (text, rest) = rest.split_at_checked(length)?;
        *self = Cursor(rest);
        Some(text.to_vec())
    }

    /// Takes a string or `NIL`, which is `Some(None)`.
    pub(super) fn nstring(&mut self) -> Option<Option<Vec<u8>>> {
        if self.0.get(..3).is_some_and(|w| w.eq_ignore_ascii_case(b"NIL")) {
            self.0 = &self.0[3..];
            return Some(None);
        }
        self.string().map(Some)
    }

    /// Takes a mailbox name: a string, or bare bytes up to ` (` or the end; Exchange leaves out quotes around names
    /// that need them.
    fn mailbox(&mut self) -> Option<Vec<u8>> {
        if let Some(name) = self.string() {
            return Some(name);
        }
        let end = memchr::memmem::find(self.0, b" (").unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        self.0 = rest;
        let name = name.trim_ascii_end();
        (!name.is_empty()).then(|| name.to_vec())
    }

    /// Takes a sequence set as ranges in the order given, both ends of each in ascending order.
    fn ranges(&mut self) -> Option<Vec<(u64, u64)>> {
        let mut out = Vec::new();
        loop {
            let a = self.number()?;
            let b = if self.eat(b':') { self.number()? } else { a };
            out.push((a.min(b), a.max(b)));
            if !self.eat(b',') {
                return Some(out);
            }
        }
    }

    /// Takes a set of UIDs. Sorted first, for a set grows in no time only at its end.
    fn uid_set(&mut self) -> Option<UidSet> {
        set_of(self.ranges()?)
    }
}

fn set_of(mut ranges: Vec<(u64, u64)>) -> Option<UidSet> {
    ranges.sort_unstable();
    let mut set = UidSet::default();
    for (a, b) in ranges {
        set.insert_range(Uid::new(a).ok()?, Uid::new(b).ok()?);
    }
    Some(set)
}

/// A response code (RFC 3501 §7.1), like `[UIDNEXT 5]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Code {
    /// Its name in upper case; empty where there is none.
    pub(super) name: String,
    args: Vec<u8>,
}

impl Code {
    /// Splits the text of a status response into its code and the words for people.
    pub(super) fn split(text: &[u8]) -> (Self, &[u8]) {
        let Some(inside) = text.strip_prefix(b"[") else { return (Self::default(), text) };
        // Exchange puts free text between the brackets, so only the end matters.
        let Some(end) = memchr::memchr(b']', inside) else { return (Self::default(), text) };
        // A flag may hold a bracket; the list it is in ends with one of these.
        let end = memchr::memmem::find(inside, b")]")
            .map_or(end, |at| if inside[..end].contains(&b'(') { at + 1 } else { end });
        let mut cursor = Cursor(&inside[..end]);
        let name = cursor.word();
        (Self { name, args: cursor.0.to_vec() }, inside[end + 1..].trim_ascii_start())
    }

    /// Tells whether the code has this name.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// Returns the one number that the code holds.
    pub(super) fn number(&self) -> Option<u64> {
        Cursor(&self.args).number()
    }

    /// Returns the words that the code holds, without parentheses.
    pub(super) fn words(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.args);
        text.trim_matches(['(', ')', ' ']).split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect()
    }

    /// Returns the set of `[MODIFIED set]` (RFC 7162 §3.1.3).
    pub(super) fn set(&self) -> Option<UidSet> {
        Cursor(&self.args).uid_set()
    }

    /// Returns what `[APPENDUID validity set]` says (RFC 4315 §3), for `count` messages.
    pub(super) fn append_uid(&self, count: usize) -> Option<(u64, Vec<Uid>)> {
        let mut cursor = Cursor(&self.args);
        let validity = cursor.number()?;
        cursor.spaces();
        let uids = expand(&cursor.ranges()?, count)?;
        (uids.len() == count).then_some((validity, uids))
    }

    /// Returns the pairs of `[COPYUID validity from to]` (RFC 4315 §3), at most `most`; empty sets are nothing copied,
    /// as Exchange says it.
    pub(super) fn copy_uid(&self, most: usize) -> Option<Vec<(Uid, Uid)>> {
        let mut cursor = Cursor(&self.args);
        cursor.number()?;
        cursor.spaces();
        if cursor.0.is_empty() {
            return Some(Vec::new());
        }
        let from = expand(&cursor.ranges()?, most)?;
        cursor.spaces();
        let to = expand(&cursor.ranges()?, most)?;
        (from.len() == to.len()).then(|| from.into_iter().zip(to).collect())
    }
}

/// Returns the members of ranges in the order given, or nothing if there are more than `most`.
fn expand(ranges: &[(u64, u64)], most: usize) -> Option<Vec<Uid>> {
    let mut out = Vec::new();
    for &(a, b) in ranges {
        if b - a >= most.saturating_sub(out.len()) as u64 {
            return None;
        }
        out.extend((a..=b).map(Uid::new).collect::<Result<Vec<_>, _>>().ok()?);
    }
    Some(out)
}

/// A line of LIST (RFC 3501 §7.2.2).
#[derive(PartialEq, Eq, Debug)]
pub(super) struct ListLine {
    /// In upper case, with their backslash.
    pub(super) attributes: Vec<String>,
    pub(super) separator: Option<u8>,
    pub(super) name: Vec<u8>,
}

/// A line of STATUS (RFC 3501 §7.2.4): items in upper case with their numbers.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct StatusLine {
    pub(super) name: Vec<u8>,
    items: Vec<(String, u64)>,
}

impl StatusLine {
    /// Returns the number of an item, if it is there.
    pub(super) fn item(&self, name: &str) -> Option<u64> {
        self.items.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }
}

/// An untagged answer that is neither a status nor begins with a number.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Data {
    Capability(Vec<String>),
    Enabled(Vec<String>),
    List(ListLine),
    Status(StatusLine),
    /// SEARCH and ESEARCH alike (RFC 4731).
    Search(UidSet),
    Vanished {
        earlier: bool,
        uids: UidSet,
    },
    /// The kinds of namespaces in the order of RFC 2342: personal, other users', shared; each a prefix and a separator.
    Namespace([Vec<(Vec<u8>, Option<u8>)>; 3]),
    /// What the server says of itself (RFC 2971 §3.2), as it wrote it.
    Id(String),
    /// `[COPYUID …]` that stands alone on its line, as Exchange once sent it.
    BareCode(Code),
    /// A line that is no answer at all, like `Server Unavailable. 15`.
    Stray(Vec<u8>),
    /// Not understood, but of a kind that a listing depends on.
    Broken,
    /// Nothing that matters here.
    Other,
}

/// Reads a line without its line end.
pub(super) fn data(line: &[u8]) -> Data {
    if line.starts_with(b"[") {
        return Data::BareCode(Code::split(line).0);
    }
    let Some(rest) = line.strip_prefix(b"* ") else { return Data::Stray(line.to_vec()) };
    let mut cursor = Cursor(rest);
    let kind = cursor.word();
    let read = match kind.as_str() {
        "CAPABILITY" => Some(Data::Capability(words(cursor.0))),
        "ENABLED" => Some(Data::Enabled(words(cursor.0))),
        "LIST" => list(cursor).map(Data::List),
        "STATUS" => status(cursor).map(Data::Status),
        "SEARCH" => search(cursor).map(Data::Search),
        "ESEARCH" => esearch(cursor).map(Data::Search),
        "VANISHED" => vanished(cursor),
        "NAMESPACE" => namespace(cursor),
        "ID" => Some(Data::Id(String::from_utf8_lossy(cursor.0).into_owned())),
        // FETCH, EXISTS and EXPUNGE come here only if they could not be read.
        number if number.bytes().all(|b| b.is_ascii_digit()) && !number.is_empty() => ["FETCH", "EXISTS", "EXPUNGE"]
            .contains(&cursor.word().as_str())
            .then_some(Data::Broken)
            .or(Some(Data::Other)),
        _ => Some(Data::Other),
    };
    read.unwrap_or(Data::Broken)
}

fn words(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    text.split_ascii_whitespace().map(str::to_ascii_uppercase).collect()
}

fn separator(cursor: &mut Cursor<'_>) -> Option<Option<u8>> {
    match cursor.nstring()?.as_deref() {
        None | Some([]) => Some(None),
        Some([byte]) => Some(Some(*byte)),
        Some(_) => None,
    }
}

fn list(mut cursor: Cursor<'_>) -> Option<ListLine> {
    if !cursor.eat(b'(') {
        return None;
    }
    let attributes = words(cursor.until(b")"));
    cursor.eat(b')');
    cursor.spaces();
    let separator = separator(&mut cursor)?;
    cursor.spaces();
    Some(ListLine { attributes, separator, name: cursor.mailbox()? })
}

fn status(mut cursor: Cursor<'_>) -> Option<StatusLine> {
    let name = cursor.mailbox()?;
    cursor.spaces();
    if !cursor.eat(b'(') {
        return None;
    }
    let mut items = Vec::new();
    loop {
        cursor.spaces();
        if cursor.eat(b')') {
            return Some(StatusLine { name, items });
        }
        let item = cursor.word();
        if cursor.eat(b'(') {
            // MAILBOXID (RFC 8474) and whatever else has a list for a value.
            cursor.until(b")");
            cursor.eat(b')');
        } else {
            items.push((item, cursor.number()?));
        }
    }
}

fn search(mut cursor: Cursor<'_>) -> Option<UidSet> {
    let mut found = Vec::new();
    loop {
        cursor.spaces();
        // `(MODSEQ n)` may end the line (RFC 7162 §3.1.5).
        if cursor.0.is_empty() || cursor.0.starts_with(b"(") {
            return set_of(found);
        }
        let uid = cursor.number()?;
        found.push((uid, uid));
    }
}

fn esearch(mut cursor: Cursor<'_>) -> Option<UidSet> {
    if cursor.eat(b'(') {
        cursor.until(b")");
        cursor.eat(b')');
    }
    cursor.spaces();
    while !cursor.0.is_empty() {
        match cursor.word().as_str() {
            "ALL" => return cursor.uid_set(),
            "UID" => {}
            "" => return None,
            _ => {
                cursor.word();
            }
        }
    }
    Some(UidSet::default())
}

fn vanished(mut cursor: Cursor<'_>) -> Option<Data> {
    let earlier = cursor.eat(b'(');
    if earlier {
        cursor.until(b")");
        cursor.eat(b')');
    }
    cursor.spaces();
    Some(Data::Vanished { earlier, uids: cursor.uid_set()? })
}

fn namespace(mut cursor: Cursor<'_>) -> Option<Data> {
    let mut kinds = [Vec::new(), Vec::new(), Vec::new()];
    for kind in &mut kinds {
        cursor.spaces();
        if !cursor.eat(b'(') {
            cursor.nstring()?;
            continue;
        }
        while cursor.eat(b'(') {
            let prefix = cursor.string()?;
            cursor.spaces();
            kind.push((prefix, separator(&mut cursor)?));
            // Extensions: `"TRANSLATION" ("…")`.
            cursor.spaces();
            while cursor.string().is_some() {
                cursor.spaces();
                if cursor.eat(b'(') {
                    cursor.until(b")");
                    cursor.eat(b')');
                }
                cursor.spaces();
            }
            cursor.eat(b')');
            cursor.spaces();
        }
        cursor.eat(b')').then_some(())?;
    }
    Some(Data::Namespace(kinds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str) -> UidSet {
        Cursor(text.as_bytes()).uid_set().unwrap()
    }

    fn uids(list: &[u64]) -> Vec<Uid> {
        list.iter().map(|n| Uid::new(*n).unwrap()).collect()
    }

    #[test]
    fn codes_are_split_from_their_text() {
        let table: [(&str, &str, &str); 9] = [
            ("[UIDNEXT 5] next", "UIDNEXT", "next"),
            ("[ALERT]\u{e9}", "ALERT", "\u{e9}"),
            ("[Error=\"a b\" Proxy=X.OUTLOOK.COM:1993:SSL] done", "ERROR=\"A", "done"),
            ("[PERMANENTFLAGS (\\Seen [x] \\*)] limited", "PERMANENTFLAGS", "limited"),
            ("no code", "", "no code"),
            ("[no end", "", "[no end"),
            ("[]x", "", "x"),
            ("", "", ""),
            ("[COPYUID 14  ]", "COPYUID", ""),
        ];
        for (text, name, rest) in table {
            let (code, words) = Code::split(text.as_bytes());
            assert_eq!((code.name.as_str(), words), (name, rest.as_bytes()), "{text}");
        }
        let (flags, _) = Code::split(b"[PERMANENTFLAGS (\\Seen \\*)]");
        assert_eq!(flags.words(), ["\\Seen", "\\*"]);
    }

    #[test]
    fn uids_of_copies_come_in_pairs() {
        let code = |text: &str| Code::split(format!("[{text}]").as_bytes()).0;
        let pairs = |a: &[u64], b: &[u64]| Some(uids(a).into_iter().zip(uids(b)).collect::<Vec<_>>());
        assert_eq!(code("COPYUID 38 304,319:320 3956:3958").copy_uid(3), pairs(&[304, 319, 320], &[3956, 3957, 3958]));
        assert_eq!(code("COPYUID 14  ").copy_uid(1), pairs(&[], &[]));
        for bad in
            ["COPYUID 1 1:2 3", "COPYUID 1 1:4294967295 1:4294967295", "COPYUID x", "COPYUID 1 0 5", "COPYUID 1 1"]
        {
            assert_eq!(code(bad).copy_uid(9), None, "{bad}");
        }
        assert_eq!(code("APPENDUID 7 3:5").append_uid(3), Some((7, uids(&[3, 4, 5]))));
        assert_eq!(code("APPENDUID 7 3:5").append_uid(2), None);
        assert_eq!(code("APPENDUID 7 18446744073709551615").append_uid(1), None);
        assert_eq!(code("MODIFIED 7,9").set(), Some(set("7,9")));
    }

    #[test]
    fn odd_lines_are_understood() {
        let list = |line: &[u8]| match data(line) {
            Data::List(l) => l.name,
            other => panic!("{other:?}"),
        };
        assert_eq!(list(br#"* LIST (\HasNoChildren) "/" "a\"b\\c""#), br#"a"b\c"#);
        assert_eq!(list(b"* LIST () \"/\" {5}\r\na\xff(\rb"), b"a\xff(\rb");
        assert_eq!(list(b"* LIST () NIL two words\there"), b"two words\there");
        assert_eq!(list(b"* LIST () \"/\" a (\"CHILDINFO\" (\"SUBSCRIBED\"))"), b"a");
        assert_eq!(data(b"* LIST () \"/\" "), Data::Broken);

        let Data::Status(status) = data(b"* STATUS Inbox (MESSAGES 1 MAILBOXID (F1) UIDNEXT 2 ) ") else { panic!() };
        assert_eq!((status.item("MESSAGES"), status.item("UIDNEXT"), status.item("X")), (Some(1), Some(2), None));
        assert_eq!(data(b"* STATUS x (MESSAGES -1)"), Data::Broken);

        assert_eq!(data(b"* SEARCH 2 84  882 (MODSEQ 917162500)"), Data::Search(set("2,84,882")));
        assert_eq!(data(b"* SEARCH"), Data::Search(UidSet::default()));
        assert_eq!(data(b"* SEARCH 0"), Data::Broken);
        assert_eq!(data(b"* ESEARCH (TAG \"A1\") UID COUNT 3 ALL 1:2,9"), Data::Search(set("1:2,9")));
        assert_eq!(data(b"* ESEARCH (TAG \"A1\") UID"), Data::Search(UidSet::default()));
        assert_eq!(data(b"* VANISHED (EARLIER) 5,1:3"), Data::Vanished { earlier: true, uids: set("1:3,5") });
        assert_eq!(data(b"* VANISHED 4294967296"), Data::Broken);
        assert_eq!(data(b"* 99999999999 EXISTS"), Data::Broken);
        assert_eq!(data(b"* 1 RECENT"), Data::Other);
        assert!(matches!(data(b"[COPYUID 55 31 6]"), Data::BareCode(code) if code.is("COPYUID")));
        assert_eq!(
            data(b"* CAPABILITY  IMAP4rev2 auth=PLAIN"),
            Data::Capability(vec!["IMAP4REV2".into(), "AUTH=PLAIN".into()])
        );
        let Data::Namespace([own, others, shared]) =
            data(br##"* NAMESPACE (("INBOX." ".")("#mh/" "/" "X-PARAM" ("a" "b"))) (("~" "/")) NIL"##)
        else {
            panic!()
        };
        assert_eq!(own, [(b"INBOX.".to_vec(), Some(b'.')), (b"#mh/".to_vec(), Some(b'/'))]);
        assert_eq!((others.len(), shared.len()), (1, 0));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(
            head in "(\\* )?(LIST|STATUS|SEARCH|ESEARCH|VANISHED|NAMESPACE|[0-9]+ FETCH|\\[COPYUID|\\[APPENDUID)? ?",
            tail in prop::collection::vec(prop::sample::select(&b"()[]{}\"\\ :,0129NILa\xff\r\n+*"[..]), 0..40),
        ) {
            let line = [head.as_bytes(), &tail].concat();
            let _ = data(&line);
            let (code, _) = Code::split(&line);
            let _ = (code.copy_uid(5), code.append_uid(5), code.set(), code.number(), code.words());
        }
    }

    /// Ten times as much takes about ten times as long, and not a hundred times.
    #[test]
    fn a_search_line_of_4_mb_in_any_order_is_read_at_once() {
        let cost = |count: u64| {
            let mut line = b"* SEARCH".to_vec();
            // A permutation: 7919 has no factor in common with either count.
            (0..count).for_each(|i| line.extend_from_slice(format!(" {}", i * 7919 % count + 1).as_bytes()));
            let begin = crate::imap::tests::cpu();
            assert_eq!(data(&line), Data::Search(set(&format!("1:{count}"))));
            (crate::imap::tests::cpu() - begin).as_secs_f64()
        };
        let (small, large) = (cost(50_000), cost(500_000));
        assert!(large < 40.0 * small, "{small} s, {large} s");
    }
}
