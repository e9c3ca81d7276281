//! `clawdbot inspect`

use clawdbot_core::{Cpus, Plan, Runtime};
use serde_json::{Value, json};

use crate::args::{InspectArgs, OutputArgs};
use crate::hub::source;
use crate::output::{Failure, Outcome, in_own_terms, print, print_line};
use crate::report::{bytes, count, counted};

pub(crate) fn run(args: &InspectArgs) -> Result<Outcome, Failure> {
    let output = OutputArgs { quiet: false, json: args.json };
    let runtime = args.runtime.runtime(&output)?;
    let source = source(&runtime, args.model(), args.shape.as_ref(), &args.hub, &output)?;
    let plan = runtime.plan(&source, &args.load.options()?)?;
    let cpus = Cpus::detect();
    if args.json {
        print_line(&plan_json(&plan, &runtime, cpus))?;
    } else {
        print(&table(&plan, cpus))?;
    }
    Ok(if args.check && !plan.fits { Outcome::Failed } else { Outcome::Done })
}

fn plan_json(plan: &Plan, runtime: &Runtime, cpus: Cpus) -> Value {
    let mut object = json!(plan);
    object["available_kernels"] = json!(Runtime::available_kernels());
    object["named_kernels"] = json!(Runtime::named_kernels());
    object["refused_kernels"] = json!(Runtime::refused_kernels());
    object["kernel_names"] = json!(runtime.kernel_names());
    object["cpus"] = json!({"available": cpus.available, "physical": cpus.physical});
    object
}

/// What the model can do, by the names of the commands.
fn tasks(plan: &Plan) -> String {
    let mut all = Vec::new();
    for task in &plan.tasks {
        all.push(match *task {
            "embed" if plan.embedding.pooling.is_none() => "embed (with --pooling)",
            task => task,
        });
        if *task == "generate" {
            all.push(match plan.has_chat_template {
                true => "chat",
                false => "chat (with --chat-template)",
            });
        }
    }
    all.join(", ")
}

/// How texts become vectors or scores, for models made for that.
fn embedding(plan: &Plan) -> Option<String> {
    let info = &plan.embedding;
    let vectors = match (plan.tasks.contains(&"embed"), info.pooling) {
        (true, None) => return None,
        (true, Some(pooling)) => {
            let scaled = if info.normalize { ", scaled to length 1" } else { "" };
            format!("{}, pooling {}{scaled}, ", counted(info.dimensions, "dimension"), pooling.name())
        }
        (false, _) if plan.tasks.contains(&"rerank") => String::new(),
        (false, _) => return None,
    };
    let default = info.default_prompt_name.as_deref();
    let prompts: Vec<String> = info
        .prompts
        .iter()
        .map(|name| if default == Some(name) { format!("{name} (default)") } else { name.clone() })
        .collect();
    let prompts = match prompts.as_slice() {
        [] => String::new(),
        prompts => format!(", prompts: {}", prompts.join(", ")),
    };
    Some(format!("{vectors}texts of at most {}{prompts}", counted(info.max_tokens, "token")))
}

/// What their type does not say of the weights.
fn about_weights(plan: &Plan) -> String {
    let mixed = match plan.weights {
        "int4-mixed" => " (int8: embedding, output layer, first and last down projection)",
        _ => "",
    };
    let calibrated = plan.calibrated_tokens.map(|tokens| format!(", calibrated on {tokens} tokens"));
    format!("{mixed}{}", calibrated.unwrap_or_default())
}

