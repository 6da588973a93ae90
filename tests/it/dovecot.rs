//! A private Dovecot on loopback, with everything it writes in a temporary directory.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::proxy::Proxy;
use crate::reader::Reader;

/// The password of every user.
pub const PASSWORD: &str = "bench";

/// What the server announces, and so understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// Everything that Dovecot has.
    Full,
    /// No QRESYNC.
    NoQresync,
    /// No QRESYNC, no CONDSTORE.
    NoCondstore,
    /// No UIDPLUS, no MOVE.
    NoUidplus,
}

impl Profile {
    /// Every profile, for tests that run over all of them.
    pub const ALL: [Self; 4] = [Self::Full, Self::NoQresync, Self::NoCondstore, Self::NoUidplus];

    const fn hidden(self) -> &'static [&'static str] {
        match self {
            Self::Full => &[],
            Self::NoQresync => &["QRESYNC"],
            Self::NoCondstore => &["QRESYNC", "CONDSTORE"],
            Self::NoUidplus => &["UIDPLUS", "MOVE"],
        }
    }

    /// Returns the line that announces less. It hides only; the proxy in front refuses.
    fn capability(self) -> String {
        const KNOWN: &str = "IMAP4rev1 LITERAL+ SASL-IR ID ENABLE IDLE UNSELECT CHILDREN NAMESPACE UIDPLUS MOVE \
                             LIST-EXTENDED LIST-STATUS SPECIAL-USE MULTIAPPEND ESEARCH CONDSTORE QRESYNC";
        let left: Vec<&str> = KNOWN.split(' ').filter(|c| !self.hidden().contains(c)).collect();
        if self == Self::Full { String::new() } else { format!("imap_capability = {}", left.join(" ")) }
    }
}

/// How a Dovecot is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What it announces.
    pub profile: Profile,
    /// The format of its store: `maildir` or `sdbox`.
    pub format: &'static str,
    /// The hierarchy separator.
    pub separator: char,
    /// The prefix of the personal namespace, as `INBOX.`.
    pub prefix: &'static str,
}

impl From<Profile> for Options {
    fn from(profile: Profile) -> Self {
        Self { profile, format: "maildir", separator: '/', prefix: "" }
    }
}

/// A running Dovecot behind a [`Proxy`]; stopped when it is dropped. When the test fails, its log is shown.
pub struct Dovecot {
    /// The proxy, which logs and can make replies fail.
    pub proxy: Proxy,
    process: Process,
}

impl Dovecot {
    /// Starts a server and waits until it lets a user in.
    pub fn start(options: impl Into<Options>) -> Self {
        let options = options.into();
        // Another process may take a free port between our choice and Dovecot's bind.
        let process = (0..3).find_map(|_| Process::start(&options)).expect("Dovecot did not start; its log is above");
        let proxy = Proxy::start(process.port, options.profile.hidden());
        Self { proxy, process }
    }

    /// Returns the port on 127.0.0.1, plain.
    pub fn port(&self) -> u16 {
        self.proxy.port()
    }

    /// Returns the port that speaks TLS with a certificate for `localhost` and 127.0.0.1; no proxy is in front of it.
    pub fn tls_port(&self) -> u16 {
        self.process.tls_port
    }

    /// Returns the certificate of the authority that signed the server's.
    pub fn ca_file(&self) -> PathBuf {
        self.process.dir.path().join("ca.pem")
    }

    /// Returns the directory that has the mail of `user`.
    pub fn store(&self, user: &str) -> PathBuf {
        self.process.dir.path().join("users").join(user).join("mail")
    }

    /// Connects past the proxy, as another client.
    pub fn login(&self, user: &str) -> Reader {
        Reader::login(self.process.port, user, PASSWORD).unwrap()
    }

