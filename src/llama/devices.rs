//! ggml's back ends by its registry: what is asked of the CPU's, whether it was linked or is a library that
//! is loaded at run time, and devices of other machines.
//!
//! Source: `ggml-backend.h`, `ggml-rpc.h`, and `add_rpc_devices` in `common/arg.cpp`.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::net::{TcpStream, ToSocketAddrs};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::time::Duration;

use llama_cpp_sys_2 as sys;

use super::backend;
use crate::error::{Error, Result};

/// The function `name` of a back end, where it has it.
fn function(registry: sys::ggml_backend_reg_t, name: &CStr) -> Option<NonNull<c_void>> {
    if registry.is_null() {
        return None;
    }
    // SAFETY: a live registry, a NUL-terminated name.
    NonNull::new(unsafe { sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr()) })
}

/// The CPU as a device.
fn cpu() -> sys::ggml_backend_dev_t {
    // SAFETY: a query; the CPU's back end is always registered once llama.cpp is.
    unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) }
}

/// The buffers of the CPU.
pub(super) fn cpu_buffers() -> sys::ggml_backend_buffer_type_t {
    backend();
    // SAFETY: a live device.
    unsafe { sys::ggml_backend_dev_buffer_type(cpu()) }
}

/// Lets `opened` compute with so many threads, where it is one that has threads.
///
/// # Safety
/// `opened` is a live back end.
pub(super) unsafe fn set_threads(opened: sys::ggml_backend_t, threads: c_int) {
    // SAFETY: as promised; a device has a registry.
    let registry = unsafe {
        let device = sys::ggml_backend_get_device(opened);
        match device.is_null() {
            true => return,
            false => sys::ggml_backend_dev_backend_reg(device),
        }
    };
    if let Some(set) = function(registry, c"ggml_backend_set_n_threads") {
        // SAFETY: ggml_backend_set_n_threads_t, by its name in `ggml-backend.h`.
        unsafe {
            let set: unsafe extern "C" fn(sys::ggml_backend_t, c_int) =
                std::mem::transmute(set.as_ptr());
            set(opened, threads);
        }
    }
}

/// Whether the CPU's back end uses instructions called so, such as `AVX2`.
pub(super) fn cpu_has(feature: &CStr) -> bool {
    backend();
    // SAFETY: a live device.
    let registry = unsafe { sys::ggml_backend_dev_backend_reg(cpu()) };
    let Some(list) = function(registry, c"ggml_backend_get_features") else {
        return false;
    };
    // SAFETY: ggml_backend_get_features_t: an array that ends with a name that is null.
    unsafe {
        type List = unsafe extern "C" fn(sys::ggml_backend_reg_t) -> *const Feature;
        let list: List = std::mem::transmute(list.as_ptr());
        let mut next = list(registry);
        while !next.is_null() && !(*next).name.is_null() {
            if CStr::from_ptr((*next).name) == feature {
                return (*next).value.is_null() || CStr::from_ptr((*next).value) != c"0";
            }
            next = next.add(1);
        }
    }
    false
}

/// `ggml_backend_feature`.
#[repr(C)]
struct Feature {
    name: *const c_char,
    value: *const c_char,
}

/// Loads back ends that are libraries: from beside the program, or from `lib/aisp-llama` beside its folder.
#[cfg(feature = "dynamic-backends")]
pub(super) fn load() {
    let program = std::env::current_exe().and_then(std::fs::canonicalize);
    let beside = program
        .ok()
        .and_then(|path| Some(path.parent()?.to_path_buf()));
    let holds = |folder: &std::path::Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.any(|name| name.contains("ggml-cpu"))
    };
    let folders = beside
        .iter()
        .flat_map(|beside| [beside.clone(), beside.join("../lib/aisp-llama")]);
    match folders.into_iter().find(|folder| holds(folder)) {
        Some(folder) => llama_cpp_2::llama_backend::load_backends_from_path(&folder),
        // A build in its target folder.
        None => llama_cpp_2::llama_backend::load_backends(),
    }
}

