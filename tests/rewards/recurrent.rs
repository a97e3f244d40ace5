//! A judge, a head and a likelihood on tiny hybrid models: what stock llama.cpp says, alone and among
//! others.

use std::sync::Arc;

use aisp_llama::llama::{Model, ModelOptions, Token};
use aisp_llama::reward::{LinearHead, Reward, RewardLoader, RewardSpec, Sample};
use tempfile::TempDir;

use crate::judge::chances;
use crate::stepwise::surprise;
use crate::tiny::recurrent::file;
use crate::{embedding, rewards};

const PROMPT: &str = "Write of a film that all of the town has seen by now.";

fn samples() -> [Sample<'static>; 4] {
    let long = "It takes its time, and then some, and in the end it has said little.";
    ["Good.", "A film for children", long, "the"].map(|response| Sample::new(PROMPT, response))
}

/// The scores of `samples`, after making sure that each has the same alone.
fn scores(loader: &mut RewardLoader, spec: &str) -> Vec<f64> {
    let mut load = || loader.load(&[RewardSpec::parse(spec).unwrap()]).unwrap();
    let (mut reward, mut other): (Box<dyn Reward>, Box<dyn Reward>) = (load(), load());
    let found = rewards(reward.as_mut(), &samples());
    for (sample, found) in samples().iter().zip(&found) {
        let alone = rewards(other.as_mut(), std::slice::from_ref(sample))[0];
        assert_eq!(alone, *found, "{spec}: {}", sample.response);
    }
    found
}

#[test]
fn decoder_rewards_work_on_hybrid_models() {
    for architecture in ["lfm2", "qwen35"] {
        let folder = TempDir::new().unwrap();
        let path = file(architecture)
            .text("tokenizer.chat_template", "{{ messages[0].content }}")
            .write(folder.path(), "tiny.gguf");
        let options = ModelOptions {
            gpu_layers: Some(0),
            ..ModelOptions::default()
        };
        let model = Arc::new(Model::load(&path, &options).unwrap());
        let mut loader = RewardLoader::new(Some(Arc::clone(&model)), options, 1);
        let near = |found: f64, expected: f64| {
            // Keys and values are in half precision, and attention adds up otherwise.
            assert!(
                (found - expected).abs() < 2e-2,
                "{architecture}: {found} {expected}"
            );
        };

        // The first two letters that such a model answers with at all.
        let asks = |yes: u8, no: u8| {
            let (yes, no) = (char::from(yes), char::from(no));
            format!("judge:self;question=Is this good? {{response}};yes={yes};no={no}")
        };
        let mut pairs = (b'a'..=b'z').flat_map(|yes| (yes + 1..=b'z').map(move |no| (yes, no)));
        let (yes, no) = pairs
            .find(|&(yes, no)| {
                let spec = RewardSpec::parse(&asks(yes, no)).unwrap();
                loader.load(&[spec]).is_ok()
            })
            .expect("letters that are likely");
        let found = scores(&mut loader, &asks(yes, no));
        for (sample, found) in samples().iter().zip(found) {
            let mut tokens =
                model.tokenize(&format!("Is this good? {}", sample.response), true, true);
            let first = chances(&model, &tokens);
            tokens.push(Token::from(b' '));
            let second = chances(&model, &tokens);
            let p = |letter: u8| -> f64 {
                let p = |byte: u8| {
                    let spaced = first[usize::from(b' ')] * second[usize::from(byte)];
                    first[usize::from(byte)] + spaced
                };
                p(letter) + p(letter.to_ascii_uppercase())
            };
            near(found, p(yes).ln() - p(no).ln());
        }

        let head = folder.path().join("head.safetensors");
        let weight: Vec<f32> = (0..model.width())
            .map(|i| (i * 37 % 101) as f32 / 2020.0)
            .collect();
        LinearHead {
            weight: weight.clone(),
            bias: 0.25,
            text: Some("{prompt}\\n{response}".into()),
            pooling: Some("last".into()),
            ..LinearHead::default()
        }
        .write_safetensors(&head)
        .unwrap();
        let spec = format!("head:{};head={}", path.display(), head.display());
        let found = scores(&mut loader, &spec);
        for (sample, found) in samples().iter().zip(found) {
            let text = format!("{PROMPT}\n{}", sample.response);
            let z = embedding(&model, &model.tokenize(&text, true, false));
            let by_hand = z
                .iter()
                .zip(&weight)
                .map(|(z, w)| f64::from(z * w))
                .sum::<f64>();
            near(found, by_hand + 0.25);
        }

        let found = scores(&mut loader, "likelihood:self;chat=off");
        for (sample, found) in samples().iter().zip(found) {
            let tokens = model.tokenize(PROMPT, true, true);
            near(found, -surprise(&model, tokens, sample.response));
        }
    }
}
