//! Tells when the machine has another network than before: then connections that seem to be there lead nowhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::unix::AsyncFd;

/// Networks change in several steps; what counts is where that leads.
const CALM: Duration = Duration::from_secs(1);

/// Addresses and routes, of both kinds (rtnetlink(7): RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, and the same for IPv6).
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;

/// The addresses by which the rest of the world is reached from here.
type Way = [Option<IpAddr>; 2];

/// What is known of the network.
#[derive(Debug)]
pub(super) struct Network {
    changes: AsyncFd<OwnedFd>,
    way: Way,
}

impl Network {
    /// Begins to watch.
    ///
    /// # Errors
    /// The system's, where programs may not ask it for that.
    pub(super) fn watch() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self { changes: crate::readiness::readable(socket)?, way: way() })
    }

    /// Waits until the rest of the world is reached in another way than before. Without any way it waits for one.
    ///
    /// # Errors
    /// The system's.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.changes.readable().await?;
            let mut buffer = [0u8; 8192];
            // What exactly has changed does not matter; a buffer that ran over says no less.
            while recv(ready.get_inner(), &mut buffer, RecvFlags::empty()).is_ok() {}
            ready.clear_ready();
            drop(ready);
            tokio::time::sleep(CALM).await;
            let now = way();
            if leads_elsewhere(&self.way, &now) {
                self.way = now;
                return Ok(());
            }
        }
    }
}

/// Tells whether this is another way; none at all is no other one.
fn leads_elsewhere(before: &Way, now: &Way) -> bool {
    now != before && now.iter().any(Option::is_some)
}

/// Returns the way to addresses that nobody has (RFC 5737, RFC 3849). Nothing is sent.
fn way() -> Way {
    let from = |own: IpAddr, there: IpAddr| {
        let socket = UdpSocket::bind((own, 0)).ok()?;
        socket.connect((there, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    [
        from(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        from(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_way_counts() {
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let (home, work, none) = ([address("10.0.0.2"), None], [address("192.168.1.2"), None], [None, None]);
        let rows =
            [(home, home, false), (home, work, true), (home, none, false), (none, home, true), (none, none, false)];
        for (before, now, elsewhere) in rows {
            assert_eq!(leads_elsewhere(&before, &now), elsewhere, "{before:?} {now:?}");
        }
    }

    #[tokio::test]
    async fn the_system_can_be_asked() {
        Network::watch().unwrap();
    }
}
