//! Which protections of the service are in effect: systemd ignores silently what it cannot do for a user's service.

use std::fs;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

/// A protection, and whether it is in effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protection {
    /// What it is about, as the end of "the daemon cannot …".
    pub what: &'static str,
    /// The setting of the unit that asks for it.
    pub setting: &'static str,
    /// It is in effect.
    pub in_effect: bool,
}

/// Returns each protection that the unit asks for and that can be seen from inside.
#[must_use]
pub fn protections() -> Vec<Protection> {
    // What cannot be read is not in effect.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let users = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    // Asked for as an ordinary program may, and so refused in another way than for want of rights.
    let packets = socket(AddressFamily::PACKET, SocketType::DGRAM, None);
    let rows = [
        ("gain rights by running another program", "NoNewPrivileges", field(&status, "NoNewPrivs") == Some("1")),
        ("use system calls that it does not need", "SystemCallFilter", field(&status, "Seccomp") == Some("2")),
        ("use other kinds of sockets", "RestrictAddressFamilies", matches!(packets, Err(Errno::AFNOSUPPORT))),
        ("be other users", "PrivateUsers", has_own_users(&users)),
        ("write outside the home directory", "ProtectSystem", is_read_only(&mounts, "/")),
        ("see the temporary files of others", "PrivateTmp", is_mounted(&mounts, "/tmp")),
        ("use devices", "PrivateDevices", !std::path::Path::new("/dev/kmsg").exists()),
    ];
    rows.map(|(what, setting, in_effect)| Protection { what, setting, in_effect }).to_vec()
}

/// Tells the log which protections are in effect, where a service manager started the daemon.
pub(super) fn tell() {
    if std::env::var_os("INVOCATION_ID").is_none() {
        return;
    }
    let (effective, missing): (Vec<_>, Vec<_>) = protections().into_iter().partition(|p| p.in_effect);
    let names = |list: &[Protection]| list.iter().map(|p| p.setting).collect::<Vec<_>>().join(" ");
    tracing::info!(
        in_effect = names(&effective),
        not_in_effect = names(&missing),
        "looked for the protections of the unit"
    );
}

/// Returns a field of `/proc/self/status` (proc_pid_status(5)).
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Tells whether the user ids are not those of the machine (user_namespaces(7)).
fn has_own_users(map: &str) -> bool {
    map.split_whitespace().ne(["0", "0", "4294967295"])
}

/// Returns the options of the topmost mount at a path (proc_pid_mountinfo(5)).
fn mount<'a>(mounts: &'a str, path: &str) -> Option<&'a str> {
    let at = |line: &'a str| {
        let mut fields = line.split(' ').skip(4);
        (fields.next()? == path).then(|| fields.next())?
    };
    mounts.lines().filter_map(at).next_back()
}

fn is_mounted(mounts: &str, path: &str) -> bool {
    mount(mounts, path).is_some()
}

fn is_read_only(mounts: &str, path: &str) -> bool {
    mount(mounts, path).is_some_and(|options| options.split(',').any(|option| option == "ro"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_understood() {
        let status = "Name:\tpostkeep\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t9\n";
        assert_eq!((field(status, "NoNewPrivs"), field(status, "Seccomp")), (Some("1"), Some("2")));
        assert_eq!(field(status, "Uid"), None);
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      90 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      91 90 0:40 / /tmp rw,nosuid - tmpfs tmpfs rw\n";
        assert_eq!((is_read_only(mounts, "/"), is_read_only(mounts, "/tmp")), (true, false));
        assert_eq!((is_mounted(mounts, "/tmp"), is_mounted(mounts, "/home")), (true, false));
        assert!(!has_own_users("         0          0 4294967295\n"));
        assert!(has_own_users("      1000       1000          1\n"));
    }

    #[test]
    fn every_protection_can_be_asked_for() {
        let unit = include_str!("../../systemd/postkeep.service");
        for Protection { setting, .. } in protections() {
            assert!(unit.contains(&format!("\n{setting}=")), "{setting}");
        }
    }
}
