//! The flags that set a method up, made from the table of methods.

use std::collections::BTreeMap;

use aisp_llama::method::{METHODS, MethodSpec, parse_value, preset};
use aisp_llama::{Error, Result};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use serde_json::{Map, Value};

use super::values;

/// Settings that llama.cpp has a variable for: theirs is a wish, heard where the method has it.
const VARIABLES: [(&str, &str); 3] = [
    ("temp", "LLAMA_ARG_TEMPERATURE"),
    ("top-k", "LLAMA_ARG_TOP_K"),
    ("top-p", "LLAMA_ARG_TOP_P"),
];
const PRESET_HELP: &str = "A preset of the method (aisp: paper), or a file that `tune` wrote; \
                           flags that are given come before it";
/// Another spelling of a flag.
const ALIASES: [(&str, &str); 1] = [("temp", "temperature")];

/// How responses are drawn where there is nothing to search.
pub const DRAWS: &str = "best-of-n";

/// What was set, by name; what was not comes from the preset, or is the default. With `ALL` the
/// settings of every method, else those of [`DRAWS`]; with `PRESET` the flag that names one.
#[derive(Clone, Debug, Default)]
pub struct SettingsArgs<const ALL: bool = true, const PRESET: bool = true> {
    preset: Option<String>,
    given: Map<String, Value>,
    wished: Map<String, Value>,
}

impl<const ALL: bool, const PRESET: bool> SettingsArgs<ALL, PRESET> {
    /// `method` with its preset, and what was given in place of what that says.
    pub fn spec(&self, method: &MethodSpec) -> Result<MethodSpec> {
        let preset = match &self.preset {
            Some(name) => preset(method.entry(), name)?,
            None => Map::new(),
        };
        let spec = method.clone().with([&preset, &self.given]);
        let spec = spec.map_err(|error| match (error, &self.preset) {
            (Error::Field { field, reason }, Some(name)) if !self.given.contains_key(&field) => {
                Error::field("preset", format!("{name}: {field}: {reason}"))
            }
            (error, _) => error,
        })?;
        let heard = self.wished.iter().filter(|(name, _)| spec.reads(name));
        let heard = heard.map(|(name, value)| (name.clone(), value.clone()));
        let heard: Map<String, Value> = heard.collect();
        spec.with([&heard])
    }
}

impl<const PRESET: bool> SettingsArgs<true, PRESET> {
    /// `method` with those of the flags that it reads; the others are for another method.
    pub fn heard_by(&self, method: &MethodSpec) -> Result<MethodSpec> {
        let all = self.wished.iter().chain(&self.given);
        let heard = all.filter(|(name, _)| method.reads(name));
        let heard: Map<String, Value> = heard.map(|(n, v)| (n.clone(), v.clone())).collect();
        method.clone().with([&heard])
    }
}

/// Every setting of any method, or of [`DRAWS`], in the order of the table, with its value and
/// help.
fn flags(all: bool) -> Vec<(&'static str, &'static str, String)> {
    let mut order: Vec<(&str, &str)> = Vec::new();
    // By setting: what it does, and the methods for which it does that.
    let mut uses: BTreeMap<&str, Vec<(String, Vec<String>)>> = BTreeMap::new();
    for &entry in METHODS.iter().filter(|entry| all || entry.name == DRAWS) {
        let defaults = MethodSpec::of(entry);
        for group in entry.settings {
            for setting in group.settings {
                let default = match &defaults.all()[setting.name] {
                    Value::Null | Value::Bool(_) => String::new(),
                    Value::String(text) => format!(" [default: {text}]"),
                    Value::Number(number) => match number.as_f64() {
                        Some(x) if number.is_f64() => format!(" [default: {x}]"),
                        _ => format!(" [default: {number}]"),
                    },
                    other => format!(" [default: {other}]"),
                };
                let what = format!("{}{default}", setting.help);
                let method = match group.only_with {
                    Some((other, "true")) => format!("{} with --{other}", entry.name),
                    Some((other, value)) => format!("{} with --{other} {value}", entry.name),
                    None => entry.name.to_owned(),
                };
                if !uses.contains_key(setting.name) {
                    order.push((setting.name, setting.value));
                }
                let known = uses.entry(setting.name).or_default();
                match known.iter_mut().find(|(other, _)| *other == what) {
                    Some((_, methods)) => methods.push(method),
                    None => known.push((what, vec![method])),
                }
            }
        }
    }
    order
        .into_iter()
        .map(|(name, value)| {
            let uses = uses[name].iter();
            let help: Vec<String> = uses
                .map(|(what, methods)| format!("{}: {what}", methods.join(", ")))
                .collect();
            (name, value, help.join("; "))
        })
        .collect()
}

fn variable(name: &str) -> Option<&'static str> {
    let found = VARIABLES.iter().find(|(setting, _)| *setting == name);
    found.map(|(_, variable)| *variable)
}

impl<const ALL: bool, const PRESET: bool> clap::Args for SettingsArgs<ALL, PRESET> {
    fn augment_args(command: Command) -> Command {
        let mut command = command.next_help_heading("Method");
        if PRESET {
            command = command.arg(
                Arg::new("preset")
                    .long("preset")
                    .value_name("NAME|FILE.json")
                    .help(PRESET_HELP),
            );
        }
        for (name, value, help) in flags(ALL) {
            let mut flag = Arg::new(name).long(name).help(help);
            flag = match value {
                "" => flag.action(ArgAction::SetTrue),
                _ => flag
                    .value_name(value)
                    .value_parser(values::words_of(value))
                    .hide_possible_values(true)
                    .allow_negative_numbers(true),
            };
            if let Some(variable) = variable(name) {
                flag = flag.env(variable);
            }
            if let Some((_, alias)) = ALIASES.iter().find(|(setting, _)| *setting == name) {
                flag = flag.visible_alias(*alias);
            }
            command = command.arg(flag);
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const ALL: bool, const PRESET: bool> FromArgMatches for SettingsArgs<ALL, PRESET> {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let mut args = Self {
            preset: match PRESET {
                true => matches.get_one::<String>("preset").cloned(),
                false => None,
            },
            ..Self::default()
        };
        for (name, value, _) in flags(ALL) {
            let value = match value {
                "" => Value::Bool(true),
                _ => match matches.get_one::<String>(name) {
                    Some(text) => parse_value(text),
                    None => continue,
                },
            };
            match matches.value_source(name) {
                Some(ValueSource::CommandLine) => args.given.insert(name.into(), value),
                Some(ValueSource::EnvVariable) => args.wished.insert(name.into(), value),
                _ => None,
            };
        }
        Ok(args)
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
