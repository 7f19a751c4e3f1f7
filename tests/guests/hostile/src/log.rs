//! Harm by `spinfer:prediction-log`.

use wit::{Columns, Error, Predictions, Values, append};

use crate::bindings::spinfer::prediction_log::log as wit;

mod aliased {
    //! With borrowed arguments, so that many names share memory.

    wit_bindgen::generate!({
        path: "../../../wit/spinfer-prediction-log",
        inline: "
            package spinfer:hostile-log;
            world aliased {
                import spinfer:prediction-log/log@0.1.0;
            }
        ",
        world: "spinfer:hostile-log/aliased",
        ownership: Borrowing { duplicate_if_necessary: false },
        generate_all,
    });
}

/// Predictions with one column.
fn predictions(name: &str, rows: u32, values: Values) -> Predictions {
    Predictions {
        model: "hostile".into(),
        version: "1".into(),
        rows,
        inputs: vec![Columns { names: vec![name.into()], values }],
        outputs: Vec::new(),
        omitted: Vec::new(),
        attributes: Vec::new(),
    }
}

fn valid() -> Predictions {
    predictions("x", 2, Values::Int64(vec![1, 2]))
}

/// Appends invalid predictions, and valid ones to invalid requests. Returns how many were refused.
pub(crate) fn nonsense() -> String {
    let column = |name: &str| Columns { names: vec![name.into()], values: Values::Fp64(vec![0.0]) };
    let long = "x".repeat(1000);
    let refused = [
        Predictions { rows: 0, ..valid() },
        Predictions { rows: u32::MAX, ..valid() },
        predictions("x", 1, Values::Text(Vec::new())),
        predictions("", 1, Values::Boolean(vec![true])),
        predictions(&long, 1, Values::Boolean(vec![true])),
        Predictions { inputs: vec![column("a"), column("a")], ..valid() },
        Predictions { rows: 1, outputs: vec![column("a"), column("a")], ..valid() },
        Predictions { model: String::new(), ..valid() },
        Predictions { version: long.clone(), ..valid() },
        Predictions { attributes: vec![("a".into(), "b".into()); 100], ..valid() },
        Predictions { omitted: vec!["x".into(); 5000], ..valid() },
    ];
    let mut count = 0;
    for predictions in &refused {
        if let Err(Error::Invalid(problem)) = append(None, predictions) {
            count += usize::from(!problem.is_empty());
        }
    }
    for request in ["", "x", "00000000-0000-0000-0000-000000000000"] {
        count += usize::from(append(Some(request), &valid()).is_err());
    }
    format!("{count} of {} refused", refused.len() + 3)
}

/// Appends up to `max` times, until one is refused. Returns the message.
pub(crate) fn flood(max: u64) -> String {
    let block = predictions("x", 1 << 15, Values::Fp64(vec![0.5; 1 << 15]));
    let refused = (0..max).find_map(|_| append(None, &block).err());
    refused.map_or("never refused".into(), |Error::Invalid(problem)| problem)
}

/// Appends thousands of long names that share memory.
pub(crate) fn aliased() -> String {
    use aliased::spinfer::prediction_log::log as wit;

    let name = "x".repeat(1 << 20);
    let names = vec![&*name; 1 << 14];
    let columns = [wit::Columns { names: &names, values: wit::Values::Fp32(&[]) }];
    let predictions = wit::Predictions {
        model: "hostile",
        version: "1",
        rows: 1,
        inputs: &columns,
        outputs: &[],
        omitted: &[],
        attributes: &[],
    };
    format!("{:?}", wit::append(None, predictions).is_err())
}

/// Appends one prediction of `text`.
pub(crate) fn one(text: &str) -> String {
    let predictions = predictions("x", 1, Values::Text(vec![text.into()]));
    format!("{:?}", append(None, &predictions).is_ok())
}
