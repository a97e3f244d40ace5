//! Where responses end: at texts, across the borders of tokens, and never at the model's own end.

use std::ops::ControlFlow;
use std::sync::Arc;

use aisp_llama::llama::{Model, ReasoningMarkers, Token};
use aisp_llama::rollout::{Candidate, End, Form, Job, Rollout, RolloutOptions};

use crate::common::smollm2;

fn markers() -> ReasoningMarkers {
    ReasoningMarkers::of("{{ '<think>' }} </think>").unwrap()
}

/// The most probable response of at most 40 tokens, in a group and alone.
fn write(model: &Arc<Model>, prompt: &[Token], form: &Form) -> Candidate {
    let options = RolloutOptions {
        parallel: 8,
        context: 256,
        ..RolloutOptions::default()
    };
    let mut rollout = Rollout::new(Arc::clone(model), &options).unwrap();
    let prompt = rollout
        .add_prompt_for(prompt.to_vec(), form.clone())
        .unwrap();
    let jobs = [false, true].map(|alone| Job {
        alone,
        ..Job::new(prompt, 40)
    });
    let done = rollout
        .run(&jobs, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let [a, b] = done.try_into().unwrap();
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((&a.text, a.end), (&b.text, b.end));
    a
}

#[test]
fn a_response_ends_before_a_text_wherever_it_stands() {
    let model = smollm2();
    let prompt = model.tokenize("The capitals of the world are Paris, London,", true, true);
    let whole = write(&model, &prompt, &Form::default()).text;
    let bytes = whole.as_bytes();
    assert!(whole.is_ascii() && bytes.len() > 60, "{whole}");
    for (begin, length) in [(0, 1), (7, 4), (20, 11), (33, 1), (40, 19)] {
        let stop = &whole[begin..begin + length];
        let form = Form {
            stop: vec!["nowhere to be found".into(), stop.into()],
            ..Form::default()
        };
        let found = write(&model, &prompt, &form);
        let expected = &whole[..whole.find(stop).unwrap()];
        assert_eq!(
            (found.text.as_str(), found.end),
            (expected, End::StopText),
            "{stop:?}"
        );
        // It ends with the token that completes the text.
        let before = &found.tokens[..found.tokens.len() - 1];
        assert!(!model.text(before).contains(stop), "{stop:?}");
    }
    let never = Form {
        stop: vec!["nowhere to be found".into()],
        ..Form::default()
    };
    assert_eq!(write(&model, &prompt, &never).text, whole);
}

#[test]
fn a_text_of_several_bytes_a_character_is_found_across_tokens() {
    let model = smollm2();
    let form = |stop: &str| Form {
        stop: vec![stop.into()],
        ..Form::default()
    };
    let text = "naïve 🐸 façade, 東京タワー!";
    let tokens = model.tokenize(text, false, false);
    assert!(tokens.len() > 12, "{}", tokens.len());
    for stop in ["ï", "🐸", "ç", "京タ", "🐸 faç", "!"] {
        let reading = form(stop).read(&model, &tokens);
        assert!(reading.stopped);
        assert_eq!(reading.text, text[..text.find(stop).unwrap()], "{stop}");
    }
    assert!(!form("é").read(&model, &tokens).stopped);
    let empty = Form {
        stop: vec![String::new()],
        ..Form::default()
    };
    let mut rollout = Rollout::new(Arc::clone(&model), &RolloutOptions::default()).unwrap();
    let error = rollout
        .add_prompt_for(vec![1], empty)
        .unwrap_err()
        .to_string();
    assert!(error.contains("stop"), "{error}");
}

#[test]
fn the_models_own_end_can_be_ruled_out() {
    let model = smollm2();
    let prompt = model.tokenize(
        "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\n",
        true,
        true,
    );
    let own = write(&model, &prompt, &Form::default());
    assert_eq!(own.end, End::EndOfTurn, "{}", own.text);
    let form = Form {
        ignore_end: true,
        ..Form::default()
    };
    let on = write(&model, &prompt, &form);
    assert_eq!((on.end, on.tokens.len()), (End::Length, 40));
    assert!(on.tokens.iter().all(|&token| !model.is_end(token)));
    assert!(on.text.starts_with(own.text.trim_end()));
}

#[test]
fn reasoning_is_no_part_of_the_answer() {
    let model = smollm2();
    let form = Form {
        stop: vec!["END".into()],
        reasoning: Some(markers()),
        ..Form::default()
    };
    let read = |text: &str| form.read(&model, &model.tokenize(text, false, true));
    let found = read("<think>\nEND? No, 2 + 2.\n</think>\n\nFour. END of it");
    assert_eq!(found.reasoning.as_deref(), Some("END? No, 2 + 2."));
    assert_eq!(
        (found.text.as_str(), found.stopped, found.unfinished),
        ("Four. ", true, false)
    );
    let found = read("<think>\nEND? So many");
    assert_eq!(
        (found.text.as_str(), found.stopped, found.unfinished),
        ("", false, true)
    );
    let found = read("Four, and no <think> about it.");
    assert_eq!((found.reasoning, found.unfinished), (None, false));
    assert_eq!(found.text, "Four, and no <think> about it.");
    // The prompt may have opened it.
    let found = read("So.</think>Four.");
    assert_eq!(
        (found.text.as_str(), found.reasoning.as_deref()),
        ("Four.", Some("So."))
    );
}
