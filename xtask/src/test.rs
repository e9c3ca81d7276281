//! `cargo xtask test`: everything, set-up included, on a machine with Rust and Python and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// One step: its name and what it does. `Ok(Some(reason))` means that it was skipped.
type Step = (&'static str, fn(&Path) -> Result<Option<String>, String>);

/// The program brings the core's feature `hub` along; the C library would be without it. In a run of their own, candle's
/// tests would compile the core once more.
const FEATURES: &str = "clawdbot-capi/hub,clawdbot-core/candle";
/// Where tests append what they skip, a line each; see `tests/support` of the core.
const SKIPPED: &str = "CLAWDBOT_SKIPPED";

/// In this order: what fails soonest comes first.
const STEPS: &[Step] = &[
    ("format", format),
    ("layers", |root| crate::layers::run(root).map(|()| None)),
    ("lints", |root| {
        cargo(root, &["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])
    }),
    ("tests", |root| tests(root, &["--no-fail-fast"])),
    ("fuzz", fuzz),
    ("aarch64", aarch64),
    ("documentation", documentation),
    ("dependencies", dependencies),
    ("python", python),
];

/// For every day: what needs no build of its own, and the tests next to the code.
const QUICK: &[Step] = &[
    ("format", format),
    ("layers", |root| crate::layers::run(root).map(|()| None)),
    ("unit tests", |root| tests(root, &["--lib", "--bins"])),
];

/// Runs the steps named, or all, or the quick ones, and reports.
pub(crate) fn run(root: &Path, names: &[&str]) -> Result<(), String> {
    if names == ["--quick"] {
        return report(root, QUICK.iter());
    }
    if let Some(unknown) = names.iter().find(|name| !STEPS.iter().any(|step| step.0 == **name)) {
        let known: Vec<&str> = STEPS.iter().map(|step| step.0).collect();
        return Err(format!("there is no step {unknown:?}; known: {}", known.join(", ")));
    }
    report(root, STEPS.iter().filter(|step| names.is_empty() || names.contains(&step.0)))
}

fn report<'a>(root: &Path, steps: impl Iterator<Item = &'a Step>) -> Result<(), String> {
    let mut report = Vec::new();
    let mut failed = 0;
    let skipped = skipped(root);
    let _ = std::fs::remove_file(&skipped);
    for (name, step) in steps {
        println!("== {name}");
        let start = Instant::now();
        let outcome = match step(root) {
            Ok(None) => "ok".to_owned(),
            Ok(Some(reason)) => format!("skipped: {reason}"),
            Err(message) => {
                failed += 1;
                format!("FAILED: {message}")
            }
        };
        println!("== {name}: {outcome}");
        report.push(format!("{name:14} {:6.0} s  {outcome}", start.elapsed().as_secs_f64()));
    }
    println!("\n{}", report.join("\n"));
    // What steps could not do stands in their own lines.
    let lines = std::fs::read_to_string(&skipped).unwrap_or_default();
    let lines: BTreeSet<&str> = lines.lines().collect();
    if !lines.is_empty() {
        println!("\nskipped inside of tests:");
        lines.iter().for_each(|line| println!("  {line}"));
    }
    match failed {
        0 => Ok(()),
        _ => Err(format!("{failed} of {} steps failed", report.len())),
    }
}

/// The file that tests append what they skip to.
fn skipped(root: &Path) -> PathBuf {
    let path = target(root).join("skipped.txt");
    std::path::absolute(&path).unwrap_or(path)
}

fn tests(root: &Path, arguments: &[&str]) -> Result<Option<String>, String> {
    let all = [&["test", "--workspace", "--features", FEATURES], arguments].concat();
    execute(cargo_command(root, &all).env(SKIPPED, skipped(root)))
}

/// Runs the program that writes generated files. (Its own test, part of the step "tests", checks the committed ones.)
pub(crate) fn generate(root: &Path, arguments: &[&str]) -> Result<(), String> {
    cargo(root, &[&["run", "--quiet", "--package", "xtask-generate", "--"], arguments].concat()).map(|_| ())
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<Option<String>, String> {
    execute(&mut cargo_command(root, arguments))
}

pub(crate) fn cargo_command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root);
    command
}

pub(crate) fn execute(command: &mut Command) -> Result<Option<String>, String> {
    let shown = format!("{command:?}");
    match command.status() {
        Ok(status) if status.success() => Ok(None),
        Ok(status) => Err(format!("{shown}: {status}")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// `cargo fmt` does not see the files that a macro declares: those of families.
fn format(root: &Path) -> Result<Option<String>, String> {
    cargo(root, &["fmt", "--all", "--check"])?;
    let folder = root.join("clawdbot-core/src/spec/families");
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let files = entries.filter_map(Result::ok).map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    execute(Command::new("rustfmt").args(["--check", "--edition", "2024"]).args(files).current_dir(root))
}

/// A few seconds of what `fuzz/README.md` does for long.
fn fuzz(root: &Path) -> Result<Option<String>, String> {
    let manifest = root.join("fuzz").join("Cargo.toml").display().to_string();
    let directory = target(root).display().to_string();
    let options = ["--target-dir", &directory, "--bin", "run", "--", "--runs", "50000", "--seconds", "20"];
    cargo(root, &[&["run", "--quiet", "--manifest-path", &manifest], &options[..]].concat())
}

fn documentation(root: &Path) -> Result<Option<String>, String> {
    let mut command = cargo_command(root, &["doc", "--workspace", "--no-deps", "--all-features"]);
    execute(command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn dependencies(root: &Path) -> Result<Option<String>, String> {
    let installed =
        Command::new("cargo-deny").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !installed.is_ok_and(|status| status.success()) {
        return Ok(Some("cargo-deny is not installed (cargo install cargo-deny)".to_owned()));
    }
    cargo(root, &["deny", "--offline", "check", "bans", "licenses", "sources"])
}

/// Targets that the libraries build for, besides those that tests run on. The core's feature `hub` has C in its tree (ring),
/// which needs a compiler for each.
const TARGETS: &[&str] =
    &["aarch64-unknown-linux-gnu", "x86_64-pc-windows-gnu", "aarch64-apple-darwin", "x86_64-apple-darwin"];

/// Whether the core compiles elsewhere. Needs `rustup`, which installs what is missing.
pub(crate) fn check_targets(root: &Path) -> Result<(), String> {
    for target in TARGETS {
        execute(Command::new("rustup").args(["target", "add", target]))?;
        cargo(root, &["check", "-p", "clawdbot-core", "--target", target])?;
    }
    Ok(())
}

/// Kernels and pinned bits on emulated CPUs.
fn aarch64(root: &Path) -> Result<Option<String>, String> {
    if cfg!(target_arch = "aarch64") {
        return Ok(Some("this machine is AArch64 itself".to_owned()));
    }
    let installed =
        Command::new("qemu-aarch64").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !installed.is_ok_and(|status| status.success()) {
        return Ok(Some("qemu-aarch64 is not installed (tools/aarch64/setup.sh)".to_owned()));
    }
    // Equal bits of whole models on both tiers; without arguments the script runs the kernel tests as well.
    let mut script = Command::new(root.join("tools/aarch64/test.sh"));
    execute(
        script
            .args(["-q", "-p", "clawdbot-core", "--test", "pinned_bits"])
            .env("CPUS", "neoverse-n1 cortex-a72"),
    )
}

/// The wheel in a fresh virtual environment, and its tests.
fn python(root: &Path) -> Result<Option<String>, String> {
    let directory = target(root).join("xtask-python");
    if directory.exists() {
        std::fs::remove_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    let directory_text = directory.display().to_string();
    execute(Command::new("python3").args(["-m", "venv", &directory_text]))?;
    let python = directory.join("bin").join("python");
    let pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet"];
    execute(Command::new(&python).args(pip).arg(".[test]").current_dir(root))?;
    execute(Command::new(&python).args(["-m", "pytest", "-q"]).current_dir(root))
}

pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
