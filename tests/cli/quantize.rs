//! `quantize`, and the pages that the program prints of itself.

use std::fs;

use tempfile::TempDir;

use crate::common::{SMOLLM2, path};
use crate::tiny::recurrent::file;
use crate::{assert_refused, program, stderr, stdout};

#[test]
fn a_model_in_fewer_bits_still_answers() {
    let folder = TempDir::new().unwrap();
    let model = file("lfm2").write(folder.path(), "tiny.gguf");
    let small = folder.path().join("small.gguf");
    let output = program()
        .arg("quantize")
        .args([&model, &small])
        .args(["q8_0", "-t", "1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let bytes = |path| fs::metadata(path).unwrap().len();
    assert!(bytes(&small) < bytes(&model) / 2);
    let told = program().arg("inspect").arg(&small).output().unwrap();
    assert!(stdout(&told).contains("Q8_0"), "{}", stdout(&told));
    let answer = program()
        .args([
            "run",
            "--method",
            "greedy",
            "-t",
            "1",
            "-n",
            "4",
            "--no-chat",
            "-p",
            "the",
        ])
        .args(["--reward", "rule:words=1..9", "-m"])
        .arg(&small)
        .output()
        .unwrap();
    assert_eq!(answer.status.code(), Some(0), "{}", stderr(&answer));
    // Nothing else is left behind.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn what_cannot_be_quantised_is_refused_and_nothing_is_written() {
    let folder = TempDir::new().unwrap();
    let into = folder.path().join("out.gguf");
    let into = into.to_str().unwrap();
    let model = path(SMOLLM2);
    let model = model.to_str().unwrap();
    let own = file("lfm2").write(folder.path(), "tiny.gguf");
    let own = own.to_str().unwrap();
    for (arguments, code, told) in [
        (
            [model, into, "Q8_0"],
            2,
            "its weights are Q4_1 already; start from F16 or BF16, or give --allow-requantize",
        ),
        ([own, own, "Q8_0"], 2, "the file that is read"),
        ([own, into, "Q9"], 2, "Q8_0"),
        (["nowhere.gguf", into, "Q8_0"], 3, "no such file"),
    ] {
        let output = program().arg("quantize").args(arguments).output().unwrap();
        assert_refused(&output, code, &[told]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{told}");
    }
}

#[test]
fn manual_pages_tell_of_every_command_and_flag() {
    let folder = TempDir::new().unwrap();
    let output = program().arg("man").arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(read("aisp-llama.1").contains("aisp\\-llama\\-run(1)"));
    let run = read("aisp-llama-run.1");
    for flag in [
        "\\-\\-model\\-reward",
        "\\-\\-early\\-rejection",
        "\\-\\-samples",
    ] {
        assert!(run.contains(flag), "{flag}");
    }
    assert!(read("aisp-llama-reward-train.1").contains("\\-\\-output"));
}
