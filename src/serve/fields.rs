//! The fields of a request: what is there must be of its kind, what is not known is ignored.

use serde_json::{Map, Value};

use super::failure::Failure;

/// A JSON object that was sent.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

type Field<T> = Result<Option<T>, Failure>;

impl<'a> Fields<'a> {
    /// That in a body.
    pub(super) fn of(body: &'a Value) -> Result<Self, Failure> {
        let object = body.as_object();
        object
            .map(Self)
            .ok_or_else(|| Failure::invalid("the body must be a JSON object"))
    }

    /// What is there; null is not.
    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// One of several names for the same.
    pub(super) fn first(&self, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
        let mut all = names.iter();
        all.find_map(|name| Some((*name, self.value(name)?)))
    }

    fn read<T>(&self, name: &str, wanted: &str, read: impl Fn(&'a Value) -> Option<T>) -> Field<T> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Failure::field(name, format!("must be {wanted}"))),
        }
    }

    pub(super) fn text(&self, name: &str) -> Field<&'a str> {
        self.read(name, "a text", Value::as_str)
    }

    pub(super) fn switch(&self, name: &str) -> Result<bool, Failure> {
        Ok(self
            .read(name, "true or false", Value::as_bool)?
            .unwrap_or(false))
    }

    pub(super) fn number(&self, name: &str) -> Field<f64> {
        self.read(name, "a number", Value::as_f64)
    }

    pub(super) fn whole(&self, name: &str) -> Field<i64> {
        self.read(name, "a whole number", Value::as_i64)
    }

    pub(super) fn count(&self, name: &str) -> Field<usize> {
        let read = |value: &Value| usize::try_from(value.as_u64()?).ok();
        self.read(name, "a whole number, 0 or more", read)
    }

    pub(super) fn object(&self, name: &str) -> Field<&'a Map<String, Value>> {
        self.read(name, "an object", Value::as_object)
    }

    pub(super) fn list(&self, name: &str) -> Field<&'a Vec<Value>> {
        self.read(name, "a list", Value::as_array)
    }

    /// A list of texts, or one text.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Failure> {
        let read = |value: &'a Value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(all) => all.iter().map(|v| Some(v.as_str()?.to_owned())).collect(),
            _ => None,
        };
        Ok(self
            .read(name, "a text, or a list of texts", read)?
            .unwrap_or_default())
    }
}
