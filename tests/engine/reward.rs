//! The film-review reward on the engine.

use aisp_llama::reward::{Classifier, ClassifierOptions, Reward, RewardText, Sample};

use crate::common::{REWARD, path};

fn classifier(text: Option<&str>) -> Classifier {
    let options = ClassifierOptions {
        threads: aisp_llama::default_threads(),
        text: text.map(|t| RewardText::parse(t).unwrap()),
        ..ClassifierOptions::default()
    };
    Classifier::load(&path(REWARD), &options).unwrap()
}

fn scores(reward: &mut Classifier, pairs: &[(&str, &str)]) -> Vec<f64> {
    let samples: Vec<Sample<'_>> = pairs
        .iter()
        .map(|&(prompt, response)| Sample::new(prompt, response))
        .collect();
    let scores = reward.score(&samples).unwrap();
    scores.into_iter().map(|s| s.unwrap().reward).collect()
}

#[test]
fn a_score_depends_on_its_own_text_alone() {
    let mut reward = classifier(None);
    let pairs = [
        ("", "A delight from start to finish."),
        ("", "It has its moments, but they are few and far between."),
        ("", "Awful."),
    ];
    let together = scores(&mut reward, &pairs);
    assert!(
        together[0] > together[1] && together[1] > together[2],
        "{together:?}"
    );
    for (pair, score) in pairs.iter().zip(&together) {
        assert_eq!(scores(&mut reward, &[*pair]), [*score]);
    }
}

#[test]
fn the_film_review_reward_sees_the_response_alone_unless_told_otherwise() {
    let mut stated = classifier(None);
    assert_eq!(stated.text().to_string(), "{response}");
    let both = [("Praise it.", "Fine."), ("Damn it.", "Fine.")];
    let [a, b] = scores(&mut stated, &both)[..] else {
        unreachable!()
    };
    assert_eq!(a, b);
    let mut told = classifier(Some("{prompt}\\n{response}"));
    let [a, b] = scores(&mut told, &both)[..] else {
        unreachable!()
    };
    assert_ne!(a, b);
}
