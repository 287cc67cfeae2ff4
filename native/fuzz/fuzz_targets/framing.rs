#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    crossgate_native_fuzz::check_framing(input);
});
