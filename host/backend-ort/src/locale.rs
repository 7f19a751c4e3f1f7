//! The locales of `StringNormalizer`, which says which letters are the lower case of which.
//!
//! Its default, en_US.UTF-8, is in few containers, and ONNX Runtime refuses a graph whose locale the
//! system lacks. `C.UTF-8` maps letters by Unicode as all locales of UTF-8 do, but for those of Turkish
//! and its relatives, so it takes the place of any other that is not there.

#![expect(unsafe_code, reason = "whether the system has a locale")]

use std::ffi::CString;
use std::ptr;

use prost::{DecodeError, Message};
use spinfer_onnx::wire::{push, splice};
use spinfer_onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, attribute_type};

const ATTRIBUTE: &str = "locale";
/// What an operator without the attribute has.
const DEFAULT: &str = "en_US.UTF-8";
const EVERYWHERE: &str = "C.UTF-8";
/// Languages in which the lower case of I is not i.
const OTHERS: [&str; 3] = ["tr", "az", "lt"];

/// Whether the graph has an operator whose locale the system lacks, and can do without.
pub(crate) fn has_missing(graph: &GraphProto) -> bool {
    graph.node.iter().any(is_missing)
}

/// The model with another locale in those operators.
pub(crate) fn replace_missing(model: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let locale = AttributeProto {
        name: ATTRIBUTE.into(),
        s: EVERYWHERE.into(),
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
        && !OTHERS.iter().any(|other| name.starts_with(other));
    replaceable && !exists(&name) && exists(EVERYWHERE)
}

fn exists(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: the name is a C string; the locale that is made is freed at once.
    unsafe {
        let locale = libc::newlocale(libc::LC_ALL_MASK, name.as_ptr(), ptr::null_mut());
        let exists = !locale.is_null();
        if exists {
            libc::freelocale(locale);
        }
        exists
    }
}
