//! The table of methods.

use super::entry::Entry;

/// Every method. A new one is a file with an [`Entry`], and a line here.
pub const METHODS: &[&Entry] = &[
    &super::search::ENTRY,
    &super::aisp::ENTRY,
    &super::best_of_n::ENTRY,
    &super::greedy::ENTRY,
    &super::soft_best_of_n::ENTRY,
    &super::vote::ENTRY,
    &super::misvo::ENTRY,
    &super::re_control::ENTRY,
    &super::args::ENTRY,
];
