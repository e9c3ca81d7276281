//! Programs that tasks run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `cargo` with these arguments, in the workspace.
pub(crate) fn cargo_command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root);
    command
}

pub(crate) fn cargo(root: &Path, arguments: &[&str]) -> Result<(), String> {
    execute(&mut cargo_command(root, arguments))
}

/// Runs a command that must succeed.
pub(crate) fn execute(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// What a command that must succeed writes to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program can be run.
pub(crate) fn installed(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// The target directory, from the root of the file system on.
pub(crate) fn target(root: &Path) -> PathBuf {
    let path = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    std::path::absolute(&path).unwrap_or(path)
}

/// The triple of this machine, which sanitizers and models build for by name: so flags do not reach build scripts.
pub(crate) fn host(root: &Path) -> Result<String, String> {
    let version = output(Command::new("rustc").arg("-vV").current_dir(root))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or(format!("rustc -vV names no host:\n{version}"))
}
