//! Downloads from a server that behaves like a hub, and has faults.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clawdbot_hub::{
    Error, ErrorKind, ModelId, Progress, Request, Settings, Site, Snapshot, fetch, fetch_with_warnings,
};
use support::{COMMIT, Fault, Hub, git, sha256};
use tempfile::TempDir;

const CONFIG: &str = r#"{"model_type": "llama"}"#;
const WEIGHTS: &str = "model.safetensors";

/// Bytes that compress badly and do not repeat.
fn weights() -> Vec<u8> {
    (0..700_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).take(1_500_000).collect()
}

fn model() -> Hub {
    Hub::start()
        .git_file("config.json", CONFIG)
        .git_file("tokenizer.json", "{}")
        .git_file("README.md", "# no")
        .file("pytorch_model.bin", "a pickle")
        .file(WEIGHTS, weights())
}

struct Client {
    cache: TempDir,
    settings: Settings,
    request: Request,
}

impl Client {
    fn new(hub: &Hub) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let mut settings = Settings::from_env(Some(Site::HuggingFace)).unwrap();
        settings.endpoint.clone_from(&hub.url);
        settings.cache = cache.path().to_owned();
        // Independent of the environment of the tests.
        (settings.token, settings.offline, settings.proxy, settings.certificates) =
            (None, false, false, None);
        settings.retry_delay = Duration::from_millis(1);
        settings.read_timeout = Duration::from_secs(10);
        let mut request = Request::new(ModelId::parse("org/model").unwrap());
        request.small_files =
            ["config.json", "tokenizer.json", "chat_template.jinja"].map(str::to_owned).into();
        Client { cache, settings, request }
    }

    fn fetch(&self) -> Result<Snapshot, Error> {
        fetch(&self.settings, &self.request, |_| true)
    }

    /// The result, and the warnings.
    fn told(&self) -> (Result<Snapshot, Error>, Vec<String>) {
        let mut told = Vec::new();
        let result =
            fetch_with_warnings(&self.settings, &self.request, |_| true, |text| told.push(text.to_owned()));
        (result, told)
    }

    /// The error, which must be of `kind` and contain `text`.
    fn fails(&self, kind: ErrorKind, text: &str) -> Error {
        let error = self.fetch().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(text), "{error}");
        error
    }

    fn repository(&self) -> PathBuf {
        self.cache.path().join("models--org--model")
    }

    fn incomplete(&self) -> PathBuf {
        self.repository().join("blobs").join(format!("{}.incomplete", sha256(&weights())))
    }
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn huggingface_layout() {
    let hub = model();
    let client = Client::new(&hub);
    let found = client.fetch().unwrap();
    let root = client.repository();
    assert_eq!(found.path, root.join("snapshots").join(COMMIT));
    assert_eq!(found.revision, COMMIT);
    assert_eq!(found.downloaded_bytes, (CONFIG.len() + 2 + weights().len()) as u64);
    assert_eq!(files(&found.path), ["config.json", WEIGHTS, "tokenizer.json"]);
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
    let mut blobs = [git(CONFIG.as_bytes()), git(b"{}"), sha256(&weights())];
    blobs.sort();
    assert_eq!(files(&root.join("blobs")), blobs);
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(files(&root.join(".no_exist").join(COMMIT)), ["chat_template.jinja"]);
    assert_eq!(files(&client.cache.path().join(".locks/models--org--model")).len(), 3);
    #[cfg(unix)]
    {
        let link = fs::read_link(found.path.join("config.json")).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(git(CONFIG.as_bytes())));
    }
    let agent = hub.seen().remove(0).headers.remove("user-agent").unwrap();
    assert!(agent.starts_with("clawdbot/"), "{agent}");
}

#[test]
fn progress() {
    // Each request takes longer than the time between two calls.
    let hub = model().delay(Duration::from_millis(200));
    let client = Client::new(&hub);
    let mut calls: Vec<Progress> = Vec::new();
    let found = fetch(&client.settings, &client.request, |progress| {
        calls.push(*progress);
        true
    });
    assert_eq!((calls[0].bytes, calls[0].total_bytes), (0, 0));
    let total = found.unwrap().downloaded_bytes;
    assert_eq!(calls.last().unwrap().total_bytes, total);
    assert!(calls.windows(2).all(|pair| pair[0].bytes <= pair[1].bytes && pair[1].bytes <= total));
}

