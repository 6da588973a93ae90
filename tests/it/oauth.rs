//! Signing in with OAuth 2.0: the real program, the simulated sign-in service with a user who agrees at once, and a mail
//! server that takes the tokens.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use postkeep_sim::oauth::{DeviceState, get, press};
use postkeep_sim::{Fault, HttpFault, OAuth, Profile, Server, When};

use crate::account::{Account, Output, Remote};

/// An account that signs in with OAuth 2.0, and both servers.
pub struct Scene {
    pub mail: Server,
    pub oauth: OAuth,
    pub account: Account,
}

impl Scene {
    pub fn new() -> Self {
        Self::with("token_store = \"file\"")
    }

    /// Makes one with more lines below `[account.a.oauth]`.
    pub fn with(extra: &str) -> Self {
        let mail = Server::spawn(Profile::Outlook).unwrap();
        let oauth = OAuth::spawn(&mail, None).unwrap();
        {
            let mut directory = oauth.directory();
            directory.user = "someone@outlook.com".to_owned();
            // Stricter than Microsoft: a refresh token is good for one use.
            directory.strict = true;
            directory.mark = "cAnArY".to_owned();
            (directory.decides, directory.interval) = (DeviceState::Approved, 1);
        }
        let account = Account::on_sim(&mail);
        let path = |path: PathBuf| path.display().to_string();
        let (maildir, state_dir) = (path(account.maildir()), path(account.state_dir()));
        let config = format!(
            "[daemon]\nstate_dir = {state_dir:?}\n\n[account.a]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\n\
             email = \"alias@example.org\"\nauth = \"oauth2\"\nmaildir = {maildir:?}\nconnections = 2\n\
             append_retry_after = \"1s\"\n\n[account.a.oauth]\n\
             client_id = \"client\"\nscope = \"https://outlook.office.com/IMAP.AccessAsUser.All offline_access openid\"\n\
             authorize_url = {:?}\ntoken_url = {:?}\ndevice_url = {:?}\n{extra}\n",
            mail.port(),
            oauth.endpoint("consumers", "authorize"),
            oauth.endpoint("consumers", "token"),
            oauth.endpoint("consumers", "devicecode"),
        );
        fs::write(account.config(), config).unwrap();
        mail.state().append("INBOX", b"Message-ID: <1>\r\nSubject: one\r\n\r\nbody\r\n", &[], 1_700_000_000);
        Self { mail, oauth, account }
    }

    pub fn token_file(&self) -> PathBuf {
        self.account.state_dir().join("a.token")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.account.command(args);
        // Nothing of the desktop of who runs the tests.
        for name in ["DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS"] {
            command.env_remove(name);
        }
        command
    }

    pub fn run_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Output {
        Started::new(self.command(args).envs(environment.iter().copied())).end()
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, &[])
    }

    /// Signs in with a browser that does what `browse` does with the address; returns what that returned, too.
    pub fn login_by<T>(&self, args: &[&str], browse: impl FnOnce(&str) -> T) -> (Output, T) {
        let mut started = Started::new(&mut self.command(&[&["login", "a"][..], args].concat()));
        let address = started.line(|line| line.trim_start().starts_with("http"));
        let brought = browse(address.trim());
        (started.end(), brought)
    }

    /// Signs in, as every test begins that needs a sign-in.
    pub fn login(&self) {
        let (output, _) = self.login_by(&[], visit);
        assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
    }

    #[track_caller]
    pub fn sync(&self, code: i32) -> Output {
        let output = self.run(&["sync"]);
        assert_eq!(output.code, code, "{}{}", output.stdout, output.stderr);
        output
    }

    /// Returns the fields of the requests to an endpoint, in order.
    pub fn asked(&self, endpoint: &str) -> Vec<BTreeMap<String, String>> {
        let to = |request: &postkeep_sim::oauth::HttpRequest| {
            // The press of the button repeats what the page was asked for.
            request.path.ends_with(&format!("/{endpoint}")) && (endpoint != "authorize" || request.method == "GET")
        };
        self.oauth.requests().into_iter().filter(to).map(|request| request.fields).collect()
    }

    /// Lets the next request to the token endpoint fail.
    pub fn token_fails(&self, fault: HttpFault) {
        self.oauth.inject("token", When::Nth(1), fault);
    }

    pub fn renewals(&self) -> usize {
        self.asked("token").iter().filter(|params| params["grant_type"] == "refresh_token").count()
    }

    pub fn sign_ins(&self) -> usize {
        self.mail.commands().iter().filter(|command| command.name == "AUTHENTICATE").count()
    }
}

