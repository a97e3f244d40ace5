//! The llama.cpp of a host program: the pinned one, and another version.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::common::llama_cpp_python;
use crate::{common, compiler, library, link, repository, succeed, target};

/// A llama.cpp to compile and to link with.
pub struct Llama {
    pub headers: Vec<PathBuf>,
    link: Vec<String>,
}

impl Llama {
    /// The pinned one, as this build made it.
    pub fn pinned() -> Self {
        let source = pinned_source();
        let mut link = vec![format!("-L{}", pinned_libraries().display())];
        let libraries = "-Wl,--start-group -lllama -lggml -lggml-cpu -lggml-base -Wl,--end-group \
                         -lstdc++ -lgomp -ldl -lpthread -lm";
        link.extend(libraries.split_whitespace().map(String::from));
        Self {
            headers: vec![source.join("include"), source.join("ggml/include")],
            link,
        }
    }

    /// Another version, in shared libraries: what llama-cpp-python has inside.
    pub fn packaged() -> Self {
        let folder = llama_cpp_python().join("llama_cpp/lib");
        let folder = folder.display();
        Self {
            headers: vec![llama_cpp_python().join("include")],
            link: vec![
                format!("-L{folder}"),
                format!("-Wl,-rpath,{folder}"),
                "-lllama".into(),
                "-lggml".into(),
                "-lggml-base".into(),
                "-lm".into(),
            ],
        }
    }

    /// Compiles a C file of this repository against it and the plugin.
    pub fn compile(&self, source: &str, name: &str, options: &[&str]) -> PathBuf {
        let program = target().join("plugin").join(name);
        let mut compiler = compiler("cc");
        compiler.arg("-std=c11").args(options);
        for folder in &self.headers {
            compiler.arg("-isystem").arg(folder);
        }
        compiler.arg(repository().join(source));
        compiler.arg("-o").arg(&program);
        link(&mut compiler);
        succeed(compiler.args(&self.link));
        program
    }
}

fn pinned_source() -> PathBuf {
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--offline", "--format-version", "1"]);
    metadata.args(["--filter-platform", env!("AISP_LLAMA_TARGET")]);
    let output = succeed(metadata.current_dir(repository())).stdout;
    let metadata: Value = serde_json::from_slice(&output).unwrap();
    let package = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|package| package["name"] == "llama-cpp-sys-2")
        .expect("the lock file has llama-cpp-sys-2");
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
    manifest.parent().unwrap().join("llama.cpp")
}

fn pinned_libraries() -> PathBuf {
    let builds = std::fs::read_dir(target().join("release/build")).unwrap();
    let newest = builds
        .map(|entry| entry.unwrap().path().join("out/lib"))
        .filter(|folder| folder.join("libllama.a").exists())
        .max_by_key(|folder| {
            folder
                .join("libllama.a")
                .metadata()
                .unwrap()
                .modified()
                .unwrap()
        });
    newest.expect("llama-cpp-sys-2 built libllama.a")
}

/// A Python program of this repository, which finds llama_cpp, aisp_llama and the plugin.
pub fn python(program: &str) -> Command {
    let mut python = Command::new(common::interpreter());
    python.arg(repository().join(program));
    let folders = [llama_cpp_python(), repository().join("examples/plugin")];
    python.env("PYTHONPATH", std::env::join_paths(folders).unwrap());
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let file = library().join(format!("{prefix}aisp_llama{suffix}"));
    python.env("AISP_LLAMA_LIBRARY", file);
    python
}
