//! How likely SmolLM2 and Gemma 3 find responses.

use std::sync::Arc;

use aisp_llama::llama::{Message, Model, ModelOptions};
use aisp_llama::reward::{
    Likelihood, LikelihoodOptions, Reward, RewardLoader, RewardSpec, Sample, SampleError,
};
use aisp_llama::{Aligner, EngineOptions, Error, Prompt, default_threads};

use crate::common::{GEMMA3, REWARD, gemma3, path, smollm2};
use crate::stepwise::surprise;
use crate::{plain_decode, rewards};

const PROMPT: &str = "Write one sentence reviewing a movie about a lost dog.";
const FLUENT: &str = "The movie is a warm and moving story about a dog that finds its way home.";
const SALAD: &str = "Way dog the a its moving home warm that is movie about finds and story a.";

fn likelihood(model: Arc<Model>, options: LikelihoodOptions) -> Likelihood {
    let options = LikelihoodOptions {
        threads: default_threads(),
        ..options
    };
    Likelihood::new(model, &options).unwrap()
}

fn raw(between: &str) -> LikelihoodOptions {
    LikelihoodOptions {
        chat: Some(false),
        between: Some(between.into()),
        ..LikelihoodOptions::default()
    }
}

fn sample(response: &str) -> Sample<'_> {
    Sample::new(PROMPT, response)
}

/// More than are read side by side, of one token and of several blocks of positions.
fn responses() -> Vec<String> {
    let mut all: Vec<String> = [
        FLUENT,
        SALAD,
        "Wow",
        " Fine.",
        "<|im_end|> is plain text here, whatever it looks like.",
        "Ein Film über einen Hund – schön! 🐕",
    ]
    .map(Into::into)
    .into();
    all.extend((1..=12).map(|n| "A dog is lost, then found. ".repeat(n % 5) + &"!".repeat(n)));
    all
}

#[test]
fn the_score_is_that_of_a_plain_decode() {
    for (model, options) in [
        (smollm2(), LikelihoodOptions::default()),
        (gemma3(), raw("")),
    ] {
        let mut likelihood = likelihood(Arc::clone(&model), options);
        let sample = sample("A warm and moving story about a dog.");
        let (tokens, from) = likelihood.tokenize(&sample).unwrap();
        let mut sum = 0.0;
        for i in from..tokens.len() {
            let context = plain_decode(&model, &tokens[..i], false);
            let logits = context.get_logits_ith(i as i32 - 1);
            let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
            sum += f64::from(logits[tokens[i] as usize]) - total.ln();
        }
        let by_hand = sum / (tokens.len() - from) as f64;
        let found = rewards(&mut likelihood, &[sample])[0];
        println!("likelihood: {found}, by a plain decode {by_hand}");
        assert!((found - by_hand).abs() < 1e-3, "{found} {by_hand}");
    }
}

/// On a quantised model only nearly: flash attention rounds otherwise (see `qwen3.rs` for one in
/// full precision).
#[test]
fn the_score_is_minus_the_surprise() {
    let model = smollm2();
    let aligner = Aligner::new(Arc::clone(&model), EngineOptions::default()).unwrap();
    let prompt = Prompt::Chat(vec![Message::new("user", PROMPT)]);
    let prompt = aligner.tokenize(&prompt).unwrap();
    let responses = &responses()[..6];
    let samples: Vec<_> = responses.iter().map(|text| sample(text)).collect();
    let scores = rewards(
        &mut likelihood(Arc::clone(&model), LikelihoodOptions::default()),
        &samples,
    );
    let apart = responses
        .iter()
        .zip(scores)
        .map(|(response, score)| (score + surprise(&model, prompt.clone(), response)).abs());
    let mean = apart.sum::<f64>() / responses.len() as f64;
    println!("likelihood: mean difference to the surprise {mean}");
    assert!(mean < 0.1, "{mean}");
}

#[test]
fn neither_neighbours_nor_order_nor_what_was_read_before_change_a_bit() {
    let responses = responses();
    let samples: Vec<_> = responses.iter().map(|text| sample(text)).collect();
    for model in [smollm2(), gemma3()] {
        let mut one = likelihood(Arc::clone(&model), LikelihoodOptions::default());
        let together = rewards(&mut one, &samples);
        let backwards: Vec<_> = samples.iter().rev().copied().collect();
        let mut reversed = rewards(&mut one, &backwards);
        reversed.reverse();
        assert_eq!(together, reversed);
        // Another prompt beside them, so that nothing is shared.
        let other = Sample::new("Hi.", "Hello.");
        let mixed: Vec<_> = samples.iter().flat_map(|&s| [other, s]).collect();
        let mixed = rewards(&mut one, &mixed);
        assert_eq!(
            together,
            mixed.iter().skip(1).step_by(2).copied().collect::<Vec<_>>()
        );
        for (sample, score) in samples.iter().zip(together).step_by(6) {
            let mut alone = likelihood(Arc::clone(&model), LikelihoodOptions::default());
            assert_eq!(rewards(&mut alone, &[*sample]), [score]);
        }
    }
}

