//! What the sign-in service knows: users, codes, tokens, devices; and what it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::http::{HttpRequest, Response, encoded};
use crate::{Grant, State};

/// The tenant of all personal accounts.
pub const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
/// The permission that a token needs for IMAP.
pub const IMAP_SCOPE: &str = "https://outlook.office.com/IMAP.AccessAsUser.All";
/// What is said of a refresh token that has run out or was revoked.
pub const AADSTS_EXPIRED: &str = "AADSTS70000: The provided value for the 'refresh_token' parameter is not valid.";
/// What is said where the account is restricted, which no new sign-in mends.
pub const AADSTS_ABUSE: &str = "AADSTS70000: User account is found to be in service abuse mode.";

/// How long an authorization code is good.
const CODE_LIFE: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What becomes of a device code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceState {
    /// The user has not decided.
    Pending,
    /// The user has signed in.
    Approved,
    /// The user has said no.
    Denied,
    /// The token was given out, which is done once.
    Used,
}

/// A device code that was given out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// What the user types in.
    pub user_code: String,
    /// What the user has decided.
    pub state: DeviceState,
    until: Duration,
    client_id: String,
    scope: String,
}

/// A refresh token that was given out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refresh {
    /// Until when it is good, by the clock of the server.
    pub until: Duration,
    /// Why it is not good any more, as [`AADSTS_EXPIRED`].
    pub revoked: Option<String>,
    client_id: String,
    scope: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Code {
    until: Duration,
    client_id: String,
    redirect_uri: String,
    challenge: String,
    scope: String,
}

/// The state of the sign-in service. There is one user, who signs in by pressing the one button of the page.
#[derive(Clone, Debug)]
pub struct Directory {
    /// The application id that is registered; `None` takes any.
    pub client_id: Option<String>,
    /// The name of the user, which is `preferred_username` in the id_token.
    pub user: String,
    /// `tid` in the id_token.
    pub tenant: String,
    /// How long an access token is good.
    pub expires_in: Duration,
    /// How long a refresh token is good.
    pub refresh_life: Duration,
    /// A refresh token is revoked when it is used, which Microsoft does not do.
    pub strict: bool,
    /// The button of the page says no, with this description.
    pub denial: Option<String>,
    /// The account is restricted: every refresh fails with [`AADSTS_ABUSE`].
    pub abuse: bool,
    /// By how many seconds the clock of the service, in the Date of its answers, is ahead of the machine's.
    pub clock_ahead: i64,
    /// How long a device code is good.
    pub device_life: Duration,
    /// How often to ask for the token of a device, in seconds.
    pub interval: u32,
    /// What the user decides about a device at once.
    pub decides: DeviceState,
    /// The end of every token and code, by which a leak can be found.
    pub mark: String,
    /// The device codes given out.
    pub devices: BTreeMap<String, Device>,
    /// The refresh tokens given out, the newest last.
    pub refresh_tokens: Vec<(String, Refresh)>,
    codes: BTreeMap<String, Code>,
    made: u32,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            client_id: None,
            user: "user@example.com".to_owned(),
            tenant: CONSUMERS.to_owned(),
            expires_in: Duration::from_secs(3600),
            refresh_life: 90 * DAY,
            strict: false,
            denial: None,
            abuse: false,
            clock_ahead: 0,
            device_life: Duration::from_secs(900),
            interval: 5,
            decides: DeviceState::Pending,
            mark: String::new(),
            devices: BTreeMap::new(),
            refresh_tokens: Vec::new(),
            codes: BTreeMap::new(),
            made: 0,
        }
    }
}

impl Directory {
    /// Revokes every refresh token, as a change of the password does.
    pub fn revoke(&mut self) {
        for (_, refresh) in &mut self.refresh_tokens {
            refresh.revoked = Some(AADSTS_EXPIRED.to_owned());
        }
    }

    /// Decides for the user about every device that waits.
    pub fn decide(&mut self, state: DeviceState) {
        self.devices.values_mut().filter(|d| d.state == DeviceState::Pending).for_each(|d| d.state = state);
    }

