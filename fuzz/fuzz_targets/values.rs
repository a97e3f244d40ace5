//! Files of value networks.
#![no_main]

mod file;

use aisp_llama::control::ValueNetwork;
use aisp_llama::ndarray::Array2;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for file in [file::of(bytes), file::safetensors(bytes)] {
        if let Ok(network) = ValueNetwork::read(file.path()) {
            let pre_logits = Array2::from_elem((2, network.width()), 0.5);
            let _ = network.values(pre_logits.view());
            let _ = network.gradients(pre_logits.view());
        }
    }
});
