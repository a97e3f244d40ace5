//! What a request fails with: a status that clients do the right thing with, and OpenAI's object.
//!
//! The usual clients send a request again on 409, 429 and 5xx, three times in all. So what would
//! fail again is 400, 401, 404 or 422; 503 comes only before any work, with the seconds to wait;
//! and any other 5xx says `x-should-retry: false`.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::error::Error;

/// Seconds until a client that was sent away asks again.
const RETRY_AFTER: &str = "5";

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    kind: &'static str,
    message: String,
    /// Further fields of the error object.
    more: Value,
}

impl Failure {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            more: json!({}),
        }
    }

    /// The request cannot be carried out as it is.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// What is wrong with a field of the request.
    pub(super) fn field(name: &str, reason: impl std::fmt::Display) -> Self {
        let mut failure = Self::invalid(format!("{name}: {reason}"));
        failure.more = json!({"param": name});
        failure
    }

    /// A prompt that is longer than the context.
    pub(super) fn too_long(prompt: usize, context: usize) -> Self {
        let message = format!(
            "the prompt has {prompt} tokens, and the context {context}; send a shorter one, or \
             start the server with a larger context"
        );
        let kind = "exceed_context_size_error";
        let mut failure = Self::new(StatusCode::BAD_REQUEST, kind, message);
        failure.more = json!({"n_prompt_tokens": prompt, "n_ctx": context});
        failure
    }

    pub(super) fn unauthorized() -> Self {
        let message = "no key, or a wrong one; send it as `Authorization: Bearer KEY`";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found_error", message)
    }

    pub(super) fn method() -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(
            status,
            "invalid_request_error",
            "this path is not asked in this way",
        )
    }

    pub(super) fn too_large(most: usize) -> Self {
        let message = format!("the body cannot be read, or has more than {most} bytes");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            message,
        )
    }

    /// Something that this server was not started with.
    pub(super) fn not_supported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_supported_error", message)
    }

    /// No work was done, and some may be later.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable_error",
            message,
        )
    }

    /// The engine came to no answer.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// OpenAI's error object.
    pub(super) fn body(&self) -> Value {
        let mut error = json!({
            "code": self.status.as_u16(),
            "message": self.message,
            "type": self.kind,
        });
        if let (Value::Object(error), Value::Object(more)) = (&mut error, &self.more) {
            error.extend(more.clone());
        }
        json!({"error": error})
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// A field as requests write it.
pub(super) fn key(field: &str) -> String {
    field.replace('-', "_")
}

/// A reason with its fields, between backticks, as requests write them.
fn reason(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts: Vec<String> = parts
        .map(|(i, part)| match i % 2 {
            1 => key(part),
            _ => part.to_owned(),
        })
        .collect();
    parts.join("`")
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Field { field, reason: why } => Self::field(&key(&field), reason(&why)),
            Error::Reward(_) | Error::Unscored(_) | Error::Run(_) => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Self::new(status, "search_error", reason(&error.to_string()))
            }
            Error::Engine(_) | Error::Gguf { .. } | Error::Model { .. } | Error::Io { .. } => {
                Self::internal(reason(&error.to_string()))
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        } else if self.status.is_server_error() {
            let name = HeaderName::from_static("x-should-retry");
            headers.insert(name, HeaderValue::from_static("false"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_succeed_later_is_sent_again() {
        let of = |failure: Failure| {
            let response = failure.into_response();
            let headers = response.headers();
            let retry = headers.get("x-should-retry").map(|v| v.to_str().unwrap());
            let after = headers.get("retry-after").map(|v| v.to_str().unwrap());
            (
                response.status().as_u16(),
                retry == Some("false"),
                after.is_some(),
            )
        };
        assert_eq!(of(Error::Reward("x".into()).into()), (422, false, false));
        assert_eq!(of(Error::Unscored("x".into()).into()), (422, false, false));
        assert_eq!(of(Error::field("samples", "0").into()), (400, false, false));
        assert_eq!(of(Error::Engine("x".into()).into()), (500, true, false));
        assert_eq!(of(Failure::unavailable("x")), (503, false, true));
        assert_eq!(of(Failure::not_supported("x")), (501, true, false));
    }

    #[test]
    fn fields_are_named_as_requests_write_them() {
        let failure = Failure::from(Error::field("max-tokens", "0; see `time-limit`, say"));
        let body = failure.body();
        assert_eq!(
            body["error"]["message"],
            "max_tokens: 0; see `time_limit`, say"
        );
        assert_eq!(body["error"]["param"], "max_tokens");
        assert_eq!(body["error"]["code"], 400);
    }
}
