//! What the glue takes for granted of the host's sampler types, checked when this is compiled
//! against the `llama.h` that `build.rs` read.

#[allow(
    clippy::all,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals
)]
mod host {
    include!(concat!(env!("OUT_DIR"), "/llama_sampler.rs"));
}

use std::mem::offset_of;

use super::aisp_token;
use host::{llama_sampler, llama_sampler_i, llama_token_data, llama_token_data_array};

const POINTER: usize = size_of::<usize>();

const _: () = {
    assert!(size_of::<llama_token_data>() == size_of::<aisp_token>());
    assert!(offset_of!(llama_token_data, id) == offset_of!(aisp_token, id));
    assert!(offset_of!(llama_token_data, logit) == offset_of!(aisp_token, logit));
    assert!(offset_of!(llama_token_data, p) == offset_of!(aisp_token, p));
    assert!(offset_of!(llama_token_data_array, data) == 0);

    // The six entries that every version has, in their order.
    assert!(offset_of!(llama_sampler_i, name) == 0);
    assert!(offset_of!(llama_sampler_i, accept) == POINTER);
    assert!(offset_of!(llama_sampler_i, apply) == 2 * POINTER);
    assert!(offset_of!(llama_sampler_i, reset) == 3 * POINTER);
    assert!(offset_of!(llama_sampler_i, clone) == 4 * POINTER);
    assert!(offset_of!(llama_sampler_i, free) == 5 * POINTER);

    assert!(offset_of!(llama_sampler, iface) == 0);
    assert!(offset_of!(llama_sampler, ctx) == POINTER);
};
