//! What is written about a run: the trace and the plot. Both read
//! [`Event`](crate::Event)s and results, and know nothing of how they came about.

pub mod chart;
mod plot;
mod trace;

pub use plot::write_plot;
pub use trace::Trace;
