//! Rows in groups: the products of ggml on this CPU have the same bits in all steps of a size that
//! [`Model::step_rows`](aisp_llama::llama::Model::step_rows) allows; for every type of weights, and every form that
//! they are packed into.

use std::ffi::CStr;
use std::ptr;

use aisp_llama::gguf::TensorType;
use aisp_llama::llama::{ANY_GROUP, LEAST_ROWS, ROW_GROUP};
use llama_cpp_sys_2 as sys;

/// Columns of a weight, a multiple of every block; and its rows, of every packing.
const WIDTH: usize = 768;
const HEIGHT: usize = 96;
/// The most rows of a step here.
const MOST: usize = 64;

const TYPES: [sys::ggml_type; 18] = [
    sys::GGML_TYPE_F32,
    sys::GGML_TYPE_F16,
    sys::GGML_TYPE_BF16,
    sys::GGML_TYPE_Q4_0,
    sys::GGML_TYPE_Q4_1,
    sys::GGML_TYPE_Q5_0,
    sys::GGML_TYPE_Q5_1,
    sys::GGML_TYPE_Q8_0,
    sys::GGML_TYPE_Q2_K,
    sys::GGML_TYPE_Q3_K,
    sys::GGML_TYPE_Q4_K,
    sys::GGML_TYPE_Q5_K,
    sys::GGML_TYPE_Q6_K,
    sys::GGML_TYPE_IQ4_NL,
    sys::GGML_TYPE_IQ4_XS,
    sys::GGML_TYPE_IQ3_S,
    sys::GGML_TYPE_TQ2_0,
    sys::GGML_TYPE_MXFP4,
];

/// Numbers like weights and activations, the same every time.
pub fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
    };
    (0..count)
        .map(|_| uniform() + uniform() + uniform())
        .collect()
}

/// The CPU, with the buffer types that it has for weights.
struct Cpu {
    backend: sys::ggml_backend_t,
    buffers: Vec<sys::ggml_backend_buffer_type_t>,
}

impl Cpu {
    fn new() -> Self {
        // SAFETY: llama.cpp's own way to them; the list ends with a null.
        unsafe {
            let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            let backend = sys::ggml_backend_dev_init(device, ptr::null());
            sys::ggml_backend_cpu_set_n_threads(backend, 1);
            let mut buffers = vec![sys::ggml_backend_cpu_buffer_type()];
            let registry = sys::ggml_backend_dev_backend_reg(device);
            let name = c"ggml_backend_dev_get_extra_bufts".as_ptr();
            let found = sys::ggml_backend_reg_get_proc_address(registry, name);
            let extra: sys::ggml_backend_dev_get_extra_bufts_t = std::mem::transmute(found);
            if let Some(extra) = extra {
                let mut next = extra(device);
                while !(*next).is_null() {
                    buffers.push(*next);
                    next = next.add(1);
                }
            }
            Self { backend, buffers }
        }
    }

