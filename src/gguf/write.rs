//! Copies a GGUF file without some of its tensors, everything else byte for byte.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::Gguf;

/// Where the metadata begin: behind magic, version and the two counts.
const PAIRS_AT: u64 = 24;

impl Gguf {
    /// Writes the file at `source`, whose header this is, without the tensors that `leave_out` names.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn copy_without(
        &self,
        source: &Path,
        leave_out: &dyn Fn(&str) -> bool,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let mut file = File::open(source)?;
        let mut copy = |from: u64, bytes: u64, out: &mut dyn Write| -> io::Result<()> {
            file.seek(SeekFrom::Start(from))?;
            match io::copy(&mut (&mut file).take(bytes), out)? {
                copied if copied == bytes => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        let kept: Vec<_> = self
            .tensors
            .iter()
            .filter(|t| !leave_out(&t.name))
            .collect();
        out.write_all(b"GGUF")?;
        out.write_all(&self.version.to_le_bytes())?;
        out.write_all(&(kept.len() as u64).to_le_bytes())?;
        out.write_all(&(self.pairs.len() as u64).to_le_bytes())?;
        copy(PAIRS_AT, self.directory_at - PAIRS_AT, out)?;
        let (mut at, mut data) = (self.directory_at, 0_u64);
        for tensor in &kept {
            let mut entry = (tensor.name.len() as u64).to_le_bytes().to_vec();
            entry.extend(tensor.name.as_bytes());
            entry.extend((tensor.dims.len() as u32).to_le_bytes());
            entry.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            entry.extend(tensor.kind.0.to_le_bytes());
            entry.extend(data.to_le_bytes());
            out.write_all(&entry)?;
            at += entry.len() as u64;
            data = (data + tensor.bytes).next_multiple_of(self.alignment);
        }
        let pad = |at: u64, out: &mut dyn Write| {
            let zeros = at.next_multiple_of(self.alignment) - at;
            io::copy(&mut io::repeat(0).take(zeros), out)
        };
        pad(at, out)?;
        for tensor in &kept {
            copy(tensor.offset, tensor.bytes, out)?;
            pad(tensor.bytes, out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::gguf::testing::{parse, small};

    #[test]
    fn what_is_kept_keeps_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let mut bytes = small().bytes();
        let last = bytes.len() - 1;
        bytes[last] = 99;
        std::fs::write(&path, &bytes).unwrap();
        let gguf = parse(&bytes).unwrap();
        let mut all = Vec::new();
        gguf.copy_without(&path, &|_| false, &mut all).unwrap();
        assert_eq!(parse(&all).unwrap().tensors(), gguf.tensors());
        let mut some = Vec::new();
        let without = |name: &str| name == "output_norm.weight";
        gguf.copy_without(&path, &without, &mut some).unwrap();
        let found = parse(&some).unwrap();
        assert!(found.tensor("output_norm.weight").is_none());
        assert_eq!(found.tensors().len(), gguf.tensors().len() - 1);
        assert!(found.metadata().eq(gguf.metadata()));
        let data = |bytes: &[u8], gguf: &crate::gguf::Gguf| {
            let tensor = gguf.tensor("blk.0.ffn_up.weight").unwrap();
            let start = tensor.offset as usize;
            bytes[start..start + tensor.bytes as usize].to_vec()
        };
        assert_eq!(data(&some, &found), data(&bytes, &gguf));
        assert_eq!(data(&some, &found).last(), Some(&99));
    }
}
