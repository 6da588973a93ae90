//! What a whole pass of the real program receives from Outlook.com: everything, from the sign-in on, as it is on the wire.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use postkeep_sim::{Ca, OAuth, Options, Profile, Server};

use crate::account::{Account, Remote};
use crate::outlook_account::{login, not_signed_in};
use crate::outlook_sweep::fill;
use crate::random::Random;

/// Passes on what comes and goes, and counts what comes from the server.
struct Relay {
    port: u16,
    received: Arc<AtomicU64>,
}

impl Relay {
    fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, received) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&received);
        // It ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
                let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || pass_on(from_client, to_server, None));
                let count = Arc::clone(&count);
                std::thread::spawn(move || pass_on(server, client, Some(&count)));
            }
        });
        Self { port, received }
    }

    /// Returns how many bytes came from the server since it was asked last.
    fn take(&self) -> u64 {
        self.received.swap(0, Ordering::SeqCst)
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, count: Option<&AtomicU64>) {
    let mut buffer = [0; 16 << 10];
    while let Ok(bytes @ 1..) = from.read(&mut buffer) {
        // Counted before it can be acted upon.
        if let Some(count) = count {
            count.fetch_add(bytes as u64, Ordering::SeqCst);
        }
        if to.write_all(&buffer[..bytes]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// An account with TLS and OAuth on a simulated Outlook.com, with everything that it receives counted.
struct Measured {
    server: Server,
    account: Account,
    /// Of mail, and of the sign-in.
    relays: [Relay; 2],
    _oauth: OAuth,
}

impl Measured {
    fn new(count: u64) -> Self {
        let ca = Ca::new().unwrap();
        let server = Server::spawn(Options::from(Profile::Exo2026).tls(&ca)).unwrap();
        fill(&server, &mut Random::new(1), count, 450);
        let (account, plain) = not_signed_in(&server);
        let oauth = OAuth::spawn(&server, Some(&ca)).unwrap();
        let port = |address: &str| address.rsplit(':').next().unwrap().parse().unwrap();
        let relays = [Relay::to(server.port()), Relay::to(port(&oauth.authority()))];
        let file = ca.write_to(account.config().parent().unwrap()).unwrap();
        let config = fs::read_to_string(account.config()).unwrap();
        let config = config
            .replace("\"127.0.0.1\"", "\"localhost\"")
            .replace("tls = \"none\"", &format!("tls_ca_file = {:?}\nsweep_after = \"0s\"", file.display().to_string()))
            .replace(&format!("port = {}", server.port()), &format!("port = {}", relays[0].port))
            .replace(&plain.authority(), &format!("https://localhost:{}", relays[1].port));
        fs::write(account.config(), config).unwrap();
        login(&account, &oauth);
        let measured = Self { server, account, relays, _oauth: oauth };
        measured.pass("the first pass", &[]);
        // The first pass that can use what the one before has learned.
        measured.pass("the second pass", &[]);
        measured
    }

    /// Makes a pass; returns what was received of mail in it. The token comes from elsewhere, and is good for an hour.
    #[track_caller]
    fn pass(&self, what: &str, args: &[&str]) -> u64 {
        for relay in &self.relays {
            relay.take();
        }
        let output = self.account.run(&[&["sync"][..], args].concat());
        assert_eq!(output.code, 0, "{output:?}");
        let [mail, sign_in] = [0, 1].map(|n| self.relays[n].take());
        eprintln!("{what}: {mail} bytes of mail, {sign_in} of the sign-in");
        assert!(mail > 1000 && sign_in > 1000, "nothing came this way");
        assert!(sign_in < 6000, "{sign_in} bytes for a token");
        mail
    }
}

/// The price of a pass over a mailbox of so many messages; small ones have a listing that is not worth a comparison.
fn measure(count: u64, compared: bool) {
    let measured = Measured::new(count);
    let listed = measured.pass("listed", &["--full"]);
    let unchanged = measured.pass("unchanged", &[]);
    assert!(unchanged < 20_000, "{unchanged} bytes for a mailbox in which nothing changed");
    let middle = u32::try_from(count / 2).unwrap();
    for (uid, flags) in [(middle, &["\\Flagged"][..]), (middle + 101, &["\\Seen", "\\Answered"]), (middle / 2, &[])] {
        measured.server.state().set_flags("INBOX", uid, flags);
    }
    let flagged = measured.pass("3 flags changed", &[]);
    let served = Remote::Sim(&measured.server).mails().remove("INBOX").unwrap();
    let mut served: Vec<_> = served.into_iter().map(|(_, mail)| mail).collect();
    let mut local = measured.account.local().remove("INBOX").unwrap();
    served.sort();
    local.sort();
    assert!(served == local, "the two sides differ");
    if compared {
        assert!(flagged * 50 < listed, "{flagged} bytes for 3 flags, {listed} for a listing");
    } else {
        assert!(flagged < 20_000, "{flagged} bytes for 3 flags");
    }
    assert_eq!(measured.server.violations(), Vec::<String>::new());
}

#[test]
fn a_whole_pass_costs_what_changed() {
    measure(3000, false);
}

#[test]
fn a_whole_pass_over_a_large_mailbox_costs_what_changed() {
    if std::env::var_os("POSTKEEP_SLOW_TESTS").is_none() {
        eprintln!("left out: it takes minutes (POSTKEEP_SLOW_TESTS=1)");
        return;
    }
    measure(100_000, true);
}