    /// Runs doveadm, which must succeed, and returns what it printed.
    #[track_caller]
    pub fn doveadm(&self, args: &[&str]) -> String {
        let config = self.process.dir.path().join("dovecot.conf");
        let output = Command::new(program("doveadm")).arg("-c").arg(config).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "doveadm {args:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

struct Process {
    dir: tempfile::TempDir,
    child: Child,
    port: u16,
    tls_port: u16,
}

impl Process {
    /// Starts the server; `None` if it ended or did not let a user in within 20 seconds.
    fn start(options: &Options) -> Option<Self> {
        let dir = crate::account::scratch("dovecot");
        // Its processes run as other users, who must get through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("users")).unwrap();
        make_certificates(dir.path());
        let [port, tls_port] = free_ports();
        let config = dir.path().join("dovecot.conf");
        fs::write(&config, configuration(dir.path(), options, port, tls_port)).unwrap();
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = owner();
            std::os::unix::fs::chown(dir.path().join("users"), Some(uid), Some(gid)).unwrap();
        }
        let errors = fs::File::create(dir.path().join("stderr")).unwrap();
        let mut command = Command::new(program("dovecot"));
        command
            .process_group(0)
            .arg("-F")
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        let mut process = Self { child: command.spawn().unwrap(), dir, port, tls_port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline && process.child.try_wait().unwrap().is_none() {
            if process.answers() {
                return Some(process);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        process.show_log();
        None
    }

    /// Tells whether it greets on both ports and lets a user in.
    fn answers(&self) -> bool {
        let listens = TcpStream::connect((Ipv4Addr::LOCALHOST, self.tls_port)).is_ok();
        listens && Reader::login(self.port, "first", PASSWORD).is_ok()
    }

    fn show_log(&self) {
        for name in ["stderr", "dovecot.log"] {
            let Ok(file) = fs::File::open(self.dir.path().join(name)) else { continue };
            BufReader::new(file).lines().map_while(io::Result::ok).for_each(|line| eprintln!("{name}: {line}"));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_log();
        }
        // Killed with all its processes, which are a group of their own: an orderly stop takes a second, and nothing
        // that they keep is needed any more.
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn configuration(dir: &Path, options: &Options, port: u16, tls_port: u16) -> String {
    let dir = dir.display();
    let (uid, gid) = owner();
    let Options { profile, format, separator, prefix } = options;
    let capability = profile.capability();
    // Without root there is one user for everything, and no chroot.
    let (user, chroot) = match rustix::process::geteuid().is_root() {
        true => (String::new(), ""),
        false => {
            let (user, group) = (name_of("/etc/passwd", uid), name_of("/etc/group", gid));
            let lines = format!(
                "default_internal_user = {user}\ndefault_login_user = {user}\ndefault_internal_group = {group}\n"
            );
            (lines, "chroot =")
        }
    };
    format!(
        "base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/dovecot.log
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <{dir}/cert.pem
ssl_key = <{dir}/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain
first_valid_uid = 1
mail_fsync = never
mail_max_userip_connections = 100
mail_location = {format}:~/mail
{capability}
{user}
passdb {{
  driver = static
  args = password={PASSWORD}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={dir}/users/%u
}}
namespace inbox {{
  inbox = yes
  separator = {separator}
  prefix = {prefix}
  mailbox Trash {{
    special_use = \\Trash
  }}
  mailbox Sent {{
    special_use = \\Sent
  }}
  mailbox Drafts {{
    special_use = \\Drafts
  }}
}}
service imap-login {{
  service_count = 0
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
  {chroot}
}}
service anvil {{
  {chroot}
}}
service stats {{
  {chroot}
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"
    )
}

/// Makes an authority (`ca.pem`) and a certificate of it for loopback (`cert.pem`, `key.pem`) in `dir`.
fn make_certificates(dir: &Path) {
    let extensions = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
    fs::write(dir.join("extensions"), extensions).unwrap();
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let steps = [
        format!("req -x509 {KEY} -keyout ca.key -out ca.pem -days 30 -subj /CN=test-authority"),
        format!("req {KEY} -keyout key.pem -out request.pem -subj /CN=localhost"),
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out cert.pem"
            .to_owned(),
    ];
    for step in steps {
        let output = Command::new(program("openssl")).args(step.split(' ')).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "openssl {step}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|l| l.local_addr().unwrap().port())
}

/// Returns the user and the group that own the mail: ours, or those of `mail` if we are root.
fn owner() -> (u32, u32) {
    if rustix::process::geteuid().is_root() {
        return (id_of("/etc/passwd", "mail"), id_of("/etc/group", "mail"));
    }
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn id_of(file: &str, name: &str) -> u32 {
    let text = fs::read_to_string(file).unwrap();
    let id = |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.split(':').nth(1)?.parse().ok();
    text.lines().find_map(id).unwrap_or_else(|| panic!("no {name} in {file}"))
}

fn name_of(file: &str, id: u32) -> String {
    let text = fs::read_to_string(file).unwrap();
    let found = text.lines().find(|line| line.split(':').nth(2) == Some(&id.to_string()));
    found.and_then(|line| line.split(':').next()).unwrap_or_else(|| panic!("no {id} in {file}")).to_owned()
}

/// Returns the path of a program, which may be where only root looks.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    dirs.map(|d| d.join(name)).find(|p| p.exists()).unwrap_or_else(|| panic!("{name} is not installed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn each_profile_keeps_a_message_and_refuses_what_it_hides() {
        let commands = [
            ("QRESYNC", "ENABLE QRESYNC"),
            ("CONDSTORE", "SELECT INBOX (CONDSTORE)"),
            ("CONDSTORE", "UID FETCH 1 MODSEQ"),
            ("UIDPLUS", "UID EXPUNGE 9"),
            ("MOVE", "UID MOVE 9 INBOX"),
        ];
        for profile in Profile::ALL {
            let dovecot = Dovecot::start(profile);
            let mut reader = Reader::login(dovecot.port(), "u", PASSWORD).unwrap();
            reader.append("INBOX", "\\Seen Work", "29-Feb-2000 01:00:00 +0100", b"Subject: a\r\n\r\nb\r\n");
            let mails = reader.mails("INBOX");
            assert_eq!(mails.len(), 1, "{profile:?}");
            assert_eq!((mails[0].1.bytes.as_slice(), mails[0].1.date), (&b"Subject: a\r\n\r\nb\r\n"[..], 951_782_400));
            assert_eq!(mails[0].1.flags, crate::reader::flags(["\\Seen", "Work"]));
            let capability = String::from_utf8(reader.ok("CAPABILITY").concat()).unwrap();
            reader.ok("SELECT INBOX");
            for (needs, command) in commands {
                let hidden = profile.hidden().contains(&needs);
                assert_eq!(capability.contains(needs), !hidden, "{profile:?} {capability}");
                assert_eq!(reader.command(command).unwrap().1.starts_with("BAD"), hidden, "{profile:?} {command}");
            }
            // This Dovecot tells it only to those who have asked for CONDSTORE once.
            let select = String::from_utf8(reader.ok("SELECT INBOX").concat()).unwrap();
            let tells = !profile.hidden().contains(&"CONDSTORE");
            assert_eq!(select.contains("HIGHESTMODSEQ"), tells, "{profile:?}");
            assert_eq!(
                dovecot.proxy.refused().len(),
                commands.iter().filter(|c| profile.hidden().contains(&c.0)).count()
            );
            assert_eq!(dovecot.doveadm(&["mailbox", "status", "-u", "u", "messages", "INBOX"]), "INBOX messages=1\n");
        }
    }

    #[test]
    fn formats_and_namespaces() {
        let dovecot =
            Dovecot::start(Options { format: "sdbox", separator: '.', prefix: "INBOX.", ..Profile::Full.into() });
        let mut reader = dovecot.login("u");
        reader.ok("CREATE INBOX.Lists.rust");
        reader.ok("CREATE INBOX.Trash");
        let names = reader.mailboxes();
        assert!(names.contains(&"INBOX.Lists.rust".to_owned()), "{names:?}");
        let list = String::from_utf8(reader.ok("LIST (SPECIAL-USE) \"\" *").concat()).unwrap();
        assert!(list.contains("\\Trash"), "{list}");
        assert!(dovecot.store("u").join("mailboxes").exists());
    }

    #[test]
    fn its_certificate_is_for_loopback() {
        let dovecot = Dovecot::start(Profile::Full);
        let mut child = Command::new(program("openssl"))
            .args(["s_client", "-verify_return_error", "-verify_ip", "127.0.0.1", "-quiet", "-CAfile"])
            .arg(dovecot.ca_file())
            .arg("-connect")
            .arg(format!("127.0.0.1:{}", dovecot.tls_port()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut greeting = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut greeting).unwrap();
        child.stdin.take().unwrap().write_all(b"a LOGOUT\r\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(greeting.starts_with("* OK"), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
