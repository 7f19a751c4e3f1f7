//! Operators of `ai.onnx.ml`: linear models, scaling, tree ensembles.
//!
//! | operator | row `x` becomes |
//! | --- | --- |
//! | LinearRegressor | `post(sum_k x[k] * w[j][k] + b[j])` |
//! | LinearClassifier | the same, and the label of the greatest of the sums |
//! | Normalizer | `x / norm(x)` |
//! | Scaler | `(x - offset) * scale` |

mod labels;
mod linear;
mod scaling;
mod trees;

use spinfer_backend::Error;
use spinfer_onnx::NodeProto;

pub(super) use labels::{array_feature_extractor, zip_map};
pub(super) use linear::{linear_classifier, linear_regressor};
pub(super) use scaling::{normalizer, scaler};
pub(super) use trees::{tree_classifier, tree_ensemble, tree_regressor};

use crate::builder::{Builder, Value, output_name};

/// Names an optional output of a node, unless the file leaves it out.
fn name_optional<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
    index: usize,
    value: Value,
) -> Result<(), Error> {
    match output_name(node, index) {
        Ok(name) => builder.name(name, value),
        Err(_) => Ok(()),
    }
}
