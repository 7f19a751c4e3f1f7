//! Wagi: commands that read a request as CGI does, and print the response.

use spinfer_tests::{Launch, Manifest, Spinfer};

const WAGI: &str = "executor = { type = \"wagi\" }";

fn manifest(executor: &str, settings: &str) -> Manifest {
    let trigger = format!("route = \"/cgi/...\"\n{executor}\n");
    let text = Manifest::default().with("/cgi/...", "command", "command", settings);
    let text = text.text().replacen("route = \"/cgi/...\"\n", &trigger, 1);
    Manifest::default().and(text.split_once("name = \"test\"\n").map_or("", |(_, rest)| rest))
}

fn up(settings: &str) -> Spinfer {
    Launch::new(&manifest(WAGI, settings)).up()
}

#[test]
fn request_reaches_the_command_and_its_output_is_the_response() {
    let spinfer = up("environment = { GREETING = \"hi\" }");
    let response = spinfer.post("/cgi/a?b=1&c", "the body");
    assert_eq!(response.status, 200);
    assert_eq!(response.text(), "POST /a b=1&c hi the body");
    assert_eq!(response.header("content-type"), Some("text/plain"));
    assert_eq!(response.header("x-arguments"), Some("/cgi/a,b=1,c"));
    let response = spinfer.get("/cgi/exit");
    assert_eq!((response.status, response.text()), (202, "exited".into()));
    spinfer.wait_for_output("/cgi/...  command (wagi door)");
}

#[test]
fn argv_is_a_template_of_the_arguments() {
    let executor = "executor = { type = \"wagi\", argv = \"run ${SCRIPT_NAME} -v ${ARGS}\" }";
    let spinfer = Launch::new(&manifest(executor, "")).up();
    let response = spinfer.get("/cgi/a?b=1");
    assert_eq!(response.header("x-arguments"), Some("run,/cgi/a,-v,b=1"));
}

#[test]
fn command_without_a_response_is_a_failure_and_the_next_request_is_served() {
    let spinfer = up("tool.spinfer.limits.deadline = \"500ms\"");
    for (path, status) in [("silent", 500), ("fail", 500), ("loop", 504), ("other", 200)] {
        assert_eq!(spinfer.get(&format!("/cgi/{path}")).status, status, "{path}");
    }
    spinfer.wait_for_log("its output has no empty line after the headers");
}

#[test]
fn output_that_is_too_large_is_a_failure() {
    let spinfer = up("");
    assert_eq!(spinfer.get("/cgi/large").status, 500);
    spinfer.wait_for_log("its output is larger than 16777216 bytes");
}

#[test]
fn executor_and_exports_have_to_match() {
    let text = Launch::new(&manifest("", "")).refused();
    assert!(text.contains("executor = { type = \"wagi\" }"), "{text}");
    let text = manifest(WAGI, "").text().replace("command.wasm", "probe.wasm");
    let text = Launch::from_text(&text).refused();
    assert!(text.contains("it is not a command"), "{text}");
}
