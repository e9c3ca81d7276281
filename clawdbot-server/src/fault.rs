//! Why a request fails: a status, and what is said about it in the form that the client reads.

use std::ops::Deref;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clawdbot_core::{Error, ErrorKind};
use serde_json::{Map, Value, json};

/// Why a request fails.
#[derive(Debug, Clone)]
pub(crate) struct Fault(Box<Why>);

/// What is said about it.
#[derive(Debug, Clone)]
pub(crate) struct Why {
    pub(crate) status: StatusCode,
    /// The kind of error, as the core names it.
    pub(crate) kind: ErrorKind,
    /// What OpenAI's clients know such errors by.
    pub(crate) code: Option<&'static str>,
    pub(crate) message: String,
    /// The field that is wrong.
    pub(crate) param: Option<String>,
    pub(crate) detail: Map<String, Value>,
    /// When it makes sense to try again.
    pub(crate) retry_after_ms: Option<u64>,
}

/// What HTTP says of a kind of error; the rest is the server's fault.
const STATUSES: &[(ErrorKind, StatusCode)] = &[
    (ErrorKind::InvalidArgument, StatusCode::BAD_REQUEST),
    (ErrorKind::UnknownOption, StatusCode::BAD_REQUEST),
    (ErrorKind::NotFound, StatusCode::NOT_FOUND),
    (ErrorKind::MissingTemplate, StatusCode::BAD_REQUEST),
    (ErrorKind::TemplateRaised, StatusCode::BAD_REQUEST),
    (ErrorKind::EmptyPrompt, StatusCode::BAD_REQUEST),
    (ErrorKind::ContextOverflow, StatusCode::BAD_REQUEST),
    (ErrorKind::OutOfBudget, StatusCode::SERVICE_UNAVAILABLE),
    (ErrorKind::Cancelled, StatusCode::SERVICE_UNAVAILABLE),
    (ErrorKind::Closed, StatusCode::SERVICE_UNAVAILABLE),
    (ErrorKind::InvalidUtf8, StatusCode::BAD_REQUEST),
    (ErrorKind::Overloaded, StatusCode::TOO_MANY_REQUESTS),
    (ErrorKind::InvalidConstraint, StatusCode::BAD_REQUEST),
];

/// What OpenAI's clients know kinds of errors by.
const CODES: &[(ErrorKind, &str)] = &[
    (ErrorKind::UnknownOption, "unknown_parameter"),
    (ErrorKind::ContextOverflow, "context_length_exceeded"),
    (ErrorKind::Overloaded, "rate_limit_exceeded"),
    (ErrorKind::InvalidConstraint, "invalid_json_schema"),
];

impl Fault {
    /// A request that is wrong: `message` says what was expected and what was found.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidArgument, message).into()
    }

    /// As [`Fault::invalid`], of the field `name`.
    pub(crate) fn field(name: &str, expected: &str, found: &Value) -> Self {
        let mut text = found.to_string();
        if let Some((at, _)) = text.char_indices().nth(60) {
            text.truncate(at);
            text.push('…');
        }
        let fault = Fault::invalid(format!("field {name}: expected {expected}, found {text}"));
        fault.at(name)
    }

    /// Names the field that is wrong.
    pub(crate) fn at(mut self, param: impl Into<String>) -> Self {
        self.0.param = Some(param.into());
        self
    }

    pub(crate) fn coded(mut self, code: &'static str) -> Self {
        self.0.code = Some(code);
        self
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// The core's error that it came from.
    pub(crate) fn into_error(self) -> Error {
        let Why { kind, message, detail, .. } = *self.0;
        let error = Error::new(kind, message);
        detail.into_iter().fold(error, |error, (key, value)| error.with(&key, value))
    }

    /// Whether the same request may succeed later.
    pub(crate) fn may_retry(&self) -> bool {
        matches!(self.kind, ErrorKind::Overloaded | ErrorKind::OutOfBudget | ErrorKind::Closed)
    }
}

impl Deref for Fault {
    type Target = Why;

