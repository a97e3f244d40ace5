//! The GGUF reader against malformed and hostile files: always an error that says what to do,
//! never a panic. Well-formed files are in `src/gguf/tests.rs`.

use std::fs;
use std::io::{self, Read};

use aisp_llama::gguf::{
    Gguf, GgufError, MAX_ARRAY_LEN, MAX_DIMS, MAX_HEADER_BYTES, MAX_KEY_BYTES, MAX_PAIRS,
    MAX_STRING_BYTES, MAX_TENSOR_NAME_BYTES, MAX_TENSORS, TensorType,
};
use proptest::prelude::*;

#[path = "../src/gguf/testing.rs"]
mod testing;

use testing::{Builder, array, build, parse, small, text};

/// Asserts a `Corrupt` error at `offset` whose field and reason contain the given texts.
#[track_caller]
fn assert_corrupt(result: Result<Gguf, GgufError>, at: u64, in_field: &str, in_reason: &str) {
    let error = result.unwrap_err();
    let GgufError::Corrupt {
        field,
        offset,
        reason,
    } = &error
    else {
        panic!("not Corrupt: {error:?}");
    };
    assert!(field.contains(in_field), "{error}");
    assert!(reason.contains(in_reason), "{error}");
    assert_eq!(*offset, at, "{error}");
    assert!(error.to_string().contains(&format!("at byte {at}")));
}

