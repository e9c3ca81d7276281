//! The Python package, in a fresh virtual environment.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::step::{Context, Outcome};
use super::steps::{ONE_BUILD, build, passed};
use crate::command::{execute, output};

/// Writes what the tests need, a requirement a line. Before Python 3.11 pip has the reader of TOML.
const REQUIREMENTS: &str = r#"
try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
print("\n".join(project["dependencies"] + project["optional-dependencies"]["test"]))
"#;

/// Pip without its notice of newer versions.
const INSTALL: [&str; 5] = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet"];

/// The module that the step "tests" builds, and the tests in Python. With --full, the step "wheel" tests the wheel.
pub(super) fn module(context: &Context) -> Result<Outcome, String> {
    if !ONE_BUILD {
        return wheel(context);
    }
    build(context)?;
    let python = environment(context, "xtask-python-module")?;
    let requirements = output(Command::new(&python).args(["-c", REQUIREMENTS]).current_dir(context.root()))?;
    execute(Command::new(&python).args(INSTALL).args(requirements.lines()))?;
    let purelib = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let packages = PathBuf::from(output(Command::new(&python).args(["-c", purelib]))?.trim_end());
    let failed = |error: std::io::Error| format!("{}: {error}", packages.display());
    place(context, &packages).map_err(failed)?;
    pytest(context, &python)
}

/// Puts the package where pip would: its files, the module, and what `importlib.metadata` reads.
fn place(context: &Context, packages: &Path) -> std::io::Result<()> {
    let package = packages.join("clawdbot");
    std::fs::create_dir_all(&package)?;
    for entry in std::fs::read_dir(context.root().join("python/clawdbot"))? {
        let entry = entry?;
        // Not those of `maturin develop`.
        let extension = entry.path().extension().unwrap_or_default().to_owned();
        if ["py", "pyi", "typed"].iter().any(|known| extension == *known) {
            std::fs::copy(entry.path(), package.join(entry.file_name()))?;
        }
    }
    std::fs::copy(context.target.join("debug/lib_clawdbot.so"), package.join("_clawdbot.abi3.so"))?;
    let version = env!("CARGO_PKG_VERSION");
    let information = packages.join(format!("clawdbot-{version}.dist-info"));
    std::fs::create_dir_all(&information)?;
    let metadata = format!("Metadata-Version: 2.1\nName: clawdbot\nVersion: {version}\n");
    std::fs::write(information.join("METADATA"), metadata)
}

/// The wheel as others get it, and the tests in Python.
pub(super) fn wheel(context: &Context) -> Result<Outcome, String> {
    let python = environment(context, "xtask-python-wheel")?;
    execute(Command::new(&python).args(INSTALL).arg(".[test]").current_dir(context.root()))?;
    pytest(context, &python)
}

/// A fresh virtual environment; gives its interpreter.
fn environment(context: &Context, name: &str) -> Result<PathBuf, String> {
    let directory = context.target.join(name);
    if directory.exists() {
        std::fs::remove_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    let system = if cfg!(windows) { "python" } else { "python3" };
    execute(Command::new(system).args(["-m", "venv"]).arg(&directory))?;
    let program: &[&str] = if cfg!(windows) { &["Scripts", "python.exe"] } else { &["bin", "python"] };
    Ok(program.iter().fold(directory, |path, part| path.join(part)))
}

fn pytest(context: &Context, python: &Path) -> Result<Outcome, String> {
    execute(Command::new(python).args(["-m", "pytest", "-q"]).current_dir(context.root())).map(passed)
}
