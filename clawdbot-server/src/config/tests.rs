use super::*;
use crate::settings::Fields;

fn config(text: &str) -> Result<Config> {
    Config::of(&Document::parse("clawdbot.toml", text)?, Path::new("/etc/clawdbot"))
}

const WHOLE: &str = r#"
[server]
host = "0.0.0.0"
port = 9000
default_model = "chat"
fields = "strict"
max_body = "1MiB"
drain_timeout = 5
tls_cert = "cert.pem"
tls_key = "/keys/key.pem"
cors_origins = ["https://example.org"]

[runtime]
threads = 4
memory_budget = "2GiB"
swap_space = 1_000_000
swap_directory = "swap"

[models.chat]
model = "builtin"
aliases = ["gpt-4o"]
weights = "f32"
max_queue = 10
instances = 2

[models."org/embed"]
model = "org/embed"
idle_unload = 60

[keys.team]
sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
models = ["chat"]
requests_per_minute = 60
priority = 20
"#;

#[test]
fn a_whole_file() {
    let config = config(WHOLE).expect("a configuration");
    assert_eq!((config.host.to_string().as_str(), config.port), ("0.0.0.0", 9000));
    let settings = &config.settings;
    assert_eq!((settings.fields, settings.max_body), (Fields::Strict, 1 << 20));
    assert_eq!(settings.drain_timeout, Duration::from_secs(5));
    assert_eq!((settings.aliases["gpt-4o"].as_str(), settings.max_waiting["chat"]), ("chat", 20));
    assert_eq!(config.runtime.memory_budget, Some(2 << 30));
    assert_eq!(config.runtime.driver, Driver::Thread);
    assert_eq!(config.runtime.swap_directory.as_deref(), Some(Path::new("/etc/clawdbot/swap")));
    assert_eq!(config.tls, Some(ConfigTls::new("/etc/clawdbot/cert.pem", "/keys/key.pem")));
    let [chat, embed] = &config.models[..] else { panic!("two models") };
    assert_eq!((chat.name.as_str(), chat.instances, chat.pin), ("chat", 2, true));
    assert_eq!(chat.options.max_queue, Some(10));
    assert_eq!(
        (embed.name.as_str(), embed.model.as_path(), embed.pin),
        ("org/embed", Path::new("org/embed"), false)
    );
    assert_eq!(embed.idle_unload, Some(Duration::from_secs(60)));
    let [key] = &settings.keys[..] else { panic!("a key") };
    assert_eq!(key.sha256, KeyLimits::of_key("team", "secret").sha256);
    assert_eq!((key.requests_per_minute, key.priority, key.concurrent), (Some(60), Some(20), None));
}

#[test]
fn errors_name_file_line_and_key() {
    for (from, to, expected) in [
        (
            "port = 9000",
            "port = 90000",
            "clawdbot.toml, line 4, key server.port: expected a whole number from 0 to 65535",
        ),
        ("port = 9000", "prot = 9000", "line 4, key server.prot: "),
        (
            "fields = \"strict\"",
            "fields = \"none\"",
            "line 6, key server.fields: expected known, strict or lenient",
        ),
        (
            "default_model = \"chat\"",
            "default_model = \"chit\"",
            "key server.default_model: expected one of chat, org/embed",
        ),
        (
            "max_body = \"1MiB\"",
            "max_body = \"1XB\"",
            "line 7, key server.max_body: expected a number of bytes",
        ),
        ("https://example.org", "https://example.org/", "key server.cors_origins: expected origins"),
        (
            "threads = 4",
            "threads = 0",
            "line 14, key runtime.threads: expected a whole number from 1 to 1024, found 0",
        ),
        ("threads = 4", "driver = \"caller\"", "line 14, key runtime.driver: expected thread"),
        ("\"2GiB\"", "\"2GB1\"", "line 15, key runtime.memory_budget: expected a number of bytes"),
        ("weights = \"f32\"", "weights = \"f33\"", "line 22, key models.chat.weights: expected one of int8"),
        ("max_queue = 10", "max_que = 10", "key models.chat.max_que: "),
        ("instances = 2", "instances = 0", "key models.chat.instances: expected a whole number from 1"),
        (
            "idle_unload = 60",
            "idle_unload = 60\npin = true",
            "key models.org/embed.idle_unload: expected pin false",
        ),
        ("\"gpt-4o\"", "\"org/embed\"", "key models.chat.aliases: expected names that no model has"),
        (
            "[models.chat]",
            "[models.\"\"]",
            "line 19, key models.: expected a name of 1 to 128 bytes, found one of 0",
        ),
        (
            "idle_unload = 60",
            "aliases = [\"gpt-4o\"]",
            "key models.org/embed.aliases: expected names that no model has",
        ),
        (
            "[keys.team]",
            "[keys.a]\nsha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"\n[keys.team]",
            "key keys.team.sha256: expected a key of its own, found that of \"a\"",
        ),
        ("2bb80d", "2bb80", "key keys.team.sha256: expected 64 hexadecimal digits"),
        ("models = [\"chat\"]", "models = [\"chit\"]", "key keys.team.models: expected some of chat"),
        (
            "requests_per_minute = 60",
            "requests_per_minute = 0",
            "key keys.team.requests_per_minute: expected",
        ),
        ("priority = 20", "priority = 101", "key keys.team.priority: expected a whole number from 0 to 100"),
        ("model = \"builtin\"", "", "line 19, key models.chat.model: expected a path"),
        ("[runtime]", "[runtim]", "line 13, key runtim: "),
        ("[runtime]", "[runtime", "line 13: "),
        (
            "threads = 4",
            "threads = 99999999999999999999",
            "line 14, key runtime.threads: expected a number from",
        ),
        ("threads = 4", "threads = 1979-05-27", "line 14, key runtime.threads: expected a text"),
        ("threads = 4", "threads = nan", "line 14, key runtime.threads: expected a finite number"),
    ] {
        assert!(WHOLE.contains(from), "{from}");
        let error = config(&WHOLE.replacen(from, to, 1)).expect_err(to);
        assert!(error.message().contains(expected), "{expected}: {error}");
        assert!(error.message().starts_with("clawdbot.toml"), "{error}");
    }
    let error = config("[server]\n").expect_err("no models");
    assert!(error.message().contains("key models: expected a table such as [models.chat]"), "{error}");
}

#[test]
fn suggestions_are_those_of_the_table() {
    let error = config(&WHOLE.replace("max_queue", "max_que")).expect_err("refused");
    assert!(
        error.message().contains("did you mean max_queue") || error.message().contains("max_queue"),
        "{error}"
    );
}

#[test]
fn deep_files_end() {
    let text = format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    config(&text).expect_err("refused");
}
