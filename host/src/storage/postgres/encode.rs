//! Parameters, in PostgreSQL's text format: the server converts them to the type that the statement needs.

use std::error::Error;
use std::fmt::{self, Display, Write as _};

use bytes::{BufMut, BytesMut};
use postgres_types::{Format, IsNull, ToSql, Type};
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::value::{Bound, BoundKind, Date, DateTime, PostgresValue, Time};

/// Days of the months of a year that is not a leap year.
const DAYS: [u8; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

impl PostgresValue {
    /// Checks a parameter, so that what is wrong with it has a message that names it.
    ///
    /// # Errors
    /// It is not a value of its type.
    pub(super) fn check(&self) -> Result<(), String> {
        let all = |texts: &[Option<String>]| texts.iter().flatten().try_for_each(|t| decimal(t));
        let bound =
            |bound: &Bound<String>| bound.as_ref().map_or(Ok(()), |(text, _)| decimal(text));
        match self {
            Self::Str(text) => no_nul(text),
            Self::Date(value) => date(*value),
            Self::Time(value) => time(*value),
            Self::Datetime((year, month, day, hour, minute, second, nanos)) => {
                date((*year, *month, *day))?;
                time((*hour, *minute, *second, *nanos))
            }
            Self::Uuid(text) => match Uuid::parse_str(text) {
                Ok(_) => Ok(()),
                Err(_) => Err("it is not a UUID".into()),
            },
            Self::Jsonb(bytes) => serde_json::from_slice::<IgnoredAny>(bytes)
                .map(drop)
                .map_err(|error| format!("it is not JSON: {error}")),
            Self::Decimal(text) => decimal(text),
            Self::RangeDecimal((lower, upper)) => bound(lower).and_then(|()| bound(upper)),
            Self::ArrayDecimal(values) => all(values),
            Self::ArrayStr(values) => values.iter().flatten().try_for_each(|text| no_nul(text)),
            _ => Ok(()),
        }
    }
}

fn no_nul(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("it contains a NUL character, which PostgreSQL cannot store".into());
    }
    Ok(())
}

fn date((year, month, day): Date) -> Result<(), String> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match usize::from(month).checked_sub(1).and_then(|index| DAYS.get(index)) {
        Some(_) if month == 2 && leap => 29,
        Some(days) => *days,
        None => return Err(format!("there is no month {month}")),
    };
    if !(1..=days).contains(&day) {
        return Err(format!("there is no day {day} in month {month} of year {year}"));
    }
    Ok(())
}

fn time((hour, minute, second, nanos): Time) -> Result<(), String> {
    let end_of_day = (hour, minute, second, nanos) == (24, 0, 0, 0);
    if !end_of_day && (hour > 23 || minute > 59 || second > 59 || nanos > 999_999_999) {
        return Err("it is not a time (hour, minute, second, nanosecond)".into());
    }
    Ok(())
}

/// Whether `text` is a decimal number as PostgreSQL's `numeric` accepts it.
fn decimal(text: &str) -> Result<(), String> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let exponent = exponent.map(|text| text.strip_prefix(['-', '+']).unwrap_or(text));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let number = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|text| !text.is_empty() && digits(text));
    let special = text == "NaN" || ["Infinity", "inf"].contains(&unsigned);
    if number || special { Ok(()) } else { Err("it is not a decimal number".into()) }
}

impl ToSql for PostgresValue {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => return Ok(IsNull::Yes),
            Self::Int8(number) if *ty == Type::CHAR => out.put_i8(*number),
            Self::Binary(bytes) if *ty == Type::BYTEA => out.put_slice(bytes),
            Self::Interval(interval) if *ty == Type::INTERVAL => {
                out.put_i64(interval.micros);
                out.put_i32(interval.days);
                out.put_i32(interval.months);
            }
            Self::Str(text) | Self::Uuid(text) | Self::Decimal(text) => {
                out.put_slice(text.as_bytes());
            }
            Self::Jsonb(bytes) => out.put_slice(bytes),
            Self::Unsupported(_) => return Err("it is not a parameter".into()),
            _ => write!(out, "{}", Text(self))?,
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, ty: &Type) -> Format {
        match self {
            Self::Int8(_) if *ty == Type::CHAR => Format::Binary,
            Self::Binary(_) if *ty == Type::BYTEA => Format::Binary,
            Self::Interval(_) if *ty == Type::INTERVAL => Format::Binary,
            _ => Format::Text,
        }
    }

    postgres_types::to_sql_checked!();
}

