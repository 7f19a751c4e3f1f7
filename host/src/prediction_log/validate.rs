//! Validates predictions, and estimates their memory. They come from a guest or from Redis, so
//! every length is checked.

use std::collections::HashSet;
use std::mem::size_of;

use super::record::{ColumnValues, Columns, Predictions};

/// Maximum number of columns of the inputs, and of the outputs, of one call.
const MAX_COLUMNS: usize = 4096;
/// Maximum length of a name (of a column, an attribute, a model, a version), in bytes.
const MAX_NAME_BYTES: usize = 256;
/// Maximum number of attributes of one call.
const MAX_ATTRIBUTES: usize = 64;
/// Maximum memory of what one request appends, in bytes: more than 100,000 rows of iris.
pub(crate) const MAX_REQUEST_BYTES: usize = 16 << 20;
/// Maximum number of rows that one request appends.
pub(crate) const MAX_REQUEST_ROWS: u32 = 1 << 20;

/// Number of names up to which comparing all pairs is cheaper than a set.
const FEW_NAMES: usize = 32;

/// Approximate memory of predictions, in bytes.
#[must_use]
pub(crate) fn size(predictions: &Predictions) -> usize {
    let Predictions { model, version, rows: _, inputs, outputs, omitted, attributes } = predictions;
    let text = |text: &String| size_of::<String>() + text.len();
    let texts = |all: &[String]| all.iter().map(text).sum::<usize>();
    let columns = |all: &[Columns]| {
        let one = |columns: &Columns| {
            let values = match &columns.values {
                ColumnValues::Fp32(values) => size_of_val(&**values),
                ColumnValues::Fp64(values) => size_of_val(&**values),
                ColumnValues::Int64(values) => size_of_val(&**values),
                ColumnValues::Boolean(values) => size_of_val(&**values),
                ColumnValues::Text(values) => texts(values),
            };
            size_of::<Columns>() + texts(&columns.names) + values
        };
        all.iter().map(one).sum::<usize>()
    };
    let attribute = |(name, value): &(String, String)| text(name) + text(value);
    size_of::<Predictions>()
        + model.len()
        + version.len()
        + columns(inputs)
        + columns(outputs)
        + texts(omitted)
        + attributes.iter().map(attribute).sum::<usize>()
}

/// Checks predictions. An error describes the first problem and where it is.
pub(crate) fn validate(predictions: &Predictions) -> Result<(), String> {
    let Predictions { model, version, rows, inputs, outputs, omitted, attributes } = predictions;
    check_name("model", model)?;
    check_length("version", version)?;
    if *rows == 0 {
        return Err("rows: expected at least 1, got 0".into());
    }
    check_columns("inputs", inputs, *rows)?;
    check_columns("outputs", outputs, *rows)?;
    if omitted.len() > MAX_COLUMNS {
        return Err(format!("omitted: {} names; the limit is {MAX_COLUMNS}", omitted.len()));
    }
    for name in omitted {
        check_name("omitted", name)?;
    }
    if attributes.len() > MAX_ATTRIBUTES {
        let count = attributes.len();
        return Err(format!("attributes: {count} attributes; the limit is {MAX_ATTRIBUTES}"));
    }
    for (name, _) in attributes {
        check_name("attributes", name)?;
    }
    check_unique("attributes", attributes.iter().map(|(name, _)| name.as_str()))
}

fn check_columns(what: &str, all: &[Columns], rows: u32) -> Result<(), String> {
    let count: usize = all.iter().map(|columns| columns.names.len()).sum();
    if count.max(all.len()) > MAX_COLUMNS {
        return Err(format!("{what}: {count} columns; the limit is {MAX_COLUMNS}"));
    }
    for (index, Columns { names, values }) in all.iter().enumerate() {
        if names.is_empty() {
            return Err(format!("{what}[{index}]: expected at least one name, got none"));
        }
        for name in names {
            check_name(what, name)?;
        }
        let expected = u64::from(rows) * names.len() as u64;
        let count = length(values);
        if count as u64 != expected {
            return Err(format!(
                "{what}[{index}]: expected {expected} values ({rows} rows of {} columns), got {count}",
                names.len()
            ));
        }
    }
    check_unique(what, all.iter().flat_map(|columns| &columns.names).map(String::as_str))
}

fn length(values: &ColumnValues) -> usize {
    match values {
        ColumnValues::Fp32(values) => values.len(),
        ColumnValues::Fp64(values) => values.len(),
        ColumnValues::Int64(values) => values.len(),
        ColumnValues::Boolean(values) => values.len(),
        ColumnValues::Text(values) => values.len(),
    }
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("{what}: expected a name, got \"\""));
    }
    check_length(what, name)
}

fn check_length(what: &str, name: &str) -> Result<(), String> {
    if name.len() > MAX_NAME_BYTES {
        let start = &name[..name.floor_char_boundary(32)];
        return Err(format!(
            "{what}: the name {start:?}... has {} bytes; the limit is {MAX_NAME_BYTES}",
            name.len()
        ));
    }
    Ok(())
}

