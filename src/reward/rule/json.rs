//! JSON in what a model wrote, and how near it is to a schema.

use std::borrow::Cow;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use jsonschema::{Keyword, ValidationError};
use serde_json::Value;

use super::fence::fences;
use crate::error::io_reason;
use crate::text;

/// Subschemas that are looked at to tell whether a response is right.
const FUEL: usize = 1_000_000;

/// And to count what is wrong with it: every one may leave an error in memory.
const FUEL_FOR_ERRORS: usize = 20_000;

/// A keyword that no schema has.
const KEYWORD: &str = "aisp-llama-fuel";

/// 1 for JSON, or the partial score of what is none.
pub(super) fn score(response: &str) -> f64 {
    values(response).map_or_else(|partial| partial, |_| 1.0)
}

/// The response as JSON, or else what its fences hold; or the partial score of what is none.
fn values(response: &str) -> Result<Vec<Value>, f64> {
    let mut partial = match read(response) {
        Ok(value) => return Ok(vec![value]),
        Err(partial) => partial,
    };
    let mut values = Vec::new();
    for fence in fences(response) {
        let read = readings(fence.line, &fence.body).find_map(|text| match read(&text) {
            Ok(value) => Some(value),
            Err(near) => {
                partial = partial.max(near);
                None
            }
        });
        // A number may be a program in another language; an object or a list is meant as one.
        let tag = fence.tag.to_lowercase();
        let meant = tag.is_empty() || tag.starts_with("json");
        values.extend(read.filter(|v| meant || v.is_object() || v.is_array()));
    }
    if values.is_empty() {
        Err(partial)
    } else {
        Ok(values)
    }
}

/// What a fence may hold: its body; the part of it before a line that ends with a fence; and
/// both behind what stands on the opening line.
fn readings<'a>(line: &'a str, body: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
    let ends = body.split_inclusive('\n').scan(0, |end, line| {
        *end += line.len();
        Some((*end - line.len()) + line.trim_end().len())
    });
    let cut = ends
        .map(|end| &body[..end])
        .find_map(|body| body.strip_suffix("```").or(body.strip_suffix("~~~")));
    let bodies = [Some(body), cut].into_iter().flatten();
    bodies.flat_map(move |body| {
        let whole = (!line.is_empty()).then(|| Cow::Owned(format!("{line}\n{body}")));
        [Some(Cow::Borrowed(body)), whole].into_iter().flatten()
    })
}

/// The value, or the partial score of what is none.
fn read(text: &str) -> Result<Value, f64> {
    let text = text.trim();
    let error = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if !text.starts_with(['{', '[']) {
        return Err(0.0);
    }
    let before: usize = text
        .lines()
        .take(error.line().saturating_sub(1))
        .map(|l| l.len() + 1)
        .sum();
    let share = (before + error.column()) as f64 / text.len().max(1) as f64;
    Err(0.49 * share.clamp(0.0, 1.0))
}

/// A schema, of which no response can ask more work than a limit.
///
/// Where a schema refers to itself, errors are gathered by every way into the response, which
/// is exponential in its depth. So every subschema has one keyword more, which counts, and
/// leaves the validation when the limit is reached.
#[derive(Debug)]
pub(super) struct Schema(jsonschema::Validator);

impl Schema {
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = text::read(path).map_err(|e| io_reason(&e))?;
        let json = serde_json::from_str(&text).map_err(|e| format!("no JSON: {e}"))?;
        Self::new(json)
    }

    pub(super) fn new(mut schema: Value) -> Result<Self, String> {
        // Errors speak of the schema as it was written.
        jsonschema::validator_for(&schema).map_err(|e| format!("no JSON schema: {e}"))?;
        count_work(&mut schema);
        jsonschema::options()
            .with_keyword(KEYWORD, |_, _, _| Ok(Box::new(Fuel)))
            .build(&schema)
            .map(Self)
            .map_err(|e| format!("no JSON schema: {e}"))
    }

    /// 1 for what the schema accepts; from ½ on for other JSON, ½ where the limit is reached.
    pub(super) fn score(&self, response: &str) -> f64 {
        let near = |value: &Value| match within(FUEL, || self.0.is_valid(value)) {
            Some(true) => 1.0,
            None => 0.5,
            Some(false) => {
                let errors = within(FUEL_FOR_ERRORS, || self.0.iter_errors(value).count());
                errors.map_or(0.5, |n| 1.0 - 0.5 * n as f64 / (n as f64 + 1.0))
            }
        };
        match values(response) {
            Err(partial) => partial,
            Ok(values) => values.iter().map(near).fold(0.0, f64::max),
        }
    }
}

/// Gives every subschema the keyword that counts.
fn count_work(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for (key, value) in map.iter_mut() {
        match (key.as_str(), value) {
            // Not schemas, but values.
            ("const" | "enum" | "default" | "examples", _) => {}
            // Schemas by names that are not keywords.
            (
                "properties" | "patternProperties" | "dependentSchemas" | "dependencies" | "$defs"
                | "definitions",
                Value::Object(named),
            ) => named.values_mut().for_each(count_work),
            (_, Value::Array(list)) => list.iter_mut().for_each(count_work),
            (_, value) => count_work(value),
        }
    }
    map.insert(KEYWORD.into(), Value::Bool(true));
}

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

struct OutOfFuel;

/// What `work` gives, or nothing where it looks at more than `fuel` subschemas.
fn within<T>(fuel: usize, work: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(fuel);
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Some(done),
        Err(cause) if cause.is::<OutOfFuel>() => None,
        Err(cause) => resume_unwind(cause),
    }
}

/// The keyword that counts, and accepts everything.
struct Fuel;

impl<'i> Keyword<'i> for Fuel {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        self.is_valid(instance);
        Ok(())
    }

    fn is_valid(&self, _: &'i Value) -> bool {
        match LEFT.get() {
            // Unwinding without a panic's message: nothing is wrong in the program.
            0 => resume_unwind(Box::new(OutOfFuel)),
            left => LEFT.set(left - 1),
        }
        true
    }
}
