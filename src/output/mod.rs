//! The output matrix W, which turns pre-logits into logits, as the model's file has it: its rows
//! ([`OutputRows`]), and what the model does to W z before it is a logit ([`OutputHead`]).

mod rows;
mod scale;

pub use rows::{Decoder, OutputRows};
pub use scale::OutputHead;
