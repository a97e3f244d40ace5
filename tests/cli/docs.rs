//! The pages in `docs/`: the repository shows them, and mdbook makes a site of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Parser, Tag};

/// All pages below `folder`.
fn pages(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|e| e == "md") {
            found.insert(path);
        }
    }
    found
}

/// What a page's links and pictures name beside it.
fn links(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let of = |event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url),
        _ => None,
    };
    Parser::new(&text)
        .filter_map(of)
        .map(|link| link.split('#').next().unwrap_or_default().to_owned())
        .filter(|link| !link.is_empty() && !link.contains("://"))
        .collect()
}

#[test]
fn pages_link_to_pages_of_the_site_alone_and_all_of_them_are_in_its_contents() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let docs = docs.canonicalize().unwrap();
    let contents = docs.join("SUMMARY.md");
    let all = pages(&docs);
    let mut named = BTreeSet::from([contents.clone()]);
    for page in &all {
        for link in links(page) {
            let place = page.parent().unwrap().join(&link).canonicalize();
            let inside = place.as_ref().is_ok_and(|p| p.starts_with(&docs));
            assert!(inside, "{}: {link}: {place:?}", page.display());
            if *page == contents {
                named.extend(place);
            }
        }
    }
    assert_eq!(all, named);
}
