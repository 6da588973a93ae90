//! What is asked of an authorization server, and what its answers mean (RFC 6749, RFC 7636, RFC 8628).

use std::fmt;
use std::time::Duration;

use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, Client, ClientId, CsrfToken, DeviceAuthorizationUrl, DeviceCodeErrorResponse,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, ErrorResponse, ExtraTokenFields, HttpRequest, HttpResponse,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, Scope,
    StandardDeviceAuthorizationResponse, StandardRevocableToken, StandardTokenResponse, TokenResponse, TokenUrl,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::error::words;
use super::http::{Http, HttpError};
use super::name::login_name;
use crate::model::Secret;

/// What is assumed of a token whose lifetime the server does not tell (RFC 6749 §5.1): that of Outlook.com.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// A server that asks to be polled faster is not taken at its word.
const SHORTEST_POLL: Duration = Duration::from_secs(1);

/// What an authorization server handed out.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) access: Secret,
    /// How long the access token is good for, from when it was asked for.
    pub(super) lifetime: Duration,
    /// The refresh token, if there is a new one.
    pub(super) refresh: Option<Secret>,
    /// The login name, if the server told.
    pub(super) name: Option<String>,
}

/// Why an authorization server handed out nothing; its words are fit to be shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Problem {
    /// It cannot be reached, is not well, or asks to come back later.
    Later(String, Option<Duration>),
    /// What was shown to it is no longer good.
    Ended(String),
    /// Microsoft has restricted the user.
    Restricted(String),
    /// The user said no.
    Declined(String),
    /// The user took too long.
    TooLate,
    /// It does not accept how it was asked.
    Refused(String),
}

/// What a device shows to its user (RFC 8628 §3.3).
pub(super) struct Device {
    answer: StandardDeviceAuthorizationResponse,
}

impl Device {
    pub(super) fn address(&self) -> String {
        words(self.answer.verification_uri(), &[])
    }

    pub(super) fn code(&self) -> String {
        words(self.answer.user_code().secret(), &[])
    }

    pub(super) fn lifetime(&self) -> Duration {
        self.answer.expires_in()
    }
}

/// What is to be remembered of a browser that was sent away.
pub(super) struct Journey {
    /// Where the browser is sent.
    pub(super) address: String,
    /// What it must bring back.
    pub(super) state: Secret,
    /// What proves that the code is asked for by who sent it.
    verifier: PkceCodeVerifier,
}

/// What of OpenID Connect is of use: who the user is.
#[derive(Clone, Serialize, Deserialize)]
struct Extra {
    #[serde(default, skip_serializing)]
    id_token: Option<String>,
}

/// Who the user is, is nobody's business.
impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Extra")
    }
}

impl ExtraTokenFields for Extra {}

type Answer = StandardTokenResponse<Extra, BasicTokenType>;
type Asker = Client<
    BasicErrorResponse,
    Answer,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointMaybeSet,
    EndpointMaybeSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// An authorization server, and who asks it for what.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    asker: Asker,
    scopes: Vec<Scope>,
    http: Http,
    host: String,
}

impl Grant {
    /// Makes one that asks under `client_id` for `scope`.
    ///
    /// # Errors
    /// What is wrong with an address.
    pub(super) fn new(client_id: &str, oauth: &crate::config::OAuth, http: Http) -> Result<Self, String> {
        let wrong = |error: oauth2::url::ParseError| format!("an address of [oauth] cannot be used: {error}");
        let token_url = TokenUrl::new(oauth.token_url.clone()).map_err(wrong)?;
        let authorize_url = oauth.authorize_url.clone().map(AuthUrl::new).transpose().map_err(wrong)?;
        let device_url = oauth.device_url.clone().map(DeviceAuthorizationUrl::new).transpose().map_err(wrong)?;
        let host = token_url.url().host_str().unwrap_or_default().to_owned();
        let asker = Client::new(ClientId::new(client_id.to_owned()))
            .set_auth_type(AuthType::RequestBody)
            .set_auth_uri_option(authorize_url)
            .set_device_authorization_url_option(device_url)
            .set_token_uri(token_url);
        let scopes = oauth.scope.split_whitespace().map(|scope| Scope::new(scope.to_owned())).collect();
        Ok(Self { asker, scopes, http, host })
    }

