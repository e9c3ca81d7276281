//! JSON Schemas with instances: which are enforced, is each valid instance allowed and each invalid one forbidden, and
//! how long do masks take?
//!
//! `cargo bench -p clawdbot-core --bench structured -- TOKENIZER FILE.jsonl...`; each line of a file is an object with
//! `schema`, a name (`name`, or `keyword` and `description`) and `tests`: objects with `data` and `valid`. With
//! `--list`, refused schemas and wrong instances are named; with `--limit`, texts have a limit on their tokens, so that
//! the shortest completion is known after each.
#![allow(clippy::print_stdout, reason = "a bench")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clawdbot_core::constraint::{Accepted, Constraint, ConstraintSpec, Matcher, Vocabulary};
use clawdbot_core::{AddSpecialTokens, Tokenizer};
use serde_json::{Map, Value};

/// What was found in one file.
#[derive(Default)]
struct Found {
    schemas: usize,
    refused: BTreeMap<String, usize>,
    instances: usize,
    wrongly_accepted: Vec<String>,
    wrongly_forbidden: Vec<String>,
    compile: Vec<Duration>,
    first: Vec<Duration>,
    masks: Vec<Duration>,
    accepts: Vec<Duration>,
    /// Texts for which no completion was found.
    unclosed: Vec<String>,
    /// Tokens that a text may have.
    limit: Option<usize>,
}

fn main() {
    let (flags, arguments): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let [tokenizer, files @ ..] = &arguments[..] else {
        println!("structured: skipped, for it needs arguments: TOKENIZER FILE.jsonl...");
        return;
    };
    let tokenizer = Tokenizer::from_file(tokenizer).expect("a tokenizer");
    let start = Instant::now();
    let vocabulary = Arc::new(Vocabulary::new(&tokenizer).expect("a vocabulary"));
    println!(
        "vocabulary: {} tokens, {:.0} ms, at most {:.1} MB",
        vocabulary.len(),
        start.elapsed().as_secs_f64() * 1e3,
        vocabulary.bytes() as f64 / 1e6
    );
    for file in files {
        let lines = std::fs::read_to_string(file).expect("a file");
        let limit = flags.iter().any(|flag| flag == "--limit").then_some(1 << 20);
        let mut found = Found { limit, ..Found::default() };
        for line in lines.lines() {
            let group: Value = serde_json::from_str(line).expect("JSON");
            found.group(&group, &vocabulary);
        }
        println!("{file}");
        found.report(flags.iter().any(|flag| flag == "--list"));
    }
}

impl Found {
    fn group(&mut self, group: &Value, vocabulary: &Arc<Vocabulary>) {
        let text = |key: &str| group.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = format!("{}{} {}", text("name"), text("keyword"), text("description"));
        self.schemas += 1;
        // Drafts leave it to programs whether formats are enforced; these tests ask for programs that do not.
        if group["keyword"] == "format" {
            return;
        }
        let mut schema = group["schema"].clone();
        if group["draft"] == "draft7"
            && let Some(object) = schema.as_object_mut()
        {
            object.entry("$schema").or_insert("http://json-schema.org/draft-07/schema#".into());
        }
        let schema = &schema;
        let start = Instant::now();
        let constraint = Constraint::with(vocabulary, &ConstraintSpec::JsonSchema(schema.clone()));
        self.compile.push(start.elapsed());
        let constraint = match constraint {
            Ok(constraint) => constraint,
            Err(error) => {
                let keyword = error.detail().get("keyword").and_then(Value::as_str);
                let reason = keyword.map_or_else(|| error.to_string(), str::to_owned);
                *self.refused.entry(reason.chars().take(150).collect()).or_default() += 1;
                return;
            }
        };
        for test in group["tests"].as_array().into_iter().flatten() {
            let valid = test["valid"] == true;
            // Which of several orders of keys a constraint allows is a matter of the alternative.
            let orders: Vec<Value> = (0..if self.limit.is_some() { 1 } else { 6 })
                .map(|of| written(&test["data"], &[schema], &Order { root: schema, of }))
                .collect();
            for pretty in if valid { &[false, true][..] } else { &[false] } {
                self.instances += 1;
                let (mut text, mut accepted, mut at) = (String::new(), false, 0);
                for data in &orders {
                    text = if *pretty {
                        serde_json::to_string_pretty(data).expect("JSON")
                    } else {
                        data.to_string()
                    };
                    (accepted, at) = self.run(&constraint, &text);
                    if accepted {
                        break;
                    }
                }
                let shown = || format!("{name}: {} (at {at})", text.chars().take(300).collect::<String>());
                match (valid, accepted) {
                    (true, false) => self.wrongly_forbidden.push(shown()),
                    (false, true) => self.wrongly_accepted.push(shown()),
                    _ => {}
                }
            }
        }
    }

    /// Whether the constraint accepts `text`, with a mask before each token, and the token that it forbids.
    fn run(&mut self, constraint: &Constraint, text: &str) -> (bool, usize) {
        let vocabulary = constraint.grammar().vocabulary();
        let start = Instant::now();
        let mut matcher = Matcher::new(constraint.grammar(), &[], false).expect("a matcher");
        let ids = vocabulary.tokenizer().encode(text, AddSpecialTokens::No).expect("tokens");
        for (at, &id) in ids.iter().enumerate() {
            let before = if at == 0 { start } else { Instant::now() };
            let allowed = match matcher.mask(self.limit) {
                Ok(mask) => mask.allows(id),
                Err(error) => {
                    self.unclosed.push(format!("{error}: {}", text.chars().take(200).collect::<String>()));
                    return (false, at);
                }
            };
            if at == 0 { &mut self.first } else { &mut self.masks }.push(before.elapsed());
            if !allowed {
                return (false, at);
            }
            let before = Instant::now();
            let accepted = matcher.accept(id, self.limit);
            self.accepts.push(before.elapsed());
            if !accepted.is_ok_and(|accepted| accepted == Accepted::Yes) {
                self.unclosed.push(text.chars().take(200).collect());
                return (false, at);
            }
        }
        (matcher.is_complete().expect("runs"), ids.len())
    }

