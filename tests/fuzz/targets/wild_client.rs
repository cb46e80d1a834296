#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fe_php_fuzz::server::properties::wild_client(data));
