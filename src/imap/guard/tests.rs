use std::io::Read;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::super::wire::{Answer, Wire};
use super::*;

/// Gives its bytes in chunks of these sizes, over and over, and then ends.
#[derive(Debug)]
struct Chunks {
    bytes: Vec<u8>,
    at: usize,
    sizes: Vec<usize>,
    turn: usize,
}

impl AsyncRead for Chunks {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let size = self.sizes[self.turn % self.sizes.len()].min(buf.remaining()).min(self.bytes.len() - self.at);
        buf.put_slice(&self.bytes[self.at..self.at + size]);
        self.at += size;
        self.turn += 1;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Chunks {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn guard(bytes: &[u8], sizes: &[usize]) -> Guard<Chunks> {
    let stream = Chunks { bytes: bytes.to_vec(), at: 0, sizes: sizes.to_vec(), turn: 0 };
    let mut guard = Guard::new(stream, &std::env::temp_dir(), 64 << 20);
    guard.signed_in();
    guard
}

/// The skeletons, what is beside each, and what ended it.
type Let = (String, Vec<(String, Vec<Vec<u8>>)>, String);

async fn through(bytes: &[u8], sizes: &[usize]) -> Let {
    let mut guard = guard(bytes, sizes);
    let (mut skeletons, mut block) = (Vec::new(), [0; 4096]);
    while let Ok(count) = guard.read(&mut block).await {
        skeletons.extend_from_slice(&block[..count]);
    }
    let content = |body: Body| match body {
        Body::Memory(bytes) => bytes,
        Body::File(mut file, length) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, length);
            bytes
        }
        Body::Nothing => Vec::new(),
    };
    let beside = std::mem::take(&mut guard.beside)
        .into_iter()
        .map(|b| (b.line.escape_ascii().to_string(), b.literals.into_iter().map(content).collect()));
    (skeletons.escape_ascii().to_string(), beside.collect(), format!("{:?}", guard.take_fault()))
}

/// What one answer becomes: skeleton, line beside.
async fn one(answer: &[u8]) -> (String, String) {
    let (skeleton, beside, fault) = through(&[answer, b"\r\n"].concat(), &[usize::MAX]).await;
    assert_eq!((beside.len(), fault.as_str()), (1, "Some(Ended)"), "{}", answer.escape_ascii());
    (skeleton.trim_end_matches("\\r\\n").to_owned(), beside[0].0.clone())
}

