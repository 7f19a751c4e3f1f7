//! Settings of sinks that are refused at startup.

use spinfer_tests::{Launch, Manifest};

use super::App;

#[test]
fn misspelt_sink_is_refused_with_the_keys_there_are() {
    let manifest = Manifest::default().with_iris("iris", 1, "/...", "");
    let sinks = "[[prediction_log.sinks]]\ntype = 'redis'\nurl = 'redis://:hush@h'\nstreem = 'a'";
    let refused = Launch::new(&manifest).runtime_config(sinks).refused();
    assert!(refused.contains("streem: unknown key; \"redis\" has name, url, cluster"), "{refused}");
    assert!(!refused.contains("hush"), "{refused}");
}

#[test]
fn sinks_of_a_disabled_log_are_refused() {
    let sinks = "[prediction_log]\nenabled = false\n[[prediction_log.sinks]]\ntype = 'stdout'";
    let app = App::new("");
    let launch = || app.without_sinks().runtime_config(sinks);
    let (checked, text) = launch().check();
    assert!(!checked.success());
    for refused in [text, launch().refused()] {
        assert!(refused.contains("the sink `stdout` would receive nothing"), "{refused}");
        assert!(refused.contains("remove the sinks, or write enabled = true"), "{refused}");
    }
}

#[test]
fn sink_that_would_write_into_a_file_of_the_host_is_refused() {
    let app = App::new("");
    let path = app.path("predictions.db");
    let link = app.path("link.jsonl");
    std::fs::write(&path, "").unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [path, link] {
        let sink = format!("[[prediction_log.sinks]]\ntype = 'file'\npath = '{}'", path.display());
        let launch = || app.without_sinks().runtime_config(&sink);
        let (checked, text) = launch().check();
        assert!(!checked.success());
        for refused in [text, launch().refused()] {
            assert!(refused.contains("sink `file`: path: is "), "{refused}");
            assert!(refused.contains("a file of the log itself; write another path"), "{refused}");
        }
    }
    let windows = app.path("drift-windows.json");
    let sink = format!("[[prediction_log.sinks]]\ntype = 'file'\npath = '{}'", windows.display());
    let refused = app.without_sinks().runtime_config(&sink).refused();
    assert!(refused.contains("drift-windows.json, a file of the host; write another"), "{refused}");
}
