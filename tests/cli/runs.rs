//! Whole runs: what is printed where, the same again and again, pipes and signals.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{GEMMA3, REWARD, SMOLLM2, path};
use crate::{assert_refused, program, run, stderr, stdout};

const SHORT: [&str; 6] = ["--samples", "8", "--iterations", "2", "-n", "16"];

pub fn json(extra: &[&str]) -> Value {
    let flags = [&SHORT[..], &["--json", "--candidates", "16"], extra].concat();
    let output = run(&flags);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// The JSON text without what depends on the clock.
pub fn timeless(mut value: Value) -> String {
    value["timings"] = Value::Null;
    for iteration in value["iterations"].as_array_mut().unwrap() {
        iteration["seconds"] = Value::Null;
    }
    value.to_string()
}

#[test]
fn the_answer_alone_goes_to_stdout() {
    let output = run(&SHORT);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(text.ends_with('\n') && text.trim().len() > 5, "{text:?}");
    let progress = stderr(&output);
    for words in [
        "iteration 1/2",
        "iteration 2/2",
        "best",
        "mean",
        "price",
        "tokens/s",
    ] {
        assert!(progress.contains(words), "{words}: {progress}");
    }
    assert!(
        !progress.contains('\u{1b}'),
        "no bar where there is no terminal"
    );
}

#[test]
fn json_has_every_field() {
    let value = json(&[]);
    for field in [
        "prompt",
        "response",
        "reward",
        "method",
        "seed",
        "samples",
        "stop",
        "iterations",
        "usage",
        "timings",
        "model",
        "reward_model",
        "candidates",
    ] {
        assert!(!value[field].is_null(), "{field}");
    }
    let iterations = value["iterations"].as_array().unwrap();
    assert_eq!(iterations.len(), 2);
    for (index, iteration) in iterations.iter().enumerate() {
        assert_eq!(iteration["index"], index);
        for field in [
            "mean_reward",
            "max_reward",
            "best_reward",
            "mean_price",
            "best_price",
            "r2",
            "sigma",
            "u_norm",
            "tokens",
            "seconds",
        ] {
            assert!(iteration[field].is_number(), "{field}");
        }
        // It has no weights, and no density to have a divergence.
        assert!(iteration["ess"].is_null() && iteration["kl"].is_null());
    }
    assert_eq!(value["usage"]["candidates"], 16);
    let candidates = value["candidates"].as_array().unwrap();
    let is_new = |c: &&Value| c["repeat"].is_null();
    let texts = candidates.iter().filter(is_new).count();
    assert_eq!(value["usage"]["reward_calls"], texts);
    let tokens: u64 = iterations
        .iter()
        .map(|i| i["tokens"].as_u64().unwrap())
        .sum();
    assert_eq!(value["usage"]["generated_tokens"], tokens);
    // The best of the candidates that are not too dear is the answer, and the list is in order.
    let admitted = |c: &&Value| c["too_dear"].is_null();
    let rewards: Vec<f64> = candidates
        .iter()
        .take_while(admitted)
        .map(|c| c["reward"].as_f64().unwrap())
        .collect();
    assert_eq!(rewards.len(), candidates.iter().filter(admitted).count());
    assert_eq!(value["reward"].as_f64(), Some(rewards[0]));
    assert_eq!(value["response"], candidates[0]["text"]);
    assert_eq!(value["price"], candidates[0]["price"]);
    assert!(rewards.windows(2).all(|w| w[0] >= w[1]));
    // What is too dear is dearer than the limit, in price or in surprise.
    let limit = iterations[0]["price_limit"].as_f64().unwrap();
    for candidate in candidates.iter().filter(admitted) {
        assert!(candidate["price"]["per_token"].as_f64().unwrap() <= limit);
    }
}

#[test]
fn importance_sampling_says_what_its_weights_are() {
    for update in ["smc", "weights"] {
        let value = json(&["--method", "aisp", "--update", update]);
        for iteration in value["iterations"].as_array().unwrap() {
            for field in ["ess", "lambda", "kl"] {
                assert!(iteration[field].is_number(), "{update}: {field}");
            }
            let ess = iteration["ess"].as_f64().unwrap();
            assert!((1.0..=16.0).contains(&ess), "{ess}");
            // A population draws its tokens around a mean, weights move one under noise.
            for field in ["free_energy", "r2"] {
                assert_eq!(iteration[field].is_number(), update == "smc", "{field}");
            }
            assert_eq!(iteration["sigma"].is_number(), update == "weights");
        }
    }
}

#[test]
fn greedy_is_one_candidate_and_aisp_without_noise() {
    let greedy = json(&["--method", "greedy"]);
    assert_eq!(greedy["usage"]["candidates"], 1);
    assert!(greedy["iterations"][0]["ess"].is_null());
    let silent = run(&[
        "--method",
        "aisp",
        "--noise",
        "gaussian",
        "--sigma",
        "0",
        "--samples",
        "1",
        "--iterations",
        "1",
        "-n",
        "16",
        "--json",
    ]);
    let silent: Value = serde_json::from_str(&stdout(&silent)).unwrap();
    assert_eq!(silent["response"], greedy["response"]);
}

#[test]
fn trace_and_plot_are_written() {
    let folder = TempDir::new().unwrap();
    let trace = folder.path().join("trace.jsonl");
    let plot = folder.path().join("plot.svg");
    json(&[
        "--trace",
        trace.to_str().unwrap(),
        "--plot",
        plot.to_str().unwrap(),
    ]);
    let events: Vec<Value> = std::fs::read_to_string(trace)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let count = |name: &str| events.iter().filter(|e| e["event"] == name).count();
    assert_eq!(count("run_started"), 1);
    assert_eq!(count("candidate_scored"), 16);
    assert_eq!(count("iteration_done"), 2);
    assert_eq!(count("run_finished"), 1);
    let scored = events
        .iter()
        .find(|e| e["event"] == "candidate_scored")
        .unwrap();
    assert!(scored["text"].is_string() && scored["reward"].is_number());
    let svg = std::fs::read_to_string(plot).unwrap();
    assert!(svg.contains("best so far") && svg.contains("explained share"));
}

#[test]
fn files_that_cannot_be_written_are_named() {
    for flag in ["--trace", "--plot"] {
        let output = run(&[&SHORT[..], &[flag, "no/such/folder/file"]].concat());
        assert_eq!(output.status.code(), Some(1), "{flag}");
        assert!(stderr(&output).contains("no/such/folder/file"), "{flag}");
    }
}

#[test]
fn stops_end_a_run_with_its_best_answer() {
    let reached = json(&["--target-reward", "-100"]);
    assert_eq!(reached["stop"], "target_reward");
    assert_eq!(reached["iterations"].as_array().unwrap().len(), 1);
    assert!(reached["tokens_saved"].as_u64().unwrap() > 0);
    let late = run(&[
        "--time-limit",
        "1.5",
        "--iterations",
        "1000",
        "-n",
        "24",
        "--json",
    ]);
    let late: Value = serde_json::from_str(&stdout(&late)).unwrap();
    assert_eq!(late["stop"], "time_limit");
    assert!(late["tokens_saved"].is_null());
    assert!(late["timings"]["total_seconds"].as_f64().unwrap() < 10.0);
}

fn spawn(flags: &[&str]) -> std::process::Child {
    Command::new(assert_cmd::cargo::cargo_bin("aisp-llama"))
        .args(["run", "-p", "Review a film in one sentence."])
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// All that a child writes to a pipe until it closes it.
fn read_all(pipe: Option<impl Read>) -> String {
    let mut text = String::new();
    pipe.unwrap().read_to_string(&mut text).unwrap();
    text
}

#[cfg(unix)]
#[test]
fn an_interrupt_in_an_iteration_prints_the_best_so_far() {
    let mut child = spawn(&["--iterations", "1000", "-n", "48", "--json"]);
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    // Behind what the run does: the first iteration is over and the second has begun.
    errors.read_line(&mut line).unwrap();
    line.clear();
    errors.read_line(&mut line).unwrap();
    assert!(line.starts_with("iteration 1/1000"), "{line}");
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let text = read_all(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["stop"], "interrupted");
    // The best so far is the best that is not too dear.
    let first = &value["iterations"][0];
    assert!(first["max_reward"].as_f64() >= first["best_reward"].as_f64());
    assert!(!value["response"].as_str().unwrap().is_empty());
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut child = spawn(&SHORT);
    drop(child.stdout.take());
    let errors = read_all(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0), "{errors}");
    assert!(
        !errors.contains("panicked") && !errors.contains("error:"),
        "{errors}"
    );
    // Nor is one on stderr.
    let mut child = spawn(&SHORT);
    drop(child.stderr.take());
    let text = read_all(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!text.is_empty());
}

/// Bytes of keys and values that llama.cpp says it has allocated.
fn allocated(log: &str) -> f64 {
    let sizes = log.lines().filter_map(|line| {
        let size = line.split_once("KV buffer size =")?.1;
        size.split_whitespace().next()?.parse::<f64>().ok()
    });
    sizes.map(|mib| mib * 1024.0 * 1024.0).sum()
}

/// More is parked for prompts side by side.
#[test]
fn the_plan_of_many_prompts_is_what_llama_cpp_allocates() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("prompts.jsonl");
    let keys_and_values = |count: usize| {
        std::fs::write(&file, "{\"prompt\": \"Hi\"}\n".repeat(count)).unwrap();
        let of = |more: &[&str]| {
            let flags = ["run", "--samples", "2", "--iterations", "1", "-n", "2"];
            let into = folder.path().join(count.to_string());
            let mut command = program();
            command.args(flags).args(more).arg("--prompts").arg(&file);
            let output = command.arg("-o").arg(into).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
            output
        };
        let plan: Value = serde_json::from_str(&stdout(&of(&["--plan", "--json"]))).unwrap();
        let planned = plan["keys_and_values"].as_f64().unwrap();
        let found = allocated(&stderr(&of(&["--verbose"])));
        assert!((planned - found).abs() < 1e4, "{planned} planned, {found}");
        planned
    };
    assert!(keys_and_values(3) > keys_and_values(1));
}

