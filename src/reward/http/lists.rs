//! Servers that give numbers to texts: a list goes there, and a list comes back.

use serde_json::{Value, json};

use super::HttpApi;
use crate::reward::text::fill;
use crate::reward::{RewardText, Sample};

/// Most texts of a request, where a server's own limit is small: 32 is what TEI takes by default.
const TEXTS: usize = 32;

/// What a server says of one text.
type Said = Result<f64, String>;

/// Which samples go into one request. Empty responses are left out: servers refuse the whole
/// request.
pub(super) fn groups(api: HttpApi, text: &RewardText, samples: &[Sample<'_>]) -> Vec<Vec<usize>> {
    let most = match (api, text) {
        (HttpApi::Rerank, _) => usize::MAX,
        // A conversation is a request.
        (HttpApi::Classify | HttpApi::Pooling, RewardText::Chat) => 1,
        _ => TEXTS,
    };
    let by_prompt = matches!(api, HttpApi::Rerank | HttpApi::Tei);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, sample) in samples.iter().enumerate() {
        if sample.response.trim().is_empty() {
            continue;
        }
        let fits = |group: &&mut Vec<usize>| {
            let same = !by_prompt || samples[group[0]].prompt == sample.prompt;
            same && group.len() < most
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    groups
}

/// What is posted for one of the groups.
pub(super) fn body(api: HttpApi, text: &RewardText, samples: &[Sample<'_>]) -> Value {
    let responses = || samples.iter().map(|sample| sample.response);
    match (api, text) {
        (HttpApi::Tei, _) => json!({
            "query": samples[0].prompt,
            "texts": responses().collect::<Vec<_>>(),
            // Without a sigmoid, which makes all good ones alike.
            "raw_scores": true,
        }),
        (HttpApi::Classify | HttpApi::Pooling, RewardText::Chat) => json!({
            "messages": [
                {"role": "user", "content": samples[0].prompt},
                {"role": "assistant", "content": samples[0].response},
            ],
            "use_activation": false,
        }),
        (HttpApi::Classify | HttpApi::Pooling, RewardText::Pattern(pattern)) => {
            let texts = samples
                .iter()
                .map(|sample| fill(pattern, sample.prompt, sample.response));
            let texts: Vec<String> = texts.collect();
            let mut body = json!({"input": texts, "use_activation": false});
            if api == HttpApi::Classify {
                // The name that SGLang has for it.
                body["text"] = body["input"].clone();
            }
            body
        }
        _ => json!({"query": samples[0].prompt, "documents": responses().collect::<Vec<_>>()}),
    }
}

/// What the server says of each of so many texts; `None` where it says nothing that is understood.
/// Of several numbers for a text, that of `class` counts.
pub(super) fn read(
    api: HttpApi,
    value: &Value,
    texts: usize,
    class: Option<usize>,
) -> Option<Vec<Said>> {
    let alone = std::slice::from_ref(value);
    let lists = [&value["results"], &value["data"], value];
    let results = lists.iter().find_map(|list| list.as_array());
    let results = match results {
        Some(results) => results.as_slice(),
        None if value["embedding"].is_array() => alone,
        None => return None,
    };
    let ordered = matches!(api, HttpApi::Classify | HttpApi::Pooling);
    let mut said: Vec<Option<Said>> = vec![None; texts];
    for (place, result) in results.iter().enumerate() {
        let index = match result["index"].as_u64() {
            None if ordered => Some(place),
            index => index.and_then(|i| usize::try_from(i).ok()),
        };
        let (Some(place), Some(number)) = (
            index.and_then(|i| said.get_mut(i)),
            number(api, result, class),
        ) else {
            continue;
        };
        *place = Some(match place {
            None => number,
            Some(_) => Err("several scores for this response".into()),
        });
    }
    let missing = || Err("no score for this response".into());
    Some(
        said.into_iter()
            .map(|s| s.unwrap_or_else(missing))
            .collect(),
    )
}

/// The number in what is said of one text.
fn number(api: HttpApi, result: &Value, class: Option<usize>) -> Option<Said> {
    let numbers = match api {
        HttpApi::Classify => [&result["probs"], &result["embedding"]]
            .into_iter()
            .find_map(Value::as_array)?,
        HttpApi::Pooling => {
            let data = result["data"].as_array()?;
            // A row for each token: the last one is that of the whole text.
            data.last()?.as_array().unwrap_or(data)
        }
        _ => {
            let number = [&result["relevance_score"], &result["score"]];
            return number.iter().find_map(|n| n.as_f64()).map(Ok);
        }
    };
    let at = |index: usize| numbers.get(index).and_then(Value::as_f64);
    let count = numbers.len();
    Some(match (count, class) {
        (_, Some(class)) => {
            at(class).ok_or_else(|| format!("{count} numbers, and none is that of class={class}"))
        }
        (1, None) => return at(0).map(Ok),
        _ => Err(format!(
            "{count} numbers; say which is the reward by class=…, from 0"
        )),
    })
}
