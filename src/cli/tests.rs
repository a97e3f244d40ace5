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
fn flags_parse_as_in_llama_cpp() {
    for line in ["-ngl 0", "-ngl=0", "--n-gpu-layers 0", "--gpu-layers=0"] {
        let args = parse(&format!("aisp-llama run -p hi {line}"));
        assert_eq!(args.model.load.n_gpu_layers, Some(0), "{line}");
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
    let spec = args.settings.spec(&args.method).unwrap();
    assert_eq!(spec.all()["sigma"].as_f64(), Some(-1.0));
    assert_eq!(spec.all()["steer"].as_f64(), Some(3.0));
    assert!(spec.validate(&Rounds::default()).is_err());
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
        "aisp-llama run -p one -p two --json --json -n 5 --predict 6 -s1 -s2 \
         --samples 3 --samples 4 -mr a -mr b",
    );
    assert_eq!(args.prompt.as_deref(), Some("two"));
    assert_eq!((args.length.predict, args.seed, args.json), (6, 2, true));
    assert_eq!(args.samples.samples, 4);
    assert_eq!(args.reward.model_reward, ["a", "b"]);
}
