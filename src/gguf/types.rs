//! Names and block sizes of ggml's tensor types, and names of llama.cpp's file types.

use std::borrow::Cow;
use std::fmt;

/// How a tensor's elements are stored: the number of a `ggml_type`.
///
/// Source: llama.cpp, `enum ggml_type` in `ggml/include/ggml.h`, block layouts in
/// `ggml/src/ggml-common.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorType(
    /// The number in the file.
    pub u32,
);

/// Name, elements per block, bytes per block.
type Row = (&'static str, u64, u64);

impl TensorType {
    /// Four-byte floats.
    pub const F32: Self = Self(0);

    /// The type's name in capitals (`Q4_0`, `F16`), or `type N` for a number ggml does not know.
    pub fn name(self) -> Cow<'static, str> {
        match (self.row(), self.removed()) {
            (Some((name, ..)), _) | (None, Some(name)) => Cow::Borrowed(name),
            (None, None) => Cow::Owned(format!("type {}", self.0)),
        }
    }

    /// Elements and bytes of one block, `None` for types that ggml does not know or no longer
    /// supports. A row is a whole number of blocks; unquantised types have blocks of one element.
    pub fn block_size(self) -> Option<(u64, u64)> {
        self.row().map(|(_, elements, bytes)| (elements, bytes))
    }

    fn row(self) -> Option<Row> {
        Some(match self.0 {
            0 => ("F32", 1, 4),
            1 => ("F16", 1, 2),
            2 => ("Q4_0", 32, 18),
            3 => ("Q4_1", 32, 20),
            6 => ("Q5_0", 32, 22),
            7 => ("Q5_1", 32, 24),
            8 => ("Q8_0", 32, 34),
            9 => ("Q8_1", 32, 36),
            10 => ("Q2_K", 256, 84),
            11 => ("Q3_K", 256, 110),
            12 => ("Q4_K", 256, 144),
            13 => ("Q5_K", 256, 176),
            14 => ("Q6_K", 256, 210),
            15 => ("Q8_K", 256, 292),
            16 => ("IQ2_XXS", 256, 66),
            17 => ("IQ2_XS", 256, 74),
            18 => ("IQ3_XXS", 256, 98),
            19 => ("IQ1_S", 256, 50),
            20 => ("IQ4_NL", 32, 18),
            21 => ("IQ3_S", 256, 110),
            22 => ("IQ2_S", 256, 82),
            23 => ("IQ4_XS", 256, 136),
            24 => ("I8", 1, 1),
            25 => ("I16", 1, 2),
            26 => ("I32", 1, 4),
            27 => ("I64", 1, 8),
            28 => ("F64", 1, 8),
            29 => ("IQ1_M", 256, 56),
            30 => ("BF16", 1, 2),
            34 => ("TQ1_0", 256, 54),
            35 => ("TQ2_0", 256, 66),
            39 => ("MXFP4", 32, 17),
            40 => ("NVFP4", 64, 36),
            41 => ("Q1_0", 128, 18),
            42 => ("Q2_0", 64, 18),
            _ => return None,
        })
    }

    /// Numbers that were once in use: a name helps whoever finds one in an old file.
    fn removed(self) -> Option<&'static str> {
        Some(match self.0 {
            4 => "Q4_2",
            5 => "Q4_3",
            31 => "Q4_0_4_4",
            32 => "Q4_0_4_8",
            33 => "Q4_0_8_8",
            36 => "IQ4_NL_4_4",
            37 => "IQ4_NL_4_8",
            38 => "IQ4_NL_8_8",
            _ => return None,
        })
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

/// The name of a `general.file_type`, as llama.cpp's quantisation tool takes it.
///
/// Source: llama.cpp, `enum llama_ftype` in `include/llama.h`.
pub(super) fn file_type_name(number: u64) -> Option<&'static str> {
    Some(match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        4 => "Q4_1_SOME_F16",
        5 => "Q4_2",
        6 => "Q4_3",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        33 => "Q4_0_4_4",
        34 => "Q4_0_4_8",
        35 => "Q4_0_8_8",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4_MOE",
        39 => "NVFP4",
        40 => "Q1_0",
        41 => "Q2_0",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tensor_type_of_ggml_has_a_name_and_a_block() {
        let holes = [4, 5, 31, 32, 33, 36, 37, 38];
        for number in 0..43 {
            let kind = TensorType(number);
            assert!(!kind.name().starts_with("type"), "{number} has no name");
            assert_eq!(
                kind.block_size().is_none(),
                holes.contains(&number),
                "{kind}"
            );
        }
        assert_eq!(TensorType(43).block_size(), None);
        assert_eq!(TensorType(99).name(), "type 99");
        assert_eq!(TensorType(4).name(), "Q4_2");
    }

    #[test]
    fn blocks_hold_their_bits_per_weight() {
        let bits = |number| {
            let (elements, bytes) = TensorType(number).block_size().unwrap();
            bytes as f64 * 8.0 / elements as f64
        };
        // As llama.cpp's quantisation tool lists them.
        for (number, expected) in [
            (2, 4.5),
            (8, 8.5),
            (10, 2.625),
            (11, 3.4375),
            (12, 4.5),
            (13, 5.5),
            (14, 6.5625),
            (16, 2.0625),
            (17, 2.3125),
            (18, 3.0625),
            (19, 1.5625),
            (23, 4.25),
            (29, 1.75),
            (34, 1.6875),
            (35, 2.0625),
            (39, 4.25),
            (40, 4.5),
        ] {
            assert_eq!(bits(number), expected, "{}", TensorType(number));
        }
    }

    #[test]
    fn file_types_have_the_names_of_the_quantisation_tool() {
        assert_eq!(file_type_name(0), Some("F32"));
        assert_eq!(file_type_name(3), Some("Q4_1"));
        assert_eq!(file_type_name(7), Some("Q8_0"));
        assert_eq!(file_type_name(15), Some("Q4_K_M"));
        assert_eq!(file_type_name(41), Some("Q2_0"));
        assert_eq!(file_type_name(42), None);
        assert_eq!(file_type_name(u64::MAX), None);
    }
}
