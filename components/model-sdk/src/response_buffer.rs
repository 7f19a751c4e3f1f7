//! Room for a response, before what it is made from is computed.

use crate::datatype::Datatype;
use crate::error::Error;
use crate::reserve::{ALLOCATION_BYTES, grow_large, room};
use crate::rows::Rows;
use crate::signature::{Signature, TensorSignature};
use crate::tensor::Tensor;

/// For an answer at first: that of one row fits.
pub(crate) const FIRST_BYTES: usize = 512;
/// Of an answer to a row: its names and brackets.
const ROW_BYTES: usize = 64;
/// Of an FP32 in an answer, with its comma.
const NUMBER_BYTES: usize = 16;
/// Of a prediction that is kept by itself: its tensors' names and dimensions.
const PREDICTION_BYTES: usize = 256;

/// Room for predictions from `rows`.
#[inline(never)]
pub(crate) fn for_rows(signature: &Signature, rows: &Rows<'_>) -> Result<Vec<u8>, Error> {
    let count = rows.count as usize;
    let labels = signature.labels.iter().map(|label| label.len() + NUMBER_BYTES + 3);
    let (labels, longest) = labels.fold((0, 0), |(sum, most), n| (sum + n, n.max(most)));
    let (mut numbers, mut bytes) = (0_usize, 0_usize);
    for output in &signature.outputs {
        let row = output.row().unwrap_or_default();
        numbers = row.saturating_add(numbers);
        // As the graph gives it, and as it is answered with.
        bytes = row.saturating_mul(output.datatype.size() * 2).saturating_add(bytes);
    }
    if !signature.takes_rows() {
        bytes += PREDICTION_BYTES;
    }
    let texts = if labels > 0 { labels + longest } else { numbers.saturating_mul(NUMBER_BYTES) };
    let size = if signature.is_wide() { 8 } else { 4 };
    let inputs = rows.features.len().saturating_mul(size);
    // Strings as an input, and packed.
    let strings = rows.bytes.iter().map(|string| 2 * (string.len() + ALLOCATION_BYTES));
    let inputs = strings.fold(inputs, usize::saturating_add);
    let tensors = inputs.saturating_add(count.saturating_mul(bytes));
    let answer = count.saturating_mul(texts.saturating_add(ROW_BYTES));
    room(answer.max(FIRST_BYTES), tensors)
}

/// Room for outputs of a graph for `rows` rows; those that go `binary` are not written out.
pub(crate) fn for_outputs(
    rows: u32,
    outputs: &[&TensorSignature],
    binary: &[bool],
) -> Result<Vec<u8>, Error> {
    let (mut answer, mut tensors) = (FIRST_BYTES, 0_usize);
    for (index, output) in outputs.iter().enumerate() {
        let elements = (rows as usize).saturating_mul(output.row().unwrap_or_default());
        let bytes = elements.saturating_mul(output.datatype.size());
        answer = answer.saturating_add(written(output.datatype, bytes, binary.get(index)));
        tensors = tensors.saturating_add(bytes);
    }
    room(answer, tensors)
}

/// The same once they are there: not every shape says how large they will be.
pub(crate) fn grow_for(
    room: &mut Vec<u8>,
    outputs: &[Tensor],
    binary: &[bool],
) -> Result<(), Error> {
    let written = outputs
        .iter()
        .enumerate()
        .map(|(index, output)| written(output.datatype, output.data.len(), binary.get(index)));
    let answer = written.fold(FIRST_BYTES, usize::saturating_add);
    grow_large(room, answer)
}

/// What `bytes` of a tensor are in an answer, about: an element of one byte is 3 digits and a comma at
/// most, an FP32 16 in all, an FP64 25.
fn written(datatype: Datatype, bytes: usize, binary: Option<&bool>) -> usize {
    if binary == Some(&true) {
        return bytes;
    }
    (bytes / datatype.size()).saturating_mul(4 + datatype.size() * 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::tests::{iris, signature};

    #[test]
    fn an_answer_fits_its_room() {
        let signature = iris();
        let longest = r#"{"prediction":"versicolor","probability":-1.17549435e-38,"probabilities":{"setosa":-1.17549435e-38,"versicolor":-1.17549435e-38,"virginica":-1.17549435e-38}},"#;
        for count in [1, 1000, 100_000] {
            let features = vec![1.0; 4 * count];
            let rows = Rows::of_features(u32::try_from(count).unwrap(), &features);
            let room = for_rows(&signature, &rows).unwrap().capacity();
            assert!(room >= count * longest.len(), "{count}");
            assert!(room <= FIRST_BYTES.max(count * 2 * longest.len()), "{count}");
        }
    }

    #[test]
    fn outputs_fit_their_room() {
        let signature = iris();
        let outputs: Vec<&TensorSignature> = signature.outputs.iter().collect();
        let longest = "-9223372036854775808,".len() + 3 * "-1.17549435e-38,".len();
        let room = for_outputs(10_000, &outputs, &[]).unwrap().capacity();
        assert!(room >= 10_000 * longest);
        let room = for_outputs(10_000, &outputs, &[true, true]).unwrap().capacity();
        assert!((200_000..10_000 * longest).contains(&room), "{room}");
        let tensors = [Tensor::bytes("words", &[50_000], &["é"; 50_000])];
        let mut room = Vec::new();
        grow_for(&mut room, &tensors, &[]).unwrap();
        assert!(room.capacity() >= 50_000 * "\"é\",".len());
    }

    /// A fixed axis is counted once, whatever it counts.
    #[test]
    fn elements_are_counted_once() {
        let model = "in x FP32 [10000]\nout y FP32 [10000]\nout z INT8 [2, 5000]";
        let fixed = signature(model);
        let outputs: Vec<&TensorSignature> = fixed.outputs.iter().collect();
        let room = for_outputs(1, &outputs, &[]).unwrap().capacity();
        assert!((10_000 * 16..10_000 * 32).contains(&room), "{room}");
        let features = vec![1.0; 10_000];
        let room = for_rows(&fixed, &Rows::of_features(1, &features)).unwrap().capacity();
        assert!((20_000 * 16..20_000 * 32).contains(&room), "{room}");
        let second =
            signature("in x FP32 [5, -1]\nbatch_axis = 1\nout y FP32 [1, -1, 4]\nbatch_axis = 1");
        let outputs: Vec<&TensorSignature> = second.outputs.iter().collect();
        let room = for_outputs(10_000, &outputs, &[]).unwrap().capacity();
        assert!((40_000 * 16..40_000 * 32).contains(&room), "{room}");
    }
}
