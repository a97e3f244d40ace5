//! Names of repositories and of the files in them: which file is the model that is asked for.
//!
//! Source: `common_download_split_repo_tag`, `find_best_model` and `get_split_files` in
//! `common/download.cpp` of the pinned llama.cpp, `is_valid_repo_id` in `common/hf-cache.cpp`.

use std::path::{Component, Path};

use aisp_llama::{Error, Result};
use regex::Regex;

/// What is taken where no quant is asked for, the first that there is.
const QUANTS: [&str; 2] = ["Q4_K_M", "Q8_0"];
/// In the names of files that go beside a model and are none.
const NO_MODELS: [&str; 6] = ["mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-"];

/// A repository and the quant that is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// OWNER/NAME.
    pub repo: String,
    /// A word of the file's name, in any case.
    pub quant: Option<String>,
}

impl Source {
    /// Reads `OWNER/NAME[:QUANT]`.
    ///
    /// # Errors
    /// [`Error::Field`] where it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let (repo, quant) = match text.split_once(':') {
            Some((repo, quant)) => (repo, Some(quant)),
            None => (text, None),
        };
        // Names become folders: nothing but letters, digits and _, with single /, . and - between.
        let words = |part: &str| {
            let mut words = part.split(['.', '-']);
            words.all(|word| {
                let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
                !word.is_empty() && word.chars().all(letters)
            })
        };
        let is_repo = repo.len() <= 256
            && repo
                .split_once('/')
                .is_some_and(|(owner, name)| words(owner) && words(name));
        let is_quant = quant.is_none_or(|quant| !quant.is_empty() && !quant.contains([':', '/']));
        if !is_repo || !is_quant {
            let reason = format!("{text:?} is not OWNER/NAME or OWNER/NAME:QUANT");
            return Err(Error::field("hf-repo", reason));
        }
        Ok(Self {
            repo: repo.to_owned(),
            quant: quant.map(str::to_owned),
        })
    }
}

/// Whether a repository's file stays in its folder.
pub fn is_inside(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    !name.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Whether a text is a hash of as many hexadecimal digits as one of these.
pub fn is_hash(text: &str, lengths: &[usize]) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The files of the model that is asked for, the one to load first; the reason where there is none.
pub fn choose<'a>(
    names: &'a [String],
    quant: Option<&str>,
    file: Option<&str>,
) -> std::result::Result<Vec<&'a str>, String> {
    let models = || names.iter().map(String::as_str).filter(|n| is_model(n));
    let of_quant = |quant: &str| models().find(|name| has_quant(name, quant));
    let found = match (file, quant) {
        (Some(file), _) => names.iter().map(String::as_str).find(|name| *name == file),
        (None, Some(quant)) => of_quant(quant),
        (None, None) => QUANTS
            .iter()
            .find_map(|quant| of_quant(quant))
            .or_else(|| models().next()),
    };
    let Some(found) = found else {
        let there = match file {
            Some(_) => list(names.iter().filter(|n| n.ends_with(".gguf")).cloned()),
            None => list(models().map(|name| tag(name).unwrap_or_else(|| name.to_owned()))),
        };
        return Err(match (file, quant) {
            (Some(file), _) => format!("there is no file {file}; there are {there}"),
            (None, Some(quant)) => format!("there is no quant {quant}; there are {there}"),
            (None, None) => "there is no GGUF model".to_owned(),
        });
    };
    let Some(part) = Part::of(found) else {
        return Ok(vec![found]);
    };
    let is_same = |other: &Part| (other.stem, other.count) == (part.stem, part.count);
    let mut parts: Vec<(u32, &str)> = names
        .iter()
        .filter_map(|name| {
            let other = Part::of(name).filter(is_same)?;
            Some((other.index, name.as_str()))
        })
        .collect();
    parts.sort_unstable();
    if parts.len() != part.count as usize {
        let (there, count) = (parts.len(), part.count);
        return Err(format!("of the {count} parts of {found} there are {there}"));
    }
    Ok(parts.into_iter().map(|(_, name)| name).collect())
}

/// Names between commas, each once.
pub fn list(names: impl Iterator<Item = String>) -> String {
    let mut each: Vec<String> = Vec::new();
    for name in names {
        if !each.contains(&name) {
            each.push(name);
        }
    }
    match each.is_empty() {
        true => "none".to_owned(),
        false => each.join(", "),
    }
}

/// Whether a file is a model, or the first part of one.
fn is_model(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let is_first = || Part::of(name).is_none_or(|part| part.index == 1);
    file.ends_with(".gguf") && !NO_MODELS.iter().any(|word| file.contains(word)) && is_first()
}

/// Whether the quant stands in a path with a dot or a dash behind it, in any case.
fn has_quant(name: &str, quant: &str) -> bool {
    let (name, quant) = (name.to_lowercase(), quant.to_lowercase());
    name.match_indices(&quant)
        .any(|(at, _)| name[at + quant.len()..].starts_with(['.', '-']))
}

