//! What is written on a command line and in a preset: rewards, texts, methods with their settings.
#![no_main]

use aisp_llama::method::{METHODS, MethodSpec, Rounds};
use aisp_llama::reward::{RewardSpec, RewardText};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|text: &str| {
    let _ = RewardSpec::parse(text);
    let _ = RewardSpec::parse_file(text);
    let _ = RewardText::parse(text);
    let rounds = Rounds::default();
    if let Ok(spec) = text.parse::<MethodSpec>() {
        let _ = spec.validate(&rounds);
    }
    if let Ok(given) = serde_json::from_str::<Map<String, Value>>(text) {
        for entry in METHODS {
            if let Ok(spec) = MethodSpec::of(entry).with([&given]) {
                let _ = spec.validate(&rounds);
            }
        }
    }
});
