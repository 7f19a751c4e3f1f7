use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A message with this type and content.
fn message(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), content].concat()
}

/// Some 2 MB of notices.
fn notices() -> Vec<u8> {
    let text = "x".repeat(9000);
    message(b'N', format!("SNOTICE\0C00000\0M{text}\0\0").as_bytes()).repeat(200)
}

/// The messages that accept a login.
fn welcome() -> Vec<u8> {
    [message(b'R', &0_u32.to_be_bytes()), message(b'Z', b"I")].concat()
}

/// A server without TLS that sends `login` to each client, `reply` once the client has sent something
/// more, and waits until the client closes the connection. Returns its address.
async fn server(login: Vec<u8>, reply: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (login, reply) = (login.clone(), reply.clone());
            // The client may close the connection at any time.
            tokio::spawn(async move { drop(serve(stream, &login, &reply).await) });
        }
    });
    format!("postgres://me:hush@127.0.0.1:{port}/db?sslmode=disable&connect_timeout=1")
}

async fn serve(mut stream: TcpStream, login: &[u8], reply: &[u8]) -> std::io::Result<()> {
    let mut received = vec![0; 4096];
    for message in [login, reply] {
        if stream.read(&mut received).await? == 0 {
            return Ok(());
        }
        stream.write_all(message).await?;
    }
    while stream.read(&mut received).await? > 0 {}
    Ok(())
}

fn component() -> Arc<ComponentPostgres> {
    let tls = crate::http::client_tls::client().unwrap();
    PostgresConnections::new(&tls, BlockedNetworks::default()).for_component()
}

fn memory() -> MemoryBudget {
    MemoryBudget::new(64 << 20, "limit")
}

async fn open(
    component: &ComponentPostgres,
    address: &str,
) -> Result<PostgresConnection, PostgresError> {
    component.connect(&PostgresAddress::parse(address).unwrap(), None, &memory()).await
}

/// The error of a statement on a new connection to `address`.
async fn failure(address: &str) -> PostgresError {
    let connection = open(&component(), address).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let error = connection.query("SELECT 1".into(), Vec::new(), deadline).await.unwrap_err();
    let again = connection.query("SELECT 1".into(), Vec::new(), deadline).await.unwrap_err();
    assert!(again.to_string().contains("open another one"), "{again}");
    error
}

#[tokio::test]
async fn silent_server_is_an_error_without_the_password() {
    let address = server(Vec::new(), Vec::new()).await;
    let error = open(&component(), &address).await.unwrap_err();
    let PostgresError::Connection(problem) = &error else { panic!("{error:?}") };
    assert!(problem.contains("timed out after 1s") && !problem.contains("hush"), "{problem}");
}

#[tokio::test]
async fn endless_login_is_refused() {
    let accepted = message(b'R', &0_u32.to_be_bytes());
    let address = server([accepted, notices()].concat(), Vec::new()).await;
    let error = open(&component(), &address).await.unwrap_err();
    assert!(error.to_string().contains("at login or to define a type"), "{error}");
}

#[tokio::test]
async fn huge_message_ends_the_connection() {
    let mut reply = message(b'1', &[]);
    reply.extend([b'D', 0x7f, 0xff, 0xff, 0xff]);
    let error = failure(&server(welcome(), reply).await).await;
    assert!(error.to_string().contains("a row or message of 2147483647 bytes"), "{error}");
}

/// The library collects the definition of a type before it returns.
#[tokio::test]
async fn endless_definition_of_a_type_ends_the_connection() {
    let reply = [message(b'1', &[]), notices()].concat();
    let error = failure(&server(welcome(), reply).await).await;
    assert!(error.to_string().contains("at login or to define a type"), "{error}");
}

#[tokio::test]
async fn nonsense_of_a_server_is_an_error() {
    let error = failure(&server(welcome(), message(b'?', b"what")).await).await;
    assert!(matches!(error, PostgresError::Query(_)), "{error:?}");
    let address = server(message(b'R', b"?"), Vec::new()).await;
    assert!(matches!(open(&component(), &address).await, Err(PostgresError::Connection(_))));
}

#[tokio::test]
async fn statement_without_a_reply_ends_at_its_deadline() {
    let connection = open(&component(), &server(welcome(), Vec::new()).await).await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(50);
    let error = connection.execute("SELECT 1".into(), Vec::new(), deadline).await.unwrap_err();
    assert!(error.to_string().contains("at the deadline"), "{error}");
}

#[tokio::test]
async fn invalid_statement_is_not_sent() {
    let connection = open(&component(), &server(welcome(), Vec::new()).await).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    for (sql, parameter, part) in [
        ("SELECT '\0'", PostgresValue::Null, "NUL"),
        ("SELECT $1", PostgresValue::Uuid("x".into()), "parameter 1: it is not a UUID"),
        ("SELECT $1", PostgresValue::Binary(vec![0; MAX_STATEMENT]), "the limit is"),
    ] {
        let result = connection.execute(sql.into(), vec![parameter], deadline).await;
        let Err(PostgresError::Parameter(problem)) = result else { panic!("{sql}: {result:?}") };
        assert!(problem.contains(part), "{problem}");
    }
}

#[tokio::test]
async fn connections_of_a_component_are_limited_and_returned() {
    let component = component();
    let address = server(welcome(), Vec::new()).await;
    let mut held = Vec::new();
    for _ in 0..MAX_PER_COMPONENT {
        held.push(open(&component, &address).await.unwrap());
    }
    let error = open(&component, &address).await.unwrap_err();
    assert!(error.to_string().contains("too many PostgreSQL connections"), "{error}");
    drop(held);
    open(&component, &address).await.unwrap();
}

#[tokio::test]
async fn blocked_address_is_refused() {
    let tls = crate::http::client_tls::client().unwrap();
    let blocked = BlockedNetworks::parse(["private"]).unwrap();
    let component = PostgresConnections::new(&tls, blocked).for_component();
    let error = open(&component, &server(welcome(), Vec::new()).await).await.unwrap_err();
    assert!(error.to_string().contains("blocked by outbound_networking"), "{error}");
}

#[test]
fn certificates_to_trust_are_parsed_or_refused() {
    for text in ["", "hush", "-----BEGIN CERTIFICATE-----\nhush\n-----END CERTIFICATE-----\n"] {
        let problem = CaRoot::parse(text).unwrap_err();
        assert!(!problem.contains("hush"), "{problem}");
    }
}
