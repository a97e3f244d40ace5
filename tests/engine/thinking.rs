//! Models that think: what published templates say of it, and a search for answers behind reasoning.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aisp_llama::llama::{ChatOptions, ChatTemplate, Message, Think, Turn};
use aisp_llama::method::Rounds;
use aisp_llama::reward::FnReward;
use aisp_llama::{AlignOptions, Aligner, Alignment, EngineOptions, Prompt, ReasoningOptions, Stop};

use crate::common::{cached, smollm2};

fn turn(source: &str, think: Option<Think>) -> aisp_llama::Result<Turn> {
    let options = ChatOptions {
        think,
        date: Some("2026-01-05T08:09".parse().unwrap()),
        ..ChatOptions::default()
    };
    ChatTemplate::of(source, "<s>", "</s>", &options).open(&[Message::new("user", "Hi")])
}

#[test]
fn published_templates_are_told_whether_to_think() {
    let mut said = BTreeMap::new();
    for entry in std::fs::read_dir(cached("templates")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let source = std::fs::read_to_string(&path).unwrap();
        let Ok(auto) = turn(&source, Some(Think::Auto)) else {
            continue;
        };
        let Some(markers) = auto.reasoning else {
            continue;
        };
        let [default, off, on] =
            [None, Some(Think::Off), Some(Think::On)].map(|think| turn(&source, think).unwrap());
        assert!(!off.thinks && !off.opened, "{name}: {:?}", off.text);
        assert!(on.thinks, "{name}");
        let end = |turn: &Turn| turn.text.chars().rev().take(40).collect::<Vec<_>>();
        let end = |turn: &Turn| end(turn).into_iter().rev().collect::<String>();
        println!(
            "{name}: {} {} | auto {} {:?} | off {:?} | on {:?}",
            markers.open,
            default.thinks,
            auto.thinks,
            end(&auto),
            end(&off),
            end(&on)
        );
        said.insert(name, (default.thinks, auto.thinks, off.text));
    }
    let of = |name: &str| {
        said.get(name)
            .unwrap_or_else(|| panic!("{name} marks no reasoning"))
    };
    // Off where there is a switch, whatever the template does by itself.
    for name in [
        "Qwen-Qwen3-0.6B",
        "Qwen3.5-4B",
        "GLM-4.7-Flash",
        "HuggingFaceTB-SmolLM3-3B",
        "Kimi-K3",
    ] {
        let (default, auto, _) = of(name);
        assert_eq!((*default, *auto), (false, true), "{name}");
    }
    for name in [
        "google-gemma-4-31B-it",
        "openai-gpt-oss-120b",
        "deepseek-ai-DeepSeek-V3.1",
    ] {
        let (default, auto, _) = of(name);
        assert_eq!((*default, *auto), (false, false), "{name}");
    }
    // There is none.
    for name in [
        "StepFun3.5-Flash",
        "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
        "MiniMax-M2",
    ] {
        let (default, auto, off) = of(name);
        assert_eq!((*default, *auto), (true, true), "{name}");
        assert!(off.trim_end().ends_with("</think>"), "{name}: {off:?}");
    }
    for (name, direct) in [
        ("openai-gpt-oss-120b", "<|channel|>final<|message|>"),
        ("upstage-Solar-Open-100B", "<|begin|>assistant<|content|>"),
        ("Kimi-K3", "<|open|>response<|sep|>"),
    ] {
        assert!(of(name).2.ends_with(direct), "{name}: {}", of(name).2);
    }
    assert!(said.len() >= 35, "{}", said.len());
}

const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
                        {% endfor %}<|im_start|>assistant\n\
                        {% if enable_thinking is defined and enable_thinking is false %}\
                        <think>\n\n</think>\n\n{% else %}<think>\n{% endif %}";

/// A run that thinks, with the texts that its reward saw.
fn run(
    think: Option<Think>,
    reasoning: ReasoningOptions,
    parallel: usize,
) -> (Alignment, Vec<String>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let mut reward = FnReward::new("vowels", move |_: &str, response: &str| {
        told.lock().unwrap().push(response.to_owned());
        let vowels = response.chars().filter(|c| "aeiou".contains(*c)).count();
        vowels as f64 / response.len() as f64
    });
    let mut aligner = aligner(think, reasoning, parallel);
    let options = options();
    let answer = aligner
        .align(
            &prompt("a dog"),
            &mut reward,
            &options,
            &Stop::new(),
            &mut |_| {},
        )
        .unwrap();
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (answer, seen)
}

