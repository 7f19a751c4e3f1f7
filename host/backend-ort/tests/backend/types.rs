//! Inputs and outputs of types that `wasi:nn` does not have.

use spinfer_backend::{Backend, Encoding, Error, Tensor, TensorType, strings};
use spinfer_onnx::data_type::{BOOL, COMPLEX64, FLOAT, FLOAT8E4M3FN, INT4, INT64, STRING, UINT16};
use spinfer_onnx::{
    AttributeProto, MapTypeProto, SequenceTypeProto, TensorTypeProto, TypeProto, attribute_type,
};

use crate::graphs::{graph, ints, ml, model, node, shape, typed, value};
use crate::{backend, f32s, i64s, load};

fn texts(dimensions: &[u32], strings: &[&str]) -> Tensor {
    let element = |text: &&str| {
        let length = u32::try_from(text.len()).unwrap();
        [&length.to_le_bytes(), text.as_bytes()].concat()
    };
    let data = strings.iter().flat_map(element).collect();
    Tensor { dimensions: dimensions.to_vec(), ty: TensorType::String, data }
}

#[test]
fn strings_are_passed_unchanged() {
    let mut upper = node("StringNormalizer", &["x"], &["y"]);
    upper.attribute.push(AttributeProto {
        name: "case_change_action".into(),
        s: b"UPPER".to_vec(),
        r#type: attribute_type::STRING,
        ..AttributeProto::default()
    });
    let identity = model(graph(
        vec![node("Identity", &["x"], &["y"])],
        vec![value("x", STRING, &["n", "m"])],
        vec![value("y", STRING, &["n", "m"])],
        vec![],
    ));
    let input = texts(&[2, 2], &["", "a\0b", "h\u{e9}llo \u{1f980}", &"long ".repeat(1000)]);
    assert_eq!(load(&identity).compute(vec![input.clone()]).unwrap(), [input]);
    let none = texts(&[0, 2], &[]);
    assert_eq!(load(&identity).compute(vec![none.clone()]).unwrap(), [none]);
    let (x, y) = (value("x", STRING, &["n"]), value("y", STRING, &["n"]));
    let upper = model(graph(vec![upper], vec![x], vec![y], vec![]));
    let outputs = load(&upper).compute(vec![texts(&[2], &["ab", "cd"])]).unwrap();
    assert_eq!(outputs, [texts(&[2], &["AB", "CD"])]);
    assert_eq!(strings(&outputs[0].data).flatten().next(), Some(&b"AB"[..]));
}

#[test]
fn booleans_and_integers_are_passed() {
    let not = model(graph(
        vec![node("Not", &["x"], &["y"])],
        vec![value("x", BOOL, &["n"])],
        vec![value("y", BOOL, &["n"])],
        vec![],
    ));
    let bools = |data: &[u8]| Tensor {
        dimensions: vec![u32::try_from(data.len()).unwrap()],
        ty: TensorType::Bool,
        data: data.to_vec(),
    };
    assert_eq!(load(&not).compute(vec![bools(&[1, 0])]).unwrap(), [bools(&[0, 1])]);
    let mut cast = node("Cast", &["x"], &["y"]);
    cast.attribute.push(crate::int("to", UINT16.into()));
    let cast = model(graph(
        vec![cast],
        vec![value("x", INT64, &["n"])],
        vec![value("y", UINT16, &["n"])],
        vec![],
    ));
    let output = &load(&cast).compute(vec![i64s(&[2], &[1, 65535])]).unwrap()[0];
    assert_eq!((output.ty, &output.data[..]), (TensorType::U16, &[1, 0, 255, 255][..]));
}

#[test]
fn int4_and_float8_are_converted() {
    for (code, ty, data) in [
        (INT4, TensorType::I8, vec![0xf8, 0, 7]),
        (FLOAT8E4M3FN, TensorType::Fp32, f32s(&[3], &[-8.0, 0.0, 448.0]).data),
    ] {
        let cast = |from, to: i32| {
            let mut cast = node("Cast", &["x"], &["y"]);
            cast.attribute.push(crate::int("to", to.into()));
            let (x, y) = (value("x", from, &["n"]), value("y", to, &["n"]));
            load(&model(graph(vec![cast], vec![x], vec![y], vec![])))
        };
        let input = Tensor { dimensions: vec![3], ty, data };
        let (widening, narrowing) = (cast(code, FLOAT), cast(FLOAT, code));
        assert_eq!(widening.inputs()[0].ty, ty);
        let floats = widening.compute(vec![input.clone()]).unwrap();
        assert_eq!(narrowing.compute(floats).unwrap(), [input]);
    }
}

