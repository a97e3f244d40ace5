//! Flags that say how models are loaded and where they go, with llama.cpp's names and environment
//! variables.
//!
//! Source: `common/arg.cpp` of the pinned llama.cpp.

use std::path::PathBuf;

use aisp_llama::gguf::Value;
use aisp_llama::llama::{
    Attention, CacheType, FlashAttention, Isolation, ModelOptions, SplitMode, placement,
};

use super::hub::HubArgs;
use super::{setup, values};

// What one flag gives, by names that the derive macro does not take apart.
type Adapters = Vec<(PathBuf, f32)>;
type Layers = Option<u32>;
type Names = Vec<String>;
type Parts = Vec<f32>;
type Tensors = Vec<(String, String)>;
type Metadata = Vec<(String, Value)>;

#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    /// The generator [default: SmolLM2-135M-Instruct of `make setup`]
    #[arg(
        short,
        long,
        value_name = "FILE.gguf",
        env = "LLAMA_ARG_MODEL",
        help_heading = "Models"
    )]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub hub: HubArgs,
    /// LoRA adapters of the generator, between commas; may be given several times
    #[arg(long, value_name = "FILE,…", value_parser = values::reason(placement::lora), help_heading = "Models")]
    pub lora: Vec<Adapters>,
    /// The same with scales
    #[arg(long, value_name = "FILE:SCALE,…", value_parser = values::reason(placement::lora_scaled), help_heading = "Models")]
    pub lora_scaled: Vec<Adapters>,
    #[command(flatten)]
    pub load: LoadArgs,
}

impl ModelArgs {
    /// How the generator is loaded.
    pub fn options(&self) -> ModelOptions {
        let adapters = self.lora.iter().chain(&self.lora_scaled).flatten();
        ModelOptions {
            lora: adapters.cloned().collect(),
            ..self.load.options()
        }
    }

    /// What determines results, as far as a flag was given for it.
    pub fn details(&self) -> Option<String> {
        let read_otherwise = ModelOptions {
            mmap: true,
            mlock: false,
            isolation: None,
            ..self.options()
        };
        let (attention, threads) = (self.load.attention(), self.load.threads_batch);
        let asked = (read_otherwise, attention, threads);
        let given = asked != (ModelOptions::default(), Attention::default(), None);
        given.then(|| format!("{asked:?}"))
    }
}

/// When models are tried in a process of their own.
#[derive(Clone, Copy, Debug)]
pub enum Isolate {
    On,
    Off,
    /// Where they are not remembered to have come through.
    Auto,
}