#[test]
fn a_sentence_is_likelier_than_its_words_in_disorder() {
    for model in [smollm2(), gemma3()] {
        let mut likelihood = likelihood(model, LikelihoodOptions::default());
        let [fluent, salad] = rewards(&mut likelihood, &[sample(FLUENT), sample(SALAD)])[..] else {
            unreachable!()
        };
        assert!(fluent < 0.0 && fluent > salad + 1.0, "{fluent} {salad}");
    }
}

#[test]
fn a_base_model_reads_raw_text_behind_a_line_break() {
    let model = gemma3();
    let tokens = |options| {
        let (tokens, from) = likelihood(gemma3(), options)
            .tokenize(&sample("Fine."))
            .unwrap();
        (model.text(&tokens[..from]), model.text(&tokens[from..]))
    };
    assert_eq!(
        tokens(LikelihoodOptions::default()),
        (format!("{PROMPT}\n"), "Fine.".into())
    );
    assert_eq!(
        tokens(raw(" So: ")),
        (format!("{PROMPT} So: "), "Fine.".into())
    );
}

#[test]
fn what_candidates_share_is_read_once() {
    let mut likelihood = likelihood(smollm2(), LikelihoodOptions::default());
    let samples = [sample(FLUENT), sample(SALAD), sample("Fine.")];
    let mut total = 0;
    let mut longest = 0;
    for sample in &samples {
        let (tokens, from) = likelihood.tokenize(sample).unwrap();
        total += tokens.len();
        longest = longest.max(from);
    }
    let mut read = || -> usize {
        let scores = likelihood.score(&samples).unwrap();
        scores.into_iter().map(|s| s.unwrap().tokens).sum()
    };
    let (first, again) = (read(), read());
    // All but the last block of what stands before the responses is shared by the three.
    assert!(first <= total - 2 * (longest - 8), "{total} {first}");
    assert!(again <= first - (longest - 8), "{first} {again}");
}

#[test]
fn what_has_no_likelihood_says_so_and_spoils_no_other() {
    let mut likelihood = likelihood(smollm2(), LikelihoodOptions::default());
    let long = "word ".repeat(5000);
    let samples = [sample(FLUENT), sample(""), sample(&long), sample(FLUENT)];
    let scores = likelihood.score(&samples).unwrap();
    let alone = rewards(&mut likelihood, &samples[..1])[0];
    for i in [0, 3] {
        assert_eq!(scores[i].as_ref().unwrap().reward, alone);
    }
    assert!(matches!(scores[1], Err(SampleError::Other(_))));
    assert!(matches!(scores[2], Err(SampleError::TooLong { .. })));
    assert!(likelihood.score(&[]).unwrap().is_empty());
}

#[test]
fn a_response_needs_something_before_it() {
    // SmolLM2 has no token that begins a text.
    let mut likelihood = likelihood(smollm2(), raw(""));
    let sample = Sample::new("", "Fine.");
    let error = likelihood.score(&[sample]).unwrap().remove(0).unwrap_err();
    assert!(error.to_string().contains("give a prompt"), "{error}");
}

#[test]
fn what_cannot_work_is_refused_with_the_remedy() {
    let load = |text: &str, generator: Option<Arc<Model>>| {
        let mut loader = RewardLoader::new(generator, ModelOptions::default(), 1);
        loader.load(&[RewardSpec::parse(text).unwrap()])
    };
    let refused = |text: &str, generator| load(text, generator).err().unwrap();
    let error = refused("likelihood:self", None);
    assert!(
        error.to_string().contains("likelihood:FILE.gguf"),
        "{error}"
    );
    let reward = path(REWARD);
    let error = refused(&format!("likelihood:{}", reward.display()), None);
    assert!(matches!(error, Error::Model { .. }), "{error}");
    let gemma = path(GEMMA3);
    let error = refused(&format!("likelihood:{};chat=on", gemma.display()), None);
    assert!(error.to_string().contains("give chat=off"), "{error}");
    let error = refused("likelihood:self;between=x", Some(smollm2()));
    assert!(error.to_string().contains("give chat=off"), "{error}");
}

#[test]
fn the_generator_itself_goes_on_where_a_raw_prompt_ends() {
    for (model, spec, by_hand) in [
        (gemma3(), "likelihood:self", raw("")),
        (smollm2(), "likelihood:self", LikelihoodOptions::default()),
        (smollm2(), "likelihood:self;chat=off", raw("")),
        (smollm2(), "likelihood:self;chat=off;between=\\n", raw("\n")),
    ] {
        let options = ModelOptions::default();
        let mut loader = RewardLoader::new(Some(Arc::clone(&model)), options, default_threads());
        let mut loaded = loader.load(&[RewardSpec::parse(spec).unwrap()]).unwrap();
        let samples = [sample(FLUENT)];
        let mut by_hand = likelihood(model, by_hand);
        assert_eq!(
            rewards(&mut loaded, &samples),
            rewards(&mut by_hand, &samples),
            "{spec}"
        );
    }
}
