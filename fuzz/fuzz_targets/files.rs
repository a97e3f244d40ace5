//! Files by their content: networks, heads, data sets, prompts, folders of rows. The first byte says
//! which.
#![no_main]

use std::fs;

use aisp_llama::compare::{Folder, read_prompts};
use aisp_llama::control::ValueNetwork;
use aisp_llama::reward::LinearHead;
use aisp_llama::reward::train::Dataset;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, rest)) = bytes.split_first() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, rest).unwrap();
    match kind % 5 {
        0 => drop(ValueNetwork::read(&path)),
        1 => drop(LinearHead::read(&path)),
        2 => drop(Dataset::read(&path)),
        3 => drop(read_prompts(&path)),
        _ => {
            let settings = "{\"a\": [1, 2]}".parse().unwrap();
            fs::write(folder.path().join("settings.json"), "{\"a\": [1, 2]}").unwrap();
            if let Ok((folder, lines)) = Folder::open(folder.path(), "file", &settings) {
                for line in lines {
                    drop(folder.read::<aisp_llama::compare::Row>(line));
                }
            }
        }
    }
});
