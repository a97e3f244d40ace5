//! What Hugging Face adds to Jinja, and what Python's strings can do that minijinja's cannot.
//!
//! Source: `transformers/utils/chat_template_utils.py` (`_compile_jinja_template`), and Python's own
//! documentation of `str`.

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde_json::Value as Json;

/// Work that a template may do: one for each instruction, and for every 64 bytes that it makes. Some
/// tenths of a second, so that nobody has to interrupt it, and 256 MB at most.
const FUEL: u64 = 4_000_000;

/// Bytes that cost as much as an instruction.
const BYTES: usize = 64;

/// Brackets of JSON inside each other.
const DEEPEST: usize = 100;

type Answer<T> = Result<T, Error>;

fn refuse<T>(reason: impl Into<std::borrow::Cow<'static, str>>) -> Answer<T> {
    Err(Error::new(ErrorKind::InvalidOperation, reason))
}

/// Charges for so many bytes that are read or made; minijinja itself charges for answers alone.
fn spend(state: &State, bytes: usize) -> Answer<()> {
    state.consume_fuel((bytes / BYTES) as u64)
}

/// An environment like that of transformers, in which it is `date`.
pub(super) fn environment(date: DateTime) -> Answer<Environment<'static>> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    env.set_syntax(syntax);
    env.set_fuel(Some(FUEL));
    minijinja_contrib::add_to_environment(&mut env);
    env.set_unknown_method_callback(method);
    env.add_filter("tojson", tojson);
    // None is nothing to go through, and whatever has a length and items is a sequence.
    env.add_test("iterable", |value: &Value| {
        !value.is_none() && value.try_iter().is_ok()
    });
    env.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::Map | ValueKind::String
        )
    });
    env.add_function("raise_exception", |text: String| refuse::<String>(text));
    env.add_function("strftime_now", move |format: String| {
        jiff::fmt::strtime::format(format.as_str(), date)
            .or_else(|e| refuse(format!("strftime_now({format:?}): {e}")))
    });
    Ok(env)
}

/// Methods of Python's strings that minijinja has none of; the others are its own.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Answer<Value> {
    if let Some(text) = value.as_str() {
        spend(state, text.len())?;
        if let Some(answer) = string_method(text, name, args)? {
            return Ok(answer);
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

fn string_method(text: &str, name: &str, args: &[Value]) -> Answer<Option<Value>> {
    // Positions are counted in characters.
    let position = |at: Option<usize>| at.map(|at| text[..at].chars().count());
    let three = |a: &str, b: &str, c: &str| Value::from([a, b, c].map(String::from).to_vec());
    Ok(Some(match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let most = most.and_then(|n| usize::try_from(n).ok());
            Value::from(split_from_behind(text, separator, most))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let parts = text.split_once(separator);
            parts.map_or(three(text, "", ""), |(a, b)| three(a, separator, b))
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let parts = text.rsplit_once(separator);
            parts.map_or(three("", "", text), |(a, b)| three(a, separator, b))
        }
        "index" | "rindex" => {
            let (part,): (&str,) = from_args(args)?;
            let at = match name {
                "index" => text.find(part),
                _ => text.rfind(part),
            };
            match position(at) {
                Some(at) => at.into(),
                None => return refuse("substring not found"),
            }
        }
        "casefold" => {
            let () = from_args(args)?;
            text.to_lowercase().replace('ß', "ss").into()
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swap = |c: char| match c.is_uppercase() {
                true => c.to_lowercase().to_string(),
                false => c.to_uppercase().to_string(),
            };
            text.chars().map(swap).collect::<String>().into()
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let sign = &text[..text.len() - digits.len()];
            let zeros = padding(text, width)?;
            format!("{sign}{}{digits}", "0".repeat(zeros)).into()
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            let fill = String::from(fill.unwrap_or(' '));
            let all = padding(text, width)?;
            let before = match name {
                "ljust" => 0,
                "rjust" => all,
                // Python's own rounding.
                _ => all / 2 + (all & width & 1),
            };
            let (before, behind) = (fill.repeat(before), fill.repeat(all - before));
            format!("{before}{text}{behind}").into()
        }
        "isdecimal" => {
            let () = from_args(args)?;
            (!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())).into()
        }
        "istitle" => {
            let () = from_args(args)?;
            is_title(text).into()
        }
        _ => return Ok(None),
    }))
}

/// Characters that a text lacks to so many.
fn padding(text: &str, width: usize) -> Answer<usize> {
    match width {
        0..=10_000 => Ok(width.saturating_sub(text.chars().count())),
        _ => refuse(format!("a width of {width}")),
    }
}