#[test]
fn cached_files_are_not_requested_again() {
    let hub = model();
    let mut client = Client::new(&hub);
    let first = client.fetch().unwrap();
    hub.seen();
    // A branch may have moved: one request shows that it has not.
    let again = client.fetch().unwrap();
    assert_eq!((&again.path, again.downloaded_bytes), (&first.path, 0));
    assert_eq!(hub.seen().len(), 1);
    // A commit cannot move.
    client.request.revision = Some(COMMIT.into());
    assert_eq!(client.fetch().unwrap().path, first.path);
    assert_eq!(hub.seen().len(), 0);
    // Unless it was never checked whether it has a file of that name.
    client.request.small_files.push("generation_config.json".into());
    client.fetch().unwrap();
    assert_eq!(hub.seen().len(), 1);
    client.fetch().unwrap();
    assert_eq!(hub.seen().len(), 0);
}

#[test]
fn an_unchecked_commit_is_complete_if_the_model_is() {
    let hub = model();
    let mut client = Client::new(&hub);
    let first = client.fetch().unwrap();
    hub.seen();
    // As Hugging Face's tool leaves it.
    let notes = client.repository().join(".no_exist");
    fs::remove_dir_all(&notes).unwrap();
    client.request.revision = Some(COMMIT.into());
    let (found, told) = client.told();
    assert_eq!((found.unwrap().path, told), (first.path.clone(), Vec::new()));
    assert_eq!(hub.seen().len(), 0);
    // Only part of the repository.
    for (file, requests) in [("tokenizer.json", 2), (WEIGHTS, 2)] {
        fs::remove_file(first.path.join(file)).unwrap();
        client.fetch().unwrap();
        assert!(first.path.join(file).exists());
        assert!(hub.seen().len() <= requests, "{file}");
        fs::remove_dir_all(&notes).unwrap();
    }
}

#[test]
fn an_unchecked_commit_is_used_without_a_network() {
    let hub = model();
    let mut client = Client::new(&hub);
    let first = client.fetch().unwrap();
    client.request.revision = Some(COMMIT.into());
    client.request.small_files.push("generation_config.json".into());
    client.settings.endpoint = "http://127.0.0.1:1".into();
    let (found, told) = client.told();
    assert_eq!(found.unwrap().path, first.path);
    let last = told.last().unwrap();
    assert!(last.contains("copy in the cache") && last.contains("generation_config.json"), "{told:?}");
}

#[test]
fn without_a_network_retries_are_few_and_reported() {
    let hub = model();
    let mut client = Client::new(&hub);
    client.settings.endpoint = "http://127.0.0.1:1".into();
    let (result, told) = client.told();
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.message().ends_with("gave up after 3 attempts in a row"), "{error}");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("no answer: ") && told[0].ends_with("trying again in 0.0 s (1 of 2)"),
        "{told:?}"
    );
    // With a copy in the cache the error says how to use it.
    client.settings.endpoint.clone_from(&hub.url);
    client.fetch().unwrap();
    client.settings.endpoint = "http://127.0.0.1:1".into();
    client.fails(ErrorKind::Unreachable, "--offline");
    // After an answer of the server there are more retries.
    client.settings.endpoint.clone_from(&hub.url);
    hub.fault("revision/main", 4, Fault::Status(503, ""));
    let (result, told) = client.told();
    result.unwrap();
    assert_eq!(told.len(), 4);
    assert!(told[3].contains("answers 503; trying again") && told[3].ends_with("(4 of 5)"), "{told:?}");
}

#[test]
fn signatures_are_secret() {
    let hub = model();
    hub.fault("resolve", usize::MAX, Fault::Redirect("http://127.0.0.1:1/cdn?signature=secret".into()));
    let mut client = Client::new(&hub);
    client.settings.retries = 1;
    let (result, told) = client.told();
    let error = result.unwrap_err();
    assert!(error.message().contains("http://127.0.0.1:1/cdn: no answer"), "{error}");
    assert!(!told.is_empty());
    for text in told.iter().map(String::as_str).chain([error.message(), error.url().unwrap()]) {
        assert!(!text.contains("secret") && !text.contains("signature"), "{text}");
    }
    // Nor the password of an endpoint.
    client.settings.endpoint = "https://me:secret@127.0.0.1".into();
    assert!(!client.fails(ErrorKind::InvalidArgument, "endpoint").message().contains("secret"));
}

