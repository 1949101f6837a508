//! The real disk: a directory of the machine's file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskEntry, DiskError, DiskFile, DiskLock, DiskOperation, DiskReason, folder_of, is_name};
use crate::env::BoxFuture;

/// The file that a lock is taken on; it stays when the lock is given up.
const LOCK: &str = "lock";

/// A directory of the machine's file system.
///
/// Its lock is the operating system's lock on a file, which ends with the process, whatever ends that.
#[derive(Clone, Debug)]
pub struct RealDisk {
    directory: PathBuf,
}

impl RealDisk {
    /// The directory at `path`, which is made where there is none.
    ///
    /// # Errors
    ///
    /// When the file system says so.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DiskError> {
        let directory = path.as_ref().to_path_buf();
        let failed =
            |error| DiskError::from_io(&directory.display().to_string(), DiskOperation::Open, &error);
        fs::create_dir_all(&directory).map_err(failed)?;
        if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_directory(parent).map_err(failed)?;
        }
        Ok(Self { directory })
    }

    fn path(&self, file: &str, operation: DiskOperation) -> Result<PathBuf, DiskError> {
        if is_name(file) {
            Ok(self.directory.join(file))
        } else {
            Err(DiskError::new(file, operation, DiskReason::Other("not a name of a file".into())))
        }
    }

    fn make_folder(&self, folder: &str) -> io::Result<()> {
        let path = self.directory.join(folder);
        if folder.is_empty() || path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(path)?;
        sync_directory(&self.directory)
    }
}

impl Disk for RealDisk {
    fn place(&self) -> String {
        self.directory.display().to_string()
    }

    fn list(&self, folder: &str) -> Result<Vec<DiskEntry>, DiskError> {
        let failed = |error| DiskError::from_io(folder, DiskOperation::List, &error);
        let entries = match fs::read_dir(self.directory.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let metadata = entry.metadata().map_err(failed)?;
            if metadata.is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                files.push(DiskEntry { name, bytes: metadata.len() });
            }
        }
        files.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(files)
    }

    fn read_at(&self, file: &str, offset: u64, bytes_max: usize) -> Result<Vec<u8>, DiskError> {
        let path = self.path(file, DiskOperation::Read)?;
        let read = || -> io::Result<Vec<u8>> {
            let mut source = File::open(path)?;
            let left = source.metadata()?.len().saturating_sub(offset).min(bytes_max as u64);
            source.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::with_capacity(left as usize);
            source.take(left).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| DiskError::from_io(file, DiskOperation::Read, &error))
    }

    fn open(&self, file: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let path = self.path(file, DiskOperation::Open)?;
        let open = || -> io::Result<File> {
            self.make_folder(folder_of(file))?;
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
        };
        let opened = open().map_err(|error| DiskError::from_io(file, DiskOperation::Open, &error))?;
        Ok(Box::new(RealFile { name: Arc::from(file), file: Arc::new(opened), position: 0 }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let (old, new) = (self.path(from, DiskOperation::Rename)?, self.path(to, DiskOperation::Rename)?);
        fs::rename(old, new).map_err(|error| DiskError::from_io(from, DiskOperation::Rename, &error))
    }

    fn remove(&self, file: &str) -> Result<(), DiskError> {
        let path = self.path(file, DiskOperation::Remove)?;
        fs::remove_file(path).map_err(|error| DiskError::from_io(file, DiskOperation::Remove, &error))
    }

    fn sync_folder(&self, folder: &str) -> BoxFuture<Result<(), DiskError>> {
        let (path, folder) = (self.directory.join(folder), folder.to_owned());
        Box::pin(async move {
            sync_directory(&path).map_err(|error| DiskError::from_io(&folder, DiskOperation::Sync, &error))
        })
    }

    fn lock(&self) -> Result<DiskLock, DiskError> {
        let failed = |error: &io::Error| DiskError::from_io(LOCK, DiskOperation::Lock, error);
        let path = self.directory.join(LOCK);
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = open.map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => Ok(DiskLock::new(file)),
            Err(TryLockError::WouldBlock) => {
                let reason = DiskReason::InUse { directory: self.place() };
                Err(DiskError::new(LOCK, DiskOperation::Lock, reason))
            }
            Err(TryLockError::Error(error)) => Err(failed(&error)),
        }
    }
}

/// Names in a directory survive a crash from here on.
fn sync_directory(path: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened, and its file system writes names through.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

struct RealFile {
    name: Arc<str>,
    file: Arc<File>,
    /// Where the next byte would go without a seek.
    position: u64,
}

impl DiskFile for RealFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut file = &*self.file;
        let mut write = || -> io::Result<()> {
            if self.position != offset {
                file.seek(SeekFrom::Start(offset))?;
            }
            file.write_all(bytes)
        };
        let written = write();
        // Where a failed write left the file's position is unknown; no file is this long.
        self.position = if written.is_ok() { offset + bytes.len() as u64 } else { u64::MAX };
        written.map_err(|error| DiskError::from_io(&self.name, DiskOperation::Write, &error))
    }

    fn truncate(&mut self, bytes: u64) -> Result<(), DiskError> {
        let cut = self.file.set_len(bytes);
        cut.map_err(|error| DiskError::from_io(&self.name, DiskOperation::Truncate, &error))
    }

    fn sync(&mut self) -> BoxFuture<Result<(), DiskError>> {
        let (file, name) = (Arc::clone(&self.file), Arc::clone(&self.name));
        Box::pin(async move {
            file.sync_data().map_err(|error| DiskError::from_io(&name, DiskOperation::Sync, &error))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::replace;
    use super::*;

    fn done<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().expect("the real disk blocks instead of waiting")
    }

    #[test]
    fn a_file_is_written_read_cut_renamed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(directory.path().join("a/b")).unwrap();
        let mut file = disk.open("log/x").unwrap();
        file.write_at(2, b"cdef").unwrap();
        file.write_at(0, b"ab").unwrap();
        file.truncate(5).unwrap();
        done(file.sync()).unwrap();
        done(disk.sync_folder("log")).unwrap();
        assert_eq!(disk.read_at("log/x", 1, 99).unwrap(), b"bcde");
        assert_eq!(disk.read_at("log/x", 9, 99).unwrap(), b"");
        disk.rename("log/x", "log/y").unwrap();
        assert_eq!(disk.list("log").unwrap(), [DiskEntry { name: "y".into(), bytes: 5 }]);
        disk.remove("log/y").unwrap();
        assert_eq!(disk.read_at("log/y", 0, 1).unwrap_err().reason, DiskReason::NotFound);
        assert_eq!(disk.list("nowhere").unwrap(), []);
        assert!(disk.open("../x").is_err());
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(directory.path()).unwrap();
        done(replace(&disk, "node", b"a long first one")).unwrap();
        done(replace(&disk, "node", b"second")).unwrap();
        assert_eq!(disk.read_at("node", 0, 99).unwrap(), b"second");
        assert_eq!(disk.list("").unwrap().len(), 1);
    }

    #[test]
    fn a_directory_is_locked_by_one_holder_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(directory.path()).unwrap();
        let held = disk.lock().unwrap();
        let refused = disk.lock().unwrap_err();
        assert_eq!(refused.reason, DiskReason::InUse { directory: disk.place() });
        assert!(refused.to_string().contains("in use by another process"), "{refused}");
        drop(held);
        disk.lock().unwrap();
    }
}
