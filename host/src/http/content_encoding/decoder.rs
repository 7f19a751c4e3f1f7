//! A decoder that is fed: no I/O, a bounded amount of work a call, state of about 50 kB whatever it
//! is fed.

use flate2::{Decompress, FlushDecompress, Status};

use super::Coding;

/// Bits of the largest window there is.
const WINDOW: u8 = 15;

/// Decodes one body.
#[derive(Debug)]
pub struct Decoder {
    inflate: Decompress,
    state: State,
    coding: Coding,
}

#[derive(Debug)]
enum State {
    /// What came of the two bytes by which the zlib format is told from raw deflate.
    Start(Option<u8>),
    Stream,
    /// The end of the stream; of gzip another member may follow (RFC 1952, 2.2).
    End,
}

impl Decoder {
    #[must_use]
    pub fn new(coding: Coding) -> Self {
        let (inflate, state) = match coding {
            Coding::Gzip => (Decompress::new_gzip(WINDOW), State::Stream),
            Coding::Deflate => (Decompress::new(true), State::Start(None)),
        };
        Self { inflate, state, coding }
    }

    /// Decodes from the front of `input` into what room `output` has. Returns once the one is used
    /// up or the other full, and at the end of a member; if it is full, more may come of no more
    /// input.
    ///
    /// # Errors
    /// What is wrong with the input.
    pub fn decode(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Result<(), &'static str> {
        loop {
            match self.state {
                State::Start(first) => {
                    let Some((&byte, rest)) = input.split_first() else { return Ok(()) };
                    *input = rest;
                    let Some(first) = first else {
                        self.state = State::Start(Some(byte));
                        continue;
                    };
                    if !is_zlib(first, byte) {
                        self.inflate = Decompress::new(false);
                    }
                    self.state = State::Stream;
                    let mut head = &[first, byte][..];
                    while !head.is_empty() {
                        self.inflate(&mut head, output)?;
                        if matches!(self.state, State::End) && !head.is_empty() {
                            return Err(TRAILING);
                        }
                    }
                }
                State::Stream => {
                    self.inflate(input, output)?;
                    if matches!(self.state, State::Stream)
                        && (input.is_empty() || output.len() == output.capacity())
                    {
                        return Ok(());
                    }
                }
                State::End if input.is_empty() => return Ok(()),
                State::End if self.coding == Coding::Gzip => {
                    self.inflate.reset(true);
                    self.state = State::Stream;
                    return Ok(());
                }
                State::End => return Err(TRAILING),
            }
        }
    }

    fn inflate(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Result<(), &'static str> {
        let before = self.inflate.total_in();
        let status = self.inflate.decompress_vec(input, output, FlushDecompress::None);
        let used = usize::try_from(self.inflate.total_in() - before).unwrap_or(usize::MAX);
        *input = input.get(used..).unwrap_or_default();
        match status {
            Ok(Status::StreamEnd) => self.state = State::End,
            Ok(Status::Ok | Status::BufError) => {}
            Err(_) => return Err("the data is corrupt, or something follows it"),
        }
        Ok(())
    }

    /// Whether the input may end here.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        matches!(self.state, State::End)
    }
}

const TRAILING: &str = "something follows the end of the data";

/// Whether a stream that begins so is in the zlib format (RFC 1950, 2.2). Raw deflate begins so only
/// with a stored block whose padding is not zero, which no encoder writes.
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

    /// What comes of `input` in pieces, with room for so many bytes a call.
    fn decoded(coding: Coding, input: &[u8], piece: usize, room: usize) -> Option<Vec<u8>> {
        let mut decoder = Decoder::new(coding);
        let mut all = Vec::new();
        for mut piece in input.chunks(piece) {
            loop {
                let mut output = Vec::with_capacity(room);
                let room = output.capacity();
                decoder.decode(&mut piece, &mut output).ok()?;
                assert_eq!(output.capacity(), room, "it takes no more than it is given");
                all.extend_from_slice(&output);
                if piece.is_empty() && output.len() < room {
                    break;
                }
            }
        }
        decoder.is_at_end().then_some(all)
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_in_any_pieces(
            data in proptest::collection::vec(0_u8..4, 0..3000),
            piece in 1_usize..400,
            room in 1_usize..400,
            cut in any::<prop::sample::Index>(),
        ) {
            for (coding, input) in [
                (Coding::Gzip, gzip(&data)),
                (Coding::Deflate, zlib(&data)),
                (Coding::Deflate, raw(&data)),
            ] {
                prop_assert_eq!(decoded(coding, &input, piece, room), Some(data.clone()));
                let end = cut.index(input.len());
                prop_assert_eq!(decoded(coding, &input[..end], piece, room), None);
                let with_more = [&input[..], b"\0"].concat();
                prop_assert_eq!(decoded(coding, &with_more, piece, room), None);
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(
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
    fn members_of_gzip_follow_one_another() {
        let input = [gzip(b"one, "), gzip(b""), gzip(b"two")].concat();
        for piece in [1, 7, input.len()] {
            assert_eq!(decoded(Coding::Gzip, &input, piece, 64).unwrap(), b"one, two");
        }
        assert_eq!(decoded(Coding::Gzip, &input[..input.len() - 1], 7, 64), None);
        let twice = [zlib(b"one"), zlib(b"two")].concat();
        assert_eq!(decoded(Coding::Deflate, &twice, 7, 64), None, "zlib has no members");
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let data = b"5.1,3.5,1.4,0.2\n".repeat(20);
        for (coding, input) in [(Coding::Gzip, gzip(&data)), (Coding::Deflate, zlib(&data))] {
            // In gzip's head are flags, times and a system, which say nothing of the data.
            for at in (0..input.len()).filter(|at| coding != Coding::Gzip || *at > 9) {
                let mut changed = input.clone();
                changed[at] ^= 0x10;
                let result = decoded(coding, &changed, 100, 4096);
                assert!(result.is_none_or(|result| result == data), "byte {at}");
            }
        }
    }
}
