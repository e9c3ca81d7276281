//! Gives the shared library the name that programs look for: that of the file, so that it loads as it was built and from
//! wherever it is copied to. `CLAWDBOT_SONAME` gives another, for packages that install files with versions in their names.

fn main() {
    println!("cargo:rerun-if-env-changed=CLAWDBOT_SONAME");
    let name = std::env::var("CLAWDBOT_SONAME").ok();
    let argument = match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos" | "ios") => {
            format!("-Wl,-install_name,@rpath/{}", name.as_deref().unwrap_or("libclawdbot.dylib"))
        }
        Ok("windows") | Err(_) => return,
        Ok(_) => {
            // The core's dependency for constraints has C functions of its own, which are not this library's.
            println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
            format!("-Wl,-soname,{}", name.as_deref().unwrap_or("libclawdbot.so"))
        }
    };
    println!("cargo:rustc-cdylib-link-arg={argument}");
}
