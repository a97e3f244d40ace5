//! Files that are written whole or not at all: beside the old one, then renamed over it, so that
//! neither a full disk nor a kill costs the old file, and nobody reads half of the new one.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Writes a file, in place of what is at `path`. A link stays one; a pipe or a device, which nothing
/// could take the place of, is written to.
///
/// # Errors
/// [`Error::Io`] when it cannot be written; what was there is as it was.
pub fn save(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    save_by(path, |out| out.write_all(content.as_ref()))
}

/// The same for content that is written bit by bit.
///
/// # Errors
/// As [`save`].
pub fn save_by(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    write(path, content).map_err(Error::io(path))
}

/// Checks that [`save`] could write at `path`, before the work whose outcome it is to hold. Leaves
/// nothing behind.
///
/// # Errors
/// [`Error::Io`] for a folder that is not there, say, or one that nobody may write to.
pub fn check_output(path: &Path) -> Result<()> {
    let target = resolved(path);
    let writable = match target.exists() {
        true => fs::OpenOptions::new().append(true).open(&target).map(drop),
        false => Ok(()),
    };
    let beside = || match fs::metadata(&target) {
        Ok(found) if !found.is_file() => Ok(()),
        _ => draft(&target).map(drop),
    };
    writable.and_then(|()| beside()).map_err(Error::io(path))
}

fn write(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let target = resolved(path);
    let old = fs::metadata(&target).ok();
    if old.as_ref().is_some_and(|old| !old.is_file()) {
        return content(&mut fs::OpenOptions::new().write(true).open(target)?);
    }
    let mut draft = draft(&target)?;
    if let Some(old) = old {
        draft.as_file().set_permissions(old.permissions())?;
    }
    let mut out = io::BufWriter::new(draft.as_file_mut());
    content(&mut out)?;
    out.flush()?;
    drop(out);
    // A rename may reach the disk before the content does.
    draft.as_file().sync_all()?;
    draft.persist(target).map_err(|e| e.error)?;
    Ok(())
}

/// Where a link leads.
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// A new file beside `target`, which is removed unless it takes that one's place.
fn draft(target: &Path) -> io::Result<NamedTempFile> {
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Those of any new file, less what the user's mask takes.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder.unwrap_or(Path::new(".")))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_takes_the_place_of_the_old_one_with_its_permissions_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a"), folder.path().join("b"));
        save(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        save(&link, "new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert!(link.is_symlink());
        assert_eq!(names(folder.path()), ["a", "b"]);
    }

    #[test]
    fn a_device_stays_one() {
        let null = Path::new("/dev/null");
        check_output(null).unwrap();
        save(null, "gone").unwrap();
        assert!(!fs::metadata(null).unwrap().is_file());
    }

    #[test]
    fn what_could_not_be_written_is_told_before_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        check_output(&folder.path().join("new")).unwrap();
        assert!(names(folder.path()).is_empty());
        let missing = folder.path().join("none/new");
        for refused in [&missing, folder.path()] {
            let error = check_output(refused).unwrap_err().to_string();
            assert!(error.starts_with(&refused.display().to_string()), "{error}");
        }
        assert!(save(&missing, "x").is_err());
    }
}
