#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| {
    crossgate_native_fuzz::check_request(message);
});
