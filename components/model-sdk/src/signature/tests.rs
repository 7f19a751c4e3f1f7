use super::*;

pub(crate) const IRIS: &str = r#"
    name = "iris-classifier"
    version = "1"
    description = "Iris species"
    sha256 = "00"
    labels = ["setosa", "versicolor", "virginica"]
    [[inputs]]
    name = "features"
    datatype = "FP32"
    shape = [-1, 4]
    fields = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    [[outputs]]
    name = "label"
    datatype = "INT64"
    shape = [-1]
    [[outputs]]
    name = "probabilities"
    datatype = "FP32"
    shape = [-1, 3]
    [provenance]
    trained_on = 2026-11-01
    "#;

pub(crate) fn iris() -> Signature {
    Signature::parse(IRIS, "iris-classifier").unwrap()
}

/// The model `m`, from lines such as `in x FP32 [-1, 2]`, `out y FP32 [-1]`, and lines of `model.toml`.
pub(crate) fn signature(model: &str) -> Signature {
    let mut text = "name = 'm'\nversion = '1'\n".to_owned();
    for line in model.lines() {
        let mut words = line.splitn(4, ' ');
        let tensors = match words.next() {
            Some("in") => "inputs",
            Some("out") => "outputs",
            _ => {
                text += &format!("{line}\n");
                continue;
            }
        };
        let [name, datatype, shape] = [(); 3].map(|()| words.next().unwrap());
        text +=
            &format!("[[{tensors}]]\nname = '{name}'\ndatatype = '{datatype}'\nshape = {shape}\n");
    }
    Signature::parse(&text, "m").unwrap()
}

fn error(from: &str, to: &str) -> String {
    assert!(IRIS.contains(from), "{from}");
    Signature::parse(&IRIS.replacen(from, to, 1), "iris-classifier").unwrap_err()
}

#[test]
fn signature_is_parsed() {
    let iris = iris();
    assert_eq!(iris.version, "1");
    assert_eq!(iris.labels, ["setosa", "versicolor", "virginica"]);
    assert_eq!(iris.outputs[0].datatype, Datatype::I64);
    assert_eq!(iris.features(), Some(4));
    assert_eq!(iris.fields().len(), 4);
}

