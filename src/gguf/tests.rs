//! What well-formed files give. Malformed and hostile ones are in `tests/gguf.rs`.

use super::testing::{array, build, parse, small, text};
use super::{Array, TensorType, Value};

#[test]
fn a_model_is_described() {
    let bytes = small().bytes();
    let gguf = parse(&bytes).unwrap();
    assert_eq!((gguf.version, gguf.alignment), (3, 32));
    assert_eq!(gguf.architecture(), Some("llama"));
    assert_eq!(
        gguf.arch_key("block_count").and_then(Value::as_u64),
        Some(2)
    );
    assert_eq!(gguf.u64("llama.block_count"), Some(2));
    assert_eq!(gguf.f64("llama.rope.freq_base"), Some(1e4));
    assert_eq!(gguf.bool("tokenizer.ggml.add_bos_token"), Some(true));
    assert_eq!(gguf.file_type_name(), Some("Q4_K_M"));
    assert_eq!(gguf.quantisation(), "Q8_0");
    assert_eq!(gguf.parameters(), 192 + 5 + 128);
    assert_eq!(
        gguf.metadata().map(|(key, _)| key).last(),
        Some("tokenizer.ggml.token_type")
    );
    let names: Vec<_> = gguf.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "token_embd.weight",
            "output_norm.weight",
            "blk.0.ffn_up.weight"
        ]
    );
    let last = gguf.tensor("blk.0.ffn_up.weight").unwrap();
    assert_eq!(last.dims, [32, 2, 2, 1]);
    assert_eq!(
        (last.kind, last.bytes, last.elements()),
        (TensorType(2), 72, 128)
    );
    assert_eq!(last.offset + last.bytes, bytes.len() as u64);
    assert!(gguf.tensor("output.weight").is_none() && gguf.get("absent").is_none());
}

#[test]
fn every_scalar_type_round_trips() {
    let cases: [(u32, Vec<u8>, Value); 12] = [
        (0, vec![200], Value::U8(200)),
        (1, vec![0x80], Value::I8(-128)),
        (2, vec![1, 2], Value::U16(513)),
        (3, (-2i16).to_le_bytes().into(), Value::I16(-2)),
        (4, u32::MAX.to_le_bytes().into(), Value::U32(u32::MAX)),
        (5, i32::MIN.to_le_bytes().into(), Value::I32(i32::MIN)),
        (6, 1.5f32.to_le_bytes().into(), Value::F32(1.5)),
        (7, vec![0], Value::Bool(false)),
        (8, text("né\0"), Value::String("né\0".into())),
        (10, u64::MAX.to_le_bytes().into(), Value::U64(u64::MAX)),
        (11, i64::MIN.to_le_bytes().into(), Value::I64(i64::MIN)),
        (12, (-0.25f64).to_le_bytes().into(), Value::F64(-0.25)),
    ];
    for (kind, raw, expected) in cases {
        let gguf = build().pair("k", kind, raw).read().unwrap();
        assert_eq!(gguf.get("k"), Some(&expected));
        assert_eq!(expected.len(), 1);
    }
}

#[test]
fn every_array_type_round_trips() {
    let two = |raw: [&[u8]; 2]| raw.concat();
    let cases: [(u32, Vec<u8>, Array); 11] = [
        (0, vec![1, 255], Array::U8(vec![1, 255])),
        (1, vec![1, 255], Array::I8(vec![1, -1])),
        (2, vec![1, 0, 0, 1], Array::U16(vec![1, 256])),
        (3, vec![1, 0, 255, 255], Array::I16(vec![1, -1])),
        (
            4,
            vec![1, 0, 0, 0, 0, 0, 0, 1],
            Array::U32(vec![1, 1 << 24]),
        ),
        (5, [[255; 4], [0; 4]].concat(), Array::I32(vec![-1, 0])),
        (
            6,
            two([&1f32.to_le_bytes(), &2f32.to_le_bytes()]),
            Array::F32(vec![1.0, 2.0]),
        ),
        (7, vec![0, 1], Array::Bool(vec![false, true])),
        (
            10,
            two([&1u64.to_le_bytes(), &[255; 8]]),
            Array::U64(vec![1, u64::MAX]),
        ),
        (11, two([&[255; 8], &[0; 8]]), Array::I64(vec![-1, 0])),
        (
            12,
            two([&1f64.to_le_bytes(), &2f64.to_le_bytes()]),
            Array::F64(vec![1.0, 2.0]),
        ),
    ];
    for (kind, raw, expected) in cases {
        let gguf = build().pair("k", 9, array(kind, 2, &raw)).read().unwrap();
        let read = gguf.get("k").and_then(Value::as_array).unwrap();
        assert_eq!(read, &expected);
        assert_eq!((read.len(), read.get(2)), (2, None));
    }
    let gguf = small().read().unwrap();
    let tokens = gguf.get("tokenizer.ggml.tokens").unwrap();
    let strings = tokens.as_str_array().unwrap();
    assert_eq!(strings.iter().collect::<Vec<_>>(), ["<s>", "", "né"]);
    assert_eq!((tokens.len(), strings.get(3)), (3, None));
    let empty = build().pair("k", 9, array(8, 0, &[])).read().unwrap();
    assert!(empty.get("k").unwrap().is_empty());
}

#[test]
fn arrays_longer_than_a_read_chunk_round_trip() {
    let numbers: Vec<u32> = (0..100_000).collect();
    let raw: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let long = "é".repeat(100_000);
    let gguf = build()
        .pair("n", 9, array(4, 100_000, &raw))
        .str("s", &long)
        .read()
        .unwrap();
    assert_eq!(gguf.get("n"), Some(&Value::Array(Array::U32(numbers))));
    assert_eq!(gguf.str("s"), Some(long.as_str()));
}

#[test]
fn accessors_convert_only_what_keeps_its_meaning() {
    assert_eq!(Value::I8(-1).as_u64(), None);
    assert_eq!(Value::I64(7).as_u64(), Some(7));
    assert_eq!(Value::U64(u64::MAX).as_i64(), None);
    assert_eq!(Value::U16(3).as_f64(), Some(3.0));
    assert_eq!(Value::Bool(true).as_u64(), None);
    assert_eq!(Value::F32(1.0).as_u64(), None);
    assert_eq!(Value::String("1".into()).as_f64(), None);
    assert_eq!(Value::U8(1).as_bool(), None);
}

#[test]
fn version_2_and_another_alignment_are_read() {
    let mut builder = build().u32("general.alignment", 64);
    (builder.version, builder.alignment) = (2, 64);
    let builder = builder.tensor("a", &[1], 0).tensor("b", &[1], 0);
    let gguf = builder.read().unwrap();
    assert_eq!((gguf.version, gguf.alignment), (2, 64));
    assert_eq!(gguf.tensors()[1].offset - gguf.tensors()[0].offset, 64);
}

#[test]
fn a_file_without_tensors_is_read() {
    let gguf = build().str("a", "b").read().unwrap();
    assert_eq!(
        (gguf.quantisation().as_str(), gguf.parameters()),
        ("none", 0)
    );
    assert_eq!(gguf.architecture(), None);
    assert!(gguf.arch_key("block_count").is_none() && gguf.file_type_name().is_none());
}
