//! Grammars under every method: a search among valid answers only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use aisp_llama::llama::{Grammar, Token};
use aisp_llama::method::{MethodSpec, Rounds};
use aisp_llama::reward::FnReward;
use aisp_llama::rollout::{End, Form};
use aisp_llama::{AlignOptions, Aligner, Alignment, EngineOptions, Prompt, Stop};
use regex::Regex;
use serde_json::{Value, json};

use crate::common::{gemma3, smollm2};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "film": {"type": "string", "maxLength": 16},
            "stars": {"type": "integer", "minimum": 1, "maximum": 5},
            "tags": {"type": "array", "items": {"enum": ["funny", "sad"]}, "maxItems": 2},
        },
        "required": ["film", "stars"],
        "additionalProperties": false,
    })
}

const GBNF: &str = "root ::= (\"yes\" | \"no\") \", \" [a-zé ]{1,30} \"!\"";

/// A run of a method with a grammar; the reward likes whole answers with many a.
fn run(method: &str, grammar: Grammar, parallel: usize) -> Alignment {
    let mut reward = FnReward::new("a", |_: &str, response: &str| {
        let whole = response.ends_with(['}', '!']);
        f64::from(whole) + response.matches('a').count() as f64 / 10.0
    });
    let engine = EngineOptions {
        parallel,
        ..EngineOptions::default()
    };
    let mut aligner = Aligner::new(smollm2(), engine).unwrap();
    let options = AlignOptions {
        method: method.parse::<MethodSpec>().unwrap(),
        rounds: Rounds {
            samples: 8,
            iterations: 3,
            max_tokens: 40,
            seed: 3,
        },
        form: Form {
            grammar: Some(Arc::new(grammar)),
            ..Form::default()
        },
        ..AlignOptions::default()
    };
    let prompt = Prompt::user(None, "Is this film about a dog any good?");
    aligner
        .align(&prompt, &mut reward, &options, &Stop::new(), &mut |_| {})
        .unwrap()
}

const METHODS: [&str; 7] = [
    "greedy",
    "search",
    "aisp",
    "best-of-n",
    "soft-best-of-n",
    "misvo",
    "args:guided=2",
];

#[test]
fn every_answer_is_json_of_the_schema() {
    let valid = jsonschema::validator_for(&schema()).unwrap();
    for method in METHODS {
        let grammar = || Grammar::json_schema(smollm2(), &schema()).unwrap();
        let found = run(method, grammar(), 8);
        let mut whole = 0;
        for candidate in &found.candidates {
            assert!(
                candidate.text.trim_start().starts_with('{'),
                "{}",
                candidate.text
            );
            if candidate.end == End::EndOfTurn {
                let value: Value = serde_json::from_str(&candidate.text).expect(&candidate.text);
                assert!(valid.is_valid(&value), "{method}: {value}");
                whole += 1;
            }
        }
        let enough = method == "greedy" || 3 * whole > found.candidates.len();
        assert!(enough, "{method}: {whole} whole");
        let texts: BTreeSet<&str> = found.candidates.iter().map(|c| c.text.as_str()).collect();
        assert!(method == "greedy" || texts.len() > 2, "{method}: {texts:?}");
        let again = run(method, grammar(), 16);
        assert_eq!(found.response, again.response, "{method}");
    }
}

#[test]
fn every_answer_is_of_the_gbnf() {
    let form = Regex::new("^(yes|no), [a-zé ]{1,30}!$").unwrap();
    for method in METHODS {
        let found = run(method, Grammar::gbnf(smollm2(), GBNF).unwrap(), 8);
        for candidate in &found.candidates {
            let text = &candidate.text;
            match candidate.end {
                End::EndOfTurn => assert!(form.is_match(text), "{method}: {text}"),
                end => assert!(
                    end == End::Length && (text.starts_with("yes, ") || text.starts_with("no, ")),
                    "{method}: {text} {end:?}"
                ),
            }
        }
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_its_reason() {
    let field = |result: aisp_llama::Result<Grammar>| result.err().unwrap().to_string();
    for text in [
        "",
        "root ::= (",
        "other ::= \"a\"",
        "root ::= root \"a\" | \"b\"",
    ] {
        let error = field(Grammar::gbnf(smollm2(), text));
        assert!(error.contains("grammar"), "{text}: {error}");
    }
    let error = field(Grammar::json_schema(smollm2(), &json!({"type": "nope"})));
    assert!(
        error.contains("json-schema") && error.contains("nope"),
        "{error}"
    );
}

/// What may come next after `tokens`, of all of a vocabulary.
fn allowed(grammar: &Grammar, tokens: &[Token], vocabulary: usize) -> Vec<Token> {
    let mut state = grammar.start();
    for &token in tokens {
        state.accept(token).unwrap();
    }
    let mut logits = vec![0.0; vocabulary];
    state.mask(&mut logits).unwrap();
    let finite = (0..).zip(logits).filter(|(_, logit)| logit.is_finite());
    finite.map(|(token, _)| token).collect()
}

#[test]
fn only_ends_follow_what_is_whole() {
    for model in [smollm2(), gemma3()] {
        let gbnf = Grammar::gbnf(Arc::clone(&model), "root ::= \"yes!\"").unwrap();
        let schema = Grammar::json_schema(Arc::clone(&model), &json!({"const": 12})).unwrap();
        for (grammar, text) in [(gbnf, "yes!"), (schema, "12")] {
            let count = model.vocabulary();
            let tokens = model.tokenize(&format!("\n{text}"), false, false);
            let line = model.tokenize("\n", false, false);
            let tokens = &tokens[line.len()..];
            let begun = Instant::now();
            let first = allowed(&grammar, &[], count);
            println!("{text}: {:?} for one mask", begun.elapsed());
            assert!(first.contains(&tokens[0]) && first.len() < 20, "{first:?}");
            assert!(first.iter().all(|&token| !model.is_end(token)));
            let last = allowed(&grammar, tokens, count);
            assert!(!last.is_empty() && last.iter().all(|&token| model.is_end(token)));
        }
    }
}
