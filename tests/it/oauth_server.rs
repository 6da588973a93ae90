//! A small authorization server: one user, who agrees at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth2::url::{Url, form_urlencoded};
use sha2::{Digest as _, Sha256};

/// Parameters of a request.
pub type Params = BTreeMap<String, String>;

/// A server on a port of 127.0.0.1; it ends with the process.
pub struct OAuthServer {
    port: u16,
    inner: Arc<Mutex<Inner>>,
}

/// An answer in place of the usual one.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: String,
    pub body: String,
    /// Tokens are handed out, and the answer is not.
    pub cut: bool,
}

impl Reply {
    /// An error of OAuth.
    pub fn error(code: &str, description: &str) -> Self {
        Self::new(400, &format!(r#"{{"error":"{code}","error_description":"{description}"}}"#))
    }

    pub fn new(status: u16, body: &str) -> Self {
        Self { status, headers: String::new(), body: body.to_owned(), cut: false }
    }
}

pub struct Inner {
    /// What was asked for: the last part of the path, and the parameters.
    pub requests: Vec<(String, Params)>,
    /// Answers of the token endpoint in place of the usual ones.
    pub replies: VecDeque<Reply>,
    /// The seconds that access tokens are good for.
    pub lifetime: u64,
    /// Who signs in.
    pub name: String,
    /// A refresh token is good for one use.
    pub strict: bool,
    /// The server says this to the browser instead of handing out a code.
    pub refuse: Option<(String, String)>,
    /// Told of each access token.
    pub issued: Box<dyn FnMut(&str) + Send>,
    /// Ends of all tokens and codes, which must not be found anywhere.
    pub mark: String,
    codes: BTreeMap<String, Params>,
    good: BTreeSet<String>,
    count: u32,
}

impl OAuthServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(Mutex::new(Inner {
            requests: Vec::new(),
            replies: VecDeque::new(),
            lifetime: 3600,
            name: "someone@outlook.com".to_owned(),
            strict: true,
            refuse: None,
            issued: Box::new(|_| ()),
            mark: "cAnArY".to_owned(),
            codes: BTreeMap::new(),
            good: BTreeSet::new(),
            count: 0,
        }));
        let shared = Arc::clone(&inner);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { port, inner }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn url(&self, last: &str) -> String {
        format!("http://127.0.0.1:{}/consumers/oauth2/v2.0/{last}", self.port)
    }

    /// Returns the parameters of the requests to an endpoint, in order.
    pub fn asked(&self, endpoint: &str) -> Vec<Params> {
        let inner = self.lock();
        inner.requests.iter().filter(|(path, _)| path == endpoint).map(|(_, params)| params.clone()).collect()
    }
}

/// Sends a GET, as a browser, and returns the head and the body of the answer.
pub fn get(address: &str) -> (String, String) {
    let url = Url::parse(address).unwrap();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, url.port().unwrap())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let target = &url[oauth2::url::Position::BeforePath..];
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", url.authority()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Follows the address that a user is sent to, to where the browser comes back; returns the page there.
pub fn visit(address: &str) -> String {
    let back = sent_back(address);
    get(&back).1
}

/// Returns the address that the browser is sent back to.
pub fn sent_back(address: &str) -> String {
    let (head, _) = get(address);
    head.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap_or_else(|| panic!("{head}")).to_owned()
}

fn serve(mut stream: TcpStream, shared: &Mutex<Inner>) {
    let mut bytes = Vec::new();
    let (path, params) = loop {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).unwrap_or(0);
        if read == 0 {
            return;
        }
        bytes.extend_from_slice(&part[..read]);
        if let Some(request) = complete(&bytes) {
            break request;
        }
    };
    let mut inner = shared.lock().unwrap();
    let endpoint = path.rsplit('/').next().unwrap().to_owned();
    inner.requests.push((endpoint.clone(), params.clone()));
    let reply = match endpoint.as_str() {
        "authorize" => inner.authorize(params),
        "devicecode" => Reply::new(
            200,
            r#"{"device_code":"device-cAnArY","user_code":"ABCD1234","verification_uri":"https://microsoft.com/devicelogin","expires_in":900,"interval":1}"#,
        ),
        "token" => match inner.replies.pop_front() {
            Some(reply) if reply.cut => {
                inner.token(&params);
                return;
            }
            Some(reply) => reply,
            None => inner.token(&params),
        },
        _ => Reply::new(404, ""),
    };
    drop(inner);
    let Reply { status, headers, body, .. } = reply;
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}Connection: close\r\n\r\n", body.len());
    let _ = stream.write_all((head + &body).as_bytes());
}

/// Returns the path and the parameters of a request, once all of it is there.
fn complete(bytes: &[u8]) -> Option<(String, Params)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    if body.len() < length.unwrap_or(0) {
        return None;
    }
    let target = head.split(' ').nth(1)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let params = form_urlencoded::parse(if body.is_empty() { query } else { body }.as_bytes());
    Some((path.to_owned(), params.into_owned().collect()))
}

impl Inner {
    fn authorize(&mut self, params: Params) -> Reply {
        let mut back = Url::parse(&params["redirect_uri"]).unwrap();
        match &self.refuse {
            Some((error, text)) => {
                back.query_pairs_mut().append_pair("error", error).append_pair("error_description", text);
            }
            None => {
                self.count += 1;
                let code = format!("M.C{}-{}", self.count, self.mark);
                back.query_pairs_mut().append_pair("code", &code);
                self.codes.insert(code, params.clone());
            }
        }
        back.query_pairs_mut().append_pair("state", &params["state"]);
        Reply { headers: format!("Location: {back}\r\n"), ..Reply::new(302, "") }
    }

    fn token(&mut self, params: &Params) -> Reply {
        let get = |name: &str| params.get(name).cloned().unwrap_or_default();
        match get("grant_type").as_str() {
            "authorization_code" => {
                let Some(asked) = self.codes.remove(&get("code")) else { return Reply::error("invalid_grant", "code") };
                let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(get("code_verifier")));
                if challenge != asked["code_challenge"]
                    || asked["code_challenge_method"] != "S256"
                    || get("redirect_uri") != asked["redirect_uri"]
                    || get("client_id") != asked["client_id"]
                {
                    return Reply::error("invalid_grant", "AADSTS501481: the code_verifier does not match");
                }
            }
            "refresh_token" => {
                let token = get("refresh_token");
                let known = self.good.contains(&token);
                if self.strict {
                    self.good.remove(&token);
                }
                if !known {
                    return Reply::error("invalid_grant", "AADSTS70000: The provided value is not valid.");
                }
            }
            "urn:ietf:params:oauth:grant-type:device_code" => {}
            other => return Reply::error("unsupported_grant_type", other),
        }
        self.count += 1;
        let (access, refresh) = (format!("Ew{}-{}", self.count, self.mark), format!("M.R{}-{}", self.count, self.mark));
        (self.issued)(&access);
        self.good.insert(refresh.clone());
        let claims =
            format!(r#"{{"preferred_username":"{}","tid":"9188040d-6c67-4c5b-b112-36a304b66dad"}}"#, self.name);
        let id_token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        Reply::new(
            200,
            &format!(
                r#"{{"token_type":"Bearer","scope":"{}","expires_in":{},"access_token":"{access}","refresh_token":"{refresh}","id_token":"{id_token}"}}"#,
                get("scope"),
                self.lifetime
            ),
        )
    }
}
