//! The pre-logit hook: reads z from the graph's `result_norm` node and adds v to it.
//!
//! llama.cpp offers every node of its graph to `cb_eval` before it is computed ("ask") and
//! hands the wanted ones back once they are. Writing z + v into the node makes the rest of
//! the graph compute W(z + v) + b with scale, soft-capping, adapters and every back end
//! included: exact, and within the noise of an unhooked step.
//!
//! Source: `ggml-backend.cpp`, `ggml_backend_sched_compute_splits`.

use std::ffi::{CStr, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};

use super::output::HeadCapture;

/// Name of the graph node that holds the pre-logits.
pub(super) const PRE_LOGITS_NODE: &CStr = c"result_norm";

/// A perturbation that depends on the pre-logits themselves.
pub trait Edit: Send + Sync {
    /// Adds to the perturbations `v` `[rows, d]` what follows from the pre-logits `z`
    /// `[rows, d]`, row by row.
    fn edit(&self, z: ArrayView2<'_, f32>, v: ArrayViewMut2<'_, f32>);
}

/// An edit with the rows of the step that it concerns.
pub type RowsEdit = (Vec<usize>, Arc<dyn Edit>);

/// Applies edits to the rows from `first` on, of which `z` and `v` `[rows, d]` hold the values.
fn apply_edits(edits: &[RowsEdit], first: usize, width: usize, z: &[f32], v: &mut [f32]) {
    let rows = z.len() / width.max(1);
    let shape = (rows, width);
    let (Ok(z), Ok(mut v)) = (
        ArrayView2::from_shape(shape, z),
        ArrayViewMut2::from_shape(shape, v),
    ) else {
        return;
    };
    for (wanted, edit) in edits {
        let own = wanted.iter().filter_map(|r| r.checked_sub(first));
        let own: Vec<usize> = own.filter(|&r| r < rows).collect();
        let mut changed: Array2<f32> = v.select(Axis(0), &own);
        edit.edit(z.select(Axis(0), &own).view(), changed.view_mut());
        for (from, &to) in own.iter().enumerate() {
            v.row_mut(to).assign(&changed.row(from));
        }
    }
}

/// What the hook does with the pre-logits of the running step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Leaves the node alone; the graph runs as without a hook.
    Ignore,
    /// Copies z out.
    Take,
    /// Copies z out and puts z + v in its place.
    Add,
}

/// State shared with the callback; lives in a `Box` so that its address is stable.
pub(super) struct Hook {
    pub(super) action: Action,
    /// Width d of a row.
    pub(super) width: usize,
    /// v, [rows, d], in the order of the batch.
    pub(super) perturbation: Vec<f32>,
    /// Edits that follow from z.
    pub(super) edits: Vec<RowsEdit>,
    /// z, [rows, d], in the order of the batch.
    pub(super) pre_logits: Vec<f32>,
    /// Operations between the pre-logits and the logits.
    pub(super) head: HeadCapture,
    sum: Vec<f32>,
    failure: Option<String>,
}

impl Hook {
    pub(super) fn new(width: usize, head: HeadCapture) -> Box<Self> {
        Box::new(Self {
            action: Action::Ignore,
            width,
            perturbation: Vec::new(),
            edits: Vec::new(),
            pre_logits: Vec::new(),
            head,
            sum: Vec::new(),
            failure: None,
        })
    }

    /// Prepares for a step.
    pub(super) fn arm(&mut self, action: Action) {
        self.action = action;
        self.pre_logits.clear();
        self.failure = None;
    }

    /// Applies the edits after the step, where nothing was added during it.
    pub(super) fn edit_now(&mut self) {
        let edits = std::mem::take(&mut self.edits);
        self.perturbation.resize(self.pre_logits.len(), 0.0);
        apply_edits(
            &edits,
            0,
            self.width,
            &self.pre_logits,
            &mut self.perturbation,
        );
    }

    /// Checks that the step showed exactly `rows` rows.
    pub(super) fn disarm(&mut self, rows: usize) -> Result<(), String> {
        let action = std::mem::replace(&mut self.action, Action::Ignore);
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let seen = self.pre_logits.len() / self.width.max(1);
        if action != Action::Ignore && seen != rows {
            return Err(format!(
                "the pre-logits showed {seen} rows in a step of {rows}; not supported"
            ));
        }
        Ok(())
    }

    /// # Safety
    /// `tensor` is a live node of the running graph, computed unless `ask`.
    unsafe fn on_node(&mut self, tensor: *mut sys::ggml_tensor, ask: bool) -> bool {
        // SAFETY: a live node; its name is a NUL-terminated array inside it.
        let is_pre_logits = unsafe { CStr::from_ptr((*tensor).name.as_ptr()) } == PRE_LOGITS_NODE;
        if ask {
            if self.action == Action::Ignore {
                return false;
            }
            // SAFETY: as above.
            unsafe { self.head.observe(tensor, is_pre_logits) };
            return is_pre_logits;
        }
        if !is_pre_logits {
            return true;
        }
        // SAFETY: a live node.
        let (kind, width, rows) = unsafe { ((*tensor).type_, (*tensor).ne[0], (*tensor).ne[1]) };
        if kind != sys::GGML_TYPE_F32 || usize::try_from(width) != Ok(self.width) || rows < 0 {
            self.failure = Some(format!(
                "the pre-logit node has width {width}, not {}, or is not F32",
                self.width
            ));
            return true;
        }
        let start = self.pre_logits.len();
        let count = self.width * rows as usize;
        if count == 0 {
            return true;
        }
        self.pre_logits.resize(start + count, 0.0);
        let z = &mut self.pre_logits[start..];
        // SAFETY: the node is contiguous F32 with `count` elements, `z` has room for them.
        unsafe { sys::ggml_backend_tensor_get(tensor, z.as_mut_ptr().cast(), 0, count * 4) };
        if self.action == Action::Add {
            let Some(v) = self.perturbation.get_mut(start..start + count) else {
                self.failure = Some(format!(
                    "the pre-logit node showed more rows than the {} perturbed ones",
                    self.perturbation.len() / self.width
                ));
                return true;
            };
            apply_edits(&self.edits, start / self.width, self.width, z, v);
            self.sum.clear();
            self.sum.extend(z.iter().zip(&*v).map(|(z, v)| z + v));
            // SAFETY: as above, the other way round.
            unsafe { sys::ggml_backend_tensor_set(tensor, self.sum.as_ptr().cast(), 0, count * 4) };
        }
        true
    }
}

/// The callback given to llama.cpp; `user_data` is the [`Hook`].
pub(super) unsafe extern "C" fn eval_callback(
    tensor: *mut sys::ggml_tensor,
    ask: bool,
    user_data: *mut c_void,
) -> bool {
    // SAFETY: the context that owns the hook outlives the graph run that calls this, and
    // decodes through `&mut self`, so nobody else holds the hook meanwhile.
    let hook = unsafe { &mut *user_data.cast::<Hook>() };
    // A panic must not cross into C++.
    // SAFETY: llama.cpp passes a live node.
    match catch_unwind(AssertUnwindSafe(|| unsafe { hook.on_node(tensor, ask) })) {
        Ok(answer) => answer,
        Err(_) => {
            hook.failure = Some("the pre-logit hook panicked".into());
            // `false` after the node was computed would end the graph half-way.
            !ask
        }
    }
}