/// A value in PostgreSQL's text format.
struct Text<'a>(&'a PostgresValue);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use PostgresValue as Value;
        match self.0 {
            Value::Boolean(value) => write!(f, "{value}"),
            Value::Int8(number) => write!(f, "{number}"),
            Value::Int16(number) => write!(f, "{number}"),
            Value::Int32(number) => write!(f, "{number}"),
            Value::Int64(number) => write!(f, "{number}"),
            // The shortest text that is this number; `inf` and `NaN` are PostgreSQL's too.
            Value::Floating32(number) => write!(f, "{number:e}"),
            Value::Floating64(number) => write!(f, "{number:e}"),
            Value::Str(text) | Value::Uuid(text) | Value::Decimal(text) => f.write_str(text),
            Value::Binary(bytes) => {
                f.write_str("\\x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Value::Date(date) => write_datetime(f, *date, None),
            Value::Time(time) => write_time(f, *time),
            Value::Datetime(value) => {
                let (date, time) = split(*value);
                write_datetime(f, date, Some(time))
            }
            Value::Timestamp(seconds) => match super::decode::civil(*seconds) {
                Some(value) => {
                    let (date, time) = split(value);
                    write_datetime(f, date, Some(time))
                }
                // No year of PostgreSQL: the server returns an error.
                None => write!(f, "{seconds}"),
            },
            Value::RangeInt32((lower, upper)) => write_range(f, lower, upper),
            Value::RangeInt64((lower, upper)) => write_range(f, lower, upper),
            Value::RangeDecimal((lower, upper)) => write_range(f, lower, upper),
            Value::ArrayInt32(values) => write_array(f, values),
            Value::ArrayInt64(values) => write_array(f, values),
            Value::ArrayDecimal(values) => write_array(f, values),
            Value::ArrayStr(values) => {
                let quoted = values.iter().map(|value| value.as_deref().map(Quoted));
                write_array(f, &quoted.collect::<Vec<_>>())
            }
            Value::Interval(interval) => write!(
                f,
                "{} months {} days {} microseconds",
                interval.months, interval.days, interval.micros
            ),
            // Written by their callers.
            Value::Jsonb(_) | Value::Null | Value::Unsupported(_) => Err(fmt::Error),
        }
    }
}

fn split((year, month, day, hour, minute, second, nanos): DateTime) -> (Date, Time) {
    ((year, month, day), (hour, minute, second, nanos))
}

/// Writes a date, or a date and a time in UTC.
fn write_datetime(
    f: &mut fmt::Formatter<'_>,
    (year, month, day): Date,
    time: Option<Time>,
) -> fmt::Result {
    let before_christ = year < 1;
    let year = if before_christ { 1 - i64::from(year) } else { year.into() };
    write!(f, "{year:04}-{month:02}-{day:02}")?;
    if let Some(time) = time {
        f.write_char(' ')?;
        write_time(f, time)?;
        f.write_str("+00")?;
    }
    if before_christ { f.write_str(" BC") } else { Ok(()) }
}

/// PostgreSQL stores microseconds; it would round the rest up.
fn write_time(f: &mut fmt::Formatter<'_>, (hour, minute, second, nanos): Time) -> fmt::Result {
    write!(f, "{hour:02}:{minute:02}:{second:02}.{:06}", nanos / 1000)
}

