//! Writes Parquet through arrow: rows are collected into batches, and batches into row groups of
//! bounded size.

use std::io::Write;
use std::sync::Arc;

use anyhow::Result;
use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use uuid::Uuid;

use super::super::json;
use super::super::reader::{Member, StoredRecord};
use super::super::scalar::Scalar;
use super::layout::{ColumnKind, ExportLayout, FieldLayout, MemberColumns};
use super::members_of;

/// Number of rows of a batch.
pub(super) const BATCH: usize = 4096;
/// Maximum rows and bytes of a row group, which is in memory until it is written.
const GROUP_ROWS: usize = 1 << 17;
const GROUP_BYTES: usize = 32 << 20;

/// Writer of a Parquet file.
pub(super) struct ParquetFile<'a, W: Write + Send> {
    /// The columns of each member, in the order of [`members_of`].
    members: Vec<MemberColumns<'a>>,
    schema: SchemaRef,
    columns: Vec<Builder>,
    rows: usize,
    writer: ArrowWriter<W>,
    text: Vec<u8>,
}

enum Builder {
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Number(Float64Builder),
    Text(StringBuilder),
    Time(TimestampMicrosecondBuilder),
}

impl Builder {
    /// A builder of the column of a member of records.
    fn of_member(member: Member<'_>) -> Self {
        match member {
            Member::Integer(_) => Self::Integer(Int64Builder::new()),
            Member::Number(_) => Self::Number(Float64Builder::new()),
            Member::Time(_) => Self::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            Member::Id(_)
            | Member::Text(_)
            | Member::Optional(_)
            | Member::Object(_)
            | Member::List(_) => Self::Text(StringBuilder::new()),
        }
    }

    /// A builder of the column of an input or output.
    fn of_field(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Boolean => Self::Boolean(BooleanBuilder::new()),
            ColumnKind::Integer => Self::Integer(Int64Builder::new()),
            // Of the datatypes only the floating-point ones have missing values.
            ColumnKind::Number | ColumnKind::Missing => Self::Number(Float64Builder::new()),
            ColumnKind::Text => Self::Text(StringBuilder::new()),
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Boolean(_) => DataType::Boolean,
            Self::Integer(_) => DataType::Int64,
            Self::Number(_) => DataType::Float64,
            Self::Text(_) => DataType::Utf8,
            Self::Time(_) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Integer(builder) => Arc::new(builder.finish()),
            Self::Number(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
        }
    }

    /// Appends a member of a record to its column.
    fn member(&mut self, member: Member<'_>) {
        match (&mut *self, member) {
            (Self::Integer(builder), Member::Integer(value)) => builder.append_value(value),
            (Self::Time(builder), Member::Time(value)) => builder.append_value(value),
            (Self::Number(builder), Member::Number(value)) => builder.append_option(value),
            (Self::Text(builder), Member::Id(id)) => {
                builder.append_value(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
            }
            (Self::Text(builder), Member::Text(text) | Member::Object(text)) => {
                builder.append_value(text);
            }
            (Self::Text(builder), Member::Optional(text) | Member::List(text)) => {
                builder.append_option(text);
            }
            _ => self.missing(),
        }
    }

    fn missing(&mut self) {
        match self {
            Self::Boolean(builder) => builder.append_null(),
            Self::Integer(builder) => builder.append_null(),
            Self::Number(builder) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
        }
    }

    /// Appends an input or output. A text column accepts every type.
    #[expect(clippy::cast_precision_loss, reason = "a column with fractions and integers")]
    fn value(&mut self, value: Option<&Scalar<'_>>, text: &mut Vec<u8>) {
        match (&mut *self, value) {
            (Self::Boolean(builder), Some(Scalar::Boolean(value))) => builder.append_value(*value),
            (Self::Integer(builder), Some(Scalar::Integer(value))) => builder.append_value(*value),
            (Self::Number(builder), Some(Scalar::Number(value))) => builder.append_value(*value),
            (Self::Number(builder), Some(Scalar::Integer(value))) => {
                builder.append_value(*value as f64);
            }
            (Self::Text(builder), Some(Scalar::Text(value))) => builder.append_value(value),
            (Self::Text(builder), Some(value)) => {
                text.clear();
                match value {
                    Scalar::Boolean(value) => json::write(value, text),
                    Scalar::Integer(value) => json::write(value, text),
                    Scalar::Number(value) => json::write(value, text),
                    Scalar::Null | Scalar::Nested | Scalar::Text(_) => {}
                }
                let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty());
                builder.append_option(text);
            }
            _ => self.missing(),
        }
    }
}

pub(super) fn writer_properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(concat!("spinfer ", env!("CARGO_PKG_VERSION")).into())
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_max_row_group_bytes(Some(GROUP_BYTES))
        .build()
}

/// Whether a member is in every record.
fn is_always(member: Member<'_>) -> bool {
    match member {
        Member::Id(_)
        | Member::Time(_)
        | Member::Integer(_)
        | Member::Text(_)
        | Member::Object(_) => true,
        Member::Optional(_) | Member::Number(_) | Member::List(_) => false,
    }
}

impl<'a, W: Write + Send> ParquetFile<'a, W> {
    pub(super) fn new(layout: &'a ExportLayout, out: W) -> Result<Self> {
        let (mut columns, mut fields, mut members) = (Vec::new(), Vec::new(), Vec::new());
        let mut add = |name: &str, column: Builder, nullable: bool| {
            fields.push(Field::new(name, column.data_type(), nullable));
            columns.push(column);
        };
        for (name, member) in members_of(&StoredRecord::default()) {
            let of_member = layout.columns_of(name);
            match of_member {
                MemberColumns::Omitted => {}
                MemberColumns::One => add(name, Builder::of_member(member), !is_always(member)),
                MemberColumns::Fields(FieldLayout::Json(name)) => {
                    add(name, Builder::of_member(member), true);
                }
                MemberColumns::Fields(FieldLayout::Columns(all)) => {
                    all.values().for_each(|one| add(&one.name, Builder::of_field(one.kind), true));
                }
            }
            members.push(of_member);
        }
        let schema = Arc::new(Schema::new(fields));
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(writer_properties()))?;
        Ok(Self { members, schema, columns, rows: 0, writer, text: Vec::new() })
    }

    pub(super) fn write(&mut self, record: &StoredRecord) -> Result<()> {
        let Self { members, columns, text, .. } = self;
        let mut columns = columns.iter_mut();
        for ((_, member), of_member) in members_of(record).zip(members.iter()) {
            match (of_member, member) {
                (MemberColumns::Omitted, _) => {}
                (MemberColumns::Fields(fields @ FieldLayout::Columns(_)), Member::Object(json)) => {
                    fields.cells(json, |cells| {
                        for (cell, column) in cells.iter().zip(&mut columns) {
                            column.value(cell.as_ref(), text);
                        }
                    });
                }
                (MemberColumns::One | MemberColumns::Fields(_), member) => {
                    columns.next().into_iter().for_each(|column| column.member(member));
                }
            }
        }
        self.rows += 1;
        if self.rows == BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let arrays = self.columns.iter_mut().map(Builder::finish).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)?;
        self.rows = 0;
        Ok(self.writer.write(&batch)?)
    }

    pub(super) fn finish(mut self) -> Result<()> {
        if self.rows > 0 {
            self.flush()?;
        }
        Ok(self.writer.into_inner()?.flush()?)
    }
}
