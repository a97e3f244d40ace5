//! What aligned generation costs beside plain decoding, as a page: `docs/performance.md`.
//!
//!     cargo bench --bench performance [-- NAME…]
//!
//! Every figure is a ratio of two things that were run in turn, a few times each, in one process; the
//! page has the median of the ratios and their range. Needs the models of the tests and of the
//! figures, an idle machine, and an hour. With names only those rows are run, `growth` being the model
//! of the cost, and nothing is written. `BATCHED_BENCH` may name llama.cpp's own program,
//! linked to what the binding builds (its package has all but that program's own source), and `TORCH_PYTHON` a Python with torch, transformers and gguf.

#[path = "../../tests/common/mod.rs"]
mod common;
mod growth;
mod others;
mod rows;

use std::fmt::Write as _;

use rows::{Measured, ROWS};

fn main() {
    // What cargo itself hands on is no name.
    let names = std::env::args().skip(1).filter(|a| !a.starts_with('-'));
    let names: Vec<String> = names.collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let before = load();
    let mut measured = Vec::new();
    for row in ROWS.iter().filter(|row| wanted(row.name)) {
        let found = (row.run)();
        eprintln!("{:14} {}", row.name, shown(&found));
        measured.push((row, found));
    }
    let mut page = String::from(include_str!("head.md"));
    let _ = writeln!(
        page,
        "\n{}, {} threads, llama.cpp {}. Load of the machine before: {before}.\n",
        cpu(),
        aisp_llama::default_threads(),
        aisp_llama::llama::llama_version()
    );
    page.push_str("| what | first | second | ratio | range |\n|---|---|---|---|---|\n");
    for (row, found) in &measured {
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            row.what,
            row.first,
            row.second,
            shown(found)
        );
    }
    if wanted("growth") {
        let (text, plot) = growth::page();
        page.push_str(&text);
        page.push_str("\n![How the cost grows](performance.svg)\n");
        if names.is_empty() {
            std::fs::write("docs/performance.svg", plot).expect("docs/ is there");
        }
    }
    print!("{page}");
    if names.is_empty() {
        std::fs::write("docs/performance.md", page).expect("docs/ is there");
    }
}

/// Median and range of the ratios.
fn shown(found: &Measured) -> String {
    let mut ratios = found.ratios.clone();
    if ratios.is_empty() {
        return format!("– | {}", found.note);
    }
    ratios.sort_by(f64::total_cmp);
    let last = ratios.len() - 1;
    format!(
        "{:.2} | {:.2} to {:.2} ({} runs){}",
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[last],
        ratios.len(),
        found.note
    )
}

/// The processor by its name, where the system tells it.
fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    name.map_or("a processor without a name".into(), |(_, name)| name.into())
}

/// Processes that wait for a processor, averaged over a minute.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("unknown").into()
}