fn is_title(text: &str) -> bool {
    let (mut inside, mut any) = (false, false);
    for c in text.chars() {
        if c.is_uppercase() && inside || c.is_lowercase() && !inside {
            return false;
        }
        inside = c.is_alphabetic();
        any |= inside;
    }
    any
}

fn split_from_behind(text: &str, separator: Option<&str>, most: Option<usize>) -> Vec<String> {
    let most = most.unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut rest = text;
    match separator {
        Some(separator) => {
            while parts.len() < most
                && let Some((before, last)) = rest.rsplit_once(separator)
            {
                parts.push(last.to_owned());
                rest = before;
            }
            parts.push(rest.to_owned());
        }
        None => {
            rest = rest.trim_end();
            while !rest.is_empty() {
                let cut = rest
                    .rfind(char::is_whitespace)
                    .filter(|_| parts.len() < most);
                let start = cut.map_or(0, |at| {
                    at + rest[at..].chars().next().map_or(0, char::len_utf8)
                });
                let last = if cut.is_some() {
                    &rest[start..]
                } else {
                    rest.trim_start()
                };
                parts.push(last.to_owned());
                rest = cut.map_or("", |at| rest[..at].trim_end());
            }
        }
    }
    parts.reverse();
    parts
}

/// JSON as Python writes it, with the defaults of transformers: nothing escaped that need not be.
fn tojson(state: &State, value: Value, indent: Option<usize>, options: Kwargs) -> Answer<Value> {
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let separators = match separators.as_deref() {
        Some([items, keys]) => Some((items.clone(), keys.clone())),
        Some(_) => return refuse("separators are two"),
        None => None,
    };
    let indent: Option<usize> = options.get::<Option<usize>>("indent")?.or(indent);
    options.assert_all_used()?;
    let writer = JsonWriter {
        state,
        ascii: ensure_ascii.unwrap_or(false),
        sort: sort_keys.unwrap_or(false),
        separators: separators.unwrap_or_else(|| match indent {
            Some(_) => (",".into(), ": ".into()),
            None => (", ".into(), ": ".into()),
        }),
        indent: indent.map(|width| width.min(100)),
    };
    let mut out = String::new();
    writer.write(&value, 0, &mut out)?;
    Ok(Value::from_safe_string(out))
}

struct JsonWriter<'s, 't, 'e> {
    state: &'s State<'t, 'e>,
    ascii: bool,
    sort: bool,
    separators: (String, String),
    indent: Option<usize>,
}

impl JsonWriter<'_, '_, '_> {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Answer<()> {
        // A list may hold another one many times over.
        let text = value.as_str().map_or(0, str::len);
        spend(self.state, BYTES + text + self.indent.unwrap_or(0) * depth)?;
        match value.kind() {
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort {
                    keys.sort();
                }
                let each = keys.into_iter().map(|key| {
                    let item = value.get_item(&key)?;
                    Ok((Some(key.to_string()), item))
                });
                self.between('{', each, '}', depth, out)?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let each = value.try_iter()?.map(|item| Ok((None, item)));
                self.between('[', each, ']', depth, out)?;
            }
            _ => match serde_json::to_value(value) {
                Ok(Json::String(text)) => self.text(&text, out),
                Ok(Json::Number(n)) => out.push_str(&number_like_python(&n.to_string())),
                Ok(other) => out.push_str(&other.to_string()),
                Err(error) => return refuse(format!("this is no JSON: {error}")),
            },
        }
        Ok(())
    }

    fn between(
        &self,
        open: char,
        items: impl Iterator<Item = Answer<(Option<String>, Value)>>,
        close: char,
        depth: usize,
        out: &mut String,
    ) -> Answer<()> {
        if depth > DEEPEST {
            return refuse(format!("JSON deeper than {DEEPEST}"));
        }
        let line = |depth: usize, out: &mut String| {
            if let Some(width) = self.indent {
                out.push('\n');
                out.push_str(&" ".repeat(width * depth));
            }
        };
        out.push(open);
        let mut any = false;
        for item in items {
            let (key, item) = item?;
            if any {
                out.push_str(&self.separators.0);
            }
            any = true;
            line(depth + 1, out);
            if let Some(key) = key {
                self.text(&key, out);
                out.push_str(&self.separators.1);
            }
            self.write(&item, depth + 1, out)?;
        }
        if any {
            line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn text(&self, text: &str, out: &mut String) {
        let plain = Json::from(text).to_string();
        if !self.ascii {
            out.push_str(&plain);
            return;
        }
        for c in plain.chars() {
            if c.is_ascii() {
                out.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
}

/// An exponent has a sign and two digits.
fn number_like_python(number: &str) -> String {
    let Some((mantissa, exponent)) = number.split_once('e') else {
        return number.to_owned();
    };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent.trim_start_matches('+')),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}