#[test]
fn the_plan_is_what_llama_cpp_allocates() {
    for model in [SMOLLM2, GEMMA3] {
        let model = path(model);
        let reward = path(REWARD);
        let files = [
            "-m",
            model.to_str().unwrap(),
            "-mr",
            reward.to_str().unwrap(),
        ];
        let flags = [&files[..], &["--no-chat", "-n", "2"]].concat();
        let plan = run(&[&flags[..], &["--plan", "--json"]].concat());
        assert_eq!(plan.status.code(), Some(0), "{}", stderr(&plan));
        let plan: Value = serde_json::from_str(&stdout(&plan)).unwrap();
        let one = ["--verbose", "--iterations", "1"];
        let log = stderr(&run(&[&flags[..], &one].concat()));
        let allocated = allocated(&log);
        let planned = plan["keys_and_values"].as_f64().unwrap();
        assert!(allocated > 0.0, "{log}");
        assert!(
            (planned - allocated).abs() < 1e4,
            "{planned} planned, {allocated} allocated"
        );
        let total = plan["total"].as_f64().unwrap();
        let weights = std::fs::metadata(&model).unwrap().len() as f64;
        assert!(total > planned + weights && total < planned + weights + 2e8);
    }
}

#[test]
fn what_the_memory_has_no_room_for_is_refused() {
    let output = run(&["-c", "80000000"]);
    assert_refused(&output, 2, &["-c: ", "GB of memory are free", "--parallel"]);
}

