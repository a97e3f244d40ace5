//! Texts that are continued.

use serde_json::{Value, json};

use crate::{Server, text};

const PROMPT: &str = "I believe the meaning of life is";

fn native(more: Value) -> Value {
    let mut body = json!({"prompt": PROMPT, "n_predict": 24, "seed": 42});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().cloned().unwrap());
    body
}

#[test]
fn a_stream_says_what_comes_in_one_piece() {
    let server = Server::start(&[]);
    for seed in 0..6 {
        let mut body = native(json!({"seed": seed}));
        let whole = server.json("/completion", &body);
        assert_eq!(whole["stop"], true);
        assert!(whole["tokens_predicted"].as_u64().unwrap() <= 24);
        body["stream"] = true.into();
        let chunks: Vec<Value> = server
            .stream("/completion", &body)
            .map(|data| serde_json::from_str(&data).unwrap())
            .collect();
        let (last, pieces) = chunks.split_last().unwrap();
        let texts = chunks
            .iter()
            .map(|chunk| chunk["content"].as_str().unwrap());
        assert_eq!(texts.collect::<String>(), whole["content"]);
        assert!(pieces.len() > 4 && pieces.iter().all(|piece| piece["stop"] == false));
        for field in ["tokens_predicted", "stop_type", "generation_settings"] {
            assert_eq!(last[field], whole[field], "{field}");
        }
    }
}

#[test]
fn a_seed_gives_one_text_and_other_seeds_others() {
    let server = Server::start(&[]);
    let of =
        |seed: i64| server.json("/completion", &native(json!({"seed": seed})))["content"].clone();
    assert_eq!(of(42), of(42));
    assert_ne!(of(42), of(43));
    assert_ne!(of(-1), of(-1));
    let cold = native(json!({"temperature": 0.0, "seed": 1}));
    let other = native(json!({"temperature": 0.0, "seed": 2}));
    let content = |body| server.json("/completion", &body)["content"].clone();
    assert_eq!(content(cold), content(other));
}

#[test]
fn prompts_are_texts_tokens_both_and_lists_of_them() {
    let server = Server::start(&[]);
    let tokens = server.json(
        "/tokenize",
        &json!({"content": PROMPT, "add_special": true}),
    );
    let tokens = tokens["tokens"].clone();
    let whole = server.json("/completion", &native(json!({})))["content"].clone();
    let of = |prompt: Value| server.json("/completion", &native(json!({"prompt": prompt})));
    assert_eq!(of(tokens.clone())["content"], whole);
    let (begin, end) = PROMPT.split_at(9);
    let end = server.json("/tokenize", &json!({"content": end}))["tokens"].clone();
    let mut mixed = vec![json!(begin)];
    mixed.extend(end.as_array().unwrap().clone());
    assert_eq!(of(mixed.into())["content"], whole);
    let many = of(json!([PROMPT, "Another one", tokens]));
    let many = many.as_array().unwrap();
    assert_eq!(many.len(), 3);
    assert_eq!((&many[0]["content"], &many[2]["content"]), (&whole, &whole));
    assert_eq!(many[1]["index"], 1);
    assert_ne!(many[1]["content"], whole);
    for prompt in [
        json!([]),
        json!(7),
        json!([[-1]]),
        json!([[999_999]]),
        json!([["x", 0.5]]),
        json!(""),
    ] {
        let reply = server.post("/completion", &native(json!({"prompt": prompt})));
        assert_eq!(reply.status, 400, "{prompt}: {}", reply.body);
    }
}

#[test]
fn a_text_that_ends_answers_is_no_part_of_them() {
    let server = Server::start(&[]);
    let whole = server.json("/completion", &native(json!({})));
    let content = whole["content"].as_str().unwrap();
    // A word of it that is whole characters.
    let ends = content.char_indices().skip(8);
    let (at, stop) = ends
        .filter_map(|(at, c)| Some((at, content.get(at..at + c.len_utf8())?)))
        .find(|(at, c)| *c != "\u{FFFD}" && content.find(c) == Some(*at))
        .expect("a character that is new there");
    for stream in [false, true] {
        let body = native(json!({"stop": [stop, "never"], "stream": stream}));
        let said = match stream {
            false => server.json("/completion", &body)["content"]
                .as_str()
                .unwrap()
                .to_owned(),
            true => {
                let all = server.stream("/completion", &body);
                let parse = |data: String| serde_json::from_str::<Value>(&data).unwrap();
                all.map(|data| parse(data)["content"].as_str().unwrap().to_owned())
                    .collect()
            }
        };
        assert_eq!(said, content[..at], "stream {stream}");
    }
}

#[test]
fn probabilities_and_biases_are_those_of_the_tokens() {
    let server = Server::start(&[]);
    let said = server.json("/completion", &native(json!({"n_probs": 5})));
    let unwatched = server.json("/completion", &native(json!({})));
    assert_eq!(said["content"], unwatched["content"]);
    let entries = said["completion_probabilities"].as_array().unwrap();
    assert_eq!(
        entries.len() as u64,
        said["tokens_predicted"].as_u64().unwrap()
    );
    for entry in entries {
        let best = entry["top_logprobs"].as_array().unwrap();
        let logprobs: Vec<f64> = best
            .iter()
            .map(|b| b["logprob"].as_f64().unwrap())
            .collect();
        assert_eq!(best.len(), 5);
        assert!(logprobs.is_sorted_by(|a, b| a >= b), "{logprobs:?}");
        assert!(entry["logprob"].as_f64().unwrap() <= logprobs[0] + 1e-6);
        assert!(logprobs.iter().map(|p| p.exp()).sum::<f64>() <= 1.0 + 1e-5);
    }
    let e = server.json("/tokenize", &json!({"content": "e"}))["tokens"][0].clone();
    for bias in [json!([[e, 1000]]), json!([["e", 1000.0]])] {
        let said = server.json("/completion", &native(json!({"logit_bias": bias})));
        assert_eq!(said["content"], "e".repeat(24));
    }
    let never = server.json(
        "/completion",
        &native(json!({"logit_bias": [[e, false]], "n_predict": 100})),
    );
    assert!(!never["content"].as_str().unwrap().contains('e'));
}

#[test]
fn openai_s_completions_take_several_prompts() {
    let server = Server::start(&[]);
    let body = |prompt: Value| json!({"model": "tiny", "prompt": prompt, "max_tokens": 12, "seed": 3, "logprobs": 2});
    let one = server.json("/v1/completions", &body(json!(PROMPT)));
    assert_eq!(one["object"], "text_completion");
    let entries = one["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(
        entries.len() as u64,
        one["usage"]["completion_tokens"].as_u64().unwrap()
    );
    let two = server.json("/v1/completions", &body(json!([PROMPT, "Another"])));
    let choices = two["choices"].as_array().unwrap();
    assert_eq!((choices.len(), &choices[1]["index"]), (2, &json!(1)));
    assert_eq!(choices[0]["text"], text(&one));
    let mut searched = body(json!(PROMPT));
    searched["model"] = "tiny:aisp".into();
    let searched = server.json("/v1/completions", &searched);
    assert!(searched["aisp"]["reward"].is_number());
    assert_eq!(text(&searched), searched["aisp"]["response"]);
}
