//! Turns what the file says into what the program works with, or into all that makes no sense in it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::outlook::Outlook;
use super::paths::{self, Env};
use super::problem::Fault;
use super::raw::{At, AuthKind, Raw, RawAccount, RawDaemon, RawHooks, RawOAuth};
use super::units::Span;
use super::{Account, Auth, Config, Daemon, Deletions, Filter, Hooks, OAuth, Pattern, Provider, TlsMode, excludes};
use crate::auth::PasswordSource;

/// Outlook.com lets a mailbox have few connections at a time and answers more with errors.
const OUTLOOK_CONNECTIONS: u64 = 3;
/// Personal accounts want this host, and no other. The last three tell who signed in: an address may be an alias, which the
/// server does not know.
const OUTLOOK_SCOPE: &str = "https://outlook.office.com/IMAP.AccessAsUser.All offline_access openid profile email";

const CONNECTIONS: u64 = 4;
const MOST_CONNECTIONS: u64 = 32;
const POLL_INTERVAL: Duration = Duration::from_secs(5 * 60);
const SWEEP_AFTER: Duration = Duration::from_secs(30);
const APPEND_RETRY_AFTER: Duration = Duration::from_secs(30);
const MAX_MESSAGE_SIZE: u64 = 256_000_000;
const GRAVEYARD: Duration = Duration::from_secs(90 * 86_400);
const GUARD_COUNT: u64 = 50;
const GUARD_SHARE: f64 = 0.2;

/// Checks everything.
///
/// # Errors
/// Every fault that was found.
pub(super) fn check(raw: Raw, env: Env<'_>) -> Result<Config, Vec<Fault>> {
    let mut checker = Checker { env, faults: Vec::new() };
    let Raw { accounts, hooks, daemon } = raw;
    if accounts.is_empty() {
        checker.faults.push(Fault::new(0..0, "no account; a configuration has at least one section [account.NAME]"));
    }
    let hooks = checker.hooks(hooks);
    let daemon_places = [daemon.state_dir.as_ref().map(Spanned::span)];
    let daemon = checker.daemon(daemon);
    let mut roots: Vec<(std::ops::Range<usize>, String, PathBuf)> = Vec::new();
    let mut checked = Vec::new();
    for (name, account) in accounts {
        let place = account.maildir.as_ref().map(Spanned::span);
        let Some(account) = checker.account(&name, account) else { continue };
        roots.push((place.unwrap_or(name.span()), account.name.clone(), paths::real(&account.maildir)));
        checked.push(account);
    }
    roots.sort_by_key(|(span, _, _)| span.start);
    checker.roots(&roots);
    if let Some(daemon) = &daemon {
        let [state_place] = daemon_places;
        checker.state_dir_apart(&roots, &paths::real(&daemon.state_dir), state_place);
    }
    match (daemon, checker.faults.is_empty()) {
        (Some(daemon), true) => {
            checked.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(Config { accounts: checked, hooks, daemon })
        }
        (_, _) => Err(checker.faults),
    }
}

struct Checker<'a> {
    env: Env<'a>,
    faults: Vec<Fault>,
}

