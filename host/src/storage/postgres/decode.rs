//! Values in results, in PostgreSQL's binary format. The bytes are those of a server that a guest chose, so
//! nothing in them is trusted, and memory is charged before it is allocated.

use std::error::Error;
use std::fmt::Write as _;

use bytes::Buf;
use postgres_types::{FromSql, Type};
use uuid::Uuid;

use super::result::ResultSize;
use super::value::{Bound, BoundKind, Date, DateTime, Interval, PostgresValue, Time};

/// Days from 1970 to 2000, the epoch of PostgreSQL.
const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;
const DAY_SECONDS: i64 = 24 * 60 * 60;
/// Base-10 digits in a digit of `numeric`.
const DIGIT_LENGTH: i64 = 4;
/// Version of the format of `jsonb`.
const JSONB_VERSION: u8 = 1;

/// A value as received.
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Why a value is not decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    /// A value of PostgreSQL that Spin's interfaces do not have.
    #[error("{0}")]
    NoValue(&'static str),
    #[error("the server sent an invalid value")]
    Malformed,
    /// The result is too large.
    #[error("{0}")]
    TooLarge(String),
}

type Decoded<T> = Result<T, DecodeError>;

const MALFORMED: DecodeError = DecodeError::Malformed;

/// Decodes a value that is not null. Its memory is added to `size`.
pub(super) fn value(ty: &Type, raw: &[u8], size: &mut ResultSize) -> Decoded<PostgresValue> {
    use PostgresValue as Value;
    let mut raw = raw;
    let value = match *ty {
        Type::BOOL => Value::Boolean(take::<1>(&mut raw)? != [0]),
        Type::CHAR => Value::Int8(i8::from_be_bytes(take(&mut raw)?)),
        Type::INT2 => Value::Int16(i16::from_be_bytes(take(&mut raw)?)),
        Type::INT4 => Value::Int32(i32::from_be_bytes(take(&mut raw)?)),
        Type::INT8 => Value::Int64(i64::from_be_bytes(take(&mut raw)?)),
        Type::FLOAT4 => Value::Floating32(f32::from_be_bytes(take(&mut raw)?)),
        Type::FLOAT8 => Value::Floating64(f64::from_be_bytes(take(&mut raw)?)),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR => Value::Str(text(&mut raw, size)?),
        Type::BYTEA => Value::Binary(rest(&mut raw, size)?),
        Type::DATE => Value::Date(date(i32::from_be_bytes(take(&mut raw)?))?),
        Type::TIME => Value::Time(time(i64::from_be_bytes(take(&mut raw)?))?),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            Value::Datetime(datetime(i64::from_be_bytes(take(&mut raw)?))?)
        }
        Type::UUID => Value::Uuid(Uuid::from_bytes(take(&mut raw)?).to_string()),
        Type::JSONB => {
            if take::<1>(&mut raw)? != [JSONB_VERSION] {
                return Err(MALFORMED);
            }
            Value::Jsonb(rest(&mut raw, size)?)
        }
        Type::NUMERIC => Value::Decimal(numeric(&mut raw, size)?),
        Type::INT4_RANGE => {
            Value::RangeInt32(range(&mut raw, 0, |raw| Ok(i32::from_be_bytes(take(raw)?)))?)
        }
        Type::INT8_RANGE => {
            Value::RangeInt64(range(&mut raw, 0, |raw| Ok(i64::from_be_bytes(take(raw)?)))?)
        }
        Type::NUM_RANGE => {
            Value::RangeDecimal(range(&mut raw, "0".to_owned(), |raw| numeric(raw, size))?)
        }
        Type::INT4_ARRAY => {
            let item = |raw: &mut &[u8], _: &mut ResultSize| Ok(i32::from_be_bytes(take(raw)?));
            Value::ArrayInt32(array(&mut raw, size, item)?)
        }
        Type::INT8_ARRAY => {
            let item = |raw: &mut &[u8], _: &mut ResultSize| Ok(i64::from_be_bytes(take(raw)?));
            Value::ArrayInt64(array(&mut raw, size, item)?)
        }
        Type::NUMERIC_ARRAY => Value::ArrayDecimal(array(&mut raw, size, numeric)?),
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::BPCHAR_ARRAY => {
            Value::ArrayStr(array(&mut raw, size, text)?)
        }
        Type::INTERVAL => Value::Interval(Interval {
            micros: i64::from_be_bytes(take(&mut raw)?),
            days: i32::from_be_bytes(take(&mut raw)?),
            months: i32::from_be_bytes(take(&mut raw)?),
        }),
        _ => Value::Unsupported(rest(&mut raw, size)?),
    };
    if raw.is_empty() { Ok(value) } else { Err(MALFORMED) }
}

