//! The names a manifest may give, by Spin's rules.

use std::fmt::Display;

/// Checks a component's id: words of one case with a hyphen between them, `iris-classifier-1`.
pub fn check_component_id(id: &str) -> Result<(), String> {
    check_words(id, '-').map_err(|problem| {
        format!(
            "\"{id}\" {problem}; an id has words of letters and digits with a hyphen between them, \
             the first beginning with a letter: \"iris-classifier-1\""
        )
    })
}

/// Checks a model's name: words as of a component's id, with a hyphen or an underscore between them,
/// `my_model`.
pub fn check_model_name(name: &str) -> Result<(), String> {
    check_words(&name.replace('_', "-"), '-').map_err(|problem| {
        format!(
            "\"{name}\" {problem}; a model's name has words of letters and digits with a hyphen or an \
             underscore between them, the first beginning with a letter: \"my_model\""
        )
    })
}

/// The id of the component that serves a version of a model, which has no underscores.
#[must_use]
pub fn component_id(model: &str, version: impl Display) -> String {
    format!("{model}-{version}").replace(['_', '.'], "-")
}

/// Checks a variable's name: words in lower case with an underscore between them, `api_token`.
pub fn check_variable(name: &str) -> Result<(), String> {
    let checked = check_words(name, '_').and_then(|()| {
        match name.chars().find(|c| c.is_ascii_uppercase() || *c == ':') {
            Some(c) => Err(format!("holds {c:?}")),
            None => Ok(()),
        }
    });
    checked.map_err(|problem| {
        format!(
            "\"{name}\" {problem}; a variable's name has words of lower-case letters and digits with \
             an underscore between them, the first beginning with a letter: \"api_token\""
        )
    })
}

/// Checks the label of a store or a database: words with hyphens or with underscores.
pub fn check_label(label: &str) -> Result<(), String> {
    check_words(label, '-').or_else(|problem| {
        check_words(label, '_').map_err(|_| {
            format!(
                "\"{label}\" {problem}; a label has words of letters and digits with a hyphen or an \
                 underscore between them: \"default\""
            )
        })
    })
}

/// Words of one case, in ASCII letters and digits (`:` within), with `delimiter` between them; the
/// first begins with a letter.
fn check_words(text: &str, delimiter: char) -> Result<(), String> {
    for (index, word) in text.split(delimiter).enumerate() {
        let Some(first) = word.chars().next() else {
            return Err("has an empty word".into());
        };
        if !(first.is_ascii_alphabetic() || index > 0 && first.is_ascii_digit()) {
            return Err(format!("has a word that begins with {first:?}"));
        }
        if let Some(c) = word.chars().find(|c| !c.is_ascii_alphanumeric() && *c != ':') {
            return Err(format!("holds {c:?}"));
        }
        if word.contains(|c: char| c.is_ascii_uppercase())
            && word.contains(|c: char| c.is_ascii_lowercase())
        {
            return Err(format!("has letters of both cases in `{word}`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_spin_takes_them() {
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
    fn a_models_name_may_have_underscores_and_its_components_id_has_none() {
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
    fn what_is_wrong_with_a_name_is_said() {
        for (checked, part) in [
            (check_component_id(""), "has an empty word"),
            (check_component_id("a--b"), "has an empty word"),
            (check_component_id("1a"), "begins with '1'"),
            (check_component_id("a_b"), "holds '_'"),
            (check_component_id("a/b"), "holds '/'"),
            (check_component_id("aB"), "both cases in `aB`"),
            (check_variable("aX"), "both cases in `aX`"),
            (check_variable("AX"), "holds 'A'"),
            (check_variable("1bc"), "begins with '1'"),
            (check_variable("_x"), "has an empty word"),
            (check_variable("x_"), "has an empty word"),
            (check_variable("a__b"), "has an empty word"),
            (check_variable("x.y"), "holds '.'"),
            (check_variable("x-y"), "holds '-'"),
            (check_label("a-b_c"), "holds '_'"),
            (check_label("a b"), "holds ' '"),
        ] {
            let error = checked.unwrap_err();
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
