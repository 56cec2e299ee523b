#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| coracle_fuzz::run("fields_v1", input));
