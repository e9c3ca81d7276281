//! The table of endpoints, and what all of them share.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::access::logged;
use crate::app::App;
use crate::caller::Holder;
use crate::fault::{Fault, Shape};
use crate::ids::REQUEST_ID;
use crate::kept::kept;
use crate::record::Notes;
use crate::settings::Settings;
use crate::{anthropic, health, ids, metrics, native, openai, rerank, tokens};

/// An endpoint.
struct Route {
    path: &'static str,
    /// The form of its errors.
    shape: Shape,
    access: Access,
    handler: fn() -> MethodRouter<App>,
}

/// Who may ask an endpoint, where the server has API keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Everyone: what tells nothing of models and requests but numbers.
    Open,
    /// Holders of keys.
    Key,
    /// Holders of keys, whose requests are counted.
    Counted,
}

/// All endpoints.
const ROUTES: &[Route] = &[
    Route {
        path: "/v1/generate",
        shape: Shape::Native,
        access: Access::Counted,
        handler: || post(native::generate),
    },
    Route {
        path: "/v1/chat/completions",
        shape: Shape::OpenAi,
        access: Access::Counted,
        handler: || post(openai::chat::complete_chat),
    },
    Route {
        path: "/v1/completions",
        shape: Shape::OpenAi,
        access: Access::Counted,
        handler: || post(openai::completions::complete_text),
    },
    Route {
        path: "/v1/responses",
        shape: Shape::OpenAi,
        access: Access::Counted,
        handler: || post(openai::responses::create),
    },
    Route {
        path: "/v1/responses/{id}",
        shape: Shape::OpenAi,
        access: Access::Key,
        handler: || get(openai::responses::retrieve).delete(openai::responses::remove),
    },
    Route {
        path: "/v1/responses/{id}/input_items",
        shape: Shape::OpenAi,
        access: Access::Key,
        handler: || get(openai::responses::input_items),
    },
    Route {
        path: "/v1/messages",
        shape: Shape::Anthropic,
        access: Access::Counted,
        handler: || post(anthropic::messages),
    },
    Route {
        path: "/v1/messages/count_tokens",
        shape: Shape::Anthropic,
        access: Access::Counted,
        handler: || post(anthropic::count_tokens),
    },
    Route {
        path: "/v1/embeddings",
        shape: Shape::OpenAi,
        access: Access::Counted,
        handler: || post(openai::embeddings::embed),
    },
    Route {
        path: "/v1/rerank",
        shape: Shape::OpenAi,
        access: Access::Counted,
        handler: || post(rerank::rerank),
    },
    Route {
        path: "/v1/score",
        shape: Shape::OpenAi,
        access: Access::Counted,
        handler: || post(rerank::score),
    },
    Route {
        path: "/tokenize",
        shape: Shape::OpenAi,
        access: Access::Counted,
        handler: || post(tokens::tokenize),
    },
    Route {
        path: "/detokenize",
        shape: Shape::OpenAi,
        access: Access::Counted,
        handler: || post(tokens::detokenize),
    },
    Route {
        path: "/v1/models",
        shape: Shape::OpenAi,
        access: Access::Key,
        handler: || get(openai::models::list),
    },
    Route {
        path: "/v1/models/{*id}",
        shape: Shape::OpenAi,
        access: Access::Key,
        handler: || get(openai::models::one),
    },
    Route { path: "/health", shape: Shape::Native, access: Access::Open, handler: || get(health::ready) },
    Route { path: "/health/live", shape: Shape::Native, access: Access::Open, handler: || get(health::live) },
    Route {
        path: "/health/ready",
        shape: Shape::Native,
        access: Access::Open,
        handler: || get(health::ready),
    },
    Route {
        path: "/health/startup",
        shape: Shape::Native,
        access: Access::Open,
        handler: || get(health::startup),
    },
    Route { path: "/metrics", shape: Shape::Native, access: Access::Open, handler: || get(metrics::metrics) },
    Route { path: "/version", shape: Shape::Native, access: Access::Open, handler: || get(health::version) },
];

/// How long browsers may remember it.
const CORS_AGE: Duration = Duration::from_secs(600);
/// Most bytes of a client's own request id.
const MAX_ID: usize = 128;

