//! `.../postgres` of `fermyon:spin` and `.../postgres-3` of `spin:postgres@3.0.0`, with the commands of the guest `stores`.

use crate::bindings::fermyon::spin::postgres as fermyon;
use crate::bindings::fermyon::spin::rdbms_types;
use crate::bindings::spin::postgres::postgres as spin;

macro_rules! commands {
    ($name:ident, $interface:ident, $types:ident, $samples:ident) => {
        pub(crate) fn $name(
            open: &mut Vec<$interface::Connection>,
            words: &[&str],
        ) -> Result<String, $types::Error> {
            match words {
                ["open", address] => {
                    open.insert(0, $interface::Connection::open(address)?);
                    return Ok("ok".into());
                }
                ["close"] => {
                    open.clear();
                    return Ok("ok".into());
                }
                _ => {}
            }
            let Some(connection) = open.first() else { return Ok("nothing is open".into()) };
            let shown = |result: $types::RowSet| {
                let column = |column: &$types::Column| {
                    format!("{} {:?}", column.name, column.data_type).replace("DbDataType::", "")
                };
                let columns = result.columns.iter().map(column).collect::<Vec<_>>().join(",");
                let row = |row: &Vec<$types::DbValue>| {
                    let values = row.iter().map(|value| format!("{value:?}"));
                    let text = values.collect::<Vec<_>>().join(",");
                    text.replace("DbValue::", "").replace(' ', "")
                };
                let rows = result.rows.iter().map(row);
                [columns].into_iter().chain(rows).collect::<Vec<_>>().join("|")
            };
            Ok(match words {
                ["query", sql @ ..] => shown(connection.query(&sql.join(" "), &[])?),
                ["query-with", text, sql @ ..] => {
                    let parameter = $types::ParameterValue::Str((*text).to_owned());
                    shown(connection.query(&sql.join(" "), &[parameter])?)
                }
                ["execute", sql @ ..] => connection.execute(&sql.join(" "), &[])?.to_string(),
                ["count", sql @ ..] => {
                    connection.query(&sql.join(" "), &[])?.rows.len().to_string()
                }
                ["types"] => {
                    let mut values = Vec::new();
                    for (value, ty) in $samples() {
                        let result = connection.query(&format!("SELECT $1::{ty}"), &[value])?;
                        let value = format!("{:?}", result.rows[0][0]);
                        values.push(value.replace("DbValue::", "").replace(' ', ""));
                    }
                    values.join(" ")
                }
                _ => format!("{words:?}?"),
            })
        }
    };
}

commands!(run_fermyon, fermyon, rdbms_types, fermyon_samples);
commands!(run_spin, spin, spin, spin_samples);

fn fermyon_samples() -> Vec<(rdbms_types::ParameterValue, &'static str)> {
    use rdbms_types::ParameterValue as Value;
    vec![
        (Value::Boolean(false), "bool"),
        (Value::Int8(7), "int2"),
        (Value::Int16(7), "int2"),
        (Value::Int32(7), "int4"),
        (Value::Int64(7), "int8"),
        (Value::Uint8(u8::MAX), "int2"),
        (Value::Uint16(u16::MAX), "int4"),
        (Value::Uint32(u32::MAX), "int8"),
        (Value::Uint64(i64::MAX.unsigned_abs()), "int8"),
        (Value::Floating32(0.5), "float4"),
        (Value::Floating64(0.1), "float8"),
        (Value::Str("a".into()), "text"),
        (Value::Binary(vec![1]), "bytea"),
        (Value::DbNull, "text"),
        (Value::Str("2024-01-01".into()), "date"),
    ]
}

fn spin_samples() -> Vec<(spin::ParameterValue, &'static str)> {
    use spin::ParameterValue as Value;
    vec![
        (Value::Boolean(false), "bool"),
        (Value::Int8(7), "\"char\""),
        (Value::Int16(7), "int2"),
        (Value::Int32(7), "int4"),
        (Value::Int64(7), "int8"),
        (Value::Floating32(0.5), "float4"),
        (Value::Floating64(0.1), "float8"),
        (Value::Str("a".into()), "text"),
        (Value::Binary(vec![1]), "bytea"),
        (Value::Date((2024, 2, 29)), "date"),
        (Value::Time((1, 2, 3, 4000)), "time"),
        (Value::Datetime((2024, 1, 2, 3, 4, 5, 6000)), "timestamp"),
        (Value::Timestamp(60), "timestamptz"),
        (Value::DbNull, "text"),
        (Value::Str("1.5".into()), "numeric"),
    ]
}
