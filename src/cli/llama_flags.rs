//! llama.cpp's flags with one dash, and what they are called with two.
//!
//! Source: `common/arg.cpp` of the pinned llama.cpp, which the test below reads.

/// One dash, two dashes; the same twice where there is no other name.
pub const SHORT: &[(&str, &str)] = &[
    ("-C", "--cpu-mask"),
    ("-Cb", "--cpu-mask-batch"),
    ("-Cbd", "--spec-draft-cpu-mask-batch"),
    ("-Cd", "--spec-draft-cpu-mask"),
    ("-Cr", "--cpu-range"),
    ("-Crb", "--cpu-range-batch"),
    ("-Crbd", "--spec-draft-cpu-range-batch"),
    ("-Crd", "--spec-draft-cpu-range"),
    ("-a", "--alias"),
    ("-ag", "--agent"),
    ("-b", "--batch-size"),
    ("-bf", "--binary-file"),
    ("-bs", "--backend-sampling"),
    ("-c", "--ctx-size"),
    ("-cb", "--cont-batching"),
    ("-cl", "--cache-list"),
    ("-cmoe", "--cpu-moe"),
    ("-cmoed", "--spec-draft-cpu-moe"),
    ("-cms", "--checkpoint-min-step"),
    ("-cnv", "--conversation"),
    ("-co", "--color"),
    ("-cram", "--cache-ram"),
    ("-ctk", "--cache-type-k"),
    ("-ctkd", "--spec-draft-type-k"),
    ("-ctv", "--cache-type-v"),
    ("-ctvd", "--spec-draft-type-v"),
    ("-ctxcp", "--ctx-checkpoints"),
    ("-decay-epochs", "--learning-rate-decay-epochs"),
    ("-dev", "--device"),
    ("-devd", "--spec-draft-device"),
    ("-dr", "--docker-repo"),
    ("-dt", "--defrag-thold"),
    ("-e", "--escape"),
    ("-epochs", "--epochs"),
    ("-f", "--file"),
    ("-fa", "--flash-attn"),
    ("-fit", "--fit"),
    ("-fitc", "--fit-ctx"),
    ("-fitp", "--fit-print"),
    ("-fitt", "--fit-target"),
    ("-gan", "--grp-attn-n"),
    ("-gaw", "--grp-attn-w"),
    ("-h", "--help"),
    ("-hf", "--hf-repo"),
    ("-hfd", "--spec-draft-hf"),
    ("-hff", "--hf-file"),
    ("-hfr", "--hf-repo"),
    ("-hfrd", "--spec-draft-hf"),
    ("-hft", "--hf-token"),
    ("-i", "--interactive"),
    ("-if", "--interactive-first"),
    ("-j", "--json-schema"),
    ("-jf", "--json-schema-file"),
    ("-kvo", "--kv-offload"),
    ("-kvu", "--kv-unified"),
    ("-l", "--logit-bias"),
    ("-lcd", "--lookup-cache-dynamic"),
    ("-lcs", "--lookup-cache-static"),
    ("-lm", "--load-mode"),
    ("-lr", "--learning-rate"),
    ("-lr-min", "--learning-rate-min"),
    ("-lv", "--verbosity"),
    ("-lzm", "--lazy-mode"),
    ("-m", "--model"),
    ("-md", "--spec-draft-model"),
    ("-mg", "--main-gpu"),
    ("-mli", "--multiline-input"),
    ("-mm", "--mmproj"),
    ("-mmdev", "--mmproj-device"),
    ("-mmu", "--mmproj-url"),
    ("-mu", "--model-url"),
    ("-n", "--predict"),
    ("-ncffn", "--n-cpu-ffn"),
    ("-ncmoe", "--n-cpu-moe"),
    ("-ncmoed", "--spec-draft-n-cpu-moe"),
    ("-ngl", "--gpu-layers"),
    ("-ngld", "--spec-draft-ngl"),
    ("-nkvo", "--no-kv-offload"),
    ("-no-ag", "--no-agent"),
    ("-no-cnv", "--no-conversation"),
    ("-no-kvu", "--no-kv-unified"),
    ("-nocb", "--no-cont-batching"),
    ("-np", "--parallel"),
    ("-npl", "-npl"),
    ("-npp", "-npp"),
    ("-nr", "--no-repack"),
    ("-ns", "--sequences"),
    ("-ntg", "-ntg"),
    ("-o", "--output"),
    ("-ofreq", "--output-frequency"),
    ("-opt", "--optimizer"),
    ("-ot", "--override-tensor"),
    ("-otd", "--spec-draft-override-tensor"),
    ("-p", "--prompt"),
    ("-pps", "-pps"),
    ("-ptc", "--print-token-count"),
    ("-r", "--reverse-prompt"),
    ("-rea", "--reasoning"),
    ("-s", "--seed"),
    ("-sm", "--split-mode"),
    ("-sp", "--special"),
    ("-sps", "--slot-prompt-similarity"),
    ("-st", "--single-turn"),
    ("-sys", "--system-prompt"),
    ("-sysf", "--system-prompt-file"),
    ("-t", "--threads"),
    ("-tb", "--threads-batch"),
    ("-tbd", "--spec-draft-threads-batch"),
    ("-td", "--spec-draft-threads"),
    ("-tgs", "-tgs"),
    ("-to", "--timeout"),
    ("-ts", "--tensor-split"),
    ("-ub", "--ubatch-size"),
    ("-v", "--verbose"),
    ("-val-split", "--val-split"),
    ("-wd", "--weight-decay"),
];

