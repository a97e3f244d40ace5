//! The command reward: what a program may do wrong, and what becomes of the run.

use std::path::Path;
use std::time::{Duration, Instant};

use aisp_llama::Error;
use aisp_llama::reward::{
    CommandOptions, CommandReward, Reward, Sample, SampleError, Score, Scores,
};

/// Far more than any of the programs needs; only a hang is longer.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

fn options(command: impl Into<String>) -> CommandOptions {
    CommandOptions {
        command: command.into(),
        timeout: LONG,
        ..CommandOptions::default()
    }
}

fn start(command: impl Into<String>) -> CommandReward {
    CommandReward::new(options(command)).unwrap()
}

/// A Python program; `answer(sample)` prints.
fn python(setup: &str, body: &str) -> String {
    format!(
        "python3 -c '\nimport json, os, sys, time\ndef say(*what):\n    print(*what, flush=True)\n\
         {setup}\nfor line in sys.stdin:\n    sample = json.loads(line)\n    {body}\n'"
    )
}

fn samples(count: usize) -> Vec<Sample<'static>> {
    let responses = ["Hello!", "A longer reply", "ok", "Yes!", "No"];
    (0..count)
        .map(|i| Sample::new("Hi \"you\"\n", responses[i % responses.len()]))
        .collect()
}

fn rewards(answers: &Scores) -> Vec<f64> {
    answers.iter().map(|a| a.as_ref().unwrap().reward).collect()
}

fn reason(answer: &Result<Score, SampleError>) -> String {
    answer.as_ref().unwrap_err().to_string()
}

/// Scores until the reward fails as a whole.
fn fatal(reward: &mut CommandReward) -> String {
    for _ in 0..10 {
        if let Err(error) = reward.score(&samples(2)) {
            assert!(matches!(error, Error::Reward(_)), "{error}");
            assert!(matches!(error, Error::Reward(_)));
            return error.to_string();
        }
    }
    panic!("it goes on for ever");
}

/// Panics unless the process in `file` ends; killed ones can stay a zombie for a while.
fn assert_gone(file: &Path) {
    let start = Instant::now();
    loop {
        let pid = std::fs::read_to_string(file).unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        let gone = stat.map_or(true, |stat| stat.contains(") Z "));
        if gone && pid.ends_with('\n') {
            return;
        }
        assert!(start.elapsed() < LONG, "process {pid:?} still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_example_prefers_short_answers_with_an_exclamation_mark() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/reward_command.py");
    let mut reward = start(format!("python3 '{example}'"));
    for _ in 0..3 {
        let answers = reward.score(&samples(3)).unwrap();
        assert_eq!(rewards(&answers), [0.94, -0.14, -0.02]);
    }
}

#[test]
fn texts_arrive_as_they_are() {
    let body = "say(json.dumps({\"reward\": len(sample[\"prompt\"] + sample[\"response\"])}))";
    let mut reward = start(python("", body));
    let odd = Sample::new("\"\\\n\t\u{7f}", "\u{2028}ü🙂");
    assert_eq!(rewards(&reward.score(&[odd]).unwrap()), [8.0]);
}

#[test]
fn bare_numbers_are_taken_in_order() {
    let mut reward = start("n=0; while read -r line; do echo $n; n=$((n+1)); done");
    assert_eq!(
        rewards(&reward.score(&samples(3)).unwrap()),
        [0.0, 1.0, 2.0]
    );
    assert_eq!(rewards(&reward.score(&samples(2)).unwrap()), [3.0, 4.0]);
}

#[test]
fn ids_may_come_in_any_order() {
    let mut reward = start(
        r#"while read -r a && read -r b; do echo '{"id":1,"reward":1.5}'; echo '{"id":0,"reward":-2}'; done"#,
    );
    assert_eq!(rewards(&reward.score(&samples(2)).unwrap()), [-2.0, 1.5]);
}

#[test]
fn one_sample_may_fail_alone() {
    let mut reward = start(
        r#"while read -r line; do echo '{"id":0,"error":"no text"}'; read -r line; echo 2; done"#,
    );
    let answers = reward.score(&samples(2)).unwrap();
    assert_eq!(answers[0], Err(SampleError::Other("no text".into())));
    assert_eq!(answers[1].as_ref().unwrap().reward, 2.0);
}

#[test]
fn nan_is_passed_on_in_all_spellings() {
    for line in [
        "nan",
        "NaN",
        r#"{"id":0,"reward":NaN}"#,
        r#"{"reward":null}"#,
    ] {
        let mut reward = start(format!("while read -r l; do echo '{line}'; done"));
        assert!(
            rewards(&reward.score(&samples(1)).unwrap())[0].is_nan(),
            "{line}"
        );
    }
}

#[test]
fn after_a_crash_the_batch_goes_on_with_a_new_program() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("crashed").display().to_string();
    let body = format!(
        "say(sample[\"id\"])\n    if sample[\"id\"] == 1 and not os.path.exists(\"{flag}\"):\n        \
         open(\"{flag}\", \"w\"); sys.exit(1)"
    );
    let mut reward = start(python("", &body));
    assert_eq!(
        rewards(&reward.score(&samples(4)).unwrap()),
        [0.0, 1.0, 2.0, 3.0]
    );
    assert!(Path::new(&flag).exists());
    assert_eq!(rewards(&reward.score(&samples(2)).unwrap()), [0.0, 1.0]);
}