    /// Returns by how many seconds the server's clock was ahead of ours in its last answer, if it told.
    pub(super) fn clock_ahead(&self) -> Option<i64> {
        self.http.clock_ahead()
    }

    /// Returns the host that hands out tokens.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Returns where to send the browser, which then comes back to `redirect`; nothing if there is no such address.
    pub(super) fn send_away(&self, redirect: &str, hint: &str) -> Option<Journey> {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let request = self.asker.authorize_url(CsrfToken::new_random).ok()?;
        let redirect = RedirectUrl::new(redirect.to_owned()).ok()?;
        let (address, state) = request
            .add_scopes(self.scopes.clone())
            .set_pkce_challenge(challenge)
            .set_redirect_uri(std::borrow::Cow::Owned(redirect))
            // OpenID Connect Core §3.1.2.1; a server that does not know it ignores it.
            .add_extra_param("login_hint", hint.to_owned())
            .url();
        Some(Journey { address: address.into(), state: Secret::new(state.into_secret()), verifier })
    }

    /// Asks for tokens for the code that the browser brought (RFC 6749 §4.1.3).
    ///
    /// # Errors
    /// [`Problem`].
    pub(super) async fn exchange(&self, code: &Secret, journey: Journey, redirect: &str) -> Result<Tokens, Problem> {
        let redirect = RedirectUrl::new(redirect.to_owned()).map_err(|error| Problem::Refused(error.to_string()))?;
        let answer = self
            .asker
            .exchange_code(AuthorizationCode::new(code.expose().to_owned()))
            .set_pkce_verifier(journey.verifier)
            .set_redirect_uri(std::borrow::Cow::Owned(redirect))
            .request_async(&|request| self.call(request))
            .await;
        answer.map(tokens).map_err(|error| problem(error, &[code]))
    }

    /// Asks for a code that the user can type in elsewhere (RFC 8628 §3.1); nothing if there is no such address.
    ///
    /// # Errors
    /// [`Problem`].
    pub(super) async fn device(&self) -> Result<Option<Device>, Problem> {
        let Ok(request) = self.asker.exchange_device_code() else { return Ok(None) };
        let request = request.add_scopes(self.scopes.clone());
        let answer = request.request_async(&|request| self.call(request)).await;
        answer.map(|answer| Some(Device { answer })).map_err(|error| problem(error, &[]))
    }

    /// Asks until the user has typed the code in (RFC 8628 §3.4, §3.5); waits by `sleep`.
    ///
    /// # Errors
    /// [`Problem`].
    pub(super) async fn poll<S: Future<Output = ()>>(
        &self,
        device: &Device,
        sleep: impl Fn(Duration) -> S,
    ) -> Result<Tokens, Problem> {
        let secret = Secret::new(device.answer.device_code().secret().clone());
        // The first question comes no sooner than the others: nobody types that fast.
        sleep(device.answer.interval().max(SHORTEST_POLL)).await;
        let answer = self
            .asker
            .exchange_device_access_token(&device.answer)
            .request_async(&|request| self.call(request), |pause| sleep(pause.max(SHORTEST_POLL)), None)
            .await;
        answer.map(tokens).map_err(|error| device_problem(error, &secret))
    }

    /// Asks for new tokens (RFC 6749 §6). Blocks.
    ///
    /// # Errors
    /// [`Problem`].
    pub(super) fn refresh(&self, token: &Secret) -> Result<Tokens, Problem> {
        let refresh_token = RefreshToken::new(token.expose().to_owned());
        let answer = self
            .asker
            .exchange_refresh_token(&refresh_token)
            // Microsoft hands out tokens for whatever is asked for last.
            .add_scopes(self.scopes.clone())
            .request(&|request| self.http.call(request));
        answer.map(tokens).map_err(|error| problem(error, &[token]))
    }

    /// Sends a request from a thread that nobody waits for: Ctrl-C does not wait for an answer.
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (sender, answer) = oneshot::channel();
        let http = self.http.clone();
        let work = move || drop(sender.send(http.call(request)));
        let thread = std::thread::Builder::new().name("sign-in".to_owned()).spawn(work);
        thread.map_err(|error| HttpError::Unreachable(format!("no thread can be started: {error}")))?;
        answer.await.unwrap_or_else(|_| Err(HttpError::Unreachable("the request ended unexpectedly".to_owned())))
    }
}

