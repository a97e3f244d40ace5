//! A JSON schema, in the first line, and the response that is to be what it says.
#![no_main]

mod file;

use aisp_llama::reward::Rules;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (schema, response) = text.split_once('\n').unwrap_or((text, ""));
    let file = file::of(schema.as_bytes());
    if let Ok(rules) = Rules::parse(&format!("json-schema={}", file.path().display())) {
        for result in rules.check(response).unwrap() {
            assert!((0.0..=1.0).contains(&result.score), "{result:?}");
        }
    }
});