#[test]
fn chat_templates_see_the_date_and_the_variables() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("template.jinja");
    let template = "<|im_start|>user\n{{ messages[0].content }} It is {{ strftime_now('%Y') }}\
                    {% if loud %}!{% endif %}<|im_end|>\n<|im_start|>assistant\n";
    std::fs::write(&file, template).unwrap();
    let file = file.to_str().unwrap();
    let greedy = [
        "--method",
        "greedy",
        "-n",
        "2",
        "--json",
        "--date",
        "2031-02-03",
    ];
    let from_file = ["--chat-template-file", file];
    let given = ["--chat-template", template];
    let tokens = |flags: &[&str]| {
        let output = run(&[&greedy[..], flags].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(value["date"], "2031-02-03T00:00:00");
        value["response"].clone()
    };
    assert_eq!(tokens(&from_file), tokens(&given));
    let loud = ["--chat-template-kwargs", "{\"loud\": true}"];
    tokens(&[&from_file[..], &loud].concat());
    // The file's own template tells no date.
    let output = run(&["--method", "greedy", "-n", "2", "--json"]);
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(value["date"].is_null());

    for (flags, words) in [
        (&["--date", "yesterday"][..], "--date"),
        (
            &["--chat-template-kwargs", "[1]"],
            "--chat-template-kwargs: \"[1]\" is no JSON object",
        ),
        (&["--chat-template-file", "missing.jinja"], "missing.jinja"),
        (&["--chat-template-file", file, "--no-chat"], "--no-chat"),
    ] {
        let output = run(flags);
        assert_ne!(output.status.code(), Some(0));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}
