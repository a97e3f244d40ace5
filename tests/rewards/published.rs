//! Tiny models of the shapes that published reward models have after conversion, against what
//! transformers says of the same weights (`scripts/reward_fixtures.py`): tokens and scores.

use std::path::{Path, PathBuf};

use aisp_llama::llama::ModelOptions;
use aisp_llama::reward::{
    Folder, ImportOptions, Reward, RewardLoader, RewardSpec, Sample, head_beside, import_gguf,
    import_head,
};
use serde::Deserialize;
use tempfile::TempDir;

use crate::rewards;

#[derive(Deserialize)]
struct Case {
    prompt: String,
    response: String,
    tokens: Vec<i32>,
    score: f64,
}

impl Case {
    fn sample(&self) -> Sample<'_> {
        Sample::new(&self.prompt, &self.response)
    }
}

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures/rewards").join(name)
}

fn cases(name: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(fixture("expected.json")).unwrap();
    let mut all: serde_json::Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(all[name].take()).unwrap()
}

fn load(spec: &str) -> aisp_llama::Result<Box<dyn Reward>> {
    let spec = match spec.split_once(':') {
        Some(_) => RewardSpec::parse(spec)?,
        None => RewardSpec::parse_file(spec)?,
    };
    RewardLoader::new(None, ModelOptions::default(), 1).load(&[spec])
}

/// The reward reads the tokens of transformers, and gives its scores.
fn agrees(spec: &str, name: &str) {
    let mut reward = load(spec).unwrap();
    let cases = cases(name);
    let mut largest = 0.0_f64;
    for case in &cases {
        let read = reward.reads(&case.sample()).unwrap();
        assert_eq!(read.len(), 1, "{spec}");
        assert_eq!(read[0].tokens, case.tokens, "{spec}: {}", read[0].text);
        let found = rewards(reward.as_mut(), &[case.sample()])[0];
        largest = largest.max((found - case.score).abs());
    }
    println!("{name}: largest difference to transformers {largest:e}");
    assert!(largest < 1e-3, "{spec}: {largest}");
    let far = |a: &Case| cases.iter().any(|b| (a.score - b.score).abs() > 1e-2);
    assert!(cases.iter().all(far), "the scores could not be told apart");
}

