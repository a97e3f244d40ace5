//! The little language of reward descriptions: terms between semicolons.
//!
//! `TEXT = TERM (';' TERM)*`, `TERM = [NUMBER '*'] ['!'] KEY ['=' VALUE]`. A value is what
//! stands up to the next semicolon, without the white space around it, or a text in double
//! quotes, in which `\"`, `\\`, `\n` and `\t` are escapes and a semicolon is a character.

/// One term.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    /// The factor in front of it; 1 where there is none.
    pub weight: f64,
    /// Whether a `!` stands in front of the key.
    pub negated: bool,
    /// What comes before the equals sign.
    pub key: String,
    /// What comes behind it.
    pub value: Option<String>,
}

/// Reads terms.
///
/// # Errors
/// A sentence that names the piece that is wrong.
pub(super) fn parse(text: &str) -> Result<Vec<Term>, String> {
    split(text)?.into_iter().map(term).collect()
}

/// Takes a leading `NUMBER*` off.
///
/// # Errors
/// For a number that is not finite.
pub(super) fn split_weight(text: &str) -> Result<(Option<f64>, &str), String> {
    let Some((number, rest)) = text.split_once('*') else {
        return Ok((None, text));
    };
    match number.trim().parse::<f64>() {
        Ok(weight) if weight.is_finite() => Ok((Some(weight), rest.trim_start())),
        Ok(weight) => Err(format!("{text:?}: {weight} is no weight")),
        Err(_) => Ok((None, text)),
    }
}

/// The pieces between semicolons that are not in quotes.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            // A quote opens a value only at its beginning: 5" is a text like any other.
            '"' if quoted || opens_value(&text[start..i]) => quoted = !quoted,
            ';' if !quoted => {
                pieces.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if quoted {
        return Err(format!(
            "{:?}: the quote is not closed",
            text[start..].trim()
        ));
    }
    pieces.push(&text[start..]);
    Ok(pieces)
}

/// Whether a value begins behind `before`, the piece so far.
fn opens_value(before: &str) -> bool {
    let before = before.trim_end();
    before.find('=').is_some_and(|i| i + 1 == before.len())
}

fn term(piece: &str) -> Result<Term, String> {
    let piece = piece.trim();
    let (left, value) = match piece.split_once('=') {
        Some((left, value)) => (left, Some(unquote(value.trim())?)),
        None => (piece, None),
    };
    let (weight, rest) = split_weight(left)?;
    let (negated, key) = match rest.trim().strip_prefix('!') {
        Some(key) => (true, key.trim()),
        None => (false, rest.trim()),
    };
    if key.is_empty() {
        return Err(format!(
            "{piece:?}: there is no name; write NAME or NAME=VALUE"
        ));
    }
    Ok(Term {
        weight: weight.unwrap_or(1.0),
        negated,
        key: key.to_owned(),
        value,
    })
}

fn unquote(value: &str) -> Result<String, String> {
    let Some(rest) = value.strip_prefix('"') else {
        return Ok(value.to_owned());
    };
    let mut text = String::new();
    let mut characters = rest.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => {
                let behind = characters.as_str();
                return match behind.is_empty() {
                    true => Ok(text),
                    false => Err(format!("{value:?}: {behind:?} stands behind the quote")),
                };
            }
            '\\' => match characters.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(c @ ('"' | '\\')) => text.push(c),
                // A pattern's own escapes (\d) stay as they are.
                Some(c) => text.extend(['\\', c]),
                None => break,
            },
            c => text.push(c),
        }
    }
    Err(format!("{value:?}: the quote is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Term {
        parse(text).unwrap().pop().unwrap()
    }

    #[test]
    fn terms_have_weights_keys_and_values() {
        let terms = parse("json; 2*!words = 3..5 ;contains=\"a; \\\"b\\\"\\n\\\\\"").unwrap();
        assert_eq!(terms.len(), 3);
        assert_eq!((terms[0].key.as_str(), &terms[0].value), ("json", &None));
        assert_eq!((terms[1].weight, terms[1].negated), (2.0, true));
        assert_eq!(terms[1].value.as_deref(), Some("3..5"));
        assert_eq!(terms[2].value.as_deref(), Some("a; \"b\"\n\\"));
    }

    #[test]
    fn values_may_hold_anything_but_a_semicolon() {
        assert_eq!(one("regex=^a*=\"b\"$").value.as_deref(), Some("^a*=\"b\"$"));
        assert_eq!(
            one("main=python3 r.py --x=1").value.as_deref(),
            Some("python3 r.py --x=1")
        );
        assert_eq!(one("regex=\"\\d+;\"").value.as_deref(), Some("\\d+;"));
        assert_eq!(one("x=").value.as_deref(), Some(""));
    }

    #[test]
    fn weights_are_numbers_before_a_star() {
        assert_eq!(split_weight("0.5*a.gguf"), Ok((Some(0.5), "a.gguf")));
        assert_eq!(
            split_weight("-2 * rule:json"),
            Ok((Some(-2.0), "rule:json"))
        );
        assert_eq!(split_weight("a*b"), Ok((None, "a*b")));
        assert!(split_weight("inf*a").is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("a; ;b", "no name"),
            ("", "no name"),
            ("a=\"b", "not closed"),
            ("a=\"b\" c", "behind the quote"),
            ("nan*a", "no weight"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
