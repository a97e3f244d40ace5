//! What is asked where.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::asks::{self, Ask, Shape};
use super::failure::Failure;
use super::fields::Fields;
use super::{App, Profile, answers, guard, prompts, rerank, stream, work};
use crate::llama::{Token, llama_version};
use crate::method::Rounds;

/// Bytes of a body.
pub(super) const LONGEST_BODY: usize = 1 << 20;
/// What a body may take to come.
const SLOWEST_BODY: Duration = Duration::from_secs(30);

const PAGE: &str = include_str!("page.html");

pub(super) type Answer = Result<Response, Failure>;
pub(super) type Server = State<Arc<App>>;

/// All of it, behind the [guard].
pub(super) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    let both =
        |router: Router<Arc<App>>, path: &str, method: axum::routing::MethodRouter<Arc<App>>| {
            router
                .route(path, method.clone())
                .route(&format!("/v1{path}"), method)
        };
    router = both(router, "/health", get(health));
    router = both(router, "/models", get(models));
    router = both(router, "/chat/completions", post(chat));
    router = both(router, "/chat/completions/control", post(control));
    router = both(router, "/rerank", post(rerank::rerank));
    router = router
        .route("/v1/completions", post(completions))
        .route("/completions", post(native))
        .route("/completion", post(native))
        .route("/v1/work", post(work::work))
        .route("/props", get(props))
        .route("/slots", get(slots))
        .route("/metrics", get(metrics))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/apply-template", post(apply_template))
        .route("/", get(page))
        .route("/index.html", get(page))
        .fallback(nothing)
        .method_not_allowed_fallback(no_method);
    let guard = axum::middleware::from_fn_with_state(Arc::clone(&app), guard::guard);
    router.layer(guard).with_state(app)
}

async fn nothing() -> Failure {
    Failure::not_found("no such path; docs/server.md lists what there is")
}

async fn no_method() -> Failure {
    Failure::method()
}

/// The JSON in a body.
pub(super) async fn read(body: Body) -> Result<Value, Failure> {
    let bytes = bytes(body, LONGEST_BODY).await?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Failure::invalid(format!("the body is no JSON: {e}")))
}

/// A body of at most so many bytes.
pub(super) async fn bytes(body: Body, most: usize) -> Result<Bytes, Failure> {
    let whole = axum::body::to_bytes(body, most);
    let whole = tokio::time::timeout(SLOWEST_BODY, whole).await;
    let whole = whole.map_err(|_| Failure::invalid("the body did not come to its end"))?;
    whole.map_err(|_| Failure::too_large(most))
}

/// Work that takes a while, off the threads that all connections share.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Failure::internal("reading the request has failed"))?
}

async fn chat(State(app): Server, body: Body) -> Answer {
    let body = read(body).await?;
    let reader = Arc::clone(&app);
    let ask = aside(move || asks::chat(&reader, &body)).await?;
    answer(&app, ask).await
}

async fn completions(State(app): Server, body: Body) -> Answer {
    let mut asks = texts(&app, body, Shape::Text).await?;
    match asks.len() {
        1 => answer(&app, asks.remove(0)).await,
        _ => several(&app, asks).await,
    }
}

async fn native(State(app): Server, body: Body) -> Answer {
    let asks = texts(&app, body, Shape::Native).await?;
    several(&app, asks).await
}

async fn texts(app: &Arc<App>, body: Body, shape: Shape) -> Result<Vec<Ask>, Failure> {
    let body = read(body).await?;
    let reader = Arc::clone(app);
    aside(move || asks::texts(&reader, &body, shape)).await
}

/// One request of OpenAI's shapes.
async fn answer(app: &Arc<App>, ask: Ask) -> Answer {
    let mut submitted = app.submit(std::slice::from_ref(&ask))?;
    let mut submitted = submitted.pop().ok_or_else(answers::gone)?;
    if ask.stream {
        return Ok(stream::respond(ask, submitted));
    }
    let (watch, news, _leaving) = &mut submitted;
    let finished = answers::finished(&ask, watch, news).await?;
    Ok(Json(finished.body(&ask, watch, &app.model)).into_response())
}