#[test]
fn a_quantization_by_its_name() {
    let hub = Hub::start().file("m-Q4_K_M.gguf", "GGUF4").file("m-Q8_0.gguf", "GGUF8");
    let mut client = Client::new(&hub);
    client.request.quantization = Some("q8_0".into());
    let found = client.fetch().unwrap();
    assert!(found.path.ends_with("m-Q8_0.gguf"), "{}", found.path.display());
    client.request.quantization = Some("Q5_0".into());
    client.fails(ErrorKind::NotFound, "Q5_0, found m-Q4_K_M.gguf, m-Q8_0.gguf");
}

#[test]
fn offline() {
    let hub = model();
    let mut client = Client::new(&hub);
    client.settings.offline = true;
    client.fails(ErrorKind::NotFound, "HF_HUB_OFFLINE");
    client.settings.offline = false;
    let first = client.fetch().unwrap();
    hub.seen();
    client.settings.offline = true;
    for revision in [None, Some("main"), Some(COMMIT)] {
        client.request.revision = revision.map(str::to_owned);
        assert_eq!(client.fetch().unwrap().path, first.path);
    }
    client.request.revision = Some("other".into());
    client.fails(ErrorKind::NotFound, "org/model at other");
    client.request.revision = None;
    fs::remove_file(first.path.join(WEIGHTS)).unwrap();
    client.fails(ErrorKind::NotFound, "incomplete");
    assert_eq!(hub.seen().len(), 0);
}

#[test]
fn shards_that_the_index_names() {
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let hub = Hub::start()
        .git_file("config.json", CONFIG)
        .git_file("model.safetensors.index.json", index)
        .file("model-00001-of-00002.safetensors", "one")
        .file("model-00002-of-00002.safetensors", "two")
        .file("consolidated.safetensors", "all of it once more");
    let client = Client::new(&hub);
    let found = client.fetch().unwrap();
    assert_eq!(found.downloaded_bytes, (CONFIG.len() + index.len() + 6) as u64);
    assert_eq!(files(&found.path).len(), 4);
}

