//! `.../postgres`: statements verbatim, without parameters (`query SQL`, `execute SQL`) or with a text as the
//! parameter (`query-with TEXT SQL`). A result is the columns with their types, then the rows, separated by `|`.

use futures::future::join_all;
use spin_sdk::pg::{
    Certificate, Connection, DbValue, Error, Interval, OpenOptions, ParameterValue, QueryResult,
    RangeBoundKind,
};

pub(crate) async fn run(open: &mut Vec<Connection>, words: &[&str]) -> Result<String, Error> {
    match words {
        ["open", address] => {
            open.insert(0, Connection::open(*address).await?);
            return Ok("ok".into());
        }
        // Trusts a certificate, with `|` and `_` in place of line breaks and spaces.
        ["open-trusting", certificate, address] => {
            let certificate = certificate.replace('|', "\n").replace('_', " ");
            let options = OpenOptions { ca_root: Some(Certificate::Text(certificate)) };
            open.insert(0, Connection::open_with_options(address, options).await?);
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
        ["query", sql @ ..] => shown(connection.query(sql.join(" "), []).await?).await?,
        ["query-with", text, sql @ ..] => {
            let parameter = ParameterValue::Str((*text).to_owned());
            shown(connection.query(sql.join(" "), [parameter]).await?).await?
        }
        ["execute", sql @ ..] => connection.execute(sql.join(" "), []).await?.to_string(),
        // The number of rows, read one by one, with a statement on the same connection for each hundredth.
        ["count", sql @ ..] => {
            let mut result = connection.query(sql.join(" "), []).await?;
            let mut count = 0;
            while result.next().await.is_some() {
                count += 1;
                if count % 100 == 0 {
                    connection.execute("SELECT 1", []).await?;
                }
            }
            result.result().await?;
            count.to_string()
        }
        // The statement `count` times at once, over one connection.
        ["crowd", count, sql @ ..] => {
            let calls = (0..count.parse().unwrap_or(0))
                .map(|_: u32| connection.execute(sql.join(" "), Vec::new()));
            let results = join_all(calls).await;
            results.iter().filter(|result| result.is_ok()).count().to_string()
        }
        // A value of each type, as a parameter and back.
        ["types"] => {
            let mut lines = Vec::new();
            for (value, ty) in samples() {
                let sql = format!("SELECT $1::{ty}");
                let result = connection.query(sql, [value]).await?.collect().await?;
                lines.push(value_text(&result[0][0]));
            }
            lines.join(" ")
        }
        _ => format!("{words:?}?"),
    })
}

async fn shown(result: QueryResult) -> Result<String, Error> {
    let column = |column: &spin_sdk::pg::Column| {
        format!("{} {:?}", column.name, column.data_type).replace("DbDataType::", "")
    };
    let columns = result.columns().iter().map(column).collect::<Vec<_>>().join(",");
    let rows = result.collect().await?;
    let width = columns.split(',').count();
    let row = |row: &spin_sdk::pg::Row| {
        (0..width).map(|index| value_text(&row[index])).collect::<Vec<_>>().join(",")
    };
    Ok([columns].into_iter().chain(rows.iter().map(row)).collect::<Vec<_>>().join("|"))
}

fn value_text(value: &DbValue) -> String {
    let text = format!("{value:?}");
    text.replace("DbValue::", "").replace("RangeBoundKind::", "").replace(' ', "")
}

fn samples() -> Vec<(ParameterValue, &'static str)> {
    use ParameterValue as Value;
    let text = |text: &str| Some(text.to_owned());
    vec![
        (Value::Boolean(true), "bool"),
        (Value::Int8(-128), "\"char\""),
        (Value::Int16(i16::MIN), "int2"),
        (Value::Int32(i32::MIN), "int4"),
        (Value::Int64(i64::MIN), "int8"),
        (Value::Floating32(0.1), "float4"),
        (Value::Floating64(-1.0e-300), "float8"),
        (Value::Str("a\"é'\\".into()), "text"),
        (Value::Str("v".into()), "varchar(3)"),
        (Value::Binary(vec![0, 255]), "bytea"),
        (Value::Date((2024, 2, 29)), "date"),
        (Value::Date((-43, 3, 15)), "date"),
        (Value::Time((23, 59, 59, 999_999_000)), "time"),
        (Value::Datetime((1969, 12, 31, 23, 59, 59, 1000)), "timestamp"),
        (Value::Datetime((2024, 7, 1, 12, 0, 0, 0)), "timestamptz"),
        (Value::Timestamp(86_399), "timestamptz"),
        (Value::Uuid("67E55044-10B1-426F-9247-BB680E5FE0C8".into()), "uuid"),
        (Value::Jsonb(b"{\"a\": 12345678901234567890.50}".to_vec()), "jsonb"),
        (Value::Decimal("-123456789012345678901234567890.0500".into()), "numeric"),
        (Value::Decimal("NaN".into()), "numeric"),
        (
            Value::RangeInt32((
                Some((1, RangeBoundKind::Inclusive)),
                Some((5, RangeBoundKind::Inclusive)),
            )),
            "int4range",
        ),
        (Value::RangeInt64((None, Some((-1, RangeBoundKind::Exclusive)))), "int8range"),
        (Value::RangeDecimal((Some(("0.10".into(), RangeBoundKind::Exclusive)), None)), "numrange"),
        (Value::ArrayInt32(vec![Some(1), None]), "int4[]"),
        (Value::ArrayInt64(vec![]), "int8[]"),
        (Value::ArrayDecimal(vec![text("1e20"), None]), "numeric[]"),
        (Value::ArrayStr(vec![text("a,\"b\\"), text("NULL"), None]), "text[]"),
        (Value::Interval(Interval { micros: -i64::MAX, days: 30, months: -25 }), "interval"),
        (Value::DbNull, "int4"),
        (Value::Str("10.0.0.1".into()), "inet"),
    ]
}
