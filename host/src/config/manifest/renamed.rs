//! Former names of keys in `tool.spinfer`: a manifest that uses one is rejected with the new name.

use toml::{Table, Value};

/// Table, former key, key.
const RENAMED: [(&str, &str, &str); 2] =
    [("limits", "fast_body", "buffered_body"), ("reuse", "spare", "min_idle")];

/// One problem for each former key in `manifest`.
pub(super) fn problems(manifest: &Table) -> Vec<String> {
    let mut problems = Vec::new();
    find(manifest, "", &mut problems);
    problems
}

/// Visits every table below `table`, which is at the key `path`: components are in `[component]`,
/// and inline in triggers.
fn find(table: &Table, path: &str, problems: &mut Vec<String>) {
    let tool = table.get("tool").and_then(|tool| tool.get("spinfer"));
    for (section, former, key) in RENAMED {
        if tool.and_then(|tool| tool.get(section)?.get(former)).is_some() {
            problems
                .push(format!("{path}.tool.spinfer: {section}.{former} is now {section}.{key}"));
        }
    }
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        visit(value, &path, problems);
    }
}

fn visit(value: &Value, path: &str, problems: &mut Vec<String>) {
    match value {
        Value::Table(table) => find(table, path, problems),
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                visit(value, &format!("{path}[{index}]"), problems);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_key_is_rejected_with_its_new_name() {
        let manifest = "\
            [application]\ntool.spinfer.limits.fast_body = '1MiB'\n\
            [[trigger.http]]\ncomponent = { tool = { spinfer = { reuse = { spare = 1 } } } }\n\
            [component.a.tool.spinfer]\nlimits = { fast_body = 1, buffered_body = 1 }\nreuse.spare = 1\n\
            [component.b]\nenvironment = { fast_body = '1', spare = '1' }\n\
            tool.spinfer = { limits.buffered_body = 1, reuse.min_idle = 1 }\n";
        assert_eq!(
            problems(&toml::from_str(manifest).unwrap()),
            [
                "application.tool.spinfer: limits.fast_body is now limits.buffered_body",
                "component.a.tool.spinfer: limits.fast_body is now limits.buffered_body",
                "component.a.tool.spinfer: reuse.spare is now reuse.min_idle",
                "trigger.http[0].component.tool.spinfer: reuse.spare is now reuse.min_idle",
            ]
        );
    }
}