fn display(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn cross_encoders_read_a_pair() {
    agrees(&display(&fixture("xlm-roberta.gguf")), "xlm-roberta");
    agrees(&display(&fixture("bert.gguf")), "bert");
}

#[test]
fn a_run_on_text_would_have_ordered_answers_otherwise() {
    let spec = format!("classifier:{}", fixture("xlm-roberta.gguf").display());
    let cases = cases("xlm-roberta");
    let samples: Vec<Sample<'_>> = cases[..3].iter().map(Case::sample).collect();
    let order = |spec: &str| {
        let found = rewards(load(spec).unwrap().as_mut(), &samples);
        let mut order: Vec<usize> = (0..found.len()).collect();
        order.sort_by(|&a, &b| found[a].total_cmp(&found[b]));
        order
    };
    let run_on = format!("{spec};text={{prompt}}\\n{{response}}");
    assert_ne!(order(&spec), order(&run_on));
}

#[test]
fn a_reranker_scores_by_the_difference_of_its_quantised_rows() {
    agrees(&display(&fixture("qwen3-reranker.gguf")), "qwen3-reranker");
}

#[test]
fn a_head_of_another_name_is_read_at_its_reward_token() {
    let folder = TempDir::new().unwrap();
    let model = folder.path().join("model.gguf");
    let source = fixture("internlm2-reward.gguf");
    let head = import_gguf(&source, &model, &ImportOptions::default()).unwrap();
    assert_eq!(head, head_beside(&model));
    std::fs::remove_file(head).unwrap();
    let head = fixture("internlm2-reward/model.safetensors");
    let (model, head) = (model.display(), head.display());
    for name in ["", ";name=v_head", ";name=v_head.weight"] {
        let spec = format!("head:{model};head={head}{name};append=<|reward|>");
        agrees(&spec, "internlm2-reward");
    }
    for (wrong, word) in [("name=score", "score"), ("append=<|no|>", "<|no|>")] {
        let error = load(&format!("head:{model};head={head};{wrong}"))
            .err()
            .unwrap();
        assert!(matches!(error, aisp_llama::Error::Model { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_model_and_its_head_are_taken_apart() {
    let folder = TempDir::new().unwrap();
    let model = folder.path().join("model.gguf");
    let options = ImportOptions {
        append: Some("<|reward|>".into()),
        ..ImportOptions::default()
    };
    import_gguf(&fixture("internlm2-reward.gguf"), &model, &options).unwrap();
    agrees(&display(&model), "internlm2-reward");
    for (source, word) in [
        ("bert.gguf", "llama.cpp loads it"),
        ("qwen3-reranker.gguf", "llama.cpp loads it"),
        ("skywork.gguf", "has no head"),
    ] {
        let error = import_gguf(&fixture(source), &model, &options).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let source = fixture("internlm2-reward.gguf");
    let onto_itself = import_gguf(&source, &source, &options).unwrap_err();
    assert!(
        onto_itself.to_string().contains("source itself"),
        "{onto_itself}"
    );
}

/// The head of a folder, imported beside a copy of the model.
fn imported(folder: &TempDir, model: &str, head: &str) -> String {
    let path = folder.path().join("model.gguf");
    std::fs::copy(fixture(model), &path).unwrap();
    let files = Folder(fixture(head));
    let found = import_head(&files, &ImportOptions::default()).unwrap();
    found.write_safetensors(&head_beside(&path)).unwrap();
    display(&path)
}

#[test]
fn the_head_of_a_folder_is_found_beside_the_model() {
    for (model, head, name) in [
        ("skywork.gguf", "skywork", "skywork"),
        ("bert.gguf", "bert", "bert-with-pooler"),
    ] {
        let folder = TempDir::new().unwrap();
        agrees(&imported(&folder, model, head), name);
    }
}

#[test]
fn an_imported_head_says_where_it_is_from_and_what_it_reads() {
    let import = |name: &str| import_head(&Folder(fixture(name)), &ImportOptions::default());
    let skywork = import("skywork").unwrap();
    assert_eq!(skywork.text.as_deref(), Some("chat"));
    assert_eq!(skywork.pooling.as_deref(), Some("last"));
    assert_eq!(skywork.metadata["aisp.import.tensor"], "score.weight");
    assert_eq!(skywork.metadata["aisp.import.source"], "skywork");
    let internlm2 = import("internlm2-reward").unwrap();
    assert_eq!(internlm2.append.as_deref(), Some("<|reward|>"));
    let bert = import("bert").unwrap();
    assert_eq!(bert.text.as_deref(), Some("{prompt}[SEP]{response}"));
    assert_eq!(bert.pooling.as_deref(), Some("cls"));
}

#[test]
fn an_encoder_whose_layers_are_not_known_gives_no_head() {
    let folder = TempDir::new().unwrap();
    let skywork = fixture("skywork/model-00002-of-00002.safetensors");
    std::fs::copy(skywork, folder.path().join("model.safetensors")).unwrap();
    let config = folder.path().join("config.json");
    let import = || import_head(&Folder(folder.path().into()), &ImportOptions::default());
    std::fs::write(&config, "{\"model_type\": \"qwen3\"}").unwrap();
    assert_eq!(import().unwrap().text, None);
    std::fs::write(&config, "{\"model_type\": \"albert\"}").unwrap();
    let error = import().unwrap_err().to_string();
    assert!(error.contains("albert"), "{error}");
}

#[test]
fn an_index_that_leads_elsewhere_is_refused() {
    let folder = TempDir::new().unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    for (text, word) in [
        (
            "{\"weight_map\": {\"score.weight\": \"../x.safetensors\"}}",
            "no name of a file",
        ),
        ("{\"weight_map\": [1]}", "weight_map"),
        ("{", "index.json"),
        (
            "{\"weight_map\": {\"x\": \"y.safetensors\"}}",
            "has no head",
        ),
    ] {
        std::fs::write(&index, text).unwrap();
        let files = Folder(folder.path().into());
        let error = import_head(&files, &ImportOptions::default()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}
