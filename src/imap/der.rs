//! Finds the public key in a certificate, which is all that a pin needs of X.509.

/// Returns the SubjectPublicKeyInfo of a DER certificate (RFC 5280 §4.1), header included.
pub(super) fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let outer = element(certificate).filter(|e| e.tag == SEQUENCE)?;
    let signed = element(outer.content).filter(|e| e.tag == SEQUENCE)?;
    let mut rest = signed.content;
    let first = element(rest)?;
    if first.tag == VERSION {
        rest = first.rest;
    }
    // Serial number, signature algorithm, issuer, validity, subject.
    for _ in 0..5 {
        rest = element(rest)?.rest;
    }
    element(rest).filter(|e| e.tag == SEQUENCE).map(|key| &rest[..rest.len() - key.rest.len()])
}

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    rest: &'a [u8],
}

/// Splits off the first element (X.690 §8.1): tag, definite length, content.
fn element(der: &[u8]) -> Option<Element<'_>> {
    let (&[tag, short], mut rest) = der.split_first_chunk::<2>()?;
    let mut length = usize::from(short);
    if short & 0x80 != 0 {
        let (digits, after) =
            rest.split_at_checked(usize::from(short & 0x7f)).filter(|(d, _)| (1..=4).contains(&d.len()))?;
        length = digits.iter().fold(0, |n, digit| n << 8 | usize::from(*digit));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some(Element { tag, content, rest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut child = Command::new("openssl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "openssl {args:?}");
        output.stdout
    }

    #[test]
    fn the_key_is_the_one_that_openssl_finds() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key").display().to_string();
        for algorithm in [&["-newkey", "rsa:2048"][..], &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]] {
            let mut args = vec!["req", "-x509", "-nodes", "-keyout", &key, "-subj", "/CN=localhost", "-days", "1"];
            args.extend(algorithm);
            let pem = openssl(&args, b"");
            let der = openssl(&["x509", "-outform", "der"], &pem);
            let public = openssl(&["x509", "-pubkey", "-noout"], &pem);
            assert_eq!(public_key(&der).unwrap(), openssl(&["pkey", "-pubin", "-outform", "der"], &public));
            // Cut anywhere, or with any byte changed, it is refused or some part of the input, never a panic.
            for at in 0..der.len() {
                assert_eq!(public_key(&der[..at]), None);
                let mut bent = der.clone();
                bent[at] ^= 0xff;
                let _ = public_key(&bent);
            }
        }
    }
}
