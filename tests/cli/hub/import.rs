//! A reward model's head by parts of files, from a server.

use std::fs;
use std::path::Path;

use aisp_llama::reward::LinearHead;
use serde_json::{Value, json};

use super::Place;
use super::server::Manners;
use crate::{assert_refused, stderr};

/// The published shape with an index of shards, the last of which is mostly another tensor.
fn serve_shards(place: &Place) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(root.join("tests/fixtures/rewards/skywork")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        fs::copy(&path, place.original(name)).unwrap();
    }
    let last = place.original("model-00002-of-00002.safetensors");
    let bytes = fs::read(&last).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    let (begin, end) = (bytes.len() - data, bytes.len() - data + (4 << 20));
    let other = json!({"dtype": "U8", "shape": [4 << 20], "data_offsets": [begin, end]});
    header["model.layers.0.weight"] = other;
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    let mut whole = [&length, header.as_bytes(), &bytes[data..]].concat();
    whole.resize(8 + header.len() + end, 7);
    fs::write(last, whole).unwrap();
}

#[test]
fn a_head_is_read_from_the_hub_by_parts() {
    let place = Place::new();
    serve_shards(&place);
    let server = place.serve(Manners::default());
    let head = place.cache.path().join("out.safetensors");
    let import = |source: &str| {
        let mut command = place.program(&server.url);
        command.args(["reward", "import", source, "-o"]).arg(&head);
        command.output().unwrap()
    };
    let output = import("hf:me/tiny");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("score.weight"),
        "{}",
        stderr(&output)
    );
    let found = LinearHead::read(&head, None).unwrap();
    assert_eq!(found.text.as_deref(), Some("chat"));
    assert_eq!(found.metadata["aisp.import.source"], "me/tiny");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rewards/skywork");
    let local = root.join("model-00002-of-00002.safetensors");
    let local = LinearHead::read(&local, None).unwrap();
    assert_eq!(found.weight, local.weight);
    let asked = server.asked().join("\n");
    assert!(!asked.contains("model-00001"), "{asked}");
    let bytes = stderr(&output);
    let bytes = bytes
        .lines()
        .find_map(|line| line.split_once(" bytes read"));
    let bytes: u64 = bytes.unwrap().0.parse().unwrap();
    assert!(bytes < 10_000, "{bytes}");
    // Nothing went into the cache.
    assert!(place.blobs().is_empty());
    assert_refused(&import("hf:me/other"), 3, &["me/other", "404"]);
    assert_refused(&import("hf:nonsense"), 2, &["OWNER/NAME"]);
}