#[test]
fn a_sample_that_always_crashes_the_program_leaves_the_earlier_answers() {
    let body = "say(1) if sample[\"response\"] != \"ok\" else sys.exit(\"no such word\")";
    let mut reward = start(python("", body));
    let answers = reward.score(&samples(4)).unwrap();
    assert_eq!(rewards(&answers[..2].to_vec()), [1.0, 1.0]);
    for answer in &answers[2..] {
        assert!(
            reason(answer).contains("no such word"),
            "{}",
            reason(answer)
        );
        assert!(
            reason(answer).contains("exit status: 1"),
            "{}",
            reason(answer)
        );
    }
    // A good batch in between: the failures are no longer in a row.
    for _ in 0..3 {
        assert_eq!(rewards(&reward.score(&samples(2)).unwrap()), [1.0, 1.0]);
        assert!(reward.score(&samples(3)).unwrap()[2].is_err());
    }
}

#[test]
fn a_program_that_always_crashes_ends_the_run() {
    let mut reward = start("read -r line; echo cannot go on >&2; exit 5");
    for _ in 0..2 {
        assert!(reason(&reward.score(&samples(1)).unwrap()[0]).contains("cannot go on"));
    }
    let message = fatal(&mut reward);
    assert!(message.contains("failed 3 times in a row"), "{message}");
    assert!(message.contains("cannot go on"), "{message}");
}

#[test]
fn a_hanging_program_is_given_up_with_all_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let mut reward = CommandReward::new(CommandOptions {
        timeout: SHORT,
        restarts: 1,
        ..options(format!("sleep 1000 & echo $! > '{}'; wait", file.display()))
    })
    .unwrap();
    let start = Instant::now();
    let message = fatal(&mut reward);
    assert!(start.elapsed() < LONG);
    assert!(
        message.contains("timed out with 0 lines for 2"),
        "{message}"
    );
    assert_gone(&file);
}

#[test]
fn a_line_that_is_no_answer_fails_the_batch() {
    for line in [
        "hello",
        "[1]",
        "{}",
        "",
        r#"{"id":7,"reward":1}"#,
        r#"{"id":"0","reward":1}"#,
    ] {
        let mut reward = start(format!("while read -r l; do echo '{line}'; done"));
        let message = reason(&reward.score(&samples(1)).unwrap()[0]);
        assert!(message.contains("answer"), "{line}: {message}");
        fatal(&mut reward);
    }
}

