use std::fs;
use std::path::PathBuf;

use safetensors::tensor::{Dtype, TensorView, serialize};

use super::LinearHead;
use crate::error::Error;
use crate::gguf::Gguf;
use crate::gguf::testing::{Builder, array, build, text};

/// A tensor: name, type, shape, raw bytes.
type Tensor<'a> = (&'a str, Dtype, &'a [usize], Vec<u8>);

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn write(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn read(tensors: &[Tensor<'_>]) -> Result<LinearHead, Error> {
    let views = tensors.iter().map(|(name, kind, shape, bytes)| {
        (
            *name,
            TensorView::new(*kind, shape.to_vec(), bytes).unwrap(),
        )
    });
    let (_folder, path) = write(&serialize(views, None).unwrap());
    LinearHead::read(&path, None)
}

/// Why a file is refused, without its path.
fn refusal(tensors: &[Tensor<'_>]) -> String {
    match read(tensors).unwrap_err() {
        Error::Model { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

fn head() -> LinearHead {
    LinearHead {
        weight: vec![0.1, -2.5e-8, 3e5],
        bias: -0.7,
        text: Some("{response}".into()),
        pooling: Some("mean".into()),
        append: Some("<|reward|>".into()),
        tensor: "score".into(),
        metadata: [("aisp.reward.description", "é \"x\""), ("format", "pt")]
            .map(|(k, v)| (k.into(), v.into()))
            .into(),
        ..LinearHead::default()
    }
}

#[test]
fn a_written_head_is_read_back_exactly() {
    let (folder, path) = write(b"an older file");
    head().write_safetensors(&path).unwrap();
    assert_eq!(LinearHead::read(&path, None).unwrap(), head());
    let bytes = fs::read(&path).unwrap();
    head().write_safetensors(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    // Another program's reader agrees, and nothing else is left in the folder.
    let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(parsed.tensor("score.weight").unwrap().shape(), [1, 3]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_unwritable_place_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("head");
    fs::create_dir(&taken).unwrap();
    assert!(matches!(
        head().write_safetensors(&taken),
        Err(Error::Io { .. })
    ));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_score_is_weights_times_features_plus_bias() {
    let head = LinearHead {
        weight: vec![2.0, -1.0],
        bias: 0.5,
        ..LinearHead::default()
    };
    assert_eq!(head.score(&[3.0, 4.0]), 2.5);
    // In f32 the small term would be lost.
    let weight = vec![1e8, 1.0, -1e8];
    let head = LinearHead { weight, ..head };
    assert_eq!(head.score(&[1.0, 1.0, 1.0]), 1.5);
}

#[test]
fn every_name_and_floating_type_is_read() {
    for name in [
        "score.weight",
        "cls.output.weight",
        "v_head.summary.weight",
        "value_head.weight",
        "v_head.weight",
        "regression_head.weight",
        "regression_layer.weight",
        "rm_head.weight",
    ] {
        let tensors: [Tensor<'_>; 2] = [
            ("other", Dtype::U8, &[3], vec![1, 2, 3]),
            (name, Dtype::F32, &[2], f32s(&[1.5, -2.0])),
        ];
        let found = read(&tensors).unwrap();
        assert_eq!((found.weight, found.bias), (vec![1.5, -2.0], 0.0));
    }
    let halves = [0x3e00u16, 0xc000].iter().flat_map(|v| v.to_le_bytes());
    let brains = [0x3fc0u16, 0xc000].iter().flat_map(|v| v.to_le_bytes());
    let doubles = [1.5f64, -2.0].iter().flat_map(|v| v.to_le_bytes());
    for (kind, bytes) in [
        (Dtype::F16, halves.collect()),
        (Dtype::BF16, brains.collect()),
        (Dtype::F64, doubles.collect::<Vec<u8>>()),
    ] {
        let bias = ("score.bias", Dtype::F32, &[1][..], f32s(&[0.25]));
        let found = read(&[("score.weight", kind, &[1, 2], bytes), bias]).unwrap();
        assert_eq!((found.weight, found.bias), (vec![1.5, -2.0], 0.25));
    }
}

#[test]
fn a_head_that_is_no_reward_is_refused_with_the_reason() {
    fn weight<'a>(shape: &'a [usize], values: &[f32]) -> Tensor<'a> {
        ("score.weight", Dtype::F32, shape, f32s(values))
    }
    let cases: [(Vec<Tensor<'_>>, &str); 8] = [
        (
            vec![weight(&[2, 2], &[0.0; 4])],
            "score.weight has 2 outputs",
        ),
        (
            vec![weight(&[2, 1], &[0.0; 2])],
            "has 2 outputs; a reward has one",
        ),
        (
            vec![weight(&[1, 1, 2], &[0.0; 2])],
            "[1, 1, 2] cannot be used",
        ),
        (vec![weight(&[0], &[])], "it is empty"),
        (vec![weight(&[2], &[1.0, f32::NAN])], "NaN or infinite"),
        (
            vec![
                weight(&[2], &[1.0, 1.0]),
                ("score.bias", Dtype::F32, &[2], f32s(&[1.0, 1.0])),
            ],
            "score.bias has 2 outputs",
        ),
        (
            vec![("score.weight", Dtype::I32, &[1], vec![0; 4])],
            "its type is I32",
        ),
        (
            vec![
                weight(&[1], &[1.0]),
                ("cls.weight", Dtype::F32, &[1], f32s(&[1.0])),
            ],
            "a dense layer before its head (cls.weight)",
        ),
    ];
    for (tensors, expected) in cases {
        let reason = refusal(&tensors);
        assert!(reason.contains(expected), "{reason}");
    }
    let too_large = 1e300f64.to_le_bytes().to_vec();
    assert!(refusal(&[("score.weight", Dtype::F64, &[1], too_large)]).contains("infinite"));
    assert!(refusal(&[("w", Dtype::U8, &[1], vec![0])]).contains("has no head"));
}

#[test]
fn a_dense_layer_of_a_cross_encoder_goes_before_its_head() {
    let tensors: [Tensor<'_>; 4] = [
        (
            "bert.pooler.dense.bias",
            Dtype::F32,
            &[2],
            f32s(&[0.5, 0.0]),
        ),
        (
            "bert.pooler.dense.weight",
            Dtype::F32,
            &[2, 2],
            f32s(&[1.0, 0.0, 2.0, -1.0]),
        ),
        ("classifier.bias", Dtype::F32, &[1], f32s(&[0.25])),
        ("classifier.weight", Dtype::F32, &[1, 2], f32s(&[3.0, 4.0])),
    ];
    let head = read(&tensors).unwrap();
    let expected = 3.0 * 1.5_f64.tanh() + 4.0 * 1.0_f64.tanh() + 0.25;
    assert!((head.score(&[1.0, 1.0]) - expected).abs() < 1e-12);
    let (_folder, path) = write(b"");
    head.write_safetensors(&path).unwrap();
    let found = LinearHead::read(&path, None).unwrap();
    assert_eq!((&found.dense, &found.weight), (&head.dense, &head.weight));
    assert_eq!(found.tensor, "cls.output");
    for layer in ["pre_classifier.weight", "head.dense.weight"] {
        let other: [Tensor<'_>; 2] = [
            (layer, Dtype::F32, &[1, 1], f32s(&[1.0])),
            ("classifier.weight", Dtype::F32, &[1, 1], f32s(&[1.0])),
        ];
        assert!(refusal(&other).contains(layer));
    }
}

#[test]
fn a_damaged_safetensors_file_is_refused() {
    let (_folder, path) = write(b"");
    head().write_safetensors(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let cut = &whole[..whole.len() - 6];
    let mut huge = whole.clone();
    huge[..8].fill(0xff);
    for (bytes, expected) in [
        (&b"abc"[..], "fewer than 8 bytes"),
        (&huge, "a header of 18446744073709551615 bytes"),
        (&whole[..20], "its header cannot be read"),
        (cut, "the file ends inside it"),
    ] {
        let (_folder, path) = write(bytes);
        let error = LinearHead::read(&path, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(matches!(
        LinearHead::read(&path.with_file_name("absent"), None),
        Err(Error::Io { .. })
    ));
}

/// The file of `builder`, its data `[weight, padding, bias]` as given.
fn gguf(builder: &Builder, weight: &[f32], bias: Option<f32>) -> (tempfile::TempDir, PathBuf) {
    let mut bytes = builder.bytes();
    let start = bytes.len() - builder.data_bytes as usize;
    bytes[start..start + 4 * weight.len()].copy_from_slice(&f32s(weight));
    if let Some(bias) = bias {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&bias.to_le_bytes());
    }
    write(&bytes)
}

#[test]
fn a_head_inside_a_gguf_is_read() {
    let builder = build()
        .str("aisp.reward.text", "{response}")
        .str("aisp.reward.description", "warmth")
        .str("general.name", "x")
        .tensor("cls.output.weight", &[3, 1], 0)
        .tensor("cls.output.bias", &[1], 0);
    let (_folder, path) = gguf(&builder, &[1.0, 2.0, 3.0], Some(-4.0));
    let found = LinearHead::read(&path, None).unwrap();
    assert_eq!((found.weight, found.bias), (vec![1.0, 2.0, 3.0], -4.0));
    assert_eq!(found.text.as_deref(), Some("{response}"));
    assert_eq!(found.metadata.len(), 1);
    assert_eq!(found.metadata["aisp.reward.description"], "warmth");
}

#[test]
fn the_rows_of_yes_and_no_are_told_by_their_labels() {
    let file = |labels: [&str; 2]| {
        let raw: Vec<u8> = labels.iter().flat_map(text).collect();
        build()
            .str("general.architecture", "qwen3")
            .pair("qwen3.classifier.output_labels", 9, array(8, 2, &raw))
            .tensor("cls.output.weight", &[2, 2], 0)
    };
    for (labels, expected) in [(["yes", "no"], [-2.0, -5.0]), (["No", "Yes"], [2.0, 5.0])] {
        let (_folder, path) = gguf(&file(labels), &[1.0, 2.0, 3.0, 7.0], None);
        assert_eq!(LinearHead::read(&path, None).unwrap().weight, expected);
    }
    let (_folder, path) = gguf(&file(["good", "bad"]), &[1.0, 2.0, 3.0, 7.0], None);
    let error = LinearHead::read(&path, None).unwrap_err().to_string();
    assert!(error.contains("2 outputs"), "{error}");
}

#[test]
fn a_gguf_without_a_linear_head_is_told_apart_from_an_unusable_one() {
    let none = build().tensor("output_norm.weight", &[3], 0);
    let (_folder, path) = gguf(&none, &[1.0; 3], None);
    let header = Gguf::open(&path).unwrap();
    assert!(
        LinearHead::from_gguf(&path, &header, None)
            .unwrap()
            .is_none()
    );
    let cases = [
        (build().tensor("score.weight", &[2, 2], 0), "2 outputs"),
        (build().tensor("score.weight", &[32], 26), "its type is I32"),
        (build().tensor("cls.weight", &[1, 1], 0), "dense layer"),
    ];
    for (builder, expected) in cases {
        let (_folder, path) = gguf(&builder, &[1.0], None);
        let error = LinearHead::read(&path, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
