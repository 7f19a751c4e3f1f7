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
use super::super::reader::StoredRecord;
use super::super::scalar::Scalar;
use super::layout::{ColumnKind, ExportLayout, FieldLayout};

/// Number of rows of a batch.
pub(super) const BATCH: usize = 4096;
/// Maximum rows and bytes of a row group, which is in memory until it is written.
const GROUP_ROWS: usize = 1 << 17;
const GROUP_BYTES: usize = 32 << 20;

/// Writer of a Parquet file.
pub(super) struct ParquetFile<'a, W: Write + Send> {
    layout: &'a ExportLayout,
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

/// Numeric columns of every export.
const INTEGERS: [&str; 3] = ["row", "status", "latency_us"];
const NUMBERS: [&str; 4] = ["propensity", "sample", "feedback.value", "feedback.reward"];
/// Columns without missing values.
const ALWAYS: [&str; 11] = [
    "id",
    "row",
    "time",
    "model",
    "version",
    "route",
    "component",
    "cache",
    "status",
    "latency_us",
    "attributes",
];

impl Builder {
    /// A builder of the column `name`. `kind` is the type of an input or output.
    fn new(name: &str, kind: Option<ColumnKind>) -> Self {
        match kind {
            Some(ColumnKind::Boolean) => Self::Boolean(BooleanBuilder::new()),
            Some(ColumnKind::Integer) => Self::Integer(Int64Builder::new()),
            // Of the datatypes only the floating-point ones have missing values.
            Some(ColumnKind::Number | ColumnKind::Missing) => Self::Number(Float64Builder::new()),
            Some(ColumnKind::Text) => Self::Text(StringBuilder::new()),
            None if INTEGERS.contains(&name) => Self::Integer(Int64Builder::new()),
            None if NUMBERS.contains(&name) => Self::Number(Float64Builder::new()),
            None if name == "time" => {
                Self::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC"))
            }
            None => Self::Text(StringBuilder::new()),
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

    fn integer(&mut self, value: i64) {
        match self {
            Self::Integer(builder) => builder.append_value(value),
            Self::Time(builder) => builder.append_value(value),
            Self::Boolean(_) | Self::Number(_) | Self::Text(_) => self.missing(),
        }
    }

    fn number(&mut self, value: Option<f64>) {
        match self {
            Self::Number(builder) => builder.append_option(value),
            Self::Boolean(_) | Self::Integer(_) | Self::Text(_) | Self::Time(_) => self.missing(),
        }
    }

    fn text(&mut self, value: Option<&str>) {
        match self {
            Self::Text(builder) => builder.append_option(value),
            Self::Boolean(_) | Self::Integer(_) | Self::Number(_) | Self::Time(_) => self.missing(),
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

/// Appends the field `name` of `record` to its column.
fn put(record: &StoredRecord, name: &str, column: &mut Builder) {
    match name {
        "id" => column.text(Some(record.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))),
        "row" => column.integer(record.row),
        "time" => column.integer(record.time),
        "model" => column.text(Some(&record.model)),
        "version" => column.text(Some(&record.version)),
        "route" => column.text(Some(&record.route)),
        "component" => column.text(Some(&record.component)),
        "experiment" => column.text(record.experiment.as_deref()),
        "variant" => column.text(record.variant.as_deref()),
        "unit" => column.text(record.unit.as_deref()),
        "propensity" => column.number(record.propensity),
        "failed_over" => column.text(record.failed_over.as_deref()),
        "cache" => column.text(Some(&record.cache)),
        "status" => column.integer(record.status),
        "latency_us" => column.integer(record.latency_us),
        "sample" => column.number(record.sample),
        "trace_id" => column.text(record.trace_id.as_deref()),
        "attributes" => column.text(Some(&record.attributes)),
        "omitted" => column.text(record.omitted.as_deref()),
        "feedback.label" => column.text(record.feedback.label.as_deref()),
        "feedback.value" => column.number(record.feedback.value),
        "feedback.reward" => column.number(record.feedback.reward),
        _ => column.missing(),
    }
}

impl<'a, W: Write + Send> ParquetFile<'a, W> {
    pub(super) fn new(layout: &'a ExportLayout, out: W) -> Result<Self> {
        let fields = [&layout.inputs, &layout.outputs];
        let kinds: Vec<_> = fields
            .into_iter()
            .flat_map(|fields| match fields {
                FieldLayout::Json(_) => vec![None],
                FieldLayout::Columns(columns) => {
                    columns.values().map(|column| Some(column.kind)).collect()
                }
            })
            .collect();
        let names = layout.names();
        let first = layout.before.len();
        let kind = |index: usize| index.checked_sub(first).and_then(|index| *kinds.get(index)?);
        let columns: Vec<_> =
            names.iter().enumerate().map(|(index, name)| Builder::new(name, kind(index))).collect();
        let fields = names
            .iter()
            .zip(&columns)
            .map(|(name, column)| Field::new(*name, column.data_type(), !ALWAYS.contains(name)));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(writer_properties()))?;
        Ok(Self { layout, schema, columns, rows: 0, writer, text: Vec::new() })
    }

    pub(super) fn write(&mut self, record: &StoredRecord) -> Result<()> {
        let Self { layout, columns, text, .. } = self;
        let mut columns = columns.iter_mut();
        for (name, column) in layout.before.iter().zip(&mut columns) {
            put(record, name, column);
        }
        for (json, fields) in [(&record.inputs, &layout.inputs), (&record.outputs, &layout.outputs)]
        {
            match fields {
                FieldLayout::Json(_) => {
                    columns.next().into_iter().for_each(|column| column.text(Some(json)));
                }
                FieldLayout::Columns(_) => fields.cells(json, |cells| {
                    for (cell, column) in cells.iter().zip(&mut columns) {
                        column.value(cell.as_ref(), text);
                    }
                }),
            }
        }
        for (name, column) in layout.after.iter().zip(&mut columns) {
            put(record, name, column);
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
