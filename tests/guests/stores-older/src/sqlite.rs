//! `.../sqlite` of `fermyon:spin` and `.../sqlite-3` of `spin:sqlite@3.0.0`, with the commands of the guest `stores`.

use crate::bindings::fermyon::spin::sqlite as fermyon;
use crate::bindings::spin::sqlite::sqlite as spin;

macro_rules! commands {
    ($name:ident, $interface:ident) => {
        pub(crate) fn $name(
            open: &mut Vec<$interface::Connection>,
            words: &[&str],
        ) -> Result<String, $interface::Error> {
            match words {
                ["open", label] => {
                    open.insert(0, $interface::Connection::open(label)?);
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
                    let values = values!($interface, parameters);
                    let result = connection.execute(&sql.join(" "), &values)?;
                    let rows = result.rows.iter().map(|row| row!($interface, row));
                    [result.columns.join(",")].into_iter().chain(rows).collect::<Vec<_>>().join("|")
                }
                ["sleep", millis] => {
                    let millis = millis.parse().unwrap_or(0);
                    std::thread::sleep(std::time::Duration::from_millis(millis));
                    "ok".into()
                }
                words => commands!(@more $interface, connection, words),
            })
        }
    };
    (@more spin, $connection:ident, $words:ident) => {
        match $words {
            ["changes"] => $connection.changes().to_string(),
            ["rowid"] => $connection.last_insert_rowid().to_string(),
            words => format!("{words:?}?"),
        }
    };
    (@more fermyon, $connection:ident, $words:ident) => {
        format!("{:?}?", $words)
    };
}

macro_rules! values {
    ($interface:ident, $text:ident) => {{
        let values = $text.split(',').filter(|text| *text != "-");
        let value = |text: &str| match text.split_once(':') {
            Some(("i", number)) => $interface::Value::Integer(number.parse().unwrap_or(0)),
            Some(("r", number)) => $interface::Value::Real(number.parse().unwrap_or(0.0)),
            Some(("b", hex)) => $interface::Value::Blob(bytes(hex)),
            Some(("t", text)) => $interface::Value::Text(text.into()),
            _ => $interface::Value::Null,
        };
        values.map(value).collect::<Vec<_>>()
    }};
}

macro_rules! row {
    ($interface:ident, $row:ident) => {{
        let value = |value: &$interface::Value| match value {
            $interface::Value::Integer(number) => format!("i:{number}"),
            $interface::Value::Real(number) => format!("r:{number:?}"),
            $interface::Value::Text(text) => format!("t:{text}"),
            $interface::Value::Blob(bytes) => {
                bytes.iter().fold("b:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
            }
            $interface::Value::Null => "null".into(),
        };
        $row.values.iter().map(value).collect::<Vec<_>>().join(",")
    }};
}

commands!(run_fermyon, fermyon);
commands!(run_spin, spin);

fn bytes(hex: &str) -> Vec<u8> {
    let digits = (0..hex.len()).step_by(2).filter_map(|at| hex.get(at..at + 2));
    digits.filter_map(|digits| u8::from_str_radix(digits, 16).ok()).collect()
}
