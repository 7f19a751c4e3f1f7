use super::*;

const IRIS: &str = include_str!("../../../models/iris-classifier/1/model.toml");

fn problems(from: &str, to: &str) -> Vec<String> {
    assert!(IRIS.contains(from), "{from}");
    ModelToml::read(&IRIS.replacen(from, to, 1), "iris-classifier").unwrap_err()
}

#[test]
fn every_problem_is_reported() {
    let text = "name = 'm'\nversion = 1\nlabels = ['a', true]\ncache_seconds = 'x'\nmapped = 1\n\
                inputs = [{ name = 'x', datatype = 'FP23', shape = [1.5] }, 5]";
    assert_eq!(
        ModelToml::read(text, "m").unwrap_err(),
        [
            "line 3: `labels`: expected a string, got boolean",
            "line 2: `version`: expected a string, got integer",
            "line 6: `inputs[0].datatype`: expected one of BOOL, INT8, INT16, INT32, INT64, UINT8, UINT16, \
             UINT32, UINT64, FP16, FP32, FP64, BF16, BYTES, got \"FP23\"",
            "line 6: `inputs[0].shape`: expected an array of 64-bit integers, got float",
            "line 6: `inputs`: expected an array of tables, got integer",
            "line 1: `outputs` is missing",
            "line 4: `cache_seconds`: expected a number of seconds, 0 or more, got string",
            "line 5: `mapped`: expected true or false, got integer",
        ]
    );
    let problems = problems("\"features\"", "\"features\"\nbatch_axis = 3");
    assert!(problems[0].contains("batch_axis = 3"), "{problems:?}");
}

#[test]
fn labels_match_the_scores() {
    for labels in ["['a', 'b']", "['a', 'b', 'c', 'd']", "[1, 2]"] {
        let found = problems("[\"setosa\", \"versicolor\", \"virginica\"]", labels);
        let [problem] = &*found else { panic!("{found:?}") };
        let part = "of them, but outputs[1], \"probabilities\", has 3 scores for each row";
        assert!(problem.contains(part), "{problem}");
    }
    for (labels, width, fit) in [
        (3, 3, true),
        (2, 1, true),
        (5, 10, true),
        (5, 1, true),
        (2, 3, false),
        (4, 3, false),
        (3, 4, false),
        (1, 2, false),
        (usize::MAX, 5, false),
    ] {
        assert_eq!(scores_fit(labels, width), fit, "{labels} {width}");
    }
    // Only a run shows the number of scores.
    let free = IRIS.replace("[-1, 3]", "[-1, -1]").replace(", \"virginica\"", "");
    let model = ModelToml::read(&free, "iris-classifier").unwrap();
    assert!(model.scores_problem(1, 3).is_some() && model.scores_problem(1, 2).is_none());
}

#[test]
fn unknown_keys_are_found_in_every_table() {
    let text = "name = 'm'\nlables = ['a']\n[[inputs]]\nname = 'x'\ndtype = 'FP32'\n[[outputs]]\n\
                shape = []\n[[outputs]]\nfeilds = []\n[batching]\nsize = 3\n[provenance]\nany = 1\n\
                [provenance.tags]\nthing = '1'\n[extra]\na = 1";
    let found: Vec<_> = unknown_keys(text)
        .into_iter()
        .map(|UnknownKey { line, table, key, .. }| format!("{line} {table}{key}"))
        .collect();
    assert_eq!(
        found,
        ["2 lables", "16 extra", "5 inputs[0].dtype", "9 outputs[1].feilds", "11 batching.size"]
    );
    assert_eq!(unknown_keys("a = "), []);
    assert_eq!(unknown_keys("inputs = 5\noutputs = [1]\nbatching = 'x'"), []);
}

#[test]
fn model_tomls_of_the_repository_have_no_problem() {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models");
    let mut read = 0;
    for model in
        std::fs::read_dir(models).unwrap().filter_map(|entry| entry.ok()?.path().read_dir().ok())
    {
        for version in model {
            let folder = version.unwrap().path();
            let Ok(text) = std::fs::read_to_string(folder.join("model.toml")) else { continue };
            let name = folder.parent().unwrap().file_name().unwrap().to_str().unwrap();
            assert_eq!(ModelToml::read(&text, name).err(), None, "{}", folder.display());
            assert_eq!(unknown_keys(&text), [], "{}", folder.display());
            read += 1;
        }
    }
    assert!(read >= 5, "{read}");
}
