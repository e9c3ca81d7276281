//! Results as text and as JSON.

use clawdbot_core::{Completion, Model};
use serde_json::{Value, json};

/// Peak memory of this process in bytes; `None` if the system does not say.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    // Not getrusage(2): it may report the peak of the parent process.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// A size with a unit.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.2} {unit}", bytes as f64 / *size as f64),
        None => format!("{bytes} B"),
    }
}

/// A rounded count, such as `1.24 B` parameters.
pub(crate) fn count(n: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, " B"), (1_000_000, " M"), (1000, " K")];
    match UNITS.iter().find(|(size, _)| n >= *size) {
        Some((size, unit)) => format!("{:.2}{unit}", n as f64 / *size as f64),
        None => n.to_string(),
    }
}

/// `1 text`, `2 texts`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// One line of statistics about a generation.
pub(crate) fn summary(completion: &Completion, model: &Model) -> String {
    let usage = &completion.usage;
    let cached = match usage.cached_tokens {
        0 => String::new(),
        n => format!(" ({n} cached)"),
    };
    let guessed = match usage.draft_tokens {
        0 => String::new(),
        n => format!(" ({} of {} right)", usage.accepted_tokens, counted(n, "draft token")),
    };
    let memory = peak_rss_bytes().map_or_else(|| "unknown".to_owned(), bytes);
    format!(
        "[{}{cached}, prefill {:.1} tokens/s | {}{guessed}, decode {:.1} tokens/s | first token {:.1} ms | \
         peak memory {memory} | {}, {} | {}]",
        counted(usage.prompt_tokens, "prompt token"),
        usage.prefill_tokens_per_s(),
        counted(usage.completion_tokens, "token"),
        usage.decode_tokens_per_s(),
        usage.time_to_first_token() * 1e3,
        model.runtime().kernels(),
        counted(model.runtime().threads(), "thread"),
        completion.finish_reason.name(),
    )
}

/// A completion as the library returns it, and what computed it, as one object.
pub(crate) fn completion_json(completion: &Completion, model: &Model) -> Value {
    let plan = &model.info().plan;
    let mut object = Value::Object(completion.to_json());
    object["model"] = json!(plan.name);
    object["weights"] = json!(plan.weights);
    object["kv"] = json!(plan.kv);
    object["kernels"] = json!(plan.kernels);
    object["threads"] = json!(plan.threads);
    object["peak_rss_bytes"] = json!(peak_rss_bytes());
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts() {
        for (n, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (5 << 30, "5.00 GiB")] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!([0, 1, 2].map(|n| counted(n, "text")), ["0 texts", "1 text", "2 texts"]);
        for (n, text) in [(999, "999"), (1_235_814_400, "1.24 B"), (3_012_864, "3.01 M")] {
            assert_eq!(count(n), text);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn peak_memory_is_known() {
        assert!(peak_rss_bytes().unwrap() > 1 << 20);
    }
}
