//! `wasi:sockets` 0.3: `/sockets/tcp?<address>` and `/sockets/udp?<address>` send "ping" and return the reply;
//! `/sockets/listen` and `/sockets/resolve` return whether they are allowed. Addresses are IPv4.

use std::net::SocketAddrV4;

use spin_sdk::wasip3::sockets::ip_name_lookup::resolve_addresses;
use spin_sdk::wasip3::sockets::types::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket, UdpSocket,
};
use spin_sdk::wasip3::wit_stream;

pub(crate) async fn respond(path: &str, query: &str) -> String {
    let result = match path {
        "/sockets/tcp" => tcp(query).await,
        "/sockets/udp" => udp(query).await,
        "/sockets/listen" => TcpSocket::create(IpAddressFamily::Ipv4)
            .and_then(|socket| socket.listen().map(drop))
            .map(|()| Vec::new()),
        _ => {
            return match resolve_addresses("localhost".into()).await {
                Ok(_) => "done: ".into(),
                Err(error) => format!("refused: {error:?}"),
            };
        }
    };
    match result {
        Ok(bytes) => format!("done: {}", String::from_utf8_lossy(&bytes)),
        Err(error) => format!("refused: {error:?}"),
    }
}

async fn tcp(address: &str) -> Result<Vec<u8>, ErrorCode> {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4)?;
    socket.connect(parse(address)?).await?;
    let (mut writer, reader) = wit_stream::new();
    let sent = socket.send(reader);
    let unsent = writer.write_all(b"ping".to_vec()).await;
    drop(writer);
    sent.await?;
    let (reply, end) = socket.receive();
    let reply = reply.collect().await;
    end.await?;
    if unsent.is_empty() { Ok(reply) } else { Err(ErrorCode::Other(None)) }
}

async fn udp(address: &str) -> Result<Vec<u8>, ErrorCode> {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4)?;
    socket.send(b"ping".to_vec(), Some(parse(address)?)).await?;
    Ok(socket.receive().await?.0)
}

fn parse(address: &str) -> Result<IpSocketAddress, ErrorCode> {
    let address: SocketAddrV4 = address.parse().map_err(|_| ErrorCode::InvalidArgument)?;
    let [a, b, c, d] = address.ip().octets();
    let (port, address) = (address.port(), (a, b, c, d));
    Ok(IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address }))
}
