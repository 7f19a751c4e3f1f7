//! `.../mqtt`: `open ADDRESS USER PASSWORD KEEP-ALIVE`, with `-` for an empty text, and `publish QOS TOPIC PAYLOAD`.

use spin_sdk::mqtt::{Connection, Error, Qos};

pub(crate) async fn run(open: &mut Vec<Connection>, words: &[&str]) -> Result<String, Error> {
    if let ["open", address, user, password, keep_alive] = words {
        let empty = |word: &str| if word == "-" { String::new() } else { word.to_owned() };
        let keep_alive = keep_alive.parse().unwrap_or(0);
        let connection =
            Connection::open(*address, &empty(user), &empty(password), keep_alive).await?;
        open.insert(0, connection);
        return Ok("ok".into());
    }
    let Some(connection) = open.first() else { return Ok("nothing is open".into()) };
    let (qos, topic, payload) = match words {
        ["publish", qos, topic, payload] => (qos, topic, payload.as_bytes().to_vec()),
        // A message of this length.
        ["fill", qos, topic, bytes] => (qos, topic, vec![b'x'; bytes.parse().unwrap_or(0)]),
        _ => return Ok(format!("{words:?}?")),
    };
    let qos = match *qos {
        "0" => Qos::AtMostOnce,
        "1" => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    };
    connection.publish(*topic, payload, qos).await?;
    Ok("ok".into())
}
