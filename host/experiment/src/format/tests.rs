use proptest::prelude::*;
use toml::Table;

use super::keys::Problems;
use super::parse::experiment;
use super::*;

const VALID: &str = r#"
[experiments.iris]
model = "iris"
unit = { header = "X-User-Id" }
force = "X-Variant"
[[experiments.iris.variants]]
name = "control"
component = "iris-classifier-1"
model = "iris-classifier"
allocation = 0.9
[[experiments.iris.variants]]
name = "treatment"
component = "iris-classifier-2"
allocation = 0.1
[[experiments.iris.variants]]
name = "candidate"
component = "iris-classifier-3"
shadow = true
"#;

#[test]
fn a_file_is_read() {
    let experiments = Experiments::parse(VALID).unwrap();
    let iris = experiments.get("iris").unwrap();
    assert_eq!((iris.name.as_str(), iris.model.as_str()), ("iris", "iris"));
    assert_eq!(iris.unit, Unit::Header("x-user-id".into()), "headers have no case");
    assert_eq!(iris.force.as_deref(), Some("x-variant"));
    assert_eq!(iris.names(), "control, treatment");
    let [control, treatment, candidate] = iris.variants.as_slice() else { panic!("{iris:?}") };
    assert_eq!(control.model.as_deref(), Some("iris-classifier"));
    assert_eq!((treatment.model.as_deref(), treatment.allocation), (None, 0.1));
    assert_eq!((candidate.shadow, candidate.allocation), (true, 0.0));
}

#[test]
fn tenths_sum_to_one() {
    let text = VALID.replace("0.9", "0.7").replace("0.1", "0.3");
    assert!(Experiments::parse(&text).is_ok(), "0.7 + 0.3");
    let text = VALID.replace("0.9", "0.5").replace("= 0.1", "= 0.49999999995");
    assert!(Experiments::parse(&text).is_ok());
}

/// `find` is replaced in a valid file, and the problem has to have its key.
#[test]
fn every_invalid_value_is_named() {
    for (find, replace, expected) in [
        (
            "[experiments.iris]\n",
            "[experiments.iris]\nx = 1\n",
            "experiments.iris.x: unknown key; the keys are model, unit, force, variants",
        ),
        (
            "name = \"treatment\"",
            "name = \"treatment\"\nshare = 1",
            "experiments.iris.variants[1] (treatment).share: unknown key",
        ),
        (
            "[experiments.iris]\n",
            "x = 1\n[experiments.iris]\n",
            "x: unknown key; the keys are experiments",
        ),
        (
            "0.9",
            "0.8",
            "experiments.iris.variants: the allocations 0.8 + 0.1 sum to 0.9; they have to sum to 1",
        ),
        ("0.9", "-0.9", "variants[0] (control).allocation: -0.9 is not a share"),
        ("0.9", "1.9", "variants[0] (control).allocation: 1.9 is not a share"),
        ("0.9", "nan", "NaN is not a share"),
        ("0.9", "inf", "inf is not a share"),
        (
            "0.9",
            "\"0.9\"",
            "variants[0] (control).allocation: expected a share from 0 to 1, got string",
        ),
        ("allocation = 0.1\n", "", "variants[1] (treatment).allocation: is missing"),
        (
            "\"treatment\"",
            "\"control\"",
            "experiments.iris.variants: two variants are named `control`",
        ),
        ("\"control\"", "\"base\"", "no variant is named `control`"),
        (
            "shadow = true",
            "shadow = true\nallocation = 0.1",
            "variants[2] (candidate).allocation: a shadow has no share",
        ),
        ("shadow = true", "shadow = 1", "variants[2] (candidate).shadow: write true or false"),
        (
            "\"treatment\"",
            "\"treat ment\"",
            "variants[1] (treat ment).name: \"treat ment\" contains ' '",
        ),
        ("\"treatment\"", "\"\"", "variants[1] ().name: \"\" is empty"),
        ("\"treatment\"", "\"-t\"", "\"-t\" starts with '-'"),
        ("\"treatment\"", "7", "variants[1] (no name).name: expected a string, got integer"),
        ("model = \"iris\"\n", "model = \"a/b\"\n", "experiments.iris.model: \"a/b\" contains '/'"),
        ("model = \"iris\"\n", "", "experiments.iris.model: is missing"),
        (
            "\"iris-classifier-2\"",
            "\"no id\"",
            "variants[1] (treatment).component: \"no id\" is not the id",
        ),
        (
            "unit = { header = \"X-User-Id\" }\n",
            "",
            "experiments.iris.unit: is missing; write { header",
        ),
        ("{ header = \"X-User-Id\" }", "{ }", "experiments.iris.unit: must have one key"),
        (
            "{ header = \"X-User-Id\" }",
            "{ header = \"a\", cookie = \"b\" }",
            "experiments.iris.unit: must have one key",
        ),
        (
            "{ header = \"X-User-Id\" }",
            "{ ip = true }",
            "experiments.iris.unit.ip: unknown key; the keys are header, cookie, json",
        ),
        (
            "{ header = \"X-User-Id\" }",
            "{ header = \"a b\" }",
            "experiments.iris.unit.header: \"a b\" is not the name of a header",
        ),
        (
            "{ header = \"X-User-Id\" }",
            "{ header = \"Spin-Client-Addr\" }",
            "is a header of the host",
        ),
        (
            "{ header = \"X-User-Id\" }",
            "{ json = \"a..b\" }",
            "experiments.iris.unit.json: \"a..b\" is not a path",
        ),
        ("{ header = \"X-User-Id\" }", "\"x-user-id\"", "experiments.iris.unit: is not a table"),
        (
            "X-Variant",
            "spinfer-variant",
            "experiments.iris.force: \"spinfer-variant\" is a header of the host",
        ),
        (
            "[experiments.iris]\n",
            "[experiments.iris]\nmodel = \"twice\"\n",
            "line 4: duplicate key",
        ),
        ("[experiments.iris]", "[experiments.iris", "line 2:"),
    ] {
        let text = VALID.replacen(find, replace, 1);
        assert_ne!(text, VALID, "{find}");
        let problem = Experiments::parse(&text).unwrap_err().to_string();
        assert!(problem.contains(expected), "{find} -> {replace}:\n{problem}\nexpected {expected}");
    }
}

