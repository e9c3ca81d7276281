//! The steps of the test command.

use std::process::Command;

use super::python;
use super::step::{Context, Depth, Outcome, Step};
use crate::command::{cargo, cargo_command, execute, installed};
use crate::skip::Skip;
use crate::{install, layers, models, package, sanitize, targets};

/// The program brings the core's feature `hub` along; the C library would be without it. In a run of their own, candle's
/// tests would compile the core once more.
const FEATURES: &str = "clawdbot-capi/hub,clawdbot-core/candle,clawdbot-core/async";
/// Where tests append what they skip, a line each; see `tests/support` of the core.
const SKIPPED: &str = "CLAWDBOT_SKIPPED";

/// In this order: what fails soonest comes first.
pub(super) const STEPS: &[Step] = &[
    Step { name: "format", from: Depth::Quick, run: format },
    Step { name: "layers", from: Depth::Quick, run: |context| layers::run(context.root()).map(passed) },
    Step { name: "lints", from: Depth::Usual, run: lints },
    Step { name: "tests", from: Depth::Quick, run: tests },
    Step { name: "python", from: Depth::Usual, run: python::module },
    Step { name: "documentation", from: Depth::Usual, run: documentation },
    Step { name: "fuzz", from: Depth::Usual, run: fuzz },
    Step { name: "aarch64", from: Depth::Usual, run: aarch64 },
    Step { name: "dependencies", from: Depth::Full, run: dependencies },
    Step { name: "models", from: Depth::Full, run: |context| models::run(context.root()).map(passed) },
    Step { name: "wheel", from: Depth::Full, run: python::wheel },
    Step { name: "packages", from: Depth::Full, run: |context| package::run(context.root()).map(passed) },
    Step { name: "targets", from: Depth::Full, run: other_targets },
    Step { name: "sanitizers", from: Depth::Full, run: sanitizers },
];

pub(super) fn passed((): ()) -> Outcome {
    Outcome::Passed
}

fn skipped(what: &str, remedy: &str) -> Result<Outcome, String> {
    Ok(Outcome::Skipped(Skip { what: what.to_owned(), remedy: Some(remedy.to_owned()) }))
}

/// Folders whose files a macro declares, so that `cargo fmt` does not see them.
const TABLES: &[&str] = &["spec/families", "spec/mixers", "forward/mixers"];

fn format(context: &Context) -> Result<Outcome, String> {
    let root = context.root();
    cargo(root, &["fmt", "--all", "--check"])?;
    cargo(root, &["fmt", "--all", "--check", "--manifest-path", "fuzz/Cargo.toml"])?;
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args(["--check", "--edition", "2024"]).current_dir(root);
    for folder in TABLES {
        let folder = root.join("clawdbot-core/src").join(folder);
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let files = entries.filter_map(Result::ok).map(|entry| entry.path());
        rustfmt.args(files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")));
    }
    execute(&mut rustfmt).map(passed)
}

fn lints(context: &Context) -> Result<Outcome, String> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    cargo(context.root(), &clippy).map(passed)
}

/// Whether the tests in C and Python use the libraries of the Rust tests. Elsewhere maturin has to link the module.
pub(super) const ONE_BUILD: bool = cfg!(target_os = "linux");

/// Everything that the tests need, in one build with one set of features: the libraries for C and Python too.
pub(super) fn build(context: &Context) -> Result<(), String> {
    let targets = ["--lib", "--bins", "--tests", "--examples"];
    let arguments = [&["build", "--workspace", "--features", FEATURES], &targets[..]].concat();
    // As maturin does: the module finds Python's functions in the process that loads it.
    execute(cargo_command(context.root(), &arguments).env("PYO3_BUILD_EXTENSION_MODULE", "1"))
}

fn tests(context: &Context) -> Result<Outcome, String> {
    let arguments: &[&str] = match context.depth {
        Depth::Quick => &["--lib", "--bins"],
        Depth::Usual => &["--no-fail-fast"],
        Depth::Full => &["--no-fail-fast", "--", "--include-ignored"],
    };
    let mut command = cargo_command(
        context.root(),
        &[&["test", "--workspace", "--features", FEATURES], arguments].concat(),
    );
    command.env(SKIPPED, context.skipped());
    if context.depth > Depth::Quick {
        install::programs();
    }
    if context.depth == Depth::Full {
        // Minutes instead of seconds under load.
        command.envs([("CLAWDBOT_SOAK", "10000"), ("CLAWDBOT_OVERLOAD", "60")]);
    }
    if context.depth == Depth::Usual && ONE_BUILD {
        build(context)?;
        // The C programs use the libraries of this build; with --full they build them as they are given to others.
        command.env("CLAWDBOT_LIB_DIR", context.target.join("debug"));
    }
    execute(&mut command).map(passed)
}

/// A few seconds of what `fuzz/README.md` does for long.
fn fuzz(context: &Context) -> Result<Outcome, String> {
    let manifest = context.root().join("fuzz").join("Cargo.toml").display().to_string();
    let directory = context.target.display().to_string();
    let run = ["run", "--quiet", "--locked", "--manifest-path", &manifest, "--target-dir", &directory];
    let options = match context.depth {
        Depth::Full => ["--runs", "1000000", "--seconds", "300"],
        _ => ["--runs", "50000", "--seconds", "20"],
    };
    cargo(context.root(), &[&run[..], &["--bin", "run", "--"], &options].concat()).map(passed)
}

fn documentation(context: &Context) -> Result<Outcome, String> {
    let mut command = cargo_command(context.root(), &["doc", "--workspace", "--no-deps", "--all-features"]);
    execute(command.env("RUSTDOCFLAGS", "-D warnings")).map(passed)
}

/// Licences, sources and bans of the dependencies. The program that checks them is built where it is missing: minutes.
fn dependencies(context: &Context) -> Result<Outcome, String> {
    if !installed("cargo-deny") {
        cargo(context.root(), &["install", "cargo-deny", "--locked"])?;
    }
    cargo(context.root(), &["deny", "check", "bans", "licenses", "sources"]).map(passed)
}

/// Kernels and pinned bits on emulated CPUs.
fn aarch64(context: &Context) -> Result<Outcome, String> {
    if cfg!(target_arch = "aarch64") {
        let what = "this machine is AArch64 itself".to_owned();
        return Ok(Outcome::Skipped(Skip { what, remedy: None }));
    }
    if !install::emulator(context.root()) {
        return skipped("qemu-aarch64 or its linker is not installed", "tools/aarch64/setup.sh");
    }
    let mut script = Command::new(context.root().join("tools/aarch64/test.sh"));
    if context.depth < Depth::Full {
        // Equal bits of whole models on the two tiers that are quick to emulate.
        script.args(["-q", "-p", "clawdbot-core", "--test", "pinned_bits"]);
        script.env("CPUS", "neoverse-n1 cortex-a72");
    }
    execute(&mut script).map(passed)
}

/// Whether the libraries compile for other systems.
pub(super) fn other_targets(context: &Context) -> Result<Outcome, String> {
    if !installed("rustup") {
        return skipped("the standard libraries of other systems", "install rustup");
    }
    targets::run(context.root()).map(passed)
}

fn sanitizers(context: &Context) -> Result<Outcome, String> {
    sanitize::run(context.root(), &[]).map(|skipped| match skipped {
        Some(skip) => Outcome::Skipped(skip),
        None => Outcome::Passed,
    })
}
