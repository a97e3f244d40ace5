//! The source of a template in the form that minijinja reads.
//!
//! - `{% generation %}` blocks, which mark what a model is trained on, are transparent.
//! - `'…' % x` is Python's formatting of strings, `'…'|format(x)` in Jinja.
//! - Lines end as they do for Jinja2, whatever the file's line ends are.

/// The template `source` without what minijinja has no word for.
pub(super) fn prepare(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut raw = false;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let close = match rest.as_bytes().get(1) {
            Some(b'{') if !raw => "}}",
            Some(b'%') => "%}",
            Some(b'#') if !raw => {
                let end = rest.find("#}").map_or(rest.len(), |end| end + 2);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            _ => {
                out.push('{');
                rest = &rest[1..];
                continue;
            }
        };
        let Some(end) = end_of(&rest[2..], close) else {
            break;
        };
        let (code, behind) = (&rest[2..2 + end], &rest[2 + end + 2..]);
        let word = code.trim_matches(['-', '+', ' ', '\t', '\n']);
        out.push_str(&rest[..2]);
        match word {
            "generation" if !raw => out.push_str(&code.replacen("generation", "if true", 1)),
            "endgeneration" if !raw => out.push_str(&code.replacen("endgeneration", "endif", 1)),
            _ if raw => out.push_str(code),
            _ => out.push_str(&formatted(code)),
        }
        raw = match word {
            "raw" => true,
            "endraw" => false,
            _ => raw,
        };
        out.push_str(close);
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Where `close` stands in `code`, outside its strings.
fn end_of(code: &str, close: &str) -> Option<usize> {
    let mut at = 0;
    while at < code.len() {
        let rest = &code[at..];
        if rest.starts_with(close) {
            return Some(at);
        }
        at += string_at(rest).unwrap_or_else(|| first_length(rest));
    }
    None
}

fn first_length(text: &str) -> usize {
    text.chars().next().map_or(1, char::len_utf8)
}

/// The length of the string literal that `code` begins with.
fn string_at(code: &str) -> Option<usize> {
    let quote = code.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut escaped = false;
    for (at, c) in code.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The code of a block with its `'…' % x` written as filters.
fn formatted(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while !rest.is_empty() {
        let Some(length) = string_at(rest) else {
            let length = first_length(rest);
            out.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        };
        let (literal, behind) = rest.split_at(length);
        let operand = behind.trim_start().strip_prefix('%').map(str::trim_start);
        match operand.map(|operand| (operand, operand_length(operand))) {
            Some((operand, length)) if length > 0 => {
                let (value, behind) = operand.split_at(length);
                // A tuple is several values; parentheses around one are nothing.
                let inner = value.strip_prefix('(').and_then(|v| v.strip_suffix(')'));
                let values = formatted(inner.unwrap_or(value));
                out.push_str(&format!("({literal}|format({values}))"));
                rest = behind;
            }
            _ => {
                out.push_str(literal);
                rest = behind;
            }
        }
    }
    out
}

/// The length of the operand that `code` begins with: a name, a literal or parentheses, with what is
/// called, indexed or looked up behind it.
fn operand_length(code: &str) -> usize {
    let word = |text: &str| {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'));
        end.unwrap_or(text.len())
    };
    let mut at = match code.chars().next() {
        Some('(' | '[') => bracket_length(code),
        Some('\'' | '"') => string_at(code).unwrap_or(0),
        _ => word(code),
    };
    if at == 0 || code.starts_with('(') {
        return at;
    }
    loop {
        let rest = &code[at..];
        at += match rest.chars().next() {
            Some('(' | '[') => bracket_length(rest),
            Some('.') => 1 + word(&rest[1..]),
            _ => return at,
        };
    }
}

/// The length of the brackets that `code` begins with, up to their end.
fn bracket_length(code: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < code.len() {
        let rest = &code[at..];
        match rest.as_bytes()[0] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        at += string_at(rest).unwrap_or_else(|| first_length(rest));
        if depth == 0 {
            return at;
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_blocks_are_transparent() {
        let source =
            "{% generation %}{{ a }}{%- endgeneration -%}{% raw %}{% generation %}{% endraw %}";
        let expected = "{% if true %}{{ a }}{%- endif -%}{% raw %}{% generation %}{% endraw %}";
        assert_eq!(prepare(source), expected);
        let talked_of = "{{ 'a {% generation %}' }}{# {% generation %} #}generation";
        assert_eq!(prepare(talked_of), talked_of);
    }

    #[test]
    fn percent_formats_strings_and_nothing_else() {
        for (source, expected) in [
            (
                "{{ '%s!' % m[0].content }}",
                "{{ ('%s!'|format(m[0].content)) }}",
            ),
            (
                "{{ '%s %d' % (a, f(b)) ~ c }}",
                "{{ ('%s %d'|format(a, f(b))) ~ c }}",
            ),
            ("{{ \"%s\" % 'x' }}", "{{ (\"%s\"|format('x')) }}"),
            (
                "{% set a = '%s' % b.c('d')|e %}",
                "{% set a = ('%s'|format(b.c('d')))|e %}",
            ),
            (
                "{{ a % 2 }}{% if 'a' %}x{% endif %}",
                "{{ a % 2 }}{% if 'a' %}x{% endif %}",
            ),
            ("a\r\nb { % } {", "a\nb { % } {"),
        ] {
            assert_eq!(prepare(source), expected);
        }
    }
}
