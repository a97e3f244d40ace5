//! A reward that dies late.

use std::fs;

use serde_json::Value;

use super::{Place, refs};
use crate::{stderr, stdout};

#[test]
fn a_reward_that_dies_late_leaves_the_best_answer() {
    let place = Place::new();
    // Twelve answers, and none after that, whoever starts it again.
    let script = "n=0; [ -e dead ] && exit 1\nwhile read -r line; do n=$((n + 1))\n\
                  [ $n -gt 12 ] && { touch dead; exit 1; }\necho $n; done";
    let reward = place.reward(script, 60.0);
    for json in [false, true] {
        let _ = fs::remove_file(place.path("dead"));
        let mut words = place.run(&["--reward", &reward, "--iterations", "50"]);
        words.extend(json.then(|| "--json".into()));
        let output = place.command(&refs(&words)).output().unwrap();
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{error}");
        assert!(error.contains("error: reward: command"), "{error}");
        if json {
            let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
            assert_eq!(value["stop"], "reward_failed");
            assert!(value["reward"].as_f64().unwrap() >= 4.0, "{value}");
            let reason = value["failure"].as_str().unwrap();
            assert!(reason.contains("failed 3 times"), "{reason}");
        } else {
            assert!(!stdout(&output).trim().is_empty());
        }
    }
}