/// Does what the user's browser does with the address that it is sent to: signs in, and comes back; returns the page there.
pub fn visit(address: &str) -> String {
    get(&press(address).unwrap()).unwrap().1
}

/// Returns an answer with an error of OAuth.
pub fn error(name: &'static str, description: &str) -> HttpFault {
    HttpFault::Error(name, description.to_owned())
}

/// Returns an answer with this status and body.
pub fn body(status: u16, body: &str) -> HttpFault {
    HttpFault::Body(status, body.to_owned())
}

/// A program that runs, and that is waited for.
pub struct Started {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    stderr: Option<std::thread::JoinHandle<String>>,
    said: String,
}

impl Started {
    pub fn new(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let collect = move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        };
        Self { child, stdout, stderr: Some(std::thread::spawn(collect)), said: String::new() }
    }

    /// Returns the next line of standard output that fits.
    #[track_caller]
    fn line(&mut self, fits: impl Fn(&str) -> bool) -> String {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                let stderr = self.stderr.take().unwrap().join().unwrap();
                panic!("the program ended without that line: {}{stderr}", self.said);
            }
            self.said += &line;
            if fits(&line) {
                return line;
            }
        }
    }

    pub fn end(mut self) -> Output {
        self.stdout.read_to_string(&mut self.said).unwrap();
        let stderr = self.stderr.take().unwrap().join().unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        Output { code, stdout: self.said, stderr }
    }
}

/// Returns every file below a directory with its content.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn a_user_signs_in_and_mail_comes() {
    let scene = Scene::new();
    let (output, page) = scene.login_by(&[], visit);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(
        output.stdout.contains("Signed in to a as someone@outlook.com; the sign-in is kept in "),
        "{}",
        output.stdout
    );
    assert!(output.stdout.ends_with("Next: postkeep sync a\n"), "{}", output.stdout);
    assert!(page.contains("<h1>You are signed in</h1>") && page.contains("as someone@outlook.com."), "{page}");
    assert!(page.contains("postkeep sync a"), "{page}");
    assert_eq!(fs::metadata(scene.token_file()).unwrap().mode() & 0o7777, 0o600);

    let asked = scene.asked("authorize").remove(0);
    let scope = "https://outlook.office.com/IMAP.AccessAsUser.All offline_access openid";
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "client"),
        ("code_challenge_method", "S256"),
        ("scope", scope),
        ("login_hint", "alias@example.org"),
    ] {
        assert_eq!(asked[name], value);
    }
    let port = asked["redirect_uri"].strip_prefix("http://localhost:").unwrap();
    assert!(port.parse::<u16>().is_ok(), "{port}");

    scene.sync(0);
    scene.account.assert_equal(Remote::Sim(&scene.mail));
    let renewal = scene.asked("token").remove(1);
    assert_eq!((renewal["grant_type"].as_str(), renewal["scope"].as_str()), ("refresh_token", scope));
    assert_eq!(renewal["client_id"], "client");
    assert!(!renewal.contains_key("client_secret"));
    // The one that was rotated is kept: a server that takes each once is content.
    scene.sync(0);
    scene.sync(0);
    assert_eq!(scene.renewals(), 3);
    assert_eq!((scene.mail.violations(), scene.oauth.violations()), (vec![], vec![]));
}

