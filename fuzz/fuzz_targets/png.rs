//! The component is no library: its modules are included directly.

#![no_main]

#[path = "../../components/digits-classifier/src/decode.rs"]
mod decode;
#[path = "../../components/digits-classifier/src/fuzzing.rs"]
mod fuzzing;
#[path = "../../components/digits-classifier/src/picture.rs"]
mod picture;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::png(data));
