//! Files of reward heads: safetensors, and GGUF.
#![no_main]

mod file;

use aisp_llama::reward::LinearHead;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for file in [file::of(bytes), file::safetensors(bytes)] {
        if let Ok(head) = LinearHead::read(file.path(), None) {
            let _ = head.score(&vec![0.5; head.weight.len()]);
        }
    }
});
