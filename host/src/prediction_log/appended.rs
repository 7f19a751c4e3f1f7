//! The predictions that a request appends, on their way from the instance to the log and the
//! response cache.

use std::mem;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use uuid::Uuid;

use super::record::Predictions;
use super::validate::{MAX_REQUEST_BYTES, MAX_REQUEST_ROWS, size};

/// The predictions of one response, in the order they were appended. An extension of the response,
/// with which they are cached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Appended(SmallVec<[Arc<Predictions>; 1]>);

impl Appended {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Predictions>> {
        self.0.iter()
    }

    /// Approximate memory, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.iter().map(|predictions| size(predictions)).sum()
    }
}

impl FromIterator<Predictions> for Appended {
    fn from_iter<I: IntoIterator<Item = Predictions>>(predictions: I) -> Self {
        Self(predictions.into_iter().map(Arc::new).collect())
    }
}

impl IntoIterator for Appended {
    type Item = Arc<Predictions>;
    type IntoIter = smallvec::IntoIter<[Arc<Predictions>; 1]>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Collects the predictions of one request: the instance adds them, and the door takes them once
/// there is a response.
#[derive(Debug)]
pub struct RequestPredictions {
    id: Uuid,
    state: Mutex<AppendState>,
}

#[derive(Debug, Default)]
struct AppendState {
    appended: Appended,
    rows: u32,
    /// Memory of `appended`, in bytes.
    bytes: usize,
    /// Whether the predictions were taken.
    closed: bool,
}

impl RequestPredictions {
    /// Collects the predictions of the request `id`.
    #[must_use]
    pub fn new(id: Uuid) -> Self {
        Self { id, state: Mutex::default() }
    }

    /// The id of the request, as passed to its instance.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Adds predictions, which take `bytes` of memory.
    ///
    /// # Errors
    /// Names the exceeded limit; fails after the response, too.
    pub fn push(&self, predictions: Predictions, bytes: usize) -> Result<(), String> {
        let mut state = self.lock();
        if state.closed {
            return Err(
                "the response to this request was sent: append predictions before it".into()
            );
        }
        let total = state.bytes.saturating_add(bytes);
        if total > MAX_REQUEST_BYTES {
            return Err(format!(
                "this request appends {total} bytes of predictions; the limit is \
                 {MAX_REQUEST_BYTES}"
            ));
        }
        let rows = state.rows.saturating_add(predictions.rows);
        if rows > MAX_REQUEST_ROWS {
            return Err(format!(
                "this request appends {rows} rows of predictions; the limit is {MAX_REQUEST_ROWS}"
            ));
        }
        (state.bytes, state.rows) = (total, rows);
        state.appended.0.push(Arc::new(predictions));
        Ok(())
    }

    /// Takes all predictions. Later additions are refused.
    #[must_use]
    pub fn take(&self) -> Appended {
        let mut state = self.lock();
        state.closed = true;
        mem::take(&mut state.appended)
    }

    fn lock(&self) -> MutexGuard<'_, AppendState> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction_log::validate::tests::iris;

    #[test]
    fn predictions_are_refused_after_the_response() {
        let request = RequestPredictions::new(Uuid::nil());
        for rows in [1, 2] {
            let predictions = iris(rows);
            let bytes = size(&predictions);
            request.push(predictions, bytes).unwrap();
        }
        let appended = request.take();
        assert_eq!(appended.iter().map(|some| some.rows).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(appended.size(), size(&iris(1)) + size(&iris(2)));
        let error = request.push(iris(1), 1).unwrap_err();
        assert!(error.contains("was sent"), "{error}");
        assert!(request.take().is_empty());
    }

    #[test]
    fn predictions_of_one_request_are_limited() {
        let request = RequestPredictions::new(Uuid::nil());
        request.push(iris(1), MAX_REQUEST_BYTES).unwrap();
        let too_large = request.push(iris(1), 1).unwrap_err();
        assert!(too_large.contains(&MAX_REQUEST_BYTES.to_string()), "{too_large}");
        let request = RequestPredictions::new(Uuid::nil());
        let many = || Predictions { rows: MAX_REQUEST_ROWS, ..iris(1) };
        request.push(many(), 1).unwrap();
        let too_many = request.push(many(), 1).unwrap_err();
        assert!(too_many.contains(&MAX_REQUEST_ROWS.to_string()), "{too_many}");
        assert_eq!(request.take().iter().count(), 1);
    }
}