#[test]
fn truncation_at_every_byte_is_an_error_with_a_remedy() {
    let bytes = small().bytes();
    for len in 0..bytes.len() {
        let error = parse(&bytes[..len]).unwrap_err();
        assert!(error.to_string().contains("download it again"), "{error}");
        match error {
            GgufError::Empty => assert_eq!(len, 0),
            GgufError::Truncated {
                offset, need, have, ..
            } => {
                assert_eq!(offset + have, len as u64);
                assert!(need > have);
            }
            GgufError::TensorDataTruncated { need, have, .. } => {
                assert_eq!((need, have), (bytes.len() as u64, len as u64));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_reader_shorter_than_it_claims_is_truncated_at_every_byte() {
    let bytes = small().header();
    for len in 0..bytes.len() {
        let error = Gguf::parse(&bytes[..len], 1 << 40).unwrap_err();
        assert!(matches!(error, GgufError::Truncated { .. }), "{error:?}");
    }
}

#[test]
fn counts_of_absent_data_reserve_no_memory() {
    let array = array(12, MAX_ARRAY_LEN, &[0; 8]);
    for (kind, raw) in [(9, array), (8, MAX_STRING_BYTES.to_le_bytes().to_vec())] {
        let bytes = build().pair("k", kind, raw).header();
        for claimed in [bytes.len() as u64, u64::MAX] {
            let error = Gguf::parse(&bytes[..], claimed).unwrap_err();
            assert!(matches!(error, GgufError::Truncated { .. }), "{error:?}");
        }
    }
}

/// Bytes before the first metadata pair.
const START: u64 = 24;

/// Declares tests that a file is refused: what is built => offset, part of field, part of reason.
macro_rules! refused {
    ($($name:ident: $builder:expr => $at:expr, $field:expr, $reason:expr;)*) => {$(
        #[test]
        fn $name() {
            assert_corrupt($builder.read(), $at, $field, $reason);
        }
    )*};
}

fn one_tensor(dims: &[u64], kind: u32, offset: u64) -> Builder {
    build().entry("t", dims, kind, offset)
}

refused! {
    empty_key_is_refused: build().str("", "v") => START, "key of metadata pair 0", "empty";
    duplicate_key_is_refused: build().u32("k", 1).u32("k", 1)
        => START + 17, "key of metadata pair 1", "\"k\" is a duplicate key";
    key_that_is_not_utf8_is_refused: build().pair(b"a\xff", 0, [0])
        => START, "key of metadata pair 0", "byte 1 is not UTF-8";
    unknown_value_type_is_refused: build().pair("k", 13, [0; 8])
        => START + 9, "value type of \"k\"", "13 is not a value type";
    unknown_element_type_is_refused: build().pair("k", 9, array(13, 0, &[]))
        => START + 13, "element type of \"k\"", "13 is not a value type";
    array_of_arrays_is_refused: build().pair("k", 9, array(9, 1, &array(0, 0, &[])))
        => START + 13, "element type of \"k\"", "arrays of arrays";
    alignment_zero_is_refused: build().u32("general.alignment", 0)
        => START + 29, "general.alignment", "power of two";
    alignment_48_is_refused: build().u32("general.alignment", 48)
        => START + 29, "general.alignment", "power of two";
    alignment_of_another_type_is_refused: build().pair("general.alignment", 10, [0; 8])
        => START + 29, "general.alignment", "not u64";
    duplicate_tensor_is_refused: build().tensor("t", &[1], 0).tensor("t", &[1], 0)
        => START + 33, "name of tensor 1", "\"t\" is a duplicate name";
    tensor_name_that_is_not_utf8_is_refused: Builder {
        tensor_count: 1,
        directory: text(b"\xff"),
        ..build()
    } => START, "name of tensor 0", "not UTF-8";
    unaligned_offset_is_refused: one_tensor(&[1], 0, 31)
        => START + 25, "data offset", "not a multiple of the alignment 32";
    gap_between_tensors_is_refused: one_tensor(&[1], 0, 32)
        => START + 25, "data offset", "expected 0";
    overlapping_tensors_are_refused: build().tensor("t", &[1], 0).entry("u", &[1], 0, 0)
        => START + 33 + 25, "data offset of tensor \"u\"", "expected 32";
    partial_block_is_refused: one_tensor(&[33], 2, 0)
        => START + 9, "shape", "33 elements are not whole blocks of 32, as Q4_0";
    scalar_of_a_block_type_is_refused: one_tensor(&[], 2, 0) => START + 9, "shape", "blocks of 32";
    negative_dimension_is_refused: one_tensor(&[u64::MAX], 0, 0) => START + 9, "shape", "overflow";
    negative_dimension_after_zero_is_refused: one_tensor(&[0, u64::MAX], 0, 0)
        => START + 9, "shape", "overflow";
    element_count_overflow_is_refused: one_tensor(&[1 << 32, 1 << 31], 0, 0)
        => START + 9, "shape", "overflow 63 bits";
    byte_count_overflow_is_refused: one_tensor(&[1 << 62], 0, 0)
        => START + 9, "shape", "overflows 64 bits";
    data_end_overflow_is_refused: one_tensor(&[i64::MAX as u64], 25, 0)
        => START + 25, "data offset of tensor \"t\"", "overflows 64 bits";
    place_in_file_overflow_is_refused: one_tensor(&[(1 << 63) - 32], 25, 0)
        => START + 33, "data of tensor \"t\"", "overflows 64 bits";

    too_many_pairs_are_refused: Builder { pair_count: MAX_PAIRS + 1, ..build() }
        => 16, "metadata pair count", "cap of 65536";
    too_many_tensors_are_refused: Builder { tensor_count: MAX_TENSORS + 1, ..build() }
        => 8, "tensor count", "cap of 131072";
    negative_tensor_count_is_refused: Builder { tensor_count: u64::MAX, ..build() }
        => 8, "tensor count", "cap of 131072";
    too_long_key_is_refused: build().u32(&"k".repeat(MAX_KEY_BYTES as usize + 1), 1)
        => START, "key of metadata pair 0", "cap of 65535";
    too_long_string_is_refused: build().pair("k", 8, (MAX_STRING_BYTES + 1).to_le_bytes())
        => START + 13, "value of \"k\"", "cap of 67108864";
    too_long_element_is_refused: build().pair("k", 9, array(8, 1, &u64::MAX.to_le_bytes()))
        => START + 25, "element 0 of \"k\"", "cap of 67108864";
    too_long_array_is_refused: build().pair("k", 9, array(0, MAX_ARRAY_LEN + 1, &[]))
        => START + 17, "array length of \"k\"", "cap of 16777216";
    too_many_dimensions_are_refused: one_tensor(&[1; MAX_DIMS as usize + 1], 0, 0)
        => START + 9, "shape", "cap of 4";
    too_long_tensor_name_is_refused:
        build().tensor(&"t".repeat(MAX_TENSOR_NAME_BYTES as usize + 1), &[1], 0)
        => START, "name of tensor 0", "cap of 63";
}

#[test]
fn values_need_not_be_utf8() {
    let list = array(8, 2, &[text("a"), text(b"b\x80")].concat());
    let gguf = build()
        .pair("k", 8, text(b"\xc3x"))
        .pair("l", 9, list)
        .read()
        .unwrap();
    assert_eq!(gguf.str("k"), Some("\u{fffd}x"));
    let list = gguf.get("l").unwrap().as_str_array().unwrap();
    assert_eq!(list.iter().collect::<Vec<_>>(), ["a", "b\u{fffd}"]);
}

#[test]
fn values_at_their_caps_are_read() {
    let key = "k".repeat(MAX_KEY_BYTES as usize);
    let name = "t".repeat(MAX_TENSOR_NAME_BYTES as usize);
    let gguf = build()
        .u32(&key, 1)
        .tensor(&name, &[1; MAX_DIMS as usize], 0)
        .read()
        .unwrap();
    assert_eq!(gguf.u64(&key), Some(1));
    assert!(gguf.tensor(&name).is_some());
}

#[test]
fn a_header_above_its_cap_is_refused() {
    // Two arrays of half the cap each, with room for nothing else.
    let first = build().pair("a", 9, array(10, MAX_ARRAY_LEN, &[]));
    let second = build().pair("b", 9, array(10, MAX_ARRAY_LEN, &[]));
    let elements = || io::repeat(0).take(MAX_ARRAY_LEN * 8);
    let both = Builder {
        pair_count: 2,
        ..first
    };
    let reader = io::Cursor::new(both.header())
        .chain(elements())
        .chain(io::Cursor::new(second.pairs))
        .chain(elements());
    let at = MAX_HEADER_BYTES / 2 + START + 50;
    assert_corrupt(
        Gguf::parse(reader, u64::MAX),
        at,
        "elements of \"b\"",
        "cap of 268435456",
    );
}

#[test]
fn long_and_unprintable_names_are_short_and_escaped_in_messages() {
    let key = format!("\x1b[31m{}", "k".repeat(1000));
    let message = build().pair(key, 13, []).read().unwrap_err().to_string();
    assert!(
        message.len() < 400 && !message.contains('\x1b'),
        "{message}"
    );
}

#[test]
fn a_tensor_type_ggml_does_not_have_is_named() {
    for (kind, name) in [(99, "type 99"), (4, "Q4_2"), (u32::MAX, "type 4294967295")] {
        let error = one_tensor(&[32], kind, 0).read().unwrap_err();
        let message = error.to_string();
        let GgufError::TensorTypeUnsupported { offset, kind, .. } = error else {
            panic!("{message}");
        };
        assert_eq!((kind.as_str(), offset), (name, START + 21));
        assert!(message.contains("update this program"), "{message}");
    }
}

#[test]
fn tensor_data_past_the_end_names_the_first_cut_tensor_and_the_whole_need() {
    let bytes = small().bytes();
    let norm = parse(&bytes)
        .unwrap()
        .tensor("output_norm.weight")
        .unwrap()
        .offset;
    let error = parse(&bytes[..norm as usize + 1]).unwrap_err();
    let message = error.to_string();
    let GgufError::TensorDataTruncated {
        tensor,
        offset,
        need,
        have,
    } = error
    else {
        panic!("{message}");
    };
    assert_eq!(tensor, "\"output_norm.weight\"");
    assert_eq!((offset, need, have), (norm, bytes.len() as u64, norm + 1));
}

#[test]
fn versions_other_than_2_and_3_are_refused() {
    for (version, remedy) in [
        (0, "download it again"),
        (1, "convert the model again"),
        (4, "update this program"),
    ] {
        let error = Builder { version, ..small() }.read().unwrap_err();
        assert!(matches!(error, GgufError::Version { version: v } if v == version));
        assert!(error.to_string().contains(remedy), "{error}");
    }
}

#[test]
fn big_endian_files_are_refused() {
    let version = 3u32.swap_bytes();
    let error = Builder { version, ..build() }.read().unwrap_err();
    assert!(matches!(error, GgufError::BigEndian), "{error:?}");
    let error = parse(b"FUGG\0\0\0\x03").unwrap_err();
    assert!(matches!(error, GgufError::BigEndian), "{error:?}");
}

#[test]
fn files_of_other_kinds_are_recognised() {
    let safetensors = [&30u64.to_le_bytes()[..], b"{\"a\":{\"dtype\":\"F32\"}}"].concat();
    for (bytes, hint) in [
        (&safetensors[..], "safetensors: convert"),
        (b"PK\x03\x04rest of it", "zip archive"),
        (b"\n<!DOCTYPE html>", "web page"),
        (b"tjgg\x03\0\0\0", "before GGUF"),
        (b"\x1f\x8b\x08\0", "compressed"),
        (b"{\"error\": 404}", "JSON"),
        (&[0; 100], "unfinished download"),
        (b"GGUf", "convert"),
    ] {
        let error = parse(bytes).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, GgufError::NotGguf { .. }), "{message}");
        assert!(
            message.contains(hint) && message.contains("at byte 0"),
            "{message}"
        );
    }
}

#[test]
fn a_git_lfs_pointer_is_recognised() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let error = parse(pointer).unwrap_err();
    assert!(matches!(error, GgufError::LfsPointer));
    assert!(error.to_string().contains("git lfs pull"));
}

#[test]
fn paths_that_are_not_models_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let open = |path: &std::path::Path| Gguf::open(path).unwrap_err();
    assert!(matches!(open(dir.path()), GgufError::Directory));
    assert!(matches!(open(&dir.path().join("none")), GgufError::Missing));
    let empty = file("empty.gguf", b"");
    assert!(matches!(open(&empty), GgufError::Empty));
    #[cfg(unix)]
    {
        assert!(matches!(open(&empty.join("under")), GgufError::Missing));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("none"), &link).unwrap();
        assert!(matches!(open(&link), GgufError::DanglingLink));
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(matches!(open(&socket), GgufError::NotAFile));
    }
    let good = file("good.gguf", &small().bytes());
    assert_eq!(Gguf::open(&good).unwrap().tensors().len(), 3);
}

