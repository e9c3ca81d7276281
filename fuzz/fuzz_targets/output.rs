#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = clawdbot_core::fuzz_support::output(data);
});
