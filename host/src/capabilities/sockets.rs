//! Sockets for guests, by `wasi:sockets` 0.2 and 0.3: to the addresses that `allowed_outbound_hosts`
//! grants with the schemes `tcp` and `udp`, or `*`, as in Spin. Listening and name lookups are not
//! allowed.

use std::net::SocketAddr;
use std::sync::Arc;

use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::SocketAddrUse;

use crate::config::app::ComponentSpec;
use crate::config::blocked_networks::BlockedNetworks;
use crate::config::outbound_hosts::OutboundHosts;

const TCP: &str = "tcp";
const UDP: &str = "udp";

/// Allows an instance of the component `spec` the sockets that it is granted, except to networks that
/// are `blocked`. Without a grant, it cannot create sockets.
pub(crate) fn grant(
    wasi: &mut WasiCtxBuilder,
    spec: &Arc<ComponentSpec>,
    blocked: &BlockedNetworks,
) {
    let hosts = &spec.outbound_hosts;
    let (tcp, udp) = (hosts.allows_scheme(TCP), hosts.allows_scheme(UDP));
    if !tcp && !udp {
        return;
    }
    wasi.allow_tcp(tcp).allow_udp(udp);
    let (spec, blocked) = (Arc::clone(spec), blocked.clone());
    wasi.socket_addr_check(move |address, wanted| {
        let allowed = allows(&spec.outbound_hosts, &blocked, address, wanted);
        Box::pin(async move { allowed })
    });
}

/// Whether `address` may be used for `wanted`.
fn allows(
    hosts: &OutboundHosts,
    blocked: &BlockedNetworks,
    address: SocketAddr,
    wanted: SocketAddrUse,
) -> bool {
    let reaches = |scheme| {
        let ip = address.ip().to_string();
        hosts.allows(scheme, &ip, Some(address.port())) && !blocked.blocks(address.ip())
    };
    match wanted {
        SocketAddrUse::TcpConnect => reaches(TCP),
        // Connecting binds first, to an address and port that the system chooses.
        SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
        SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => false,
        // In both directions: a guest receives only from addresses that it may send to.
        SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => reaches(UDP),
        // Sending needs a bound socket; a fixed port is checked like any address.
        SocketAddrUse::UdpBind => address.port() == 0 || reaches(UDP),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::outbound_hosts::OutboundHost;

    fn hosts(entries: &[&str]) -> OutboundHosts {
        let mut hosts = OutboundHosts::default();
        for entry in entries {
            hosts.add(OutboundHost::parse(entry).unwrap());
        }
        hosts
    }

    #[test]
    fn only_granted_addresses_are_allowed() {
        use SocketAddrUse::{
            TcpAccept, TcpBind, TcpConnect, TcpListen, UdpBind, UdpReceive, UdpSend,
        };
        let granted = hosts(&["tcp://10.0.0.0/8:5432", "udp://[fd00::1]:53", "http://1.1.1.1"]);
        let none = BlockedNetworks::default();
        for (address, wanted, allowed) in [
            ("10.1.2.3:5432", TcpConnect, true),
            ("10.1.2.3:5433", TcpConnect, false),
            ("11.1.2.3:5432", TcpConnect, false),
            ("[fd00::1]:53", TcpConnect, false),
            // Granted for HTTP requests, which the host sends.
            ("1.1.1.1:80", TcpConnect, false),
            ("0.0.0.0:0", TcpBind, true),
            ("[::]:0", TcpBind, true),
            ("0.0.0.0:5432", TcpBind, false),
            ("127.0.0.1:0", TcpBind, false),
            ("10.1.2.3:5432", TcpBind, false),
            ("10.1.2.3:5432", TcpListen, false),
            ("10.1.2.3:5432", TcpAccept, false),
            ("[fd00::1]:53", UdpSend, true),
            ("[fd00::1]:53", UdpReceive, true),
            ("[fd00::2]:53", UdpSend, false),
            ("[fd00::2]:53", UdpReceive, false),
            ("10.1.2.3:5432", UdpSend, false),
            ("0.0.0.0:0", UdpBind, true),
            ("[::1]:0", UdpBind, true),
            ("[::]:53", UdpBind, false),
            ("[fd00::1]:53", UdpBind, true),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(allows(&granted, &none, address, wanted), allowed, "{address} {wanted:?}");
        }
    }

    proptest! {
        #[test]
        fn blocked_networks_are_unreachable(bits: u32, port: u16) {
            let everywhere = hosts(&["*://*:*"]);
            let all = BlockedNetworks::parse(["0.0.0.0/0"]).unwrap();
            let address = SocketAddr::from((std::net::Ipv4Addr::from(bits), port));
            let wanted = [SocketAddrUse::TcpConnect, SocketAddrUse::UdpSend, SocketAddrUse::UdpReceive];
            for wanted in wanted {
                prop_assert!(allows(&everywhere, &BlockedNetworks::default(), address, wanted));
                prop_assert!(!allows(&everywhere, &all, address, wanted));
            }
            prop_assert!(!allows(&everywhere, &all, address, SocketAddrUse::TcpListen));
        }
    }
}
