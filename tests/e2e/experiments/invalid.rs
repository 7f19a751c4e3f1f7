use spinfer_tests::{Launch, root};

use super::{BY_HEADER, ExperimentApp, GRANTS, experiment};

/// Checks that an experiments file in which `find` is replaced is refused with `expected`.
fn check(find: &str, replace: &str, expected: &str) {
    let iris = root().join("models/iris-classifier");
    let text = "[experiments.iris]\nmodel = \"iris\"\nunit = { header = \"x-user-id\" }\n\
        [[experiments.iris.variants]]\nname = \"control\"\ncomponent = \"iris-1\"\n\
        model = \"iris-classifier\"\nallocation = 0.5\n\
        [[experiments.iris.variants]]\nname = \"treatment\"\ncomponent = \"iris-2\"\n\
        model = \"iris-classifier\"\nallocation = 0.5\n";
    assert!(text.contains(find) && iris.is_dir());
    let mut application = ExperimentApp::new(&text.replacen(find, replace, 1), GRANTS);
    application.manifest = application
        .manifest
        .with_iris("iris-1", 1, "/iris/1/...", "")
        .with_iris("iris-2", 2, "/iris/2/...", "")
        .with_model("diabetes-regressor", "diabetes", 1, "/diabetes/...", "");
    let output = application.refused();
    assert!(output.contains("component.ab-router: /experiments.toml: "), "{output}");
    assert!(output.contains(expected), "{replace}: expected {expected}\n{output}");
}

#[test]
fn invalid_experiments_are_refused_at_startup() {
    check(
        "allocation = 0.5",
        "allocation = 0.6",
        "experiments.iris.variants: the allocations 0.6 + 0.5 sum to 1.1; they have to sum to 1",
    );
    check(
        "component = \"iris-2\"",
        "component = \"iris-3\"",
        "experiments.iris.variants[1] (treatment).component: [component.iris-3] does not exist or has no route",
    );
    check(
        "component = \"iris-2\"\nmodel = \"iris-classifier\"",
        "component = \"diabetes\"\nmodel = \"diabetes-regressor\"",
        "the signature of model diabetes-regressor/1 differs from that of iris-classifier/1 \
        (variant `control`): inputs[0].",
    );
    check(
        "component = \"iris-2\"\nmodel = \"iris-classifier\"",
        "component = \"iris-2\"",
        "experiments.iris.variants[1] (treatment).model: component `iris-2` mounts no model `iris`; \
         mounted models: `iris-classifier`",
    );
    check(
        "component = \"iris-2\"",
        "component = \"ab-router\"",
        "routers assign requests to each other in a cycle: ab-router -> ab-router",
    );
    check("unit", "units", "experiments.iris.units: unknown key");
}

#[test]
fn variant_the_router_may_not_call_is_refused() {
    let grants = "key_value_stores = [\"default\"]\n\
        allowed_outbound_hosts = [\"http://one.spin.internal\"]\n";
    let output = ExperimentApp::new(&experiment("x", BY_HEADER, 0.5), grants).refused();
    assert!(
        output.contains("variants[1] (treatment).component: `ab-router` may not call it"),
        "{output}"
    );
    assert!(!output.contains("(control)"), "{output}");
}

#[test]
fn variant_with_another_sample_of_the_log_is_refused() {
    let experiments =
        experiment("x", BY_HEADER, 0.5).replace("component = \"two\"", "component = \"three\"");
    let output = ExperimentApp::new(&experiments, GRANTS)
        .with("three", "tool.spinfer.prediction_log.sample = 0.3")
        .refused();
    let expected = "experiments.x.variants[1] (treatment): variants must be logged alike: `sample` \
                    0.3, that of `control` 1; units would be missing";
    assert!(output.contains(expected), "{output}");
}

#[test]
fn example_application_with_its_experiment_passes_check() {
    let path = root().join("spin.toml");
    let built = std::fs::read_to_string(&path).unwrap();
    assert!(built.contains("/v2/models/iris/..."));
    let (status, text) = Launch::from_file(path).check();
    assert!(status.success(), "{text}");
}
