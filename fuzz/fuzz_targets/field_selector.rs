#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| coracle_fuzz::run("field_selector", input));
