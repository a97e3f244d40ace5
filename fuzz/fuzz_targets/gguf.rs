//! A file's header, what of it llama.cpp would not survive, and the rows of its output matrix.
#![no_main]

mod file;

use aisp_llama::gguf::Gguf;
use aisp_llama::output::{OutputHead, OutputRows};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = file::of(bytes);
    let Ok(gguf) = Gguf::open(file.path()) else {
        return;
    };
    let _ = (gguf.architecture(), gguf.arch_key("context_length"));
    let _ = (gguf.quantisation(), gguf.parameters(), gguf.fault());
    let _ = OutputHead::read(&gguf);
    let Ok(rows) = OutputRows::open(file.path(), &gguf, |_| None) else {
        return;
    };
    let mut row = vec![0.0; rows.width()];
    for token in [0, 1, -1, i32::MAX] {
        let _ = rows.row(token, &mut row);
    }
    // All of them only where that is soon done.
    if rows.width() * rows.vocabulary() < 1 << 16 {
        let _ = rows.spread();
    }
});
