//! Compiles the C programs next to this file, and the examples, against both libraries and runs them; `errors`, and with
//! `--ignored` the others, under valgrind too.
//!
//! The libraries are built first, with the profile of the tests, and with the feature `hub` if the tests have it.
//! `CLAWDBOT_LIB_DIR` names a directory with `libclawdbot.so` and `libclawdbot.a` to be used instead, and
//! `CLAWDBOT_SANITIZER` what those were compiled with (`address`, `thread`): see `cargo xtask sanitize`. Programs are linked
//! with the C compiler's own runtime of the sanitizer, or with the archive that `CLAWDBOT_SANITIZER_RUNTIME` names.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

#[path = "../../clawdbot-core/tests/support/skipped.rs"]
#[allow(unreachable_pub, reason = "a module of several test crates")]
mod skipped;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use clawdbot_core::{
    EmbedOptions, ErrorKind, EvaluateOptions, GenerateOptions, ModelOptions, PackOptions, RerankOptions,
    RuntimeOptions,
};

const C: [&str; 6] = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion"];
const CPP: [&str; 5] = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wold-style-cast"];
/// For `pthread_*` and the like with `-std=c99`.
const POSIX: &str = "-D_POSIX_C_SOURCE=200809L";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Linkage {
    Static,
    Shared,
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn root() -> &'static Path {
    here().parent().unwrap()
}

fn tests() -> PathBuf {
    here().join("tests")
}

/// The directory with both libraries, which are built at the first call.
fn libraries() -> &'static Path {
    static LIBRARIES: OnceLock<PathBuf> = OnceLock::new();
    LIBRARIES.get_or_init(|| match std::env::var_os("CLAWDBOT_LIB_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => build(),
    })
}

fn build() -> PathBuf {
    // <target directory>/[<target triple>/]<profile>/deps/<this test>
    let executable = std::env::current_exe().unwrap();
    let directory = executable.ancestors().nth(2).unwrap();
    let profile = match name(directory) {
        "debug" => "dev",
        other => other,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["build", "--quiet", "--package", "clawdbot-capi", "--profile", profile]);
    if cfg!(feature = "hub") {
        cargo.args(["--features", "hub"]);
    }
    let above = directory.parent().unwrap();
    if above.join("CACHEDIR.TAG").exists() {
        cargo.arg("--target-dir").arg(above);
    } else {
        cargo.args(["--target", name(above)]).arg("--target-dir").arg(above.parent().unwrap());
    }
    succeed(&mut cargo);
    directory.to_owned()
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap()
}

fn show(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs a command that must succeed; gives what it wrote to standard output.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", show(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a program is there, which that Debian package has.
fn installed(program: &str, package: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        skipped::not_installed("C programs", package);
    }
    found
}

/// What the libraries were compiled with, for programs that are linked with them.
fn sanitizer() -> Option<String> {
    std::env::var("CLAWDBOT_SANITIZER").ok()
}

/// An empty directory of that name for a test's own files.
fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c").join(name);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Compiles and links a C program into `directory`.
fn compile(source: &Path, directory: &Path, linkage: Linkage) -> PathBuf {
    let program = directory.join(source.file_stem().unwrap());
    let flags = sanitizer().map(|name| format!("-fsanitize={name}"));
    let mut cc = Command::new("cc");
    cc.args(C).args([POSIX, "-g", "-pthread", "-I"]).arg(root().join("include"));
    match std::env::var_os("CLAWDBOT_SANITIZER_RUNTIME") {
        None => _ = cc.args(flags).arg(source),
        Some(runtime) => {
            // With `-fsanitize`, linking would take the compiler's runtime.
            let object = program.with_extension("o");
            succeed(cc.args(flags).arg("-c").arg(source).arg("-o").arg(&object));
            cc = Command::new("cc");
            cc.args(["-g", "-pthread"]).arg(object).arg("-Wl,--whole-archive").arg(runtime);
            cc.args(["-Wl,--no-whole-archive", "-Wl,--export-dynamic", "-ldl", "-lrt"]);
        }
    }
    cc.arg("-o").arg(&program);
    match linkage {
        Linkage::Static => {
            cc.arg(libraries().join("libclawdbot.a")).args(["-lgcc_s", "-lutil", "-lrt", "-lm", "-ldl"])
        }
        Linkage::Shared => cc.arg("-L").arg(libraries()).args(["-lclawdbot", "-lm"]),
    };
    succeed(&mut cc);
    program
}

