//! Walks a GGUF header from the magic to the end of the tensor directory.
//!
//! Layout, all little-endian: magic, version (u32), tensor count (u64), pair count (u64); then
//! pairs of key, type (u32), value; then per tensor its name, dimension count (u32), dimensions
//! (u64 each), type (u32), offset (u64) from the start of the data; then, padded to the alignment,
//! the data. Strings are a length (u64) and that many bytes; arrays an element type (u32), a count
//! (u64) and the elements.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Read;

use super::read::{Field, Source, quoted};
use super::{
    Array, Gguf, GgufError, MAX_ARRAY_LEN, MAX_DIMS, MAX_KEY_BYTES, MAX_PAIRS, MAX_STRING_BYTES,
    MAX_TENSOR_NAME_BYTES, MAX_TENSORS, StrArray, TensorInfo, TensorType, Value, sniff,
};

const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// The format's number for arrays, the one type that is not an element type.
const ARRAY: u32 = 9;

pub(super) fn parse(reader: impl Read, total_len: u64) -> Result<Gguf, GgufError> {
    if total_len == 0 {
        return Err(GgufError::Empty);
    }
    let mut source = Source::new(reader, total_len);
    magic(&mut source)?;
    let version = version(&mut source)?;
    let tensor_count = count(&mut source, "tensor count", MAX_TENSORS)?;
    let pair_count = count(&mut source, "metadata pair count", MAX_PAIRS)?;

    let mut gguf = Gguf {
        version,
        alignment: DEFAULT_ALIGNMENT,
        pairs: Vec::new(),
        pair_index: HashMap::new(),
        tensors: Vec::new(),
        tensor_index: HashMap::new(),
        directory_at: 0,
    };
    let mut scratch = Vec::new();
    for index in 0..pair_count {
        pair(&mut source, &mut scratch, index, &mut gguf)?;
    }
    gguf.directory_at = source.at();
    let mut data_bytes = 0;
    for index in 0..tensor_count {
        data_bytes = tensor(&mut source, &mut scratch, index, data_bytes, &mut gguf)?;
    }
    place(&source, &mut gguf)?;
    Ok(gguf)
}

fn magic<R: Read>(source: &mut Source<R>) -> Result<(), GgufError> {
    let mut start = source.prefix(4)?;
    if start == *b"GGUF" {
        return Ok(());
    }
    if b"GGUF".starts_with(&start) {
        return Err(GgufError::Truncated {
            field: Field::Fixed("magic").to_string(),
            offset: 0,
            need: 4,
            have: start.len() as u64,
        });
    }
    start.extend(source.prefix(sniff::PREFIX_BYTES - 4)?);
    Err(sniff::not_gguf(&start))
}

fn version<R: Read>(source: &mut Source<R>) -> Result<u32, GgufError> {
    let version = source.u32(Field::Fixed("format version"))?;
    match version {
        2 | 3 => Ok(version),
        _ if (1..=3).contains(&version.swap_bytes()) => Err(GgufError::BigEndian),
        _ => Err(GgufError::Version { version }),
    }
}

fn count<R: Read>(source: &mut Source<R>, part: &'static str, cap: u64) -> Result<u64, GgufError> {
    let (field, offset) = (Field::Fixed(part), source.at());
    let count = source.u64(field)?;
    if count > cap {
        return Err(field.corrupt(offset, format!("{count} is above the cap of {cap}")));
    }
    Ok(count)
}

fn pair<R: Read>(
    source: &mut Source<R>,
    scratch: &mut Vec<u8>,
    index: u64,
    gguf: &mut Gguf,
) -> Result<(), GgufError> {
    let (field, offset) = (Field::Key(index), source.at());
    let key = source.str(scratch, MAX_KEY_BYTES, field)?.to_owned();
    if key.is_empty() {
        return Err(field.corrupt(offset, "it is empty"));
    }
    let Entry::Vacant(slot) = gguf.pair_index.entry(key.clone()) else {
        return Err(field.corrupt(offset, format!("{} is a duplicate key", quoted(&key))));
    };

    let type_at = source.at();
    let type_field = Field::Pair("value type", &key);
    let kind = source.u32(type_field)?;
    let value_at = source.at();
    let value = if kind == ARRAY {
        Some(Value::Array(array(source, scratch, &key)?))
    } else {
        scalar(source, scratch, kind, Field::Pair("value", &key))?
    };
    let value = value.ok_or_else(|| unknown_type(type_field, type_at, kind))?;
    if key == ALIGNMENT_KEY {
        gguf.alignment = alignment(&value)
            .map_err(|reason| Field::Pair("value", &key).corrupt(value_at, reason))?;
    }
    slot.insert(gguf.pairs.len());
    gguf.pairs.push((key, value));
    Ok(())
}

