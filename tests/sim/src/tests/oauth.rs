//! The flows of the sign-in service, and how its failures look on the wire.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use native_tls::{Certificate, TlsConnector};

use super::Raw;
use super::outlook::{server, xoauth2};
use crate::oauth::{AADSTS_ABUSE, AADSTS_EXPIRED, DeviceState, IMAP_SCOPE, get, press};
use crate::{Ca, HttpFault, OAuth, Profile, Server, When};

/// SHA-256 of the verifier, as in RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const SCOPE: &str = "openid+offline_access+https%3A%2F%2Foutlook.office.com%2FIMAP.AccessAsUser.All";

fn service() -> (Server, OAuth) {
    let server = server(Profile::Exo2026);
    let oauth = OAuth::spawn(&server, None).unwrap();
    (server, oauth)
}

/// Posts a form and returns the status line and the body; both empty if there is no answer.
fn post(url: &str, form: &str) -> (String, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let kind = "Content-Type: application/x-www-form-urlencoded";
    let head = format!("POST /{path} HTTP/1.1\r\nHost: {host}\r\n{kind}\r\nContent-Length: {}\r\n\r\n", form.len());
    stream.write_all((head + form).as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// Returns a string of a JSON object.
fn string(json: &str, name: &str) -> String {
    let rest = json.split_once(&format!("\"{name}\":\"")).unwrap_or_else(|| panic!("no {name} in {json}")).1;
    rest.split_once('"').unwrap().0.to_owned()
}

fn authorize(oauth: &OAuth) -> String {
    format!(
        "{}?client_id=app&response_type=code&redirect_uri=http%3A%2F%2Flocalhost%3A4711&scope={SCOPE}&state=x%26y&\
         code_challenge={CHALLENGE}&code_challenge_method=S256",
        oauth.endpoint("consumers", "authorize")
    )
}

/// Signs in by a browser and returns the answer with the tokens.
fn by_browser(oauth: &OAuth) -> String {
    let location = press(&authorize(oauth)).unwrap();
    let code = location.strip_prefix("http://localhost:4711?code=").unwrap().strip_suffix("&state=x%26y").unwrap();
    let form = format!(
        "grant_type=authorization_code&client_id=app&code={code}&redirect_uri=http%3A%2F%2Flocalhost%3A4711&\
         code_verifier={VERIFIER}"
    );
    let (status, body) = post(&oauth.endpoint("consumers", "token"), &form);
    assert_eq!(status, "HTTP/1.1 200 OK", "{body}");
    assert!(post(&oauth.endpoint("consumers", "token"), &form).1.contains("invalid_grant"), "a code is good once");
    body
}

fn refresh(oauth: &OAuth, token: &str) -> (String, String) {
    let form = format!("grant_type=refresh_token&client_id=app&refresh_token={token}&scope={SCOPE}");
    post(&oauth.endpoint("common", "token"), &form)
}

fn sign_in(server: &Server, token: &str, answer: &str) {
    Raw::connect(server).talk(&format!("C a {}\nS a {answer}", xoauth2(token)));
}

#[test]
fn a_browser_and_a_refresh() {
    let (server, oauth) = service();
    let body = by_browser(&oauth);
    assert_eq!(string(&body, "scope"), IMAP_SCOPE);
    assert!(body.contains("\"expires_in\":3600"), "{body}");
    let access = string(&body, "access_token");
    assert!((1000..3000).contains(&access.len()));
    sign_in(&server, &access, "OK AUTHENTICATE completed.");
    server.state().advance(Duration::from_secs(3600));
    sign_in(&server, &access, "NO AUTHENTICATE failed.");
    let first = string(&body, "refresh_token");
    let (_, body) = refresh(&oauth, &first);
    let second = string(&body, "refresh_token");
    assert_ne!(first, second);
    sign_in(&server, &string(&body, "access_token"), "OK AUTHENTICATE completed.");
    // Microsoft lets the old one live on; a strict service does not.
    assert_eq!(refresh(&oauth, &first).0, "HTTP/1.1 200 OK");
    oauth.directory().strict = true;
    assert_eq!(refresh(&oauth, &second).0, "HTTP/1.1 200 OK");
    assert!(refresh(&oauth, &second).1.contains(AADSTS_EXPIRED));
    assert_eq!(oauth.violations().len(), 1, "the second use of the code: {:?}", oauth.violations());
    let claims = string(&body, "id_token");
    let claims =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims.split('.').nth(1).unwrap());
    let claims = String::from_utf8(claims.unwrap()).unwrap();
    assert_eq!(string(&claims, "preferred_username"), "user@example.com");
    assert_eq!(string(&claims, "tid"), crate::oauth::CONSUMERS);
}

#[test]
fn what_a_client_must_not_ask_for() {
    let (_server, oauth) = service();
    oauth.directory().client_id = Some("app".to_owned());
    let good = authorize(&oauth);
    for (from, to) in [
        ("client_id=app", "client_id=other"),
        ("response_type=code", "response_type=token"),
        ("localhost%3A4711", "example.com"),
        ("S256", "plain"),
        ("&state=x%26y", ""),
        ("consumers", "organizations"),
    ] {
        assert!(press(&good.replace(from, to)).is_err(), "{from}");
    }
    assert!(get(&good.replace("authorize", "other")).unwrap().0.starts_with("HTTP/1.1 405"));
    let token = oauth.endpoint("common", "token");
    for (form, code) in [
        ("grant_type=password&client_id=app", "70003"),
        ("grant_type=refresh_token&client_id=app&client_secret=x", "700025"),
        ("grant_type=refresh_token", "900144"),
    ] {
        let (status, body) = post(&token, form);
        assert!(status.ends_with("400 Bad Request") && body.contains(&format!("[{code}]")), "{body}");
    }
    let location = press(&good).unwrap();
    let code = location.split_once("code=").unwrap().1.split_once('&').unwrap().0;
    let form = format!(
        "grant_type=authorization_code&client_id=app&code={code}&redirect_uri=http%3A%2F%2Flocalhost%3A4711&\
         code_verifier=xBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    );
    assert!(post(&token, &form).1.contains("501481"), "the verifier is checked");
    oauth.directory().denial = Some("AADSTS65004: User declined to consent to access the app.".to_owned());
    assert!(press(&good).unwrap().starts_with("http://localhost:4711?error=access_denied&"));
    assert_eq!(oauth.violations().len(), 11, "{:?}", oauth.violations());
}

#[test]
fn f31_the_token_endpoint_fails() {
    let (server, oauth) = service();
    let token = string(&by_browser(&oauth), "refresh_token");
    let grants = server.state().grants.len();
    let table = [
        (HttpFault::Status(500, Vec::new()), "HTTP/1.1 500 Error", ""),
        (HttpFault::Body(500, "oh".to_owned()), "HTTP/1.1 500 Error", "oh"),
        (HttpFault::too_many(7), "HTTP/1.1 429 Too Many Requests", ""),
        (HttpFault::expired(), "HTTP/1.1 400 Bad Request", AADSTS_EXPIRED),
        (HttpFault::abuse(), "HTTP/1.1 400 Bad Request", AADSTS_ABUSE),
        (HttpFault::Close, "", ""),
        (HttpFault::Stall, "", ""),
    ];
    for (fault, status, text) in table {
        let name = format!("token refresh_token {}", fault.name());
        oauth.inject("token refresh_token", When::Nth(1), fault);
        let (said, body) = refresh(&oauth, &token);
        assert_eq!(said, status, "{name}");
        assert!(body.contains(text), "{body}");
        assert_eq!(oauth.fired().last(), Some(&name));
    }
    assert_eq!(server.state().grants.len(), grants);
    // The answer with the new token is lost: the old one still works at Microsoft, and does not at a strict service.
    oauth.inject("token", When::First(2), HttpFault::Lose);
    assert_eq!(refresh(&oauth, &token).0, "");
    oauth.directory().strict = true;
    assert_eq!(refresh(&oauth, &token).0, "");
    assert_eq!(server.state().grants.len(), grants + 2);
    assert!(refresh(&oauth, &token).1.contains(AADSTS_EXPIRED));
    // By state, not by fault.
    oauth.directory().abuse = true;
    assert!(refresh(&oauth, &token).1.contains(AADSTS_ABUSE));
    oauth.directory().abuse = false;
    let last = oauth.directory().refresh_tokens.last().unwrap().0.clone();
    server.state().advance(Duration::from_secs(91 * 24 * 3600));
    assert!(refresh(&oauth, &last).1.contains(AADSTS_EXPIRED));
    assert!(oauth.requests().iter().any(|r| r.field("refresh_token") == token), "secrets are in this log");
}

#[test]
fn f32_a_device_code() {
    let (server, oauth) = service();
    let start = || post(&oauth.endpoint("consumers", "devicecode"), &format!("client_id=app&scope={SCOPE}")).1;
    let poll = |code: &str| {
        let kind = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
        post(&oauth.endpoint("consumers", "token"), &format!("grant_type={kind}&client_id=app&device_code={code}")).1
    };
    let answer = start();
    assert!(answer.contains("\"interval\":5") && answer.contains("\"expires_in\":900"), "{answer}");
    let code = string(&answer, "device_code");
    assert_eq!(string(&poll(&code), "error"), "authorization_pending");
    oauth.inject("token device_code", When::Nth(1), HttpFault::slow_down());
    assert_eq!(string(&poll(&code), "error"), "slow_down");
    assert_eq!(oauth.fired(), ["token device_code error"]);
    oauth.directory().decide(DeviceState::Approved);
    sign_in(&server, &string(&poll(&code), "access_token"), "OK AUTHENTICATE completed.");
    assert_eq!(string(&poll(&code), "error"), "bad_verification_code");
    let code = string(&start(), "device_code");
    oauth.directory().decide(DeviceState::Denied);
    assert_eq!(string(&poll(&code), "error"), "access_denied");
    let code = string(&start(), "device_code");
    server.state().advance(Duration::from_secs(900));
    assert_eq!(string(&poll(&code), "error"), "expired_token");
    // Whose user is quick, and whose tokens can be found again.
    oauth.directory().decides = DeviceState::Approved;
    oauth.directory().mark = "canary".to_owned();
    let code = string(&start(), "device_code");
    let answer = poll(&code);
    for secret in [code, string(&answer, "access_token"), string(&answer, "refresh_token")] {
        assert!(secret.ends_with("canary"), "{secret}");
    }
    assert_eq!(oauth.violations().len(), 1, "the second use of the code: {:?}", oauth.violations());
}

#[test]
fn it_speaks_tls_too() {
    let server = server(Profile::Exo2026);
    let ca = Ca::new().unwrap();
    let oauth = OAuth::spawn(&server, Some(&ca)).unwrap();
    let port = oauth.authority().strip_prefix("https://localhost:").unwrap().parse::<u16>().unwrap();
    let root = Certificate::from_pem(ca.pem().as_bytes()).unwrap();
    let connector = TlsConnector::builder().add_root_certificate(root).build().unwrap();
    let mut stream = connector.connect("localhost", TcpStream::connect(("127.0.0.1", port)).unwrap()).unwrap();
    stream.write_all(b"GET /common/oauth2/v2.0/authorize HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("AADSTS900144"), "{answer}");
}