/// How long a server may take to answer the first time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Adds the devices of llama.cpp's RPC servers, each `HOST:PORT`.
///
/// # Errors
/// [`Error::Field`] naming the server that is none, or does not answer, and where llama.cpp was built without
/// RPC.
pub(super) fn add_servers(servers: &[String]) -> Result<()> {
    static ADDED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    backend();
    let mut added = ADDED.lock().unwrap_or_else(|poison| poison.into_inner());
    for server in servers {
        if added.contains(server) {
            continue;
        }
        let refuse = |reason: &str| Error::field("rpc", format!("{server}: {reason}"));
        let add = rpc_function(c"ggml_backend_rpc_add_server").ok_or_else(|| refuse(NO_RPC))?;
        // llama.cpp ends the process where nobody answers.
        let mut addresses = server
            .to_socket_addrs()
            .map_err(|error| refuse(&format!("{error}; give HOST:PORT")))?;
        let address = addresses.next().ok_or_else(|| refuse("no such host"))?;
        TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| {
            refuse(&format!(
                "{error}; start a server there: aisp-llama rpc-server"
            ))
        })?;
        let name = CString::new(server.as_str()).map_err(|_| refuse("it has a NUL"))?;
        // SAFETY: ggml_backend_rpc_add_server, by its name in `ggml-rpc.h`; it copies the name. What it gives
        // is registered once, and lives as long as the process.
        unsafe {
            type Add = unsafe extern "C" fn(*const c_char) -> sys::ggml_backend_reg_t;
            let add: Add = std::mem::transmute(add.as_ptr());
            let registry = add(name.as_ptr());
            if registry.is_null() {
                return Err(refuse("it has no devices, or is of another version"));
            }
            sys::ggml_backend_register(registry);
        }
        added.push(server.clone());
    }
    Ok(())
}

/// Serves this machine's devices to other machines until the process ends.
///
/// # Errors
/// [`Error::Field`] where llama.cpp was built without RPC or has no such address, [`Error::Run`] when serving
/// ends.
pub fn serve_devices(endpoint: &str, threads: usize) -> Result<()> {
    backend();
    let refuse = |reason: &str| Error::field("host", format!("{endpoint}: {reason}"));
    let start = rpc_function(c"ggml_backend_rpc_start_server").ok_or_else(|| refuse(NO_RPC))?;
    // What cannot be bound is found here, and said.
    std::net::TcpListener::bind(endpoint).map_err(|error| refuse(&error.to_string()))?;
    let name = CString::new(endpoint).map_err(|_| refuse("it has a NUL"))?;
    // SAFETY: indices below the count.
    let devices = (0..unsafe { sys::ggml_backend_dev_count() })
        .map(|index| unsafe { sys::ggml_backend_dev_get(index) });
    // SAFETY: live devices.
    let is_cpu = |device: sys::ggml_backend_dev_t| unsafe {
        sys::ggml_backend_dev_type(device) == sys::GGML_BACKEND_DEVICE_TYPE_CPU
    };
    let mut served: Vec<sys::ggml_backend_dev_t> = devices.filter(|&d| !is_cpu(d)).collect();
    if served.is_empty() {
        served.push(cpu());
    }
    // SAFETY: ggml_backend_rpc_start_server, by its name in `ggml-rpc.h`; the devices outlive it.
    unsafe {
        type Start = unsafe extern "C" fn(
            *const c_char,
            *const c_char,
            usize,
            usize,
            *mut sys::ggml_backend_dev_t,
        );
        let start: Start = std::mem::transmute(start.as_ptr());
        let count = served.len();
        start(
            name.as_ptr(),
            std::ptr::null(),
            threads,
            count,
            served.as_mut_ptr(),
        );
    }
    Err(Error::Run(format!("{endpoint}: serving ended")))
}

const NO_RPC: &str = "there is no RPC in this build; build it with GGML_RPC=ON in the environment";

fn rpc_function(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: a NUL-terminated name.
    function(
        unsafe { sys::ggml_backend_reg_by_name(c"RPC".as_ptr()) },
        name,
    )
}
