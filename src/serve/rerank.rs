//! `/rerank`: the loaded reward, asked for a list of documents, in Jina's form and in that of TEI.
//! So one server is another one's reward, by `--reward http:…;api=rerank`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::answers;
use super::failure::Failure;
use super::fields::Fields;
use super::routes::{Answer, Server, read};
use super::scorer::Waiting;
use crate::error::Error;
use crate::reward::Sample;

/// Most documents of one request.
const MOST: usize = 1024;

pub(super) async fn rerank(State(app): Server, body: Body) -> Answer {
    let body = read(body).await?;
    let fields = Fields::of(&body)?;
    let missing = |name| move || Failure::field(name, "missing");
    let query = fields.text("query")?.ok_or_else(missing("query"))?;
    let tei = fields.value("documents").is_none() && fields.value("texts").is_some();
    let name = if tei { "texts" } else { "documents" };
    let list = fields.list(name)?.ok_or_else(missing(name))?;
    let documents: Option<Vec<String>> = list.iter().map(document).collect();
    let documents = documents.ok_or_else(|| Failure::field(name, "must be a list of texts"))?;
    if documents.is_empty() || documents.len() > MOST {
        let reason = format!("{} of them; give 1 to {MOST}", documents.len());
        return Err(Failure::field(name, reason));
    }
    let top = fields.count("top_n")?.unwrap_or(documents.len());
    let rewards = match fields.text("model")? {
        Some(model) => app.profile(model)?.map_or(0, |profile| profile.rewards),
        None => 0,
    };
    let none = || Failure::not_supported("the server has no reward");
    let set = app.rewards.get(rewards).ok_or_else(none)?;
    // It takes a place in the queue as long as it takes.
    let _place = app.enter()?;
    let (tell, told) = oneshot::channel();
    let samples = documents.iter().map(|text| Sample::new(query, text));
    let samples: Vec<Sample<'_>> = samples.collect();
    let waiting = Waiting::default();
    set.reward.ask(&samples, &[], &waiting, move |scores| {
        drop(tell.send(scores))
    })?;
    let scores = told.await.map_err(|_| answers::gone())??;
    let mut tokens = 0;
    let mut ranked: Vec<(usize, f64)> = Vec::with_capacity(scores.len());
    for (index, score) in scores.into_iter().enumerate() {
        let failed = |reason: String| Error::Reward(format!("{name}[{index}]: {reason}"));
        let score = score.map_err(|e| failed(e.to_string()))?;
        if !score.reward.is_finite() {
            return Err(failed(format!("the reward is {}", score.reward)).into());
        }
        tokens += score.tokens;
        ranked.push((index, score.reward));
    }
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked.truncate(top);
    let with_texts = fields.switch("return_text")? || fields.switch("return_documents")?;
    let results = ranked.into_iter().map(|(index, score)| {
        let mut one = match tei {
            true => json!({"index": index, "score": score}),
            false => json!({"index": index, "relevance_score": score}),
        };
        if with_texts {
            match tei {
                true => one["text"] = documents[index].clone().into(),
                false => one["document"] = json!({"text": documents[index]}),
            }
        }
        one
    });
    let results: Value = results.collect();
    Ok(Json(match tei {
        true => results,
        false => json!({
            "model": app.name(),
            "object": "list",
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "results": results,
        }),
    })
    .into_response())
}

/// A text, or Jina's object around one.
fn document(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value.get("text")?.as_str());
    text.map(str::to_owned)
}