/// Several prompts side by side; in llama-server's shape also one.
async fn several(app: &Arc<App>, mut asks: Vec<Ask>) -> Answer {
    if asks.len() == 1 && asks[0].stream {
        return answer(app, asks.remove(0)).await;
    }
    let submitted = app.submit(&asks)?;
    let mut begun: Vec<_> = asks.into_iter().zip(submitted).collect();
    let mut bodies = Vec::with_capacity(begun.len());
    let mut shape = Shape::Native;
    for (index, (ask, (watch, news, _leaving))) in begun.iter_mut().enumerate() {
        let finished = answers::finished(ask, watch, news).await?;
        shape = ask.shape;
        bodies.push(match shape {
            Shape::Native => finished.native(ask, watch, &app.model, index),
            Shape::Chat | Shape::Text => finished.body(ask, watch, &app.model),
        });
    }
    let body = match shape {
        Shape::Native if bodies.len() == 1 => bodies.remove(0),
        Shape::Native => bodies.into(),
        Shape::Chat | Shape::Text => answers::joined(bodies),
    };
    Ok(Json(body).into_response())
}

/// The best answer so far is the answer.
async fn control(State(app): Server, body: Body) -> Answer {
    let body = read(body).await?;
    let fields = Fields::of(&body)?;
    let id = fields
        .text("id")?
        .ok_or_else(|| Failure::field("id", "missing"))?;
    match fields.text("action")? {
        Some("reasoning_end") => {}
        other => {
            let reason = format!("{}; there is reasoning_end", other.unwrap_or("missing"));
            return Err(Failure::field("action", reason));
        }
    }
    let stop = app.running().get(id).cloned();
    let stop = stop.ok_or_else(|| Failure::not_found(format!("id: nothing runs as {id:?}")))?;
    stop.request();
    Ok(Json(json!({"success": true})).into_response())
}

async fn health(State(app): Server) -> Answer {
    match app.status.is_draining() {
        true => Err(Failure::unavailable("the server is shutting down")),
        false => Ok(Json(json!({"status": "ok"})).into_response()),
    }
}

async fn models(State(app): Server, headers: HeaderMap) -> Response {
    let model = &app.model;
    // A command's name is all of it.
    let told = guard::has_key(&app, &headers);
    let meta = json!({
        "n_vocab": model.vocabulary(),
        "n_ctx_train": model.trained_context(),
        "n_ctx": app.context,
        "n_embd": model.width(),
        "architecture": model.architecture(),
    });
    let rewards = |profile: &Profile| app.rewards.get(profile.rewards).filter(|_| told);
    let one = |(index, id): (usize, String)| {
        let aliases = if index == 0 { &app.names[1..] } else { &[] };
        let profile = index
            .checked_sub(1)
            .and_then(|index| app.options.profiles.get(index));
        json!({
            "id": id,
            "object": "model",
            "created": app.started,
            "owned_by": "aisp-llama",
            "aliases": aliases,
            "meta": meta,
            "aisp": profile.map(|profile| json!({
                "method": profile.options.method,
                "samples": profile.options.rounds.samples,
                "iterations": profile.options.rounds.iterations,
                "reward": rewards(profile).map(|set| set.name()),
                "held_out": rewards(profile).and_then(|set| set.held_out_name()),
            })),
        })
    };
    let data: Vec<Value> = app.all_names().into_iter().enumerate().map(one).collect();
    Json(json!({"object": "list", "data": data})).into_response()
}

