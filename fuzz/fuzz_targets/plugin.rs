//! Calls of the C interface, in any order and with odd numbers: a byte says which, four what with.
//! What is caught is a defect as well.
#![no_main]

use std::ffi::{CString, c_int, c_void};
use std::io::Write;
use std::sync::LazyLock;

use aisp_llama::plugin::*;
use libfuzzer_sys::fuzz_target;

const WIDTH: usize = 4;
const VOCABULARY: usize = 8;

/// A model of eight tokens: a header, and weights.
static MODEL: LazyLock<(tempfile::NamedTempFile, CString)> = LazyLock::new(|| {
    let text = |s: &str| [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat();
    let mut bytes = [&b"GGUF"[..], &3_u32.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(text("general.architecture"));
    bytes.extend(8_u32.to_le_bytes());
    bytes.extend(text("llama"));
    bytes.extend(text("output.weight"));
    bytes.extend(2_u32.to_le_bytes());
    bytes.extend((WIDTH as u64).to_le_bytes());
    bytes.extend((VOCABULARY as u64).to_le_bytes());
    bytes.extend([0; 12]);
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    let weights = (0..WIDTH * VOCABULARY).flat_map(|i| (i as f32).sin().to_le_bytes());
    bytes.extend(weights);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let path = CString::new(file.path().to_str().unwrap()).unwrap();
    (file, path)
});

unsafe extern "C" fn decode(_: c_int, _: *const c_void, _: *mut f32, _: i64) -> c_int {
    0
}

fuzz_target!(|bytes: &[u8]| {
    let mut runs = [std::ptr::null_mut(); 4];
    let host = aisp_host {
        size: size_of::<aisp_host>(),
        decode: Some(decode),
    };
    for call in bytes.as_chunks::<5>().0.iter().take(200) {
        let number = i32::from_le_bytes([call[1], call[2], call[3], call[4]]);
        let small = number.rem_euclid(5);
        let run = runs[usize::from(call[0] >> 6)];
        // SAFETY: pointers are NULL or lead to what is said.
        unsafe {
            let status = match call[0] & 15 {
                0 => {
                    let mut options = std::mem::zeroed::<aisp_options>();
                    aisp_options_init(&mut options, size_of::<aisp_options>());
                    options.model_path = MODEL.1.as_ptr();
                    (options.samples, options.horizon) = (4, 5);
                    options.iterations = 3;
                    match call[1] {
                        0 => options.samples = number as u32,
                        1 => options.horizon = number as u32,
                        2 => options.sigma = f64::from(f32::from_bits(number as u32)),
                        3 => options.logit_sd = f64::from(f32::from_bits(number as u32)),
                        4 => options.fresh = f64::from(f32::from_bits(number as u32)),
                        5 => options.elites = number as u32,
                        6 => options.ess = f64::from(f32::from_bits(number as u32)),
                        _ => {
                            options.tier = small & 1;
                            options.method = small >> 1 & 1;
                        }
                    }
                    let made = aisp_create(&options, &host);
                    let place = &mut runs[usize::from(call[0] >> 6)];
                    aisp_free(*place);
                    *place = made;
                    aisp_status::AISP_OK
                }
                1 => {
                    let _ = aisp_begin(run);
                    aisp_status::AISP_OK
                }
                2 => aisp_bind(run, [0, 1, 2, 3, number].as_ptr(), small as usize),
                3 => aisp_bind(run, [small, number].as_ptr(), 2),
                4 => {
                    let mut rows = [0.5; WIDTH * 5];
                    aisp_perturb(run, rows.as_mut_ptr(), small as usize, WIDTH)
                }
                5 | 6 => {
                    let token = |id| aisp_token {
                        id,
                        logit: 1.0,
                        p: 0.0,
                    };
                    let mut tokens = [token(0), token(number % 8), token(number)];
                    aisp_apply(run, small, tokens.as_mut_ptr(), 2 + (call[0] & 1) as usize)
                }
                7 | 8 => aisp_accept(run, small, number % 9),
                9 => aisp_reset(run, number),
                10 => aisp_reward(run, small, f64::from(f32::from_bits(number as u32))),
                11 => aisp_update(run),
                12 => {
                    let (mut tokens, mut count) = (std::ptr::null(), 0);
                    let mut reward = 0.0;
                    let status = aisp_best(run, &mut tokens, &mut count, &mut reward);
                    if status == aisp_status::AISP_OK {
                        let _ = std::slice::from_raw_parts(tokens, count).to_vec();
                    }
                    status
                }
                13 => aisp_free(std::ptr::without_provenance_mut(number as usize & 15)),
                14 => {
                    let _ = std::ffi::CStr::from_ptr(aisp_last_error(run))
                        .to_bytes()
                        .len();
                    aisp_status::AISP_OK
                }
                _ => aisp_bind(run, &number, usize::MAX >> (number as u32 % 64)),
            };
            assert!(status != aisp_status::AISP_INTERNAL, "a panic was caught");
        }
    }
    for run in runs {
        aisp_free(run);
    }
});
