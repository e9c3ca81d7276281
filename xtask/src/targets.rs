//! `cargo xtask check-targets`: whether the crates compile for systems that the tests do not run on.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{cargo_command, execute, target};
use crate::package::PACKAGES;

const TARGETS: &[&str] = &[
    "aarch64-unknown-linux-gnu",
    "x86_64-pc-windows-gnu",
    "x86_64-pc-windows-msvc",
    "aarch64-apple-darwin",
    "x86_64-apple-darwin",
];

/// Checks every target: what is published, with its tests, and with the hub. Needs `rustup`, which installs the standard libraries that are missing.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let compiler = empty_objects(&target(root))?;
    for target in TARGETS {
        println!("-- {target}");
        execute(Command::new("rustup").args(["--quiet", "target", "add", target]).current_dir(root))?;
        let mut check = cargo_command(root, &["check", "--target", target, "--all-targets"]);
        for package in PACKAGES {
            check.args(["--package", package]);
        }
        check.args(["--features", "clawdbot-capi/hub"]);
        let name = target.replace('-', "_");
        check.env(format!("CC_{name}"), &compiler).env(format!("AR_{name}"), &compiler);
        execute(&mut check)?;
    }
    Ok(())
}

/// In place of a C compiler and archiver for each target: writes an empty file. Checking links nothing, so nobody reads
/// the objects of ring, whose build script compiles C.
fn empty_objects(directory: &Path) -> Result<PathBuf, String> {
    const SCRIPT: &str = "#!/bin/sh\n\
        # Writes the output that is asked for (-o FILE of a compiler, -out:FILE or *.a of an archiver), empty.\n\
        while [ $# -gt 0 ]; do\n\
        case \"$1\" in\n-o) shift; : > \"$1\" ;;\n-out:*) : > \"${1#-out:}\" ;;\n*.a) : > \"$1\" ;;\nesac\nshift\ndone\n";
    let path = directory.join("xtask-empty-objects.sh");
    let write = || {
        std::fs::create_dir_all(directory)?;
        std::fs::write(&path, SCRIPT)
    };
    write().map_err(|error| format!("{}: {error}", path.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let permissions = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, permissions)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(path)
}