fn unknown_type(field: Field, offset: u64, kind: u32) -> GgufError {
    field.corrupt(offset, format!("{kind} is not a value type of GGUF"))
}

fn alignment(value: &Value) -> Result<u64, String> {
    match value {
        Value::U32(v) if v.is_power_of_two() => Ok(u64::from(*v)),
        Value::U32(v) => Err(format!("{v} is not a power of two")),
        other => Err(format!("it must be of type u32, not {}", other.type_name())),
    }
}

/// A value that is not an array; `None` for a type the format does not have.
fn scalar<R: Read>(
    source: &mut Source<R>,
    scratch: &mut Vec<u8>,
    kind: u32,
    field: Field,
) -> Result<Option<Value>, GgufError> {
    Ok(Some(match kind {
        0 => Value::U8(u8::from_le_bytes(source.bytes(field)?)),
        1 => Value::I8(i8::from_le_bytes(source.bytes(field)?)),
        2 => Value::U16(u16::from_le_bytes(source.bytes(field)?)),
        3 => Value::I16(i16::from_le_bytes(source.bytes(field)?)),
        4 => Value::U32(u32::from_le_bytes(source.bytes(field)?)),
        5 => Value::I32(i32::from_le_bytes(source.bytes(field)?)),
        6 => Value::F32(f32::from_le_bytes(source.bytes(field)?)),
        7 => Value::Bool(bool_from(source.bytes(field)?)),
        8 => Value::String(source.text(scratch, MAX_STRING_BYTES, field)?.into_owned()),
        10 => Value::U64(u64::from_le_bytes(source.bytes(field)?)),
        11 => Value::I64(i64::from_le_bytes(source.bytes(field)?)),
        12 => Value::F64(f64::from_le_bytes(source.bytes(field)?)),
        _ => return Ok(None),
    }))
}

/// Any byte but 0 is true, as llama.cpp has it.
fn bool_from(byte: [u8; 1]) -> bool {
    byte != [0]
}

fn array<R: Read>(
    source: &mut Source<R>,
    scratch: &mut Vec<u8>,
    key: &str,
) -> Result<Array, GgufError> {
    let (kind_at, kind_field) = (source.at(), Field::Pair("element type", key));
    let kind = source.u32(kind_field)?;
    let (len_at, len_field) = (source.at(), Field::Pair("array length", key));
    let len = source.u64(len_field)?;
    if kind == ARRAY {
        return Err(kind_field.corrupt(kind_at, "arrays of arrays are not supported"));
    }
    if len > MAX_ARRAY_LEN {
        let reason = format!("{len} is above the cap of {MAX_ARRAY_LEN}");
        return Err(len_field.corrupt(len_at, reason));
    }
    let field = Field::Pair("elements", key);
    Ok(match kind {
        0 => Array::U8(source.numbers(len, field, u8::from_le_bytes)?),
        1 => Array::I8(source.numbers(len, field, i8::from_le_bytes)?),
        2 => Array::U16(source.numbers(len, field, u16::from_le_bytes)?),
        3 => Array::I16(source.numbers(len, field, i16::from_le_bytes)?),
        4 => Array::U32(source.numbers(len, field, u32::from_le_bytes)?),
        5 => Array::I32(source.numbers(len, field, i32::from_le_bytes)?),
        6 => Array::F32(source.numbers(len, field, f32::from_le_bytes)?),
        7 => Array::Bool(source.numbers(len, field, bool_from)?),
        8 => {
            // Each string takes at least its length; `len` is capped, so this cannot overflow.
            source.expect(len * 8, field)?;
            let mut strings = StrArray::default();
            for index in 0..len {
                let field = Field::Element(index, key);
                strings.push(&source.text(scratch, MAX_STRING_BYTES, field)?);
            }
            Array::String(strings)
        }
        10 => Array::U64(source.numbers(len, field, u64::from_le_bytes)?),
        11 => Array::I64(source.numbers(len, field, i64::from_le_bytes)?),
        12 => Array::F64(source.numbers(len, field, f64::from_le_bytes)?),
        _ => return Err(unknown_type(kind_field, kind_at, kind)),
    })
}

