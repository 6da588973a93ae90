//! The whole way from a text to settings, or to what is wrong with it.

use std::ffi::OsString;

use super::*;

fn env(name: &str) -> Option<OsString> {
    (name == "HOME").then(|| "/home/u".into())
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, &env).map_err(|problems| {
        let path = PathBuf::from("c.toml");
        Error::Invalid { path, problems }.to_string()
    })
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The keys that every account needs, on one line.
const BASIC: &str = "host='h.example', email='e@x', password_command=['p'], maildir=";

fn account(more: &str) -> String {
    format!(
        "[account.a]\nhost = \"h.example\"\nemail = \"e@x\"\nmaildir = \"~/Mail\"\npassword_command = [\"p\"]\n{more}\n"
    )
}

#[test]
fn the_shortest_account_works() {
    let config =
        good("[account.personal]\nprovider = \"outlook\"\nemail = \"someone@outlook.com\"\nmaildir = \"~/Mail\"");
    let account = config.account("personal").unwrap();
    assert_eq!((account.host.as_str(), account.port, account.tls), ("imap-mail.outlook.com", 993, TlsMode::Implicit));
    assert_eq!(
        (account.provider, account.other_hosts.join(" ")),
        (Some(super::Provider::Outlook), "outlook.office365.com".into())
    );
    assert_eq!((account.username.as_str(), account.connections), ("someone@outlook.com", 3));
    assert_eq!(account.maildir, Path::new("/home/u/Mail"));
    let Auth::OAuth2(oauth) = &account.auth else { panic!("{:?}", account.auth) };
    assert_eq!(oauth.token_url, "https://login.microsoftonline.com/consumers/oauth2/v2.0/token");
    assert_eq!((oauth.client_id.as_deref(), oauth.username.as_deref()), (None, None));
    assert_eq!(oauth.scope, "https://outlook.office.com/IMAP.AccessAsUser.All offline_access openid profile email");
    for (name, within) in [
        ("INBOX", true),
        ("a/b", true),
        ("Outbox", false),
        ("Sync Issues/Conflicts", false),
        ("Kalender/x", false),
        ("Boîte d'envoi", false),
    ] {
        assert_eq!(account.mailboxes.matches(&name.into()), within, "{name}");
    }
    assert_eq!(config.daemon.state_dir, Path::new("/home/u/.local/state/postkeep"));
    assert_eq!(config.hooks, Hooks::default());
}

