//! Rubrics: the mean of judges' answers.

use std::path::Path;

use aisp_llama::reward::{
    Judge, JudgeOptions, Reward, RewardLoader, RewardSpec, Rubric, RubricOptions, RubricQuestion,
    Sample,
};

use crate::common::smollm2;
use crate::rewards;

const QUESTIONS: [(&str, f64); 3] = [
    ("Does the reply name a city?", 1.0),
    ("Is the reply wrong?", -2.0),
    ("Is the reply a whole sentence?", 0.5),
];

fn samples() -> [Sample<'static>; 3] {
    ["Paris is the capital of France.", "It is Rome.", "Bananas."]
        .map(|response| Sample::new("What is the capital of France?", response))
}

fn asked() -> JudgeOptions {
    JudgeOptions {
        threads: aisp_llama::default_threads(),
        ..JudgeOptions::default()
    }
}

fn rubric() -> Rubric {
    let questions = QUESTIONS.map(|(text, weight)| RubricQuestion {
        text: text.into(),
        weight,
    });
    let options = RubricOptions {
        yes: "Yes".into(),
        no: "No".into(),
        context: None,
        questions: questions.into(),
    };
    Rubric::new(smollm2(), &options, &asked()).unwrap()
}

#[test]
fn each_part_is_what_a_judge_says_and_the_reward_their_weighted_mean() {
    let mut rubric = rubric();
    let found = rewards(&mut rubric, &samples());
    let judges = QUESTIONS.map(|(question, _)| {
        let question = format!(
            "Here is a request and a reply to it.\n\nRequest:\n{{prompt}}\n\nReply:\n{{response}}\
             \n\n{question}\nAnswer Yes or No."
        );
        let options = JudgeOptions {
            question: Some(question),
            ..asked()
        };
        rewards(&mut Judge::new(smollm2(), &options).unwrap(), &samples())
    });
    for (i, (sample, found)) in samples().iter().zip(found).enumerate() {
        let (parts, _) = rubric.log_odds(sample).unwrap().unwrap();
        let mut mean = 0.0;
        for ((part, judge), (question, weight)) in parts.iter().zip(&judges).zip(QUESTIONS) {
            assert_eq!(*part, judge[i], "{question}");
            mean += weight * part / 3.5;
        }
        assert!((mean - found).abs() < 1e-12, "{mean} {found}");
    }
}

#[test]
fn what_the_questions_share_is_read_once() {
    let mut rubric = rubric();
    let mut read = |sample: &Sample<'_>| rubric.log_odds(sample).unwrap().unwrap().1;
    let long = "Paris is the capital of France, and has been for a long time. ".repeat(10);
    let sample = Sample::new("What is the capital of France?", &long);
    let length = smollm2().tokenize(&long, false, false).len();
    let first = read(&sample);
    assert!((length..2 * length).contains(&first), "{length} {first}");
}

#[test]
fn a_rubric_is_loaded_from_a_file_and_what_is_wrong_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rubric.toml");
    let load = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let spec = format!("rubric:{};judge=self", path.display());
        let mut loader = RewardLoader::new(Some(smollm2()), Default::default(), 1);
        loader.load(&[RewardSpec::parse(&spec).unwrap()])
    };
    let good = "[[question]]\ntext = \"Is it a city?\"\n";
    let mut reward = load(good).unwrap();
    assert!(reward.name().starts_with("rubric of 1 by"));
    assert!(rewards(&mut *reward, &samples())[0].is_finite());
    let message = load("[[question]]\ntxt = \"?\"").err().unwrap().to_string();
    assert!(message.contains("rubric.toml, line 2"), "{message}");
    let refused = RewardSpec::parse("rubric:r.toml")
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("judge=self"), "{refused}");
    let both = RewardSpec::parse("rubric:r.toml;judge=j.gguf").unwrap();
    assert_eq!(both.files(), [Path::new("r.toml"), Path::new("j.gguf")]);
}
