//! `.../sqlite`: `execute PARAMETERS SQL`, with `-` or values such as `i:1,r:0.5,t:text,b:hex,null`. A result is the
//! columns, then the rows, separated by `|`.

use futures::future::join_all;
use spin_sdk::sqlite::{Connection, Error, RowResult, Value};

pub(crate) async fn run(open: &mut Vec<Connection>, words: &[&str]) -> Result<String, Error> {
    match words {
        ["open", label] => {
            open.insert(0, Connection::open(label).await?);
            return Ok("ok".into());
        }
        ["close"] => {
            open.clear();
            return Ok("ok".into());
        }
        _ => {}
    }
    let Some(connection) = open.first() else { return Ok("nothing is open".into()) };
    Ok(match words {
        ["execute", parameters, sql @ ..] => {
            let result = connection.execute(sql.join(" "), values(parameters)).await?;
            let columns = result.columns().join(",");
            let rows = result.collect().await?;
            [columns].into_iter().chain(rows.iter().map(row)).collect::<Vec<_>>().join("|")
        }
        // The number of rows, read one by one.
        ["count", sql @ ..] => {
            let mut result = connection.execute(sql.join(" "), []).await?;
            let mut count = 0;
            while result.next().await.is_some() {
                count += 1;
            }
            result.result().await?;
            count.to_string()
        }
        // The statement `count` times at once, over one connection.
        ["crowd", count, sql @ ..] => {
            let sql = sql.join(" ");
            let calls = (0..count.parse().unwrap_or(0)).map(|_: u32| connection.execute(&sql, []));
            let results = join_all(calls).await;
            results.iter().filter(|result| result.is_ok()).count().to_string()
        }
        ["changes"] => connection.changes().await.to_string(),
        ["rowid"] => connection.last_insert_rowid().await.to_string(),
        _ => format!("{words:?}?"),
    })
}

fn values(text: &str) -> Vec<Value> {
    let values = text.split(',').filter(|text| *text != "-");
    values
        .map(|text| match text.split_once(':') {
            Some(("i", number)) => Value::Integer(number.parse().unwrap_or(0)),
            Some(("r", number)) => Value::Real(number.parse().unwrap_or(0.0)),
            Some(("b", hex)) => Value::Blob(bytes(hex)),
            Some(("t", text)) => Value::Text(text.into()),
            _ => Value::Null,
        })
        .collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = (0..hex.len()).step_by(2).filter_map(|at| hex.get(at..at + 2));
    digits.filter_map(|digits| u8::from_str_radix(digits, 16).ok()).collect()
}

fn row(row: &RowResult) -> String {
    let value = |value: &Value| match value {
        Value::Integer(number) => format!("i:{number}"),
        Value::Real(number) => format!("r:{number:?}"),
        Value::Text(text) => format!("t:{text}"),
        Value::Blob(bytes) => {
            bytes.iter().fold("b:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
        }
        Value::Null => "null".into(),
    };
    row.values.iter().map(value).collect::<Vec<_>>().join(",")
}
