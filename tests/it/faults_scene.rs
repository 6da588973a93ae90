//! What the tests of faults share: a mirrored account to which something happens, and how it must look afterwards.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use postkeep_sim::{Fault, Profile, Server, When};
use sha2::{Digest as _, Sha256};

use crate::account::{Account, Output, Remote, Snapshot};

/// An account on a simulated server.
pub struct Scene {
    /// The server.
    pub server: Server,
    /// The account.
    pub account: Account,
    /// The numbers of the mails that must be on both sides in the end.
    mails: RefCell<BTreeSet<u32>>,
    /// The numbers of those that the user deleted.
    unwanted: RefCell<BTreeSet<u32>>,
}

/// Returns the mail of a number, as served.
pub fn mail(number: u32) -> Vec<u8> {
    format!("Message-ID: <{number}@example.org>\r\nSubject: mail {number}\r\n\r\nThis is mail {number}.\r\n")
        .into_bytes()
}

/// Returns the mail of a number as a file.
pub fn mail_here(number: u32) -> Vec<u8> {
    String::from_utf8(mail(number)).unwrap().replace("\r\n", "\n").into_bytes()
}

/// INTERNALDATE of the mails on the server.
pub const DATE: i64 = 1_600_000_000;

impl Scene {
    /// Makes an account that was never synced on an empty server.
    pub fn new(profile: Profile) -> Self {
        Self::with(profile, "")
    }

    /// The same, with more lines in the account's configuration.
    pub fn with(profile: Profile, extra: &str) -> Self {
        let server = Server::spawn(profile).unwrap();
        let account = Account::new(server.port(), "user", "secret", extra);
        Self { server, account, mails: RefCell::default(), unwanted: RefCell::default() }
    }

    /// Makes an account with the mails 1 to `count` in INBOX, mirrored.
    pub fn synced(profile: Profile, count: u32) -> Self {
        let scene = Self::new(profile);
        for n in 1..=count {
            scene.arrives(n);
        }
        scene.assert_heals();
        scene
    }

    /// Mail of this number arrives in INBOX on the server. Returns its UID.
    pub fn arrives(&self, number: u32) -> u32 {
        self.arrives_in("INBOX", number)
    }

    /// Of the mails 2 to 40, which arrive now, the server refuses one with these words: all others are here after a pass.
    pub fn all_but_one_are_given(&self, answer: &str) {
        let uids: Vec<u32> = (2..=40).map(|n| self.arrives(n)).collect();
        let fault = Fault::RefuseUids(vec![uids[17]], answer.to_owned());
        self.server.inject("UID FETCH BODY.PEEK[]", When::Every, fault);
        self.sync_says(1, &["does not give 1 messages", &format!("UID {}", uids[17])]);
        self.assert_fired("UID FETCH refuse-uids");
        self.assert_here((1..=40).filter(|n| *n != 19));
    }

    /// Mail of this number arrives in a mailbox on the server. Returns its UID.
    pub fn arrives_in(&self, mailbox: &str, number: u32) -> u32 {
        self.mails.borrow_mut().insert(number);
        self.server.state().append(mailbox, &mail(number), &[], DATE + i64::from(number))
    }

    /// Mail of this number arrives in a new mailbox on the server.
    pub fn arrives_in_new(&self, mailbox: &str, number: u32) {
        self.server.state().create(mailbox);
        self.arrives_in(mailbox, number);
    }

    /// Mail of this number is put into INBOX here.
    pub fn delivered(&self, number: u32) -> PathBuf {
        self.mails.borrow_mut().insert(number);
        self.account.deliver("INBOX", &mail_here(number))
    }

    /// The user deletes the mail of this number: nobody may miss it.
    pub fn unwanted(&self, number: u32) {
        assert!(self.mails.borrow_mut().remove(&number));
        self.unwanted.borrow_mut().insert(number);
    }