/// Flags of llama.cpp that are not taken here, and why.
const REFUSED: &[(&str, &str)] = &[
    ("--batch-size", FIXED_SIZES),
    ("--ubatch-size", FIXED_SIZES),
    ("--model-url", OTHER_SOURCES),
    ("--docker-repo", OTHER_SOURCES),
];
const FIXED_SIZES: &str = "steps and prompts are decoded in pieces of fixed sizes, so that the same \
                           seed gives the same text; leave it out";
const OTHER_SOURCES: &str = "a model is a GGUF file, -m, or one of the Hugging Face Hub, -hf";

/// What llama.cpp's flag with one dash is called with two; the flag itself where it has no other
/// name.
pub fn long(flag: &str) -> Option<&'static str> {
    let found = SHORT.iter().find(|(short, _)| *short == flag);
    found.map(|(_, long)| *long)
}

/// Why a flag of llama.cpp, with two dashes, is not taken here.
pub fn refusal(long: &str) -> Option<&'static str> {
    let found = REFUSED.iter().find(|(flag, _)| *flag == long);
    found.map(|(_, reason)| *reason)
}

#[cfg(test)]
pub mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use regex::Regex;
    use serde_json::Value;

    use super::*;

    /// The text of `common/arg.cpp` of the llama.cpp that the program is built with.
    pub fn source() -> String {
        source_of("common/arg.cpp")
    }

    /// The text of a file of it.
    fn source_of(file: &str) -> String {
        let path = place().join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| {
            panic!(
                "{}: {error}; the sources of the pinned llama.cpp are needed to check the table",
                path.display()
            )
        });
        let comments = Regex::new(r"(?m)^\s*//.*$").unwrap();
        comments.replace_all(&text, "").into_owned()
    }

    /// The folder of it.
    fn place() -> PathBuf {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--offline", "--format-version", "1"])
            .args(["--filter-platform", env!("AISP_LLAMA_TARGET")])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        let metadata: Value =
            serde_json::from_slice(&output.stdout).expect("cargo knows its crates");
        let packages = metadata["packages"].as_array().expect("a list of crates");
        let binding = packages.iter().find(|p| p["name"] == "llama-cpp-sys-2");
        let manifest = binding.and_then(|p| p["manifest_path"].as_str());
        let folder = Path::new(manifest.expect("the binding is one of them")).parent();
        folder.expect("it has a folder").join("llama.cpp")
    }

    /// The flags with one dash there, each with the names beside it.
    fn flags_of_llama_cpp() -> BTreeMap<String, BTreeSet<String>> {
        let text = source();
        let names = Regex::new(r#"\{\s*((?:"-[^"]*"\s*,?\s*)+)\}"#).unwrap();
        let mut flags: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for list in names.captures_iter(&text) {
            let all: Vec<&str> = list[1].split('"').filter(|n| n.starts_with('-')).collect();
            for short in all.iter().filter(|name| !name.starts_with("--")) {
                let beside = flags.entry((*short).to_owned()).or_default();
                beside.extend(all.iter().map(|name| (*name).to_owned()));
            }
        }
        flags
    }

    #[test]
    fn the_table_is_that_of_the_pinned_llama_cpp() {
        let theirs = flags_of_llama_cpp();
        assert!(theirs.len() > 50, "{theirs:?}");
        let ours: BTreeSet<&str> = SHORT.iter().map(|(short, _)| *short).collect();
        assert_eq!(ours.len(), SHORT.len(), "a flag stands there twice");
        assert_eq!(ours, theirs.keys().map(String::as_str).collect());
        for (short, long) in SHORT {
            let beside = &theirs[*short];
            assert!(beside.contains(*long), "{short} {long}: {beside:?}");
            let alone = !beside.iter().any(|name| name.starts_with("--"));
            assert_eq!(short == long, alone, "{short}");
        }
    }

    #[test]
    fn the_architectures_are_those_of_the_pinned_llama_cpp() {
        let text = source_of("src/llama-arch.cpp");
        let table = text.split("LLM_ARCH_NAMES = {").nth(1).unwrap();
        let table = table.split("};").next().unwrap();
        let theirs = table.split('"').skip(1).step_by(2);
        let theirs = theirs.filter(|name| !matches!(*name, "clip" | "(unknown)"));
        assert_eq!(theirs.collect::<Vec<_>>(), aisp_llama::llama::ARCHITECTURES);
    }

    #[test]
    fn what_is_refused_is_in_the_table() {
        for (flag, reason) in REFUSED {
            assert!(SHORT.iter().any(|(_, long)| long == flag), "{flag}");
            assert!(!reason.contains('\n'));
        }
    }
}
