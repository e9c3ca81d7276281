//! `cargo xtask sanitize`: unit tests and the C programs under AddressSanitizer and ThreadSanitizer.
//!
//! Both are unstable: with a nightly toolchain that has the standard library's source, the standard library is compiled
//! with them too. Where there is none, AddressSanitizer runs on the stable toolchain (`RUSTC_BOOTSTRAP`), without the
//! standard library; ThreadSanitizer, which would report what it does not see there, is skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{cargo_command, execute, host, output, target};
use crate::skip::Skip;

pub(crate) const USAGE: &str = "  sanitize [address | thread]
                     unit tests of the kernels and of the core, and the C programs, under these sanitizers";

struct Sanitizer {
    /// As rustc and C compilers call it.
    name: &'static str,
    /// The variable that its runtime reads.
    variable: &'static str,
    options: &'static str,
    /// Further options for unit tests.
    unit_tests: &'static str,
    /// Whether the standard library must be compiled with it.
    needs_std: bool,
    /// The archive of Rust's runtime that C programs are linked with, in the toolchain's libraries. None: that of the C
    /// compiler.
    runtime: Option<&'static str>,
}

const SANITIZERS: &[Sanitizer] = &[
    // The tests of limits of memory ask for more than there is.
    Sanitizer {
        name: "address",
        variable: "ASAN_OPTIONS",
        options: "allocator_may_return_null=1:detect_stack_use_after_return=1",
        // They leak the files that they give as static; leaks are looked for in the C programs.
        unit_tests: ":detect_leaks=0",
        needs_std: false,
        runtime: None,
    },
    Sanitizer {
        name: "thread",
        variable: "TSAN_OPTIONS",
        options: "allocator_may_return_null=1:halt_on_error=1",
        unit_tests: "",
        needs_std: true,
        // GCC 12's lacks functions that the nightly compiler calls.
        runtime: Some("librustc-nightly_rt.tsan.a"),
    },
];

/// What compiles with sanitizers.
enum Toolchain {
    /// Nightly, with the source of the standard library.
    Nightly,
    /// The one that runs this task.
    Stable,
}

impl Toolchain {
    /// Nightly where it is or can be installed.
    fn find(root: &Path) -> Toolchain {
        let add = ["component", "add", "rust-src", "--toolchain", "nightly"];
        let install = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
        let rustup = |arguments: &[&str]| execute(Command::new("rustup").args(arguments).current_dir(root));
        match rustup(&add).or_else(|_| rustup(&install)) {
            Ok(()) => Toolchain::Nightly,
            Err(message) => {
                println!("no nightly toolchain ({message}): without the standard library");
                Toolchain::Stable
            }
        }
    }

    fn has_std(&self) -> bool {
        matches!(self, Toolchain::Nightly)
    }

    /// `cargo` of this toolchain for `host` with a sanitizer.
    fn cargo(&self, root: &Path, host: &str, sanitizer: &Sanitizer, arguments: &[&str]) -> Command {
        let mut command = match self {
            Toolchain::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]).args(arguments).arg("-Zbuild-std");
                command.current_dir(root);
                command
            }
            Toolchain::Stable => {
                let mut command = cargo_command(root, arguments);
                command.env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        // The target is named, so that build scripts are compiled without.
        command.args(["--target", host]).env(sanitizer.variable, sanitizer.options);
        command.env("RUSTFLAGS", format!("-Zsanitizer={}", sanitizer.name));
        command.env("CARGO_TARGET_DIR", directory(root, sanitizer));
        // Frames are several times as large.
        command.env("RUST_MIN_STACK", (32 << 20).to_string());
        command
    }
}

/// Other flags, so other builds of everything.
fn directory(root: &Path, sanitizer: &Sanitizer) -> PathBuf {
    target(root).join(format!("sanitize-{}", sanitizer.name))
}

/// Runs the sanitizers named, or all. `Some` if one was skipped.
pub(crate) fn run(root: &Path, names: &[&str]) -> Result<Option<Skip>, String> {
    if let Some(name) = names.iter().find(|name| !SANITIZERS.iter().any(|known| known.name == **name)) {
        return Err(format!("{name:?} is no sanitizer\n{USAGE}"));
    }
    let toolchain = Toolchain::find(root);
    let host = host(root)?;
    let mut skipped = None;
    for sanitizer in SANITIZERS.iter().filter(|known| names.is_empty() || names.contains(&known.name)) {
        if sanitizer.needs_std && !toolchain.has_std() {
            skipped = Some(Skip {
                what: format!("the {} sanitizer: the nightly toolchain is not installed", sanitizer.name),
                remedy: Some("rustup toolchain install nightly --component rust-src".to_owned()),
            });
            continue;
        }
        println!("-- {} sanitizer", sanitizer.name);
        let tests = ["test", "--package", "clawdbot-kernels", "--package", "clawdbot-core", "--lib"];
        let mut tests = toolchain.cargo(root, &host, sanitizer, &tests);
        tests.env(sanitizer.variable, format!("{}{}", sanitizer.options, sanitizer.unit_tests));
        execute(tests.env("CLAWDBOT_SANITIZER", sanitizer.name))?;
        c_programs(root, &toolchain, &host, sanitizer)?;
    }
    Ok(skipped)
}

/// The C programs, compiled with the sanitizer and linked with a library that is.
fn c_programs(root: &Path, toolchain: &Toolchain, host: &str, sanitizer: &Sanitizer) -> Result<(), String> {
    let build = ["build", "--package", "clawdbot-capi", "--features", "hub"];
    execute(&mut toolchain.cargo(root, host, sanitizer, &build))?;
    let libraries = directory(root, sanitizer).join(host).join("debug");
    let mut tests =
        cargo_command(root, &["test", "--package", "clawdbot-capi", "--features", "hub", "--test", "c"]);
    tests.env("CLAWDBOT_LIB_DIR", libraries).env("CLAWDBOT_SANITIZER", sanitizer.name);
    tests.env(sanitizer.variable, sanitizer.options);
    if let Some(runtime) = sanitizer.runtime {
        let libraries = output(Command::new("rustup").args([
            "run",
            "nightly",
            "rustc",
            "--print",
            "target-libdir",
            "--target",
            host,
        ]))?;
        tests.env("CLAWDBOT_SANITIZER_RUNTIME", Path::new(libraries.trim()).join(runtime));
    }
    execute(&mut tests)
}
