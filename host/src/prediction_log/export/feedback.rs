//! The table of exported feedback. Its columns are those of a feedback file, and when it was stored.

use std::io::Write;
use std::sync::Arc;

use anyhow::Result;
use arrow_array::RecordBatch;
use arrow_array::builder::{
    Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;

use super::super::feedback::Truth;
use super::super::reader::FeedbackRow;
use super::parquet::{BATCH, writer_properties};

/// Writer of a Parquet file with feedback.
pub(super) struct FeedbackTable<W: Write + Send> {
    schema: SchemaRef,
    ids: StringBuilder,
    rows: Int64Builder,
    labels: StringBuilder,
    values: Float64Builder,
    rewards: Float64Builder,
    times: TimestampMicrosecondBuilder,
    received: TimestampMicrosecondBuilder,
    count: usize,
    writer: ArrowWriter<W>,
}

impl<W: Write + Send> FeedbackTable<W> {
    pub(super) fn new(out: W) -> Result<Self> {
        let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let schema = Arc::new(Schema::new(vec![
            Field::new("prediction_id", DataType::Utf8, false),
            Field::new("row", DataType::Int64, false),
            Field::new("label", DataType::Utf8, true),
            Field::new("value", DataType::Float64, true),
            Field::new("reward", DataType::Float64, true),
            Field::new("time", time(), false),
            Field::new("received", time(), false),
        ]));
        let times = || TimestampMicrosecondBuilder::new().with_timezone("UTC");
        Ok(Self {
            writer: ArrowWriter::try_new(out, Arc::clone(&schema), Some(writer_properties()))?,
            schema,
            ids: StringBuilder::new(),
            rows: Int64Builder::new(),
            labels: StringBuilder::new(),
            values: Float64Builder::new(),
            rewards: Float64Builder::new(),
            times: times(),
            received: times(),
            count: 0,
        })
    }

    pub(super) fn write(&mut self, feedback: &FeedbackRow) -> Result<()> {
        let FeedbackRow { prediction_id, row, truth, time, received } = feedback;
        let (value, reward) = match truth {
            Truth::Label(_) => (None, None),
            Truth::Value(value) => (Some(*value), None),
            Truth::Reward(reward) => (None, Some(*reward)),
        };
        self.ids.append_value(prediction_id.to_string());
        self.rows.append_value(*row);
        self.labels.append_option(truth.label());
        self.values.append_option(value);
        self.rewards.append_option(reward);
        self.times.append_value(*time);
        self.received.append_value(*received);
        self.count += 1;
        if self.count == BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let batch = RecordBatch::try_new(
            Arc::clone(&self.schema),
            vec![
                Arc::new(self.ids.finish()),
                Arc::new(self.rows.finish()),
                Arc::new(self.labels.finish()),
                Arc::new(self.values.finish()),
                Arc::new(self.rewards.finish()),
                Arc::new(self.times.finish()),
                Arc::new(self.received.finish()),
            ],
        )?;
        self.count = 0;
        Ok(self.writer.write(&batch)?)
    }

    pub(super) fn finish(mut self) -> Result<()> {
        if self.count > 0 {
            self.flush()?;
        }
        Ok(self.writer.into_inner()?.flush()?)
    }
}