#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    /// CPU threads [default: the physical cores]
    #[arg(
        short,
        long,
        value_name = "N",
        env = "LLAMA_ARG_THREADS",
        help_heading = "Models",
        allow_negative_numbers = true
    )]
    pub threads: Option<i32>,
    /// CPU threads for prompts, candidates side by side, and reward models (-tb) [default: -t]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Models",
        allow_negative_numbers = true
    )]
    pub threads_batch: Option<i32>,
    /// Layers on the GPU: a number, all, or auto for llama.cpp's choice (-ngl) [default: auto]
    #[arg(
        long,
        visible_alias = "gpu-layers",
        value_name = "N",
        env = "LLAMA_ARG_N_GPU_LAYERS",
        value_parser = values::reason(placement::gpu_layers),
        help_heading = "Models",
        allow_negative_numbers = true
    )]
    pub n_gpu_layers: Option<Layers>,
    /// Devices for the layers, between commas, or none (-dev) [default: all]
    #[arg(long, value_name = "NAME,…", env = "LLAMA_ARG_DEVICE", value_parser = values::reason(placement::devices), help_heading = "Models")]
    pub device: Option<Names>,
    /// Servers of llama.cpp's RPC, between commas, whose devices get layers as well: see rpc-server
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        env = "LLAMA_ARG_RPC",
        value_delimiter = ',',
        help_heading = "Models"
    )]
    pub rpc: Vec<String>,
    /// How a model is divided among devices (-sm)
    #[arg(
        long,
        value_name = "HOW",
        env = "LLAMA_ARG_SPLIT_MODE",
        default_value = "layer",
        value_parser = values::one_of([("none", SplitMode::None), ("layer", SplitMode::Layer), ("row", SplitMode::Row)]),
        help_heading = "Models"
    )]
    pub split_mode: SplitMode,
    /// The devices' parts of a model, such as 3,1 (-ts) [default: by their free memory]
    #[arg(long, value_name = "N,…", env = "LLAMA_ARG_TENSOR_SPLIT", value_parser = values::reason(placement::tensor_split), help_heading = "Models")]
    pub tensor_split: Option<Parts>,
    /// The device that has all with --split-mode none, by its index (-mg)
    #[arg(
        long,
        value_name = "INDEX",
        env = "LLAMA_ARG_MAIN_GPU",
        default_value_t = 0,
        help_heading = "Models",
        allow_negative_numbers = true
    )]
    pub main_gpu: i32,
    /// Where tensors go whose names match a pattern, such as exps=CPU; may be given several times (-ot)
    #[arg(long, value_name = "PATTERN=BUFFER,…", env = "LLAMA_ARG_OVERRIDE_TENSOR", value_parser = values::reason(placement::override_tensor), help_heading = "Models")]
    pub override_tensor: Vec<Tensors>,
    /// Keep all experts of a mixture on the CPU (-cmoe)
    #[arg(long, env = "LLAMA_ARG_CPU_MOE", value_parser = values::truthy, help_heading = "Models")]
    pub cpu_moe: bool,
    /// Keep the experts of the first N layers on the CPU (-ncmoe)
    #[arg(
        long,
        value_name = "N",
        env = "LLAMA_ARG_N_CPU_MOE",
        default_value_t = 0,
        help_heading = "Models",
        allow_negative_numbers = true
    )]
    pub n_cpu_moe: u16,
    /// How the models' files are read: mapped or not, kept in memory or not (-lm)
    #[arg(
        long,
        value_name = "MODE",
        env = "LLAMA_ARG_LOAD_MODE",
        default_value = "auto",
        value_parser = values::one_of([("auto", (true, false)), ("none", (false, false)), ("mmap", (true, false)), ("mlock", (false, true)), ("mmap+mlock", (true, true))]),
        help_heading = "Models"
    )]
    pub load_mode: (bool, bool),
    /// Read the models into memory instead of mapping the files
    #[arg(long, help_heading = "Models")]
    pub no_mmap: bool,
    /// Keep the models in memory, never swapped out
    #[arg(long, help_heading = "Models")]
    pub mlock: bool,
    /// Try models in a process of its own, so that a damaged file ends that one: on, off, or auto for files not seen before
    #[arg(
        long,
        value_name = "WHEN",
        env = "AISP_LLAMA_ISOLATE",
        default_value = "auto",
        value_parser = values::switch(Isolate::On, Isolate::Off, Isolate::Auto),
        help_heading = "Models"
    )]
    pub isolate: Isolate,
    /// Metadata instead of the files', KEY=TYPE:VALUE with int, float, bool or str; may be given several times
    #[arg(long, value_name = "KEY=TYPE:VALUE,…", value_parser = values::reason(placement::override_kv), help_heading = "Models")]
    pub override_kv: Vec<Metadata>,
    /// Flash attention (-fa); texts that reward models read token by token go without it
    #[arg(
        long,
        value_name = "WHEN",
        env = "LLAMA_ARG_FLASH_ATTN",
        default_value = "auto",
        value_parser = values::switch(FlashAttention::On, FlashAttention::Off, FlashAttention::Auto),
        help_heading = "Models",
        allow_negative_numbers = true
    )]
    pub flash_attn: FlashAttention,
    /// What keys are kept as (-ctk)
    #[arg(long, value_name = "TYPE", env = "LLAMA_ARG_CACHE_TYPE_K", default_value = "f16", value_parser = values::one_of(CacheType::ALL), help_heading = "Models")]
    pub cache_type_k: CacheType,
    /// What values are kept as (-ctv); f16 instead of a quantised type where reward models read
    #[arg(long, value_name = "TYPE", env = "LLAMA_ARG_CACHE_TYPE_V", default_value = "f16", value_parser = values::one_of(CacheType::ALL), help_heading = "Models")]
    pub cache_type_v: CacheType,
}

impl LoadArgs {
    /// How models are loaded.
    pub fn options(&self) -> ModelOptions {
        let (mmap, mlock) = self.load_mode;
        ModelOptions {
            gpu_layers: self.n_gpu_layers.flatten(),
            mmap: mmap && !self.no_mmap,
            mlock: mlock || self.mlock,
            devices: self.device.clone(),
            rpc: self.rpc.clone(),
            split_mode: self.split_mode,
            tensor_split: self.tensor_split.clone().unwrap_or_default(),
            main_gpu: self.main_gpu,
            override_tensor: self.override_tensor.concat(),
            cpu_moe: match self.cpu_moe {
                true => usize::MAX,
                false => self.n_cpu_moe.into(),
            },
            override_kv: self.override_kv.concat(),
            lora: Vec::new(),
            isolation: self.isolation(),
        }
    }

    /// The process that models are tried in; none where this program does not know where it is.
    fn isolation(&self) -> Option<Isolation> {
        let memory = match self.isolate {
            Isolate::Off => return None,
            Isolate::On => None,
            Isolate::Auto => setup::cache_folder().map(|folder| folder.join("tried")),
        };
        let program = std::env::current_exe().ok()?;
        Some(Isolation { program, memory })
    }

    /// Layers on the GPU, as far as a number is asked for.
    pub fn gpu_layers(&self) -> Option<i32> {
        let layers = self.n_gpu_layers.flatten()?;
        Some(i32::try_from(layers).unwrap_or(i32::MAX))
    }

    /// How their contexts compute attention.
    pub fn attention(&self) -> Attention {
        Attention {
            flash: self.flash_attn,
            keys: self.cache_type_k,
            values: self.cache_type_v,
        }
    }

    /// CPU threads where one token is decoded at once.
    pub fn threads(&self) -> usize {
        self.threads
            .and_then(|n| usize::try_from(n).ok())
            .filter(|&n| n > 0)
            .unwrap_or_else(aisp_llama::default_threads)
    }

    /// CPU threads where several are: prompts, candidates side by side, and all that reward models
    /// read.
    pub fn threads_batch(&self) -> usize {
        match self.threads_batch {
            None => self.threads(),
            Some(n) => usize::try_from(n)
                .ok()
                .filter(|&n| n > 0)
                .unwrap_or_else(aisp_llama::default_threads),
        }
    }
}
