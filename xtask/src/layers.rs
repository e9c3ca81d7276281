//! `cargo xtask check-layers`: modules use what is below them, and nothing above; and files do not use each other in a
//! circle (`circles.rs`).

use std::collections::BTreeMap;
use std::path::Path;

use crate::circles;
use crate::sources::{code, files, module, read};

/// The layers of a crate, lowest first. Modules use those of their own layer and of those before it.
struct Crate {
    source: &'static str,
    layers: &'static [&'static [&'static str]],
}

const CRATES: &[Crate] = &[
    Crate {
        source: "clawdbot-kernels/src",
        layers: &[
            &["error"],
            &["memory", "numa", "threads", "unchecked"],
            &["simd"],
            &["activation", "hadamard", "moments", "recurrent", "rope", "row_ops", "tiles", "vector"],
            &[
                "bf16_dot",
                "codes",
                "few_rows",
                "format",
                "gemm",
                "gemm_amx",
                "gemm_bf16",
                "gemm_bf16_amx",
                "gemm_float",
                "gemm_gated",
                "gemm_i8mm",
                "gemm_int8",
                "gemm_narrow",
                "gemv_int8",
                "group_scales",
                "int4",
                "int6",
                "limits",
                "matrix",
                "minima",
                "packing",
                "panels",
                "parts",
                "quantize",
                "scale_lines",
                "split",
                "target",
                "tile_steps",
            ],
            &["attention", "feedback"],
            &["isa", "self_test"],
            &["dispatch"],
        ],
    },
    Crate {
        source: "clawdbot-core/src",
        layers: &[
            &["error", "sync"],
            &["cancel", "json", "large_stack", "metrics", "suggest"],
            &["output"],
            &["options"],
            &["runtime"],
            &["weights"],
            &["tokenizer"],
            &["constraint", "sampling"],
            &["event"],
            &["spec"],
            &["cache"],
            &["forward"],
            &["load"],
            &["evaluation"],
            &["engine"],
            &["api"],
            &["candle", "hub"],
            &["bench_support", "fuzz_support", "layer_trace"],
        ],
    },
    Crate {
        source: "clawdbot-server/src",
        layers: &[
            &["counters", "fields", "ids", "kept", "record"],
            &["fault"],
            &["keys", "store"],
            &["settings"],
            &["body", "config"],
            &["keyed"],
            &["app"],
            &["prompt"],
            &["caller"],
            &["answers"],
            &["sse"],
            &["access", "anthropic", "health", "metrics", "native", "openai", "rerank", "tokens"],
            &["router", "tls"],
            &["listen"],
        ],
    },
];

/// Fails with every use of a module by a lower one, and every circle between files.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let mut found = Vec::new();
    for Crate { source, layers } in CRATES {
        let source = root.join(source);
        let exports = exports(&read(&source.join("lib.rs"))?);
        let layer_of = |name: &str| layers.iter().position(|layer| layer.contains(&name));
        for file in files(&source)? {
            let module = module(&source, &file);
            let Some(own) = module.first() else { continue };
            let Some(layer) = layer_of(own) else {
                found.push(format!("{}: no layer in xtask/src/layers.rs has {own}", file.display()));
                continue;
            };
            for (line, name) in uses(&read(&file)?, module.len()) {
                let name = exports.get(&name).unwrap_or(&name);
                if layer_of(name).is_some_and(|other| other > layer) {
                    found.push(format!("{}:{line}: {own} uses {name}, which is above it", file.display()));
                }
            }
        }
    }
    found.extend(circles::find(root)?);
    if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
}

/// What `lib.rs` exports: name -> module.
fn exports(library: &str) -> BTreeMap<String, String> {
    let statements = library.split("pub use ").skip(1).filter_map(|text| text.split_once(';'));
    let paths = statements.filter_map(|(path, _)| path.split_once("::"));
    let names = |list: &str| -> Vec<String> { words(list).map(str::to_owned).collect() };
    paths.flat_map(|(module, list)| names(list).into_iter().map(|name| (name, module.to_owned()))).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// What a file that is `depth` modules below the root names at the root: line and name. Its tests do not count.
fn uses(text: &str, depth: usize) -> Vec<(usize, String)> {
    let code = code(text);
    let from_root = "super::".repeat(depth);
    let mut found = Vec::new();
    for start in ["crate::", from_root.as_str()] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            // Part of a longer name, or of a longer chain of `super`.
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &code[at + start.len()..];
            let list = match rest.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap_or_default(),
                None => rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default(),
            };
            let line = 1 + code[..at].matches('\n').count();
            found.extend(words(list).map(|name| (line, name.to_owned())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_at_the_root_is_found() {
        let text = "use crate::a::B;\nuse crate::{c, d};\nuse super::super::e::F; // crate::g\nuse super::h;\nmod x {\n}\n\
                    fn f() { crate::i::j(); $crate::k(); }\nmod tests {\n    use crate::l;\n}\n";
        let names: Vec<(usize, String)> = uses(text, 2);
        let names: Vec<(usize, &str)> = names.iter().map(|(line, name)| (*line, name.as_str())).collect();
        assert_eq!(names, [(1, "a"), (2, "c"), (2, "d"), (7, "i"), (7, "k"), (3, "e")]);
    }

    #[test]
    fn exports_lead_to_their_modules() {
        let library = "mod a;\npub use a::b::{C, D};\npub use e::F;\n";
        let exports = exports(library);
        assert_eq!((exports["D"].as_str(), exports["F"].as_str()), ("a", "e"));
    }

    #[test]
    fn modules_are_paths() {
        let of = |path: &str| module(Path::new("src"), Path::new(path));
        assert_eq!(of("src/forward/mixers/mod.rs"), ["forward", "mixers"]);
        assert_eq!(of("src/json.rs"), ["json"]);
    }

    #[test]
    fn the_layers_hold() {
        run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
    }
}
