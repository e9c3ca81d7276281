//! An application over the built-in model, and requests to it.

use std::path::Path;
use std::sync::OnceLock;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use clawdbot_core::{
    Driver, Model, ModelOptions, ModelPool, PoolModel, Runtime, RuntimeOptions, Source, WeightType,
};
use clawdbot_server::{App, Settings, router};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

/// A template that shows tools, as those of Qwen do.
pub(crate) const TEMPLATE: &str = "{% if tools %}{% for tool in tools %}<tool_call>{{ tool | tojson }}\n{% endfor %}{% endif %}\
     {% for message in messages %}{{ message.role }}: {{ message.content }}{% if message.tool_calls %}\
     {{ message.tool_calls | tojson }}{% endif %}{{ '\\n' }}{% endfor %}assistant: ";

/// The runtime of all tests but those that read its numbers: its threads are few.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(own_runtime)
}

fn own_runtime() -> Runtime {
    let options = RuntimeOptions::default().driver(Driver::Thread).threads(2_u32);
    Runtime::new(&options).expect("a runtime")
}

/// The built-in model on a runtime of its own, whose numbers are those of its requests alone.
pub(crate) fn app_alone(settings: Settings) -> App {
    app_on(&own_runtime(), ModelOptions::default(), settings)
}

/// The built-in model, as `stories`.
pub(crate) fn app_with(options: ModelOptions, settings: Settings) -> App {
    app_on(runtime(), options, settings)
}

fn app_on(runtime: &Runtime, options: ModelOptions, settings: Settings) -> App {
    let pool = ModelPool::new(runtime).expect("a pool");
    let model = PoolModel::new(Source::Builtin, options.chat_template(TEMPLATE.to_owned())).pin(true);
    pool.add("stories", model).expect("a name");
    App::new(pool, settings).expect("an application")
}

/// A model in the tests of the core, by the path of its directory there.
pub(crate) fn app_of(directory: &str) -> App {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/tests").join(directory);
    let pool = ModelPool::new(runtime()).expect("a pool");
    let options = ModelOptions::default().weights(WeightType::F32);
    pool.add("model", PoolModel::new(path.as_path(), options)).expect("a name");
    App::new(pool, Settings::default()).expect("an application")
}

pub(crate) fn app() -> App {
    app_with(ModelOptions::default(), Settings::default())
}

/// The same model, without a server.
pub(crate) fn model() -> Model {
    let options = ModelOptions::default().chat_template(TEMPLATE.to_owned());
    runtime().load(&Source::Builtin, &options).expect("the model")
}

/// Sends a request, and returns its response.
pub(crate) async fn send(app: &App, method: &str, path: &str, body: impl Into<Body>) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).body(body.into()).expect("a request");
    router(app.clone()).oneshot(request).await.expect("a response")
}

/// Sends JSON.
pub(crate) async fn post(app: &App, path: &str, body: &Value) -> Response<Body> {
    send(app, "POST", path, body.to_string()).await
}

/// All of a response's body.
pub(crate) async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The JSON of a response that has this status.
pub(crate) async fn json(response: Response<Body>, status: u16) -> Value {
    let found = response.status();
    let text = text(response).await;
    assert_eq!(found, StatusCode::from_u16(status).expect("a status"), "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The data of server-sent events: JSON, but for the last one, which is `[DONE]`.
pub(crate) async fn events(response: Response<Body>) -> Vec<Value> {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = text(response).await;
    let mut data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.pop(), Some("[DONE]"), "{text}");
    data.into_iter().map(|data| serde_json::from_str(data).expect("JSON")).collect()
}