#[test]
fn a_visit_that_is_not_the_right_one_changes_nothing() {
    let scene = Scene::new();
    let (output, pages) = scene.login_by(&[], |address| {
        let back = press(address).unwrap();
        let (wrong, other) = (back.replace("state=", "state=x"), back.replace("?", "/other?"));
        let pages = [wrong, other].map(|address| get(&address).unwrap());
        (pages, get(&back).unwrap())
    });
    let ([wrong, other], right) = pages;
    assert!(
        wrong.0.starts_with("HTTP/1.1 400 ") && wrong.1.contains("not the sign-in that postkeep waits for"),
        "{wrong:?}"
    );
    assert!(other.0.starts_with("HTTP/1.1 404 ") && other.1.contains("There is nothing here"), "{other:?}");
    assert!(right.0.starts_with("HTTP/1.1 200 ") && right.1.contains("You are signed in"), "{right:?}");
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(scene.asked("token").len(), 1);
}

#[test]
fn who_declines_is_told_how_to_try_again() {
    let scene = Scene::new();
    scene.oauth.directory().denial = Some("AADSTS65004: User <declined> to consent.".to_owned());
    let (output, page) = scene.login_by(&[], visit);
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert!(output.stderr.contains("was declined") && output.stderr.contains("postkeep login a"), "{}", output.stderr);
    assert!(page.contains("<h1>You are not signed in</h1>") && page.contains("User &lt;declined&gt; to"), "{page}");
    assert!(page.contains("postkeep login a") && !scene.token_file().exists(), "{page}");
}

