//! Sinks of JSON lines: a file, which is rotated by size, and standard output.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::BoxFuture;
use tracing::warn;

use super::settings::FileSettings;
use super::{OutboxEntry, Sink, SinkError};

/// A file of JSON lines.
pub(super) struct FileSink {
    settings: FileSettings,
    open: Option<OpenFile>,
    buffer: Vec<u8>,
}

struct OpenFile {
    file: File,
    /// Length of the complete lines, in bytes.
    length: u64,
    /// Device and inode.
    identity: (u64, u64),
}

impl FileSink {
    pub(super) fn new(settings: FileSettings) -> Self {
        Self { settings, open: None, buffer: Vec::new() }
    }

    /// Writes the lines in the buffer, all or none.
    fn write(&mut self) -> io::Result<()> {
        let FileSettings { path, max_size, max_files } = &self.settings;
        let added = self.buffer.len() as u64;
        // Another program may have moved or removed the file.
        if self.open.as_ref().is_some_and(|open| !open.is_at(path)) {
            self.open = None;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => OpenFile::open(path)?,
        };
        if open.length > 0 && open.length + added > *max_size {
            drop(open);
            rotate(path, *max_files)?;
            open = OpenFile::open(path)?;
        }
        let written = open.file.write_all(&self.buffer).and_then(|()| open.file.sync_data());
        if let Err(error) = written {
            // The batch is written again from its start: nothing of it should remain. If this fails
            // too, its complete lines are repeated.
            let _ = open.file.set_len(open.length);
            return Err(error);
        }
        open.length += added;
        self.open = Some(open);
        Ok(())
    }
}

impl OpenFile {
    /// Opens or creates the file at `path` to append to it. Truncates a last line that is not
    /// complete: its entry is written again. A file of anything else is an error.
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::options().create(true).read(true).append(true).open(path)?;
        let metadata = file.metadata()?;
        let mut first = [b'{'];
        if metadata.len() > 0 {
            file.read_exact_at(&mut first, 0)?;
        }
        if first != [b'{'] {
            let problem = "it exists, and has other content than JSON lines: write another path";
            return Err(io::Error::other(problem));
        }
        let length = complete_length(&mut file, metadata.len())?;
        if length < metadata.len() {
            warn!(
                path = %path.display(), bytes = metadata.len() - length,
                "the last line of the file is not complete: it is truncated"
            );
            file.set_len(length)?;
        }
        Ok(Self { file, length, identity: (metadata.dev(), metadata.ino()) })
    }

    fn is_at(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
    }
}

/// The length of the complete lines of `file`, in bytes.
fn complete_length(file: &mut File, length: u64) -> io::Result<u64> {
    const CHUNK: u64 = 64 << 10;
    let mut end = length;
    let mut chunk = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(start))?;
        chunk.clear();
        Read::by_ref(file).take(end - start).read_to_end(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Renames `path` to `<path>.1`, `<path>.1` to `<path>.2` and so on; the one beyond `max_files` is
/// replaced.
fn rotate(path: &Path, max_files: u32) -> io::Result<()> {
    for number in (1..max_files).rev() {
        match fs::rename(rotated(path, number), rotated(path, number + 1)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, rotated(path, 1))
}

/// The name of `path` after this many rotations.
pub(super) fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

impl Sink for FileSink {
    fn deliver<'a>(
        &'a mut self,
        _producer: &'a str,
        entries: &'a [OutboxEntry],
        delivered: &'a mut usize,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            self.buffer.clear();
            entries.iter().for_each(|entry| entry.event.write_line(&mut self.buffer));
            let written = self.write();
            written.map_err(|error| {
                SinkError::Retry(format!("{}: {error}", self.settings.path.display()))
            })?;
            *delivered = entries.len();
            Ok(())
        }
        .boxed()
    }
}

/// Standard output.
pub(super) struct StdoutSink;

