//! The folder of one demo: certificates, keys and logs, gone afterwards.

use std::env;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// The lines of each log that are printed after a failure.
const LINES_PRINTED: usize = 20;

/// A folder that nobody else can read; removed when it is dropped, unless it is to be kept.
pub(crate) struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// A new folder among the machine's temporary files.
    pub(crate) fn new(keep: bool) -> io::Result<Folder> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("dist-agent-demo-{}-{number}", process::id()));
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Folder { path, keep })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file in it that a program's error output goes to.
    pub(crate) fn log_of(&self, program: &str) -> PathBuf {
        self.path.join(format!("{program}.log"))
    }

    /// Prints the end of every log, for whoever has to find out what went wrong.
    pub(crate) fn print_logs(&self) {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let mut logs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        for log in logs {
            let text =
                fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            if !lines.is_empty() {
                eprintln!("── the end of {}", log.file_name().unwrap_or_default().to_string_lossy());
                lines
                    .iter()
                    .skip(lines.len().saturating_sub(LINES_PRINTED))
                    .for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            // Whoever piped the output away may be gone by now.
            let _ = writeln!(io::stdout(), "kept: {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("{} is left behind: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_gone_after_the_demo_unless_it_is_to_be_kept() {
        let path = {
            let folder = Folder::new(false).unwrap();
            fs::write(folder.log_of("node-1"), "a line").unwrap();
            folder.path().to_owned()
        };
        assert!(!path.exists());
        let path = Folder::new(true).unwrap().path().to_owned();
        assert!(path.exists());
        fs::remove_dir_all(path).unwrap();
    }
}
