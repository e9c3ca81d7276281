//! Whether the server lives, has started, and can answer.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use crate::app::App;

/// `GET /health/live`: the process answers.
pub(crate) async fn live() -> Json<Value> {
    Json(json!({"status": "live"}))
}

/// `GET /health/startup`: the models that stay in memory are loaded.
pub(crate) async fn startup(State(app): State<App>) -> Response {
    answer(app.is_loaded().then_some("started").ok_or("starting"))
}

/// `GET /health/ready` and `GET /health`: requests are taken.
pub(crate) async fn ready(State(app): State<App>) -> Response {
    answer(match () {
        () if app.is_ending() => Err("draining"),
        () if !app.is_loaded() => Err("starting"),
        () if !app.has_computed() => Err("warming up"),
        () if app.is_full() => Err("full"),
        () => Ok("ready"),
    })
}

fn answer(status: Result<&str, &str>) -> Response {
    match status {
        Ok(status) => Json(json!({"status": status})).into_response(),
        Err(status) => {
            let body = Json(json!({"status": status}));
            let mut response = (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
    }
}

/// `GET /version`
pub(crate) async fn version(State(app): State<App>) -> Json<Value> {
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "kernels": app.pool().runtime().kernels(),
        "threads": app.pool().runtime().threads(),
        "uptime_seconds": app.started().elapsed().as_secs(),
    }))
}
