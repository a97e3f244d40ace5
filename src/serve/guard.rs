//! Who may ask: the Host that is asked for, the site that asks, the key.
//!
//! A page on the web that points its own name at 127.0.0.1 (DNS rebinding) is found out by the Host,
//! and one that posts to it by its Origin. With a key every origin may ask, as a page does not know
//! the key; without one only this machine's own pages, and those that the server was told of.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::App;
use super::failure::Failure;

/// What is told without a key, as by llama-server.
const PUBLIC: [&str; 7] = [
    "/",
    "/index.html",
    "/favicon.ico",
    "/health",
    "/v1/health",
    "/models",
    "/v1/models",
];

/// The middleware in front of everything.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let origin = headers.get(header::ORIGIN).cloned();
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response = match check(&app, &request) {
        Err(failure) => failure.into_response(),
        Ok(()) if request.method() == Method::OPTIONS => StatusCode::OK.into_response(),
        Ok(()) => next.run(request).await,
    };
    let headers = response.headers_mut();
    if let Some(origin) = origin {
        allow(headers, origin, asked);
    }
    headers.insert(header::SERVER, HeaderValue::from_static("aisp-llama"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Lets a site read the answer. An asterisk would not stand for `Authorization`: the headers that are asked
/// for are named.
fn allow(headers: &mut HeaderMap, origin: HeaderValue, asked: Option<HeaderValue>) {
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        (
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        ),
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST"),
        ),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            asked.unwrap_or(HeaderValue::from_static("*")),
        ),
        (header::VARY, HeaderValue::from_static("Origin")),
    ] {
        headers.insert(name, value);
    }
}

fn check(app: &App, request: &Request) -> Result<(), Failure> {
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).or_else(|| request.uri().authority().map(|a| a.as_str()));
    let host = host.ok_or_else(|| Failure::invalid("Host: missing"))?;
    let guarded = app.options.host.is_loopback();
    if guarded
        && !is_local(host)
        && !app
            .options
            .allowed_hosts
            .iter()
            .any(|name| name == name_of(host))
    {
        let message = format!("Host: {host:?} is not what this server is called");
        return Err(Failure::forbidden(message));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        if !may_ask(app, host, origin) {
            let message =
                format!("Origin: {origin:?} may not ask; see the server's --cors-origins");
            return Err(Failure::forbidden(message));
        }
    }
    let public = PUBLIC.contains(&request.uri().path()) || request.method() == Method::OPTIONS;
    match public || has_key(app, headers) {
        true => Ok(()),
        false => Err(Failure::unauthorized()),
    }
}

/// Whether a site may ask.
fn may_ask(app: &App, host: &str, origin: &str) -> bool {
    let options = &app.options;
    let listed = |list: &[String]| list.iter().any(|one| one == "*" || one == origin);
    if !options.cors_origins.is_empty() {
        return listed(&options.cors_origins) || same(host, origin);
    }
    !options.api_keys.is_empty() || same(host, origin) || is_local(authority(origin))
}

fn same(host: &str, origin: &str) -> bool {
    authority(origin) == host
}

/// An origin without its scheme.
fn authority(origin: &str) -> &str {
    origin.split_once("://").map_or(origin, |(_, rest)| rest)
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether a host, with or without its port, is this machine by a name that nobody can move.
fn is_local(host: &str) -> bool {
    let name = name_of(host);
    let numbers = name.trim_start_matches('[').trim_end_matches(']');
    let address = numbers.parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Whether one of the server's keys is sent; all of them are compared, whatever is sent, each in a
/// time that does not depend on where they differ.
pub(super) fn has_key(app: &App, headers: &HeaderMap) -> bool {
    if app.options.api_keys.is_empty() {
        return true;
    }
    let bearer = headers.get(header::AUTHORIZATION);
    let bearer = bearer.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let own = headers.get("x-api-key").map(HeaderValue::as_bytes);
    let sent = bearer.or(own).unwrap_or_default();
    let keys = app.options.api_keys.iter();
    let equal = keys.map(|key| key.as_bytes().ct_eq(sent));
    equal
        .fold(subtle::Choice::from(0), |any, one| any | one)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_names_that_nobody_can_move() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:8080",
            "127.1.2.3",
            "[::1]:80",
            "[::1]",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "localhost.evil.example",
            "evil.example:127",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "",
        ] {
            assert!(!is_local(host), "{host}");
        }
        assert!(same("127.0.0.1:8080", "http://127.0.0.1:8080"));
        assert!(!same("127.0.0.1:8080", "http://127.0.0.1:8081"));
    }
}
