//! Chat templates that llama.cpp knows by a name.
//!
//! Source: `llama_chat_apply_template` and `llama_chat_builtin_templates` of `llama.h`.

use std::ffi::CString;
use std::ptr;

use llama_cpp_sys_2 as sys;

use super::Message;

/// All names.
pub(super) fn names() -> Vec<String> {
    // SAFETY: without room for any it answers how many there are.
    let count = unsafe { sys::llama_chat_builtin_templates(ptr::null_mut(), 0) };
    let mut names = vec![ptr::null(); usize::try_from(count).unwrap_or(0)];
    // SAFETY: room for as many as it says.
    unsafe { sys::llama_chat_builtin_templates(names.as_mut_ptr(), names.len()) };
    names.into_iter().map(crate::llama::c_string).collect()
}

/// The conversation in the template of this name; `None` for a name that is not known, or a text with
/// a NUL in it.
pub(super) fn render(name: &str, messages: &[Message], open_turn: bool) -> Option<String> {
    let name = CString::new(name).ok()?;
    let texts: Option<Vec<[CString; 2]>> = messages
        .iter()
        .map(|m| {
            Some([
                CString::new(m.role.as_str()).ok()?,
                CString::new(m.content.as_str()).ok()?,
            ])
        })
        .collect();
    let texts = texts?;
    let turns: Vec<sys::llama_chat_message> = texts
        .iter()
        .map(|[role, content]| sys::llama_chat_message {
            role: role.as_ptr(),
            content: content.as_ptr(),
        })
        .collect();
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let room = i32::try_from(bytes.len()).ok()?;
        // SAFETY: the texts live in `texts`; at most `room` bytes are written.
        let length = unsafe {
            sys::llama_chat_apply_template(
                name.as_ptr(),
                turns.as_ptr(),
                turns.len(),
                open_turn,
                bytes.as_mut_ptr().cast(),
                room,
            )
        };
        let length = usize::try_from(length).ok()?;
        if length <= bytes.len() {
            bytes.truncate(length);
            return String::from_utf8(bytes).ok();
        }
        bytes.resize(length, 0);
    }
}
