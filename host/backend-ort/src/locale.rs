//! The locale of `StringNormalizer`, which maps upper to lower case.
//!
//! ONNX Runtime refuses a graph whose locale the system does not have. Few containers have the
//! default, en_US.UTF-8. `C.UTF-8` maps letters as Unicode does, like every locale of UTF-8 except
//! those of Turkish, Azeri and Lithuanian, so it replaces any other locale that is missing.

#![expect(unsafe_code, reason = "newlocale(3)")]

use std::ffi::CString;
use std::ptr;

use prost::{DecodeError, Message};
use spinfer_onnx::wire::{push, splice};
use spinfer_onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, attribute_type};

/// The attribute with the locale.
const ATTRIBUTE: &str = "locale";
/// The locale of an operator without the attribute.
const DEFAULT: &str = "en_US.UTF-8";
/// The locale that replaces a missing one.
const REPLACEMENT: &str = "C.UTF-8";
/// Languages with their own rules for the lower case of I.
const NOT_REPLACEABLE: [&str; 3] = ["tr", "az", "lt"];

/// Whether the graph has an operator whose locale is missing on this system and can be replaced.
pub(crate) fn has_missing(graph: &GraphProto) -> bool {
    graph.node.iter().any(is_missing)
}

/// The model with [`REPLACEMENT`] in those operators.
pub(crate) fn replace_missing(model: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let locale = AttributeProto {
        name: ATTRIBUTE.into(),
        s: REPLACEMENT.into(),
        r#type: attribute_type::STRING,
        ..AttributeProto::default()
    };
    splice(model, ModelProto::GRAPH, |_, graph| {
        let graph = splice(graph, GraphProto::NODE, |_, node| {
            if !is_missing(&NodeProto::decode_outline(node)?) {
                return Ok(None);
            }
            let mut node = splice(node, NodeProto::ATTRIBUTE, |_, attribute| {
                let is_locale = AttributeProto::decode(attribute)?.name == ATTRIBUTE;
                Ok(is_locale.then(Vec::new))
            })?;
            push(NodeProto::ATTRIBUTE, &locale.encode_to_vec(), &mut node);
            Ok(Some(vec![node]))
        })?;
        Ok(Some(vec![graph]))
    })
}

fn is_missing(node: &NodeProto) -> bool {
    if node.op_type != "StringNormalizer" {
        return false;
    }
    let attribute = node.attribute(ATTRIBUTE);
    let name = attribute.map_or(DEFAULT.into(), |attribute| String::from_utf8_lossy(&attribute.s));
    let replaceable = name.to_ascii_lowercase().replace('-', "").ends_with(".utf8")
        && !NOT_REPLACEABLE.iter().any(|language| name.starts_with(language));
    replaceable && !exists(&name) && exists(REPLACEMENT)
}

fn exists(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: the name is a C string. The new locale is freed at once.
    unsafe {
        let locale = libc::newlocale(libc::LC_ALL_MASK, name.as_ptr(), ptr::null_mut());
        let exists = !locale.is_null();
        if exists {
            libc::freelocale(locale);
        }
        exists
    }
}
