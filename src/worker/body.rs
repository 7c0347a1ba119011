//! A request body while it arrives: in memory at first, then in an unlinked file, so that slow and
//! large uploads cost neither Python's time nor the worker's memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::http::{Chunked, Refusal};
use crate::wsgi::RequestBody;

/// How the end is recognised.
enum Rest {
    Length(u64),
    Chunked(Chunked),
    /// The caller knows.
    Unsaid,
}

enum Store {
    Memory(Vec<u8>),
    File(File, u64),
}

pub struct Body {
    rest: Rest,
    store: Store,
}

/// Why a body cannot be received.
#[derive(Debug)]
pub enum Failure {
    Refused(Refusal),
    /// The temporary file cannot be written: a full disk, mostly.
    Storage(io::Error),
}

/// Where bytes go, and how many may stay in memory.
pub struct Storage<'a> {
    pub memory: usize,
    pub directory: &'a Path,
}

/// What one piece of input came to.
pub struct Progress {
    pub consumed: usize,
    pub done: bool,
}

pub enum Received {
    Memory(Vec<u8>),
    File(File, u64),
}

impl Received {
    /// For the application; `memory` keeps what is not in a file.
    pub fn lend(self, memory: &mut Vec<u8>) -> RequestBody<'_> {
        match self {
            Received::Memory(bytes) => {
                *memory = bytes;
                RequestBody::Memory(memory)
            }
            Received::File(file, length) => RequestBody::File(file, length),
        }
    }
}

impl Body {
    pub fn of_length(length: u64) -> Self {
        Self::new(Rest::Length(length))
    }

    pub fn chunked(limit: u64) -> Self {
        Self::new(Rest::Chunked(Chunked::new(limit)))
    }

    /// Of which the caller gives what belongs to it.
    pub fn open() -> Self {
        Self::new(Rest::Unsaid)
    }

    fn new(rest: Rest) -> Self {
        Self {
            rest,
            store: Store::Memory(Vec::new()),
        }
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        match &self.store {
            Store::Memory(bytes) => bytes.len() as u64,
            Store::File(_, length) => *length,
        }
    }

    /// Bytes held in memory.
    pub fn in_memory(&self) -> usize {
        match &self.store {
            Store::Memory(bytes) => bytes.capacity(),
            Store::File(..) => 0,
        }
    }

    /// The body as the client has sent it so far, where it is in memory and was not coded.
    pub fn as_received(&self) -> Option<&[u8]> {
        match (&self.rest, &self.store) {
            (Rest::Length(_), Store::Memory(bytes)) => Some(bytes),
            _ => None,
        }
    }

    pub fn take(&mut self, input: &[u8], storage: &Storage<'_>) -> Result<Progress, Failure> {
        let store = &mut self.store;
        match &mut self.rest {
            Rest::Length(left) => {
                let take = usize::try_from(*left).map_or(input.len(), |n| n.min(input.len()));
                store
                    .append(&input[..take], storage)
                    .map_err(Failure::Storage)?;
                *left -= take as u64;
                Ok(Progress {
                    consumed: take,
                    done: *left == 0,
                })
            }
            Rest::Unsaid => {
                store.append(input, storage).map_err(Failure::Storage)?;
                Ok(Progress {
                    consumed: input.len(),
                    done: false,
                })
            }
            Rest::Chunked(decoder) => {
                // A body of tiny chunks is not to cost a write each.
                let mut data = Vec::with_capacity(input.len());
                let step = decoder
                    .decode(input, &mut |piece| data.extend_from_slice(piece))
                    .map_err(Failure::Refused)?;
                store.append(&data, storage).map_err(Failure::Storage)?;
                Ok(Progress {
                    consumed: step.consumed,
                    done: step.done,
                })
            }
        }
    }

    pub fn finish(self) -> io::Result<Received> {
        Ok(match self.store {
            Store::Memory(bytes) => Received::Memory(bytes),
            Store::File(mut file, length) => {
                file.seek(SeekFrom::Start(0))?;
                Received::File(file, length)
            }
        })
    }
}

impl Store {
    fn append(&mut self, data: &[u8], storage: &Storage<'_>) -> io::Result<()> {
        match self {
            Store::Memory(bytes) if bytes.len() + data.len() <= storage.memory => {
                bytes.extend_from_slice(data);
                Ok(())
            }
            Store::Memory(bytes) => {
                let mut file = unlinked(storage.directory)?;
                file.write_all(bytes)?;
                file.write_all(data)?;
                let length = (bytes.len() + data.len()) as u64;
                *self = Store::File(file, length);
                Ok(())
            }
            Store::File(file, length) => {
                file.write_all(data)?;
                *length += data.len() as u64;
                Ok(())
            }
        }
    }
}

/// A file without a name: nothing is left behind however the process ends.
pub fn unlinked(directory: &Path) -> io::Result<File> {
    let nameless = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(directory);
    match nameless {
        Ok(file) => Ok(file),
        // open(2): not every file system has O_TMPFILE (EOPNOTSUPP, EISDIR on old kernels).
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)
            ) =>
        {
            named_then_unlinked(directory)
        }
        Err(error) => Err(error),
    }
}

fn named_then_unlinked(directory: &Path) -> io::Result<File> {
    for attempt in 0..100 {
        let name = format!("rswsgi-body-{}-{attempt}", std::process::id());
        let path = directory.join(name);
        let created = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match created {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn receive(mut body: Body, pieces: &[&[u8]], memory: usize) -> (Received, usize) {
        let directory = std::env::temp_dir();
        let storage = Storage {
            memory,
            directory: &directory,
        };
        let mut done = false;
        let mut over = 0;
        for piece in pieces {
            let progress = body.take(piece, &storage).unwrap();
            done = progress.done;
            over = piece.len() - progress.consumed;
        }
        assert!(done);
        (body.finish().unwrap(), over)
    }

    fn bytes(received: Received) -> (Vec<u8>, &'static str) {
        match received {
            Received::Memory(bytes) => (bytes, "memory"),
            Received::File(mut file, length) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes.len() as u64, length);
                (bytes, "file")
            }
        }
    }

    #[test]
    fn stays_in_memory_up_to_the_bound_and_goes_to_a_file_beyond() {
        for (memory, place) in [(6, "memory"), (5, "file"), (0, "file")] {
            let (received, over) = receive(Body::of_length(6), &[b"abc", b"def+"], memory);
            assert_eq!(bytes(received), (b"abcdef".to_vec(), place));
            assert_eq!(over, 1);
        }
    }

    #[test]
    fn chunks_are_joined_and_what_follows_is_left() {
        let pieces: [&[u8]; 2] = [b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\nGET"];
        let (received, over) = receive(Body::chunked(100), &pieces, 4);
        assert_eq!(bytes(received), (b"abcde".to_vec(), "file"));
        assert_eq!(over, 3);
    }

    #[test]
    fn a_file_can_also_be_made_where_nameless_ones_are_not_possible() {
        let mut file = named_then_unlinked(&std::env::temp_dir()).unwrap();
        file.write_all(b"x").unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!(file.metadata().unwrap().nlink(), 0);
    }

    #[test]
    fn a_missing_directory_is_a_storage_failure() {
        let storage = Storage {
            memory: 0,
            directory: Path::new("/nonexistent"),
        };
        let failure = Body::of_length(1).take(b"x", &storage).err().unwrap();
        assert!(matches!(failure, Failure::Storage(_)));
    }
}
