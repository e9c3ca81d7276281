//! `GET /v1/models` and `GET /v1/models/{id}`

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::Json;
use clawdbot_core::{PoolState, PoolStatus};
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::fault::Fault;

fn model(app: &Caller, status: &PoolStatus) -> Value {
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
pub(crate) async fn list(app: Caller, headers: HeaderMap) -> Json<Value> {
    let (names, status) = (app.names(), app.pool().status());
    let models = status.iter().filter(|status| names.contains(&status.name));
    let models: Vec<Value> = models.map(|status| model(&app, status)).collect();
    // Anthropic's clients ask here, too.
    if headers.contains_key("anthropic-version") {
        let created = jiff::Timestamp::from_second(app.created()).unwrap_or_default().to_string();
        let model =
            |name: &String| json!({"type": "model", "id": name, "display_name": name, "created_at": created});
        let data: Vec<Value> = names.iter().map(model).collect();
        let list =
            json!({"data": data, "has_more": false, "first_id": names.first(), "last_id": names.last()});
        return Json(list);
    }
    Json(json!({"object": "list", "data": models}))
}

/// `GET /v1/models/{id}`
pub(crate) async fn one(app: Caller, Path(id): Path<String>) -> Result<Json<Value>, Fault> {
    let name = app.name_of(Some(id))?;
    let status = app.pool().status().into_iter().find(|status| status.name == name);
    Ok(Json(status.map_or(Value::Null, |status| model(&app, &status))))
}
