use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

pub(in crate::drift) const IRIS: &str =
    include_str!("../../../../models/iris-classifier/1/baseline.json");
const IRIS_SIGNATURE: &str = include_str!("../../../../models/iris-classifier/1/model.toml");

fn iris() -> ModelToml {
    ModelToml::parse(IRIS_SIGNATURE).unwrap()
}

fn parse_error(text: &str) -> String {
    format!("{:#}", Baseline::parse(text, &iris()).unwrap_err())
}

#[test]
fn baselines_of_the_example_models_match_their_versions() {
    let models = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models");
    let mut found = 0;
    for model in models.read_dir().unwrap().filter_map(|entry| entry.ok()?.path().read_dir().ok()) {
        for version in model {
            let folder = version.unwrap().path();
            if folder.join(BASELINE).exists() {
                assert!(!Baseline::read(&folder).unwrap().unwrap().fields.is_empty());
                found += 1;
            }
        }
    }
    assert!(found >= 5, "{found}");
}

#[test]
fn fields_have_the_order_of_the_signature_and_outputs_their_labels() {
    let baseline = Baseline::parse(IRIS, &iris()).unwrap();
    let names: Vec<_> = baseline.fields.iter().map(|field| field.name.as_str()).collect();
    let expected = [
        "sepal_length",
        "sepal_width",
        "petal_length",
        "petal_width",
        "label",
        "probabilities[0]",
        "probabilities[1]",
        "probabilities[2]",
    ];
    assert_eq!(names, expected);
    let label = &baseline.fields[4];
    let Bins::Category(categories) = &label.bins else { panic!("{label:?}") };
    assert_eq!((label.alias, &*label.counts), (Some("prediction"), &[40, 40, 40, 0][..]));
    assert_eq!(categories.shown, ["setosa", "versicolor", "virginica"]);
    assert_eq!((categories.of_number(2), categories.of_text("virginica")), (2, 2));
    assert_eq!((categories.of_number(3), categories.of_text("rose")), (3, 3));
    assert_eq!((categories.of_float(1.0), categories.of_float(1.5)), (1, 3));
    assert_eq!((categories.of_float(f64::INFINITY), categories.of_number(-1)), (3, 3));
}

#[test]
fn baseline_of_another_signature_is_rejected_with_the_difference() {
    for (from, to, part) in [
        ("\"iris-classifier\"", "\"wine\"", "model: is \"wine\", but model.toml"),
        ("\"version\": \"1\"", "\"version\": \"2\"", "version: is \"2\""),
        ("\"petal_width\"", "\"stem\"", "features: `petal_width` is missing"),
        ("\"label\"", "\"class\"", "outputs: model.toml has no `class`; it has `label`, `prob"),
        ("probabilities[2]", "probabilities[3]", "outputs: model.toml has no `probabilities[3]`"),
    ] {
        let error = parse_error(&IRIS.replacen(from, to, 1));
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn malformed_baseline_is_rejected_with_the_key() {
    for (from, to, part) in [
        ("\"kind\": \"category\"", "\"kind\": \"colour\"", "outputs.label: unknown variant"),
        ("[40, 40, 40]", "[40, 40]", "outputs.label: counts: has 2 values for 3 bins"),
        ("[40, 40, 40]", "[40, 40, 41]", "outputs.label: counts: must add up"),
        ("[0, 1, 2]", "[0, 1, 1]", "outputs.label: values[2]: 1 is a duplicate"),
        ("[0, 1, 2]", "[0, 1, null]", "outputs.label: values[2]: null is not"),
        ("[0, 1, 2]", "[0, 1, 2.5]", "outputs.label: values[2]: 2.5 is not a 64-bit integer"),
        ("[1.45, 1.55,", "[1.55, 1.45,", "features.petal_length: edges: must ascend"),
        (
            "\"rows\": 120",
            "\"rows\": 119",
            "count: 120 and `missing` 0 do not add up to `rows`, 119",
        ),
        ("\"edges\"", "\"edgs\"", "features.petal_length: missing field `edges`"),
        ("\"rows\": 120,", "", "missing field `rows`"),
        ("\"rows\": 120,", "\"rows\": -1,", "invalid value"),
    ] {
        let error = parse_error(&IRIS.replacen(from, to, 1));
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn baseline_without_model_toml_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Baseline::read(dir.path()).unwrap(), None);
    std::fs::write(dir.path().join(BASELINE), IRIS).unwrap();
    let error = format!("{:#}", Baseline::read(dir.path()).unwrap_err());
    assert!(error.contains("there is no model.toml next to it"), "{error}");
    std::fs::write(dir.path().join(SIGNATURE), IRIS_SIGNATURE).unwrap();
    assert_eq!(Baseline::read(dir.path()).unwrap().unwrap().rows, 120);
    std::fs::write(dir.path().join(SIGNATURE), IRIS_SIGNATURE.replacen("version", "vers", 1))
        .unwrap();
    let error = format!("{:#}", Baseline::read(dir.path()).unwrap_err());
    assert!(error.contains("model.toml: line 1: `version` is missing"), "{error}");
    std::fs::write(dir.path().join(SIGNATURE), IRIS_SIGNATURE).unwrap();
    std::fs::write(dir.path().join(BASELINE), "{").unwrap();
    let error = format!("{:#}", Baseline::read(dir.path()).unwrap_err());
    assert!(error.contains("baseline.json: EOF"), "{error}");
}

proptest! {
    #[test]
    fn damaged_baseline_is_parsed_or_rejected(
        at in 0..IRIS.len(),
        length in 0_usize..60,
        with in "[ -~]{0,10}",
    ) {
        let end = IRIS.len().min(at + length);
        let damaged = format!("{}{with}{}", &IRIS[..at], &IRIS[end..]);
        let _ = Baseline::parse(&damaged, &iris());
    }
}
