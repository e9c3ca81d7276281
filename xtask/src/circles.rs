//! A part of `cargo xtask check-layers`: no files of a crate use each other in a circle.
//!
//! What counts is what `use` lines and paths name. A name that a file only passes on leads to the file that has it. What a
//! module takes from the modules around it (`super::X`) does not count, nor do tests, nor what macros name (`$crate::X`). Names
//! that `pub use child::*` passes on, and paths in inline modules, are not followed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::sources::{code, files, module, read};

/// All crates but that of Python, whose classes `Model` and `Runtime` take and return each other.
const SOURCES: &[&str] = &[
    "clawdbot-kernels/src",
    "clawdbot-core/src",
    "clawdbot-hub/src",
    "clawdbot-server/src",
    "clawdbot-cli/src",
    "clawdbot-capi/src",
];

/// The path of a module; the crate's root has the empty one.
type Module = Vec<String>;

struct File {
    path: PathBuf,
    uses: Vec<Use>,
    /// What the file imports: name -> path.
    imports: BTreeMap<String, Module>,
}

/// A path that a file names, from the crate's root.
struct Use {
    line: usize,
    path: Module,
}

/// For each module those that it uses, with the first place where it does.
type Arrows<'a> = BTreeMap<&'a Module, BTreeMap<&'a Module, &'a Use>>;

/// The circles, each with the lines that close it.
pub(crate) fn find(root: &Path) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for source in SOURCES {
        let source = root.join(source);
        let mut texts = BTreeMap::new();
        for path in files(&source)?.into_iter().chain([source.join("lib.rs")]) {
            let name = module(&source, &path);
            let is_root = ["lib", "main"].iter().any(|root| name == [*root]);
            if path.exists() {
                texts.insert(if is_root { Module::new() } else { name }, (path.clone(), read(&path)?));
            }
        }
        found.extend(circles(texts));
    }
    Ok(found)
}

fn circles(texts: BTreeMap<Module, (PathBuf, String)>) -> Vec<String> {
    let modules: Vec<Module> = texts.keys().cloned().collect();
    let files = texts.into_iter().map(|(module, (path, text))| {
        let children = modules.iter().filter(|other| other.split_last().is_some_and(|(_, of)| of == module));
        let children: Vec<&str> = children.filter_map(|child| child.last()).map(String::as_str).collect();
        let (mut uses, mut imports) = (Vec::new(), BTreeMap::new());
        for (line, path, name) in named(&code(&text), &children) {
            let path = from_root(&module, &path);
            imports.extend(name.map(|name| (name, path.clone())));
            uses.push(Use { line, path });
        }
        (module, File { path, uses, imports })
    });
    let files: BTreeMap<Module, File> = files.collect();
    let mut arrows = Arrows::new();
    for (module, file) in &files {
        for used in &file.uses {
            let home = home(&files, &used.path, 8);
            if !module.starts_with(home) {
                arrows.entry(module).or_default().entry(home).or_insert(used);
            }
        }
    }
    let mut found = Vec::new();
    while let Some(circle) = circle(&arrows) {
        let mut message = "files use each other in a circle:".to_owned();
        for (at, module) in circle.iter().enumerate() {
            let next = circle[(at + 1) % circle.len()];
            let (file, used) = (files[*module].path.display(), arrows[module][next]);
            message += &format!("\n  {file}:{} uses {}", used.line, used.path.join("::"));
        }
        found.push(message);
        // Without this arrow, there may be others.
        arrows.entry(circle[circle.len() - 1]).or_default().remove(circle[0]);
    }
    found
}

/// Some circle: each module uses the next, and the last the first.
fn circle<'a>(arrows: &Arrows<'a>) -> Option<Vec<&'a Module>> {
    let mut left: Vec<&Module> = arrows.keys().copied().collect();
    let next =
        |left: &[&Module], module: &Module| arrows[module].keys().copied().find(|to| left.contains(to));
    // What uses nothing that is left is in no circle.
    while let Some(at) = left.iter().position(|module| next(&left, module).is_none()) {
        left.remove(at);
    }
    let mut path = vec![*left.first()?];
    loop {
        let to = next(&left, path[path.len() - 1])?;
        if let Some(start) = path.iter().position(|module| *module == to) {
            return Some(path.split_off(start));
        }
        path.push(to);
    }
}

