//! A llama.cpp batch that owns its arrays and never grows past them.

use llama_cpp_sys_2 as sys;

use super::model::Token;

/// Arrays of one `llama_batch`, each row in one sequence.
pub(super) struct Batch {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    sequences: Vec<sys::llama_seq_id>,
    sequence_counts: Vec<i32>,
    sequence_pointers: Vec<*mut sys::llama_seq_id>,
    outputs: Vec<i8>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            tokens: Vec::new(),
            positions: Vec::new(),
            sequences: Vec::new(),
            sequence_counts: Vec::new(),
            sequence_pointers: Vec::new(),
            outputs: Vec::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
    }

    pub(super) fn push(&mut self, token: Token, position: usize, sequence: usize, output: bool) {
        self.tokens.push(token);
        self.positions
            .push(i32::try_from(position).unwrap_or(i32::MAX));
        self.sequences
            .push(i32::try_from(sequence).unwrap_or(i32::MAX));
        self.outputs.push(i8::from(output));
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The batch as llama.cpp takes it; valid until this object changes.
    pub(super) fn raw(&mut self) -> sys::llama_batch {
        self.sequence_counts.clear();
        self.sequence_counts.resize(self.tokens.len(), 1);
        self.sequence_pointers.clear();
        self.sequence_pointers
            .extend(self.sequences.iter_mut().map(std::ptr::from_mut));
        sys::llama_batch {
            n_tokens: i32::try_from(self.tokens.len()).unwrap_or(i32::MAX),
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.sequence_counts.as_mut_ptr(),
            seq_id: self.sequence_pointers.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        }
    }

    /// The same with vectors `[tokens, d]` in the place of the tokens.
    pub(super) fn raw_of(&mut self, vectors: &mut [f32]) -> sys::llama_batch {
        sys::llama_batch {
            token: std::ptr::null_mut(),
            embd: vectors.as_mut_ptr(),
            ..self.raw()
        }
    }
}
