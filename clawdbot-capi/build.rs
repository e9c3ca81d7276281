//! Gives the shared library its versioned name.

include!("src/abi.rs");

fn main() {
    println!("cargo:rerun-if-changed=src/abi.rs");
    let argument = match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos" | "ios") => format!("-Wl,-install_name,@rpath/libclawdbot.{CLAWDBOT_ABI_VERSION}.dylib"),
        Ok("windows") | Err(_) => return,
        Ok(_) => format!("-Wl,-soname,libclawdbot.so.{CLAWDBOT_ABI_VERSION}"),
    };
    println!("cargo:rustc-cdylib-link-arg={argument}");
}