    /// Answers a request. The tokens that are given out are accepted by `mail` from then on.
    ///
    /// # Errors
    /// With the answer, if the client did what it should not.
    pub(super) fn answer(&mut self, request: &HttpRequest, mail: &mut State) -> Result<Response, (String, Response)> {
        let words: Vec<&str> = request.path.split('/').collect();
        let ["", tenant, "oauth2", "v2.0", endpoint] = words[..] else {
            return Err(("a path that is none".to_owned(), Response::page(404, "<p>Not found</p>")));
        };
        let guid = tenant.len() == 36 && tenant.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if !["consumers", "common", "organizations"].contains(&tenant) && !guid {
            return Err(refused(
                "invalid_request",
                90_002,
                "Tenant not found. Check to make sure you have the correct one.",
            ));
        }
        let personal = self.tenant == CONSUMERS;
        if personal && (tenant == "organizations" || guid && tenant != CONSUMERS) {
            return Err(refused(
                "invalid_request",
                50_020,
                "User account from identity provider 'live.com' does not exist in tenant.",
            ));
        }
        match (endpoint, request.method.as_str()) {
            ("authorize", "GET") => self.page(request),
            ("authorize", "POST") => self.pressed(request, mail.now()),
            ("token", "POST") => self.token(request, mail),
            ("devicecode", "POST") => self.device(request, mail.now()),
            _ => Err(("a method that is not for this".to_owned(), Response::page(405, "<p>Not allowed</p>"))),
        }
    }

    /// Checks what `authorize` is asked for.
    fn asked(&self, request: &HttpRequest) -> Result<(), (String, Response)> {
        let page = |reason: &str| Err((reason.to_owned(), Response::page(400, &format!("<p>{reason}</p>"))));
        for name in ["client_id", "redirect_uri", "scope", "state", "code_challenge"] {
            if request.field(name).is_empty() {
                return page(&format!(
                    "AADSTS900144: The request body must contain the following parameter: '{name}'."
                ));
            }
        }
        if request.field("response_type") != "code" || request.field("code_challenge_method") != "S256" {
            return page("AADSTS90023: response_type must be code and code_challenge_method S256.");
        }
        let uri = request.field("redirect_uri");
        // Of a registered http://localhost any port may be asked for.
        let port = uri.strip_prefix("http://localhost").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let local = port.is_some_and(|p| p.is_empty() || p.strip_prefix(':').is_some_and(|n| n.parse::<u16>().is_ok()));
        if !local {
            return page(&format!(
                "AADSTS50011: The redirect URI '{uri}' does not match the redirect URIs configured."
            ));
        }
        let challenge = URL_SAFE_NO_PAD.decode(request.field("code_challenge"));
        if challenge.map_or(0, |c| c.len()) != 32 {
            return page("AADSTS501491: Invalid size of Code_Challenge parameter.");
        }
        self.known_client(request)
    }

    fn known_client(&self, request: &HttpRequest) -> Result<(), (String, Response)> {
        let id = request.field("client_id");
        if id.is_empty() {
            return Err(refused(
                "invalid_request",
                900_144,
                "The request body must contain the following parameter: 'client_id'.",
            ));
        }
        if self.client_id.as_ref().is_some_and(|own| own != id) {
            return Err(refused("unauthorized_client", 700_016, "Application was not found in the directory."));
        }
        if !request.field("client_secret").is_empty() {
            return Err(refused(
                "invalid_client",
                700_025,
                "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.",
            ));
        }
        Ok(())
    }

    /// Returns the sign-in page: a form with one button.
    fn page(&self, request: &HttpRequest) -> Result<Response, (String, Response)> {
        self.asked(request)?;
        let mut form = format!("<form method=\"post\" action=\"{}\">\n", request.path);
        for (name, value) in &request.fields {
            form += &format!("<input type=\"hidden\" name=\"{}\" value=\"{}\">\n", escaped(name), escaped(value));
        }
        form += &format!("<button type=\"submit\">Sign in as {}</button>\n</form>", escaped(&self.user));
        Ok(Response::page(200, &form))
    }

    /// Answers the press of the button.
    fn pressed(&mut self, request: &HttpRequest, now: Duration) -> Result<Response, (String, Response)> {
        self.asked(request)?;
        let (uri, state) = (request.field("redirect_uri"), encoded(request.field("state")));
        if let Some(why) = &self.denial {
            let why = encoded(why);
            return Ok(Response::redirect(format!("{uri}?error=access_denied&error_description={why}&state={state}")));
        }
        let code = format!("M.C_{}", self.marked(60));
        let kept = Code {
            until: now + CODE_LIFE,
            client_id: request.field("client_id").to_owned(),
            redirect_uri: uri.to_owned(),
            challenge: request.field("code_challenge").to_owned(),
            scope: request.field("scope").to_owned(),
        };
        self.codes.insert(code.clone(), kept);
        Ok(Response::redirect(format!("{uri}?code={}&state={state}", encoded(&code))))
    }