fn prompt(about: &str) -> Prompt {
    Prompt::user(None, format!("Write one sentence about {about}."))
}

fn options() -> AlignOptions {
    AlignOptions {
        rounds: Rounds {
            samples: 8,
            iterations: 2,
            max_tokens: 12,
            ..Rounds::default()
        },
        ..AlignOptions::default()
    }
}

fn aligner(think: Option<Think>, reasoning: ReasoningOptions, parallel: usize) -> Aligner {
    let engine = EngineOptions {
        parallel,
        reasoning,
        chat: ChatOptions {
            template: Some(TEMPLATE.into()),
            think,
            ..ChatOptions::default()
        },
        ..EngineOptions::default()
    };
    Aligner::new(smollm2(), engine).unwrap()
}

#[test]
fn reasoning_is_written_once_and_rewards_see_answers() {
    let budget = |budget, count| ReasoningOptions { budget, count };
    let (off, _) = run(None, budget(24, 1), 8);
    assert_eq!((off.reasoning, off.usage.reasoning_tokens), (None, 0));

    let (on, seen) = run(Some(Think::On), budget(24, 1), 8);
    let reasoning = on.reasoning.clone().unwrap();
    assert_eq!(on.usage.reasoning_tokens, 24, "{reasoning:?}");
    assert!(on.timings.reasoning_seconds > 0.0);
    assert!(!reasoning.contains("think>") && !reasoning.is_empty());
    for text in &seen {
        assert!(
            !text.contains("think>") && !text.contains(&reasoning),
            "{text}"
        );
    }
    assert!(
        on.candidates.iter().all(|c| c.tokens <= 12),
        "tokens of answers alone"
    );
    assert_ne!(on.response, off.response);

    let (again, _) = run(Some(Think::On), budget(24, 1), 16);
    assert_eq!(
        (&again.response, &again.reasoning),
        (&on.response, &on.reasoning)
    );

    // Whoever comes second with the same prompt does not think again, and has no gain of time by it.
    let mut both = aligner(Some(Think::On), budget(24, 1), 8);
    let reward = || FnReward::new("length", |_: &str, response: &str| response.len() as f64);
    let mut times = [(); 2].map(|()| {
        let found = both.align(
            &prompt("a dog"),
            &mut reward(),
            &options(),
            &Stop::new(),
            &mut |_| {},
        );
        found.unwrap().timings
    });
    assert!(times[0].reasoning_seconds > 0.0);
    assert_eq!(times[0].reasoning_seconds, times[1].reasoning_seconds);
    times
        .iter_mut()
        .for_each(|t| t.total_seconds -= t.reasoning_seconds);
    assert!(
        times
            .iter()
            .all(|t| t.total_seconds >= t.generation_seconds)
    );

    // A budget of nothing closes it at once.
    let (none, _) = run(Some(Think::On), budget(0, 1), 8);
    assert_eq!((none.reasoning, none.usage.reasoning_tokens), (None, 0));

    // Two of them: twice the candidates, and an answer that is no worse than either's.
    let (two, _) = run(Some(Think::On), budget(24, 2), 8);
    assert_eq!(two.usage.reasoning_tokens, 48);
    assert_eq!(two.usage.candidates, 2 * on.usage.candidates);
}

#[test]
fn many_prompts_think_as_each_alone() {
    let reasoning = ReasoningOptions {
        budget: 16,
        count: 1,
    };
    let reward = || FnReward::new("length", |_: &str, response: &str| -(response.len() as f64));
    let prompts = ["a dog", "the sea", "a long and winding road"].map(prompt);
    let mut all = aligner(Some(Think::On), reasoning, 8);
    let mut together = BTreeMap::new();
    all.align_all(
        &prompts,
        &mut reward(),
        &options(),
        &Stop::new(),
        &mut |_| {},
        &mut |number, answer| {
            together.insert(number, answer?);
            Ok(())
        },
    )
    .unwrap();
    for (number, prompt) in prompts.iter().enumerate() {
        let alone = aligner(Some(Think::On), reasoning, 8)
            .align(prompt, &mut reward(), &options(), &Stop::new(), &mut |_| {})
            .unwrap();
        let found = &together[&number];
        assert_eq!(
            (&found.response, &found.reasoning),
            (&alone.response, &alone.reasoning)
        );
    }
}
