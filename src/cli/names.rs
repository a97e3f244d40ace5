//! What the library's fields are called in messages.
//!
//! The library says what is wrong with a *field* (`max-tokens`), and names other fields between
//! backticks. Here they become the flags of the command that runs (`-n`). What is no flag of it
//! stays as it is.

use aisp_llama::Error;
use clap::{Arg, ArgMatches, Command};

use super::words;

/// Fields whose flag is not `--FIELD`. Of several flags it is one that is given, else the first
/// that the command has.
const FLAGS: [(&str, &[&str]); 15] = [
    ("chat", &["--no-chat"]),
    ("context", &["-c"]),
    ("gpu-layers", &["-ngl"]),
    ("held-out-reward", &["--held-out"]),
    ("hf-file", &["-hff"]),
    ("hf-repo", &["-hf"]),
    ("max-tokens", &["-n"]),
    ("method", &["--method", "--methods"]),
    ("mmap", &["--no-mmap"]),
    ("model", &["-m"]),
    ("model-reward", &["-mr"]),
    ("output", &["-o"]),
    ("prompt", &["-p", "-f", "--prompts"]),
    ("samples", &["--samples", "--responses"]),
    ("stop", &["-r"]),
];

/// The flags of one command, by the fields that they set.
pub struct Names<'a> {
    command: &'a Command,
    given: Option<&'a ArgMatches>,
}

impl<'a> Names<'a> {
    /// Those of a command whose arguments are not all read yet.
    pub fn of(command: &'a Command) -> Self {
        Self {
            command,
            given: None,
        }
    }

    /// Those of the subcommand that was given to `program`.
    pub fn running(program: &'a Command, matches: &'a ArgMatches) -> Self {
        let (mut command, mut given) = (program, matches);
        while let Some((name, inner)) = given.subcommand() {
            let Some(found) = command.find_subcommand(name) else {
                break;
            };
            (command, given) = (found, inner);
        }
        Self {
            command,
            given: Some(given),
        }
    }

    /// What went wrong, `FLAG: REASON` where a flag is to blame.
    pub fn message(&self, error: &Error) -> String {
        match error {
            Error::Field { field, .. } => {
                let flag = self.flag(field).map_or(field.clone(), |(flag, _)| flag);
                format!("{flag}: {}", self.reason(error))
            }
            _ => self.reason(error),
        }
    }

    /// The same for a place that names the flag itself.
    pub fn reason(&self, error: &Error) -> String {
        match error {
            Error::Field { reason, .. } => self.translate(reason),
            other => self.translate(&other.to_string()),
        }
    }

    /// The text with flags for the fields in it.
    fn translate(&self, text: &str) -> String {
        // What a parser says of the keys of a file is about the file.
        if text.contains("field `") || text.contains("variant `") {
            return text.to_owned();
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, opened)) = rest.split_once('`') {
            let Some((field, after)) = opened.split_once('`') else {
                break;
            };
            out += before;
            rest = after;
            let Some((flag, argument)) = self.flag(field) else {
                out += &format!("`{field}`");
                continue;
            };
            // `logits` = graph is --logits graph, and `chat` = false is --no-chat.
            let switch = match flag.starts_with("--no-") {
                true => " = false",
                false => " = true",
            };
            out += &flag;
            if argument.get_action().takes_values() {
                if let Some(value) = after.strip_prefix(" = ") {
                    out.push(' ');
                    rest = value;
                }
            } else {
                rest = after.strip_prefix(switch).unwrap_or(after);
            }
        }
        out + rest
    }

    /// The flag of a field, where the command has one.
    fn flag(&self, field: &str) -> Option<(String, &'a Arg)> {
        let same = format!("--{field}");
        let same = [same.as_str()];
        let flags = FLAGS
            .iter()
            .find(|(name, _)| *name == field)
            .map_or(&same[..], |(_, flags)| flags);
        let mut found = flags
            .iter()
            .filter_map(|flag| Some((*flag, self.argument(flag)?)));
        found
            .clone()
            .find(|(_, argument)| self.is_given(argument))
            .or_else(|| found.next())
            .map(|(flag, argument)| (flag.to_owned(), argument))
    }

    fn argument(&self, flag: &str) -> Option<&'a Arg> {
        let own = words::argument(self.command, flag);
        own.or_else(|| words::argument(self.command, words::long(flag)?))
    }

    fn is_given(&self, argument: &Arg) -> bool {
        let id = argument.get_id().as_str();
        self.given
            .and_then(|matches| matches.value_source(id))
            .is_some_and(|source| source != clap::parser::ValueSource::DefaultValue)
    }
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::*;

    fn command() -> Command {
        let switch = |name: &'static str| {
            let argument = Arg::new(name).long(name);
            argument.action(ArgAction::SetTrue)
        };
        Command::new("x").args([
            Arg::new("prompt").short('p'),
            Arg::new("file").short('f'),
            Arg::new("predict").short('n'),
            Arg::new("logits").long("logits"),
            Arg::new("model_reward").long("model-reward"),
            switch("no-chat"),
            switch("stop-on-divergence"),
        ])
    }

    #[test]
    fn fields_become_flags_of_the_command() {
        let command = command();
        let names = Names::of(&command);
        for (field, reason, words) in [
            ("max-tokens", "0; too few", "-n: 0; too few"),
            ("prompt", "too long", "-p: too long"),
            ("logits", "what?", "--logits: what?"),
            (
                "context",
                "a `context` of its own",
                "context: a `context` of its own",
            ),
            (
                "stdin, line 3",
                "run `make setup`",
                "stdin, line 3: run `make setup`",
            ),
            (
                "prompt",
                "give `chat` = false, or a smaller `max-tokens`",
                "-p: give --no-chat, or a smaller -n",
            ),
            (
                "logits",
                "use `logits` = graph",
                "--logits: use --logits graph",
            ),
            (
                "prompt",
                "`stop-on-divergence` = true",
                "-p: --stop-on-divergence",
            ),
            (
                "prompt",
                "a file goes with `model-reward`",
                "-p: a file goes with -mr",
            ),
            (
                "prompt",
                "missing field `prompt`",
                "-p: missing field `prompt`",
            ),
            ("prompt", "a lone ` there", "-p: a lone ` there"),
        ] {
            assert_eq!(names.message(&Error::field(field, reason)), words);
        }
    }

    #[test]
    fn a_flag_that_is_given_is_named_before_another() {
        let command = command();
        let matches = command.clone().get_matches_from(["x", "-f", "prompt.txt"]);
        let names = Names::running(&command, &matches);
        let error = Error::field("prompt", "too long");
        assert_eq!(names.message(&error), "-f: too long");
    }
}
