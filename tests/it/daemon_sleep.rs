//! The machine sleeps and wakes up, and logind says so.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use postkeep_sim::Profile;

use crate::daemon::{Daemon, NO_SWEEP, message, scene};

/// A system bus of its own. It is killed when this is dropped.
struct Bus {
    child: Child,
    address: String,
}

impl Bus {
    fn start() -> Self {
        let mut command = Command::new("dbus-daemon");
        command.args(["--session", "--nofork", "--print-address"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }

    /// Returns a connection that has this name, if any.
    async fn connect(&self, name: Option<&'static str>) -> zbus::Connection {
        let builder = zbus::connection::Builder::address(self.address.as_str()).unwrap();
        let builder = match name {
            Some(name) => builder.name(name).unwrap(),
            None => builder,
        };
        builder.build().await.unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Says that the machine falls asleep, or that it does not sleep any more.
async fn say(connection: &zbus::Connection, falls_asleep: bool) {
    let manager = "org.freedesktop.login1.Manager";
    connection
        .emit_signal(None::<&str>, "/org/freedesktop/login1", manager, "PrepareForSleep", &falls_asleep)
        .await
        .unwrap();
    // An answer to this comes after the signal has left.
    zbus::fdo::DBusProxy::new(connection).await.unwrap().get_id().await.unwrap();
}

#[test]
fn connections_are_closed_while_the_machine_sleeps() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bus = Bus::start();
    let logind = runtime.block_on(bus.connect(Some("org.freedesktop.login1")));
    let somebody = runtime.block_on(bus.connect(None));
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    let daemon = Daemon::start_with(&account, &[("DBUS_SYSTEM_BUS_ADDRESS", &bus.address)]);
    daemon.until("it listens", || daemon.log().contains("logind tells when"));
    daemon.watches(&account);
    daemon.rest(&account);
    let before = server.take_commands().len();
    assert!(before > 0 && server.signed_in() > 0);

    // Anybody can say so, but only logind is believed.
    runtime.block_on(say(&somebody, true));
    server.state().append("INBOX", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);
    assert!(!daemon.log().contains("while the machine sleeps"), "{}", daemon.log());

    runtime.block_on(say(&logind, true));
    daemon.until("the connections are closed", || server.signed_in() == 0);
    drop(server.take_commands());
    server.state().append("INBOX", &message("b"), &[], 1000);
    account.deliver("INBOX", &message("c"));
    std::thread::sleep(Duration::from_secs(2));
    assert!(server.commands().is_empty(), "{:?}", server.commands());

    runtime.block_on(say(&logind, false));
    daemon.until_equal(&account, &server);
    daemon.watches(&account);
    let told = |text: &str| daemon.log().matches(text).count();
    assert_eq!((told("while the machine sleeps"), told("the machine woke up")), (1, 1), "{}", daemon.log());
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn where_no_bus_is_nothing_is_missed() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    let daemon = Daemon::start_with(&account, &[("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")]);
    daemon.until("it knows", || daemon.log().contains("logind tells of no sleep"));
    server.state().append("INBOX", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);
    assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
}
