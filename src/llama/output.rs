//! The output matrix outside the model's graph: logits recomputed from pre-logits.
//!
//! logits = softcap(scale · (W x + b)): the operations between `result_norm` and
//! `result_output` are read off the model's own graph and built again as a small ggml
//! graph on the model's own tensors, where they live. Weights are never read back: packed
//! CPU weights have no reader.
//!
//! Source: the `lm_head` part of llama.cpp's `src/models/*.cpp`.

use std::ffi::CStr;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::devices::set_threads;

/// One operation of the head.
#[derive(Clone, Debug)]
enum Operation {
    /// x ← W x
    Matrix(*mut sys::ggml_tensor),
    /// x ← s x + b
    Scale(f32, f32),
    /// x ← tanh x
    Tanh,
    /// x ← x + b
    Add(*mut sys::ggml_tensor),
    /// x ← x ∘ s
    Multiply(*mut sys::ggml_tensor),
}

/// Reads the operations of the head while a graph runs.
pub(super) struct HeadCapture {
    last: *mut sys::ggml_tensor,
    operations: Vec<Operation>,
    state: State,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Waiting,
    Following,
    Done,
    Unsupported(String),
}

impl HeadCapture {
    pub(super) fn new() -> Self {
        Self {
            last: std::ptr::null_mut(),
            operations: Vec::new(),
            state: State::Waiting,
        }
    }

    /// # Safety
    /// `tensor` is a live node of the running graph.
    pub(super) unsafe fn observe(&mut self, tensor: *mut sys::ggml_tensor, is_pre_logits: bool) {
        if matches!(self.state, State::Done | State::Unsupported(_)) {
            return;
        }
        if is_pre_logits {
            self.last = tensor;
            self.operations.clear();
            self.state = State::Following;
            return;
        }
        // SAFETY: a live node.
        let node = unsafe { &*tensor };
        if self.state != State::Following || (node.src[0] != self.last && node.src[1] != self.last)
        {
            return;
        }
        let other = if node.src[0] == self.last {
            node.src[1]
        } else {
            node.src[0]
        };
        // SAFETY: sources of a live node are live; only stored weights outlive the graph.
        let other_is_weight = !other.is_null() && unsafe { (*other).op } == sys::GGML_OP_NONE;
        let float = |i: usize| f32::from_bits(node.op_params[i] as u32);
        let operation = match node.op {
            sys::GGML_OP_MUL_MAT if node.src[1] == self.last && other_is_weight => {
                Some(Operation::Matrix(other))
            }
            sys::GGML_OP_SCALE => Some(Operation::Scale(float(0), float(1))),
            sys::GGML_OP_UNARY if node.op_params[0] == sys::GGML_UNARY_OP_TANH as i32 => {
                Some(Operation::Tanh)
            }
            sys::GGML_OP_ADD if other_is_weight => Some(Operation::Add(other)),
            sys::GGML_OP_MUL if other_is_weight => Some(Operation::Multiply(other)),
            _ => None,
        };
        let Some(operation) = operation else {
            // SAFETY: returns a static string for every operation.
            let name = unsafe { CStr::from_ptr(sys::ggml_op_name(node.op)) };
            self.state = State::Unsupported(name.to_string_lossy().into_owned());
            return;
        };
        self.operations.push(operation);
        self.last = tensor;
        // SAFETY: a live node with a NUL-terminated name.
        if unsafe { CStr::from_ptr(node.name.as_ptr()) } == c"result_output" {
            self.state = State::Done;
        }
    }

    /// Builds the head on the device that holds the output matrix.
    pub(super) fn build(&self, threads: i32) -> std::result::Result<OutputMatrix, String> {
        match &self.state {
            State::Done => {}
            State::Unsupported(op) => {
                return Err(format!("its output head has the operation {op}"));
            }
            State::Waiting | State::Following => {
                return Err("its output head was not found in the graph".into());
            }
        }
        let Some(Operation::Matrix(matrix)) = self
            .operations
            .iter()
            .find(|o| matches!(o, Operation::Matrix(_)))
        else {
            return Err("its output head has no matrix".into());
        };
        // SAFETY: the matrix is a tensor of the loaded model and has a buffer; a mapped file
        // has a host buffer without a device, which is the CPU's to read.
        let backend = unsafe {
            let buffer = (**matrix).buffer;
            let mut device =
                sys::ggml_backend_buft_get_device(sys::ggml_backend_buffer_get_type(buffer));
            if device.is_null() && sys::ggml_backend_buffer_is_host(buffer) {
                device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            }
            if device.is_null() {
                return Err("its output matrix has no device".into());
            }
            sys::ggml_backend_dev_init(device, std::ptr::null())
        };
        let backend = NonNull::new(backend).ok_or("its device cannot be opened a second time")?;
        // SAFETY: a live back end.
        unsafe { set_threads(backend.as_ptr(), threads) };
        Ok(OutputMatrix {
            operations: self.operations.clone(),
            // SAFETY: as above.
            width: unsafe { (**matrix).ne[0] } as usize,
            backend,
            graph: None,
        })
    }
}