#[test]
fn a_failing_reader_is_reported_with_its_offset_and_cause() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("bad sector"))
        }
    }
    let header = small().header();
    let error = Gguf::parse(header[..30].chain(Failing), 1000).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("at byte 30: bad sector"), "{message}");
}

/// Reads `bytes` and, if that worked, calls everything a caller may.
fn exercise(bytes: &[u8]) -> Result<(), TestCaseError> {
    match parse(bytes) {
        Ok(gguf) => {
            gguf.quantisation();
            gguf.parameters();
            gguf.file_type_name();
            gguf.arch_key("block_count");
            for tensor in gguf.tensors() {
                prop_assert!(tensor.offset + tensor.bytes <= bytes.len() as u64);
            }
            for (_, value) in gguf.metadata() {
                let strings = value.as_str_array().map(|a| a.iter().count());
                prop_assert_eq!(strings.unwrap_or(value.len()), value.len());
            }
        }
        Err(error) => prop_assert!(!error.to_string().is_empty()),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn flipped_bytes_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = small().bytes();
        for (index, value) in flips {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        exercise(&bytes)?;
    }

    #[test]
    fn extreme_words_anywhere_never_panic(
        at in any::<prop::sample::Index>(),
        word in prop_oneof![Just(u64::MAX), Just(1 << 63), Just(i64::MAX as u64), any::<u64>(), 0u64..64],
    ) {
        let mut bytes = small().bytes();
        let at = at.index(bytes.len() - 8);
        bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        exercise(&bytes)?;
    }

    #[test]
    fn random_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..512),
        magic in any::<bool>(),
    ) {
        let start: &[u8] = if magic { b"GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0" } else { b"" };
        exercise(&[start, &bytes].concat())?;
    }
}
