//! Small files that are there whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Read and written by its owner alone.
pub const PRIVATE: u32 = 0o600;

/// Puts a file in its place, over one that is there, whole and durably: under a temporary name beside it (`NAME.tmp`) first.
///
/// # Errors
/// The file's directory is not there or not writable, or the disk is full; the former file is then as it was.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    // One that a crash left was never the file; whatever else has its name is not written through.
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(PRIVATE).open(&temporary)?;
    file.write_all(bytes)?;
    // What the process creates may be its owner's alone by its mask.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_takes_the_place_of_another_and_nothing_is_written_through_its_temporary_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("kept.json"), dir.path().join("other"));
        fs::write(&other, "theirs").unwrap();
        symlink(&other, dir.path().join("kept.json.tmp")).unwrap();
        write(&path, b"one", PRIVATE).unwrap();
        write(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read(&other).unwrap(), b"theirs");
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn where_it_cannot_be_written_the_former_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept");
        write(&path, b"one", PRIVATE).unwrap();
        fs::create_dir(dir.path().join("kept.tmp")).unwrap();
        write(&path, b"two", PRIVATE).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }
}
