//! What a model says of rows by its signature alone: for a component that does not say it itself.

use crate::author::Mapping;
use crate::error::Error;
use crate::graph::{self, Graph};
use crate::infer;
use crate::prediction::Prediction;
use crate::rows::Rows;
use crate::signature::{Signature, TensorSignature};
use crate::tensor::{Datatype, Element, Tensor};

/// What of a model's outputs, whatever their names and order, answers for a row.
enum Outputs<'a> {
    /// The only one, of numbers: they are the answer.
    Numbers(&'a TensorSignature),
    /// The only one, of a number for each label: the class is that of the greatest.
    Scores(&'a TensorSignature),
    /// An integer for each row: a class. Beside it there may be numbers for each.
    Classes(&'a TensorSignature, Option<&'a TensorSignature>),
}

/// The sum of a row of probabilities may be so far from 1: half-precision sums of some hundred classes
/// are off by some thousandths.
const SUM_TOLERANCE: f32 = 0.01;

pub(crate) fn predict(
    graph: &Graph,
    rows: Rows<'_>,
    mapping: Option<Mapping>,
) -> Result<Prediction, Error> {
    let signature = graph.signature();
    let outputs = Outputs::of(signature).ok_or_else(|| no_short_form(signature))?;
    let inputs = rows.inputs(signature)?;
    let (wanted, count) = outputs.wanted();
    let wanted = &wanted[..count];
    let tensors = match mapping {
        Some(mapping) => infer::map(graph, mapping, &inputs, wanted)?,
        None => graph.compute_all(inputs, wanted)?,
    };
    outputs.prediction(signature, tensors, rows.count)
}

/// What a model says of `rows` rows by its outputs, which are there, if it has a short form.
pub(crate) fn from_outputs(
    signature: &Signature,
    tensors: &[Tensor],
    rows: u32,
) -> Option<Prediction> {
    let outputs = Outputs::of(signature)?;
    let (wanted, count) = outputs.wanted();
    let find = |output: &&TensorSignature| tensors.iter().find(|tensor| tensor.name == output.name);
    let tensors = wanted[..count].iter().map(|output| find(output).cloned());
    let prediction = outputs.prediction(signature, tensors.collect::<Option<_>>()?, rows).ok()?;
    prediction.checked(&signature.labels, rows as usize).ok()
}

impl<'a> Outputs<'a> {
    /// Which they are, and how many.
    fn wanted(&self) -> ([&'a TensorSignature; 2], usize) {
        match *self {
            Self::Numbers(only) | Self::Scores(only) | Self::Classes(only, None) => {
                ([only, only], 1)
            }
            Self::Classes(class, Some(scores)) => ([class, scores], 2),
        }
    }

    /// What the model says by them, in the order they are wanted in.
    fn prediction(
        &self,
        signature: &Signature,
        tensors: Vec<Tensor>,
        rows: u32,
    ) -> Result<Prediction, Error> {
        match self {
            Self::Numbers(_) => {
                let [numbers] = graph::all(tensors)?;
                Ok(Prediction::Numbers(as_f32(numbers)))
            }
            Self::Scores(_) => {
                let [scores] = graph::all(tensors)?;
                let scores = as_f32(scores);
                let indices = greatest(&scores.f32s()?, signature.labels.len())?;
                // It is no output of the model.
                let indices = Tensor::i64("", &[rows], &indices);
                Ok(classes(signature, indices, Some(scores)))
            }
            Self::Classes(_, None) => {
                let [numbers] = graph::all(tensors)?;
                Ok(classes(signature, positions(signature, &numbers)?, None))
            }
            Self::Classes(_, Some(_)) => {
                let [numbers, scores] = graph::all(tensors)?;
                Ok(classes(signature, positions(signature, &numbers)?, Some(as_f32(scores))))
            }
        }
    }

    /// `None`: there is not one answer for each row.
    fn of(signature: &'a Signature) -> Option<Self> {
        let is_class =
            |output: &TensorSignature| is_integer(output.datatype) && output.shape.row() == Some(1);
        match &*signature.outputs {
            [class] if is_class(class) => Some(Self::Classes(class, None)),
            [only] if !is_float(only.datatype) => None,
            [only] => {
                let labels = signature.labels.len();
                let scores = labels > 1 && only.shape.row() == Some(labels);
                Some(if scores { Self::Scores(only) } else { Self::Numbers(only) })
            }
            [class, scores] | [scores, class] if is_class(class) && is_float(scores.datatype) => {
                Some(Self::Classes(class, Some(scores)))
            }
            _ => None,
        }
    }
}

fn no_short_form(signature: &Signature) -> Error {
    let outputs: Vec<_> = signature
        .outputs
        .iter()
        .map(|output| format!("{:?} ({} {})", output.name, output.datatype.name(), output.shape))
        .collect();
    let Signature { name, .. } = signature;
    Error::invalid(format!(
        "the model {name:?} has no short form, as its outputs are not one prediction for each row: {}; \
         POST /v2/models/{name}/infer gives them all",
        outputs.join(", ")
    ))
}

/// Scores go with the classes where they are probabilities, and there is a name for each.
fn classes(signature: &Signature, indices: Tensor, scores: Option<Tensor>) -> Prediction {
    let labels = signature.labels.len();
    match scores {
        Some(probabilities) if labels > 0 && are_probabilities(&probabilities, labels) => {
            Prediction::Classes { indices, probabilities }
        }
        _ => Prediction::Labels(indices),
    }
}

/// Whether each row of `labels` numbers is a distribution. Distances and margins are not.
fn are_probabilities(scores: &Tensor, labels: usize) -> bool {
    let (numbers, rest) = scores.data.as_chunks();
    let distribution = |row: &[[u8; 4]]| {
        let numbers = row.iter().map(|&number| f32::from_le_bytes(number));
        let sum: f32 = numbers.clone().sum();
        (sum - 1.0).abs() <= SUM_TOLERANCE
            && numbers.into_iter().all(|number| (0.0..=1.0 + SUM_TOLERANCE).contains(&number))
    };
    rest.is_empty() && numbers.len() % labels == 0 && numbers.chunks(labels).all(distribution)
}

/// The position of the greatest number of each row, the first of several.
fn greatest(scores: &[f32], labels: usize) -> Result<Vec<i64>, Error> {
    if scores.iter().any(|score| score.is_nan()) {
        return Err(Error::internal("the graph gave NaN, of which no class is the greatest"));
    }
    let position = |row: &[f32]| {
        let mut best = 0;
        for (index, score) in row.iter().enumerate() {
            if *score > row[best] {
                best = index;
            }
        }
        best as i64
    };
    Ok(scores.chunks(labels).map(position).collect())
}

/// The position in the labels of each class, as INT64. Classes are positions already, unless
/// `model.toml` says which numbers they are.
fn positions(signature: &Signature, tensor: &Tensor) -> Result<Tensor, Error> {
    let position = |class: i64| {
        if signature.classes.is_empty() {
            return Ok(class);
        }
        let found = signature.classes.iter().position(|&known| known == class);
        found.map(|index| index as i64).ok_or_else(|| {
            Error::internal(format!(
                "the graph gave class {class}, which is not among the labels of model.toml"
            ))
        })
    };
    let numbers = tensor.data.chunks_exact(tensor.datatype.size());
    let classes: Vec<i64> = numbers
        .filter_map(|number| match tensor.datatype.element(number) {
            Element::I64(class) => Some(position(class)),
            Element::F32(_) | Element::F64(_) => None,
        })
        .collect::<Result<_, _>>()?;
    let rows = u32::try_from(classes.len()).unwrap_or(u32::MAX);
    Ok(Tensor::i64(&tensor.name, &[rows], &classes))
}

/// The same as FP32, where it is of another floating-point type.
fn as_f32(tensor: Tensor) -> Tensor {
    if tensor.datatype == Datatype::F32 {
        return tensor;
    }
    let numbers = tensor.data.chunks_exact(tensor.datatype.size());
    let numbers: Vec<f32> = numbers
        .map(|number| match tensor.datatype.element(number) {
            Element::F32(number) => number,
            #[expect(clippy::cast_possible_truncation, reason = "the nearest")]
            Element::F64(number) => number as f32,
            #[expect(clippy::cast_precision_loss, reason = "the nearest")]
            Element::I64(number) => number as f32,
        })
        .collect();
    Tensor::f32(&tensor.name, &tensor.dimensions, &numbers)
}

fn is_integer(datatype: Datatype) -> bool {
    matches!(datatype, Datatype::U8 | Datatype::I32 | Datatype::I64)
}

fn is_float(datatype: Datatype) -> bool {
    matches!(datatype, Datatype::F16 | Datatype::F32 | Datatype::F64 | Datatype::Bf16)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;
    use crate::author::Author;
    use crate::graph::tests::graph;
    use crate::predict::predict_other;
    use crate::request::Request;
    use crate::signature::tests::signature;
    use crate::{File, Model};

    /// Says nothing itself.
    struct Any;

    impl Model for Any {
        const NAME: &'static str = "m";
    }

    const LABELS: &str = "labels = ['a', 'b']\n";

    /// The answer of a model to `body`, and what its graph was given; it gives `outputs`.
    fn asked<M: Model>(
        model: &str,
        outputs: Vec<Tensor>,
        body: &str,
    ) -> (Result<String, (u16, String)>, Vec<Tensor>) {
        let given = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&given);
        let graph = graph(signature(model), move |inputs| {
            *seen.borrow_mut() = inputs;
            Ok(outputs.clone())
        });
        let start = r#"{"model":"m","version":"1","#;
        let request = Request::post("/predict", body.as_bytes());
        let answer = predict_other(&graph, &request, &Author::of::<M>())
            .map(|response| String::from_utf8(response.body).unwrap().replacen(start, "{", 1))
            .map_err(|error| (error.status(), error.to_string()));
        let given = given.borrow().clone();
        (answer, given)
    }

    fn answer(model: &str, outputs: Vec<Tensor>) -> Result<String, (u16, String)> {
        asked::<Any>(model, outputs, r#"{"instances": [[1, 2], [3, 4]]}"#).0
    }

    const X: &str = "in x FP32 [-1, 2]\n";

    #[test]
    fn classes_come_from_whichever_outputs_they_stand_in() {
        let class = || Tensor::i64("c", &[2], &[1, 0]);
        let scores = || Tensor::f32("p", &[2, 2], &[0.25, 0.75, 1.0, 0.0]);
        let expected = r#"{"predictions":[{"prediction":"b","probability":0.75,"probabilities":{"a":0.25,"b":0.75}},{"prediction":"a","probability":1.0,"probabilities":{"a":1.0,"b":0.0}}]}"#;
        for outputs in
            ["out c INT64 [-1]\nout p FP32 [-1, 2]", "out p FP32 [-1, 2]\nout c INT64 [-1]"]
        {
            let model = format!("{LABELS}{X}{outputs}");
            assert_eq!(answer(&model, vec![class(), scores()]).as_deref(), Ok(expected));
        }
        // Of other datatypes and shapes.
        let narrow = Tensor { datatype: Datatype::U8, data: vec![1, 0], ..class() };
        let wide = [0.25, 0.75, 1.0, 0.0_f64].iter().flat_map(|p| p.to_le_bytes()).collect();
        let wide = Tensor { datatype: Datatype::F64, data: wide, ..scores() };
        let model = format!("{LABELS}{X}out c UINT8 [-1, 1]\nout p FP64 [-1, 2]");
        assert_eq!(answer(&model, vec![narrow, wide]).as_deref(), Ok(expected));
        // The greatest of the only output, the first of two that are.
        let model = format!("{LABELS}{X}out p FP32 [-1, 2]");
        assert_eq!(answer(&model, vec![scores()]).as_deref(), Ok(expected));
        let margins = Tensor::f32("p", &[2, 2], &[-3.0, -3.0, -5.0, 7.0]);
        let expected = r#"{"predictions":[{"prediction":"a"},{"prediction":"b"}]}"#;
        assert_eq!(answer(&model, vec![margins]).as_deref(), Ok(expected));
        let nan = Tensor::f32("p", &[2, 2], &[f32::NAN, 1.0, 0.0, 1.0]);
        assert_eq!(answer(&model, vec![nan]).unwrap_err().0, 500);
    }

    #[test]
    fn scores_that_are_no_probabilities_are_left_out() {
        let class = || Tensor::i64("c", &[2], &[1, 0]);
        let expected = r#"{"predictions":[{"prediction":"b"},{"prediction":"a"}]}"#;
        let model = format!("{LABELS}{X}out c INT64 [-1]\nout p FP32 [-1, 2]");
        for scores in [[0.5, 0.6, 0.5, 0.5], [-0.5, 1.5, 0.5, 0.5], [f32::NAN, 1.0, 0.0, 1.0]] {
            let scores = Tensor::f32("p", &[2, 2], &scores);
            assert_eq!(answer(&model, vec![class(), scores]).as_deref(), Ok(expected));
        }
        let model = format!("{LABELS}{X}out c INT64 [-1]\nout p FP32 [-1, 1]");
        let one = Tensor::f32("p", &[2, 1], &[1.0, 1.0]);
        assert_eq!(answer(&model, vec![class(), one]).as_deref(), Ok(expected));
    }

    #[test]
    fn classes_that_are_numbers_are_answered_as_numbers() {
        let class = || Tensor::i64("c", &[2], &[7, -1]);
        let scores = Tensor::f32("p", &[2, 2], &[0.25, 0.75, 1.0, 0.0]);
        let model = format!("labels = [-1, 7]\n{X}out c INT64 [-1]\nout p FP32 [-1, 2]");
        assert_eq!(
            answer(&model, vec![class(), scores.clone()]).as_deref(),
            Ok(
                r#"{"predictions":[{"prediction":7,"probability":0.75,"probabilities":{"-1":0.25,"7":0.75}},{"prediction":-1,"probability":1.0,"probabilities":{"-1":1.0,"7":0.0}}]}"#
            )
        );
        let model = format!("{X}out c INT64 [-1]");
        let expected = r#"{"predictions":[{"prediction":7},{"prediction":-1}]}"#;
        assert_eq!(answer(&model, vec![class()]).as_deref(), Ok(expected));
        let model = format!("labels = [0, 7]\n{X}out c INT64 [-1]\nout p FP32 [-1, 2]");
        let unknown = answer(&model, vec![class(), scores]).unwrap_err();
        let message = "the graph gave class -1, which is not among the labels of model.toml";
        assert_eq!(unknown, (500, message.to_owned()));
    }

    #[test]
    fn numbers_are_one_or_several_for_each_row() {
        for (shape, expected) in [
            ("[-1, 1]", r#"{"predictions":[{"prediction":1.5},{"prediction":-2.0}]}"#),
            ("[-1]", r#"{"predictions":[{"prediction":1.5},{"prediction":-2.0}]}"#),
        ] {
            let numbers = Tensor::f32("y", &[2], &[1.5, -2.0]);
            let model = format!("{X}out y FP32 {shape}");
            assert_eq!(answer(&model, vec![numbers]).as_deref(), Ok(expected));
        }
        let numbers = Tensor::f32("y", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let expected = r#"{"predictions":[{"prediction":[1.0,2.0]},{"prediction":[3.0,4.0]}]}"#;
        let model = format!("{X}out y FP32 [-1, 2]");
        assert_eq!(answer(&model, vec![numbers]).as_deref(), Ok(expected));
        let three = Tensor::f32("y", &[3], &[1.0, 2.0, 3.0]);
        assert_eq!(
            answer(&model, vec![three]).unwrap_err(),
            (500, "the graph gave 3 numbers for 2 rows".to_owned())
        );
    }

    #[test]
    fn other_outputs_have_no_short_form() {
        for outputs in [
            "out a FP32 [-1, 2]\nout b FP32 [-1, 1]",
            "out a INT64 [-1, 2]",
            "out a INT64 [-1]\nout b INT64 [-1]",
            "out a INT64 [-1]\nout b FP32 [-1]\nout c FP32 [-1]",
            "out a BYTES [-1]",
            "out a BOOL [-1]",
            "out a INT64 [-1]\nout b BYTES [-1]",
        ] {
            let (status, message) = answer(&format!("{X}{outputs}"), Vec::new()).unwrap_err();
            assert_eq!(status, 400, "{outputs}");
            assert!(message.contains("POST /v2/models/m/infer gives them all"), "{message}");
        }
    }

    #[test]
    fn features_are_the_inputs_in_their_order_and_datatypes() {
        let model = "in a FP32 [-1, 2]\nin b INT64 [-1]\nin c FP64 [-1, 1]\nout y FP32 [-1]";
        let outputs = || vec![Tensor::f32("y", &[2], &[0.0, 0.0])];
        let body = r#"{"instances": [[1, 2, 3, 0.1], [4, 5, -9007199254740991, 1e-30]]}"#;
        let (answer, inputs) = asked::<Any>(model, outputs(), body);
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(inputs[0], Tensor::f32("a", &[2, 2], &[1.0, 2.0, 4.0, 5.0]));
        assert_eq!(inputs[1], Tensor::i64("b", &[2], &[3, -9_007_199_254_740_991]));
        let doubles: Vec<u8> = [0.1, 1e-30_f64].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(inputs[2].data, doubles, "as FP64, not as FP32");
        for (feature, ok) in [("0.5", false), ("9007199254740993", false), ("-3e0", true)] {
            let body = format!(r#"{{"features": [1, 2, {feature}, 4]}}"#);
            let answer = asked::<Any>(model, vec![Tensor::f32("y", &[1], &[0.0])], &body).0;
            assert_eq!(answer.is_ok(), ok, "{feature}: {answer:?}");
        }
    }

    #[test]
    fn a_shape_that_features_do_not_settle_is_refused() {
        let y = || vec![Tensor::f32("y", &[1], &[0.0])];
        let body = r#"{"features": [1, 2, 3, 4]}"#;
        for (inputs, settled) in [
            ("in x FP32 [-1, -1]", Some(vec![1, 4])),
            ("in x FP32 [-1, 2, -1]", Some(vec![1, 2, 2])),
            ("in x FP32 [2, 2]", Some(vec![2, 2])),
            ("in x FP32 [-1, -1, -1]", None),
            ("in x FP32 [-1, 2]\nin z FP32 [-1, -1]", None),
        ] {
            let (answer, given) = asked::<Any>(&format!("{inputs}\nout y FP32 [-1]"), y(), body);
            match settled {
                Some(dimensions) => {
                    assert_eq!(given[0].dimensions, dimensions, "{inputs}: {answer:?}");
                }
                None => {
                    let (status, message) = answer.unwrap_err();
                    assert_eq!(status, 400);
                    assert!(
                        message.contains("POST /v2/models/m/infer takes the shape"),
                        "{message}"
                    );
                }
            }
        }
    }

    /// The graph takes the flags as integers.
    struct Flags;

    impl Model for Flags {
        const NAME: &'static str = "m";
        const MAPPING: Option<Mapping> = Some(|graph, inputs| {
            let flags = inputs[0].bools()?.into_iter().map(i64::from).collect::<Vec<_>>();
            let flags = Tensor::i64("flag", &inputs[0].dimensions, &flags);
            let [scores] = graph.compute([flags], ["p"])?;
            Ok(vec![scores, Tensor::i64("c", &[2], &[1, 0])])
        });
    }

    /// The lengths of two words, in a decimal place each.
    struct Lengths;

    impl Model for Lengths {
        const NAME: &'static str = "m";
        const MAPPING: Option<Mapping> = Some(|_, inputs| {
            let words = inputs[0].byte_strings()?.into_iter().zip(inputs[1].byte_strings()?);
            let lengths: Vec<_> = words.map(|(a, b)| (10 * a.len() + b.len()) as i64).collect();
            Ok(vec![Tensor::i64("length", &inputs[0].dimensions, &lengths)])
        });
    }

    #[test]
    fn the_mapping_of_a_component_is_asked_in_place_of_the_graph() {
        let scores = || vec![Tensor::f32("p", &[2, 2], &[0.25, 0.75, 1.0, 0.0])];
        let model = format!("{LABELS}in flag BOOL [-1]\nout c INT64 [-1]\nout p FP32 [-1, 2]");
        let body = r#"{"instances": [[1], [0]]}"#;
        let (answer, given) = asked::<Flags>(&model, scores(), body);
        assert!(answer.unwrap().contains(r#"[{"prediction":"b","probability":0.75,"#));
        assert_eq!(given, [Tensor::i64("flag", &[2], &[1, 0])]);
        let (answer, _) = asked::<Flags>(&model, scores(), r#"{"instances": [[1], [2]]}"#);
        let message = r#"features: "flag" takes BOOL, and not all numbers of row 1 are such"#;
        assert_eq!(answer, Err((400, message.to_owned())));
        // What the mapping gives is checked as what a graph gives.
        let (answer, _) = asked::<Flags>(&model, scores(), r#"{"features": [1]}"#);
        assert_eq!(answer.unwrap_err().0, 500);

        let model = "in a BYTES [-1]\nin b BYTES [-1, 1]\nout length INT64 [-1]";
        let body = r#"{"instances": [["abc", "\u00e9"], {"b": "", "a": "x"}]}"#;
        assert_eq!(
            asked::<Lengths>(model, Vec::new(), body).0.as_deref(),
            Ok(r#"{"predictions":[{"prediction":32},{"prediction":10}]}"#)
        );
    }

    #[test]
    fn what_a_file_means_only_the_component_can_say() {
        struct Files;

        impl Model for Files {
            const NAME: &'static str = "m";
            const FILE: Option<File> = Some(File::new("picture", "image/x"));
        }

        let model = format!("{X}out y FP32 [-1]");
        let (answer, _) = asked::<Files>(&model, Vec::new(), r#"{"picture": "AAAA"}"#);
        let (status, message) = answer.unwrap_err();
        assert_eq!(status, 500);
        assert!(message.contains("`fn predict`"), "{message}");
    }

    proptest! {
        /// Whatever a graph gives, and whatever its signature says.
        #[test]
        fn no_output_panics(
            labels in prop::sample::select(vec!["", LABELS, "labels = [3, 7]\n"]),
            one in "(FP32|FP64|INT64|UINT8|FP16) \\[(-1|2|-1, 2|-1, 3|-1, -1)?\\]",
            other in prop::option::of("(FP32|INT32) \\[(-1|-1, 2)?\\]"),
            data in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let other = other.map(|other| format!("\nout b {other}")).unwrap_or_default();
            let model = format!("{labels}{X}out a {one}{other}");
            let tensor = |name: &str, datatype: &str| Tensor {
                name: name.to_owned(),
                datatype: Datatype::named(datatype.split(' ').next().unwrap()).unwrap(),
                dimensions: vec![2],
                data: data.clone(),
            };
            let mut outputs = vec![tensor("a", &one)];
            if let Some(other) = other.strip_prefix("\nout b ") {
                outputs.push(tensor("b", other));
            }
            let _ = answer(&model, outputs);
        }
    }
}