impl Sink for StdoutSink {
    fn deliver<'a>(
        &'a mut self,
        _producer: &'a str,
        entries: &'a [OutboxEntry],
        delivered: &'a mut usize,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            let mut line = Vec::new();
            for entry in entries {
                line.clear();
                entry.event.write_line(&mut line);
                // Not through the library's handle: its lock would block others that print while a
                // reader does not read.
                write_line(&line)
                    .map_err(|error| SinkError::Retry(format!("standard output: {error}")))?;
                *delivered += 1;
            }
            Ok(())
        }
        .boxed()
    }
}

/// Writes a line to standard output, by as few writes as possible.
fn write_line(mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match rustix::io::write(io::stdout(), line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(bytes) => line = &line[bytes..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::feedback_entries;
    use super::*;

    fn settings(path: PathBuf, max_size: u64) -> FileSettings {
        FileSettings { path, max_size, max_files: 2 }
    }

    fn deliver(sink: &mut FileSink, entries: &[OutboxEntry]) -> Result<(), SinkError> {
        let mut delivered = 0;
        let result = sink.deliver("", entries, &mut delivered).now_or_never().unwrap();
        assert_eq!(delivered, if result.is_ok() { entries.len() } else { 0 });
        result
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn incomplete_last_line_is_truncated_when_the_file_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/log.jsonl");
        let entries = feedback_entries(3);
        deliver(&mut FileSink::new(settings(path.clone(), 1 << 20)), &entries).unwrap();
        let whole = fs::read(&path).unwrap();
        // Also one that is longer than what is read at a time.
        for torn in [b"{\"row\"".to_vec(), vec![b'a'; 200_000]] {
            fs::write(&path, [whole.clone(), torn].concat()).unwrap();
            deliver(&mut FileSink::new(settings(path.clone(), 1 << 20)), &entries[..1]).unwrap();
            assert_eq!(lines(&path).len(), 4);
        }
        fs::write(&path, "{torn").unwrap();
        deliver(&mut FileSink::new(settings(path.clone(), 1 << 20)), &entries).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn file_of_another_program_is_left_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "a note\nwithout an end").unwrap();
        let mut sink = FileSink::new(settings(path.clone(), 1 << 20));
        assert!(deliver(&mut sink, &feedback_entries(1)).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "a note\nwithout an end");
    }

    #[test]
    fn file_is_rotated_between_batches_and_the_oldest_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut sink = FileSink::new(settings(path, 400));
        for entry in feedback_entries(10) {
            deliver(&mut sink, &[entry.clone(), entry]).unwrap();
        }
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        let rows = |name: &str| -> Vec<_> {
            lines(&folder.path().join(name)).iter().map(|line| line["row"].clone()).collect()
        };
        let all = [rows("log.2"), rows("log.1"), rows("log")].concat();
        let last: Vec<_> = (0..10).flat_map(|row| [row, row]).collect();
        assert!(all.len() >= 6, "{all:?}");
        assert_eq!(all, last[20 - all.len()..], "in order, without gaps");
    }

    #[test]
    fn file_that_another_program_moved_is_created_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("moved"));
        let mut sink = FileSink::new(settings(path.clone(), 1 << 20));
        let entries = feedback_entries(2);
        deliver(&mut sink, &entries).unwrap();
        fs::rename(&path, &moved).unwrap();
        deliver(&mut sink, &entries[..1]).unwrap();
        assert_eq!((lines(&moved).len(), lines(&path).len()), (2, 1));
    }

    #[test]
    fn failed_batch_is_written_once_the_path_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::create_dir(&path).unwrap();
        let mut sink = FileSink::new(settings(path.clone(), 1 << 20));
        let entries = feedback_entries(2);
        let Err(SinkError::Retry(problem)) = deliver(&mut sink, &entries) else { panic!() };
        assert!(problem.starts_with(&path.display().to_string()), "{problem}");
        fs::remove_dir(&path).unwrap();
        // A device that is always full.
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let Err(SinkError::Retry(problem)) = deliver(&mut sink, &entries) else { panic!() };
        assert!(problem.contains("No space left on device"), "{problem}");
        fs::remove_file(&path).unwrap();
        deliver(&mut sink, &entries).unwrap();
        assert_eq!(lines(&path).len(), 2);
    }
}
