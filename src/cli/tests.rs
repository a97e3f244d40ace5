//! The command line as a whole: what its words become.

use aisp_llama::method::Rounds;

use super::*;

fn parse(line: &str) -> run::RunArgs {
    let mut program = Args::command();
    program.build();
    let words = words::normalise(&program, line.split(' ').map(OsString::from)).unwrap();
    match Args::try_parse_from(words).unwrap().command {
        Command::Run(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_page_on_rewards_has_what_help_prints() {
    let (page, help) = (include_str!("../../docs/rewards.md"), help_rewards());
    let block = format!("```text\n{help}```\n");
    assert!(
        page.contains(&block),
        "put this into docs/rewards.md:\n{help}"
    );
}

#[test]
fn flags_parse_as_in_llama_cpp() {
    for line in ["-ngl 0", "-ngl=0", "--n-gpu-layers 0", "--gpu-layers=0"] {
        let args = parse(&format!("aisp-llama run -p hi {line}"));
        assert_eq!(args.model.load.options().gpu_layers, Some(0), "{line}");
    }
    for line in ["-n 5", "-n5", "-n=5", "--predict 5", "--n-predict=5"] {
        let args = parse(&format!("aisp-llama run -p hi {line}"));
        assert_eq!(args.length.predict, 5, "{line}");
    }
    let args = parse("aisp-llama run -m a.gguf -mr b.gguf -sys be -p hi -np 4 -s 7 -t 2 -c 64");
    assert_eq!(parse("aisp-llama run -p hi -s -1").seed, -1);
    assert_eq!(
        parse("aisp-llama run -p hi -ngl -1")
            .model
            .load
            .options()
            .gpu_layers,
        None
    );
    assert_eq!(args.reward.model_reward, ["b.gguf"]);
    assert_eq!(args.chat.system_prompt.as_deref(), Some("be"));
    assert_eq!(
        (args.parallel, args.seed, args.ctx_size),
        (Some(4), 7, Some(64))
    );
}

#[test]
fn negative_numbers_reach_the_checks() {
    let args = parse("aisp-llama run -p hi --sigma -1 --steer 3");
    let spec = args.method.spec().unwrap();
    assert_eq!(spec.all()["sigma"].as_f64(), Some(-1.0));
    assert_eq!(spec.all()["steer"].as_f64(), Some(3.0));
    assert!(spec.validate(&Rounds::default()).is_err());
}

/// Flags that say where models go: llama.cpp's names with one dash (none for some) and two, its
/// environment variable, a value, and what of the options it becomes.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const PLACEMENT: &[Row] = &[
    ("-m", "--model", "LLAMA_ARG_MODEL", "x.gguf", "x.gguf"),
    (
        "-hf",
        "--hf-repo",
        "LLAMA_ARG_HF_REPO",
        "a/b:Q8_0",
        "Source { repo: \"a/b\", quant: Some(\"Q8_0\") }",
    ),
    (
        "-hfr",
        "--hf-repo",
        "LLAMA_ARG_HF_REPO",
        "a/b",
        "quant: None",
    ),
    (
        "-hff",
        "--hf-file",
        "LLAMA_ARG_HF_FILE",
        "x.gguf",
        "hf_file: Some(\"x.gguf\")",
    ),
    (
        "-hft",
        "--hf-token",
        "HF_TOKEN",
        "hf_x",
        "hf_token: Some(\"hf_x\")",
    ),
    (
        "-t",
        "--threads",
        "LLAMA_ARG_THREADS",
        "3",
        "threads: Some(3)",
    ),
    ("-tb", "--threads-batch", "", "5", "threads_batch: Some(5)"),
    (
        "-ngl",
        "--gpu-layers",
        "LLAMA_ARG_N_GPU_LAYERS",
        "9",
        "gpu_layers: Some(9)",
    ),
    (
        "-ngl",
        "--n-gpu-layers",
        "LLAMA_ARG_N_GPU_LAYERS",
        "all",
        "gpu_layers: Some(4294967295)",
    ),
    (
        "-ngl",
        "--gpu-layers",
        "LLAMA_ARG_N_GPU_LAYERS",
        "auto",
        "gpu_layers: None",
    ),
    (
        "-ngl",
        "--gpu-layers",
        "LLAMA_ARG_N_GPU_LAYERS",
        "-1",
        "gpu_layers: None",
    ),
    (
        "-dev",
        "--device",
        "LLAMA_ARG_DEVICE",
        "none",
        "devices: Some([])",
    ),
    (
        "-dev",
        "--device",
        "LLAMA_ARG_DEVICE",
        "A,B",
        "devices: Some([\"A\", \"B\"])",
    ),
    (
        "-sm",
        "--split-mode",
        "LLAMA_ARG_SPLIT_MODE",
        "none",
        "split_mode: None",
    ),
    (
        "-sm",
        "--split-mode",
        "LLAMA_ARG_SPLIT_MODE",
        "row",
        "split_mode: Row",
    ),
    (
        "-ts",
        "--tensor-split",
        "LLAMA_ARG_TENSOR_SPLIT",
        "3,1",
        "tensor_split: [3.0, 1.0]",
    ),
    (
        "-mg",
        "--main-gpu",
        "LLAMA_ARG_MAIN_GPU",
        "1",
        "main_gpu: 1",
    ),
    (
        "-ot",
        "--override-tensor",
        "LLAMA_ARG_OVERRIDE_TENSOR",
        "exps=CPU",
        "[(\"exps\", \"CPU\")]",
    ),
    (
        "-cmoe",
        "--cpu-moe",
        "LLAMA_ARG_CPU_MOE",
        "",
        "cpu_moe: 18446744073709551615",
    ),
    (
        "-ncmoe",
        "--n-cpu-moe",
        "LLAMA_ARG_N_CPU_MOE",
        "4",
        "cpu_moe: 4",
    ),
    (
        "-lm",
        "--load-mode",
        "LLAMA_ARG_LOAD_MODE",
        "none",
        "mmap: false, mlock: false",
    ),
    (
        "-lm",
        "--load-mode",
        "LLAMA_ARG_LOAD_MODE",
        "mmap+mlock",
        "mmap: true, mlock: true",
    ),
    ("", "--override-kv", "", "a.b=int:3", "[(\"a.b\", I64(3))]"),
    ("", "--lora", "", "a,b", "[(\"a\", 1.0), (\"b\", 1.0)]"),
    ("", "--lora-scaled", "", "a:0.5", "[(\"a\", 0.5)]"),
    (
        "-fa",
        "--flash-attn",
        "LLAMA_ARG_FLASH_ATTN",
        "off",
        "flash: Off",
    ),
    (
        "-fa",
        "--flash-attn",
        "LLAMA_ARG_FLASH_ATTN",
        "1",
        "flash: On",
    ),
    (
        "-fa",
        "--flash-attn",
        "LLAMA_ARG_FLASH_ATTN",
        "-1",
        "flash: Auto",
    ),
    (
        "-ctk",
        "--cache-type-k",
        "LLAMA_ARG_CACHE_TYPE_K",
        "q8_0",
        "keys: CacheType(TensorType(8))",
    ),
    (
        "-ctv",
        "--cache-type-v",
        "LLAMA_ARG_CACHE_TYPE_V",
        "iq4_nl",
        "values: CacheType(TensorType(20))",
    ),
];

/// How models are loaded and used, as text.
fn loading(line: &str) -> String {
    let model = parse(&format!("aisp-llama run -p hi {line}")).model;
    let (options, attention) = (model.options(), model.load.attention());
    let threads = (model.load.threads, model.load.threads_batch);
    format!(
        "{:?} {:?} threads: {:?} threads_batch: {:?} {options:?} {attention:?}",
        model.model, model.hub, threads.0, threads.1
    )
}

#[test]
fn placement_flags_parse_as_in_llama_cpp() {
    let program = Args::command();
    let run = program.find_subcommand("run").unwrap();
    for (short, long, variable, value, wanted) in PLACEMENT {
        for name in [short, long].into_iter().filter(|name| !name.is_empty()) {
            let lines = match value.is_empty() {
                true => vec![(*name).to_string()],
                false => vec![format!("{name} {value}"), format!("{name}={value}")],
            };
            for line in lines {
                let found = loading(&line);
                assert!(found.contains(wanted), "{line}: {found}");
            }
        }
        let argument = words::argument(run, long).unwrap();
        let read = argument.get_env().unwrap_or_default();
        assert_eq!(read, *variable, "{long}");
    }
}

#[test]
fn variables_of_the_environment_are_those_of_llama_cpp() {
    let source = llama_flags::tests::source();
    let program = Args::command();
    for command in program.get_subcommands() {
        for argument in command.get_arguments() {
            let Some(name) = argument.get_env().and_then(|name| name.to_str()) else {
                continue;
            };
            let theirs = !name.starts_with("LLAMA_ARG_") || source.contains(&format!("\"{name}\""));
            assert!(theirs, "{name} of {argument}");
        }
    }
}

#[test]
fn every_flag_of_llama_cpp_is_taken_or_refused_by_its_name() {
    let mut program = Args::command();
    program.build();
    let run = program.find_subcommand("run").unwrap();
    for (short, long) in llama_flags::SHORT {
        let line = ["x", "run", short, "7"].map(OsString::from);
        let is_here = [short, long].map(|flag| words::argument(run, flag).is_some());
        match words::normalise(&program, line) {
            Ok(words) => {
                assert!(is_here.contains(&true), "{short}: {words:?}");
                let word = words[2].to_str().unwrap();
                assert!(word == *short || word == *long, "{short}: {word}");
            }
            Err(message) => {
                assert_eq!(is_here, [false; 2], "{short}: {message}");
                let named = format!("there is no {short} here (");
                assert!(message.starts_with(&named), "{message}");
                assert!(short == long || message.contains(long), "{message}");
                assert!(!message.contains('\n'), "{message}");
            }
        }
    }
}

#[test]
fn the_last_of_several_counts_unless_all_do() {
    let args = parse(
        "aisp-llama run -p one -p two --json --json -n 5 --predict 6 -s1 -s2 -fa on -fa off \
         --samples 3 --samples 4 -mr a -mr b --lora c --lora d",
    );
    assert_eq!(args.prompt.as_deref(), Some("two"));
    assert_eq!((args.length.predict, args.seed, args.json), (6, 2, true));
    assert_eq!(args.method.samples.samples, 4);
    assert_eq!(args.reward.model_reward, ["a", "b"]);
    assert_eq!(args.model.options().lora.len(), 2);
    assert_eq!(args.model.load.attention().flash.to_string(), "off");
}

#[test]
fn completions_know_the_words_of_flags() {
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), "aisp-llama", &mut script);
        let script = String::from_utf8(script).unwrap();
        for words in [
            ["best-of-n", "greedy", "search"],
            ["limit", "gumbel", "gaussian"],
            ["none", "layer", "row"],
            ["on", "off", "auto"],
            ["rows", "graph", "recompute"],
            ["f16", "q8_0", "iq4_nl"],
            ["refuse", "truncate", "--split-mode"],
            ["--hf-repo", "--hf-file", "--hf-token"],
        ] {
            for word in words {
                let is_there = script
                    .split(|c: char| !c.is_alphanumeric() && !"-_+".contains(c))
                    .any(|other| other == word);
                assert!(is_there, "{shell}: {word}");
            }
        }
    }
}
