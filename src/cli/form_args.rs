//! The flags that say what responses look like.

use std::path::PathBuf;
use std::sync::Arc;

use aisp_llama::llama::{Grammar, Model};
use aisp_llama::rollout::Form;
use aisp_llama::{Error, Result, text};
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub struct FormArgs {
    /// A text that ends responses, and is no part of them (-r); may be given several times
    #[arg(
        short = 'r',
        long,
        visible_alias = "stop",
        value_name = "TEXT",
        help_heading = "Generation",
        allow_hyphen_values = true
    )]
    pub reverse_prompt: Vec<String>,
    /// Never end a response by the model's own end; -n and -r do
    #[arg(long, help_heading = "Generation")]
    pub ignore_eos: bool,
    /// Responses of this grammar only, in llama.cpp's GBNF
    #[arg(
        long,
        value_name = "GBNF",
        group = "form",
        help_heading = "Generation",
        allow_hyphen_values = true
    )]
    pub grammar: Option<String>,
    /// The same from a file
    #[arg(long, value_name = "FILE", group = "form", help_heading = "Generation")]
    pub grammar_file: Option<PathBuf>,
    /// Responses that are JSON of this schema only; {} for any JSON
    #[arg(
        short = 'j',
        long,
        value_name = "SCHEMA",
        group = "form",
        help_heading = "Generation"
    )]
    pub json_schema: Option<String>,
    /// The same from a file (-jf)
    #[arg(long, value_name = "FILE", group = "form", help_heading = "Generation")]
    pub json_schema_file: Option<PathBuf>,
}

impl FormArgs {
    /// What they ask of the responses of `model`.
    pub fn form(&self, model: &Arc<Model>) -> Result<Form> {
        let grammar = Self::text(&self.grammar, &self.grammar_file)?.map(|text| {
            let grammar = Grammar::gbnf(Arc::clone(model), &text);
            grammar.map_err(in_file("grammar-file", &self.grammar_file))
        });
        let schema = Self::text(&self.json_schema, &self.json_schema_file)?.map(|text| {
            let schema = json(model, &text);
            schema.map_err(in_file("json-schema-file", &self.json_schema_file))
        });
        Ok(Form {
            stop: self.reverse_prompt.clone(),
            ignore_end: self.ignore_eos,
            grammar: grammar.or(schema).transpose()?.map(Arc::new),
            ..Form::default()
        })
    }

    /// The same as settings of a run, with the content of files.
    pub fn settings(&self) -> Result<Value> {
        Ok(serde_json::json!({
            "stop": self.reverse_prompt,
            "ignore_eos": self.ignore_eos,
            "grammar": Self::text(&self.grammar, &self.grammar_file)?,
            "json_schema": Self::text(&self.json_schema, &self.json_schema_file)?,
        }))
    }

    fn text(given: &Option<String>, file: &Option<PathBuf>) -> Result<Option<String>> {
        match (given, file) {
            (Some(text), _) => Ok(Some(text.clone())),
            (None, Some(path)) => text::read(path).map(Some).map_err(Error::io(path)),
            (None, None) => Ok(None),
        }
    }
}

fn json(model: &Arc<Model>, text: &str) -> Result<Grammar> {
    let schema = serde_json::from_str(text)
        .map_err(|e| Error::field("json-schema", format!("{text:?} is no JSON: {e}")))?;
    Grammar::json_schema(Arc::clone(model), &schema)
}

/// For `map_err`: the file that the text of a field was in, where it was in one.
fn in_file<'a>(field: &'a str, file: &'a Option<PathBuf>) -> impl Fn(Error) -> Error + 'a {
    move |error| match (error, file) {
        (Error::Field { reason, .. }, Some(path)) => {
            Error::field(field, format!("{}: {reason}", path.display()))
        }
        (error, _) => error,
    }
}
