//! The call to the host's log.

use super::{Column, ColumnNames, ColumnValues, Draft};
use crate::bindings::log::spinfer::prediction_log::log as wit;
use crate::reserve;

/// Estimate of a row without its elements, in bytes: in the draft and as arguments of the call.
const ROW_BYTES: usize = 64;
/// Estimate of an element, in bytes, likewise.
const ELEMENT_BYTES: usize = 16;

impl Draft<'_> {
    /// Appends the predictions, if there is memory for the call.
    pub(crate) fn append(self, prediction_id: Option<&str>) {
        let Self { signature, rows, inputs, outputs, omitted, attributes } = self;
        let elements: usize = inputs.iter().chain(&outputs).map(|some| some.values.len()).sum();
        let bytes = elements.saturating_mul(ELEMENT_BYTES);
        if reserve::check_large(rows.saturating_mul(ROW_BYTES).saturating_add(bytes)).is_err() {
            return;
        }
        let Ok(rows) = u32::try_from(rows) else { return };
        let (inputs, outputs) = (lowered(&inputs), lowered(&outputs));
        let (inputs, outputs) = (columns(&inputs), columns(&outputs));
        let omitted: Vec<&str> = omitted.iter().map(|name| &**name).collect();
        let attributes: Vec<_> = attributes.iter().map(|(name, value)| (*name, &**value)).collect();
        let predictions = wit::Predictions {
            model: &signature.name,
            version: &signature.version,
            rows,
            inputs: &inputs,
            outputs: &outputs,
            omitted: &omitted,
            attributes: &attributes,
        };
        send(prediction_id, predictions);
    }
}

/// Columns with names and texts borrowed, as the call takes them.
struct Lowered<'a> {
    names: Vec<&'a str>,
    values: &'a ColumnValues<'a>,
    texts: Vec<&'a str>,
}

fn lowered<'a>(columns: &'a [Column<'a>]) -> Vec<Lowered<'a>> {
    let lower = |Column { names, values }: &'a Column<'a>| {
        let names = match names {
            ColumnNames::One(name) => vec![*name],
            ColumnNames::Many(names) => names.iter().map(String::as_str).collect(),
        };
        let texts = match values {
            ColumnValues::Text(texts) => texts.iter().map(|text| &**text).collect(),
            _ => Vec::new(),
        };
        Lowered { names, values, texts }
    };
    columns.iter().map(lower).collect()
}

fn columns<'a>(lowered: &'a [Lowered<'a>]) -> Vec<wit::Columns<'a>> {
    let column = |Lowered { names, values, texts }: &'a Lowered<'a>| {
        let values = match values {
            ColumnValues::Fp32(values) => wit::Values::Fp32(values),
            ColumnValues::Fp64(values) => wit::Values::Fp64(values),
            ColumnValues::Int64(values) => wit::Values::Int64(values),
            ColumnValues::Boolean(values) => wit::Values::Boolean(values),
            ColumnValues::Text(_) => wit::Values::Text(texts),
        };
        wit::Columns { names, values }
    };
    lowered.iter().map(column).collect()
}

/// Ignores errors: the host reports them to its operator.
#[cfg(not(any(test, fuzzing, feature = "fuzzing")))]
fn send(request: Option<&str>, predictions: wit::Predictions<'_>) {
    let _refused = wit::append(request, predictions);
}

#[cfg(any(test, fuzzing, feature = "fuzzing"))]
#[expect(clippy::needless_pass_by_value, reason = "as the bindings take them")]
fn send(request: Option<&str>, predictions: wit::Predictions<'_>) {
    captured::SENT.with_borrow_mut(|sent| sent.push(captured::shown(request, &predictions)));
}

#[cfg(any(test, fuzzing, feature = "fuzzing"))]
pub(super) mod captured {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        /// The calls, as text.
        pub(in crate::prediction_log) static SENT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn shown(request: Option<&str>, predictions: &wit::Predictions<'_>) -> String {
        let wit::Predictions { model, version, rows, inputs, outputs, omitted, attributes } =
            predictions;
        let mut shown = format!("{model} {version} {rows}");
        if let Some(request) = request {
            shown += &format!(" of {request}");
        }
        for (what, columns) in [("in", inputs), ("out", outputs)] {
            for wit::Columns { names, values } in *columns {
                let values = match values {
                    wit::Values::Fp32(values) => format!("fp32 {values:?}"),
                    wit::Values::Fp64(values) => format!("fp64 {values:?}"),
                    wit::Values::Int64(values) => format!("int64 {values:?}"),
                    wit::Values::Boolean(values) => format!("boolean {values:?}"),
                    wit::Values::Text(values) => format!("text {values:?}"),
                };
                shown += &format!("\n{what} {} {values}", names.join(","));
            }
        }
        if !omitted.is_empty() {
            shown += &format!("\nomitted {}", omitted.join(","));
        }
        for (name, value) in *attributes {
            shown += &format!("\n{name}={value}");
        }
        shown
    }
}
