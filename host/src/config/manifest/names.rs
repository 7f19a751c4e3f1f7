//! Spin's rules for the names in a manifest.

use std::fmt::Display;

/// Checks a component's id: words of one case, separated by hyphens, `iris-classifier-1`.
pub fn check_component_id(id: &str) -> Result<(), String> {
    check_words(id, '-').map_err(|problem| {
        format!(
            "\"{id}\" {problem}; an id consists of words of letters and digits, separated by \
             hyphens, and starts with a letter: \"iris-classifier-1\""
        )
    })
}

/// Checks a model's name: words as in a component's id, separated by hyphens or underscores,
/// `my_model`.
pub fn check_model_name(name: &str) -> Result<(), String> {
    check_words(&name.replace('_', "-"), '-').map_err(|problem| {
        format!(
            "\"{name}\" {problem}; a model's name consists of words of letters and digits, separated \
             by hyphens or underscores, and starts with a letter: \"my_model\""
        )
    })
}

/// The id of the component that serves a version of a model: without underscores and dots.
#[must_use]
pub fn component_id(model: &str, version: impl Display) -> String {
    format!("{model}-{version}").replace(['_', '.'], "-")
}

/// Checks a variable's name: words in lower case, separated by underscores, `api_token`.
pub fn check_variable(name: &str) -> Result<(), String> {
    let checked = check_words(name, '_').and_then(|()| {
        match name.chars().find(|c| c.is_ascii_uppercase() || *c == ':') {
            Some(c) => Err(format!("contains {c:?}")),
            None => Ok(()),
        }
    });
    checked.map_err(|problem| {
        format!(
            "\"{name}\" {problem}; a variable's name consists of words of lower-case letters and \
             digits, separated by underscores, and starts with a letter: \"api_token\""
        )
    })
}

/// Checks the label of a store or a database: words separated either by hyphens or by underscores.
pub fn check_label(label: &str) -> Result<(), String> {
    check_words(label, '-').or_else(|problem| {
        check_words(label, '_').map_err(|_| {
            format!(
                "\"{label}\" {problem}; a label consists of words of letters and digits, separated \
                 by hyphens or by underscores: \"default\""
            )
        })
    })
}

/// Checks for words of one case, of ASCII letters, digits and inner `:`, separated by `delimiter`;
/// the first word starts with a letter.
fn check_words(text: &str, delimiter: char) -> Result<(), String> {
    for (index, word) in text.split(delimiter).enumerate() {
        let Some(first) = word.chars().next() else {
            return Err("has an empty word".into());
        };
        if !(first.is_ascii_alphabetic() || index > 0 && first.is_ascii_digit()) {
            return Err(format!("has a word that starts with {first:?}"));
        }
        if let Some(c) = word.chars().find(|c| !c.is_ascii_alphanumeric() && *c != ':') {
            return Err(format!("contains {c:?}"));
        }
        if word.contains(|c: char| c.is_ascii_uppercase())
            && word.contains(|c: char| c.is_ascii_lowercase())
        {
            return Err(format!("mixes upper and lower case in `{word}`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_valid_in_spin_are_accepted() {
        for id in ["a", "iris-classifier-1", "AB-c", "a1-2b", "a:b"] {
            assert_eq!(check_component_id(id), Ok(()), "{id}");
        }
        for name in ["a", "abc", "a1b2c3", "a_1", "a_1_b_3"] {
            assert_eq!(check_variable(name), Ok(()), "{name}");
        }
        for label in ["default", "my-store", "my_store", "s3"] {
            assert_eq!(check_label(label), Ok(()), "{label}");
        }
    }

    #[test]
    fn underscores_of_a_model_name_become_hyphens_in_the_component_id() {
        for name in ["my_model", "a-b_c", "resnet_50_v1"] {
            assert_eq!(check_model_name(name), Ok(()), "{name}");
            assert_eq!(check_component_id(&component_id(name, 1)), Ok(()), "{name}");
        }
        assert_eq!(component_id("my_model", "1.0_2"), "my-model-1-0-2");
        for name in ["", "a__b", "_a", "1_a", "a b", "a_B_cD"] {
            assert!(check_model_name(name).unwrap_err().contains("my_model"), "{name}");
        }
    }

    #[test]
    fn error_describes_the_problem_of_a_name() {
        for (checked, part) in [
            (check_component_id(""), "has an empty word"),
            (check_component_id("a--b"), "has an empty word"),
            (check_component_id("1a"), "starts with '1'"),
            (check_component_id("a_b"), "contains '_'"),
            (check_component_id("a/b"), "contains '/'"),
            (check_component_id("aB"), "mixes upper and lower case in `aB`"),
            (check_variable("aX"), "mixes upper and lower case in `aX`"),
            (check_variable("AX"), "contains 'A'"),
            (check_variable("1bc"), "starts with '1'"),
            (check_variable("_x"), "has an empty word"),
            (check_variable("x_"), "has an empty word"),
            (check_variable("a__b"), "has an empty word"),
            (check_variable("x.y"), "contains '.'"),
            (check_variable("x-y"), "contains '-'"),
            (check_label("a-b_c"), "contains '_'"),
            (check_label("a b"), "contains ' '"),
        ] {
            let error = checked.unwrap_err();
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
