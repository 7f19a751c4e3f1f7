//! An incremental decoder without I/O. Each call does a bounded amount of work, and its state takes about
//! 50 kB for any input.

use flate2::{Decompress, FlushDecompress, Status};

use super::Coding;

/// Size of the largest window, in bits.
const WINDOW: u8 = 15;

/// Decodes one body.
#[derive(Debug)]
pub struct Decoder {
    inflate: Decompress,
    state: DecoderState,
    coding: Coding,
}

#[derive(Debug)]
enum DecoderState {
    /// Before the second of the two bytes that distinguish the zlib format from raw deflate.
    Start(Option<u8>),
    Stream,
    /// After the end of the stream. In gzip another member may follow (RFC 1952, 2.2).
    End,
}

impl Decoder {
    #[must_use]
    pub fn new(coding: Coding) -> Self {
        let (inflate, state) = match coding {
            Coding::Gzip => (Decompress::new_gzip(WINDOW), DecoderState::Stream),
            Coding::Deflate => (Decompress::new(true), DecoderState::Start(None)),
        };
        Self { inflate, state, coding }
    }

    /// Decodes from the front of `input` into the spare capacity of `output`. Returns when the input is
    /// consumed, the output is full, or a member ends. If the output is full, there may be more without
    /// more input.
    ///
    /// # Errors
    /// The problem of invalid input.
    pub fn decode(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Result<(), &'static str> {
        loop {
            match self.state {
                DecoderState::Start(first) => {
                    let Some((&byte, rest)) = input.split_first() else { return Ok(()) };
                    *input = rest;
                    let Some(first) = first else {
                        self.state = DecoderState::Start(Some(byte));
                        continue;
                    };
                    if !is_zlib(first, byte) {
                        self.inflate = Decompress::new(false);
                    }
                    self.state = DecoderState::Stream;
                    let mut head = &[first, byte][..];
                    while !head.is_empty() {
                        self.inflate(&mut head, output)?;
                        if matches!(self.state, DecoderState::End) && !head.is_empty() {
                            return Err(TRAILING);
                        }
                    }
                }
                DecoderState::Stream => {
                    self.inflate(input, output)?;
                    if matches!(self.state, DecoderState::Stream)
                        && (input.is_empty() || output.len() == output.capacity())
                    {
                        return Ok(());
                    }
                }
                DecoderState::End if input.is_empty() => return Ok(()),
                DecoderState::End if self.coding == Coding::Gzip => {
                    self.inflate.reset(true);
                    self.state = DecoderState::Stream;
                    return Ok(());
                }
                DecoderState::End => return Err(TRAILING),
            }
        }
    }

    fn inflate(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Result<(), &'static str> {
        let before = self.inflate.total_in();
        let status = self.inflate.decompress_vec(input, output, FlushDecompress::None);
        let used = usize::try_from(self.inflate.total_in() - before).unwrap_or(usize::MAX);
        *input = input.get(used..).unwrap_or_default();
        match status {
            Ok(Status::StreamEnd) => self.state = DecoderState::End,
            Ok(Status::Ok | Status::BufError) => {}
            Err(_) => return Err("the data is corrupt, or followed by trailing bytes"),
        }
        Ok(())
    }

    /// Whether the input may end here.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        matches!(self.state, DecoderState::End)
    }
}

const TRAILING: &str = "the data is followed by trailing bytes";

/// Whether a stream that starts with these bytes is in the zlib format (RFC 1950, 2.2). Raw deflate starts
/// with them only if its first block is stored with non-zero padding, which no encoder writes.
fn is_zlib(first: u8, second: u8) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    pub(crate) fn zlib(data: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(data: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// Decodes `input` in pieces, with an output capacity of that many bytes per call.
    fn decoded(coding: Coding, input: &[u8], piece: usize, capacity: usize) -> Option<Vec<u8>> {
        let mut decoder = Decoder::new(coding);
        let mut all = Vec::new();
        for mut piece in input.chunks(piece) {
            loop {
                let mut output = Vec::with_capacity(capacity);
                let capacity = output.capacity();
                decoder.decode(&mut piece, &mut output).ok()?;
                assert_eq!(output.capacity(), capacity, "the output is not reallocated");
                all.extend_from_slice(&output);
                if piece.is_empty() && output.len() < capacity {
                    break;
                }
            }
        }
        decoder.is_at_end().then_some(all)
    }

    proptest! {
        #[test]
        fn encoded_data_round_trips_in_any_pieces(
            data in proptest::collection::vec(0_u8..4, 0..3000),
            piece in 1_usize..400,
            capacity in 1_usize..400,
            cut in any::<prop::sample::Index>(),
        ) {
            for (coding, input) in [
                (Coding::Gzip, gzip(&data)),
                (Coding::Deflate, zlib(&data)),
                (Coding::Deflate, raw(&data)),
            ] {
                prop_assert_eq!(decoded(coding, &input, piece, capacity), Some(data.clone()));
                let end = cut.index(input.len());
                prop_assert_eq!(decoded(coding, &input[..end], piece, capacity), None);
                let with_more = [&input[..], b"\0"].concat();
                prop_assert_eq!(decoded(coding, &with_more, piece, capacity), None);
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(
            input in proptest::collection::vec(any::<u8>(), 0..200),
            piece in 1_usize..50,
        ) {
            for coding in [Coding::Gzip, Coding::Deflate] {
                for start in [&b""[..], b"\x1f\x8b\x08\0\0\0\0\0\0\0", b"\x78\x9c"] {
                    let _ = decoded(coding, &[start, &input].concat(), piece, 4096);
                }
            }
        }
    }

    #[test]
    fn consecutive_gzip_members_are_decoded() {
        let input = [gzip(b"one, "), gzip(b""), gzip(b"two")].concat();
        for piece in [1, 7, input.len()] {
            assert_eq!(decoded(Coding::Gzip, &input, piece, 64).unwrap(), b"one, two");
        }
        assert_eq!(decoded(Coding::Gzip, &input[..input.len() - 1], 7, 64), None);
        let twice = [zlib(b"one"), zlib(b"two")].concat();
        assert_eq!(decoded(Coding::Deflate, &twice, 7, 64), None, "zlib has no members");
    }

    #[test]
    fn changed_byte_is_detected() {
        let data = b"5.1,3.5,1.4,0.2\n".repeat(20);
        for (coding, input) in [(Coding::Gzip, gzip(&data)), (Coding::Deflate, zlib(&data))] {
            // The header of gzip has flags, a time and a system, which do not affect the data.
            for at in (0..input.len()).filter(|at| coding != Coding::Gzip || *at > 9) {
                let mut changed = input.clone();
                changed[at] ^= 0x10;
                let result = decoded(coding, &changed, 100, 4096);
                assert!(result.is_none_or(|result| result == data), "byte {at}");
            }
        }
    }
}