#[test]
fn the_output_of_zip_map_is_the_tensor_of_scores() {
    let mut zip = ml("ZipMap", &["scores"], &["probabilities"]);
    zip.attribute.push(ints("classlabels_int64s", &[0, 1]));
    let map = MapTypeProto {
        key_type: INT64,
        value_type: Some(Box::new(TypeProto {
            tensor: Some(TensorTypeProto { elem_type: FLOAT, shape: Some(shape(&[])) }),
            ..TypeProto::default()
        })),
    };
    let maps = sequence(TypeProto { map: Some(Box::new(map)), ..TypeProto::default() });
    let nodes = vec![node("Softmax", &["x"], &["scores"]), zip];
    let x = value("x", FLOAT, &["rows", "2"]);
    let graph = load(&model(graph(nodes, vec![x], vec![typed("probabilities", maps)], vec![])));
    let outputs = graph.compute(vec![f32s(&[1, 2], &[1.0, 1.0])]).unwrap();
    assert_eq!(outputs, [f32s(&[1, 2], &[0.5, 0.5])]);
    assert_eq!(graph.outputs()[0].name, "probabilities");
    assert_eq!(graph.outputs()[0].shape, Some(vec![None, Some(2)]));
}

fn sequence(of: TypeProto) -> TypeProto {
    let sequence = SequenceTypeProto { elem_type: Some(Box::new(of)) };
    TypeProto { sequence: Some(Box::new(sequence)), ..TypeProto::default() }
}

fn tensors() -> TypeProto {
    let tensor = TensorTypeProto { elem_type: FLOAT, shape: None };
    sequence(TypeProto { tensor: Some(tensor), ..TypeProto::default() })
}

#[test]
fn a_list_of_tensors_becomes_one_output_each() {
    let nodes = vec![
        node("Neg", &["x"], &["a"]),
        node("Abs", &["x"], &["b"]),
        node("SequenceConstruct", &["a", "b"], &["all"]),
        node("Identity", &["x"], &["last"]),
    ];
    let (x, last) = (value("x", FLOAT, &["n"]), value("last", FLOAT, &["n"]));
    let outputs = vec![typed("all", tensors()), last];
    let graph = load(&model(graph(nodes, vec![x], outputs, vec![])));
    let names: Vec<&str> = graph.outputs().iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["all_0", "all_1", "last"]);
    let outputs = graph.compute(vec![f32s(&[2], &[1.0, -2.0])]).unwrap();
    let expected = [[-1.0, 2.0], [1.0, 2.0], [1.0, -2.0]].map(|values| f32s(&[2], &values));
    assert_eq!(outputs, expected);
}

#[test]
fn types_that_are_not_tensors_are_refused_with_the_name() {
    let identity = |ty: TypeProto| {
        let nodes = vec![node("Identity", &["x"], &["y"])];
        model(graph(nodes, vec![typed("x", ty.clone())], vec![typed("y", ty)], vec![]))
    };
    let optional = SequenceTypeProto { elem_type: Some(Box::new(tensors())) };
    let complex = TensorTypeProto { elem_type: COMPLEX64, shape: Some(shape(&["n"])) };
    for (ty, part) in [
        (tensors(), "the input `x` is a sequence"),
        (
            TypeProto { optional: Some(Box::new(optional)), ..TypeProto::default() },
            "an optional value",
        ),
        (TypeProto { tensor: Some(complex), ..TypeProto::default() }, "a tensor of COMPLEX64"),
        (TypeProto::default(), "of no type"),
    ] {
        let error = backend().load(&identity(ty), Encoding::Onnx).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let split = vec![node("SplitToSequence", &["x"], &["y"])];
    let x = value("x", FLOAT, &["n"]);
    let split = model(graph(split, vec![x], vec![typed("y", tensors())], vec![]));
    let error = backend().load(&split, Encoding::Onnx).unwrap_err().to_string();
    assert!(error.contains("the output `y` is a sequence"), "{error}");
}