#[test]
fn every_key_is_understood() {
    let ca = tempfile::NamedTempFile::new().unwrap();
    let pin = "0b".repeat(32);
    let text = format!(
        r#"
[account.other]
host       = "127.0.0.1"
port       = 1143
tls        = "none"
tls_ca_file = "{}"
tls_pin    = ["sha256:{pin}"]
username   = "login-name"
email      = "someone@example.org"
auth       = "oauth2"
maildir    = "~/Mail/other"
layout     = "maildir++"
line_endings = "keep"
mailboxes  = ["*", "!Junk", "!Lists/**"]
watch      = ["INBOX", "Sent"]
connections = 2
poll_interval = "10m"
max_message_size = "25MB"
direction  = "pull"
append_retry_after = "1s"
compress   = true

[account.other.deletions]
on_server  = "keep"
on_local   = "trash"
graveyard  = "7d"
guard_count = 5
guard_share = 0.5

[account.other.oauth]
client_id  = "id"
scope      = "mail"
authorize_url = "http://127.0.0.1:1/a"
token_url  = "https://sign-in.example/t"
device_url = "http://[::1]:1/d"
token_store = "file"

[account.abc]
host = "h.example"
username = "u"
password_credential = "mail"
maildir = "/srv/mail"

[hooks]
changed    = ["notmuch", "new"]
new_mail   = ["n"]
attention  = ["a", "b"]

[daemon]
state_dir  = "/var/lib/postkeep"
socket     = "/run/s"
metrics_file = "/run/m"
"#,
        ca.path().display()
    );
    let config = good(&text);
    assert_eq!(config.accounts.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["abc", "other"]);
    let other = config.account("other").unwrap();
    let strings = [&other.host, &other.username, &other.email].map(String::as_str);
    assert_eq!(strings, ["127.0.0.1", "login-name", "someone@example.org"]);
    assert_eq!((other.port, other.tls, other.layout), (1143, TlsMode::None, Layout::PlusPlus));
    assert_eq!((other.line_endings, other.direction), (LineEndings::Keep, Direction::Pull));
    assert_eq!(other.tls_pins, [Digest([11; 32])]);
    assert_eq!(other.tls_ca_file.as_deref(), Some(ca.path()));
    assert_eq!((other.connections, other.max_message_size, other.compress), (2, 25_000_000, true));
    assert_eq!((other.poll_interval.as_secs(), other.append_retry_after.as_secs()), (600, 1));
    assert_eq!(other.watch, ["INBOX", "Sent"]);
    assert_eq!(
        other.deletions,
        Deletions {
            on_server: OnServer::Keep,
            on_local: OnLocal::Trash,
            graveyard: Duration::from_secs(7 * 86_400),
            guard_count: 5,
            guard_share: 0.5,
        }
    );
    let Auth::OAuth2(oauth) = &other.auth else { panic!("{:?}", other.auth) };
    assert_eq!((oauth.client_id.as_deref(), oauth.token_store), (Some("id"), TokenStore::File));
    assert_eq!(oauth.username.as_deref(), Some(other.username.as_str()));
    let abc = config.account("abc").unwrap();
    assert_eq!((abc.email.as_str(), abc.port, abc.append_retry_after.as_secs()), ("u", 993, 30));
    assert!(matches!(&abc.auth, Auth::Password(PasswordSource::Credential(name)) if name == "mail"));
    assert_eq!(config.hooks.attention, ["a", "b"]);
    assert_eq!(config.daemon.metrics_file.as_deref(), Some(Path::new("/run/m")));
}

