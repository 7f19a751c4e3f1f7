#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spinfer_backend_ort::fuzzing::signature(data));