    /// Returns the file of a mail in a mailbox.
    #[track_caller]
    pub fn file(&self, mailbox: &str, number: u32) -> PathBuf {
        let has = |path: &PathBuf| fs::read(path).unwrap() == mail_here(number);
        self.account.files(mailbox).into_iter().find(has).unwrap_or_else(|| panic!("no mail {number} in {mailbox}"))
    }

    /// Panics if a message file is not one of the mails, whole.
    #[track_caller]
    pub fn assert_whole(&self) {
        self.assert_whole_or(&[]);
    }

    /// The same, with other contents that are right.
    #[track_caller]
    pub fn assert_whole_or(&self, others: &[&[u8]]) {
        let mails: BTreeSet<Vec<u8>> =
            self.mails.borrow().union(&self.unwanted.borrow()).map(|n| mail_here(*n)).collect();
        for mailbox in self.account.local().into_keys() {
            for path in self.account.files(&mailbox) {
                let bytes = fs::read(&path).unwrap();
                let right = mails.contains(&bytes) || others.contains(&bytes.as_slice());
                assert!(right, "{} is not whole", path.display());
            }
        }
    }

    /// Panics unless every mail that the base calls agreed is in INBOX here, whole, but for those that the user deleted.
    /// Returns their numbers.
    #[track_caller]
    pub fn assert_base_lags(&self) -> BTreeSet<u32> {
        // Not the database itself: it is to be found as it was left.
        let copy = tempfile::tempdir().unwrap();
        for name in ["a.sqlite3", "a.sqlite3-wal"] {
            let _ = fs::copy(self.account.state_dir().join(name), copy.path().join(name));
        }
        let database = rusqlite::Connection::open(copy.path().join("a.sqlite3")).unwrap();
        let mut query = database.prepare("SELECT name, digest FROM link WHERE state = 0").unwrap();
        let rows = query.query_map((), |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
        let digest = |number: &u32| (Sha256::digest(mail(*number)).to_vec(), *number);
        let mails: BTreeMap<Vec<u8>, u32> = self.mails.borrow().iter().map(digest).collect();
        let unique = |path: &Path| path.file_name().unwrap().as_bytes().split(|b| *b == b':').next().unwrap().to_vec();
        let here: BTreeMap<Vec<u8>, Vec<u8>> =
            self.account.files("INBOX").iter().map(|path| (unique(path), fs::read(path).unwrap())).collect();
        let mut agreed = BTreeSet::new();
        for (name, digest) in rows.map(Result::unwrap) {
            let Some(number) = mails.get(&digest) else { continue };
            let is_whole = here.get(&name) == Some(&mail_here(*number));
            assert!(is_whole, "the base says that mail {number} is here, but of {} files none is it", here.len());
            agreed.insert(*number);
        }
        agreed
    }

    /// The user throws away what the power cut has left of files, and misses the mail of this number if it is nowhere any
    /// more.
    pub fn loses_fragments(&self, own: u32) {
        let mails: BTreeSet<Vec<u8>> =
            self.mails.borrow().union(&self.unwanted.borrow()).map(|n| mail_here(*n)).collect();
        let (whole, fragments): (Vec<_>, Vec<_>) =
            self.account.files("INBOX").into_iter().partition(|path| mails.contains(&fs::read(path).unwrap()));
        fragments.iter().for_each(|path| fs::remove_file(path).unwrap());
        let is_here = whole.iter().any(|path| fs::read(path).unwrap() == mail_here(own));
        let is_there = self.server.state().messages("INBOX").iter().any(|message| message.bytes == mail(own));
        if !is_here && !is_there {
            self.unwanted(own);
        }
    }

    /// Runs `postkeep sync`.
    pub fn sync(&self) -> Output {
        self.account.run(&["sync"])
    }

    /// Runs `postkeep sync`, which must end with this code and name these things.
    #[track_caller]
    pub fn sync_says(&self, code: i32, texts: &[&str]) -> Output {
        let output = self.sync();
        says(&output, code, texts);
        output
    }

    /// Returns what no fault may change.
    pub fn snapshot(&self) -> Snapshot {
        self.account.snapshot(Remote::Sim(&self.server))
    }

    /// Panics if the server was told to change anything since `take_commands` was last called.
    #[track_caller]
    pub fn assert_told_nothing(&self) {
        let changing: Vec<_> = self.server.take_commands().into_iter().filter(|c| c.changes()).collect();
        assert!(changing.is_empty(), "{changing:?}");
    }

    /// Panics unless every mail of these numbers is in INBOX here.
    #[track_caller]
    pub fn assert_here(&self, numbers: impl IntoIterator<Item = u32>) {
        let found: Vec<Vec<u8>> = self.account.files("INBOX").iter().map(|p| fs::read(p).unwrap()).collect();
        for number in numbers {
            assert!(found.contains(&mail_here(number)), "mail {number} is not here any more");
        }
    }

    /// Panics unless the fault had an effect.
    #[track_caller]
    pub fn assert_fired(&self, fault: &str) {
        let fired = self.server.fired();
        assert!(fired.iter().any(|f| f == fault), "{fault} did not happen, but {fired:?}");
    }

    /// Panics unless the server did what it does by that quirk.
    #[track_caller]
    pub fn assert_quirk(&self, name: &str) {
        let fired = self.server.state().quirks.fired();
        assert!(fired.contains(&name), "{name} did not happen, but {fired:?}");
    }

    /// Panics unless the graveyard has as many files as that.
    #[track_caller]
    pub fn assert_graves(&self, count: usize) {
        let found = below(&self.account.state_dir().join("graveyard"));
        assert_eq!(found.len(), count, "{found:?}");
    }

    /// Panics unless one `sync` makes both sides equal with all mails there, and another finds nothing to do.
    #[track_caller]
    pub fn assert_heals(&self) {
        self.assert_heals_within(1);
    }

    /// The same, with more passes allowed.
    #[track_caller]
    pub fn assert_heals_within(&self, passes: u32) {
        for pass in 1..=passes {
            let output = self.sync();
            if output.code == 0 {
                break;
            }
            assert!(pass < passes, "sync went on failing: {output:?}");
        }
        let remote = Remote::Sim(&self.server);
        self.account.assert_equal(remote);
        let bytes: Vec<Vec<u8>> = remote.mails().into_values().flatten().map(|(_, m)| m.bytes).collect();
        for number in &*self.mails.borrow() {
            let (mail, here) = (mail(*number), mail_here(*number));
            let count = bytes.iter().filter(|b| **b == mail || **b == here).count();
            assert_eq!(count, 1, "mail {number} is there so often");
        }
        self.assert_quiet();
    }

    /// Panics if a `sync` finds anything to do, or if the program ever said something dangerous to the server.
    #[track_caller]
    pub fn assert_quiet(&self) {
        self.assert_decent();
        let before = self.snapshot();
        let output = self.sync();
        assert_eq!(output.code, 0, "{output:?}");
        self.assert_told_nothing();
        assert!(self.snapshot() == before, "a second pass changed something");
    }

    /// Panics if the program ever said something dangerous to the server, or something that it does not understand.
    #[track_caller]
    pub fn assert_decent(&self) {
        let dangers: Vec<_> = self.server.take_commands().into_iter().filter(|c| c.danger().is_some()).collect();
        assert!(dangers.is_empty(), "{dangers:?}");
        assert_eq!(self.server.violations(), Vec::<String>::new());
    }
}

/// Panics unless a run ended with this code and said these things on either output.
#[track_caller]
pub fn says(output: &Output, code: i32, texts: &[&str]) {
    assert_eq!(output.code, code, "{output:?}");
    for text in texts {
        let said = output.stdout.contains(text) || output.stderr.contains(text);
        assert!(said, "{text:?} is not in {output:?}");
    }
}

/// Returns the files below a directory.
pub fn below(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    files
}

/// Something mounted on a directory until this is dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts a file system of this size (`300k`) on a directory, which is made.
    pub fn tmpfs(dir: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&dir).unwrap();
        let owner = fs::metadata(&dir).unwrap();
        let options = format!("size={size},mode=700,uid={},gid={}", owner.uid(), owner.gid());
        as_root("mount", &["-t", "tmpfs", "-o", &options, "none", dir.to_str().unwrap()]);
        Self(dir)
    }

    /// Gives it another size.
    pub fn resize(&self, size: &str) {
        self.remount(&format!("size={size}"));
    }

    /// Gives it other options, as `ro`.
    pub fn remount(&self, options: &str) {
        as_root("mount", &["-o", &format!("remount,{options}"), self.0.to_str().unwrap()]);
    }
}