fn check_unique<'a>(
    what: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), String> {
    let duplicate = |name: &str| Err(format!("{what}: the name {name:?} is used twice"));
    if names.clone().nth(FEW_NAMES).is_none() {
        let mut rest = names;
        while let Some(name) = rest.next() {
            if rest.clone().any(|other| other == name) {
                return duplicate(name);
            }
        }
        return Ok(());
    }
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return duplicate(name);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::prediction_log::names::Names;

    fn names(names: &[&str]) -> Names {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// Predictions as the iris classifier appends them.
    pub(crate) fn iris(rows: u32) -> Predictions {
        let count = rows as usize;
        let fields = ["sepal_length", "sepal_width", "petal_length", "petal_width"];
        let column = |name: &str, values| Columns { names: names(&[name]), values };
        Predictions {
            model: "iris-classifier".into(),
            version: "1".into(),
            rows,
            inputs: vec![Columns {
                names: names(&fields),
                values: ColumnValues::Fp32([5.1, 3.5, 1.4, 0.2].repeat(count)),
            }],
            outputs: vec![
                column("prediction", ColumnValues::Text(vec!["setosa".into(); count])),
                column("probability", ColumnValues::Fp32(vec![0.98; count])),
                column("label", ColumnValues::Int64(vec![0; count])),
                Columns {
                    names: names(&["probabilities[0]", "probabilities[1]", "probabilities[2]"]),
                    values: ColumnValues::Fp32([0.98, 0.02, 0.0].repeat(count)),
                },
            ],
            omitted: Vec::new(),
            attributes: vec![("operation".into(), "predict".into())],
        }
    }

    #[test]
    fn predictions_of_a_model_component_are_valid() {
        for rows in [1, 2, 1000] {
            assert_eq!(validate(&iris(rows)), Ok(()));
        }
        let nothing = Predictions { inputs: vec![], outputs: vec![], ..iris(1) };
        assert_eq!(validate(&nothing), Ok(()));
    }

    #[test]
    fn inconsistent_predictions_are_rejected_with_the_place() {
        let change = |change: fn(&mut Predictions)| {
            let mut predictions = iris(2);
            change(&mut predictions);
            validate(&predictions).unwrap_err()
        };
        for (error, expected) in [
            (change(|p| p.rows = 0), "rows: expected at least 1, got 0"),
            (
                change(|p| p.rows = u32::MAX),
                "inputs[0]: expected 17179869180 values (4294967295 rows of 4 columns), got 8",
            ),
            (
                change(|p| p.outputs[1].values = ColumnValues::Boolean(vec![true])),
                "outputs[1]: expected 2 values (2 rows of 1 columns), got 1",
            ),
            (
                change(|p| p.outputs[2].names = names(&["probability"])),
                "outputs: the name \"probability\" is used twice",
            ),
            (
                change(|p| p.inputs[0].names = names(&["a", "", "c", "d"])),
                "inputs: expected a name, got \"\"",
            ),
            (
                change(|p| p.outputs[0].names = names(&[])),
                "outputs[0]: expected at least one name, got none",
            ),
            (change(|p| p.model = "".into()), "model: expected a name, got \"\""),
            (
                change(|p| p.version = "é".repeat(200).into()),
                "version: the name \"éééééééééééééééé\"... has 400 bytes; the limit is 256",
            ),
            (
                change(|p| p.attributes = vec![("a".into(), String::new()); 2]),
                "attributes: the name \"a\" is used twice",
            ),
            (
                change(|p| p.attributes = vec![("a".into(), String::new()); 65]),
                "attributes: 65 attributes; the limit is 64",
            ),
            (
                change(|p| p.omitted = vec!["a".into(); 5000]),
                "omitted: 5000 names; the limit is 4096",
            ),
            (
                change(|p| p.inputs[0].names = vec!["a".to_owned(); 5000].into()),
                "inputs: 5000 columns; the limit is 4096",
            ),
        ] {
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn duplicate_name_is_found_among_many() {
        let mut predictions = iris(1);
        let columns = &mut predictions.inputs[0];
        columns.names = (0..4096).map(|n| format!("x[{n}]")).collect();
        columns.values = ColumnValues::Fp32(vec![0.0; 4096]);
        assert_eq!(validate(&predictions), Ok(()));
        let repeated = (0..4096).map(|n| format!("x[{}]", if n == 4095 { 7 } else { n }));
        predictions.inputs[0].names = repeated.collect();
        let duplicate = "inputs: the name \"x[7]\" is used twice";
        assert_eq!(validate(&predictions).unwrap_err(), duplicate);
    }

    #[test]
    fn size_grows_with_the_contents() {
        let more = |change: fn(&mut Predictions)| {
            let mut predictions = iris(1);
            change(&mut predictions);
            size(&predictions) - size(&iris(1))
        };
        assert_eq!(more(|p| p.model = format!("{}12345", &*p.model).into()), 5);
        assert_eq!(more(|p| p.omitted.push("12345".into())), 5 + size_of::<String>());
        assert!(size(&iris(1000)) - size(&iris(1)) >= 999 * (16 + 24 + 6 + 4 + 8 + 12));
    }
}