#[test]
fn a_single_file_next_to_an_index() {
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let single = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &weights()].concat();
    let repository = |index: &str| {
        Hub::start()
            .git_file("config.json", CONFIG)
            .git_file("tokenizer.json", "{}")
            .git_file("model.safetensors.index.json", index)
            .file("1.safetensors", "one")
            .file(WEIGHTS, single.clone())
    };
    let whole = repository(r#"{"weight_map": {"a": "1.safetensors"}}"#);
    // Only the single file, as in transformers; nothing of the index is left in its folder.
    let client = Client::new(&whole);
    whole.fault(WEIGHTS, 1, Fault::Cut(20));
    let found = client.fetch().unwrap();
    assert_eq!(files(&found.path), ["config.json", WEIGHTS, "tokenizer.json"]);
    // A leftover, which lacks tensors of the index.
    let leftover = repository(r#"{"weight_map": {"a": "1.safetensors", "b": "1.safetensors"}}"#);
    let mut client = Client::new(&leftover);
    let found = client.fetch().unwrap();
    let shards = ["1.safetensors", "config.json", "model.safetensors.index.json", "tokenizer.json"];
    assert_eq!(files(&found.path), shards);
    client.settings.offline = true;
    assert_eq!(client.fetch().unwrap().path, found.path);
    // As Hugging Face's own tool downloads it: everything.
    fs::write(found.path.join(WEIGHTS), &single).unwrap();
    assert_eq!(client.fetch().unwrap().path, found.path);
    fs::remove_file(found.path.join("1.safetensors")).unwrap();
    client.fetch().unwrap();
    fs::remove_file(found.path.join(WEIGHTS)).unwrap();
    client.fails(ErrorKind::NotFound, "incomplete");
}

#[test]
fn gguf_files() {
    let split = ["q4/m-00001-of-00002.gguf", "q4/m-00002-of-00002.gguf"];
    let hub = Hub::start().file(split[0], "GGUF1").file(split[1], "GGUF2").file("q8/m.gguf", "GGUF");
    let mut client = Client::new(&hub);
    client.fails(ErrorKind::InvalidArgument, "q8/m.gguf");
    client.request.file = Some("q5/m.gguf".into());
    client.fails(ErrorKind::NotFound, "q8/m.gguf");
    client.request.file = Some("q8/m.gguf".into());
    let found = client.fetch().unwrap();
    assert_eq!(found.path, client.repository().join("snapshots").join(COMMIT).join("q8/m.gguf"));
    assert_eq!(fs::read(&found.path).unwrap(), b"GGUF");
    client.request.file = Some(split[1].into());
    let found = client.fetch().unwrap();
    assert!(found.path.ends_with(split[0]));
    assert_eq!(fs::read(found.path.with_file_name("m-00002-of-00002.gguf")).unwrap(), b"GGUF2");
    // A commit and a file in the cache: no request.
    (client.request.revision, client.settings.endpoint) = (Some(COMMIT.into()), "http://127.0.0.1:1".into());
    client.fetch().unwrap();
}

#[test]
fn the_only_gguf_file() {
    let hub = Hub::start().file("m.gguf", "GGUF").file("mmproj-m.gguf", "no").git_file("config.json", CONFIG);
    let mut client = Client::new(&hub);
    assert!(client.fetch().unwrap().path.ends_with("m.gguf"));
    hub.seen();
    client.request.revision = Some(COMMIT.into());
    client.fetch().unwrap();
    assert_eq!(hub.seen().len(), 0);
}

#[test]
fn pickles_are_not_downloaded() {
    let hub = Hub::start().git_file("config.json", CONFIG).file("pytorch_model.bin", "a pickle");
    Client::new(&hub).fails(ErrorKind::Unsupported, "pytorch_model.bin");
    assert_eq!(hub.seen().len(), 1);
}

#[test]
fn interrupted_downloads_resume() {
    let hub = model();
    hub.fault(WEIGHTS, 1, Fault::Cut(400_000));
    hub.fault(WEIGHTS, 1, Fault::Cut(500_000));
    let client = Client::new(&hub);
    let found = client.fetch().unwrap();
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
    let seen = hub.seen();
    let ranges: Vec<_> = seen
        .iter()
        .filter(|seen| seen.target.contains(WEIGHTS))
        .map(|seen| seen.headers.get("range"))
        .collect();
    assert_eq!(ranges, [None, Some(&"bytes=400000-".into()), Some(&"bytes=900000-".into())]);
}

#[test]
fn a_connection_that_is_always_cut() {
    let hub = model();
    hub.fault(WEIGHTS, 1, Fault::Cut(1000));
    hub.fault(WEIGHTS, usize::MAX, Fault::Cut(0));
    let mut client = Client::new(&hub);
    client.settings.retries = 2;
    let error = client.fails(ErrorKind::Unreachable, "gave up after 3 attempts");
    assert!(error.message().contains(WEIGHTS), "{error}");
    // The part stays, and the next download resumes it.
    assert_eq!(fs::read(client.incomplete()).unwrap(), &weights()[..1000]);
    assert!(!client.repository().join("refs").exists());
    let hub = model();
    client.settings.endpoint.clone_from(&hub.url);
    let found = client.fetch().unwrap();
    assert_eq!(found.downloaded_bytes, weights().len() as u64 - 1000);
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
    assert!(!client.incomplete().exists());
}

#[test]
fn a_server_without_ranges() {
    for fault in [Fault::IgnoreRange, Fault::WrongRange, Fault::Status(416, "")] {
        let hub = model();
        hub.fault(WEIGHTS, 1, Fault::Cut(1000));
        hub.fault(WEIGHTS, 1, fault);
        let client = Client::new(&hub);
        let found = client.fetch().unwrap();
        assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
    }
}

#[test]
fn a_wrong_length() {
    let hub = model();
    hub.fault(WEIGHTS, 1, Fault::Longer(7));
    Client::new(&hub).fails(ErrorKind::BadContent, "expected a file of 1500000 bytes, found 1500007");
}

#[test]
fn a_wrong_checksum() {
    let hub = model();
    hub.fault(WEIGHTS, 1, Fault::Corrupt);
    let client = Client::new(&hub);
    let error = client.fails(ErrorKind::BadContent, &sha256(&weights()));
    assert!(error.url().unwrap().ends_with(WEIGHTS));
    assert!(!client.incomplete().exists());
    assert!(!client.repository().join("snapshots").join(COMMIT).join(WEIGHTS).exists());
    // Small files have checksums too.
    let hub = model();
    hub.fault("tokenizer.json", 1, Fault::Corrupt);
    Client::new(&hub).fails(ErrorKind::BadContent, &git(b"{}"));
}

#[test]
fn a_corrupt_part() {
    let hub = model();
    let client = Client::new(&hub);
    fs::create_dir_all(client.incomplete().parent().unwrap()).unwrap();
    for bytes in [vec![7; 1000], vec![7; 2_000_000], vec![7; 1_500_000]] {
        fs::write(client.incomplete(), bytes).unwrap();
        let found = client.fetch().unwrap();
        assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
        fs::remove_dir_all(client.repository().join("snapshots")).unwrap();
        fs::remove_file(client.repository().join("blobs").join(sha256(&weights()))).unwrap();
    }
}

#[test]
fn missing_things() {
    let hub = model();
    let mut client = Client::new(&hub);
    client.request.revision = Some("v9".into());
    let error = client.fails(ErrorKind::NotFound, "no such revision");
    assert_eq!(error.status(), Some(404));
    client.request = Request::new(ModelId::parse("org/other").unwrap());
    client.fails(ErrorKind::NotFound, "Repository not found");
    let client = Client::new(&hub);
    hub.fault("resolve", 1, Fault::Status(404, "X-Error-Code: EntryNotFound\r\n"));
    client.fails(ErrorKind::NotFound, "no such file");
    client.fetch().unwrap();
}

#[test]
fn tokens_and_gates() {
    let hub = model().token("hf_right");
    let mut client = Client::new(&hub);
    let error = client.fails(ErrorKind::AccessDenied, "set HF_TOKEN");
    assert_eq!(error.status(), Some(401));
    client.settings.token = Some("hf_wrong".into());
    let error = client.fails(ErrorKind::AccessDenied, "Invalid credentials");
    assert!(!error.message().contains("hf_wrong"));
    client.settings.token = Some("hf_right".into());
    client.fetch().unwrap();
    client.settings.token = Some("hf_\n".into());
    client.fails(ErrorKind::InvalidArgument, "token");

    let hub = model();
    hub.fault("resolve", 1, Fault::Status(403, "X-Error-Code: GatedRepo\r\nX-Error-Message: Ask nicely\r\n"));
    Client::new(&hub).fails(ErrorKind::AccessDenied, "gated (Ask nicely): accept its conditions");
}

#[test]
fn the_token_is_only_sent_to_the_hub() {
    let cdn = Hub::start();
    let hub = model().cdn(&cdn).token("hf_right");
    let mut client = Client::new(&hub);
    client.settings.token = Some("hf_right".into());
    client.fetch().unwrap();
    assert!(hub.seen().iter().all(|seen| seen.headers["authorization"] == "Bearer hf_right"));
    let seen = cdn.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen.iter().all(|seen| !seen.headers.contains_key("authorization")));
    // Errors do not show signed addresses either.
    fs::remove_dir_all(client.repository()).unwrap();
    cdn.fault("cdn", usize::MAX, Fault::Status(403, ""));
    client.settings.retries = 1;
    let error = client.fails(ErrorKind::Unreachable, "answers 403");
    assert!(!error.message().contains("signature"), "{error}");
}

