//! Rules, in the first line, and the response that they judge.
#![no_main]

use aisp_llama::reward::Rules;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|text: &str| -> Corpus {
    let (rules, response) = text.split_once('\n').unwrap_or((text, ""));
    // Its programs would be those of the computer that it runs on.
    if rules.contains("compiles") {
        return Corpus::Reject;
    }
    if let Ok(rules) = Rules::parse(rules) {
        for result in rules.check(response).unwrap() {
            assert!((0.0..=1.0).contains(&result.score), "{result:?}");
        }
    }
    Corpus::Keep
});
