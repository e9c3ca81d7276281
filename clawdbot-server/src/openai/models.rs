//! `GET /v1/models` and `GET /v1/models/{id}`

use axum::extract::{Path, State};
use axum::response::Json;
use clawdbot_core::{PoolState, PoolStatus};
use serde_json::{Value, json};

use crate::app::App;
use crate::fault::Fault;

fn model(app: &App, status: &PoolStatus) -> Value {
    let loaded = status.state == PoolState::Loaded;
    json!({
        "id": status.name,
        "object": "model",
        // When the server began to have it.
        "created": app.created(),
        "owned_by": "clawdbot",
        "status": status.state,
        "loaded": loaded,
    })
}

/// `GET /v1/models`
pub(crate) async fn list(State(app): State<App>) -> Json<Value> {
    let models: Vec<Value> = app.pool().status().iter().map(|status| model(&app, status)).collect();
    Json(json!({"object": "list", "data": models}))
}

/// `GET /v1/models/{id}`
pub(crate) async fn one(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, Fault> {
    let name = app.name_of(Some(id))?;
    let status = app.pool().status().into_iter().find(|status| status.name == name);
    Ok(Json(status.map_or(Value::Null, |status| model(&app, &status))))
}
