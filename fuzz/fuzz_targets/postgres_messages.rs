#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spinfer::fuzzing::postgres_messages(data));
