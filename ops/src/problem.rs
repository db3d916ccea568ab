//! What a request of the API is told when it can't be answered: RFC 9457, `application/problem+json`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use dropgate_backends::observe::Counter;
use serde_json::json;

/// One problem.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    /// A sentence for people: what is wrong, and what would be right.
    detail: String,
    /// `WWW-Authenticate`, where a token is asked for.
    challenge: Option<HeaderValue>,
}

impl Problem {
    pub(crate) const fn new(status: StatusCode, detail: String) -> Self {
        Self { status, detail, challenge: None }
    }

    /// A parameter that makes no sense.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail.into())
    }

    /// No token, or none that is taken.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        let challenge = Some(HeaderValue::from_static("Bearer realm=\"dropgate\""));
        Self { challenge, ..Self::new(StatusCode::UNAUTHORIZED, detail.into()) }
    }

    /// A token that opens something else.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        let challenge = Some(HeaderValue::from_static("Bearer error=\"insufficient_scope\""));
        Self { challenge, ..Self::new(StatusCode::FORBIDDEN, detail.into()) }
    }

    /// It may go better in a moment.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, detail, challenge } = self;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Counter::ApiRefused.one(),
            status if status.is_server_error() => Counter::ApiFailed.one(),
            _ => Counter::ApiWrong.one(),
        }
        let title = status.canonical_reason().unwrap_or_default();
        let body =
            json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}
