//! The words of a command line before they are parsed: flags of one dash and several letters, as
//! llama.cpp writes them, become flags of two; what would be read as something else is refused.

use std::ffi::OsString;

use clap::{Arg, Command};

use super::llama_flags;

/// Flags of one dash and several letters that llama.cpp does not have.
const OWN: [(&str, &str); 1] = [("-mr", "--model-reward")];

/// The flag with two dashes behind one with a single dash.
pub fn long(flag: &str) -> Option<&'static str> {
    let own = OWN.iter().find(|(short, _)| *short == flag);
    own.map(|(_, long)| *long)
        .or_else(|| llama_flags::long(flag))
}

/// Turns flags with a single dash and several letters into long ones, for the parser of `program`.
///
/// # Errors
/// What is wrong with a flag that the command does not have, where the parser would read it letter
/// by letter.
pub fn normalise(
    program: &Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Vec<OsString>, String> {
    let mut command = program;
    // Whether the next word is a value, whatever it begins with.
    let mut value = true;
    let mut words = Vec::new();
    let mut arguments = arguments.into_iter();
    for argument in arguments.by_ref() {
        let Some(text) = argument.to_str().filter(|_| !std::mem::take(&mut value)) else {
            words.push(argument);
            continue;
        };
        if text == "--" {
            words.push(argument);
            break;
        }
        if let Some(inner) = command.find_subcommand(text) {
            command = inner;
        }
        let word = flag(command, text)?.map_or(argument, OsString::from);
        value = word.to_str().is_some_and(|word| wants_any(command, word));
        words.push(word);
    }
    words.extend(arguments);
    Ok(words)
}

/// What a word is for the parser, where it is a flag of another name there.
fn flag(command: &Command, word: &str) -> Result<Option<String>, String> {
    let (flag, value) = match word.split_once('=') {
        Some((flag, value)) => (flag, Some(value)),
        None => (word, None),
    };
    if argument(command, flag).is_some() {
        return Ok(None);
    }
    if flag.starts_with("--") {
        return match llama_flags::refusal(flag) {
            Some(reason) => Err(format!("there is no {flag} here: {reason}")),
            None => Ok(None),
        };
    }
    let mut letters = flag.chars().skip(1);
    let several = match (letters.next(), letters.next()) {
        (Some(first), second) if flag.starts_with('-') && first.is_ascii_alphabetic() => {
            second.is_some()
        }
        // No flag, or a negative number.
        _ => return Ok(None),
    };
    // -n5: a number may stand right behind a letter.
    if several && !flag[2..].starts_with(|c: char| c.is_alphabetic()) {
        return Ok(None);
    }
    match long(flag) {
        Some(long) if argument(command, long).is_some() => Ok(Some(match value {
            Some(value) => format!("{long}={value}"),
            None => long.to_owned(),
        })),
        Some(long) => {
            let name = match long == flag {
                true => "of llama.cpp's tools".to_owned(),
                false => format!("llama.cpp's {long}"),
            };
            let why = match llama_flags::refusal(long) {
                Some(reason) => format!(": {reason}"),
                None => format!("; {LISTED}"),
            };
            Err(format!("there is no {flag} here ({name}){why}"))
        }
        None if several => Err(format!("there is no {flag} here; {LISTED}")),
        None => Ok(None),
    }
}

/// Where to look.
const LISTED: &str = "`--help` lists what there is";

/// Whether the word behind this one is its value even if it begins with a dash.
fn wants_any(command: &Command, word: &str) -> bool {
    argument(command, word).is_some_and(|argument| {
        argument.get_action().takes_values() && argument.is_allow_hyphen_values_set()
    })
}

/// The argument that a flag with one letter, or with two dashes, is called by.
pub fn argument<'a>(command: &'a Command, flag: &str) -> Option<&'a Arg> {
    let mut all = command.get_arguments();
    match flag.strip_prefix("--") {
        Some(name) => all.find(|argument| {
            let aliases = argument.get_all_aliases().unwrap_or_default();
            argument.get_long() == Some(name) || aliases.contains(&name)
        }),
        None => all.find(|argument| {
            let short = argument.get_short();
            short.is_some_and(|short| flag.strip_prefix('-') == Some(short.to_string().as_str()))
        }),
    }
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::*;

    fn command() -> Command {
        let text = Arg::new("prompt").short('p').long("prompt");
        let run = Command::new("run").args([
            text.allow_hyphen_values(true),
            Arg::new("predict").short('n').long("n-predict"),
            Arg::new("model").short('m').long("model"),
            Arg::new("model_reward").long("model-reward"),
            Arg::new("layers")
                .long("n-gpu-layers")
                .visible_alias("gpu-layers"),
            Arg::new("json").long("json").action(ArgAction::SetTrue),
        ]);
        let mut program = Command::new("x").subcommand(run);
        program.build();
        program
    }

    fn words(line: &str) -> Result<Vec<String>, String> {
        let line = format!("x run {line}");
        let words = normalise(&command(), line.split(' ').map(OsString::from))?;
        let words = words.into_iter().skip(2);
        Ok(words.map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn single_dashes_become_double_ones() {
        for (line, as_parsed) in [
            ("-mr a.gguf", "--model-reward a.gguf"),
            ("-mr=a.gguf", "--model-reward=a.gguf"),
            ("-ngl 0 --json", "--gpu-layers 0 --json"),
            ("-mr x -- -mr", "--model-reward x -- -mr"),
            ("-n5 -m ./a -n -1", "-n5 -m ./a -n -1"),
            ("-n=5 -m/a.gguf -", "-n=5 -m/a.gguf -"),
            // A prompt is a prompt whatever it looks like.
            ("-p -fa", "-p -fa"),
            ("--prompt -mr -mr x", "--prompt -mr --model-reward x"),
        ] {
            assert_eq!(words(line).unwrap().join(" "), as_parsed);
        }
    }

    #[test]
    fn what_would_be_read_letter_by_letter_is_refused() {
        for (line, message) in [
            (
                "-fa",
                "there is no -fa here (llama.cpp's --flash-attn); `--help` lists",
            ),
            (
                "-fa=on",
                "there is no -fa here (llama.cpp's --flash-attn); ",
            ),
            (
                "-mu a/b",
                "there is no -mu here (llama.cpp's --model-url): a model is a GGUF file, ",
            ),
            (
                "-sm none",
                "there is no -sm here (llama.cpp's --split-mode); ",
            ),
            ("-e", "there is no -e here (llama.cpp's --escape); "),
            ("-npp 4", "there is no -npp here (of llama.cpp's tools); "),
            ("-mfile.gguf", "there is no -mfile.gguf here; "),
            ("-np 4", "there is no -np here (llama.cpp's --parallel); "),
            (
                "-ub 4",
                "there is no -ub here (llama.cpp's --ubatch-size): steps and prompts ",
            ),
            (
                "--batch-size=4",
                "there is no --batch-size here: steps and prompts ",
            ),
            ("-n 5 -hello", "there is no -hello here; "),
        ] {
            let found = words(line).unwrap_err();
            assert!(found.starts_with(message), "{line}: {found}");
        }
    }

    #[test]
    fn other_letters_are_left_to_the_parser() {
        for line in ["-z", "--no-such", "-1.5", "-é"] {
            assert_eq!(words(line).unwrap().join(" "), line);
        }
    }
}