fn write_range<T: Display>(
    f: &mut fmt::Formatter<'_>,
    lower: &Bound<T>,
    upper: &Bound<T>,
) -> fmt::Result {
    match lower {
        Some((value, BoundKind::Inclusive)) => write!(f, "[{value},")?,
        Some((value, BoundKind::Exclusive)) => write!(f, "({value},")?,
        None => f.write_str("(,")?,
    }
    match upper {
        Some((value, BoundKind::Inclusive)) => write!(f, "{value}]"),
        Some((value, BoundKind::Exclusive)) => write!(f, "{value})"),
        None => f.write_char(')'),
    }
}

fn write_array<T: Display>(f: &mut fmt::Formatter<'_>, values: &[Option<T>]) -> fmt::Result {
    f.write_char('{')?;
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            f.write_char(',')?;
        }
        match value {
            Some(value) => write!(f, "{value}")?,
            None => f.write_str("NULL")?,
        }
    }
    f.write_char('}')
}

/// A text in an array.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for char in self.0.chars() {
            if matches!(char, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(char)?;
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_the_text_that_postgresql_reads() {
        use PostgresValue as Value;
        let exclusive = |value| Some((value, BoundKind::Exclusive));
        for (value, text) in [
            (Value::Boolean(true), "true"),
            (Value::Floating32(0.1), "1e-1"),
            (Value::Floating64(f64::NEG_INFINITY), "-inf"),
            (Value::Binary(vec![0, 255]), "\\x00ff"),
            (Value::Date((2024, 2, 29)), "2024-02-29"),
            (Value::Date((0, 12, 31)), "0001-12-31 BC"),
            (Value::Date((-43, 3, 15)), "0044-03-15 BC"),
            (Value::Time((23, 59, 59, 999_999_999)), "23:59:59.999999"),
            (Value::Datetime((2024, 1, 2, 3, 4, 5, 6000)), "2024-01-02 03:04:05.000006+00"),
            (Value::Timestamp(-1), "1969-12-31 23:59:59.000000+00"),
            (Value::Timestamp(i64::MAX), "9223372036854775807"),
            (Value::RangeInt32((Some((1, BoundKind::Inclusive)), exclusive(5))), "[1,5)"),
            (Value::RangeInt64((None, None)), "(,)"),
            (Value::ArrayInt32(vec![Some(1), None]), "{1,NULL}"),
            (Value::ArrayStr(vec![Some("a\"\\,{NULL".into())]), "{\"a\\\"\\\\,{NULL\"}"),
            (Value::ArrayStr(Vec::new()), "{}"),
        ] {
            assert_eq!(Text(&value).to_string(), text);
        }
    }

    #[test]
    fn parameter_that_is_no_value_of_its_type_is_rejected() {
        use PostgresValue as Value;
        let decimal = |text: &str| Value::Decimal(text.into());
        for value in [
            Value::Str("a\0".into()),
            Value::Date((2023, 2, 29)),
            Value::Date((1900, 2, 29)),
            Value::Date((2024, 13, 1)),
            Value::Date((2024, 0, 1)),
            Value::Date((2024, 4, 0)),
            Value::Time((24, 0, 0, 1)),
            Value::Time((0, 60, 0, 0)),
            Value::Datetime((2024, 1, 1, 0, 0, 60, 0)),
            Value::Uuid("hush".into()),
            Value::Jsonb(b"{\"a\":}".to_vec()),
            Value::ArrayStr(vec![None, Some("\0".into())]),
            Value::ArrayDecimal(vec![Some("1".into()), Some("1;2".into())]),
            Value::RangeDecimal((Some(("1,2".into(), BoundKind::Inclusive)), None)),
            decimal(""),
            decimal("."),
            decimal("1e"),
            decimal("0x1"),
            decimal("--1"),
        ] {
            let problem = value.check().unwrap_err();
            assert!(!problem.contains("hush"), "{problem}");
        }
        for value in [
            Value::Date((2000, 2, 29)),
            Value::Time((24, 0, 0, 0)),
            Value::Jsonb(b" [1] ".to_vec()),
            Value::Null,
            decimal("-1.50"),
            decimal(".5"),
            decimal("5."),
            decimal("+1e-7"),
            decimal("NaN"),
            decimal("-Infinity"),
        ] {
            value.check().unwrap();
        }
    }
}