#[test]
fn what_is_wrong_is_shown_at_its_place() {
    insta::assert_snapshot!(parse(&account("poll_intervall = \"5m\"")).unwrap_err(), @r#"
    c.toml:6:1: unknown key `poll_intervall`; did you mean `poll_interval`?
     6 | poll_intervall …
       | ^^^^^^^^^^^^^^
    "#);
    insta::assert_snapshot!(parse(&account("port = \"993\"")).unwrap_err(), @r#"
    c.toml:6:8: port: expected a whole number from 0 to 65535, found a string
     6 | port = "993"
       |        ^^^^^
    "#);
    insta::assert_snapshot!(parse(&account("zzz = 1")).unwrap_err(), @r#"
    c.toml:6:1: unknown key `zzz`; expected one of provider, host, port, tls, tls_ca_file, tls_pin, username, email, auth, password_command, password_file, password_credential, maildir, layout, line_endings, mailboxes, watch, connections, poll_interval, max_message_size, direction, append_retry_after, sweep_after, compress, deletions, oauth
     6 | zzz …
       | ^^^
    "#);
    insta::assert_snapshot!(parse(&account("layout = \"nestd\"")).unwrap_err(), @r#"
    c.toml:6:10: layout cannot be "nestd"; expected "nested", "maildir++"
     6 | layout = "nestd"
       |          ^^^^^^^
    "#);
    insta::assert_snapshot!(parse(&account("[account.a.deletions]\nguard_cout = 1\non_local = \"burn\"")).unwrap_err(), @r#"
    c.toml:7:1: unknown key `guard_cout`; did you mean `guard_count`?
     7 | guard_cout …
       | ^^^^^^^^^^
    c.toml:8:12: on_local cannot be "burn"; expected "auto", "trash", "expunge", "keep"
     8 | on_local = "burn"
       |            ^^^^^^
    "#);
    insta::assert_snapshot!(parse("[acount.a]\nhost = \"h\"").unwrap_err(), @r#"
    c.toml:1:2: unknown section `acount`; did you mean `account`?
     1 | [acount …
       |  ^^^^^^
    "#);
    insta::assert_snapshot!(parse("[account.a]\nhost = \"h\nemail = \"x\"").unwrap_err(), @r#"
    c.toml:2:10: invalid basic string, expected `"`
     2 | host = "h
       |          ^
    "#);
    insta::assert_snapshot!(parse("").unwrap_err(), @r#"
    c.toml:1:1: no account; a configuration has at least one section [account.NAME]
     1 | 
       | ^
    "#);
}

#[test]
fn everything_wrong_is_told_at_once() {
    let text = "[account.a]\nhost = 5\nprot = 993\nmailboxes = [\"*\", 7]\n\n[account.b]\ndirection = \"push\"\n\n[daemon]\nsocket = true\n";
    insta::assert_snapshot!(parse(text).unwrap_err(), @r#"
    c.toml:2:8: host: expected a string, found a number
     2 | host = 5
       |        ^
    c.toml:3:1: unknown key `prot`; did you mean `port`?
     3 | prot …
       | ^^^^
    c.toml:4:19: mailboxes: expected a string, found a number
     4 | mailboxes = ["*", 7 …
       |                   ^
    c.toml:7:13: direction cannot be "push"; expected "both", "pull"
     7 | direction = "push"
       |             ^^^^^^
    c.toml:10:10: socket: expected a string, found true or false
     10 | socket = true
        |          ^^^^
    "#);
    let text =
        "[account.a]\nhost = \"mail.example.org\"\ntls = \"none\"\nmaildir = \"Mail\"\nport = 0\nauth = \"password\"\n";
    insta::assert_snapshot!(parse(text).unwrap_err(), @r#"
    c.toml:1:10: an account needs the key `email`, or `username`
     1 | [account.a …
       |          ^
    c.toml:1:10: an account with a password needs one of password_command, password_file, password_credential
     1 | [account.a …
       |          ^
    c.toml:3:7: tls = "none" would send the password to mail.example.org for all to read; it is for loopback addresses only
     3 | tls = "none"
       |       ^^^^^^
    c.toml:4:11: a relative path means something else in every directory; begin it with / or ~/
     4 | maildir = "Mail"
       |           ^^^^^^
    c.toml:5:8: port is a number from 1 to 65535
     5 | port = 0
       |        ^
    "#);
}

#[test]
fn values_that_make_no_sense() {
    let rows = [
        ("port = -1", "6:8: port: expected a whole number from 0 to 65535, found a negative number"),
        ("port = 70000", "6:8: port: expected a whole number from 0 to 65535, found a number"),
        ("connections = 0", "6:15: connections is a number from 1 to 32"),
        ("connections = 2.5", "6:15: connections: expected a whole number, found a number with a fraction"),
        ("compress = \"yes\"", "6:12: compress: expected true or false, found a string"),
        ("mailboxes = \"*\"", "6:13: mailboxes: expected a list, found a string"),
        ("mailboxes = []", "6:13: an empty list lets no mailbox in; leave `mailboxes` out for all of them"),
        ("mailboxes = [\"*\", \"!\"]", "6:19: an empty pattern matches nothing"),
        (
            "poll_interval = \"5 minutes\"",
            "6:17: poll_interval: expected a duration such as \"30s\", \"5m\", \"2h\" or \"30d\"",
        ),
        ("poll_interval = 300", "6:17: poll_interval: expected a string, found a number"),
        ("append_retry_after = \"0s\"", "6:22: append_retry_after is at least \"1s\""),
        (
            "max_message_size = \"big\"",
            "6:20: max_message_size: expected a size such as \"25MB\", \"1GB\" or \"512KiB\"",
        ),
        ("max_message_size = \"0B\"", "6:20: max_message_size must be more than nothing"),
        (
            "tls_pin = [\"sha1:00\"]",
            "6:11: tls_pin: expected \"sha256:\" and the digest of the server's public key, in hexadecimal or base64",
        ),
        ("tls_ca_file = \"/nowhere/ca.pem\"", "6:15: cannot find /nowhere/ca.pem: there is no such file"),
        ("tls_ca_file = \"$NONE/ca.pem\"", "6:15: $NONE is not set"),
        (
            "password_file = \"/nowhere\"",
            "6:17: only one of password_command, password_file and password_credential can be used",
        ),
        ("provider = \"gmail\"", "6:12: provider cannot be \"gmail\"; expected \"outlook\""),
        (
            "auth = \"oauth2\"",
            "1:10: auth = \"oauth2\" needs a section [account.NAME.oauth] with client_id, scope, token_url and authorize_url or device_url",
        ),
        (
            "[account.a.oauth]\nclient_id = \"x\"",
            "6:1: a section [account.NAME.oauth] needs auth = \"oauth2\" in [account.NAME]",
        ),
        ("deletions = 5", "6:13: deletions: expected a table, found a number"),
        ("[account.a.deletions]\nguard_share = 1.5", "7:15: guard_share is a part of the mailbox, from 0 to 1"),
        ("[account.a.deletions]\nguard_share = \"a\"", "7:15: guard_share: expected a number, found a string"),
        (
            "[account.a.deletions]\ngraveyard = \"x\"",
            "7:13: graveyard: expected a duration such as \"30s\", \"5m\", \"2h\" or \"30d\"",
        ),
        ("[hooks]\nchanged = []", "7:11: a hook is a program and its arguments"),
        ("[hooks]\nchanged = \"notmuch new\"", "7:11: changed: expected a list, found a string"),
        (
            "[daemon]\nstate_dir = \"state\"",
            "7:13: a relative path means something else in every directory; begin it with / or ~/",
        ),
        (
            "[daemon]\nstate_dir = \"~/Mail/.state\"",
            "7:13: the maildir of account a and the state directory /home/u/Mail/.state must not be inside each other",
        ),
    ];
    for (more, error) in rows {
        let found = parse(&account(more)).unwrap_err();
        let first = found.lines().next().unwrap();
        let second = found.lines().filter(|l| l.starts_with("c.toml")).nth(1).unwrap_or_default();
        let expected = format!("c.toml:{error}");
        assert!(first == expected || second == expected, "{more}\nexpected {expected}\nfound    {found}");
    }
}

#[test]
fn accounts_that_make_no_sense() {
    let rows = [
        (
            "[account.\"a b\"]\nprovider = \"outlook\"\nemail = \"e@x\"\nmaildir = \"/m\"",
            "1:10: the name of an account becomes a file name: use letters, digits, - and _ only",
        ),
        (
            "[account.\"../a\"]\nprovider = \"outlook\"\nemail = \"e@x\"\nmaildir = \"/m\"",
            "1:10: the name of an account becomes a file name: use letters, digits, - and _ only",
        ),
        (
            "[account.a]\nprovider = \"outlook\"\nmaildir = \"/m\"",
            "1:10: an account needs the key `email`, or `username`",
        ),
        ("[account.a]\nprovider = \"outlook\"\nemail = \"e@x\"", "1:10: account a needs the key `maildir`"),
        (
            "[account.a]\nemail = \"e@x\"\nmaildir = \"/m\"\npassword_command = [\"p\"]",
            "1:10: an account needs `host`, or `provider = \"outlook\"`",
        ),
        (
            "[account.a]\nhost = \"h\"\nemail = \"e@x\"\nmaildir = \"/m\"",
            "1:10: an account with a password needs one of password_command, password_file, password_credential",
        ),
        (
            "[account.a]\nhost = \"h:993\"\nemail = \"e\"\nmaildir = \"/m\"\npassword_command = [\"p\"]",
            "2:8: host is a name or an address and nothing else, such as \"imap.example.org\"",
        ),
        (
            "[account.a]\nprovider = \"outlook\"\nemail = \"e\"\nmaildir = \"/m\"\nauth = \"password\"",
            "5:8: Outlook.com has refused passwords since September 2024; leave `auth` out, and sign in with: postkeep login a",
        ),
        (
            "[account.a]\nprovider = \"outlook\"\nemail = \"e\"\nmaildir = \"/m\"\npassword_credential = \"c\"",
            "5:23: Outlook.com has refused passwords since September 2024; leave this out, and sign in with: postkeep login a",
        ),
        (
            "[account.a]\nprovider = \"outlook\"\nemail = \"e\"\nmaildir = \"/m\"\nconnections = 4",
            "5:15: connections is a number from 1 to 3",
        ),
        (
            "[account.a]\nprovider = \"outlook\"\nemail = \"e\"\nmaildir = \"/m\"\noauth.token_url = \"http://sign-in.example/\"",
            "5:19: expected an address that begins with https:// (http:// only on loopback)",
        ),
        (
            "[account.a]\nprovider = \"outlook\"\nemail = \"e\"\nmaildir = \"/m\"\noauth.token_url = \"http://127.0.0.1@evil.example/\"",
            "5:19: expected an address that begins with https:// (http:// only on loopback)",
        ),
        (
            "[account.a]\nprovider = \"outlook\"\nemail = \"e\"\nmaildir = \"/m\"\noauth.tenant = \"../x\"",
            "5:16: tenant is consumers, common, organizations or a tenant id",
        ),
        ("[account]\na = 5", "2:5: expected a section such as [account.NAME], found a number"),
        ("account = 5", "1:11: expected a section such as [account.NAME], found a number"),
    ];
    for (text, error) in rows {
        let found = parse(text).unwrap_err();
        assert_eq!(found.lines().next().unwrap(), format!("c.toml:{error}"), "{found}");
    }
}

#[test]
fn no_two_accounts_share_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("real")).unwrap();
    std::os::unix::fs::symlink(root.join("real"), root.join("link")).unwrap();
    let rows = [
        ("a", "a", Some("account x has this directory already")),
        ("a", "b/../a/.", Some("account x has this directory already")),
        ("real", "link", Some("account x has this directory already")),
        ("a", "a/b", Some("one of this directory and that of account x is inside the other")),
        ("link/b/c", "real/b", Some("one of this directory and that of account x is inside the other")),
        ("a", "ab", None),
        ("a/b", "a/c", None),
    ];
    for (x, y, error) in rows {
        let dir = |name: &str| root.join(name).display().to_string();
        let text = format!("account.x = {{ {BASIC}'{}' }}\naccount.y = {{ {BASIC}'{}' }}\n", dir(x), dir(y));
        match (parse(&text), error) {
            (Ok(_), None) => {}
            (Err(found), Some(error)) => {
                assert!(found.starts_with("c.toml:2:") && found.contains(error), "{x} {y}: {found}");
            }
            (found, _) => panic!("{x} {y}: {found:?}"),
        }
    }
}

#[test]
fn only_loopback_goes_without_tls() {
    for host in ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"] {
        good(&format!("account.a = {{ tls='none', {} '/m' }}", BASIC.replace("h.example", host)));
    }
    for host in ["10.0.0.1", "localhost.example.org", "example.org", "::2", "0.0.0.0", "128.0.0.1"] {
        let text = format!("account.a = {{ tls='none', {} '/m' }}", BASIC.replace("h.example", host));
        assert!(parse(&text).unwrap_err().contains("it is for loopback addresses only"), "{host}");
    }
}

#[test]
fn who_only_excludes_keeps_the_excludes_of_the_provider() {
    let of = |patterns: &str| {
        let text = format!("account.a = {{ provider='outlook', email='e', maildir='/m', mailboxes={patterns} }}");
        good(&text).accounts[0].mailboxes.clone()
    };
    let rows =
        [("['!Junk']", [true, false, false]), ("['**']", [true, true, true]), ("['INBOX']", [true, false, false])];
    for (patterns, within) in rows {
        let names = ["INBOX", "Outbox", "Junk"];
        assert_eq!(names.map(|name| of(patterns).matches(&name.into())), within, "{patterns}");
    }
}

#[test]
fn the_scope_tells_what_could_look_like_a_deletion() {
    let base = good(&account("")).accounts[0].clone();
    let same = |change: &dyn Fn(&mut Account)| {
        let mut other = base.clone();
        change(&mut other);
        other.scope() == base.scope()
    };
    assert!(!same(&|a| a.maildir = "/other".into()));
    assert!(!same(&|a| a.host = "other".into()));
    assert!(!same(&|a| a.username = "other".into()));
    assert!(!same(&|a| a.layout = Layout::PlusPlus));
    assert!(!same(&|a| a.max_message_size = 1));
    assert!(!same(&|a| a.mailboxes = Filter::new(vec![Pattern::new("*").unwrap()])));
    assert!(same(&|a| a.connections = 1));
    assert!(same(&|a| a.poll_interval = Duration::from_secs(1)));
    assert_eq!(
        base.scope(),
        "host \"h.example\"\nusername \"e@x\"\nmaildir \"/home/u/Mail\"\nlayout nested\nmax_message_size 256000000\n"
    );
}

/// People write passwords where they hope that they belong; the complaint ends up in a log.
#[test]
fn no_complaint_repeats_a_secret() {
    let rows = [
        "password = \"hunter2\"",
        "passwd = 'hunter2' # hunter2",
        "client_secret = \"hunter2\"",
        "password_command = \"echo hunter2\"",
        "password_command = [\"echo\", \"hunter2\", 5]",
        "password_command = [\"hunter2\",\n  \"hunter2\", 5]",
        "password_credential = [\"hunter2\"]",
        "password = \"hunter2",
        "my.token = \"hunter2\"",
    ];
    for row in rows {
        let text = format!("[account.a]\nhost = \"h\"\nemail = \"e\"\nmaildir = \"/m\"\n{row}\n");
        let problems = Config::parse(&text, &env).unwrap_err();
        let error = Error::Invalid { path: "c.toml".into(), problems };
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn no_setting_prints_the_arguments_of_the_password_program() {
    let config = good("account.a = { host='h', email='e', maildir='/m', password_command=['echo', 'hunter2'] }");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let root = tempfile::tempdir().unwrap();
    let error = Config::load(Some(&root.path().join("none.toml"))).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }) && error.to_string().contains("none.toml"), "{error}");
    let error = Config::load(Some(root.path())).unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error}");
}

proptest::proptest! {
    /// Whatever is done to a file that was right, it is understood or refused, and each complaint has a place in it.
    #[test]
    fn no_text_is_too_wrong(at in 0_usize..400, cut in 0_usize..40, paste in "[\\[\\]=\"'\\.{}a-z5é\n\t ]{0,12}") {
        let text = account("mailboxes = [\"*\", \"!Jünk\"]\npoll_interval = \"5m\"\n[account.a.deletions]\nguard_share = 0.5");
        let boundary = |n: usize| (0..=n.min(text.len())).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
        let changed = format!("{}{paste}{}", &text[..boundary(at)], &text[boundary(at + cut)..]);
        if let Err(problems) = Config::parse(&changed, &env) {
            proptest::prop_assert!(!problems.is_empty());
            for problem in problems {
                let line = changed.split('\n').nth(problem.line - 1);
                proptest::prop_assert!(line.is_some_and(|line| problem.column <= line.chars().count() + 1), "{problem}");
            }
        }
    }
}
