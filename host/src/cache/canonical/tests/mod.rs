use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

mod parser;

fn json(body: &str) -> Option<String> {
    Some(String::from_utf8(form(body.as_bytes(), BodyKey::Json)?).unwrap())
}

fn tensors(body: &str) -> Option<String> {
    Some(String::from_utf8(form(body.as_bytes(), BodyKey::Tensors)?).unwrap())
}

#[test]
fn equal_json_has_one_canonical_form() {
    for (form, spellings) in [
        ("51e-1", &["5.1", "5.10", "51e-1", "0.51E+1", "0.051e002", " 5.1\n"][..]),
        ("5", &["5.0", "50e-1", "0.5e1", "5e0", "5E-0"]),
        ("1e2", &["100", "1e2", "100.0", "1.00e+2"]),
        ("0", &["0", "0.0", "0e9", "0.000e-3"]),
        ("-0", &["-0", "-0.0"]),
        ("-12e-3", &["-0.012", "-12e-3"]),
        ("9007199254740993", &["9007199254740993", "9007199254740993.0"]),
        (
            r#""a/é\u0000\"\\""#,
            &[r#""\u0061\/\u00e9\u0000\"\\""#, r#""a/\u00E9\u0000\u0022\u005c""#],
        ),
        ("\"\u{1f338}\"", &[r#""\ud83c\udf38""#, "\"\u{1f338}\""]),
        (r#""\u000a\u0009""#, &[r#""\n\t""#, r#""\u000A\u0009""#]),
        ("[]", &["[]", " [ ] "]),
        ("[null,true,false]", &["[ null,true ,\r\n\tfalse]"]),
        ("{}", &["{}", "{ }"]),
        (
            r#"{"a":{"c":2,"d":[1]},"b":1}"#,
            &[
                r#"{"b":1,"a":{"d":[1],"c":2}}"#,
                r#"{ "\u0061" : {"c" : 2.0, "d": [1e0]}, "b": 1 }"#,
            ],
        ),
    ] {
        for spelling in spellings.iter().chain([&form]) {
            assert_eq!(json(spelling).as_deref(), Some(form), "{spelling}");
        }
    }
}

#[test]
fn invalid_or_oversized_json_has_no_canonical_form() {
    for body in [
        "",
        " ",
        "{",
        "[1",
        "[1,]",
        "[,1]",
        "{,}",
        "{\"a\":1,}",
        "{\"a\"}",
        "{\"a\" 1}",
        "{a:1}",
        "{1:2}",
        "[1 2]",
        "1 2",
        "{} {}",
        "tru",
        "nul",
        "nulls",
        "True",
        "NaN",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "--1",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u+123\"",
        "\"\n\"",
        "'a'",
        r#""\ud800""#,
        r#""\ud800\u0041""#,
        r#""\udc00\ud800""#,
        "\u{feff}{}",
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"b":{"c":1,"\u0063":2}}"#,
        "1e9999999999",
    ] {
        assert_eq!(json(body), None, "{body}");
    }
    assert_eq!(form(b"\"\xff\"", BodyKey::Json), None);
    let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(json(&nested(MAX_DEPTH)), Some(nested(MAX_DEPTH)));
    assert_eq!(json(&nested(MAX_DEPTH + 1)), None);
    let long = |length| format!("\"{}\"", "a".repeat(length - 2));
    assert_eq!(json(&long(MAX_BYTES)), Some(long(MAX_BYTES)));
    assert_eq!(json(&long(MAX_BYTES + 1)), None);
}

#[test]
fn data_nested_by_its_shape_is_flattened() {
    for (form, spellings) in [
        (
            r#"{"data":[1,2,3,4],"shape":[2,2]}"#,
            &[
                r#"{"shape": [2, 2], "data": [[1, 2], [3, 4]]}"#,
                r#"{"data": [[1.0, 2], [3, 4]], "shape": [2, 2.0]}"#,
            ][..],
        ),
        (
            r#"{"data":["a]","b\",["],"shape":[2,1]}"#,
            &[r#"{"shape":[2,1],"data":[["a]"],["b\",["]]}"#],
        ),
        (
            r#"{"data":[0,1,2,3,4,5,6,7,8,9],"shape":[1e1,1]}"#,
            &[r#"{"shape":[10,1],"data":[[0],[1],[2],[3],[4],[5],[6],[7],[8],[9]]}"#],
        ),
        (
            r#"{"data":[true,null],"shape":[1,1,2]}"#,
            &[r#"{"shape":[1,1,2],"data":[[[true,null]]]}"#],
        ),
        (r#"[{"data":[1],"shape":[1]}]"#, &[r#"[{"shape":[1],"data":[1]}]"#]),
    ] {
        for spelling in spellings.iter().chain([&form]) {
            assert_eq!(tensors(spelling).as_deref(), Some(form), "{spelling}");
        }
    }
    // Any other nesting is left unchanged.
    for body in [
        r#"{"data":[[1,2],[3]],"shape":[2,2]}"#,
        r#"{"data":[[1,2],3],"shape":[2,2]}"#,
        r#"{"data":[1,[2]],"shape":[1,2]}"#,
        r#"{"data":[[[1]]],"shape":[1,1]}"#,
        r#"{"data":[[1,2]],"shape":[2]}"#,
        r#"{"data":[[1,2]],"shape":[2,1]}"#,
        r#"{"data":[],"shape":[0]}"#,
        r#"{"data":[[],[]],"shape":[2,0]}"#,
        r#"{"data":[[{}]],"shape":[1,1]}"#,
        r#"{"data":5,"shape":[1]}"#,
        r#"{"data":[[1]],"shape":[-1,1]}"#,
        r#"{"data":[[1]],"shape":[15e-1,1]}"#,
        r#"{"data":[[1]],"shape":[]}"#,
        r#"{"data":[[1]],"shape":["1",1]}"#,
        r#"{"data":[[1]],"shape":1}"#,
        r#"{"data":[[1]],"shape":[4294967296,1]}"#,
        r#"{"data":[[1]],"shape":[1e99,1]}"#,
        r#"{"data":[[1]],"shapes":[1,1]}"#,
        r#"{"datas":[[1]],"shape":[1,1]}"#,
    ] {
        assert_eq!(tensors(body).as_deref(), Some(body));
    }
    let nested = r#"{"data":[[1,2]],"shape":[1,2]}"#;
    assert_eq!(json(nested).as_deref(), Some(nested), "only tensors are flattened");
}

/// A JSON value without its notation.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Word(&'static str),
    /// A decimal without trailing zeros (except 0), and its exponent.
    Number(i64, i32),
    String(String),
    Array(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

fn number(mut digits: i64, mut exponent: i32) -> Value {
    while digits != 0 && digits % 10 == 0 {
        digits /= 10;
        exponent += 1;
    }
    Value::Number(digits, if digits == 0 { 0 } else { exponent })
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        prop::sample::select(&["true", "false", "null"][..]).prop_map(Value::Word),
        (any::<i64>(), -40..40_i32).prop_map(|(digits, exponent)| number(digits, exponent)),
        (-100..100_i64, -2..2_i32).prop_map(|(digits, exponent)| number(digits, exponent)),
        any::<String>().prop_map(Value::String),
        r#"[ab"\\/\n]{0,3}"#.prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::btree_map("[a-c\"]{0,2}", inner, 0..5).prop_map(Value::Object),
        ]
    })
}

/// Writes a value in a notation drawn from `choices`.
struct Pen {
    choices: Vec<u8>,
    next: usize,
    text: String,
}

impl Pen {
    fn write(value: &Value, choices: &[u8]) -> String {
        let mut pen = Self { choices: choices.to_vec(), next: 0, text: String::new() };
        pen.value(value);
        pen.space();
        pen.text
    }

    fn choose(&mut self, of: usize) -> usize {
        self.next += 1;
        usize::from(self.choices[self.next % self.choices.len()]) % of
    }

    fn space(&mut self) {
        let space = ["", "", " ", "\n", "\t\r "][self.choose(5)];
        self.text += space;
    }

    fn value(&mut self, value: &Value) {
        self.space();
        match value {
            Value::Word(word) => self.text += word,
            Value::Number(digits, exponent) => self.number(*digits, i64::from(*exponent)),
            Value::String(string) => self.string(string),
            Value::Array(items) => self.list('[', ']', items, |pen, item| pen.value(item)),
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                if !members.is_empty() {
                    let first = self.choose(members.len());
                    members.rotate_left(first);
                }
                self.list('{', '}', &members, |pen, (name, value)| {
                    pen.space();
                    pen.string(name);
                    pen.space();
                    pen.text.push(':');
                    pen.value(value);
                });
            }
        }
    }

    fn list<T>(&mut self, open: char, close: char, items: &[T], write: impl Fn(&mut Self, &T)) {
        self.text.push(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            write(self, item);
            self.space();
        }
        self.space();
        self.text.push(close);
    }

    /// Writes the number with a decimal point at any position, trailing zeros, and the exponent that
    /// makes up for both.
    fn number(&mut self, digits: i64, exponent: i64) {
        if digits < 0 {
            self.text.push('-');
        }
        // JSON forbids leading zeros.
        let zeros = if digits == 0 { 0 } else { self.choose(3) };
        let digits = digits.unsigned_abs().to_string() + &"0".repeat(zeros);
        let point = self.choose(digits.len() + 1);
        let (integer, fraction) = digits.split_at(point);
        self.text += if integer.is_empty() { "0" } else { integer };
        // "0" can only be followed by a point.
        if !fraction.is_empty() {
            self.text.push('.');
            self.text += fraction;
        }
        let exponent = exponent - zeros as i64 + fraction.len() as i64;
        if exponent != 0 || self.choose(2) == 0 {
            let letter = ["e", "E"][self.choose(2)];
            let sign = if exponent < 0 { "-" } else { ["", "+"][self.choose(2)] };
            let zero = ["", "0"][self.choose(2)];
            self.text += &[letter, sign, zero, &exponent.abs().to_string()].concat();
        }
    }

    fn string(&mut self, string: &str) {
        self.text.push('"');
        for character in string.chars() {
            let short = match character {
                '"' => Some('"'),
                '\\' => Some('\\'),
                '/' => Some('/'),
                '\n' => Some('n'),
                _ => None,
            };
            let must = character < ' ' || matches!(character, '"' | '\\');
            match (short, self.choose(3)) {
                (Some(short), 0) => self.text.extend(['\\', short]),
                (_, choice) if must || choice == 1 => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        self.text += &format!("\\u{unit:04x}");
                    }
                }
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
    }
}

fn choices() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..64)
}

proptest! {
    #[test]
    fn every_notation_has_one_canonical_form(value in values(), a in choices(), b in choices()) {
        let (a, b) = (Pen::write(&value, &a), Pen::write(&value, &b));
        let form = json(&a);
        prop_assert!(form.is_some(), "{}", a);
        prop_assert_eq!(&form, &json(&b), "{} {}", a, b);
        prop_assert_eq!(&form, &json(form.as_deref().unwrap()), "the form is its own canonical form");
    }

    #[test]
    fn different_values_have_different_forms(value in values(), other in values(), a in choices(), b in choices()) {
        let forms = (json(&Pen::write(&value, &a)), json(&Pen::write(&other, &b)));
        prop_assert_eq!(value == other, forms.0 == forms.1);
    }

    #[test]
    fn flat_and_nested_tensors_have_one_form(
        shape in prop::collection::vec(1..4_u32, 1..4),
        numbers in prop::collection::vec((-1000..1000_i64, -3..3_i32), 27),
        a in choices(),
        b in choices(),
    ) {
        let count = shape.iter().product::<u32>() as usize;
        let flat: Vec<Value> = numbers[..count].iter().map(|&(d, e)| number(d, e)).collect();
        let mut nested = flat.clone();
        for &axis in shape[1..].iter().rev() {
            nested = nested.chunks(axis as usize).map(|row| Value::Array(row.to_vec())).collect();
        }
        let sizes = Value::Array(shape.iter().map(|&axis| number(axis.into(), 0)).collect());
        let tensor = |data| {
            let members = [("data", Value::Array(data)), ("shape", sizes.clone())];
            Value::Object(members.map(|(name, value)| (name.to_owned(), value)).into())
        };
        let forms = [Pen::write(&tensor(flat), &a), Pen::write(&tensor(nested), &b)];
        prop_assert_eq!(tensors(&forms[0]), tensors(&forms[1]));
    }

    /// Only valid JSON has a canonical form.
    #[test]
    fn no_body_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        text in r#"(\{|\}|\[|\]|,|:|"(shape|data)"|"\\u[d0][89c0][0-9a]{2}"|-?[0-9.eE+-]{1,4}|true|null|[ \n]){0,16}"#,
    ) {
        for body in [&bytes[..], text.as_bytes()] {
            let _ = form(body, BodyKey::Tensors);
            let read = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
            prop_assert!(read || form(body, BodyKey::Json).is_none());
        }
    }
}
