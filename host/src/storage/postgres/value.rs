//! Values and types of columns, as the newest of Spin's interfaces has them; older ones have some of them.

use std::fmt;

use postgres_types::Type;

/// Year, month and day. Year 0 is 1 BC.
pub(super) type Date = (i32, u8, u8);
/// Hour, minute, second and nanosecond.
pub(super) type Time = (u8, u8, u8, u32);
/// A date and a time.
pub(super) type DateTime = (i32, u8, u8, u8, u8, u8, u32);
/// A bound of a range; `None` for no bound.
pub(super) type Bound<T> = Option<(T, BoundKind)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundKind {
    Inclusive,
    Exclusive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub micros: i64,
    pub days: i32,
    pub months: i32,
}

/// A parameter, or a value in a result.
#[derive(Clone, PartialEq)]
pub enum PostgresValue {
    Boolean(bool),
    Int8(i8),
    Int16(i16),
    Int32(i32),
    Int64(i64),
    Floating32(f32),
    Floating64(f64),
    Str(String),
    Binary(Vec<u8>),
    Date(Date),
    Time(Time),
    Datetime(DateTime),
    /// Seconds since 1970. Only a parameter.
    Timestamp(i64),
    Uuid(String),
    Jsonb(Vec<u8>),
    Decimal(String),
    RangeInt32((Bound<i32>, Bound<i32>)),
    RangeInt64((Bound<i64>, Bound<i64>)),
    RangeDecimal((Bound<String>, Bound<String>)),
    ArrayInt32(Vec<Option<i32>>),
    ArrayInt64(Vec<Option<i64>>),
    ArrayDecimal(Vec<Option<String>>),
    ArrayStr(Vec<Option<String>>),
    Interval(Interval),
    Null,
    /// A value of another type, in PostgreSQL's binary format. Only in a result.
    Unsupported(Vec<u8>),
}

/// Without the value: the library logs parameters.
impl fmt::Debug for PostgresValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresValue").finish_non_exhaustive()
    }
}

impl PostgresValue {
    /// Memory of the value beyond its own size, in bytes.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        fn texts(texts: &[Option<String>]) -> usize {
            let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
            size_of_val(texts) + texts.iter().map(text).sum::<usize>()
        }
        fn bound(bound: &Bound<String>) -> usize {
            bound.as_ref().map_or(0, |(text, _)| text.len())
        }
        match self {
            Self::Str(text) | Self::Uuid(text) | Self::Decimal(text) => text.len(),
            Self::Binary(bytes) | Self::Jsonb(bytes) | Self::Unsupported(bytes) => bytes.len(),
            Self::ArrayInt32(values) => size_of_val(&**values),
            Self::ArrayInt64(values) => size_of_val(&**values),
            Self::ArrayDecimal(values) | Self::ArrayStr(values) => texts(values),
            Self::RangeDecimal((lower, upper)) => bound(lower) + bound(upper),
            _ => 0,
        }
    }
}

/// The type of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataType {
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    Floating32,
    Floating64,
    Str,
    Binary,
    Date,
    Time,
    Datetime,
    Uuid,
    Jsonb,
    Decimal,
    RangeInt32,
    RangeInt64,
    RangeDecimal,
    ArrayInt32,
    ArrayInt64,
    ArrayDecimal,
    ArrayStr,
    Interval,
    /// Any other, by its name in PostgreSQL.
    Other(String),
}

impl From<&Type> for DataType {
    fn from(ty: &Type) -> Self {
        match *ty {
            Type::BOOL => Self::Boolean,
            Type::CHAR => Self::Int8,
            Type::INT2 => Self::Int16,
            Type::INT4 => Self::Int32,
            Type::INT8 => Self::Int64,
            Type::FLOAT4 => Self::Floating32,
            Type::FLOAT8 => Self::Floating64,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR => Self::Str,
            Type::BYTEA => Self::Binary,
            Type::DATE => Self::Date,
            Type::TIME => Self::Time,
            Type::TIMESTAMP | Type::TIMESTAMPTZ => Self::Datetime,
            Type::UUID => Self::Uuid,
            Type::JSONB => Self::Jsonb,
            Type::NUMERIC => Self::Decimal,
            Type::INT4_RANGE => Self::RangeInt32,
            Type::INT8_RANGE => Self::RangeInt64,
            Type::NUM_RANGE => Self::RangeDecimal,
            Type::INT4_ARRAY => Self::ArrayInt32,
            Type::INT8_ARRAY => Self::ArrayInt64,
            Type::NUMERIC_ARRAY => Self::ArrayDecimal,
            Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::BPCHAR_ARRAY => Self::ArrayStr,
            Type::INTERVAL => Self::Interval,
            _ => Self::Other(ty.name().to_owned()),
        }
    }
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub data_type: DataType,
}
