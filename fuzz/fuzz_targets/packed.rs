#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| model_sdk::fuzzing::packed(data));