/// The types that are decoded, and one that is not.
#[cfg(any(test, fuzzing))]
pub(super) fn types() -> [Type; 25] {
    [
        Type::BOOL,
        Type::CHAR,
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::FLOAT4,
        Type::FLOAT8,
        Type::TEXT,
        Type::BYTEA,
        Type::DATE,
        Type::TIME,
        Type::TIMESTAMP,
        Type::TIMESTAMPTZ,
        Type::UUID,
        Type::JSONB,
        Type::NUMERIC,
        Type::INT4_RANGE,
        Type::INT8_RANGE,
        Type::NUM_RANGE,
        Type::INT4_ARRAY,
        Type::INT8_ARRAY,
        Type::NUMERIC_ARRAY,
        Type::TEXT_ARRAY,
        Type::INTERVAL,
        Type::POINT,
    ]
}

fn take<const N: usize>(raw: &mut &[u8]) -> Decoded<[u8; N]> {
    let (bytes, rest) = raw.split_first_chunk::<N>().ok_or(MALFORMED)?;
    *raw = rest;
    Ok(*bytes)
}

fn rest(raw: &mut &[u8], size: &mut ResultSize) -> Decoded<Vec<u8>> {
    size.add(raw.len()).map_err(DecodeError::TooLarge)?;
    Ok(std::mem::take(raw).to_vec())
}

fn text(raw: &mut &[u8], size: &mut ResultSize) -> Decoded<String> {
    String::from_utf8(rest(raw, size)?).map_err(|_| MALFORMED)
}

/// The date of a day since 1970, by the algorithm `civil_from_days` of Howard Hinnant
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn civil_date(days: i64) -> Option<Date> {
    let shifted = days.checked_add(719_468)?;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months count from March.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year_of_era + carry;
    Some((i32::try_from(year).ok()?, u8::try_from(month).ok()?, u8::try_from(day).ok()?))
}

/// The date and time of a Unix timestamp in seconds; `None` if its year does not fit.
pub(super) fn civil(seconds: i64) -> Option<DateTime> {
    let (year, month, day) = civil_date(seconds.div_euclid(DAY_SECONDS))?;
    let (hour, minute, second, nanos) = time_of_day(seconds.rem_euclid(DAY_SECONDS) * 1_000_000)?;
    Some((year, month, day, hour, minute, second, nanos))
}

fn time_of_day(micros: i64) -> Option<Time> {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    Some((
        u8::try_from(seconds / 3600).ok()?,
        u8::try_from(seconds / 60 % 60).ok()?,
        u8::try_from(seconds % 60).ok()?,
        u32::try_from(micros * 1000).ok()?,
    ))
}

/// A date in days since 2000.
fn date(days: i32) -> Decoded<Date> {
    if days == i32::MIN || days == i32::MAX {
        return Err(DecodeError::NoValue("the date is infinite; select it as text"));
    }
    civil_date(i64::from(days) + EPOCH_DAYS).ok_or(MALFORMED)
}

/// A time in microseconds since midnight.
fn time(micros: i64) -> Decoded<Time> {
    if !(0..=DAY_MICROS).contains(&micros) {
        return Err(MALFORMED);
    }
    time_of_day(micros).ok_or(MALFORMED)
}

/// A date and time in microseconds since 2000.
fn datetime(micros: i64) -> Decoded<DateTime> {
    if micros == i64::MIN || micros == i64::MAX {
        return Err(DecodeError::NoValue("the timestamp is infinite; select it as text"));
    }
    let (year, month, day) =
        civil_date(micros.div_euclid(DAY_MICROS) + EPOCH_DAYS).ok_or(MALFORMED)?;
    let (hour, minute, second, nanos) =
        time_of_day(micros.rem_euclid(DAY_MICROS)).ok_or(MALFORMED)?;
    Ok((year, month, day, hour, minute, second, nanos))
}