/// Reads one directory entry. `expected` is where its data must start, from the start of the data;
/// the return value is where the next tensor's must.
fn tensor<R: Read>(
    source: &mut Source<R>,
    scratch: &mut Vec<u8>,
    index: u64,
    expected: u64,
    gguf: &mut Gguf,
) -> Result<u64, GgufError> {
    let (field, offset) = (Field::TensorName(index), source.at());
    let name = source
        .str(scratch, MAX_TENSOR_NAME_BYTES, field)?
        .to_owned();
    let Entry::Vacant(slot) = gguf.tensor_index.entry(name.clone()) else {
        return Err(field.corrupt(offset, format!("{} is a duplicate name", quoted(&name))));
    };

    let (shape_at, shape_field) = (source.at(), Field::Tensor("shape", &name));
    let (dims, elements) = shape(source, shape_field)?;

    let type_at = source.at();
    let kind = TensorType(source.u32(Field::Tensor("type", &name))?);
    let (block_elements, block_bytes) =
        kind.block_size()
            .ok_or_else(|| GgufError::TensorTypeUnsupported {
                tensor: quoted(&name),
                offset: type_at,
                kind: kind.name().into_owned(),
            })?;
    let row = dims.first().copied().unwrap_or(1);
    if row % block_elements != 0 {
        let reason = format!(
            "rows of {row} elements are not whole blocks of {block_elements}, as {kind} needs"
        );
        return Err(shape_field.corrupt(shape_at, reason));
    }
    // `shape` kept the elements in 63 bits; blocks of more bytes than elements can still overflow.
    let bytes = (elements / block_elements)
        .checked_mul(block_bytes)
        .ok_or_else(|| shape_field.corrupt(shape_at, "its size in bytes overflows 64 bits"))?;

    let (offset_at, offset_field) = (source.at(), Field::Tensor("data offset", &name));
    let offset = source.u64(offset_field)?;
    if offset % gguf.alignment != 0 {
        let reason = format!(
            "{offset} is not a multiple of the alignment {}",
            gguf.alignment
        );
        return Err(offset_field.corrupt(offset_at, reason));
    }
    if offset != expected {
        let reason = format!("{offset} does not follow the tensor before it (expected {expected})");
        return Err(offset_field.corrupt(offset_at, reason));
    }
    let next = offset
        .checked_add(bytes)
        .and_then(|end| end.checked_next_multiple_of(gguf.alignment))
        .ok_or_else(|| offset_field.corrupt(offset_at, "the end of its data overflows 64 bits"))?;

    slot.insert(gguf.tensors.len());
    gguf.tensors.push(TensorInfo {
        name,
        dims,
        kind,
        offset,
        bytes,
    });
    Ok(next)
}

/// Dimensions and the number of elements, which fits in 63 bits.
fn shape<R: Read>(source: &mut Source<R>, field: Field) -> Result<(Vec<u64>, u64), GgufError> {
    let start = source.at();
    let count = source.u32(field)?;
    if count > MAX_DIMS {
        let reason = format!("{count} dimensions are above the cap of {MAX_DIMS}");
        return Err(field.corrupt(start, reason));
    }
    let mut dims = Vec::new();
    let mut elements = 1u64;
    for _ in 0..count {
        let dim = source.u64(field)?;
        dims.push(dim);
        elements = elements
            .checked_mul(dim)
            .filter(|&product| product.max(dim) <= i64::MAX as u64)
            .ok_or_else(|| field.corrupt(start, format!("{dims:?} elements overflow 63 bits")))?;
    }
    Ok((dims, elements))
}

/// Turns offsets from the start of the data into offsets from the start of the file, and checks
/// that the file is long enough for all of them.
fn place<R: Read>(source: &Source<R>, gguf: &mut Gguf) -> Result<(), GgufError> {
    if gguf.tensors.is_empty() {
        return Ok(());
    }
    let header_end = source.at();
    let overflow = |name: &str| {
        Field::Tensor("data", name).corrupt(header_end, "its place in the file overflows 64 bits")
    };
    let mut need = header_end;
    let mut cut = None;
    for tensor in &mut gguf.tensors {
        let start = header_end
            .checked_next_multiple_of(gguf.alignment)
            .and_then(|data| data.checked_add(tensor.offset))
            .ok_or_else(|| overflow(&tensor.name))?;
        let end = start
            .checked_add(tensor.bytes)
            .ok_or_else(|| overflow(&tensor.name))?;
        tensor.offset = start;
        need = need.max(end);
        if end > source.len() && cut.is_none() {
            cut = Some((quoted(&tensor.name), start));
        }
    }
    match cut {
        None => Ok(()),
        Some((tensor, offset)) => Err(GgufError::TensorDataTruncated {
            tensor,
            offset,
            need,
            have: source.len(),
        }),
    }
}