/// What an evaluation found that is stored in the file.
fn evaluated(plan: &Plan) -> Option<String> {
    let report = plan.evaluation.as_ref()?;
    let number = |name: &str| report.get(name).and_then(Value::as_f64);
    let text = |name: &str| report.get(name).and_then(Value::as_str).unwrap_or("unknown");
    let mut all = Vec::new();
    all.extend(number("perplexity").map(|perplexity| format!("perplexity {perplexity:.4}")));
    all.extend(number("kl_divergence").map(|divergence| format!("divergence {divergence:.3e} nats")));
    all.extend(number("top1_agreement").map(|share| format!("same top-1 {:.2} %", 100.0 * share)));
    let reference = report.get("reference").and_then(|reference| reference.get("description")?.as_str());
    all.extend(reference.map(|reference| format!("reference: {reference}")));
    let line = format!("on {} with {} KV cache: {}", text("text"), text("kv"), all.join(", "));
    // Files are not trusted, and terminals obey control characters.
    Some(line.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
}

fn table(plan: &Plan, cpus: Cpus) -> String {
    let physical = cpus.physical.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let fits = if plan.fits { "fits into" } else { "does not fit into" };
    let fits = match plan.memory_budget {
        None => match plan.system_memory {
            None => "no budget is set, and the memory of this machine is unknown".to_owned(),
            Some(memory) => format!("no budget is set; {fits} the memory of {}", bytes(memory)),
        },
        Some(budget) => format!("{fits} the budget of {}", bytes(budget)),
    };
    let stored = match plan.stored_bytes {
        0 => "nothing: random weights".to_owned(),
        n if plan.verified => format!("{} in a packed file, checksum verified", bytes(n)),
        n if plan.packed => format!("{} in a packed file", bytes(n)),
        n => bytes(n),
    };
    let mut available = format!("available: {}", Runtime::available_kernels().join(", "));
    if let named @ [_, ..] = &*Runtime::named_kernels() {
        available += &format!("; with other numerics: {}", named.join(", "));
    }
    let rows = [
        ("model", plan.name.clone()),
        ("architecture", plan.architecture.to_owned()),
        ("can", tasks(plan)),
        (
            "parameters",
            format!("{} ({} in the layers)", count(plan.parameters), count(plan.block_parameters)),
        ),
        ("stored", stored),
        ("weights", format!("{} as {}{}", bytes(plan.weights_bytes), plan.weights, about_weights(plan))),
        ("KV cache", format!("{} per token as {}", bytes(plan.kv_bytes_per_token), plan.kv)),
        ("context", format!("{} tokens, {} when full", plan.max_context, bytes(plan.kv_bytes_full_context))),
        ("scratch", bytes(plan.scratch_bytes)),
        ("to load", format!("{}: {fits}", bytes(plan.load_bytes))),
        ("kernels", format!("{} ({available})", plan.kernels)),
        (
            "threads",
            format!(
                "{} (CPUs: {} available, physical cores: {physical}; numa: {})",
                plan.threads, cpus.available, plan.numa
            ),
        ),
    ];
    let formats = plan.stored.iter().map(|stored| {
        let how = if stored.own_codes { "from their own codes" } else { "converted" };
        let (matrices, weights) = (stored.matrices, count(stored.weights));
        ("", format!("{} {matrices} matrices, {weights} weights, {how}: {}", stored.format, stored.computed))
    });
    let refused = Runtime::refused_kernels()
        .into_iter()
        .map(|refused| ("", format!("{} switched off, self-test failed: {}", refused.name, refused.reason)));
    let weights = rows.iter().position(|(name, _)| *name == "weights").map_or(0, |at| at + 1);
    let embedding = embedding(plan).map(|facts| ("texts", facts));
    let evaluated = evaluated(plan).map(|found| ("evaluated", found));
    let warnings = plan.warnings.iter().map(|warning| ("warning", in_own_terms(warning)));
    let mut rows: Vec<(&str, String)> = rows.into_iter().chain(refused).chain(warnings).collect();
    rows.splice(weights..weights, formats.chain(evaluated));
    let can = rows.iter().position(|(name, _)| *name == "can").map_or(0, |at| at + 1);
    rows.splice(can..can, embedding);
    rows.into_iter().map(|(name, value)| format!("{name:<13}{value}\n")).collect()
}
