#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spinfer::fuzzing::experiment_counts(data));