/// A decimal number as PostgreSQL writes it. It is as long as its exponent, not as its bytes.
fn numeric(raw: &mut &[u8], size: &mut ResultSize) -> Decoded<String> {
    let count = u16::from_be_bytes(take(raw)?);
    // Position of the first digit, in digits before the decimal point.
    let weight = i64::from(i16::from_be_bytes(take(raw)?));
    let sign = u16::from_be_bytes(take(raw)?);
    let scale = u16::from_be_bytes(take(raw)?);
    let bytes = usize::from(count) * 2;
    if raw.len() < bytes {
        return Err(MALFORMED);
    }
    let (mut digits, rest) = raw.split_at(bytes);
    *raw = rest;
    let (sign, special) = match sign {
        0 => ("", None),
        0x4000 => ("-", None),
        0xC000 => ("", Some("NaN")),
        0xD000 => ("", Some("Infinity")),
        0xF000 => ("", Some("-Infinity")),
        _ => return Err(MALFORMED),
    };
    if let Some(special) = special {
        size.add(special.len()).map_err(DecodeError::TooLarge)?;
        return Ok(special.into());
    }
    let digits: Vec<u16> =
        std::iter::from_fn(|| digits.has_remaining().then(|| digits.get_u16())).collect();
    if digits.iter().any(|digit| *digit > 9999) {
        return Err(MALFORMED);
    }
    let digit = |position: i64| {
        let index = usize::try_from(weight - position).ok();
        index.and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let length = sign.len()
        + usize::try_from(weight.max(0) * DIGIT_LENGTH).unwrap_or(0)
        + usize::from(scale)
        + 8;
    size.add(length).map_err(DecodeError::TooLarge)?;
    let mut text = String::with_capacity(length);
    text.push_str(sign);
    // Writing to a string cannot fail.
    let _ = write!(text, "{}", digit(weight.max(0)));
    for position in (0..weight).rev() {
        let _ = write!(text, "{:04}", digit(position));
    }
    if scale > 0 {
        text.push('.');
        let end = text.len() + usize::from(scale);
        let mut position = -1;
        while text.len() < end {
            let _ = write!(text, "{:04}", digit(position));
            position -= 1;
        }
        text.truncate(end);
    }
    Ok(text)
}

/// A range. The empty one becomes `[zero,zero)`.
fn range<T: Clone>(
    raw: &mut &[u8],
    zero: T,
    mut bound: impl FnMut(&mut &[u8]) -> Decoded<T>,
) -> Decoded<(Bound<T>, Bound<T>)> {
    const EMPTY: u8 = 1;
    const LOWER_INCLUSIVE: u8 = 2;
    const UPPER_INCLUSIVE: u8 = 4;
    const LOWER_INFINITE: u8 = 8;
    const UPPER_INFINITE: u8 = 16;
    let [flags] = take(raw)?;
    if flags & EMPTY != 0 {
        let upper = Some((zero.clone(), BoundKind::Exclusive));
        return Ok((Some((zero, BoundKind::Inclusive)), upper));
    }
    let mut next = |infinite: u8, inclusive: u8| {
        if flags & infinite != 0 {
            return Ok(None);
        }
        let mut one = item(raw)?.ok_or(MALFORMED)?;
        let value = bound(&mut one)?;
        let kind = match flags & inclusive {
            0 => BoundKind::Exclusive,
            _ => BoundKind::Inclusive,
        };
        if one.is_empty() { Ok(Some((value, kind))) } else { Err(MALFORMED) }
    };
    Ok((next(LOWER_INFINITE, LOWER_INCLUSIVE)?, next(UPPER_INFINITE, UPPER_INCLUSIVE)?))
}

/// The next item with a length in front of it; `None` for null.
fn item<'a>(raw: &mut &'a [u8]) -> Decoded<Option<&'a [u8]>> {
    let length = i32::from_be_bytes(take(raw)?);
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| MALFORMED)?;
    let (item, rest) = raw.split_at_checked(length).ok_or(MALFORMED)?;
    *raw = rest;
    Ok(Some(item))
}

