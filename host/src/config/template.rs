//! Templates in the values of a manifest: `{{ name }}` stands for a variable's value.

use std::collections::HashMap;
use std::fmt;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String),
}

impl Template {
    /// Parses a value of a manifest.
    ///
    /// # Errors
    /// Fails on a `{{` that is not closed.
    pub fn parse(mut text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        while let Some((before, rest)) = text.split_once("{{") {
            let (name, after) = rest
                .split_once("}}")
                .ok_or("`{{` without `}}`; write a variable as \"{{ name }}\"".to_owned())?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Variable(name.trim().to_owned()));
            text = after;
        }
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        Ok(Self(parts))
    }

    /// The names of the template's variables.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text, with variables replaced by their `values`. `None` if one has no value.
    #[must_use]
    pub fn resolve(&self, values: &HashMap<&str, String>) -> Option<String> {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Variable(name) => values.get(name.as_str()).map(String::as_str),
            })
            .collect()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Variable(name) => write!(f, "{{{{ {name} }}}}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolve(text: &str) -> Option<String> {
        let values = HashMap::from([("a", "1".to_owned()), ("b_c", "{{ a }}".to_owned())]);
        Template::parse(text).unwrap().resolve(&values)
    }

    #[test]
    fn variables_are_replaced_once() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("{{a}}", "1"),
            ("x {{ a }} y {{a}}{{ b_c }}", "x 1 y 1{{ a }}"),
            ("}} { {{a}} }", "}} { 1 }"),
        ] {
            assert_eq!(resolve(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(resolve("{{ other }}"), None);
    }

    #[test]
    fn unclosed_braces_are_rejected() {
        for text in ["{{", "{{ a }", "{{ a }} {{ b"] {
            assert!(Template::parse(text).unwrap_err().contains("without `}}`"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_rejected(text in ".*") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
            }
        }

        #[test]
        fn text_without_braces_resolves_to_itself(text in "[^{]*") {
            prop_assert_eq!(resolve(&text), Some(text));
        }
    }
}
