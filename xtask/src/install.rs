//! Debian packages that the tests use. As root they are installed; others are told the command.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::command::{execute, installed};

/// A program that tests call, and the Debian package that has it.
struct Program {
    name: &'static str,
    package: &'static str,
}

/// Of the C programs, and of the test with one CPU. Emulated CPUs: `tools/aarch64/setup.sh`.
const PROGRAMS: &[Program] = &[
    Program { name: "cc", package: "gcc" },
    Program { name: "g++", package: "g++" },
    Program { name: "nm", package: "binutils" },
    Program { name: "taskset", package: "util-linux" },
    Program { name: "valgrind", package: "valgrind" },
];

/// Whether an installation failed: what it would have brought cannot be had on this machine.
static FAILED: AtomicBool = AtomicBool::new(false);

/// Whether an installation failed, for want of a network perhaps.
pub(crate) fn failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

/// Runs an installation. Returns whether it succeeded; if not, tests skip what needs it.
fn install(command: &mut Command) -> bool {
    let outcome = execute(command);
    if let Err(message) = &outcome {
        println!("not installed: {message}");
        FAILED.store(true, Ordering::Relaxed);
    }
    outcome.is_ok()
}

/// Whether this process may install packages: it is root's, and the system is a Debian.
pub(crate) fn allowed() -> bool {
    let user = Command::new("id").arg("-u").stderr(Stdio::null()).output();
    user.is_ok_and(|output| output.stdout.trim_ascii() == b"0") && installed("apt-get")
}

/// Installs the programs that are missing, where that is allowed. The tests report those that are missing afterwards.
pub(crate) fn programs() {
    let missing = PROGRAMS.iter().filter(|program| !installed(program.name));
    let packages: Vec<&str> = missing.map(|program| program.package).collect();
    if packages.is_empty() || !allowed() {
        return;
    }
    println!("installing {}", packages.join(", "));
    if install(Command::new("apt-get").args(["-qq", "update"])) {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "install", "-y", "--no-install-recommends"]).args(packages);
        install(command.env("DEBIAN_FRONTEND", "noninteractive"));
    }
}

/// The emulator, the linker and the standard library for AArch64. False where they are missing and not to be installed.
pub(crate) fn emulator(root: &Path) -> bool {
    let found = installed("qemu-aarch64") && installed("aarch64-linux-gnu-gcc");
    // Also adds, after an update of the toolchain, the standard library.
    (found || allowed()) && install(&mut Command::new(root.join("tools/aarch64/setup.sh")))
}
