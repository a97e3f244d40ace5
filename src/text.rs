//! Text that comes from outside: read as it was meant, within limits, and shown on a terminal as
//! text alone.

use std::borrow::Cow;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, BufRead, Read};
use std::path::Path;

/// Most bytes of a text that is read as a whole.
pub const MAX_TEXT_BYTES: u64 = 256 << 20;

/// The byte order mark, which some editors put in front of a text.
pub const MARK: &str = "\u{feff}";

/// Most bytes of one of the [`lines`].
pub const MAX_LINE_BYTES: u64 = 64 << 20;

/// The text in the file at `path`, without a byte order mark.
///
/// # Errors
/// What the system says; [`InvalidInput`](io::ErrorKind::InvalidInput) for a pipe or a device, which
/// could be waited for or read for ever, and for more than [`MAX_TEXT_BYTES`];
/// [`InvalidData`](io::ErrorKind::InvalidData), naming the line, for what is not UTF-8.
pub fn read(path: &Path) -> io::Result<String> {
    read_from(regular(path)?)
}

/// As [`read`], of what `reader` gives to its end.
///
/// # Errors
/// As [`read`].
pub fn read_from(reader: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    reader.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(too_long("it", MAX_TEXT_BYTES));
    }
    utf8(bytes, 1).map(without_mark)
}

/// The file at `path`, which is one: to open a pipe would wait for a writer.
///
/// # Errors
/// As [`read`].
pub fn regular(path: &Path) -> io::Result<File> {
    let found = fs::metadata(path)?;
    match found.is_file() || found.is_dir() {
        true => File::open(path),
        false => {
            let reason =
                "a pipe or a device, not a regular file; save it to disk and name that file";
            Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
        }
    }
}

/// The lines that `reader` gives, one at a time, without their ends and a byte order mark.
///
/// # Errors
/// As [`read`], with [`MAX_LINE_BYTES`] for each of them.
pub fn lines(mut reader: impl BufRead) -> impl Iterator<Item = io::Result<String>> {
    let mut number = 0;
    std::iter::from_fn(move || {
        number += 1;
        let mut bytes = Vec::new();
        let limited = &mut reader.by_ref().take(MAX_LINE_BYTES + 1);
        match limited.read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(_) if bytes.len() as u64 > MAX_LINE_BYTES => {
                return Some(Err(too_long(&format!("line {number}"), MAX_LINE_BYTES)));
            }
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        for end in [b'\n', b'\r'] {
            bytes.pop_if(|last| *last == end);
        }
        let line = utf8(bytes, number);
        Some(if number == 1 {
            line.map(without_mark)
        } else {
            line
        })
    })
}

/// The error that `what` is longer than `most` bytes.
#[must_use]
pub fn too_long(what: &str, most: u64) -> io::Error {
    let reason = format!("{what} has more than {} MiB; give less", most >> 20);
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// The bytes as a text that begins with this line.
///
/// # Errors
/// [`InvalidData`](io::ErrorKind::InvalidData), naming the line.
pub fn utf8(bytes: Vec<u8>, first: usize) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = first + good.iter().filter(|byte| **byte == b'\n').count();
        let reason = format!("line {line} is not UTF-8; convert it");
        io::Error::new(io::ErrorKind::InvalidData, reason)
    })
}

fn without_mark(mut text: String) -> String {
    if text.starts_with(MARK) {
        text.drain(..MARK.len());
    }
    text
}

/// `text` for a terminal: what would move it, hide it or turn it round is escaped (`\u{1b}`), line
/// breaks and tabs are not.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match acts(character) {
            true => write!(shown, "{}", character.escape_unicode()).unwrap_or_default(),
            false => shown.push(character),
        }
    }
    shown.into()
}

/// Whether a terminal acts on it: control characters, and marks of the direction of writing.
#[must_use]
pub fn acts(character: char) -> bool {
    let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (character.is_control() && !matches!(character, '\n' | '\t'))
}

/// `text` in one line for a terminal, cut where it is longer than `most` characters.
#[must_use]
pub fn brief(text: &str, most: usize) -> String {
    let (text, more) = match text.char_indices().nth(most) {
        Some((cut, _)) => (&text[..cut], "…"),
        None => (text, ""),
    };
    format!("{}{more}", printable(&text.replace(['\n', '\t'], " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<String> {
        lines(bytes).map(|line| line.unwrap()).collect()
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        assert_eq!(read_from(&b"\xef\xbb\xbfa"[..]).unwrap(), "a");
        assert_eq!(all(b"\xef\xbb\xbfa\n\xef\xbb\xbfb"), ["a", "\u{feff}b"]);
    }

    #[test]
    fn lines_end_as_on_any_system() {
        assert_eq!(all(b"a\r\nb\n\nc"), ["a", "b", "", "c"]);
        assert_eq!(all(b"\r\n"), [""]);
        assert!(all(b"").is_empty());
    }

    #[test]
    fn broken_utf8_names_its_line() {
        let reason = read_from(&b"a\nb\n\xe9"[..]).unwrap_err().to_string();
        assert!(reason.starts_with("line 3 is not UTF-8"), "{reason}");
        let last = lines(&b"a\n\xe9\n"[..]).last().unwrap().unwrap_err();
        assert!(last.to_string().starts_with("line 2 "), "{last}");
    }

    #[test]
    fn an_endless_line_is_an_error() {
        let mut endless = lines(io::BufReader::new(io::repeat(0)));
        let reason = endless.next().unwrap().unwrap_err().to_string();
        assert!(
            reason.starts_with("line 1 has more than 64 MiB"),
            "{reason}"
        );
        let reason = read_from(io::repeat(0)).unwrap_err().to_string();
        assert!(reason.contains("more than 256 MiB"), "{reason}");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_no_file() {
        let reason = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(reason.contains("not a regular file"), "{reason}");
    }

    #[test]
    fn what_a_terminal_acts_on_is_escaped() {
        let text = "a\u{1b}]0;x\u{7}\u{9b}\u{202e}\nb\té";
        assert_eq!(printable(text), "a\\u{1b}]0;x\\u{7}\\u{9b}\\u{202e}\nb\té");
        assert_eq!(brief("a\nb\u{1b}c", 3), "a b…");
    }
}