#[tokio::test]
async fn only_skeletons_come_through() {
    let raw = "* OK [X-RAW]";
    let table: [(&[u8], &str, &str); 23] = [
        (b"* OK [ALERT]\xc3\xa9", "* OK", r"[ALERT]\xc3\xa9"),
        (b"* OK [X-RAW] not ours", "* OK", "[X-RAW] not ours"),
        (b"* bye", "* bye", ""),
        (b"A1 NO [TOOBIG] text {5}", "A1 NO", "[TOOBIG] text {5}"),
        (b"A1 OK", "A1 OK", ""),
        (b"[COPYUID 55 31 6]", raw, "[COPYUID 55 31 6]"),
        (b"Server Unavailable. 15", raw, "Server Unavailable. 15"),
        (b"+", "+ ", ""),
        (b"+ aGk= {3}", "+ ", ""),
        (b"* 5 EXISTS", "* 5 EXISTS", ""),
        (b"* 99999999999 EXISTS", raw, "* 99999999999 EXISTS"),
        (b"* NAMESPACE NIL NIL NIL", raw, "* NAMESPACE NIL NIL NIL"),
        (b"* 1 FETCH (UID 1 FLAGS (\\Seen))", r"* 1 FETCH (UID 1 FLAGS (\\Seen))", ""),
        (b"* 1 FETCH (INTERNALDATE NIL UID 1)", r#"* 1 FETCH (INTERNALDATE \"\" UID 1)"#, ""),
        (b"* 1 FETCH (internaldate nil)", r#"* 1 FETCH (internaldate \"\")"#, ""),
        (b"* 1 FETCH (UID 1 BODY[] \"(INTERNALDATE NIL\")", r"* 1 FETCH (UID 1 BODY[] {3}\r\n\x0000)", ""),
        (b"* 1 FETCH (X \"(INTERNALDATE NIL\")", r#"* 1 FETCH (X \"(INTERNALDATE NIL\")"#, ""),
        (b"* 1 FETCH (UID 0)", raw, "* 1 FETCH (UID 0)"),
        (b"* 1 FETCH (UID 4294967296)", raw, "* 1 FETCH (UID 4294967296)"),
        (b"* 1 FETCH  (UID  1)", raw, "* 1 FETCH  (UID  1)"),
        (b"* 1 FETCH (X (never closed", raw, "* 1 FETCH (X (never closed"),
        (b"* 1 FETCH", raw, "* 1 FETCH"),
        (b"", raw, ""),
    ];
    for (answer, skeleton, beside) in table {
        assert_eq!(one(answer).await, (skeleton.to_owned(), beside.to_owned()));
    }
    let deep = |n: usize| format!("* 1 FETCH (BODYSTRUCTURE {}{})", "(".repeat(n), ")".repeat(n)).into_bytes();
    assert_eq!(one(&deep(200_000)).await.0, raw);
    let (_, beside, _) = through(b"* 1 FETCH (BODY[]<0> {1}\r\na BODY[HEADER] \"q\\\"x\" X \"y\")\r\n", &[1]).await;
    assert_eq!(beside[0].1, [b"a".to_vec(), b"q\"x".to_vec()]);
    assert_eq!(one(format!("* 1 FETCH (X \"{}\")", "x".repeat(70_000)).as_bytes()).await.0, raw);
}

#[tokio::test]
async fn literals_are_taken_out() {
    let answer = b"* 1 FETCH (UID 7 BODY[HEADER] {0}\r\n BODY[] ~{5+}\r\na\0)\r\n X \"{3}\")\r\n\
        * LIST () \"/\" {3}\r\n\r\n{\r\n";
    let (skeletons, beside, fault) = through(answer, &[1]).await;
    let expected = r#"* 1 FETCH (UID 7 BODY[HEADER] {3}\r\n\x0000 BODY[] {3}\r\n\x0001 X \"{3}\")\r\n* OK [X-RAW]\r\n"#;
    assert_eq!(skeletons, expected);
    assert_eq!(beside[0], (String::new(), vec![b"".to_vec(), b"a\0)\r\n".to_vec()]));
    assert_eq!(beside[1].0, r#"* LIST () \"/\" {3}\r\n\r\n{"#);
    assert_eq!(fault, "Some(Ended)");
}

#[tokio::test]
async fn limits_name_what_is_too_much() {
    let table: [(&[u8], &str); 6] = [
        (b"* 1 FETCH (UID 9 BODY[] {4294967296}\r\n", "Some(TooLarge { uid: Some(9), size: 4294967296 })"),
        (b"* 1 FETCH (BODY[] {99999999999999999999}\r\n", "Some(TooLarge { uid: None, size: 18446744073709551615 })"),
        (b"* LIST () NIL {65537}\r\n", "Some(Limit(\"a literal outside of a message is too long\"))"),
        (b"* 1 FETCH (BODY[] {10}\r\nshort", "Some(Ended)"),
        (b"* 1 FET", "Some(Ended)"),
        (b"", "Some(Ended)"),
    ];
    for (bytes, fault) in table {
        assert_eq!(through(bytes, &[usize::MAX]).await.2, fault);
    }
    assert_eq!(through(&vec![b'x'; MAX_LINE + 1], &[usize::MAX]).await.2, "Some(Limit(\"a line is too long\"))");
    let many = format!("* 1 FETCH ({})\r\n", "X {1}\r\nx ".repeat(MAX_LITERALS + 1));
    assert_eq!(through(many.as_bytes(), &[9]).await.2, "Some(Limit(\"a message has too many literals\"))");

    let mut stranger = guard(&vec![b'x'; MAX_LINE_BEFORE_SIGN_IN + 1], &[usize::MAX]);
    stranger.signed_in = false;
    assert!(stranger.read_u8().await.is_err());
    assert!(matches!(stranger.take_fault(), Some(Fault::Limit(_))));
    let mut stranger = guard(b"* 1 FETCH (BODY[] {65537}\r\n", &[usize::MAX]);
    stranger.signed_in = false;
    assert!(stranger.read_u8().await.is_err());
    assert!(matches!(stranger.take_fault(), Some(Fault::Limit(_))));
}

#[tokio::test]
async fn large_bodies_wait_in_files() {
    let size = usize::try_from(MAX_MEMORY).unwrap();
    let answer = |n: usize| [format!("* 1 FETCH (BODY[] {{{n}}}\r\n").as_bytes(), &vec![b'z'; n], b")\r\n"].concat();
    for (n, in_file) in [(size, false), (size + 1, true)] {
        let mut guard = guard(&answer(n), &[10_000]);
        guard.read_u8().await.unwrap();
        let body = guard.take_beside().literals.remove(0);
        assert_eq!((matches!(body, Body::File(..)), body.len()), (in_file, n as u64));
    }
    let mut guard = guard(&answer(size + 1), &[10_000]);
    guard.spool_dir = "/nonexistent".into();
    assert!(guard.read_u8().await.is_err());
    assert!(matches!(guard.take_fault(), Some(Fault::Spool(_))));
    // No file has a name.
    let dir = tempfile::tempdir().unwrap();
    let _file = unnamed_file(dir.path()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"* 12 FETCH (UID 5 FLAGS (\\Seen a) INTERNALDATE NIL)\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|body| {
            [format!("* 1 FETCH (UID 1 BODY[] {{{}}}\r\n", body.len()).as_bytes(), &body, b" FLAGS ())\r\n"].concat()
        }),
        Just(b"* LIST () \"/\" {2}\r\n{9 (X)\r\nA3 OK [COPYUID 1  ] x\r\n+ go\r\n* 3 EXISTS\r\n".to_vec()),
        prop::collection::vec(prop::sample::select(&b"* FETCH(){}[]\"\\\r\n0129UIDBODY+~\0\xff\xc3OKNOA"[..]), 0..30),
        Just(b"\r\n".to_vec()),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

proptest! {
    #[test]
    fn how_bytes_are_cut_does_not_matter(bytes in answers(), sizes in prop::collection::vec(1usize..9, 1..5)) {
        block_on(async {
            let whole = through(&bytes, &[usize::MAX]).await;
            prop_assert_eq!(&whole, &through(&bytes, &[1]).await);
            prop_assert_eq!(&whole, &through(&bytes, &sizes).await);
            Ok(())
        })?;
    }

    #[test]
    fn each_skeleton_is_one_answer_to_async_imap(bytes in answers(), sizes in prop::collection::vec(1usize..99, 1..5)) {
        block_on(async {
            let (_, beside, _) = through(&bytes, &sizes).await;
            let stream = Chunks { bytes, at: 0, sizes, turn: 0 };
            let mut guard: Guard<super::super::wire::Stream> =
                Guard::new(Box::new(stream), &std::env::temp_dir(), 64 << 20);
            guard.signed_in();
            let mut wire = Wire::new(guard, Duration::from_secs(9), 64 << 20);
            let mut count = 0;
            while let Ok(answer) = wire.next().await {
                // An answer with something beside it, and only such, is not made of its skeleton alone.
                let said = matches!(answer, Answer::Fetch(_) | Answer::Exists(_) | Answer::Expunge);
                prop_assert!(!said || beside[count].0.is_empty());
                count += 1;
            }
            prop_assert_eq!(count, beside.len());
            Ok(())
        })?;
    }
}