fn array<T>(
    raw: &mut &[u8],
    size: &mut ResultSize,
    decode: impl Fn(&mut &[u8], &mut ResultSize) -> Decoded<T>,
) -> Decoded<Vec<Option<T>>> {
    let dimensions = i32::from_be_bytes(take(raw)?);
    // Whether there are nulls, and the type of the items, which is that of the column.
    let _: [u8; 8] = take(raw)?;
    match dimensions {
        0 => return Ok(Vec::new()),
        1 => {}
        _ => {
            return Err(DecodeError::NoValue(
                "the array has several dimensions; select it as text or unnest it",
            ));
        }
    }
    let count = usize::try_from(i32::from_be_bytes(take(raw)?)).map_err(|_| MALFORMED)?;
    let _lower_bound: [u8; 4] = take(raw)?;
    // Each item has a length of 4 bytes.
    if count > raw.len() / 4 {
        return Err(MALFORMED);
    }
    size.add(count * size_of::<Option<T>>()).map_err(DecodeError::TooLarge)?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(match item(raw)? {
            None => None,
            Some(mut item) => {
                let value = decode(&mut item, size)?;
                if !item.is_empty() {
                    return Err(MALFORMED);
                }
                Some(value)
            }
        });
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::process::memory_budget::MemoryBudget;

    fn size() -> ResultSize {
        ResultSize::new(&MemoryBudget::new(1 << 30, "limit"))
    }

    fn decoded(ty: &Type, raw: &[u8]) -> Decoded<PostgresValue> {
        value(ty, raw, &mut size())
    }

    fn number(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Vec<u8> {
        let mut raw = Vec::new();
        raw.extend(u16::try_from(digits.len()).unwrap().to_be_bytes());
        raw.extend(weight.to_be_bytes());
        raw.extend(
            [sign, scale].into_iter().chain(digits.iter().copied()).flat_map(u16::to_be_bytes),
        );
        raw
    }

    #[test]
    fn numbers_have_every_digit() {
        for (raw, text) in [
            (number(0, 0, 0, &[]), "0"),
            (number(0, 0, 2, &[]), "0.00"),
            (number(1, 0x4000, 3, &[12, 3456, 7000]), "-123456.700"),
            (number(2, 0, 0, &[1]), "100000000"),
            (number(-2, 0, 7, &[1200]), "0.0000120"),
            (number(-1, 0, 4, &[1]), "0.0001"),
            (number(0, 0xC000, 0, &[]), "NaN"),
            (number(0, 0xF000, 0, &[]), "-Infinity"),
        ] {
            let value = decoded(&Type::NUMERIC, &raw).unwrap();
            assert!(value == PostgresValue::Decimal(text.into()), "{text}");
        }
        assert_eq!(decoded(&Type::NUMERIC, &number(0, 0, 0, &[10_000])), Err(MALFORMED));
    }

    #[test]
    fn dates_far_from_now_are_exact() {
        for (days, expected) in [
            (0, (2000, 1, 1)),
            (-1, (1999, 12, 31)),
            (59, (2000, 2, 29)),
            (-730_120, (0, 12, 31)),
            // The last and the first day of PostgreSQL.
            (2_145_031_948, (5_874_897, 12, 31)),
            (-2_451_545, (-4713, 11, 24)),
        ] {
            assert_eq!(date(days), Ok(expected));
        }
        assert!(matches!(date(i32::MAX), Err(DecodeError::NoValue(_))));
        assert!(matches!(datetime(i64::MIN), Err(DecodeError::NoValue(_))));
        assert_eq!(datetime(-1), Ok((1999, 12, 31, 23, 59, 59, 999_999_000)));
        assert_eq!(time(DAY_MICROS), Ok((24, 0, 0, 0)));
        assert_eq!(time(DAY_MICROS + 1), Err(MALFORMED));
        assert_eq!(civil(0), Some((1970, 1, 1, 0, 0, 0, 0)));
    }

    /// A few bytes may stand for a long text: it is charged before it is written.
    #[test]
    fn long_numbers_count_with_their_text() {
        let raw = number(i16::MAX, 0, 0, &[1]);
        let mut size = size();
        value(&Type::NUMERIC, &raw, &mut size).unwrap();
        assert!(size.bytes() > 4 * 32_767);
        let before = size.bytes();
        value(&Type::NUMERIC, &number(0, 0xF000, 0, &[]), &mut size).unwrap();
        assert_eq!(size.bytes() - before, "-Infinity".len());
        let mut array = Vec::new();
        let count = 1000_i32;
        array.extend([1, 0, 1700, count, 1].into_iter().flat_map(i32::to_be_bytes));
        for _ in 0..count {
            array.extend(i32::try_from(raw.len()).unwrap().to_be_bytes());
            array.extend(&raw);
        }
        assert!(matches!(decoded(&Type::NUMERIC_ARRAY, &array), Err(DecodeError::TooLarge(_))));
    }

    #[test]
    fn empty_range_is_a_range_without_values() {
        let PostgresValue::RangeInt32(range) = decoded(&Type::INT4_RANGE, &[1]).unwrap() else {
            panic!("a range")
        };
        assert_eq!(range, (Some((0, BoundKind::Inclusive)), Some((0, BoundKind::Exclusive))));
    }

    proptest! {
        /// The bytes are the server's.
        #[test]
        fn any_bytes_are_decoded_or_malformed(raw: Vec<u8>, index in 0..25_usize, dimensions in 0..3_i32) {
            let types = types();
            let _ = decoded(&types[index], &raw);
            let array: Vec<u8> = dimensions.to_be_bytes().into_iter().chain(raw).collect();
            let _ = decoded(&types[index], &array);
        }
    }
}
