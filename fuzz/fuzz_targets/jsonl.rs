//! Lines of JSON: data sets, prompts, pairs that are scored.
#![no_main]

mod file;

use aisp_llama::compare::read_prompts;
use aisp_llama::reward::train::Dataset;
use aisp_llama::reward::{OwnedSample, TextOrMessages};
use aisp_llama::text;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = file::of(bytes);
    let _ = Dataset::read(file.path());
    let _ = read_prompts(file.path());
    for line in text::lines(bytes).map_while(Result::ok) {
        let [prompt, response] = ["prompt", "response"].map(|name| {
            let line: serde_json::Value = serde_json::from_str(&line).ok()?;
            serde_json::from_value::<TextOrMessages>(line.get(name)?.clone()).ok()
        });
        if let Ok(sample) = OwnedSample::new(prompt, response) {
            let sample = sample.sample();
            let _ = (sample.transcript(), sample.conversation());
        }
    }
});
