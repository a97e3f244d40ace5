//! Judges that write before they answer.

use std::ops::ControlFlow;
use std::sync::Arc;

use aisp_llama::reward::{Judge, JudgeOptions, Reward, Sample, SampleError, Verdict};
use aisp_llama::rollout::{Form, Job, Rollout, RolloutOptions};

use crate::common::smollm2;
use crate::judge::chances;
use crate::rewards;

const MARKER: &str = "So I say:";

fn samples() -> [Sample<'static>; 3] {
    [
        "Paris is the capital of France.",
        "It is Rome.",
        "Bananas are yellow, and the sky is blue on most days of the year.",
    ]
    .map(|response| Sample::new("What is the capital of France?", response))
}

fn options() -> JudgeOptions {
    JudgeOptions {
        reason: 12,
        marker: Some(MARKER.into()),
        threads: aisp_llama::default_threads(),
        ..JudgeOptions::default()
    }
}

#[test]
fn the_answer_is_read_behind_what_the_judge_writes_and_the_marker() {
    let model = smollm2();
    let mut judge = Judge::new(Arc::clone(&model), &options()).unwrap();
    let found = rewards(&mut judge, &samples());
    let mut rollout = Rollout::new(Arc::clone(&model), &RolloutOptions::default()).unwrap();
    for (sample, found) in samples().iter().zip(found) {
        let mut tokens = judge.tokenize(sample).unwrap();
        assert!(
            model.text(&tokens).contains(MARKER),
            "the question names it"
        );
        let form = Form {
            stop: vec![MARKER.into()],
            ..Form::default()
        };
        let prompt = rollout.add_prompt_for(tokens.clone(), form).unwrap();
        let go_on = &mut |_| ControlFlow::Continue(());
        let written = rollout.run(&[Job::new(prompt, 12)], go_on).unwrap();
        let text = written[0].as_ref().unwrap().text.clone();
        assert!(!text.trim().is_empty());
        let text = text.trim_end_matches(['*', '#', '_', ' ', '\n']);
        tokens.extend(model.tokenize(text, false, false));
        tokens.extend(model.tokenize(&format!("\n\n{MARKER}"), false, false));
        let p = chances(&model, &tokens);
        let of = |words: [&str; 6]| -> f64 {
            let mut first = words.map(|word| model.tokenize(word, false, false)[0] as usize);
            first.sort_unstable();
            let mut first = first.to_vec();
            first.dedup();
            first.into_iter().map(|token| p[token]).sum()
        };
        let yes = of(["Yes", "yes", "YES", " Yes", " yes", " YES"]);
        let no = of(["No", "no", "NO", " No", " no", " NO"]);
        let by_hand = yes.ln() - no.ln();
        assert!((by_hand - found).abs() < 1e-3, "{by_hand} {found}: {text}");
    }
}

#[test]
fn reasons_are_the_same_alone_and_among_others() {
    let mut judge = Judge::new(smollm2(), &options()).unwrap();
    let together = rewards(&mut judge, &samples());
    for (sample, together) in samples().iter().zip(together) {
        assert_eq!(rewards(&mut judge, &[*sample]), [together]);
    }
}

#[test]
fn what_is_written_counts_as_read_and_too_long_a_reply_fails_alone() {
    let mut judge = Judge::new(smollm2(), &options()).unwrap();
    let long = "word ".repeat(5000);
    let both = [samples()[0], Sample::new("Hi", &long)];
    let question = judge.tokenize(&both[0]).unwrap().len();
    let scores = judge.score(&both).unwrap();
    assert!(scores[0].as_ref().unwrap().tokens > question);
    assert!(matches!(scores[1], Err(SampleError::TooLong { .. })));
}

#[test]
fn a_marker_without_reasons_is_refused() {
    let refused = |options: &JudgeOptions| {
        let judge = Judge::new(smollm2(), options);
        judge.err().unwrap().to_string()
    };
    let without = JudgeOptions {
        reason: 0,
        ..options()
    };
    assert!(refused(&without).contains("give reason=N"));
    let empty = JudgeOptions {
        marker: Some(" ".into()),
        ..options()
    };
    assert!(refused(&empty).contains("marker= is empty"));
}

#[test]
fn a_number_may_stand_behind_reasons_too() {
    let options = JudgeOptions {
        verdict: Verdict::Scale { low: 1, high: 5 },
        ..options()
    };
    let mut judge = Judge::new(smollm2(), &options).unwrap();
    let found = rewards(&mut judge, &samples());
    assert!(found.iter().all(|r| (1.0..=5.0).contains(r)), "{found:?}");
}
