//! Standard output and standard error of commands whose work does not depend on a reader.

use std::io::{self, ErrorKind, Write};

/// An output whose reader may close it: `spinfer add model.onnx | head -1` adds the model all the same. What
/// is written after that is dropped.
#[derive(Debug)]
pub(super) struct OptionalOutput<W> {
    out: W,
    is_closed: bool,
}

impl<W: Write> OptionalOutput<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, is_closed: false }
    }

    fn attempt<T>(
        &mut self,
        dropped: T,
        write: impl FnOnce(&mut W) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.is_closed {
            return Ok(dropped);
        }
        match write(&mut self.out) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(dropped)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                Err(io::Error::new(error.kind(), format!("the output cannot be written: {error}")))
            }
            written => written,
        }
    }
}

impl<W: Write> Write for OptionalOutput<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(bytes.len(), |out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt((), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails with an error of this kind from the second write.
    struct Failing(ErrorKind, Vec<u8>);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1.is_empty() { self.1.write(bytes) } else { Err(self.0.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
        let mut out = OptionalOutput::new(Failing(ErrorKind::BrokenPipe, Vec::new()));
        for line in ["one", "two", "three"] {
            out.write_all(line.as_bytes()).unwrap();
        }
        out.flush().unwrap();
        assert_eq!(out.out.1, b"one");

        let mut out = OptionalOutput::new(Failing(ErrorKind::StorageFull, Vec::new()));
        out.write_all(b"one").unwrap();
        let error = out.write_all(b"two").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(error.to_string().contains("the output cannot be written"), "{error}");
    }
}
