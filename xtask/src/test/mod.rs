//! `cargo xtask test`: everything, set-up included, on a machine with Rust and Python and nothing else.

mod python;
mod step;
mod steps;

use std::path::Path;
use std::time::Instant;

use crate::command::target;
use crate::install;
use crate::skip::Skip;
use step::{Context, Depth, Outcome, Step};
use steps::STEPS;

pub(crate) const USAGE: &str = "  test [--quick | --full] [--no-skip] [STEP ...]
                     runs the steps named, or those of the depth, and reports what was skipped and why
                     as root on Debian, installs the packages that tests use (--quick: nothing)
    --quick          format, layers and the tests next to the code: for every day
    --full           the slow checks too
    --no-skip        fails where a check was skipped that this machine could run";

/// What the command line says.
#[derive(Debug, PartialEq)]
struct Options<'a> {
    depth: Depth,
    no_skip: bool,
    /// All of the depth if empty.
    steps: Vec<&'a str>,
}

impl<'a> Options<'a> {
    fn parse(arguments: &[&'a str]) -> Result<Self, String> {
        let mut options = Options { depth: Depth::Usual, no_skip: false, steps: Vec::new() };
        for &argument in arguments {
            match argument {
                "--quick" => options.depth = Depth::Quick,
                "--full" => options.depth = Depth::Full,
                "--no-skip" => options.no_skip = true,
                _ if STEPS.iter().any(|step| step.name == argument) => options.steps.push(argument),
                _ => {
                    let known: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
                    return Err(format!(
                        "{argument:?} is neither an option nor a step\n{USAGE}\n\nsteps: {}",
                        known.join(", ")
                    ));
                }
            }
        }
        Ok(options)
    }

    fn runs(&self, step: &Step) -> bool {
        if self.steps.is_empty() { step.from <= self.depth } else { self.steps.contains(&step.name) }
    }
}

/// A step that ran.
struct Ran {
    name: &'static str,
    seconds: f64,
    outcome: Result<Outcome, String>,
}

/// Runs the steps and reports.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let options = Options::parse(arguments)?;
    let context = Context { root: root.to_owned(), target: target(root), depth: options.depth };
    let _ = std::fs::remove_file(context.skipped());
    let mut ran = Vec::new();
    for step in STEPS.iter().filter(|step| options.runs(step)) {
        println!("== {}", step.name);
        let start = Instant::now();
        let outcome = (step.run)(&context);
        let done = Ran { name: step.name, seconds: start.elapsed().as_secs_f64(), outcome };
        println!("== {}: {}", done.name, shown(&done.outcome));
        ran.push(done);
    }
    let lines = std::fs::read_to_string(context.skipped()).unwrap_or_default();
    report(&options, &ran, &lines)
}

fn shown(outcome: &Result<Outcome, String>) -> String {
    match outcome {
        Ok(Outcome::Passed) => "ok".to_owned(),
        Ok(Outcome::Skipped(skip)) => format!("skipped: {skip}"),
        Err(message) => format!("FAILED: {message}"),
    }
}

/// What ran, how long it took, and what was skipped. `lines`: what the tests say they skipped.
fn report(options: &Options<'_>, ran: &[Ran], lines: &str) -> Result<(), String> {
    println!();
    for Ran { name, seconds, outcome } in ran {
        println!("{name:14} {seconds:6.0} s  {}", shown(outcome));
    }
    println!("{:14} {:6.0} s", "all", ran.iter().map(|step| step.seconds).sum::<f64>());
    let mut inside: Vec<Skip> = lines.lines().map(Skip::parse).collect();
    inside.sort();
    inside.dedup();
    if !inside.is_empty() {
        println!("\nskipped inside of tests:");
        inside.iter().for_each(|skip| println!("  {skip}"));
    }
    let later: Vec<&str> = STEPS
        .iter()
        .filter(|step| options.depth < Depth::Full && options.steps.is_empty() && step.from == Depth::Full)
        .map(|step| step.name)
        .collect();
    if !later.is_empty() {
        println!("\nonly in --full: {}, slow tests", later.join(", "));
    }
    let failed = ran.iter().filter(|step| step.outcome.is_err()).count();
    if failed > 0 {
        return Err(format!("{failed} of {} steps failed", ran.len()));
    }
    let steps = ran.iter().filter_map(|step| match &step.outcome {
        Ok(Outcome::Skipped(skip)) => Some(skip),
        _ => None,
    });
    // Where an installation failed, this machine could not avoid what it would have brought.
    let avoidable: Vec<String> = steps
        .chain(&inside)
        .filter(|skip| options.no_skip && skip.remedy.is_some() && !install::failed())
        .map(Skip::to_string)
        .collect();
    if avoidable.is_empty() {
        return Ok(());
    }
    Err(format!("skipped, and this machine could run it (--no-skip):\n  {}", avoidable.join("\n  ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_combine() {
        let parsed = Options::parse(&["--full", "lints", "--no-skip"]);
        assert_eq!(parsed, Ok(Options { depth: Depth::Full, no_skip: true, steps: vec!["lints"] }));
        let error = Options::parse(&["--fast"]).expect_err("an unknown option");
        assert!(error.contains("\"--fast\" is neither an option nor a step"), "{error}");
    }

    #[test]
    fn depths_choose_steps() {
        let names = |arguments: &[&str]| -> Vec<&str> {
            let options = Options::parse(arguments).expect("options");
            STEPS.iter().filter(|step| options.runs(step)).map(|step| step.name).collect()
        };
        assert_eq!(names(&["--quick"]), ["format", "layers", "tests"]);
        assert!(names(&[]).contains(&"python") && !names(&[]).contains(&"sanitizers"));
        assert_eq!(names(&["--full"]).len(), STEPS.len());
        assert_eq!(names(&["sanitizers"]), ["sanitizers"]);
    }

    #[test]
    fn no_skip_fails_where_there_is_a_remedy() {
        let skipped = |remedy: Option<&str>| {
            let skip = Skip { what: "x".to_owned(), remedy: remedy.map(str::to_owned) };
            [Ran { name: "x", seconds: 0.0, outcome: Ok(Outcome::Skipped(skip)) }]
        };
        let strict = Options::parse(&["--no-skip"]).expect("options");
        let usual = Options::parse(&[]).expect("options");
        assert!(report(&strict, &skipped(None), "no AMX\n").is_ok());
        assert!(report(&usual, &skipped(Some("setup")), "no valgrind\tapt-get\n").is_ok());
        assert!(report(&strict, &skipped(Some("setup")), "").is_err());
        let error = report(&strict, &[], "no valgrind\tapt-get\n").expect_err("avoidable");
        assert!(error.contains("no valgrind; to test it: apt-get"), "{error}");
    }
}
