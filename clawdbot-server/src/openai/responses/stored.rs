//! Responses that are stored: `GET`, `DELETE`, and the items of their requests.

use std::sync::Arc;

use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Json, Response};
use clawdbot_core::{Error, ErrorKind};
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::fault::Fault;
use crate::store::Entry;

/// Items of a page, unless the request says how many.
const PAGE: usize = 20;
const MAX_PAGE: usize = 100;

/// `GET /v1/responses/{id}`
pub(crate) async fn retrieve(
    app: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Fault> {
    // Of what may be included, all is there that there is.
    pairs(
        query.as_deref(),
        &["include", "include[]", "stream", "include_obfuscation"],
        |name, value| match (name, value) {
            ("stream", value) if value != "false" => {
                Err(Fault::field("stream", "false, as its events are not stored", &value.into()))
            }
            _ => Ok(()),
        },
    )?;
    let response: Value = serde_json::from_str(&stored(&app, &id)?.response).unwrap_or_default();
    Ok(Json(response).into_response())
}

/// `DELETE /v1/responses/{id}`
pub(crate) async fn remove(app: Caller, Path(id): Path<String>) -> Result<Response, Fault> {
    if !app.responses().remove(&id) {
        return Err(missing(&id));
    }
    Ok(Json(json!({"id": id, "object": "response", "deleted": true})).into_response())
}

/// `GET /v1/responses/{id}/input_items`: those of its own request.
pub(crate) async fn input_items(
    app: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Fault> {
    let (mut limit, mut newest_first, mut after) = (PAGE, true, None);
    pairs(query.as_deref(), &["limit", "order", "after", "include", "include[]"], |name, value| {
        let wrong = |expected: &str| Fault::field(name, expected, &value.into());
        match (name, value) {
            ("limit", value) => {
                let parsed = value.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
                limit = parsed.ok_or_else(|| wrong("a number from 1 to 100"))?;
            }
            ("order", "asc") => newest_first = false,
            ("order", "desc") => newest_first = true,
            ("order", _) => return Err(wrong("asc or desc")),
            ("after", value) => after = Some(value.to_owned()),
            _ => {}
        }
        Ok(())
    })?;
    let mut items: Vec<Value> = serde_json::from_str(&stored(&app, &id)?.input).unwrap_or_default();
    if newest_first {
        items.reverse();
    }
    if let Some(after) = after {
        let at = items.iter().position(|item| item["id"] == after.as_str());
        let at = at.ok_or_else(|| Fault::field("after", "the id of an item", &after.as_str().into()))?;
        items.drain(..=at);
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    let id = |item: Option<&Value>| item.map(|item| item["id"].clone());
    let (first, last) = (id(items.first()), id(items.last()));
    let list =
        json!({"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more});
    Ok(Json(list).into_response())
}

fn stored(app: &Caller, id: &str) -> Result<Arc<Entry>, Fault> {
    app.responses().get(id).ok_or_else(|| missing(id))
}

fn missing(id: &str) -> Fault {
    let message = format!(
        "expected a response that is stored, found {id:?}: there is none of this id, or it was dropped"
    );
    Fault::from(Error::new(ErrorKind::NotFound, message)).coded("response_not_found")
}

/// Calls `read` with the pairs of a query, whose names are `known`.
fn pairs(
    query: Option<&str>,
    known: &[&str],
    mut read: impl FnMut(&str, &str) -> Result<(), Fault>,
) -> Result<(), Fault> {
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if !known.contains(&&*name) {
            let message = format!("query: expected {}, found {name:?}", known.join(", "));
            return Err(Fault::invalid(message).at(name));
        }
        read(&name, &value)?;
    }
    Ok(())
}
