//! The elements of a tensor: nested arrays of its shape are flattened.

/// Maximum number of axes of a tensor; the protocols accept no more.
const MAX_AXES: usize = 16;

/// The size of each axis of a tensor, outermost first.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    axes: [u32; MAX_AXES],
    rank: usize,
}

impl Shape {
    /// Reads a canonical array; `None` if it holds anything but sizes.
    pub(super) fn read(form: &[u8]) -> Option<Self> {
        let sizes = str::from_utf8(form.strip_prefix(b"[")?.strip_suffix(b"]")?).ok()?;
        let mut shape = Self { axes: [0; MAX_AXES], rank: 0 };
        for size in sizes.split(',') {
            let (digits, zeros) = size.split_once('e').unwrap_or((size, "0"));
            let power = 10_u32.checked_pow(zeros.parse().ok()?)?;
            let size = digits.parse::<u32>().ok()?.checked_mul(power)?;
            *shape.axes.get_mut(shape.rank).filter(|_| size > 0)? = size;
            shape.rank += 1;
        }
        Some(shape)
    }

    /// Writes `data`, a canonical array, without its inner brackets if it is nested exactly by this
    /// shape; returns whether it is.
    pub(super) fn flatten(self, data: &[u8], into: &mut Vec<u8>) -> bool {
        let start = into.len();
        let flat = self.flat(data, into).is_some();
        if !flat {
            into.truncate(start);
        }
        flat
    }

    fn flat(self, data: &[u8], into: &mut Vec<u8>) -> Option<()> {
        let axes = self.axes.get(..self.rank)?;
        // The number of open arrays, and the number of items of each so far.
        let (mut depth, mut lengths) = (0, [0; MAX_AXES]);
        let (mut rest, mut before) = (data, b'[');
        while let [first, tail @ ..] = rest {
            let length = match first {
                b'[' => {
                    if depth > 0 {
                        lengths[depth - 1] += 1;
                    }
                    *lengths.get_mut(depth).filter(|_| depth < axes.len())? = 0;
                    depth += 1;
                    1
                }
                b']' => {
                    depth -= 1;
                    if lengths[depth] != axes[depth] {
                        return None;
                    }
                    1
                }
                b',' => 1,
                b'{' => return None,
                _ if depth < axes.len() => return None,
                b'"' => 1 + string_length(tail),
                _ => rest.iter().take_while(|byte| !matches!(byte, b',' | b']')).count(),
            };
            let (token, tail) = rest.split_at(length);
            if !matches!(first, b'[' | b']' | b',') {
                lengths[depth - 1] += 1;
                into.push(before);
                into.extend_from_slice(token);
                before = b',';
            }
            rest = tail;
        }
        into.push(b']');
        Some(())
    }
}

/// The length of a string, its closing quote included.
fn string_length(string: &[u8]) -> usize {
    let mut escaped = false;
    let end = string.iter().position(|&byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    end.map_or(string.len(), |end| end + 1)
}