    fn device(&mut self, request: &HttpRequest, now: Duration) -> Result<Response, (String, Response)> {
        self.known_client(request)?;
        self.one_resource(request.field("scope"))?;
        let code = self.marked(120);
        let user_code = self.secret(9).to_ascii_uppercase().replace(['-', '_'], "X");
        let device = Device {
            user_code: user_code.clone(),
            state: self.decides,
            until: now + self.device_life,
            client_id: request.field("client_id").to_owned(),
            scope: request.field("scope").to_owned(),
        };
        self.devices.insert(code.clone(), device);
        let message = format!(
            "To sign in, use a web browser to open the page https://www.microsoft.com/link and enter the code \
             {user_code} to authenticate."
        );
        Ok(Response::json(
            200,
            format!(
                r#"{{"user_code":{},"device_code":{},"verification_uri":"https://www.microsoft.com/link","expires_in":{},"interval":{},"message":{}}}"#,
                quoted(&user_code),
                quoted(&code),
                self.device_life.as_secs(),
                self.interval,
                quoted(&message)
            ),
        ))
    }

    fn token(&mut self, request: &HttpRequest, mail: &mut State) -> Result<Response, (String, Response)> {
        self.known_client(request)?;
        match request.field("grant_type") {
            "authorization_code" => self.by_code(request, mail),
            "refresh_token" => self.by_refresh(request, mail),
            "urn:ietf:params:oauth:grant-type:device_code" => self.by_device(request, mail),
            _ => Err(refused("unsupported_grant_type", 70_003, "The app requested an unsupported grant type.")),
        }
    }

    fn by_code(&mut self, request: &HttpRequest, mail: &mut State) -> Result<Response, (String, Response)> {
        // A code is good once, whatever comes of it.
        let code = self.codes.remove(request.field("code")).filter(|c| c.until > mail.now());
        let Some(code) = code else {
            return Err(refused("invalid_grant", 70_000, "The provided value for the 'code' parameter is not valid."));
        };
        let verifier = request.field("code_verifier");
        let challenge = URL_SAFE_NO_PAD.encode(openssl::sha::sha256(verifier.as_bytes()));
        let good = (43..=128).contains(&verifier.len()) && challenge == code.challenge;
        if !good {
            return Err(refused(
                "invalid_grant",
                501_481,
                "The Code_Verifier does not match the code_challenge supplied.",
            ));
        }
        if request.field("redirect_uri") != code.redirect_uri || request.field("client_id") != code.client_id {
            return Err(refused("invalid_grant", 50_011, "The redirect URI or the client is not that of the request."));
        }
        self.grant(&code.client_id, &code.scope, &code.scope, mail)
    }

    fn by_refresh(&mut self, request: &HttpRequest, mail: &mut State) -> Result<Response, (String, Response)> {
        let (now, strict) = (mail.now(), self.strict);
        if self.abuse {
            return Ok(error("invalid_grant", AADSTS_ABUSE));
        }
        let token = request.field("refresh_token");
        let found = self.refresh_tokens.iter_mut().find(|(t, _)| t == token).map(|(_, refresh)| refresh);
        let Some(refresh) = found.filter(|r| r.client_id == request.field("client_id")) else {
            return Err(refused(
                "invalid_grant",
                70_000,
                "The provided value for the 'refresh_token' parameter is not valid.",
            ));
        };
        if let Some(why) = &refresh.revoked {
            return Ok(error("invalid_grant", why));
        }
        if refresh.until <= now {
            return Ok(error("invalid_grant", AADSTS_EXPIRED));
        }
        if strict {
            refresh.revoked = Some(AADSTS_EXPIRED.to_owned());
        }
        let all = refresh.scope.clone();
        let wanted = match request.field("scope") {
            "" => all.clone(),
            scope => scope.to_owned(),
        };
        self.grant(request.field("client_id"), &wanted, &all, mail)
    }

    fn by_device(&mut self, request: &HttpRequest, mail: &mut State) -> Result<Response, (String, Response)> {
        let (code, now) = (request.field("device_code"), mail.now());
        let Some(device) = self.devices.get_mut(code).filter(|d| d.client_id == request.field("client_id")) else {
            return Err(refused("bad_verification_code", 70_019, "The verification code is not known."));
        };
        if device.until <= now {
            return Ok(error(
                "expired_token",
                "AADSTS70020: The provided value for the input parameter 'device_code' has expired.",
            ));
        }
        match device.state {
            DeviceState::Pending => Ok(error(
                "authorization_pending",
                "AADSTS70016: OAuth 2.0 device flow error. Authorization is pending. Continue polling.",
            )),
            DeviceState::Used => {
                Err(refused("bad_verification_code", 70_019, "The verification code was used before."))
            }
            DeviceState::Denied => Ok(error("access_denied", "AADSTS70018: The user declined.")),
            DeviceState::Approved => {
                let (client, scope) = (device.client_id.clone(), device.scope.clone());
                device.state = DeviceState::Used;
                self.grant(&client, &scope, &scope, mail)
            }
        }
    }