#[test]
fn redirects() {
    let hub = model();
    // A renamed repository: the same server, so the token is sent too.
    hub.fault(
        "revision/main",
        1,
        Fault::Redirect(format!("/api/models/org/model/revision/{COMMIT}?blobs=true")),
    );
    let mut client = Client::new(&hub);
    client.settings.token = Some("hf_right".into());
    client.fetch().unwrap();
    assert!(hub.seen()[1].headers.contains_key("authorization"));
    for (target, kind) in [
        ("file:///etc/passwd", ErrorKind::BadContent),
        ("ftp://127.0.0.1/x", ErrorKind::BadContent),
        ("/loop/revision/main", ErrorKind::BadContent),
    ] {
        let hub = model();
        hub.fault("revision/main", usize::MAX, Fault::Redirect(target.into()));
        let error = Client::new(&hub).fetch().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn too_many_requests() {
    let hub = model();
    hub.fault("revision/main", 1, Fault::Status(429, "Retry-After: 1\r\n"));
    let mut client = Client::new(&hub);
    let start = Instant::now();
    client.fetch().unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    hub.fault("revision/main", 1, Fault::Status(429, "Retry-After: 4000\r\n"));
    let error = client.fails(ErrorKind::Unreachable, "4000 s");
    assert_eq!((error.status(), error.retry_after()), (Some(429), Some(Duration::from_secs(4000))));
    client.settings.retries = 0;
    hub.fault("revision/main", 1, Fault::Status(429, ""));
    client.fails(ErrorKind::Unreachable, "too many requests");
}

#[test]
fn a_server_in_trouble() {
    let hub = model();
    hub.fault("revision/main", 2, Fault::Status(503, ""));
    hub.fault(WEIGHTS, 2, Fault::Status(500, ""));
    let mut client = Client::new(&hub);
    client.fetch().unwrap();
    hub.fault("revision/main", usize::MAX, Fault::Status(502, ""));
    client.settings.retries = 2;
    let error = client.fails(ErrorKind::Unreachable, "answers 502");
    assert_eq!(error.status(), Some(502));
    // No server listens.
    client.settings.endpoint = "http://127.0.0.1:1".into();
    client.fails(ErrorKind::Unreachable, "no answer");
}

#[test]
fn a_server_that_falls_silent() {
    let hub = model();
    hub.fault(WEIGHTS, 1, Fault::Stall(Duration::from_secs(20)));
    let mut client = Client::new(&hub);
    client.settings.read_timeout = Duration::from_millis(300);
    let start = Instant::now();
    client.fetch().unwrap();
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[test]
fn answers_that_make_no_sense() {
    let hub = model();
    hub.fault("revision/main", 1, Fault::Status(200, ""));
    Client::new(&hub).fails(ErrorKind::BadContent, "expected a list of files");
    for name in ["../../evil.gguf", "/etc/evil.gguf", "a/../../evil.gguf", "c:\\evil.gguf"] {
        let hub = Hub::start().file(name, "GGUF");
        let client = Client::new(&hub);
        client.fails(ErrorKind::Unsupported, "found none of them");
        assert_eq!(fs::read_dir(client.cache.path()).unwrap().count(), 0, "nothing was written");
    }
    let index = r#"{"weight_map": {"a": "../../../evil.safetensors"}}"#;
    let hub = Hub::start().git_file("config.json", CONFIG).git_file("model.safetensors.index.json", index);
    Client::new(&hub).fails(ErrorKind::BadContent, "inside the repository");
}

#[test]
fn odd_names_are_skipped() {
    let names = ["a: b?.md", "dot.", "space ", "../../up.md", "new\nline", "c\\d"];
    let hub = names.into_iter().fold(model(), |hub, name| hub.file(name, "odd"));
    let client = Client::new(&hub);
    let found = client.fetch().unwrap();
    assert_eq!(files(&found.path), ["config.json", WEIGHTS, "tokenizer.json"]);
}

#[test]
fn requests_that_make_no_sense() {
    let hub = model();
    let mut client = Client::new(&hub);
    for revision in ["../x", "", "a//b", "/main", "a\\b"] {
        client.request.revision = Some(revision.into());
        client.fails(ErrorKind::InvalidArgument, "revision");
    }
    client.request.revision = Some("refs/pr/1".into());
    client.request.small_files.push("../../refs/main".into());
    client.fails(ErrorKind::InvalidArgument, "inside the repository");
    client.request.small_files.pop();
    client.fetch().unwrap();
    assert_eq!(fs::read_to_string(client.repository().join("refs/refs/pr/1")).unwrap(), COMMIT);
    assert!(hub.seen().iter().all(|seen| !seen.target.contains("..")));
    client.settings.endpoint = "huggingface.co".into();
    client.fails(ErrorKind::InvalidArgument, "endpoint");
}

#[test]
fn a_hub_that_lists_only_names() {
    let cdn = Hub::start();
    let hub = model().cdn(&cdn).bare();
    let client = Client::new(&hub);
    let found = client.fetch().unwrap();
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
    assert_eq!(hub.seen().iter().filter(|seen| seen.method == "HEAD").count(), 3);
    assert!(cdn.seen().iter().all(|seen| seen.method == "GET"));
}

#[test]
fn two_at_once_download_once() {
    let hub = model().delay(Duration::from_millis(100));
    let client = Client::new(&hub);
    let bytes: u64 = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| client.fetch().unwrap()));
        both.into_iter().map(|one| u64::from(one.join().unwrap().path.join(WEIGHTS).is_file())).sum()
    });
    assert_eq!(bytes, 2);
    assert_eq!(hub.seen().iter().filter(|seen| seen.target.contains("resolve")).count(), 3);
}