/// A disk of its own, of which can be taken what a power cut would leave of it.
pub struct Disk {
    image: PathBuf,
    dir: PathBuf,
    mount: Option<Mount>,
}

impl Disk {
    /// Puts an empty disk on a directory, which is made.
    pub fn new(dir: PathBuf, image: PathBuf) -> Self {
        fs::create_dir_all(&dir).unwrap();
        let owner = fs::metadata(&dir).unwrap();
        fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
        as_root("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        let disk = Self::mounted(dir, image);
        let path = disk.dir.to_str().unwrap();
        as_root("rmdir", &[&format!("{path}/lost+found")]);
        as_root("chown", &[&format!("{}:{}", owner.uid(), owner.gid()), path]);
        as_root("chmod", &["700", path]);
        disk
    }

    fn mounted(dir: PathBuf, image: PathBuf) -> Self {
        as_root("mount", &["-o", "loop", image.to_str().unwrap(), dir.to_str().unwrap()]);
        let mount = Some(Mount(dir.clone()));
        Self { image, dir, mount }
    }

    /// Returns the directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the file that holds what is on the disk.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Puts another disk in its place: that of an image.
    pub fn replace(&mut self, image: PathBuf) {
        self.mount = None;
        *self = Self::mounted(self.dir.clone(), image);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        as_root("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

/// Runs a program as root, by sudo if we are not.
#[track_caller]
pub fn as_root(program: &str, args: &[&str]) {
    let mut command = match rustix::process::geteuid().is_root() {
        true => Command::new(program),
        false => {
            let mut sudo = Command::new("sudo");
            sudo.arg("-n").arg(program);
            sudo
        }
    };
    let output = command.args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes a command run without the power of root over files of other modes, if we are root.
pub fn powerless(command: Command) -> Command {
    if !rustix::process::geteuid().is_root() {
        return command;
    }
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--bounding-set", "-dac_override,-dac_read_search,-fowner", "--"]);
    wrapped(setpriv, &command)
}

/// Returns `outer` with a command and its environment as its last arguments.
pub fn wrapped(mut outer: Command, command: &Command) -> Command {
    outer.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// Runs a command to its end.
pub fn run(mut command: Command) -> Output {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Makes a command run under strace, which injects a fault (`getdents64:error=EIO:when=2`) into system calls, if given
/// only those on this path. What it did is in the file `trace`.
pub fn strace(command: &Command, trace: &Path, inject: &str, path: Option<&Path>) -> Command {
    let mut strace = Command::new("strace");
    let calls = inject.split(':').next().unwrap();
    strace.args(["-f", "-qq", "-o"]).arg(trace).args([
        "-e",
        &format!("trace={calls}"),
        "-e",
        &format!("inject={inject}"),
    ]);
    if let Some(path) = path {
        strace.arg("-P").arg(path);
    }
    wrapped(strace, command)
}

/// Runs `postkeep sync` with a fault in its system calls; returns how often that happened, too.
#[track_caller]
pub fn sync_with(account: &Account, inject: &str, path: Option<&Path>) -> (Output, usize) {
    let trace = account.state_dir().with_file_name("trace");
    let output = run(strace(&account.command(&["sync"]), &trace, inject, path));
    let injected = fs::read_to_string(&trace).unwrap().matches("(INJECTED)").count();
    (output, injected)
}