/// The endpoints of `app`, for any server that takes axum's routers.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let shape = route.shape;
        let shaped = middleware::map_response(move |response: Response| async move { told(shape, response) });
        let whole = middleware::from_fn_with_state(app.clone(), whole_body);
        let mut handler = (route.handler)().layer(whole);
        if route.access != Access::Open {
            let counted = route.access == Access::Counted;
            let held =
                move |State(app): State<App>, request: Request, next: Next| held(app, counted, request, next);
            handler = handler.layer(middleware::from_fn_with_state(app.clone(), held));
        }
        router = router.route(route.path, handler.layer(shaped));
    }
    let nothing =
        || async { Fault::invalid("expected a path of this server").with_status(StatusCode::NOT_FOUND) };
    let other = || async {
        Fault::invalid("expected another method for this path").with_status(StatusCode::METHOD_NOT_ALLOWED)
    };
    router = router.fallback(nothing).method_not_allowed_fallback(other);
    if let Some(cors) = cors(&app.settings()) {
        router = router.layer(cors);
    }
    router
        .layer(middleware::map_response(|response: Response| async { told(Shape::OpenAi, response) }))
        .layer(middleware::from_fn(with_id))
        .layer(middleware::from_fn_with_state(app.clone(), logged))
        .with_state(app)
}

/// What browsers are told of pages of other origins; `None` lets none ask.
fn cors(settings: &Settings) -> Option<CorsLayer> {
    let origins = match settings.cors_origins.as_slice() {
        [] => return None,
        [all] if all == "*" => AllowOrigin::any(),
        origins => AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok())),
    };
    let exposed = ["x-clawdbot-ignored", "x-request-id", "retry-after-ms"].map(HeaderName::from_static);
    // Pages send keys themselves: no cookies, and no other credentials of the browser's.
    let layer =
        CorsLayer::new().allow_origin(origins).allow_methods([Method::GET, Method::POST, Method::DELETE]);
    Some(layer.allow_headers(AllowHeaders::mirror_request()).expose_headers(exposed).max_age(CORS_AGE))
}

/// Writes the fault of a response in the form of its endpoint.
fn told(shape: Shape, mut response: Response) -> Response {
    match response.extensions_mut().remove::<Fault>() {
        Some(fault) => shape.response(&fault),
        None => response,
    }
}

/// Reads all of a body, within bounds of bytes and time.
async fn whole_body(State(app): State<App>, request: Request, next: Next) -> Result<Response, Fault> {
    let (parts, body) = request.into_parts();
    let settings = app.settings();
    let read = tokio::time::timeout(settings.body_timeout, to_bytes(body, settings.max_body));
    let fault = match read.await {
        Ok(Ok(bytes)) => return Ok(next.run(Request::from_parts(parts, Body::from(bytes))).await),
        Ok(Err(error)) if is_too_long(&error) => {
            let message = format!("body: expected at most {} bytes, found more", settings.max_body);
            Fault::invalid(message).with_status(StatusCode::PAYLOAD_TOO_LARGE)
        }
        Ok(Err(error)) => Fault::invalid(format!("body: {error}")),
        Err(_) => {
            let seconds = settings.body_timeout.as_secs();
            let message = format!("body: expected all of it within {seconds} seconds");
            Fault::invalid(message).with_status(StatusCode::REQUEST_TIMEOUT)
        }
    };
    Err(fault)
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Asks for a key, if the server has keys. A request counts until the last byte of its answer.
async fn held(app: App, counted: bool, mut request: Request, next: Next) -> Result<Response, Fault> {
    let notes = request.extensions().get::<Notes>().cloned().unwrap_or_default();
    let holder = Holder::new(app.keys().of(request.headers())?, counted, notes)?;
    request.extensions_mut().insert(holder.clone());
    Ok(kept(next.run(request).await, holder))
}

/// Gives the answer the request's id, or one of its own.
async fn with_id(request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).filter(|id| id.len() <= MAX_ID).cloned();
    let mut response = next.run(request).await.into_response();
    let id = given.or_else(|| HeaderValue::try_from(ids::id("req-")).ok());
    if let Some(id) = id {
        // Anthropic's clients know it by the other name.
        response.headers_mut().insert("request-id", id.clone());
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