#[test]
fn the_lock_of_another_process_is_waited_for() {
    let hub = model();
    let client = Client::new(&hub);
    let locks = client.cache.path().join(".locks/models--org--model");
    fs::create_dir_all(&locks).unwrap();
    let lock = fs::File::create(locks.join(format!("{}.lock", sha256(&weights())))).unwrap();
    lock.lock().unwrap();
    let start = Instant::now();
    let waiting = fetch(&client.settings, &client.request, |_| start.elapsed() < Duration::from_millis(400));
    assert_eq!(waiting.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(!client.incomplete().exists());
    lock.unlock().unwrap();
    client.fetch().unwrap();
}

#[test]
fn a_download_that_is_stopped() {
    let hub = model().delay(Duration::from_millis(200));
    let client = Client::new(&hub);
    let error = fetch(&client.settings, &client.request, |_| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    client.fetch().unwrap();
}

#[test]
fn modelscope() {
    let hub = model().token("ms-1");
    let mut client = Client::new(&hub);
    client.settings.site = Site::ModelScope;
    client.fails(ErrorKind::AccessDenied, "set MODELSCOPE_API_TOKEN");
    hub.seen();
    client.settings.token = Some("ms-1".into());
    let found = client.fetch().unwrap();
    let root = client.cache.path().join("models/org--model");
    assert_eq!((found.path.clone(), found.revision.as_str()), (root.join("snapshots/master"), "master"));
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), weights());
    assert!(hub.seen().iter().all(|seen| seen.headers["cookie"] == "m_session_id=ms-1"));
    // Files that ModelScope's own tool left there are used if they are right.
    for (content, came) in [(weights(), 0), (vec![7; 1_500_000], 1_500_000)] {
        let path = found.path.join(WEIGHTS);
        fs::remove_file(&path).unwrap();
        fs::remove_file(root.join("blobs").join(sha256(&weights()))).unwrap_or_default();
        fs::write(&path, content).unwrap();
        assert_eq!(client.fetch().unwrap().downloaded_bytes, came);
        assert_eq!(fs::read(&path).unwrap(), weights());
    }
    // A branch that moved.
    let hub = model().token("ms-1").file("config.json", "{}");
    client.settings.endpoint.clone_from(&hub.url);
    assert_eq!(client.fetch().unwrap().downloaded_bytes, 0, "the same bytes as the tokenizer's");
    assert_eq!(fs::read(found.path.join("config.json")).unwrap(), b"{}");
    client.settings.offline = true;
    client.fetch().unwrap();
    client.request.revision = Some("v1".into());
    client.fails(ErrorKind::NotFound, "org/model at v1");
}

#[test]
fn a_branch_of_modelscope_that_lost_files() {
    let template = "chat_template.jinja";
    let hub = model().file(template, "{{ old }}");
    let mut client = Client::new(&hub);
    client.settings.site = Site::ModelScope;
    let found = client.fetch().unwrap();
    assert_eq!(files(&found.path), [template, "config.json", WEIGHTS, "tokenizer.json"]);
    // The weights are in shards now, and the template is gone.
    let (index, shard) = ("model.safetensors.index.json", "model-00001-of-00001.safetensors");
    let sharded = || {
        let hub = Hub::start().file("config.json", CONFIG).file("tokenizer.json", "{}").file(shard, "new");
        hub.file(index, format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#))
    };
    // Back again: files once recorded as missing are removed again.
    for _ in 0..2 {
        client.settings.endpoint = sharded().url;
        assert_eq!(client.fetch().unwrap().path, found.path);
        assert_eq!(files(&found.path), ["config.json", shard, index, "tokenizer.json"]);
        client.settings.endpoint.clone_from(&hub.url);
        client.fetch().unwrap();
        assert!(found.path.join(WEIGHTS).is_file() && found.path.join(template).is_file());
    }
}
