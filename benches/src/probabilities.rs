//! Whether servers return the same predictions: a comparison of their speed means little otherwise.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::application::{IRIS, Operation};
use crate::client::{Connection, post};
use crate::server::Server;

/// Number of compared rows, which are of all three classes.
const ROWS: u32 = 30;
/// Maximum difference of a probability.
const TOLERANCE: f64 = 1e-6;

/// The probabilities of the three classes, for each of the compared rows.
#[derive(Clone, Debug)]
pub struct Probabilities(Vec<[f64; 3]>);

impl Probabilities {
    /// Those that a server of the iris classifier returns.
    ///
    /// # Errors
    /// If it does not return probabilities.
    pub fn of(server: &Server, operation: Operation<'_>) -> Result<Self> {
        let mut connection = Connection::open(server.address)?;
        let rows = (0..ROWS).map(|row| {
            let body = operation.body.replace("[5.1, 3.5, 1.4, 0.2]", &features(row));
            let response = connection.send(&post(IRIS, Operation { body: &body, ..operation }))?;
            let text = response.body;
            ensure!(response.status == 200, "status {}: {text}", response.status);
            parse(&text).with_context(|| format!("no probabilities: {text}"))
        });
        Ok(Self(rows.collect::<Result<_>>()?))
    }

    /// Checks that `other` are the same.
    ///
    /// # Errors
    /// If a probability differs.
    pub fn check(&self, other: &Self) -> Result<()> {
        for (row, (ours, theirs)) in self.0.iter().zip(&other.0).enumerate() {
            let differs = |(a, b): (&f64, &f64)| (a - b).abs() > TOLERANCE;
            ensure!(
                !ours.iter().zip(theirs).any(differs),
                "row {row}: the probabilities are {theirs:?} instead of {ours:?}"
            );
        }
        Ok(())
    }
}

/// A row between the smallest and the largest flowers.
fn features(row: u32) -> String {
    let share = f64::from(row) / f64::from(ROWS - 1);
    let [a, b, c, d] = [(4.3, 7.9), (2.0, 4.4), (1.0, 6.9), (0.1, 2.5)]
        .map(|(least, most)| least + share * (most - least));
    format!("[{a:.2}, {b:.2}, {c:.2}, {d:.2}]")
}

/// The probabilities in a response to `predict` or to `infer`.
fn parse(text: &str) -> Option<[f64; 3]> {
    let response: Value = serde_json::from_str(text).ok()?;
    if let Some(named) = response.get("probabilities") {
        let [a, b, c] = ["setosa", "versicolor", "virginica"].map(|label| named[label].as_f64());
        return Some([a?, b?, c?]);
    }
    let outputs = response["outputs"].as_array()?;
    let data = &outputs.iter().find(|output| output["name"] == "probabilities")?["data"];
    Some([data[0].as_f64()?, data[1].as_f64()?, data[2].as_f64()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_operations_have_probabilities() {
        let predict = r#"{"probabilities":{"setosa":0.5,"versicolor":0.25,"virginica":0.125}}"#;
        let infer = r#"{"outputs":[{"name":"label","data":[0]},{"name":"probabilities","data":[0.5,0.25,0.125]}]}"#;
        assert_eq!(parse(predict), Some([0.5, 0.25, 0.125]));
        assert_eq!(parse(infer), Some([0.5, 0.25, 0.125]));
        assert_eq!(parse(r#"{"error":"busy"}"#), None);
    }

    #[test]
    fn a_probability_that_differs_is_an_error() {
        let base = Probabilities(vec![[0.5, 0.25, 0.25]]);
        assert!(base.check(&Probabilities(vec![[0.500_000_5, 0.25, 0.249_999_5]])).is_ok());
        let error = base.check(&Probabilities(vec![[0.500_002, 0.25, 0.249_998]])).unwrap_err();
        assert!(error.to_string().starts_with("row 0"), "{error}");
    }
}
