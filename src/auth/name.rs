//! Reads the login name out of an id_token (OpenID Connect Core §2).
//!
//! Its signature is not checked: it comes from the token endpoint itself, over TLS (§3.1.3.7, 6), and is only a name.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::model::misleads;

/// Longer than any address (RFC 5321 §4.5.3.1) is no name.
const MOST_BYTES: usize = 320;

#[derive(Deserialize)]
struct Claims {
    preferred_username: Option<String>,
    email: Option<String>,
}

/// Returns the name that the server knows the user by, if the token says it: at Microsoft the one to sign in to the
/// mailbox with, which may differ from the address.
pub(super) fn login_name(id_token: &str) -> Option<String> {
    let payload = id_token.split('.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&json).ok()?;
    [claims.preferred_username, claims.email].into_iter().flatten().find(|name| is_plain(name))
}

/// The name becomes part of a SASL message whose fields end at control characters, and is shown.
pub(super) fn is_plain(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= MOST_BYTES && !name.chars().any(misleads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let rows = [
            (token(r#"{"preferred_username":"a@outlook.com","email":"b@example.org"}"#), Some("a@outlook.com")),
            (token(r#"{"email":"b@example.org","tid":"9188040d"}"#), Some("b@example.org")),
            (token(r#"{"preferred_username":"","email":"b@example.org"}"#), Some("b@example.org")),
            (token(r#"{"preferred_username":"a\u0001auth=Bearer x","email":"b@example.org"}"#), Some("b@example.org")),
            (token(r#"{"preferred_username":"a\u202eb"}"#), None),
            (token(&format!(r#"{{"email":"{}"}}"#, "x".repeat(321))), None),
            (token(r#"{"preferred_username":7}"#), None),
            (token("{}"), None),
            ("e30.!!.c2ln".to_owned(), None),
            ("opaque".to_owned(), None),
        ];
        for (token, name) in rows {
            assert_eq!(login_name(&token).as_deref(), name, "{token}");
        }
    }
}
