//! Comparisons: strengths that come from the answers of a judge, and a search on them.

use aisp_llama::method::Rounds;
use aisp_llama::reward::{
    Judge, JudgeOptions, Pairwise, PairwiseOptions, Reward, RewardLoader, RewardSpec, Sample,
    Verdict,
};
use aisp_llama::{AlignOptions, Aligner, Alignment, EngineOptions, Prompt, Stop};

use crate::common::smollm2;
use crate::rewards;

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

fn pairwise() -> Pairwise {
    Pairwise::new(smollm2(), &PairwiseOptions::default(), &asked()).unwrap()
}

/// The log-odds of a judge that the first is the better one.
fn log_odds(first: &Sample<'_>, second: &Sample<'_>) -> f64 {
    let question = format!(
        "Here is a request and two replies to it.\n\nRequest:\n{{prompt}}\n\nReply A:\n\
         {{response}}\n\nReply B:\n{}\n\nWhich reply is better? Answer A or B.",
        second.response
    );
    let options = JudgeOptions {
        question: Some(question),
        verdict: Verdict::YesNo {
            yes: "A".into(),
            no: "B".into(),
        },
        ..asked()
    };
    rewards(&mut Judge::new(smollm2(), &options).unwrap(), &[*first])[0]
}

#[test]
fn two_strengths_differ_by_the_mean_of_both_orders() {
    let [a, b, _] = samples();
    let found = rewards(&mut pairwise(), &[a, b]);
    let by_hand = 0.5 * (log_odds(&a, &b) - log_odds(&b, &a));
    let difference = found[0] - found[1];
    assert!((difference - by_hand).abs() < 0.02 * (1.0 + by_hand.abs()));
    assert!((found[0] + found[1]).abs() < 1e-6, "{found:?}");
    // The order in which they come does not matter.
    let turned = rewards(&mut pairwise(), &[b, a]);
    assert!((turned[1] - found[0]).abs() < 1e-6, "{turned:?} {found:?}");
}

#[test]
fn elites_keep_their_rewards_and_lend_the_others_their_origin() {
    let [a, b, c] = samples();
    let mut reward = pairwise();
    let near = reward.score_beside(&[b, c], &[(a, 0.0)]).unwrap();
    let far = reward.score_beside(&[b, c], &[(a, 50.0)]).unwrap();
    for (near, far) in near.into_iter().zip(far) {
        let (near, far) = (near.unwrap().reward, far.unwrap().reward);
        assert!((far - near - 50.0).abs() < 1e-3, "{near} {far}");
    }
}

#[test]
fn prompts_are_compared_apart_and_a_response_alone_has_no_reward() {
    let [a, b, _] = samples();
    let other = Sample::new("Name a fruit.", "Bananas.");
    let mut reward = pairwise();
    let together = reward.score(&[a, other, b]).unwrap();
    let apart = rewards(&mut reward, &[a, b]);
    assert_eq!(together[0].as_ref().unwrap().reward, apart[0]);
    assert_eq!(together[2].as_ref().unwrap().reward, apart[1]);
    let alone = together[1].as_ref().unwrap_err().to_string();
    assert!(alone.contains("two responses"), "{alone}");
}

#[test]
fn too_long_a_response_has_no_reward_and_spoils_no_other() {
    let [a, b, _] = samples();
    let long = "word ".repeat(5000);
    let scores = pairwise()
        .score(&[
            a,
            b,
            Sample {
                response: &long,
                ..a
            },
        ])
        .unwrap();
    assert!(scores[0].is_ok() && scores[1].is_ok());
    assert!(
        scores[2]
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("tokens")
    );
}

fn search() -> Alignment {
    let mut aligner = Aligner::new(smollm2(), EngineOptions::default()).unwrap();
    let options = AlignOptions {
        rounds: Rounds {
            samples: 3,
            iterations: 3,
            max_tokens: 8,
            ..Rounds::default()
        },
        ..AlignOptions::default()
    };
    let mut reward = pairwise();
    let prompt = Prompt::user(None, "Name a fruit.");
    aligner
        .align(&prompt, &mut reward, &options, &Stop::new(), &mut |_| {})
        .unwrap()
}

#[test]
fn a_search_can_do_with_a_reward_that_only_compares() {
    let found = search();
    let scored = found.candidates.iter().filter_map(|c| c.reward);
    assert_eq!(scored.clone().count(), 9);
    assert!(scored.clone().all(f64::is_finite));
    assert_eq!(found.candidates[0].text, found.response);
    // The same run, by a reward that has seen nothing before.
    assert_eq!(search().response, found.response);
}

#[test]
fn a_reward_that_only_compares_stands_alone() {
    let spec = |text| RewardSpec::parse(text).unwrap();
    let mut loader = RewardLoader::new(Some(smollm2()), Default::default(), 1);
    let mixed = loader.load(&[spec("pairwise:self"), spec("rule:words=3")]);
    let message = mixed.err().unwrap().to_string();
    assert!(message.contains("give it alone"), "{message}");
    assert!(loader.load(&[spec("2*pairwise:self")]).is_err());
    assert!(loader.load(&[spec("pairwise:self")]).is_ok());
}