/// The quant in the name of a model.
fn tag(name: &str) -> Option<String> {
    let stem = match Part::of(name) {
        Some(part) => part.stem,
        None => name.strip_suffix(".gguf")?,
    };
    let (_, word) = stem.rsplit_once(['-', '.'])?;
    Some(word.to_uppercase())
}

/// A part of a split model, as its name says.
struct Part<'a> {
    stem: &'a str,
    index: u32,
    count: u32,
}

impl<'a> Part<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let shape = Regex::new(r"(?i)^(.+)-([0-9]{5})-of-([0-9]{5})\.gguf$").expect("a pattern");
        let (_, [stem, index, count]) = shape.captures(name)?.extract();
        let (index, count) = (index.parse().ok()?, count.parse().ok()?);
        (count > 1).then_some(Self { stem, index, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], quant: Option<&str>, file: Option<&str>) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        match choose(&names, quant, file) {
            Ok(files) => files.join(" "),
            Err(reason) => reason,
        }
    }

    #[test]
    fn names_are_those_that_llama_cpp_takes() {
        let source = Source::parse("me/tiny-1.5B_x:q8_0").unwrap();
        assert_eq!(source.repo, "me/tiny-1.5B_x");
        assert_eq!(source.quant.as_deref(), Some("q8_0"));
        assert_eq!(Source::parse("me/tiny").unwrap().quant, None);
        let long = format!("me/{}", "x".repeat(254));
        for text in [
            "",
            "me",
            "me/",
            "/tiny",
            "a/b/c",
            "me/ti ny",
            "me/..",
            "../x",
            "me/a--b",
            "me/-a",
            "me/a.",
            "me/tiny:",
            "me/tiny:a:b",
            "me/tiny:a/b",
            "mé/tiny",
            &long,
        ] {
            let error = Source::parse(text).unwrap_err().to_string();
            assert!(error.contains("is not OWNER/NAME"), "{text}: {error}");
        }
    }

    #[test]
    fn a_quant_is_found_in_any_case_and_only_as_a_word() {
        let names = ["a-Q8_0.gguf", "a-Q4_K.gguf", "a-Q4_K_M.gguf", "BF16/a.gguf"];
        assert_eq!(chosen(&names, Some("q8_0"), None), "a-Q8_0.gguf");
        assert_eq!(chosen(&names, Some("Q4_K"), None), "a-Q4_K.gguf");
        assert_eq!(chosen(&names, None, None), "a-Q4_K_M.gguf");
        assert_eq!(chosen(&names[..2], None, None), "a-Q8_0.gguf");
        assert_eq!(chosen(&names[1..2], None, None), "a-Q4_K.gguf");
        assert_eq!(
            chosen(&names, Some("Q8"), None),
            "there is no quant Q8; there are Q8_0, Q4_K, Q4_K_M, BF16/a.gguf"
        );
        // A pattern in llama.cpp; here what stands there.
        assert!(chosen(&names, Some("Q."), None).starts_with("there is no quant Q."));
    }

    #[test]
    fn what_goes_beside_a_model_is_none() {
        let beside = [
            "mmproj-Q8_0.gguf",
            "a.imatrix-Q8_0.gguf",
            "mtp-a-Q8_0.gguf",
            "README-Q8_0.md",
        ];
        assert_eq!(chosen(&beside, None, None), "there is no GGUF model");
        assert_eq!(
            chosen(&beside, Some("Q8_0"), None),
            "there is no quant Q8_0; there are none"
        );
        assert_eq!(chosen(&beside, None, Some(beside[0])), beside[0]);
        assert_eq!(
            chosen(&["x.md", "a.gguf", "mmproj.gguf"], None, Some("b.gguf")),
            "there is no file b.gguf; there are a.gguf, mmproj.gguf"
        );
    }

    #[test]
    fn of_a_split_model_all_parts_are_taken() {
        let names = [
            "x/a-Q8_0-00002-of-00002.gguf",
            "x/a-Q8_0-00001-of-00002.gguf",
            "a-Q8_0-00001-of-00003.gguf",
        ];
        let both = format!("{} {}", names[1], names[0]);
        assert_eq!(chosen(&names, None, None), both);
        assert_eq!(chosen(&names, None, Some(names[0])), both);
        assert_eq!(
            chosen(&names[2..], Some("Q8_0"), None),
            "of the 3 parts of a-Q8_0-00001-of-00003.gguf there are 1"
        );
        assert_eq!(
            chosen(&names, Some("Q4_0"), None),
            "there is no quant Q4_0; there are Q8_0"
        );
    }

    #[test]
    fn nothing_leaves_its_folder() {
        for name in ["a.gguf", "x/y/a.gguf"] {
            assert!(is_inside(name), "{name}");
        }
        for name in ["", "../a", "x/../../a", "/a", "./a"] {
            assert!(!is_inside(name), "{name}");
        }
        assert!(is_hash(&"0f".repeat(20), &[40, 64]));
        assert!(!is_hash(&"0g".repeat(20), &[40, 64]));
        assert!(!is_hash("0f", &[40, 64]));
    }
}