#[test]
fn what_goes_wrong_after_the_consent_is_on_the_page_too() {
    let rows = [
        (body(503, "busy"), 5, "HTTP 503"),
        (error("invalid_client", "AADSTS7000218: a secret is missing"), 2, "check client_id"),
        (body(200, "<html>cAnArY</html>"), 5, "makes no sense"),
        (body(200, r#"{"token_type":"Bearer","access_token":"x","expires_in":60}"#), 2, "offline_access"),
    ];
    let scene = Scene::new();
    for (fault, code, words) in rows {
        let fired = format!("token authorization_code {}", fault.name());
        scene.token_fails(fault);
        let (output, page) = scene.login_by(&[], visit);
        assert_eq!(output.code, code, "{}", output.stderr);
        assert!(output.stderr.contains(words) && page.contains(words), "{}{page}", output.stderr);
        assert!(page.contains("<h1>You are not signed in yet</h1>") && !page.contains("cAnArY"), "{page}");
        assert_eq!(scene.oauth.fired().last(), Some(&fired));
        assert!(!scene.token_file().exists());
    }
}

#[test]
fn somebody_else_is_not_taken_for_the_owner_of_the_mirror() {
    let scene = Scene::new();
    scene.login();
    let before = fs::read(scene.token_file()).unwrap();
    scene.oauth.directory().user = "other@outlook.com".to_owned();
    let (output, page) = scene.login_by(&[], visit);
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert!(output.stderr.contains("mirrors the mailbox of someone@outlook.com"), "{}", output.stderr);
    assert!(page.contains("that was other@outlook.com"), "{page}");
    assert_eq!(fs::read(scene.token_file()).unwrap(), before);
    scene.oauth.directory().user = "SomeOne@outlook.com".to_owned();
    scene.login();
}

#[test]
fn ctrl_c_ends_a_sign_in() {
    let scene = Scene::new();
    for args in [&["login", "a"][..], &["login", "a", "--device"]] {
        let mut started = Started::new(&mut scene.command(args));
        started.line(|line| line.contains("Ctrl-C"));
        let pid = rustix::process::Pid::from_child(&started.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let output = started.end();
        assert_eq!(output.code, 3, "{}", output.stderr);
        assert!(output.stderr.contains("postkeep login a"), "{}", output.stderr);
        assert!(!scene.token_file().exists());
    }
}

#[test]
fn what_is_not_configured_is_explained() {
    let scene = Scene::new();
    let config = fs::read_to_string(scene.account.config()).unwrap();
    let outlook = config.replace("auth = \"oauth2\"", "provider = \"outlook\"").replace("client_id = \"client\"\n", "");
    fs::write(scene.account.config(), outlook).unwrap();
    for (command, code) in [("login", 2), ("sync", 3)] {
        let output = scene.run(&[command, "a"]);
        let said = output.stdout + &output.stderr;
        assert_eq!(output.code, code, "{said}");
        for words in ["client_id = ", "[account.a.oauth]", "https://entra.microsoft.com", "postkeep login a"] {
            assert!(said.contains(words), "{said}");
        }
    }
    fs::write(scene.account.config(), config).unwrap();
    let output = scene.sync(3);
    assert!(output.stdout.contains("account a is not signed in; run: postkeep login a"), "{}", output.stdout);
    let password = Account::on_sim(&scene.mail);
    let output = password.run(&["login", "a"]);
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("signs in with a password"), "{}", output.stderr);
}

/// F29: a server that takes no passwords.
#[test]
fn a_refused_password_names_the_way_in() {
    let mail = Server::spawn(Profile::Outlook).unwrap();
    let account = Account::on_sim(&mail);
    let refusal = "NO Basic authentication is disabled.".to_owned();
    mail.inject("AUTHENTICATE", When::Every, Fault::Answer(refusal));
    let output = account.run(&["sync"]);
    assert_eq!(output.code, 3, "{}", output.stdout);
    for words in ["takes no passwords any more", "provider = \"outlook\"", "postkeep login a"] {
        assert!(output.stdout.contains(words), "{}", output.stdout);
    }
    assert_eq!(mail.fired(), ["AUTHENTICATE answer"]);

    let config = fs::read_to_string(account.config()).unwrap();
    fs::write(account.config(), config.replace("host = \"127.0.0.1\"", "provider = \"outlook\"")).unwrap();
    let output = account.run(&["sync"]);
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("has refused passwords since September 2024"), "{}", output.stderr);
}

/// F32: with a browser elsewhere.
#[test]
fn a_device_waits_for_its_user() {
    let scene = Scene::new();
    scene.token_fails(error("authorization_pending", "AADSTS70016: not yet"));
    let output = scene.run(&["login", "a", "--device"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.contains("    https://www.microsoft.com/link\n"), "{}", output.stdout);
    let (device_code, device) = scene.oauth.directory().devices.pop_first().unwrap();
    assert_eq!(device.state, DeviceState::Used);
    assert!(output.stdout.contains(&format!("    {}\n", device.user_code)), "{}", output.stdout);
    let polls = scene.asked("token");
    assert_eq!(polls.len(), 2);
    for poll in &polls {
        assert_eq!(poll["grant_type"], "urn:ietf:params:oauth:grant-type:device_code");
        assert_eq!((poll["device_code"].as_str(), poll["client_id"].as_str()), (device_code.as_str(), "client"));
    }
    assert!(scene.asked("devicecode")[0]["scope"].contains("offline_access"));
    scene.sync(0);

    for (name, words) in [("access_denied", "was declined"), ("expired_token", "nobody signed in to account a in time")]
    {
        let scene = Scene::new();
        scene.token_fails(error(name, "AADSTS70000: no"));
        let output = scene.run(&["login", "a", "--device"]);
        assert_eq!(output.code, 3, "{}", output.stderr);
        assert!(output.stderr.contains(words) && output.stderr.contains("postkeep login a"), "{}", output.stderr);
        assert_eq!(scene.oauth.fired(), ["token device_code error"]);
        assert!(!scene.token_file().exists());
    }
}
