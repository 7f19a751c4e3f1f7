//! Resolves the values of the manifest's variables.

use std::collections::HashMap;

use super::{Options, Problems, listed};
use crate::config::manifest::{Manifest, names};
use crate::config::variables::PREFIX;

/// The value of each variable that has one. Adds a problem for each invalid or missing value.
pub(super) fn resolve<'m>(
    manifest: &'m Manifest,
    options: &Options,
    problems: &mut Problems,
) -> HashMap<&'m str, String> {
    let mut values = HashMap::new();
    for (name, variable) in &manifest.variables {
        let key = format!("variables.{name}");
        if let Err(problem) = names::check_variable(name) {
            problems.add("variables", problem);
            continue;
        }
        if variable.required == variable.default.is_some() {
            problems.add(key, "set exactly one of `required = true` and `default`");
            continue;
        }
        let mut providers = std::iter::once(&options.variables).chain(&options.providers);
        let given = providers.find_map(|provider| provider.get(name));
        match given.or(variable.default.as_ref()) {
            Some(value) => {
                values.insert(name.as_str(), value.clone());
            }
            None if options.without_values => {}
            None => problems.add(
                key,
                format!(
                    "is required and has no value; set it with `--variable {name}=...`, with \
                     {PREFIX}_{} in the environment or in a file .env next to the manifest, with \
                     [[variables_provider]] in a --runtime-config-file, or give it a `default`",
                    name.to_ascii_uppercase()
                ),
            ),
        }
    }
    let given = options.variables.names();
    let mut unknown: Vec<_> =
        given.filter(|name| !manifest.variables.contains_key(*name)).collect();
    unknown.sort_unstable();
    for name in unknown {
        let available = listed(manifest.variables.keys());
        problems.add(
            format!("--variable {name}"),
            format!("[variables.{name}] does not exist; declared variables: {available}"),
        );
    }
    values
}