#[test]
fn an_id_may_not_be_answered_twice() {
    let mut reward = start(r#"while read -r l; do echo '{"id":0,"reward":1}'; done"#);
    let answers = reward.score(&samples(2)).unwrap();
    assert!(
        reason(&answers[1]).contains("second answer for id 0"),
        "{answers:?}"
    );
}

#[test]
fn too_few_lines_are_told_apart_from_a_crash() {
    let mut reward = CommandReward::new(CommandOptions {
        timeout: SHORT,
        ..options("while read -r l; do read -r m; echo 1; done")
    })
    .unwrap();
    let answers = reward.score(&samples(4)).unwrap();
    assert!(answers[0].is_ok());
    assert!(
        reason(&answers[3]).contains("for 2 responses"),
        "{answers:?}"
    );
}

#[test]
fn too_many_lines_end_the_run() {
    let mut reward = start("while read -r l && read -r l; do printf '1\\n1\\n1\\n'; done");
    let message = fatal(&mut reward);
    assert!(message.contains("more lines than responses"), "{message}");
}

#[test]
fn a_line_left_over_is_never_the_next_batch_s_answer() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("written");
    // The first life prints a third line for two samples, late.
    let mut reward = start(format!(
        "read -r l; read -r l; printf '1\\n1\\n'; [ -e '{0}' ] || {{ sleep 0.2; echo 666; : > '{0}'; }}; \
         while read -r l; do echo 2; done",
        flag.display()
    ));
    assert_eq!(rewards(&reward.score(&samples(2)).unwrap()), [1.0, 1.0]);
    while !flag.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    // The reading thread has the line a moment after it was written.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(rewards(&reward.score(&samples(2)).unwrap()), [1.0, 1.0]);
    assert_eq!(rewards(&reward.score(&samples(2)).unwrap()), [2.0, 2.0]);
}

#[test]
fn a_missing_program_is_reported_at_once() {
    let mut reward = match CommandReward::new(options("no-such-program-xyz --fast")) {
        Ok(reward) => reward,
        Err(error) => return assert_not_found(&error),
    };
    // On a slow machine only the first batch shows it.
    assert_not_found(&reward.score(&samples(1)).unwrap_err());
}

fn assert_not_found(error: &Error) {
    assert!(matches!(error, Error::Reward(_)));
    let message = error.to_string();
    assert!(
        message.contains("`no-such-program-xyz --fast`: not found"),
        "{message}"
    );
}

#[test]
fn unusable_options_are_a_usage_error() {
    let no_time = CommandOptions {
        timeout: Duration::ZERO,
        ..options("cat")
    };
    for bad in [options("  "), no_time] {
        assert!(matches!(
            CommandReward::new(bad).err().unwrap(),
            Error::Field { .. }
        ));
    }
}

#[test]
fn a_huge_line_is_cut_off() {
    let mut reward = start(python("", "sys.stdout.write(\"1\" * (3 << 20)); say()"));
    let message = reason(&reward.score(&samples(1)).unwrap()[0]);
    assert!(message.contains("more than 1048576 bytes"), "{message}");
}

#[test]
fn endless_output_is_cut_off() {
    let message = fatal(&mut start("yes 1"));
    assert!(message.contains("more lines than responses"), "{message}");
    let message = fatal(&mut start("cat /dev/zero"));
    assert!(message.contains("bytes"), "{message}");
}

#[test]
fn bytes_that_are_no_text_fail_the_batch() {
    let mut reward = start("while read -r l; do printf '\\377\\n'; done");
    let message = reason(&reward.score(&samples(1)).unwrap()[0]);
    assert!(message.contains("not UTF-8"), "{message}");
}

#[test]
fn a_large_batch_does_not_block() {
    let text = "x".repeat(1000);
    let large: Vec<Sample<'_>> = (0..2000).map(|_| Sample::new("p", &text)).collect();
    // Every answer is longer than its question, and stderr is full, too.
    let body = "print(line, file=sys.stderr)\n    say(json.dumps({\"reward\": 1, \"x\": line}))";
    let mut reward = start(python("", body));
    assert_eq!(reward.score(&large).unwrap().len(), 2000);
    // A program that reads nothing blocks nobody, either.
    let mut deaf = CommandReward::new(CommandOptions {
        timeout: SHORT,
        ..options("sleep 1000")
    })
    .unwrap();
    assert!(deaf.score(&large).unwrap().iter().all(Result::is_err));
}

#[test]
fn dropping_the_reward_ends_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    // One ends with its input, the other two only when they are killed.
    let path = file.display();
    for command in [
        format!("echo $$ > '{path}'; while read -r l; do echo 1; done"),
        format!("trap '' TERM; echo $$ > '{path}'; read -r l; echo 1; while :; do sleep 1; done"),
        format!("sleep 1000 & echo $! > '{path}'; while read -r l; do echo 1; done; wait"),
    ] {
        let mut reward = start(command);
        reward.score(&samples(1)).unwrap();
        drop(reward);
        assert_gone(&file);
    }
}
