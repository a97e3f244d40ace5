//! What is written on a command line or by a model: specifications of rewards and methods, rules and
//! the responses that they judge. The first byte says which.
#![no_main]

use aisp_llama::method::MethodSpec;
use aisp_llama::reward::{RewardSpec, RewardText, Rules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, rest)) = bytes.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    // Neither programs nor files of the computer that it runs on.
    if ["compiles", "schema", "command"]
        .iter()
        .any(|word| text.contains(word))
    {
        return;
    }
    match kind % 5 {
        0 => drop(RewardSpec::parse(text)),
        1 => drop(RewardSpec::parse_file(text)),
        2 => drop(RewardText::parse(text)),
        3 => drop(text.parse::<MethodSpec>()),
        _ => {
            let (rules, response) = text.split_once('\n').unwrap_or((text, ""));
            if let Ok(rules) = Rules::parse(rules) {
                for result in rules.check(response).unwrap() {
                    assert!((0.0..=1.0).contains(&result.score), "{result:?}");
                }
            }
        }
    }
});
