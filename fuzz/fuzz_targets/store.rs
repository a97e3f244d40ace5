//! The folder of a comparison: its rows, its settings, and what is made of them.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use aisp_llama::compare::{
    By, FileId, Folder, Plan, Shard, Store, is_confirmed, summary, verdicts, write_plots,
};
use aisp_llama::method::MethodSpec;
use libfuzzer_sys::fuzz_target;
use serde_json::Map;
use tempfile::TempDir;

static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let method = |name| MethodSpec::named(name).unwrap();
    Plan {
        build: Vec::new(),
        cpu: Vec::new(),
        model: FileId {
            name: "m.gguf".into(),
            sha256: String::new(),
        },
        embedding: None,
        gpu_layers: None,
        reward: "rule:words=1".into(),
        reward_details: Vec::new(),
        files: Vec::new(),
        held_out: Some("rule:json".into()),
        prompts: vec!["Hi.".into(), "Ho.".into()],
        system_prompt: None,
        chat: true,
        chat_template: None,
        chat_template_kwargs: Map::new(),
        think: None,
        reasoning_budget: None,
        reasonings: None,
        date: None,
        methods: vec![method("best-of-n"), method("search")],
        first_seed: 0,
        seeds: 2,
        budget: 8.0,
        by: By::Candidates,
        samples: 4,
        max_tokens: 8,
        threads: 1,
    }
});

/// A folder with the settings of the plan, and one with others.
static FOLDERS: LazyLock<[TempDir; 2]> = LazyLock::new(|| {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    Store::open(folders[0].path(), &PLAN, Shard::default()).unwrap();
    folders
});

fuzz_target!(|bytes: &[u8]| {
    let [folder, other] = &*FOLDERS;
    fs::write(folder.path().join("results.jsonl"), bytes).unwrap();
    if let Ok(store) = Store::open(folder.path(), &PLAN, Shard::default()) {
        let (rows, failures) = (store.rows(), store.failures());
        let _ = summary(&PLAN, rows, failures);
        let _ = is_confirmed(&verdicts(&PLAN, rows));
        if !rows.is_empty() {
            write_plots(&PLAN, rows, folder.path()).unwrap();
        }
    }
    fs::write(other.path().join("settings.json"), bytes).unwrap();
    let settings = serde_json::to_value(&*PLAN).unwrap();
    let _ = Folder::open(other.path(), "results.jsonl", &settings);
});