    fn report(&mut self, list: bool) {
        let refused: usize = self.refused.values().sum();
        println!("  schemas: {} of {} enforced", self.schemas - refused, self.schemas);
        let mut by: Vec<_> = self.refused.iter().collect();
        by.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in by.iter().take(if list { usize::MAX } else { 12 }) {
            println!("    refused {count}: {reason}");
        }
        println!(
            "  instances: {}; wrongly accepted {}, wrongly forbidden {}",
            self.instances,
            self.wrongly_accepted.len(),
            self.wrongly_forbidden.len()
        );
        println!("  texts without a completion: {}", self.unclosed.len());
        if list {
            self.unclosed.iter().for_each(|text| println!("    no completion: {text}"));
            self.wrongly_accepted.iter().for_each(|name| println!("    accepted: {name}"));
            self.wrongly_forbidden.iter().for_each(|name| println!("    forbidden: {name}"));
        }
        for (what, times) in [
            ("compile", &mut self.compile),
            ("first mask", &mut self.first),
            ("mask", &mut self.masks),
            ("accept", &mut self.accepts),
        ] {
            times.sort_unstable();
            let at = |share: f64| {
                let index = (times.len() as f64 * share) as usize;
                times
                    .get(index.min(times.len().saturating_sub(1)))
                    .map_or(0.0, |time| time.as_secs_f64() * 1e6)
            };
            println!(
                "  {what} (us): n {}, p50 {:.0}, p99 {:.0}, max {:.0}",
                times.len(),
                at(0.5),
                at(0.99),
                at(1.0)
            );
        }
    }
}

/// How keys are ordered: as in the schemas under `root`, with the `of`-th alternative before the others (from 1 on).
struct Order<'a> {
    root: &'a Value,
    of: usize,
}

/// `data` as it is written under a constraint: whole numbers without a fraction, keys in the order of the schemas.
fn written(data: &Value, schemas: &[&Value], root: &Order<'_>) -> Value {
    let mut all = Vec::new();
    schemas.iter().for_each(|schema| parts(schema, root, &mut all, 0));
    let literals = all.iter().flat_map(|schema| {
        let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
        schema.get("const").into_iter().chain(listed)
    });
    // Equal whatever the order of keys is.
    let mut literals = literals.filter(|literal| literal.is_object() && *literal == data);
    if let Some(literal) = literals.next() {
        return literal.clone();
    }
    match data {
        Value::Number(number) => match number.as_f64() {
            Some(value) if value.fract() == 0.0 && value.abs() < 1e16 => Value::from(value as i64),
            _ => data.clone(),
        },
        Value::Array(items) => {
            let of = |at: usize| -> Vec<&Value> {
                let under = |key: &str| all.iter().filter_map(|schema| schema.get(key)).collect::<Vec<_>>();
                let mut found: Vec<&Value> =
                    under("prefixItems").iter().filter_map(|list| list.get(at)).collect();
                for items in under("items") {
                    found.push(items.get(at).unwrap_or(items));
                }
                found
            };
            Value::Array(items.iter().enumerate().map(|(at, item)| written(item, &of(at), root)).collect())
        }
        Value::Object(object) => {
            let mut order: Vec<&str> = Vec::new();
            if root.of == 5 {
                all.clear();
            }
            for schema in &all {
                let properties = schema.get("properties").and_then(Value::as_object);
                order.extend(
                    properties.into_iter().flat_map(|properties| properties.keys().map(String::as_str)),
                );
            }
            for schema in &all {
                let required = schema.get("required").and_then(Value::as_array);
                order.extend(required.into_iter().flatten().filter_map(Value::as_str));
            }
            let place = |key: &str| order.iter().position(|name| *name == key).unwrap_or(usize::MAX);
            let mut entries: Vec<(&String, &Value)> = object.iter().collect();
            entries.sort_by_key(|(key, _)| place(key));
            let child = |key: &str| -> Vec<&Value> {
                let named = all.iter().filter_map(|schema| schema.get("properties")?.get(key));
                let others = all.iter().filter_map(|schema| schema.get("additionalProperties"));
                named.chain(others).collect()
            };
            let entries =
                entries.into_iter().map(|(key, value)| (key.clone(), written(value, &child(key), root)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        _ => data.clone(),
    }
}

/// `schema` and those that hold at the same place.
fn parts<'a>(schema: &'a Value, root: &Order<'a>, all: &mut Vec<&'a Value>, depth: usize) {
    if depth > 16 {
        return;
    }
    all.push(schema);
    let Some(object) = schema.as_object() else { return };
    for (key, value) in object {
        match (key.as_str(), value) {
            ("allOf" | "anyOf" | "oneOf", Value::Array(list)) => {
                // One of the alternatives before the others.
                let first = list.get(root.of.wrapping_sub(1)).filter(|_| key != "allOf");
                first.into_iter().chain(list).for_each(|schema| parts(schema, root, all, depth + 1));
            }
            ("$ref", Value::String(reference)) => {
                if let Some(target) =
                    reference.split_once('#').and_then(|(_, pointer)| root.root.pointer(pointer))
                {
                    parts(target, root, all, depth + 1);
                }
            }
            _ => {}
        }
    }
}