impl Checker<'_> {
    fn fault(&mut self, span: std::ops::Range<usize>, text: impl Into<String>) {
        self.faults.push(Fault::new(span, text));
    }

    fn account(&mut self, name: &Spanned<String>, raw: RawAccount) -> Option<Account> {
        let faults_before = self.faults.len();
        let at = name.span();
        let service = (raw.provider == Some(Provider::Outlook)).then(|| Outlook::new(self.env));
        let outlook = service.is_some();
        // Who names another host means another service.
        let own = service.as_ref().filter(|_| raw.host.is_none());
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.get_ref().is_empty() || !name.get_ref().chars().all(legal) {
            self.fault(at.clone(), "the name of an account becomes a file name: use letters, digits, - and _ only");
        }
        let tls = raw.tls.as_ref().map_or(TlsMode::Implicit, |tls| *tls.get_ref());
        let other_hosts = own.map_or_else(Vec::new, |own| own.other_hosts.clone());
        let host = self.host(&at, raw.host.as_ref(), raw.tls.as_ref(), own);
        let port = match (&raw.port, own.and_then(|own| own.port)) {
            (None, Some(port)) => port,
            (port, _) => self.port(port.as_ref(), tls),
        };
        let given_username = raw.username.as_ref().map(|username| username.get_ref().clone());
        let (username, email) = self.names(&at, raw.username, raw.email);
        let auth = self.auth(
            name,
            service.as_ref(),
            raw.auth,
            PasswordKeys {
                command: raw.password_command,
                file: raw.password_file,
                credential: raw.password_credential,
            },
            raw.oauth,
            given_username,
        );
        let tls_ca_file = match raw.tls_ca_file {
            None => service.as_ref().and_then(|service| service.ca_file.clone()),
            file => self.existing_file(file),
        };
        let maildir = match raw.maildir {
            Some(path) => self.path(&path),
            None => {
                self.fault(at, format!("account {} needs the key `maildir`", name.get_ref()));
                None
            }
        };
        let mailboxes = self.filter(raw.mailboxes, outlook);
        let connections = self.connections(raw.connections, outlook);
        let poll_interval = self.at_least_a_second("poll_interval", raw.poll_interval, POLL_INTERVAL);
        let append_retry_after =
            self.at_least_a_second("append_retry_after", raw.append_retry_after, APPEND_RETRY_AFTER);
        let max_message_size = raw.max_message_size.as_ref().map_or(MAX_MESSAGE_SIZE, |size| size.get_ref().0);
        if let Some(size) = raw.max_message_size.filter(|size| size.get_ref().0 == 0) {
            self.fault(size.span(), "max_message_size must be more than nothing");
        }
        let guard_share = raw.deletions.guard_share.as_ref().map_or(GUARD_SHARE, |share| *share.get_ref());
        if let Some(share) = raw.deletions.guard_share.filter(|share| !(0.0..=1.0).contains(share.get_ref())) {
            self.fault(share.span(), "guard_share is a part of the mailbox, from 0 to 1");
        }
        if self.faults.len() > faults_before {
            return None;
        }
        Some(Account {
            name: name.get_ref().clone(),
            provider: raw.provider,
            host: host?,
            other_hosts,
            port,
            tls,
            tls_ca_file,
            tls_pins: raw.tls_pin.into_iter().map(|pin| pin.0).collect(),
            username,
            email,
            auth: auth?,
            maildir: maildir?,
            layout: raw.layout,
            line_endings: raw.line_endings,
            mailboxes,
            watch: raw.watch.unwrap_or_else(|| vec!["INBOX".to_owned()]),
            connections,
            poll_interval,
            max_message_size,
            direction: raw.direction,
            deletions: Deletions {
                on_server: raw.deletions.on_server,
                on_local: raw.deletions.on_local,
                graveyard: raw.deletions.graveyard.map_or(GRAVEYARD, |span| span.0),
                guard_count: raw.deletions.guard_count.unwrap_or(GUARD_COUNT),
                guard_share,
            },
            sweep_after: raw.sweep_after.map_or(SWEEP_AFTER, |span| span.0),
            append_retry_after,
            compress: raw.compress,
        })
    }

    fn host(
        &mut self,
        at: &std::ops::Range<usize>,
        host: Option<&Spanned<String>>,
        tls: Option<&Spanned<TlsMode>>,
        own: Option<&Outlook>,
    ) -> Option<String> {
        let (name, place) = match (host, own) {
            (Some(host), _) => (host.get_ref().as_str(), host.span()),
            (None, Some(own)) => (own.host.as_str(), at.clone()),
            (None, None) => {
                self.fault(at.clone(), "an account needs `host`, or `provider = \"outlook\"`");
                return None;
            }
        };
        let legal = |c: char| c.is_alphanumeric() || ".-_:".contains(c);
        let port_in_it = name.parse::<IpAddr>().is_err() && name.contains(':');
        if name.is_empty() || !name.chars().all(legal) || port_in_it {
            self.fault(place, "host is a name or an address and nothing else, such as \"imap.example.org\"");
            return None;
        }
        if let Some(tls) = tls.filter(|tls| *tls.get_ref() == TlsMode::None && !is_loopback(name)) {
            self.fault(
                tls.span(),
                format!("tls = \"none\" would send the password to {name} for all to read; it is for loopback addresses only"),
            );
            return None;
        }
        Some(name.to_owned())
    }

    fn port(&mut self, port: Option<&Spanned<u16>>, tls: TlsMode) -> u16 {
        match port {
            Some(port) if *port.get_ref() == 0 => {
                self.fault(port.span(), "port is a number from 1 to 65535");
                0
            }
            Some(port) => *port.get_ref(),
            None => match tls {
                TlsMode::Implicit => 993,
                TlsMode::None => 143,
            },
        }
    }

    /// Either name stands for the other where that is left out.
    fn names(&mut self, at: &std::ops::Range<usize>, username: At<String>, email: At<String>) -> (String, String) {
        for name in [&username, &email].into_iter().flatten() {
            if name.get_ref().is_empty() || name.get_ref().chars().any(char::is_control) {
                self.fault(name.span(), "a name cannot be empty or hold control characters");
            }
        }
        match (username.map(Spanned::into_inner), email.map(Spanned::into_inner)) {
            (Some(username), Some(email)) => (username, email),
            (Some(name), None) | (None, Some(name)) => (name.clone(), name),
            (None, None) => {
                self.fault(at.clone(), "an account needs the key `email`, or `username`");
                (String::new(), String::new())
            }
        }
    }

    fn auth(
        &mut self,
        account: &Spanned<String>,
        service: Option<&Outlook>,
        kind: At<AuthKind>,
        keys: PasswordKeys,
        oauth: At<RawOAuth>,
        username: Option<String>,
    ) -> Option<Auth> {
        let (at, name) = (&account.span(), account.get_ref());
        let no_passwords = |key: &str| {
            format!(
                "Outlook.com has refused passwords since September 2024; leave {key} out, and sign in with: postkeep login {name}"
            )
        };
        let (stated, outlook) = (kind.as_ref().map(|kind| *kind.get_ref()), service.is_some());
        match (stated, outlook) {
            (Some(AuthKind::Password), true) => {
                let place = kind.map_or(at.clone(), |kind| kind.span());
                self.fault(place, no_passwords("`auth`"));
                None
            }
            (Some(AuthKind::OAuth2), _) | (None, true) => {
                for place in keys.places() {
                    let text = if outlook {
                        no_passwords("this")
                    } else {
                        "an account with auth = \"oauth2\" has no password".into()
                    };
                    self.fault(place, text);
                }
                self.oauth(at, service, oauth, username)
            }
            (Some(AuthKind::Password) | None, false) => {
                if let Some(oauth) = oauth {
                    self.fault(
                        oauth.span(),
                        "a section [account.NAME.oauth] needs auth = \"oauth2\" in [account.NAME]",
                    );
                }
                self.password(at, keys)
            }
        }
    }

    fn password(&mut self, at: &std::ops::Range<usize>, keys: PasswordKeys) -> Option<Auth> {
        let mut places = keys.places().into_iter();
        let first = places.next();
        for place in places {
            self.fault(place, "only one of password_command, password_file and password_credential can be used");
        }
        let source = match (keys.command, keys.file, keys.credential) {
            (Some(command), _, _) if command.get_ref().first().is_none_or(String::is_empty) => {
                self.fault(command.span(), "password_command is a program and its arguments");
                return None;
            }
            (Some(command), _, _) => PasswordSource::Command(command.into_inner()),
            (None, file @ Some(_), _) => PasswordSource::File(self.existing_file(file)?),
            (None, None, Some(name)) => {
                let text = name.get_ref();
                if text.is_empty() || text.contains(['/', '\0']) || text == "." || text == ".." {
                    self.fault(name.span(), "password_credential is the bare name of a systemd credential");
                    return None;
                }
                PasswordSource::Credential(name.into_inner())
            }
            (None, None, None) => {
                self.fault(
                    first.unwrap_or(at.clone()),
                    "an account with a password needs one of password_command, password_file, password_credential",
                );
                return None;
            }
        };
        Some(Auth::Password(source))
    }

    fn oauth(
        &mut self,
        at: &std::ops::Range<usize>,
        service: Option<&Outlook>,
        table: At<RawOAuth>,
        username: Option<String>,
    ) -> Option<Auth> {
        let place = table.as_ref().map_or(at.clone(), Spanned::span);
        let raw = table.map(Spanned::into_inner).unwrap_or_default();
        for url in [&raw.authorize_url, &raw.token_url, &raw.device_url].into_iter().flatten() {
            if !is_safe_url(url.get_ref()) {
                self.fault(url.span(), "expected an address that begins with https:// (http:// only on loopback)");
            }
        }
        let outlook = service.is_some();
        let tenant = raw.tenant.as_ref().map_or("consumers", |tenant| tenant.get_ref().as_str());
        if let Some(tenant) = &raw.tenant {
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            if !outlook {
                self.fault(tenant.span(), "`tenant` means something only with provider = \"outlook\"");
            } else if tenant.get_ref().is_empty() || !tenant.get_ref().chars().all(legal) {
                self.fault(tenant.span(), "tenant is consumers, common, organizations or a tenant id");
            }
        }
        let client_id = raw.client_id.filter(|id| !id.trim().is_empty());
        let endpoint = |given: At<String>, last: &str| {
            let ours = |service: &Outlook| format!("{}/{tenant}/oauth2/v2.0/{last}", service.authority);
            given.map(Spanned::into_inner).or_else(|| service.map(ours))
        };
        let authorize_url = endpoint(raw.authorize_url, "authorize");
        let token_url = endpoint(raw.token_url, "token");
        let device_url = endpoint(raw.device_url, "devicecode");
        let scope = raw.scope.or_else(|| outlook.then(|| OUTLOOK_SCOPE.to_owned()));
        let way_in = authorize_url.is_some() || device_url.is_some();
        let (Some(token_url), Some(scope), true, true) = (token_url, scope, way_in, outlook || client_id.is_some())
        else {
            self.fault(
                place,
                "auth = \"oauth2\" needs a section [account.NAME.oauth] with client_id, scope, token_url \
                 and authorize_url or device_url",
            );
            return None;
        };
        let token_store = raw.token_store;
        Some(Auth::OAuth2(OAuth { client_id, username, scope, authorize_url, token_url, device_url, token_store }))
    }

    fn filter(&mut self, patterns: At<Vec<Spanned<String>>>, outlook: bool) -> Filter {
        let mut list = Vec::new();
        if let Some(patterns) = patterns {
            if patterns.get_ref().is_empty() {
                self.fault(patterns.span(), "an empty list lets no mailbox in; leave `mailboxes` out for all of them");
            }
            for text in patterns.into_inner() {
                match Pattern::new(text.get_ref()) {
                    Some(pattern) => list.push(pattern),
                    None => self.fault(text.span(), "an empty pattern matches nothing"),
                }
            }
        }
        // Who only takes away takes away from what there is without him.
        if outlook && list.first().is_none_or(Pattern::is_negated) {
            let excluded = |name: &str| [format!("!{name}"), format!("!{name}/**")];
            let defaults = excludes::outlook().flat_map(excluded).filter_map(|text| Pattern::new(&text));
            list = defaults.chain(list).collect();
        }
        Filter::new(list)
    }

    fn connections(&mut self, connections: At<u64>, outlook: bool) -> usize {
        let most = if outlook { OUTLOOK_CONNECTIONS } else { MOST_CONNECTIONS };
        let default = if outlook { OUTLOOK_CONNECTIONS } else { CONNECTIONS };
        if let Some(given) = connections.as_ref().filter(|n| !(1..=most).contains(n.get_ref())) {
            self.fault(given.span(), format!("connections is a number from 1 to {most}"));
        }
        usize::try_from(connections.map_or(default, Spanned::into_inner)).unwrap_or(1)
    }

    fn at_least_a_second(&mut self, key: &str, given: At<Span>, default: Duration) -> Duration {
        if let Some(span) = given.as_ref().filter(|span| span.get_ref().0.is_zero()) {
            self.fault(span.span(), format!("{key} is at least \"1s\""));
        }
        given.map_or(default, |span| span.get_ref().0)
    }

    fn path(&mut self, text: &Spanned<String>) -> Option<PathBuf> {
        paths::expand(text.get_ref(), self.env).map_err(|why| self.fault(text.span(), why)).ok()
    }

    fn existing_file(&mut self, text: At<String>) -> Option<PathBuf> {
        let text = text?;
        let path = self.path(&text)?;
        match std::fs::metadata(&path) {
            Ok(_) => Some(path),
            Err(error) => {
                self.fault(text.span(), format!("cannot find {}: {}", path.display(), plain(&error)));
                None
            }
        }
    }

    fn hooks(&mut self, raw: RawHooks) -> Hooks {
        let mut program = |given: At<Vec<String>>| {
            if let Some(empty) = given.as_ref().filter(|c| c.get_ref().first().is_none_or(String::is_empty)) {
                self.fault(empty.span(), "a hook is a program and its arguments");
            }
            given.map(Spanned::into_inner).unwrap_or_default()
        };
        Hooks { changed: program(raw.changed), new_mail: program(raw.new_mail), attention: program(raw.attention) }
    }

    fn daemon(&mut self, raw: RawDaemon) -> Option<Daemon> {
        let state_dir = match &raw.state_dir {
            Some(text) => self.path(text),
            None => {
                let default = paths::default_state_dir(self.env);
                if default.is_none() {
                    self.fault(0..0, "neither $XDG_STATE_HOME nor $HOME is set; name a state_dir in [daemon]");
                }
                default
            }
        };
        let metrics_file = raw.metrics_file.as_ref().map(|text| self.path(text));
        let socket = raw.socket.as_ref().map(|text| self.path(text));
        let state_dir = state_dir?;
        let socket = match socket {
            Some(path) => path?,
            None => paths::default_socket(self.env, &state_dir),
        };
        Some(Daemon { state_dir, socket, metrics_file: metrics_file.flatten() })
    }

    /// Two accounts in one directory would each take the other's messages for new ones.
    fn roots(&mut self, roots: &[(std::ops::Range<usize>, String, PathBuf)]) {
        for (n, (span, _, root)) in roots.iter().enumerate() {
            for (_, other, earlier) in &roots[..n] {
                if root == earlier {
                    self.fault(span.clone(), format!("account {other} has this directory already"));
                } else if overlap(root, earlier) {
                    self.fault(
                        span.clone(),
                        format!("one of this directory and that of account {other} is inside the other"),
                    );
                }
            }
        }
    }

    /// Removed messages lie in the state directory; in the tree, readers would find them there.
    fn state_dir_apart(
        &mut self,
        roots: &[(std::ops::Range<usize>, String, PathBuf)],
        state_dir: &Path,
        place: Option<std::ops::Range<usize>>,
    ) {
        for (span, name, root) in roots {
            if overlap(root, state_dir) {
                let text = format!(
                    "the maildir of account {name} and the state directory {} must not be inside each other",
                    state_dir.display()
                );
                self.fault(place.clone().unwrap_or(span.clone()), text);
            }
        }
    }
}

struct PasswordKeys {
    command: At<Vec<String>>,
    file: At<String>,
    credential: At<String>,
}

impl PasswordKeys {
    fn places(&self) -> Vec<std::ops::Range<usize>> {
        let places = [
            self.command.as_ref().map(Spanned::span),
            self.file.as_ref().map(Spanned::span),
            self.credential.as_ref().map(Spanned::span),
        ];
        places.into_iter().flatten().collect()
    }
}

fn overlap(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn is_safe_url(url: &str) -> bool {
    let printable = url.chars().all(|c| c.is_ascii_graphic());
    let host = |rest: &str| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned();
        match authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default().to_owned(),
            None => authority.split(':').next().unwrap_or_default().to_owned(),
        }
    };
    printable
        && match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => !host(rest).is_empty(),
            (None, Some(rest)) => !rest.contains('@') && is_loopback(&host(rest)),
            (None, None) => false,
        }
}

/// Says what the system said, without the number.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "it may not be read".to_owned(),
        _ => error.to_string(),
    }
}