#[test]
fn every_problem_is_found_at_once() {
    let text = VALID.replace("0.9", "2").replace("\"iris-classifier-2\"", "\"\"");
    let Invalid(problems) = Experiments::parse(&text).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn names_and_models_are_unique() {
    let twice = format!("{VALID}{}", VALID.replace("experiments.iris", "experiments.other"));
    let problem = Experiments::parse(&twice).unwrap_err().to_string();
    assert_eq!(
        problem,
        "experiments.other.model: \"iris\" is the model of experiment `iris`; a model has one \
         experiment"
    );
    let problem = Experiments::parse(&format!("{VALID}{VALID}")).unwrap_err().to_string();
    assert!(problem.contains("duplicate"), "{problem}");
}

#[test]
fn a_file_without_experiments_is_refused() {
    for text in ["", "experiments = 1", "[experiments]"] {
        let problem = Experiments::parse(text).unwrap_err().to_string();
        assert!(problem.contains("write [experiments.<name>]"), "{problem}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,300}") {
        let _ = Experiments::parse(&text);
    }

    /// A valid file with a replaced part, which reaches most checks.
    #[test]
    fn a_broken_file_is_read_or_refused(
        at in 0..VALID.len(), length in 0..12_usize, with in "[ -~é\n]{0,12}",
    ) {
        let end = (at + length).min(VALID.len());
        let text = format!("{}{with}{}", &VALID[..at], &VALID[end..]);
        if let Ok(experiments) = Experiments::parse(&text) {
            for experiment in &experiments {
                prop_assert!(experiment.assignable().any(|(_, variant)| variant.name == CONTROL));
                let sum: f64 = experiment.variants.iter().map(|v| v.allocation).sum();
                prop_assert!((sum - 1.0).abs() <= 2.0 * SUM_TOLERANCE);
            }
        }
    }

    #[test]
    fn any_values_are_read_or_refused(
        name in "[ -~é]{0,10}", allocation in any::<f64>(), key in "[a-z]{1,8}",
    ) {
        let mut file: Table = toml::from_str(VALID).unwrap();
        let iris = file["experiments"]["iris"].as_table_mut().unwrap();
        let variant = iris["variants"][0].as_table_mut().unwrap();
        variant.insert("name".into(), name.into());
        variant.insert("allocation".into(), allocation.into());
        variant.insert(key, 1.into());
        let mut problems = Problems(Vec::new());
        let _ = experiment("iris", &file["experiments"]["iris"], &mut problems);
    }
}
