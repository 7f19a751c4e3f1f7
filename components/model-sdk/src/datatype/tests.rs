use super::*;
use crate::json::{INFINITY, NEGATIVE_INFINITY};

fn pushed(datatype: Datatype, number: &str) -> Result<Vec<u8>, &'static str> {
    let mut data = Vec::new();
    datatype.push(number, &mut data).map(|()| data)
}

#[test]
fn numbers_become_elements_or_are_refused() {
    for (datatype, number, element) in [
        (Datatype::F16, "1", &[0, 0x3c][..]),
        (Datatype::Bf16, "1e0", &[0x80, 0x3f]),
        (Datatype::F32, "1.0", &[0, 0, 0x80, 0x3f]),
        (Datatype::F32, "-0", &[0, 0, 0, 0x80]),
        (Datatype::F64, "-1", &(-1.0_f64).to_le_bytes()),
        (Datatype::U8, "255", &[255]),
        (Datatype::U8, "5.0", &[5]),
        (Datatype::I64, "-1e1", &(-10_i64).to_le_bytes()),
        (Datatype::I32, "-1", &[255; 4]),
        (Datatype::I64, "-9223372036854775808", &i64::MIN.to_le_bytes()),
        (Datatype::I64, "9007199254740993", &9_007_199_254_740_993_i64.to_le_bytes()),
        (Datatype::I8, "-128", &[0x80]),
        (Datatype::I16, "-2", &[0xfe, 0xff]),
        (Datatype::U16, "65535", &[0xff, 0xff]),
        (Datatype::U32, "4294967295", &[255; 4]),
        (Datatype::U64, "18446744073709551615", &[255; 8]),
        (Datatype::U64, "18446744073709551615.0", &[255; 8]),
        (Datatype::U64, "-0.0", &[0; 8]),
        (Datatype::I64, "1e18", &1_000_000_000_000_000_000_i64.to_le_bytes()),
        (Datatype::I64, "9007199254740993.0", &9_007_199_254_740_993_i64.to_le_bytes()),
        (Datatype::I64, "-922337203685477580800e-2", &i64::MIN.to_le_bytes()),
        (Datatype::U8, "2.550e+002", &[255]),
        (Datatype::U8, "0.0e9", &[0]),
        (Datatype::Bool, "true", &[1]),
        (Datatype::Bool, "0", &[0]),
        (Datatype::Bytes, r#""a\n\u00e9""#, &[4, 0, 0, 0, b'a', b'\n', 0xc3, 0xa9]),
    ] {
        assert_eq!(
            pushed(datatype, number).as_deref(),
            Ok(element),
            "{number} as {}",
            datatype.name()
        );
    }
    for (datatype, number) in [
        (Datatype::F16, "70000"),
        (Datatype::Bf16, "1e39"),
        (Datatype::F32, "1e39"),
        (Datatype::F32, "-1e300"),
        (Datatype::F64, "1e309"),
        (Datatype::U8, "256"),
        (Datatype::U8, "-1"),
        (Datatype::U8, "1.5"),
        (Datatype::U8, "256.0"),
        // FP64 rounds both to integers.
        (Datatype::I64, "9007199254740993.5"),
        (Datatype::I64, "1e-400"),
        (Datatype::I64, "1e400"),
        (Datatype::I64, "1e99999999999"),
        (Datatype::I32, "2147483648"),
        (Datatype::I64, "9223372036854775808"),
        (Datatype::I64, "0.5"),
        (Datatype::I8, "128"),
        (Datatype::I16, "40000"),
        (Datatype::U16, "-1"),
        (Datatype::U32, "4294967296"),
        (Datatype::U64, "-1"),
        (Datatype::U64, "18446744073709551616"),
        (Datatype::Bool, "t"),
        (Datatype::Bool, "2"),
        (Datatype::Bytes, r#""\ud800""#),
        (Datatype::Bytes, "5"),
    ] {
        assert!(pushed(datatype, number).is_err(), "{number} as {}", datatype.name());
    }
}

#[test]
fn plain_notation_of_numbers() {
    for (plainly, notations) in [
        ("0", &["0", "0.0", "0e5"][..]),
        ("-0", &["-0", "-0.0"]),
        ("100", &["100", "1e2", "100.0", "0.1E+3"]),
        ("1.5", &["1.5", "15e-1", "1.50"]),
        ("-0.025", &["-0.025", "-25e-3", "-2.5e-2"]),
    ] {
        for notation in notations {
            assert_eq!(parse::plain(notation).as_deref(), Some(plainly), "{notation}");
        }
    }
    for text in ["", "-", ".", "e5", "1e", "x", "1x", "1.2.3", "1e50", "1e-50", "--1", "1e2e3"] {
        assert_eq!(parse::plain(text), None, "{text}");
    }
}

#[test]
fn only_floats_may_be_missing_or_infinite() {
    for datatype in Datatype::ALL {
        for (json, number) in
            [("null", f32::NAN), (INFINITY, f32::INFINITY), (NEGATIVE_INFINITY, -f32::INFINITY)]
        {
            assert_eq!(pushed(datatype, json), pushed(datatype, &json.replace("1e+", "1.0e")));
            match (pushed(datatype, json), datatype.is_float()) {
                (Ok(data), true) => {
                    let element = match datatype.element(&data) {
                        Element::F32(element) => element,
                        #[expect(clippy::cast_possible_truncation, reason = "not finite")]
                        Element::F64(element) => element as f32,
                        Element::I64(_) | Element::U64(_) => unreachable!("it is a float"),
                    };
                    assert_eq!(element.is_nan(), number.is_nan());
                    assert!(element.is_nan() || element == number);
                }
                (Err(reason), false) => {
                    assert_eq!(json == "null", reason.contains("missing"), "{reason}");
                }
                (pushed, _) => panic!("{json} as {}: {pushed:?}", datatype.name()),
            }
        }
    }
}

#[test]
fn datatypes_are_those_of_model_toml() {
    assert_eq!(Datatype::ALL.map(Datatype::name), spinfer_model_toml::DATATYPES);
}