/// The model's head as a graph of its own.
pub(super) struct OutputMatrix {
    operations: Vec<Operation>,
    width: usize,
    backend: NonNull<sys::ggml_backend>,
    graph: Option<HeadGraph>,
}

struct HeadGraph {
    rows: usize,
    context: *mut sys::ggml_context,
    allocator: sys::ggml_gallocr_t,
    graph: *mut sys::ggml_cgraph,
    input: *mut sys::ggml_tensor,
    output: *mut sys::ggml_tensor,
}

impl Drop for HeadGraph {
    fn drop(&mut self) {
        // SAFETY: both were made in `OutputMatrix::prepare` and are freed once.
        unsafe {
            sys::ggml_gallocr_free(self.allocator);
            sys::ggml_free(self.context);
        }
    }
}

impl OutputMatrix {
    fn prepare(&mut self, rows: usize) -> std::result::Result<&HeadGraph, String> {
        if self.graph.as_ref().is_some_and(|g| g.rows != rows) {
            self.graph = None;
        }
        if self.graph.is_none() {
            // SAFETY: ggml allocates metadata only (`no_alloc`); every tensor belongs to
            // `context`, or to the model, which the owner of this object keeps alive.
            unsafe {
                let params = sys::ggml_init_params {
                    mem_size: sys::ggml_tensor_overhead() * (8 + 2 * self.operations.len())
                        + sys::ggml_graph_overhead(),
                    mem_buffer: std::ptr::null_mut(),
                    no_alloc: true,
                };
                let context = sys::ggml_init(params);
                let input = sys::ggml_new_tensor_2d(
                    context,
                    sys::GGML_TYPE_F32,
                    self.width as i64,
                    rows as i64,
                );
                sys::ggml_set_input(input);
                let mut x = input;
                for operation in &self.operations {
                    x = match *operation {
                        Operation::Matrix(w) => sys::ggml_mul_mat(context, w, x),
                        Operation::Scale(s, b) => sys::ggml_scale_bias(context, x, s, b),
                        Operation::Tanh => sys::ggml_tanh(context, x),
                        Operation::Add(b) => sys::ggml_add(context, x, b),
                        Operation::Multiply(s) => sys::ggml_mul(context, x, s),
                    };
                }
                sys::ggml_set_output(x);
                let graph = sys::ggml_new_graph(context);
                sys::ggml_build_forward_expand(graph, x);
                let allocator = sys::ggml_gallocr_new(sys::ggml_backend_get_default_buffer_type(
                    self.backend.as_ptr(),
                ));
                let built = HeadGraph {
                    rows,
                    context,
                    allocator,
                    graph,
                    input,
                    output: x,
                };
                if !sys::ggml_gallocr_alloc_graph(allocator, graph) {
                    return Err("no memory for the recomputed logits".into());
                }
                self.graph = Some(built);
            }
        }
        self.graph.as_ref().ok_or_else(|| unreachable!("set above"))
    }

    /// Logits [rows, vocabulary] of `x` [rows, d].
    pub(super) fn logits(
        &mut self,
        x: &[f32],
        rows: usize,
        out: &mut Vec<f32>,
    ) -> std::result::Result<(), String> {
        debug_assert_eq!(x.len(), rows * self.width);
        let backend = self.backend.as_ptr();
        let graph = self.prepare(rows)?;
        // SAFETY: input and output are F32 tensors of this graph with the sizes used here.
        unsafe {
            sys::ggml_backend_tensor_set(graph.input, x.as_ptr().cast(), 0, size_of_val(x));
            if sys::ggml_backend_graph_compute(backend, graph.graph) != sys::GGML_STATUS_SUCCESS {
                return Err("the graph of the output matrix failed".into());
            }
            out.resize((*graph.output).ne[0] as usize * rows, 0.0);
            sys::ggml_backend_tensor_get(
                graph.output,
                out.as_mut_ptr().cast(),
                0,
                size_of_val(out.as_slice()),
            );
        }
        Ok(())
    }
}

impl Drop for OutputMatrix {
    fn drop(&mut self) {
        self.graph = None;
        // SAFETY: made in `HeadCapture::build`, freed once, after its graph.
        unsafe { sys::ggml_backend_free(self.backend.as_ptr()) };
    }
}