/// The module whose file has what `path` names; through at most `most` files that pass it on.
fn home<'a>(files: &'a BTreeMap<Module, File>, path: &[String], most: usize) -> &'a Module {
    let known = (0..=path.len()).rev().find_map(|length| files.get_key_value(&path[..length]));
    let (module, file) = known.expect("a crate has a root");
    let rest = &path[module.len()..];
    match rest.first().and_then(|name| file.imports.get(name)) {
        Some(from) if most > 0 => home(files, &[from, &rest[1..]].concat(), most - 1),
        _ => module,
    }
}

/// `path` in a file of `module`, from the root.
fn from_root(module: &[String], path: &[&str]) -> Module {
    let mut full = module.to_vec();
    for name in path {
        match *name {
            "crate" => full.clear(),
            "super" => drop(full.pop()),
            "self" | "" => {}
            name => full.push(name.to_owned()),
        }
    }
    full
}

/// The paths of other modules that `code` names: line, path, and of those that are imported the name in this file.
fn named<'a>(code: &'a str, children: &[&str]) -> Vec<(usize, Vec<&'a str>, Option<String>)> {
    let mut found = Vec::new();
    for start in ["crate", "super", "self"].iter().chain(children) {
        for (at, _) in code.match_indices(&format!("{start}::")) {
            let before = &code[..at];
            // Part of a longer name or path, or of a macro.
            if before.ends_with(|c: char| c.is_alphanumeric() || "_:$".contains(c)) {
                continue;
            }
            let mut paths = Vec::new();
            tree(&code[at..], &[], &mut paths);
            let (line, import) = (1 + before.matches('\n').count(), before.trim_end().ends_with("use"));
            found.extend(paths.into_iter().map(|(path, name)| (line, path, import.then(|| name.to_owned()))));
        }
    }
    found
}

/// Reads `a::{b, c::{d, e as f}}` after the path `before`: adds its paths, each with its name in the file, and returns what
/// follows.
fn tree<'a>(text: &'a str, before: &[&'a str], found: &mut Vec<(Vec<&'a str>, &'a str)>) -> &'a str {
    let word = |text: &'a str| {
        text.split_at(text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()))
    };
    let (name, rest) = word(text);
    let path = [before, &[name]].concat();
    let Some(inner) = rest.strip_prefix("::") else {
        let (alias, rest) = rest.strip_prefix(" as ").map_or((name, rest), word);
        found.push((path, alias));
        return rest;
    };
    let Some(mut list) = inner.strip_prefix('{') else { return tree(inner, &path, found) };
    loop {
        list = list.trim_start_matches(|c: char| c.is_whitespace() || ",*".contains(c));
        if list.is_empty() || list.starts_with(|c: char| !c.is_alphanumeric() && c != '_') {
            return list.strip_prefix('}').unwrap_or(list);
        }
        list = tree(list, &path, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let texts = files.iter().map(|(name, text)| {
            let module = name.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            (module, (PathBuf::from(name), (*text).to_owned()))
        });
        circles(texts.collect())
    }

    #[test]
    fn a_circle_is_found_through_names_that_are_passed_on() {
        let root = ("", "mod a;\nmod b;\n");
        let a = ("a", "\nuse crate::{\n    b::{C as D, c::F},\n};\n");
        let b = ("b", "mod c;\npub use c::C;\npub struct E;\n");
        let c = ("b/c", "fn f() -> super::E { crate::a::f() }\n");
        let message = "files use each other in a circle:\n  a:2 uses b::C\n  b/c:1 uses a::f";
        assert_eq!(found(&[root, a, b, c]), [message]);
        assert!(
            found(&[root, a, b, ("b/c", "// crate::a::f\nfn f() -> super::E { $crate::a::f() }\n")])
                .is_empty()
        );
    }

    #[test]
    fn every_circle_is_found() {
        let files =
            [("", ""), ("a", "use super::b;"), ("b", "use crate::{a, c};"), ("c", "use super::b::B;")];
        assert_eq!(found(&files).len(), 2);
    }
}