#[test]
fn invalid_signature_is_refused_with_its_position() {
    assert!(error(r#"name = "iris-classifier""#, r#"name = "wine""#).contains("mount"));
    assert!(error("[-1, 4]", "[-2, 4]").contains("[-2, 4]"));
    assert!(error("[-1, 4]", "[-1, 0]").contains("4 fields"));
    for (shape, batch_axis) in [("[5, 3]", 1), ("[-1, 3]", 1), ("[-1]", 1), ("[]", 1)] {
        let refused = error("[-1, 3]", &format!("{shape}\nbatch_axis = {batch_axis}"));
        let part =
            format!("\"probabilities\" has `batch_axis = 1` and the shape {shape}: expected");
        assert!(refused.starts_with(&part), "{refused}");
    }
    assert!(error("[-1, 4]", "[-1, 5]").contains("4 fields"));
    assert!(error(r#""probabilities""#, r#""label""#).contains("two tensors"));
    for (from, to, problem) in [
        (
            "FP32",
            "FLOAT",
            r#"line 9: `inputs[0].datatype`: expected one of BOOL, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FP16, FP32, FP64, BF16, BYTES, got "FLOAT""#,
        ),
        (
            "[-1, 3]",
            "[3]\nbatch_axis = 'n'",
            "line 20: `outputs[1].batch_axis`: expected the index of an axis, 0 or more, got string",
        ),
        (
            "[-1, 3]",
            "[-1, 3]\nbatch_axis = -1",
            "line 20: `outputs[1].batch_axis`: expected the index of an axis, 0 or more, got integer",
        ),
        ("version = \"1\"", "", "line 1: `version` is missing"),
        ("\"1\"", "1", "line 3: `version`: expected a string, got integer"),
        (
            "version = \"1\"",
            "version = \"1\"\ncache_seconds = -1",
            "line 4: `cache_seconds`: expected a number of seconds, 0 or more, got integer",
        ),
        ("\"setosa\"", "true", "line 6: `labels`: expected a string, got boolean"),
        ("\"setosa\"", "1", "line 6: `labels`: expected an array of 64-bit integers, got string"),
        (
            "[\"setosa\", \"versicolor\", \"virginica\"]",
            "\"setosa\"",
            "line 6: `labels`: expected an array of strings, got string",
        ),
        ("name = \"label\"", "", "line 12: `outputs[0].name` is missing"),
        (
            "[-1, 3]",
            "[-1, 3.0]",
            "line 19: `outputs[1].shape`: expected an array of 64-bit integers, got float",
        ),
        (
            "[-1, 3]",
            "[9223372036854775808]",
            "line 19: `outputs[1].shape`: expected an array of 64-bit integers, got integer",
        ),
        ("[[inputs]]", "[inputs]", "line 7: `inputs`: expected an array of tables, got table"),
    ] {
        assert_eq!(error(from, to), problem);
    }
    for syntax in ["labels = ", "version = \"2\"\nlabels = ["] {
        assert!(error("labels = [", syntax).starts_with("line 6: "), "{syntax}");
    }
    let tables = "name = 'x'\nversion = '1'\ninputs = [{}, 5]";
    assert_eq!(Signature::parse(tables, "x").unwrap_err(), "line 3: `inputs[0].name` is missing");
    let tables = "name = 'x'\nversion = '1'\ninputs = [5]";
    assert_eq!(
        Signature::parse(tables, "x").unwrap_err(),
        "line 3: `inputs`: expected an array of tables, got integer"
    );
}

#[test]
fn integers_of_any_radix() {
    let tensor = |shape| format!(r#"{{ name = "x", datatype = "FP32", shape = {shape} }}"#);
    let (input, output) = (tensor("[-1, 0x1_0, 0b11, +7]"), tensor("[]"));
    let text = format!("name = 'x'\nversion = '1'\ninputs = [{input}]\noutputs = [{output}]");
    let signature = Signature::parse(&text, "x").unwrap();
    assert_eq!(signature.inputs[0].shape.0, [-1, 16, 3, 7]);
}

fn tensor(shape: &[i64], batch_axis: usize) -> TensorSignature {
    TensorSignature {
        name: "x".into(),
        datatype: Datatype::F32,
        shape: Shape(shape.to_vec()),
        batch_axis,
        fields: Vec::new(),
        columns: Vec::new(),
    }
}

#[test]
fn rows_and_free_axes() {
    for (shape, row) in [
        (vec![-1, 4], Some(4)),
        (vec![4], Some(4)),
        (vec![-1], Some(1)),
        (vec![-1, 3, 28, 28], Some(2352)),
        (vec![-1, -1], None),
        (vec![2, -1], None),
        (vec![-1, 0], Some(0)),
        (vec![], Some(1)),
        (vec![i64::MAX, i64::MAX], None),
    ] {
        assert_eq!(tensor(&shape, 0).row(), row, "{shape:?}");
    }
    for (shape, elements, dimensions) in [
        (vec![-1, 3], 6, Some(vec![2, 3])),
        (vec![2, -1, 3], 6, Some(vec![2, 1, 3])),
        (vec![2, 3], 6, Some(vec![2, 3])),
        (vec![], 1, Some(vec![])),
        (vec![-1], 0, Some(vec![0])),
        (vec![-1, 4], 0, Some(vec![0, 4])),
        (vec![0, 4], 0, Some(vec![0, 4])),
        (vec![0, 4], 4, None),
        (vec![0, -1], 0, None),
        (vec![-1, 0], 0, None),
        (vec![2, 3], 12, None),
        (vec![2, 3], 0, None),
        (vec![-1, 4], 6, None),
        (vec![-1, -1], 6, None),
    ] {
        assert_eq!(Shape(shape.clone()).dimensions(elements), dimensions, "{shape:?} {elements}");
    }
    assert!(Shape(vec![-1, 4]).admits(&[7, 4]));
    assert!(Shape(vec![-1, 4]).admits(&[0, 4]));
    assert!(!Shape(vec![-1, 4]).admits(&[7, 3]));
    assert!(!Shape(vec![-1, 4]).admits(&[4]));
}

#[test]
fn batch_axis_may_be_any_axis() {
    for (shape, batch_axis, row, of_two) in [
        (&[5, -1, 3][..], 1, Some(15), Some(vec![2, 5, 3])),
        (&[5, -1], 1, Some(5), Some(vec![2, 5])),
        (&[-1, -1], 1, None, Some(vec![2, 15])),
        (&[5, 3], 0, Some(15), None),
    ] {
        let tensor = tensor(shape, batch_axis);
        assert_eq!(tensor.row(), row, "{shape:?}");
        assert_eq!(tensor.of_rows(2, row.unwrap_or(15)), of_two, "{shape:?}");
    }
    let model = "in x FP32 [5, -1, 3]\nbatch_axis = 1\nout y FP32 [-1, 2]";
    assert!(signature(model).takes_rows());
    assert!(!signature("in x FP32 [5, -1, 3]\nout y FP32 [-1, 2]").takes_rows());
}

#[test]
fn columns_are_found_by_name() {
    let signature = signature(
        "in age FP32 [-1, 1]\nin city_in BYTES [-1, 1]\nfields = ['city']\nin n INT64 [-1]\nout y FP32 [-1]",
    );
    assert_eq!(signature.fields(), ["age", "city", "n"]);
    for (name, position) in
        [("age", Some(0)), ("city", Some(1)), ("city_in", Some(1)), ("n", Some(2)), ("x", None)]
    {
        assert_eq!(signature.column(name), position, "{name}");
    }
    assert_eq!(signature.kind_of_rows(), ItemKind::Mixed);
    let slot = |position| signature.slot(position).map(|slot| (slot.datatype, slot.at));
    let slots = [0, 1, 2].map(|position| slot(position).unwrap());
    assert_eq!(slots, [(Datatype::F32, 0), (Datatype::Bytes, 0), (Datatype::I64, 1)]);
}