fn golden() -> PathBuf {
    root().join("clawdbot-core/tests/golden")
}

/// The directory of the model that the adapters are for, made at the first call.
fn adapted() -> &'static Path {
    static ADAPTED: OnceLock<PathBuf> = OnceLock::new();
    ADAPTED.get_or_init(|| {
        let directory = scratch("adapted");
        for file in
            ["adapters/base/config.json", "adapters/base/model.safetensors", "quantized/tokenizer.json"]
        {
            let from = golden().join(file);
            std::fs::copy(&from, directory.join(from.file_name().unwrap())).unwrap();
        }
        directory
    })
}

/// A command that runs `program`, compiled into its directory.
fn command(wrapper: &[&str], program: &Path) -> Command {
    let mut command = match wrapper {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    let directory = program.parent().unwrap();
    // The library as it was built, with nothing but what cargo puts next to it.
    command.env("LD_LIBRARY_PATH", libraries()).current_dir(directory);
    command.env("CLAWDBOT_GOLDEN", golden().join("embeddings"));
    command.env("CLAWDBOT_ADAPTERS", golden().join("adapters")).env("CLAWDBOT_ADAPTED", adapted());
    command
}

/// Runs the test program of that name, linked both ways.
fn test_program(name: &str) {
    for linkage in [Linkage::Static, Linkage::Shared] {
        let program =
            compile(&tests().join(format!("{name}.c")), &scratch(&format!("{name}-{linkage:?}")), linkage);
        let output = command(&[], &program).output().unwrap();
        assert!(output.status.success(), "{name}, {linkage:?}: {}", show(&output));
        // The program's own line and nothing else: the library does not print.
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{name}: ok\n"));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

/// Runs the test program of that name under valgrind.
fn under_valgrind(name: &str) {
    // Valgrind and sanitizers replace the same functions.
    if sanitizer().is_some() || !installed("valgrind", "valgrind") {
        return;
    }
    let program =
        compile(&tests().join(format!("{name}.c")), &scratch(&format!("{name}-valgrind")), Linkage::Shared);
    let suppressions = format!("--suppressions={}", tests().join("valgrind.supp").display());
    let valgrind = [
        "valgrind",
        "--quiet",
        "--error-exitcode=9",
        "--leak-check=full",
        "--errors-for-leak-kinds=definite,possible",
        "--show-leak-kinds=definite,possible",
        "--fair-sched=yes",
        // Enough to reach the frames that the suppressions name.
        "--num-callers=100",
        &suppressions,
    ];
    succeed(&mut command(&valgrind, &program));
}

/// A test for each program, and one that runs it under valgrind.
macro_rules! programs {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        $(
            $(#[$attribute])*
            #[test]
            fn $name() {
                test_program(stringify!($name));
            }
        )*

        mod valgrind {
            $(
                $(#[$attribute])*
                #[test]
                #[ignore = "slow: cargo xtask test --full"]
                fn $name() {
                    super::under_valgrind(stringify!($name));
                }
            )*
        }
    };
}

programs! {
    adapters,
    events,
    chat,
    constraint,
    processor,
    embed,
    generate,
    #[cfg(feature = "hub")]
    hub,
    pack,
    pool,
    threads,
}

/// Under valgrind at once: the shortest of the programs.
#[test]
fn errors() {
    test_program("errors");
    under_valgrind("errors");
}

#[test]
fn error_numbers_are_those_of_the_core() {
    let directory = scratch("codes");
    let mut source = "#include \"check.h\"\nint main(void) {\n".to_owned();
    for kind in ErrorKind::ALL {
        let (name, code) = (kind.name(), kind.code());
        let words: String = name.chars().fold(String::new(), |mut words, c| {
            if c.is_ascii_uppercase() {
                words.push('_');
            }
            words.push(c.to_ascii_uppercase());
            words
        });
        writeln!(source, "    CHECK(CLAWDBOT_ERROR{words} == {code});").unwrap();
        writeln!(source, "    CHECK(strcmp(clawdbot_error_kind_name({code}), \"{name}\") == 0);").unwrap();
    }
    writeln!(source, "    CHECK(clawdbot_error_kind_name({}) == NULL);", ErrorKind::ALL.len() + 1).unwrap();
    source.push_str("    return 0;\n}\n");
    std::fs::write(directory.join("codes.c"), source).unwrap();
    std::fs::copy(tests().join("check.h"), directory.join("check.h")).unwrap();
    let program = compile(&directory.join("codes.c"), &directory, Linkage::Shared);
    succeed(&mut command(&[], &program));
}

#[test]
fn the_header_is_cpp_too() {
    if !installed("g++", "g++") {
        return;
    }
    let mut gpp = Command::new("g++");
    gpp.args(CPP)
        .args(["-fsyntax-only", "-I"])
        .arg(root().join("include"))
        .arg(tests().join("double_include.cpp"));
    succeed(&mut gpp);
}

#[test]
fn the_shared_library_exports_its_functions_alone() {
    // Sanitizers export functions of their own.
    if sanitizer().is_some() || !installed("nm", "binutils") {
        return;
    }
    let library = libraries().join("libclawdbot.so");
    let symbols = succeed(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(library));
    let symbols: Vec<&str> = symbols.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(symbols.iter().all(|symbol| symbol.starts_with("clawdbot_")), "{symbols:?}");
    let header = std::fs::read_to_string(root().join("include/clawdbot.h")).unwrap();
    for symbol in &symbols {
        assert!(header.contains(&format!("{symbol}(")), "{symbol} is not in the header");
    }
    assert!(symbols.len() > 50, "{symbols:?}");
}

#[test]
fn the_header_names_every_option() {
    let header = std::fs::read_to_string(root().join("include/clawdbot.h")).unwrap();
    let all = [
        GenerateOptions::NAMES,
        ModelOptions::NAMES,
        PackOptions::NAMES,
        EvaluateOptions::NAMES,
        RuntimeOptions::NAMES,
        EmbedOptions::NAMES,
        RerankOptions::NAMES,
    ];
    for name in all.concat() {
        assert!(header.contains(&format!(" * - {name} (")), "{name}");
    }
}

#[test]
fn the_library_is_asked_for_by_the_name_of_its_file() {
    if !installed("readelf", "binutils") {
        return;
    }
    let library = libraries().join("libclawdbot.so");
    let dynamic = succeed(Command::new("readelf").arg("-d").arg(library));
    let soname = dynamic.lines().find(|line| line.contains("(SONAME)")).unwrap();
    assert!(soname.ends_with("[libclawdbot.so]"), "{soname}");
}

/// The pieces of C in `docs/c.md`: what includes goes first, the rest into `main`.
#[test]
fn the_guide_is_a_program() {
    let text = std::fs::read_to_string(root().join("docs/c.md")).unwrap();
    let pieces = text.split("```c\n").skip(1).map(|piece| piece.split("```").next().unwrap());
    let (head, body): (Vec<&str>, Vec<&str>) = pieces.partition(|piece| piece.starts_with("#include"));
    assert!(head.len() == 1 && body.len() > 5);
    let source = format!("{}int main(void) {{\n{}return 0;\n}}\n", head.concat(), body.concat());
    let directory = scratch("guide");
    std::fs::write(directory.join("guide.c"), source).unwrap();
    let program = compile(&directory.join("guide.c"), &directory, Linkage::Shared);
    let output = command(&[], &program).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", show(&output));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("prompt[1]: expected UTF-8"),
        "{}",
        show(&output)
    );
}

#[test]
fn examples() {
    let directory = scratch("examples");
    let source = |name: &str| root().join("examples").join(name);
    let generate = compile(&source("generate.c"), &directory, Linkage::Shared);
    let text = succeed(command(&[], &generate).arg("Once upon a time"));
    assert!(text.contains("tokens, "), "{text}");
    let output = command(&[], &generate).args(["x", "no/such/model"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(show(&output).contains("NotFound: no/such/model"), "{}", show(&output));

    let chat = compile(&source("chat.c"), &directory, Linkage::Shared);
    let mut child = command(&[], &chat)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Tell me a story about a \"cat\".\nAnd then?\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", show(&output));
    assert!(output.stdout.iter().filter(|&&byte| byte == b'\n').count() >= 2, "{}", show(&output));
}