async fn props(State(app): Server) -> Response {
    let rounds = &app.options.plain.rounds;
    let seed = app.options.seed.map_or(json!(-1), |seed| json!(seed));
    Json(json!({
        "default_generation_settings": {
            "n_ctx": app.context,
            "params": {
                "seed": seed,
                "n_predict": match rounds.max_tokens {
                    Rounds::TO_THE_END => json!(-1),
                    tokens => json!(tokens),
                },
                "sampling": app.options.plain.method.all(),
            },
        },
        "total_slots": app.status.slots(0).as_array().map_or(0, Vec::len),
        "model_alias": app.name(),
        "model_path": app.model.path(),
        "modalities": {"vision": false, "audio": false},
        "chat_template": app.model.gguf().chat_template().unwrap_or_default(),
        "bos_token": app.model.bos_eos_text().0,
        "eos_token": app.model.bos_eos_text().1,
        "build_info": format!("{}, llama.cpp {}", answers::FINGERPRINT, llama_version()),
    }))
    .into_response()
}

async fn slots(State(app): Server, RawQuery(query): RawQuery) -> Answer {
    if !app.options.slots {
        return Err(Failure::not_supported(
            "start the server without --no-slots",
        ));
    }
    let query = query.unwrap_or_default();
    let wanted = query.split('&').any(|part| part == "fail_on_no_slot=1");
    if wanted && app.status.free() == 0 {
        return Err(Failure::unavailable("no slot is free"));
    }
    Ok(Json(app.status.slots(app.context)).into_response())
}

async fn metrics(State(app): Server) -> Answer {
    if !app.options.metrics {
        return Err(Failure::not_supported("start the server with --metrics"));
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, app.status.metrics()).into_response())
}

async fn tokenize(State(app): Server, body: Body) -> Answer {
    let body = read(body).await?;
    let body = aside(move || {
        let fields = Fields::of(&body)?;
        let text = fields.text("content")?.unwrap_or_default();
        let special = fields.value("parse_special").is_none() || fields.switch("parse_special")?;
        let tokens = app
            .model
            .tokenize(text, fields.switch("add_special")?, special);
        let piece = |token: Token| {
            let bytes = app.model.piece(token, true);
            let piece =
                String::from_utf8(bytes).map_or_else(|e| json!(e.into_bytes()), Value::from);
            json!({"id": token, "piece": piece})
        };
        Ok(match fields.switch("with_pieces")? {
            true => json!({"tokens": tokens.into_iter().map(piece).collect::<Vec<_>>()}),
            false => json!({"tokens": tokens}),
        })
    });
    Ok(Json(body.await?).into_response())
}

async fn detokenize(State(app): Server, body: Body) -> Answer {
    let body = read(body).await?;
    let body = aside(move || {
        let list = Fields::of(&body)?.list("tokens")?;
        let list = list.map_or(&[][..], Vec::as_slice);
        let tokens = list.iter().map(|value| prompts::token(&app.model, value));
        let tokens: Option<Vec<Token>> = tokens.collect();
        let wrong = || Failure::field("tokens", "must be tokens of the vocabulary");
        let tokens = tokens.ok_or_else(wrong)?.into_iter();
        let bytes: Vec<u8> = tokens.flat_map(|t| app.model.piece(t, true)).collect();
        Ok(json!({"content": String::from_utf8_lossy(&bytes)}))
    });
    Ok(Json(body.await?).into_response())
}

async fn apply_template(State(app): Server, body: Body) -> Answer {
    let body = read(body).await?;
    let prompt = aside(move || {
        let system = app.options.system_prompt.as_deref();
        let messages = prompts::messages(Fields::of(&body)?, system)?;
        Ok(prompts::markup(
            &app.model,
            &app.options.engine.chat,
            &messages,
        )?)
    });
    Ok(Json(json!({"prompt": prompt.await?})).into_response())
}

/// The page, whose own script and style are all that it may load.
async fn page(State(app): Server) -> Answer {
    if !app.options.page {
        return Err(Failure::not_found(
            "the server was started without its page",
        ));
    }
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; connect-src 'self'; script-src 'nonce-{nonce}'; \
         style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let page = PAGE.replace("{{nonce}}", &nonce);
    let mut response = (StatusCode::OK, Html(page)).into_response();
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
