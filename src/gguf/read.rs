//! Reads little-endian fields from a stream, knowing at every byte what is read and how much is
//! left.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufReader, Read};

use super::{GgufError, MAX_HEADER_BYTES};

/// Bytes asked of the operating system at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes of memory reserved ahead of the data, whatever length the file claims.
const CHUNK_BYTES: usize = 64 << 10;

/// What is being read. Borrowed and formatted only into errors: headers have a million fields.
#[derive(Clone, Copy)]
pub(super) enum Field<'a> {
    /// A part of the fixed header.
    Fixed(&'static str),
    /// The key of the metadata pair with this index.
    Key(u64),
    /// A part of the metadata pair with this key.
    Pair(&'static str, &'a str),
    /// An element of the array with this key.
    Element(u64, &'a str),
    /// The name of the tensor with this index.
    TensorName(u64),
    /// A part of the directory entry of the tensor with this name.
    Tensor(&'static str, &'a str),
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Field::Fixed(part) => write!(f, "the {part}"),
            Field::Key(index) => write!(f, "the key of metadata pair {index}"),
            Field::Pair(part, key) => write!(f, "the {part} of {}", quoted(key)),
            Field::Element(index, key) => write!(f, "element {index} of {}", quoted(key)),
            Field::TensorName(index) => write!(f, "the name of tensor {index}"),
            Field::Tensor(part, name) => write!(f, "the {part} of tensor {}", quoted(name)),
        }
    }
}

impl Field<'_> {
    /// The error that this field, which starts at `offset`, cannot be used.
    pub(super) fn corrupt(self, offset: u64, reason: impl Into<String>) -> GgufError {
        GgufError::Corrupt {
            field: self.to_string(),
            offset,
            reason: reason.into(),
        }
    }
}

/// A name from the file, quoted, escaped and short enough for a message on a terminal.
pub(super) fn quoted(name: &str) -> String {
    const SHOWN: usize = 80;
    match name.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{:?}…", &name[..cut]),
        None => format!("{name:?}"),
    }
}

/// A buffered stream with its position and the length of the file behind it.
pub(super) struct Source<R> {
    inner: BufReader<R>,
    at: u64,
    len: u64,
}

impl<R: Read> Source<R> {
    pub(super) fn new(reader: R, len: u64) -> Self {
        Source {
            inner: BufReader::with_capacity(BUFFER_BYTES, reader),
            at: 0,
            len,
        }
    }

    /// Bytes read so far, which is the offset of the next field.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Length of the file in bytes, as the caller gave it.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Reads up to `max` bytes: fewer only where the stream ends.
    pub(super) fn prefix(&mut self, max: u64) -> Result<Vec<u8>, GgufError> {
        let mut bytes = Vec::new();
        let offset = self.at;
        let result = self.inner.by_ref().take(max).read_to_end(&mut bytes);
        result.map_err(|cause| GgufError::Io { offset, cause })?;
        self.at += bytes.len() as u64;
        Ok(bytes)
    }

    /// Checks that `bytes` more are left in the file and allowed in a header.
    pub(super) fn expect(&self, bytes: u64, field: Field) -> Result<(), GgufError> {
        if bytes > MAX_HEADER_BYTES.saturating_sub(self.at) {
            let reason = format!("it takes the header above the cap of {MAX_HEADER_BYTES} bytes");
            return Err(field.corrupt(self.at, reason));
        }
        let have = self.len.saturating_sub(self.at);
        if bytes > have {
            return Err(self.truncated(bytes, have, field));
        }
        Ok(())
    }

    fn truncated(&self, need: u64, have: u64, field: Field) -> GgufError {
        GgufError::Truncated {
            field: field.to_string(),
            offset: self.at,
            need,
            have,
        }
    }

    /// Fills `out`. The length the caller gave may be wrong, so the end is met here too.
    fn fill(&mut self, out: &mut [u8], field: Field) -> Result<(), GgufError> {
        self.expect(out.len() as u64, field)?;
        let mut done = 0;
        while done < out.len() {
            match self.inner.read(&mut out[done..]) {
                Ok(0) => return Err(self.truncated(out.len() as u64, done as u64, field)),
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => {
                    let offset = self.at + done as u64;
                    return Err(GgufError::Io { offset, cause });
                }
            }
        }
        self.at += done as u64;
        Ok(())
    }

    /// The next `N` bytes.
    pub(super) fn bytes<const N: usize>(&mut self, field: Field) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        self.fill(&mut out, field)?;
        Ok(out)
    }

    pub(super) fn u32(&mut self, field: Field) -> Result<u32, GgufError> {
        self.bytes(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: Field) -> Result<u64, GgufError> {
        self.bytes(field).map(u64::from_le_bytes)
    }

    /// `count` elements of `N` bytes each. Memory grows with the data that arrives.
    pub(super) fn numbers<T, const N: usize>(
        &mut self,
        count: u64,
        field: Field,
        from: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, GgufError> {
        let mut left = count
            .checked_mul(N as u64)
            .ok_or_else(|| field.corrupt(self.at, format!("{count} elements overflow")))?;
        self.expect(left, field)?;
        let mut numbers = Vec::new();
        let mut chunk = vec![0; CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES))];
        while left > 0 {
            let size = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let part = &mut chunk[..size];
            self.fill(part, field)?;
            numbers.extend(part.as_chunks::<N>().0.iter().map(|bytes| from(*bytes)));
            left -= size as u64;
        }
        Ok(numbers)
    }

    /// A name of at most `cap` bytes, read into `scratch` and borrowed from it.
    pub(super) fn str<'s>(
        &mut self,
        scratch: &'s mut Vec<u8>,
        cap: u64,
        field: Field,
    ) -> Result<&'s str, GgufError> {
        let start = self.at;
        self.string(scratch, cap, field)?;
        std::str::from_utf8(scratch).map_err(|e| {
            let reason = format!("its byte {} is not UTF-8", e.valid_up_to());
            field.corrupt(start, reason)
        })
    }

    /// A value of at most `cap` bytes; those that are no UTF-8 become U+FFFD.
    pub(super) fn text<'s>(
        &mut self,
        scratch: &'s mut Vec<u8>,
        cap: u64,
        field: Field,
    ) -> Result<Cow<'s, str>, GgufError> {
        self.string(scratch, cap, field)?;
        Ok(String::from_utf8_lossy(scratch))
    }

    /// Reads a length of at most `cap`, and as many bytes into `scratch`.
    fn string(&mut self, scratch: &mut Vec<u8>, cap: u64, field: Field) -> Result<(), GgufError> {
        let start = self.at;
        let len = self.u64(field)?;
        if len > cap {
            let reason = format!("its length of {len} bytes is above the cap of {cap}");
            return Err(field.corrupt(start, reason));
        }
        self.expect(len, field)?;
        scratch.clear();
        let mut left = usize::try_from(len)
            .map_err(|_| field.corrupt(start, "its length does not fit in memory"))?;
        while left > 0 {
            let filled = scratch.len();
            let size = left.min(CHUNK_BYTES);
            scratch.resize(filled + size, 0);
            self.fill(&mut scratch[filled..], field)?;
            left -= size;
        }
        Ok(())
    }
}
