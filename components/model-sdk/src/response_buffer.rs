//! The buffer of a response, allocated before the outputs are computed: a response that does not fit into
//! memory is refused with 413.

use crate::datatype::Datatype;
use crate::error::Error;
use crate::reserve::{ALLOCATION_BYTES, buffer, reserve_large};
use crate::rows::Rows;
use crate::signature::{Signature, TensorSignature};
use crate::tensor::Tensor;

/// Minimum capacity, in bytes: enough for most responses to one row.
const MIN_BYTES: usize = 512;
/// JSON of one row without its values: keys and brackets, in bytes.
const ROW_BYTES: usize = 64;
/// Maximum length of an FP32 with its comma, in bytes.
const NUMBER_BYTES: usize = 16;
/// A prediction with tensors of its own: their names and dimensions, in bytes.
const PREDICTION_BYTES: usize = 256;

/// Allocates a buffer for the predictions of `rows`.
#[inline(never)]
pub(crate) fn for_rows(signature: &Signature, rows: &Rows<'_>) -> Result<Vec<u8>, Error> {
    let count = rows.count as usize;
    let labels = signature.labels.iter().map(|label| label.len() + NUMBER_BYTES + 3);
    let (labels, longest) = labels.fold((0, 0), |(sum, max), n| (sum + n, n.max(max)));
    let (mut numbers, mut bytes) = (0_usize, 0_usize);
    for output in &signature.outputs {
        let row = output.row().unwrap_or_default();
        numbers = row.saturating_add(numbers);
        // The graph's output and the prediction made from it.
        bytes = row.saturating_mul(output.datatype.size() * 2).saturating_add(bytes);
    }
    if !signature.takes_rows() {
        bytes += PREDICTION_BYTES;
    }
    let texts = if labels > 0 { labels + longest } else { numbers.saturating_mul(NUMBER_BYTES) };
    let size = if signature.is_wide() { 8 } else { 4 };
    let inputs = rows.features.len().saturating_mul(size);
    // Strings as a tensor, and packed.
    let strings = rows.bytes.iter().map(|string| 2 * (string.len() + ALLOCATION_BYTES));
    let inputs = strings.fold(inputs, usize::saturating_add);
    let tensors = inputs.saturating_add(count.saturating_mul(bytes));
    let json = count.saturating_mul(texts.saturating_add(ROW_BYTES));
    buffer(json.max(MIN_BYTES), tensors)
}

/// Allocates a buffer for the outputs of `rows` rows. `binary`: which outputs are binary data, by position.
pub(crate) fn for_outputs(
    rows: u32,
    outputs: &[&TensorSignature],
    binary: &[bool],
) -> Result<Vec<u8>, Error> {
    let (mut response, mut tensors) = (MIN_BYTES, 0_usize);
    for (index, output) in outputs.iter().enumerate() {
        let elements = (rows as usize).saturating_mul(output.row().unwrap_or_default());
        let bytes = elements.saturating_mul(output.datatype.size());
        response = response.saturating_add(encoded(output.datatype, bytes, binary.get(index)));
        tensors = tensors.saturating_add(bytes);
    }
    buffer(response, tensors)
}

/// Grows the buffer for computed outputs, whose size not every shape determines.
pub(crate) fn grow_for(
    buffer: &mut Vec<u8>,
    outputs: &[Tensor],
    binary: &[bool],
) -> Result<(), Error> {
    let encoded = outputs
        .iter()
        .enumerate()
        .map(|(index, output)| encoded(output.datatype, output.data.len(), binary.get(index)));
    reserve_large(buffer, encoded.fold(MIN_BYTES, usize::saturating_add))
}

/// Estimates the encoded length of `bytes` bytes of tensor data. In JSON an element of 1 byte takes up to 4
/// bytes with its comma, an FP32 16, an FP64 25.
fn encoded(datatype: Datatype, bytes: usize, binary: Option<&bool>) -> usize {
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
    fn predictions_fit_the_buffer() {
        let signature = iris();
        let longest = r#"{"prediction":"versicolor","probability":-1.17549435e-38,"probabilities":{"setosa":-1.17549435e-38,"versicolor":-1.17549435e-38,"virginica":-1.17549435e-38}},"#;
        for count in [1, 1000, 100_000] {
            let features = vec![1.0; 4 * count];
            let rows = Rows::of_features(u32::try_from(count).unwrap(), &features);
            let capacity = for_rows(&signature, &rows).unwrap().capacity();
            assert!(capacity >= count * longest.len(), "{count}");
            assert!(capacity <= MIN_BYTES.max(count * 2 * longest.len()), "{count}");
        }
    }

    #[test]
    fn outputs_fit_the_buffer() {
        let signature = iris();
        let outputs: Vec<&TensorSignature> = signature.outputs.iter().collect();
        let longest = "-9223372036854775808,".len() + 3 * "-1.17549435e-38,".len();
        let capacity = for_outputs(10_000, &outputs, &[]).unwrap().capacity();
        assert!(capacity >= 10_000 * longest);
        let capacity = for_outputs(10_000, &outputs, &[true, true]).unwrap().capacity();
        assert!((200_000..10_000 * longest).contains(&capacity), "{capacity}");
        let tensors = [Tensor::bytes("words", &[50_000], &["é"; 50_000])];
        let mut buffer = Vec::new();
        grow_for(&mut buffer, &tensors, &[]).unwrap();
        assert!(buffer.capacity() >= 50_000 * "\"é\",".len());
    }

    /// This includes the elements of a fixed axis.
    #[test]
    fn elements_are_counted_once() {
        let model = "in x FP32 [10000]\nout y FP32 [10000]\nout z INT8 [2, 5000]";
        let fixed = signature(model);
        let outputs: Vec<&TensorSignature> = fixed.outputs.iter().collect();
        let capacity = for_outputs(1, &outputs, &[]).unwrap().capacity();
        assert!((10_000 * 16..10_000 * 32).contains(&capacity), "{capacity}");
        let features = vec![1.0; 10_000];
        let capacity = for_rows(&fixed, &Rows::of_features(1, &features)).unwrap().capacity();
        assert!((20_000 * 16..20_000 * 32).contains(&capacity), "{capacity}");
        let second =
            signature("in x FP32 [5, -1]\nbatch_axis = 1\nout y FP32 [1, -1, 4]\nbatch_axis = 1");
        let outputs: Vec<&TensorSignature> = second.outputs.iter().collect();
        let capacity = for_outputs(10_000, &outputs, &[]).unwrap().capacity();
        assert!((40_000 * 16..40_000 * 32).contains(&capacity), "{capacity}");
    }
}
