//! The exchange of AUTHENTICATE.

use std::time::Duration;

use crate::State;
use crate::lex;
use crate::session::{Closed, Session};

impl Session {
    /// Reads the client's part of a sign-in, and signs it in if that is right.
    pub(crate) async fn authenticate(
        &mut self,
        tag: &str,
        mechanism: &str,
        initial: Option<Vec<u8>>,
    ) -> Result<(), Closed> {
        let response = match initial {
            _ if self.context.logged_in => Err("signed in already".to_owned()),
            Some(response) => Ok(response),
            None => {
                self.send(b"+ \r\n").await?;
                lex::base64(&self.line().await?)
            }
        };
        let response = match response {
            Ok(response) => response,
            Err(reason) => {
                self.violation(&format!("AUTHENTICATE {mechanism}: {reason}"));
                self.send(format!("{tag} BAD {reason}\r\n").as_bytes()).await?;
                return Err(Closed);
            }
        };
        let accepted = accepts(&self.shared.lock().state, mechanism, &response);
        self.context.logged_in = accepted.is_some();
        self.ends = accepted.flatten();
        // Google explains first, which the client acknowledges before it is told NO; Microsoft says NO at once.
        if !self.context.logged_in && mechanism == "XOAUTH2" && !self.profile.is_exchange() {
            // {"status":"400"}
            self.send(b"+ eyJzdGF0dXMiOiI0MDAifQ==\r\n").await?;
            if !self.line().await?.is_empty() {
                self.violation("the challenge after a refused token was not answered with an empty line");
            }
        }
        Ok(())
    }
}

/// Tells whether the response to a SASL challenge signs in (RFC 4616; XOAUTH2 as Google and Microsoft document it), and
/// when that ends.
fn accepts(state: &State, mechanism: &str, response: &[u8]) -> Option<Option<Duration>> {
    let text = std::str::from_utf8(response).ok()?;
    if mechanism == "XOAUTH2" {
        let (user, token) = text.strip_suffix("\x01\x01")?.strip_prefix("user=")?.split_once("\x01auth=Bearer ")?;
        return state.token_is_good(user, token);
    }
    let mut parts = text.split('\0').skip(1);
    let (user, password) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let good = state.quirks.basic_auth && state.users.get(user).is_some_and(|p| p == password);
    good.then_some(None)
}