fn tokens(answer: Answer) -> Tokens {
    Tokens {
        access: Secret::new(answer.access_token().secret().clone()),
        lifetime: answer.expires_in().unwrap_or(LIFETIME),
        refresh: answer.refresh_token().map(|token| Secret::new(token.secret().clone())),
        name: answer.extra_fields().id_token.as_deref().and_then(login_name),
    }
}

fn problem(error: RequestTokenError<HttpError, BasicErrorResponse>, secrets: &[&Secret]) -> Problem {
    match error {
        RequestTokenError::ServerResponse(answer) => {
            meaning(answer.error().as_ref(), answer.error_description().map_or("", String::as_str), secrets)
        }
        error => no_answer(error),
    }
}

fn device_problem(error: RequestTokenError<HttpError, DeviceCodeErrorResponse>, secret: &Secret) -> Problem {
    match error {
        RequestTokenError::ServerResponse(answer) => {
            let code = answer.error().to_string();
            meaning(&code, answer.error_description().map_or("", String::as_str), &[secret])
        }
        error => no_answer(error),
    }
}

/// Says why there is no answer of OAuth. Of one that cannot be read nothing is told: there may be tokens in it.
fn no_answer<T: ErrorResponse + 'static>(error: RequestTokenError<HttpError, T>) -> Problem {
    match error {
        RequestTokenError::Request(error @ HttpError::Unwell { pause, .. }) => Problem::Later(error.to_string(), pause),
        RequestTokenError::Request(error) => Problem::Later(error.to_string(), None),
        _ => Problem::Later("its answer makes no sense".to_owned(), None),
    }
}

/// Returns what an error of the server means (RFC 6749 §5.2, RFC 8628 §3.5, OpenID Connect Core §3.1.2.6).
fn meaning(code: &str, description: &str, secrets: &[&Secret]) -> Problem {
    let said = words(&if description.is_empty() { code.to_owned() } else { format!("{code}: {description}") }, secrets);
    match code {
        "temporarily_unavailable" | "server_error" | "slow_down" => Problem::Later(said, None),
        // AADSTS70000 is also what a refresh token gets that is merely too old; only the words tell.
        "invalid_grant" if description.contains("service abuse mode") => Problem::Restricted(said),
        "invalid_grant" | "interaction_required" | "login_required" | "consent_required" => Problem::Ended(said),
        "access_denied" | "authorization_declined" => Problem::Declined(said),
        "expired_token" | "code_expired" => Problem::TooLate,
        _ => Problem::Refused(said),
    }
}

/// Returns what the error that a browser brought back means (RFC 6749 §4.1.2.1).
pub(super) fn meaning_of_visit(code: &str, description: &str) -> Problem {
    meaning(code, description, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        let abuse = "AADSTS70000: User account is found to be in service abuse mode.";
        let old = "AADSTS70000: The provided value for the input parameter 'refresh_token' is not valid.";
        let said = |code: &str, text: &str| format!("{code}: {text}");
        let rows = [
            ("invalid_grant", old, Problem::Ended(said("invalid_grant", old))),
            ("invalid_grant", "", Problem::Ended("invalid_grant".to_owned())),
            ("invalid_grant", abuse, Problem::Restricted(said("invalid_grant", abuse))),
            ("interaction_required", "x", Problem::Ended(said("interaction_required", "x"))),
            ("temporarily_unavailable", "x", Problem::Later(said("temporarily_unavailable", "x"), None)),
            ("server_error", "", Problem::Later("server_error".to_owned(), None)),
            ("access_denied", "no", Problem::Declined(said("access_denied", "no"))),
            ("authorization_declined", "", Problem::Declined("authorization_declined".to_owned())),
            ("expired_token", "x", Problem::TooLate),
            ("invalid_client", "AADSTS7000218: x", Problem::Refused(said("invalid_client", "AADSTS7000218: x"))),
            ("unheard_of", "", Problem::Refused("unheard_of".to_owned())),
        ];
        for (code, description, problem) in rows {
            assert_eq!(meaning(code, description, &[]), problem, "{code} {description}");
        }
    }
}
