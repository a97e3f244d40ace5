//! Chat templates, which a model's file brings along.
#![no_main]

use aisp_llama::llama::{ChatOptions, ChatTemplate, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    let messages = [
        Message::new("system", "Be short."),
        Message::new("user", " <b>Hé</b>\n"),
        Message::new("assistant", "<think>\nwhy\n</think>\n\nHi."),
        Message::new("user", "{{ 1 }} %s"),
    ];
    let template = ChatTemplate::of(source, "<s>", "</s>", &ChatOptions::default());
    let _ = template.render(&messages, false);
    let _ = template.open(&messages);
});