    fn deref(&self) -> &Why {
        &self.0
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        let status = STATUSES.iter().find(|(known, _)| *known == kind).map(|(_, status)| *status);
        let param = ["option", "field", "argument"].iter().find_map(|key| error.detail().get(*key)?.as_str());
        Fault(Box::new(Why {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            kind,
            code: CODES.iter().find(|(known, _)| *known == kind).map(|(_, code)| *code),
            message: error.message().to_owned(),
            param: param.map(str::to_owned),
            detail: error.detail().clone(),
            retry_after_ms: error.detail().get("retry_after_ms").and_then(Value::as_u64),
        }))
    }
}

/// The form of errors that a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The core's own.
    Native,
    OpenAi,
    Anthropic,
}

impl Shape {
    /// What is said of `fault`.
    pub(crate) fn body(self, fault: &Fault) -> Value {
        match self {
            Shape::Native => json!({"error": {
                "code": fault.kind.code(),
                "kind": fault.kind.name(),
                "message": fault.message,
                "detail": fault.detail,
            }}),
            Shape::Anthropic => json!({
                "type": "error",
                "error": {"type": anthropic_type(fault.status), "message": fault.message},
            }),
            Shape::OpenAi => json!({"error": {
                "message": openai_message(fault),
                "type": openai_type(fault.status),
                "param": fault.param,
                "code": fault.code,
            }}),
        }
    }

    /// The answer to a request that fails so.
    pub(crate) fn response(self, fault: &Fault) -> Response {
        let body = Body::from(self.body(fault).to_string());
        let mut response = (fault.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Clients of OpenAI obey it; without it they try all of 408, 409, 429 and 5xx again.
        let retry = HeaderValue::from_static(if fault.may_retry() { "true" } else { "false" });
        headers.insert("x-should-retry", retry);
        if fault.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(milliseconds) = fault.retry_after_ms {
            headers.insert("retry-after-ms", HeaderValue::from(milliseconds));
            headers.insert(header::RETRY_AFTER, HeaderValue::from(milliseconds.div_ceil(1000)));
        }
        response
    }
}

/// The message, in words by which clients that read no codes know what is wrong.
fn openai_message(fault: &Fault) -> String {
    match fault.kind {
        ErrorKind::ContextOverflow => {
            format!("This model's maximum context length is exceeded: {}", fault.message)
        }
        _ => fault.message.clone(),
    }
}

fn openai_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    }
}

/// What Anthropic's clients know errors by.
fn anthropic_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        status if status.is_server_error() => "api_error",
        _ => "invalid_request_error",
    }
}

/// A fault on its way to the layer that knows the form of its endpoint's errors.
impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_statuses() {
        let status = |kind| Fault::from(Error::new(kind, "")).status.as_u16();
        assert_eq!(status(ErrorKind::Overloaded), 429);
        assert_eq!(status(ErrorKind::ContextOverflow), 400);
        assert_eq!(status(ErrorKind::NonFinite), 500);
        for (at, (kind, _)) in STATUSES.iter().enumerate() {
            assert!(STATUSES[..at].iter().all(|(known, _)| known != kind), "{kind:?}");
        }
    }

    #[test]
    fn clients_know_whether_to_try_again() {
        let error = Error::new(ErrorKind::Overloaded, "full").with("retry_after_ms", 1500);
        let response = Shape::OpenAi.response(&error.into());
        let header = |name| response.headers().get(name).map(|value| value.to_str().expect("text"));
        assert_eq!(header("retry-after-ms"), Some("1500"));
        assert_eq!(header("retry-after"), Some("2"));
        assert_eq!(header("x-should-retry"), Some("true"));
        let response = Shape::OpenAi.response(&Fault::invalid("no"));
        assert_eq!(response.headers().get("x-should-retry").expect("one"), "false");
    }

    #[test]
    fn errors_name_the_field() {
        let fault = Fault::field("n", "a whole number", &json!("x".repeat(100)));
        let body = Shape::OpenAi.body(&fault);
        assert_eq!(body["error"]["param"], "n");
        assert!(fault.message.len() < 120, "{}", fault.message);
        let native = Shape::Native.body(&fault);
        assert_eq!(native["error"]["kind"], "InvalidArgument");
    }
}
