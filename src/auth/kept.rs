//! What is kept of a sign-in between runs: the refresh token, for whom it is, and who hands out access tokens for it.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::model::Secret;

/// What is kept of a sign-in.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The id under which the program was registered; the token is of no use under another.
    pub(super) client_id: String,
    /// Who takes the token; it is sent nowhere else.
    pub(super) token_url: String,
    /// The name that the server knows the user by, if it told.
    pub(super) username: Option<String>,
    /// The refresh token (RFC 6749 §1.5).
    pub(super) refresh_token: Secret,
}

#[derive(Serialize, Deserialize)]
struct Document<'a> {
    version: u32,
    client_id: String,
    token_url: String,
    username: Option<String>,
    refresh_token: std::borrow::Cow<'a, str>,
}

const VERSION: u32 = 1;

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        let all = |kept: &Self| (kept.client_id.clone(), kept.token_url.clone(), kept.username.clone());
        all(self) == all(other) && self.refresh_token.expose() == other.refresh_token.expose()
    }
}

impl Kept {
    /// Returns it as text.
    ///
    /// # Errors
    /// None that can be made to happen, in words.
    pub(super) fn to_text(&self) -> Result<Zeroizing<String>, String> {
        let document = Document {
            version: VERSION,
            client_id: self.client_id.clone(),
            token_url: self.token_url.clone(),
            username: self.username.clone(),
            refresh_token: self.refresh_token.expose().into(),
        };
        // Large enough that it is not moved, which would leave a copy behind.
        let mut bytes = Vec::with_capacity(2 * self.refresh_token.expose().len() + 4096);
        serde_json::to_writer(&mut bytes, &document).map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map(Zeroizing::new).map_err(|_| "it is not UTF-8".to_owned())
    }

    /// Reads what [`Self::to_text`] gave.
    ///
    /// # Errors
    /// What is wrong with the text, without a word of it.
    pub(super) fn from_text(text: &str) -> Result<Self, &'static str> {
        let document: Document<'_> =
            serde_json::from_str(text).map_err(|_| "it is not what postkeep writes, or only a part of it")?;
        if document.version != VERSION {
            return Err("another version of postkeep wrote it");
        }
        if document.refresh_token.is_empty() {
            return Err("there is no token in it");
        }
        let Document { client_id, token_url, username, refresh_token, .. } = document;
        let username = username.filter(|name| super::name::is_plain(name));
        Ok(Self { client_id, token_url, username, refresh_token: Secret::new(refresh_token.into_owned()) })
    }
}

#[cfg(test)]
pub(super) fn sample(refresh_token: &str) -> Kept {
    Kept {
        client_id: "id".to_owned(),
        token_url: "https://sign-in.example/token".to_owned(),
        username: Some("a@outlook.com".to_owned()),
        refresh_token: Secret::new(refresh_token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let text = sample("M.C5\"\\\n").to_text().unwrap();
        let kept = Kept::from_text(&text).unwrap();
        assert_eq!(kept.refresh_token.expose(), "M.C5\"\\\n");
        assert_eq!((kept.client_id.as_str(), kept.username.as_deref()), ("id", Some("a@outlook.com")));
        assert_eq!(kept.token_url, "https://sign-in.example/token");
        assert!(!format!("{kept:?}").contains("M.C5"));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        let whole = sample("hunter2").to_text().unwrap().to_string();
        let rows = [
            (String::new(), "only a part of it"),
            (whole[..whole.len() - 3].to_owned(), "only a part of it"),
            (whole.replace(":1,", ":2,"), "another version"),
            (whole.replace("hunter2", ""), "no token"),
            (whole.replace(":1,", ":\"hunter2\","), "not what postkeep writes"),
        ];
        for (text, why) in rows {
            let error = Kept::from_text(&text).unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
        }
    }
}