    /// W x of `rows` rows of `x`; `None` where the buffer type has no form for the weight's.
    fn product(
        &self,
        kind: sys::ggml_type,
        buffer: sys::ggml_backend_buffer_type_t,
        weight: &[u8],
        x: &[f32],
        rows: usize,
    ) -> Option<Vec<f32>> {
        // SAFETY: metadata contexts of sufficient size; every tensor gets memory before it is
        // filled, with as many bytes as it has, and all is freed in the end.
        unsafe {
            let context = || {
                sys::ggml_init(sys::ggml_init_params {
                    mem_size: 16 * sys::ggml_tensor_overhead() + sys::ggml_graph_overhead(),
                    mem_buffer: ptr::null_mut(),
                    no_alloc: true,
                })
            };
            let (weights, others) = (context(), context());
            let w = sys::ggml_new_tensor_2d(weights, kind, WIDTH as i64, HEIGHT as i64);
            let input =
                sys::ggml_new_tensor_2d(others, sys::GGML_TYPE_F32, WIDTH as i64, rows as i64);
            let output = sys::ggml_mul_mat(others, w, input);
            let graph = sys::ggml_new_graph(others);
            sys::ggml_build_forward_expand(graph, output);
            let held = sys::ggml_backend_alloc_ctx_tensors_from_buft(weights, buffer);
            let plain = sys::ggml_backend_cpu_buffer_type();
            let rest = sys::ggml_backend_alloc_ctx_tensors_from_buft(others, plain);
            let device = sys::ggml_backend_get_device(self.backend);
            let known = buffer == plain
                || !(*w).extra.is_null() && sys::ggml_backend_dev_supports_op(device, output);
            let product = known.then(|| {
                sys::ggml_backend_tensor_set(w, weight.as_ptr().cast(), 0, weight.len());
                let bytes = rows * WIDTH * 4;
                sys::ggml_backend_tensor_set(input, x.as_ptr().cast(), 0, bytes);
                let done = sys::ggml_backend_graph_compute(self.backend, graph);
                assert_eq!(done, sys::GGML_STATUS_SUCCESS);
                let mut y = vec![0.0_f32; rows * HEIGHT];
                sys::ggml_backend_tensor_get(output, y.as_mut_ptr().cast(), 0, y.len() * 4);
                y
            });
            sys::ggml_backend_buffer_free(held);
            sys::ggml_backend_buffer_free(rest);
            sys::ggml_free(weights);
            sys::ggml_free(others);
            product
        }
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed once.
        unsafe { sys::ggml_backend_free(self.backend) };
    }
}

/// A weight of this type, `[HEIGHT, WIDTH]`.
pub fn quantized(kind: sys::ggml_type) -> Vec<u8> {
    let weight = values(WIDTH * HEIGHT, 1);
    // SAFETY: room for the rows of this type; no importance matrix is required by those tried.
    unsafe {
        assert!(!sys::ggml_quantize_requires_imatrix(kind));
        let mut bytes = vec![0; sys::ggml_row_size(kind, WIDTH as i64) * HEIGHT];
        let (rows, width) = (HEIGHT as i64, WIDTH as i64);
        let out = bytes.as_mut_ptr().cast();
        sys::ggml_quantize_chunk(kind, weight.as_ptr(), out, 0, rows, width, ptr::null());
        bytes
    }
}

#[test]
fn products_do_not_depend_on_the_other_groups() {
    let cpu = Cpu::new();
    let x = values(WIDTH * MOST, 2);
    let mut packed = 0;
    for kind in TYPES {
        let weight = quantized(kind);
        // SAFETY: a static string for every type.
        let name = unsafe { CStr::from_ptr(sys::ggml_type_name(kind)) };
        for (form, &buffer) in cpu.buffers.iter().enumerate() {
            let Some(all) = cpu.product(kind, buffer, &weight, &x, MOST) else {
                continue;
            };
            packed += usize::from(form > 0);
            let groups: Vec<usize> = (1..=MOST).filter(|n| MOST.is_multiple_of(*n)).collect();
            // Whether rows in steps of `rows` have the bits that they have among all.
            let holds = |rows: usize| {
                let (x, y) = (x.chunks(rows * WIDTH), all.chunks(rows * HEIGHT));
                x.zip(y).all(|(x, y)| {
                    let own = cpu.product(kind, buffer, &weight, x, rows);
                    own.is_some_and(|own| own == y)
                })
            };
            let smallest = groups.iter().rev().take_while(|&&n| holds(n)).last();
            println!("{name:?}, form {form}: rows in groups of {smallest:?}");
            let least = match ANY_GROUP.contains(&TensorType(kind)) {
                true => ROW_GROUP,
                false => LEAST_ROWS,
            };
            for rows in (least..MOST).step_by(ROW_GROUP) {
                let whole = MOST / rows * rows;
                let (x, y) = (&x[..whole * WIDTH], &all[..whole * HEIGHT]);
                for (x, y) in x.chunks(rows * WIDTH).zip(y.chunks(rows * HEIGHT)) {
                    let own = cpu.product(kind, buffer, &weight, x, rows).unwrap();
                    assert!(own == y, "{name:?}, form {form}, {rows} rows");
                }
            }
        }
    }
    println!("{packed} of them packed");
}
