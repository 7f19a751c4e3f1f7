//! The component is no library: its modules are taken as they are.

#![no_main]

#[path = "../../components/digits-classifier/src/fuzzing.rs"]
mod fuzzing;
#[path = "../../components/digits-classifier/src/picture.rs"]
mod picture;
#[path = "../../components/digits-classifier/src/png.rs"]
mod png;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::png(data));
