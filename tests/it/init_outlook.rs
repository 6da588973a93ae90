//! `postkeep init` for an address at Outlook.com, on a terminal, from the first question to mail that is mirrored.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use postkeep_sim::oauth::DeviceState;
use postkeep_sim::{Ca, OAuth, Options, Profile, Server};

use crate::account::scratch;
use crate::faults_scene::{DATE, mail, mail_here};
use crate::oauth::visit;
use crate::terminal::Talk;

/// Outlook.com, simulated, and the home of somebody who has a mailbox there.
struct World {
    home: tempfile::TempDir,
    server: Server,
    oauth: OAuth,
    ca_file: PathBuf,
}

/// What the service manager does.
const WORKS: &str = "exit 0";

impl World {
    /// Makes one in which `systemctl` runs these commands.
    fn new(systemctl: &str) -> Self {
        Self::with(systemctl, |server, _| OAuth::spawn(server, None).unwrap())
    }

    fn with(systemctl: &str, spawn: impl Fn(&Server, &Ca) -> OAuth) -> Self {
        let home = scratch("init-outlook");
        let ca = Ca::new().unwrap();
        let server = Server::spawn(Options::from(Profile::Exo2026).tls(&ca)).unwrap();
        server.state().append("INBOX", &mail(1), &[], DATE);
        let oauth = spawn(&server, &ca);
        oauth.directory().user = "user@outlook.com".to_owned();
        oauth.directory().client_id = Some("client".to_owned());
        let ca_file = ca.write_to(home.path()).unwrap();
        let bin = home.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let script = bin.join("systemctl");
        fs::write(&script, format!("#!/bin/sh\necho \"$*\" >>\"$HOME/told\"\n{systemctl}\n")).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Self { home, server, oauth, ca_file }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    fn config(&self) -> PathBuf {
        self.path(".config/postkeep/config.toml")
    }

    fn unit(&self) -> PathBuf {
        self.path(".config/systemd/user/postkeep.service")
    }

    /// Returns the arguments that `systemctl` was called with.
    fn told(&self) -> Vec<String> {
        let told = fs::read_to_string(self.path("told")).unwrap_or_default();
        told.lines().map(ToOwned::to_owned).collect()
    }

    /// Returns a command of the program, as if its service were Microsoft's, under a umask.
    fn command(&self, umask: &str, args: &[&str]) -> Command {
        let mut command = Command::new("sh");
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_postkeep")]).args(args);
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let (port, ca_file, authority) = (self.server.port(), self.ca_file.display(), self.oauth.authority());
        let outlook = format!("localhost|{port}|{ca_file}|{authority}");
        command.env_clear().env("HOME", self.home.path()).env("PATH", path).env("POSTKEEP_OUTLOOK", outlook);
        command
    }

    /// Answers all questions up to the sign-in.
    fn begin(&self, args: &[&str]) -> Talk {
        let mut talk = Talk::start(self.command("022", &[&["init"][..], args].concat()));
        talk.answer("Your address: ", "user@outlook.com");
        talk.answer("client_id: ", "client");
        talk.answer("A name for the account [personal]: ", "");
        talk.answer("The directory for its mail [~/Mail/personal]: ", "");
        talk
    }

    /// Signs in by the browser that the user is asked to open.
    fn signs_in(&self, talk: &mut Talk) -> String {
        talk.expect("To sign in, open this address in a browser on this machine:\n\n    ");
        visit(talk.expect("\n").trim())
    }

    /// Sees what was written work: mail comes.
    #[track_caller]
    fn assert_usable(&self) {
        assert_eq!(mode(&self.config()), 0o600);
        let sync = self.command("022", &["sync"]).stdin(Stdio::null()).output().unwrap();
        assert_eq!(sync.status.code(), Some(0), "{sync:?}");
        let new = self.path("Mail/personal/INBOX/new");
        let files: Vec<_> = fs::read_dir(new).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
        assert_eq!(files, [mail_here(1)]);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn from_the_address_to_the_service() {
    for umask in ["000", "777"] {
        let world = World::new(WORKS);
        let mut talk = Talk::start(world.command(umask, &["init"]));
        let again = "That cannot be used; try again.\n";
        talk.answer("Your address: ", "user at outlook.com");
        talk.expect(again);
        talk.answer("Your address: ", "user@outlook.com");
        let said = talk.expect("client_id: ");
        for words in [
            "Outlook.com takes no passwords; you sign in with a browser.",
            "Register an app at https://entra.microsoft.com (App registrations): account types with personal Microsoft accounts",
            "platform \"Mobile and desktop applications\" with the redirect address http://localhost",
            "public client flows allowed.",
            "Its \"Application (client) ID\" is the client_id.",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        talk.answer("", "");
        talk.expect(again);
        talk.answer("client_id: ", "client");
        talk.answer("A name for the account [personal]: ", "../personal");
        talk.expect(again);
        talk.answer("A name for the account [personal]: ", "");
        talk.answer("The directory for its mail [~/Mail/personal]: ", "~/.local/state");
        talk.expect("That cannot be used: the maildir of account personal and the state directory ");
        talk.expect("; try again.\n");
        talk.answer("The directory for its mail [~/Mail/personal]: ", "");

        let page = world.signs_in(&mut talk);
        assert!(
            page.contains("You are signed in") && page.contains("go back to your terminal, where it goes on"),
            "{page}"
        );
        talk.expect("(With a browser on another machine: postkeep init --device)\n");
        talk.expect("Signed in to personal as user@outlook.com; the sign-in is kept in ");
        talk.expect("These mailboxes will be mirrored: Archive, Deleted, Drafts, INBOX, Junk, Sent\n");
        talk.expect("These are left out, since they hold no mail: Notes, Outbox\n");
        talk.expect("[account.personal]\nprovider = \"outlook\"\nemail = \"user@outlook.com\"\n");
        assert!(!world.config().exists());
        let question = format!("Write this to {}? [yes]: ", world.config().display());
        talk.answer(&question, "perhaps");
        talk.expect(again);
        talk.answer(&question, "");
        talk.expect("config.toml is written.\n");
        assert_eq!(world.told(), Vec::<String>::new());
        talk.answer("Mirror all the time, by a service of systemd? [no]: ", "yes");
        talk.expect(&format!("{} is written, and the daemon runs.\n", world.unit().display()));
        assert_eq!(talk.end(), 0, "{}", talk.shown);

        assert_eq!(world.told(), ["--user daemon-reload", "--user enable --now postkeep.service"]);
        let unit = fs::read_to_string(world.unit()).unwrap();
        assert!(unit.contains(&format!("ExecStart={} run\n", env!("CARGO_BIN_EXE_postkeep"))), "{unit}");
        assert_eq!((mode(&world.config()), mode(&world.unit())), (0o600, 0o600), "umask {umask}");
        for directory in [world.config(), world.unit()] {
            assert_eq!(mode(directory.parent().unwrap()), 0o700, "umask {umask}");
        }
        assert_eq!(mode(&world.path(".local/state/postkeep/personal.token")), 0o600);
        assert!(world.server.commands().iter().all(|command| !command.changes()));
        assert_eq!((world.server.violations(), world.oauth.violations()), (vec![], vec![]));
        world.assert_usable();
    }
}

#[test]
fn without_the_service_the_next_step_is_told() {
    // With the browser on another machine, and everything encrypted.
    let world = World::with(WORKS, |server, ca| {
        let oauth = OAuth::spawn(server, Some(ca)).unwrap();
        (oauth.directory().interval, oauth.directory().decides) = (1, DeviceState::Approved);
        oauth
    });
    let mut talk = world.begin(&["--device"]);
    talk.expect("https://www.microsoft.com/link");
    talk.expect("Signed in to personal as user@outlook.com");
    talk.answer("config.toml? [yes]: ", "y");
    talk.answer("Mirror all the time, by a service of systemd? [no]: ", "");
    talk.expect("Next: postkeep sync personal --dry-run, which only tells what would be done\n");
    assert_eq!(talk.end(), 0, "{}", talk.shown);
    assert_eq!(world.told(), Vec::<String>::new());
    assert!(!world.unit().exists());
    world.assert_usable();
}

#[test]
fn a_service_that_does_not_start_leaves_an_account_that_works() {
    let rows = [
        (
            "echo 'Failed to connect to bus: No medium found' >&2; exit 1",
            "systemctl --user daemon-reload failed: Failed to connect to bus",
        ),
        (
            "case \"$*\" in *enable*) echo 'Job for postkeep.service failed.' >&2; exit 1; esac",
            "systemctl --user enable --now postkeep.service failed: Job for postkeep.service failed.",
        ),
    ];
    for (script, words) in rows {
        let world = World::new(script);
        // A unit that others may read is made private again.
        fs::create_dir_all(world.unit().parent().unwrap()).unwrap();
        fs::write(world.unit(), "[Service]\n").unwrap();
        fs::set_permissions(world.unit(), fs::Permissions::from_mode(0o644)).unwrap();
        let mut talk = world.begin(&[]);
        world.signs_in(&mut talk);
        talk.answer("config.toml? [yes]: ", "");
        talk.answer("by a service of systemd? [no]: ", "y");
        talk.expect(words);
        talk.expect("The account can be used all the same: postkeep sync personal, or all the time: postkeep run\n");
        talk.expect("When that is put right: postkeep service install\n");
        assert_eq!(talk.end(), 1, "{}", talk.shown);
        assert_eq!(mode(&world.unit()), 0o600);
        world.assert_usable();
        // What was said helps.
        fs::write(world.path("bin/systemctl"), "#!/bin/sh\nexit 0\n").unwrap();
        let install = world.command("022", &["service", "install"]).output().unwrap();
        assert!(install.status.success(), "{install:?}");
    }
}

#[test]
fn a_sign_in_that_fails_can_be_made_again() {
    let world = World::new(WORKS);
    world.oauth.directory().denial = Some("AADSTS65004: User declined to consent.".to_owned());
    let mut talk = world.begin(&[]);
    let page = world.signs_in(&mut talk);
    assert!(page.contains("You are not signed in") && page.contains("<pre>postkeep init</pre>"), "{page}");
    talk.expect("the sign-in of account personal was declined");
    talk.answer("Sign in once more? [yes]: ", "");
    world.signs_in(&mut talk);
    talk.answer("Sign in once more? [yes]: ", "no");
    talk.expect("no configuration was written\n");
    assert_eq!(talk.end(), 3, "{}", talk.shown);
    assert!(!talk.shown.contains("postkeep login"), "{}", talk.shown);
    assert!(!world.config().exists());

    // Who thinks better of it is in.
    let mut talk = world.begin(&[]);
    world.signs_in(&mut talk);
    world.oauth.directory().denial = None;
    talk.answer("Sign in once more? [yes]: ", "y");
    world.signs_in(&mut talk);
    talk.answer("config.toml? [yes]: ", "");
    talk.answer("by a service of systemd? [no]: ", "n");
    assert_eq!(talk.end(), 0, "{}", talk.shown);
    world.assert_usable();
}
