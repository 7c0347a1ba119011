//! A log file, or one of the inherited streams.

#![forbid(unsafe_code)]

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::form::{self, Form};
use super::writer::Sink;
use super::{Destination, Entry};
use crate::sys::append::{Owner, append};

pub struct LogFile {
    file: File,
    /// `None`: an inherited stream, which cannot be opened anew.
    path: Option<PathBuf>,
    form: Form,
    /// A line was written in part only.
    is_torn: bool,
}

/// A log file of the user of an app. It is opened by the first line, and anew when it was moved away: who
/// owns it need not tell anybody.
pub struct UserFile {
    path: PathBuf,
    owner: Owner,
    form: Form,
    open: Option<LogFile>,
}

impl UserFile {
    pub fn new(path: PathBuf, owner: Owner, form: Form) -> Self {
        Self {
            path,
            owner,
            form,
            open: None,
        }
    }

    fn ready(&mut self) -> io::Result<&mut LogFile> {
        let same = self.open.take_if(|open| open.is_at(&self.path));
        let file = match same {
            Some(file) => file,
            None => LogFile {
                file: append(&self.path, &self.owner)?,
                path: Some(self.path.clone()),
                form: self.form,
                is_torn: false,
            },
        };
        Ok(self.open.insert(file))
    }
}

impl Sink for UserFile {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.ready()?.entry(entry)
    }

    fn lines(&mut self, lines: &[u8]) -> io::Result<()> {
        self.ready()?.lines(lines)
    }
}

impl LogFile {
    pub fn open(path: &Path, form: Form) -> io::Result<Self> {
        Ok(Self {
            file: append(path, &Owner::Ourselves)?,
            path: Some(path.to_owned()),
            form,
            is_torn: false,
        })
    }

    pub fn stream(which: &Destination, form: Form) -> io::Result<Self> {
        let fd = match which {
            Destination::Stdout => io::stdout().as_fd().try_clone_to_owned()?,
            _ => io::stderr().as_fd().try_clone_to_owned()?,
        };
        Ok(Self {
            file: fd.into(),
            path: None,
            form,
            is_torn: false,
        })
    }

    /// Whether the file has this name still.
    fn is_at(&self, path: &Path) -> bool {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let named = path.metadata().map(identity);
        let opened = self.file.metadata().map(identity);
        matches!((named, opened), (Ok(named), Ok(opened)) if named == opened)
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        let whole = bytes.len();
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_torn = bytes.len() < whole;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl Sink for LogFile {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.put(form::line(self.form, entry).as_bytes())
    }

    fn lines(&mut self, lines: &[u8]) -> io::Result<()> {
        self.put(lines)
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.file = append(path, &Owner::Ourselves)?;
            self.is_torn = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::form::tests::entry;

    #[test]
    fn a_file_that_was_moved_away_is_made_anew_when_it_is_reopened() {
        let directory = std::env::temp_dir().join(format!("rswsgi-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (path, moved) = (directory.join("log"), directory.join("log.1"));
        let mut file = LogFile::open(&path, Form::Text).unwrap();
        file.lines(b"one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        file.lines(b"two\n").unwrap();
        file.reopen().unwrap();
        file.entry(&entry("three")).unwrap();
        assert_eq!(std::fs::read(&moved).unwrap(), b"one\ntwo\n");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("warning: three\n"), "{text}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut full = LogFile::open(Path::new("/dev/full"), Form::Text).unwrap();
        let error = full.lines(b"x\n").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    }
}