    fn one_resource(&self, scope: &str) -> Result<(), (String, Response)> {
        let resources = scope.split(' ').filter_map(|s| s.strip_prefix("https://")?.split_once('/'));
        let mut hosts: Vec<&str> = resources.map(|(host, _)| host).collect();
        hosts.dedup();
        match hosts.len() {
            1 => Ok(()),
            _ => Err(refused(
                "invalid_scope",
                28_000,
                "Provided value for the input parameter scope is not valid because it contains not exactly one resource.",
            )),
        }
    }

    /// Gives out an access token for `wanted` of the scopes that were consented to.
    fn grant(
        &mut self,
        client_id: &str,
        wanted: &str,
        consented: &str,
        mail: &mut State,
    ) -> Result<Response, (String, Response)> {
        self.one_resource(wanted)?;
        let now = mail.now();
        // As opaque and as long as Microsoft's.
        let access = format!("Ew{}", self.marked(1300));
        let has = |name: &str| wanted.split(' ').any(|s| s == name);
        if has(IMAP_SCOPE) {
            mail.grants.insert(access.clone(), Grant { user: self.user.clone(), until: now + self.expires_in });
        }
        let own = ["openid", "profile", "email", "offline_access"];
        let scope: Vec<&str> = wanted.split(' ').filter(|s| !own.contains(s)).collect();
        let seconds = self.expires_in.as_secs();
        let mut body = format!(
            r#"{{"token_type":"Bearer","scope":{},"expires_in":{seconds},"ext_expires_in":{seconds},"access_token":{}"#,
            quoted(&scope.join(" ")),
            quoted(&access)
        );
        if consented.split(' ').any(|s| s == "offline_access") {
            let refresh = format!("M.C_{}", self.marked(1600));
            let (until, client_id) = (now + self.refresh_life, client_id.to_owned());
            let kept = Refresh { until, revoked: None, client_id, scope: consented.to_owned() };
            body += &format!(r#","refresh_token":{}"#, quoted(&refresh));
            self.refresh_tokens.push((refresh, kept));
        }
        if has("openid") {
            body += &format!(r#","id_token":{}"#, quoted(&self.id_token(client_id)));
        }
        Ok(Response::json(200, body + "}"))
    }

    /// Returns an id_token whose signature nobody can check.
    fn id_token(&self, client_id: &str) -> String {
        let claims = format!(
            r#"{{"ver":"2.0","iss":"https://login.microsoftonline.com/{}/v2.0","aud":{},"preferred_username":{},"tid":{}}}"#,
            self.tenant,
            quoted(client_id),
            quoted(&self.user),
            quoted(&self.tenant)
        );
        let head = r#"{"typ":"JWT","alg":"RS256","kid":"sim"}"#;
        [head, &claims, "signature"].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
    }

    /// Returns a secret with the mark at its end.
    fn marked(&mut self, length: usize) -> String {
        self.secret(length) + &self.mark
    }

    /// Returns something that nobody can guess, and that is the same in every run.
    fn secret(&mut self, length: usize) -> String {
        let mut out = String::new();
        while out.len() < length {
            self.made += 1;
            out += &URL_SAFE_NO_PAD.encode(openssl::sha::sha256(format!("postkeep-sim {}", self.made).as_bytes()));
        }
        out.truncate(length);
        out
    }
}

/// Returns an error that a client must be able to deal with.
pub(super) fn error(name: &str, description: &str) -> Response {
    let code: String = description.bytes().skip(6).take_while(u8::is_ascii_digit).map(char::from).collect();
    Response::json(
        400,
        format!(
            r#"{{"error":{},"error_description":{},"error_codes":[{code}],"timestamp":"2026-01-01 00:00:00Z"}}"#,
            quoted(name),
            quoted(description)
        ),
    )
}

/// Returns the answer to what no client should ask for, with the reason.
fn refused(name: &str, code: u32, description: &str) -> (String, Response) {
    let description = format!("AADSTS{code}: {description}");
    (description.clone(), error(name, &description))
}

/// Returns a JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out += &format!("\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}

/// Returns text as HTML has it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
