//! Fenced code in what a model wrote, as CommonMark reads it.

use pulldown_cmark::{Event, Options, Parser, Tag};

/// A fenced piece of a text.
#[derive(Debug)]
pub(super) struct Fence<'a> {
    /// The first word behind the opening fence, which names a language.
    pub tag: &'a str,
    /// What else stands on the line of the opening fence; all of it for a fence on one line.
    pub line: &'a str,
    /// What the fence holds, without the indentation of its list item or its quote.
    pub body: String,
    /// Whether the fence begins and ends on one line.
    pub inline: bool,
}

/// The fences of `text` in their order.
pub(super) fn fences(text: &str) -> Vec<Fence<'_>> {
    // A tag such as <answer> on a line of its own would hide what follows as raw HTML. All
    // places are the same in the copy.
    let copy = text.replace('<', "x");
    let mut found: Vec<Fence> = Vec::new();
    let mut inside = false;
    for (event, range) in Parser::new_ext(&copy, Options::empty()).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(pulldown_cmark::CodeBlockKind::Fenced(_))) => {
                inside = true;
                found.push(opening(&text[range]));
            }
            Event::End(pulldown_cmark::TagEnd::CodeBlock) => inside = false,
            Event::Text(_) if inside => {
                if let Some(fence) = found.last_mut().filter(|f| !f.inline) {
                    fence.body += &text[range];
                }
            }
            Event::Code(_) if text[range.clone()].starts_with("```") => {
                let (tag, line) = tagged(text[range].trim_matches('`').trim());
                let body = line.to_owned();
                let inline = true;
                found.push(Fence {
                    tag,
                    line,
                    body,
                    inline,
                });
            }
            _ => {}
        }
    }
    found
}

/// A fence whose body is still to come, by its opening line.
fn opening(block: &str) -> Fence<'_> {
    let first = block.lines().next().unwrap_or_default();
    let info = first.trim_start_matches(['`', '~']).trim();
    let inline = info.ends_with("~~~");
    let (tag, line) = tagged(info.trim_end_matches('~').trim_end());
    let body = if inline { line } else { "" }.to_owned();
    Fence {
        tag,
        line,
        body,
        inline,
    }
}

/// A language's name and what stands behind it.
fn tagged(info: &str) -> (&str, &str) {
    let end = info
        .find(|c: char| c.is_whitespace() || "{[\"".contains(c))
        .unwrap_or(info.len());
    (&info[..end], info[end..].trim_start())
}
