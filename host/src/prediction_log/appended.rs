//! What a request has appended, on its way from its instance to the log and to the cache.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;
use uuid::Uuid;

use super::record::Predictions;
use super::validate::{MAX_REQUEST_BYTES, MAX_REQUEST_ROWS, size};

/// The predictions that one response was made from, in the order they were appended: in the
/// extensions of the response, and with it in the cache.
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

    /// Memory they take, in bytes, about.
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

/// What one request has appended so far: its instance adds, and whoever waits for the response
/// takes.
#[derive(Debug)]
pub struct RequestPredictions {
    id: Uuid,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    appended: Appended,
    rows: u32,
    /// Memory of `appended`, in bytes.
    bytes: usize,
    /// Whether the response is there.
    closed: bool,
}

impl RequestPredictions {
    /// Of the request `id`.
    #[must_use]
    pub fn new(id: Uuid) -> Self {
        Self { id, state: Mutex::default() }
    }

    /// The id of the request, as its instance knows it.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Adds what takes `bytes` of memory; fails with the limit it would exceed.
    pub fn push(&self, predictions: Predictions, bytes: usize) -> Result<(), String> {
        let mut state = self.lock();
        if state.closed {
            return Err("the response of this request is sent: append before it".into());
        }
        let total = state.bytes.saturating_add(bytes);
        if total > MAX_REQUEST_BYTES {
            return Err(format!(
                "this request would have appended {total} bytes of predictions; the limit is \
                 {MAX_REQUEST_BYTES}"
            ));
        }
        let rows = state.rows.saturating_add(predictions.rows);
        if rows > MAX_REQUEST_ROWS {
            return Err(format!(
                "this request would have appended {rows} rows; the limit is {MAX_REQUEST_ROWS}"
            ));
        }
        (state.bytes, state.rows) = (total, rows);
        state.appended.0.push(Arc::new(predictions));
        Ok(())
    }

    /// Takes all of it: the response is there, and nothing is added any more.
    #[must_use]
    pub fn take(&self) -> Appended {
        let mut state = self.lock();
        state.closed = true;
        mem::take(&mut state.appended)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction_log::validate::tests::iris;

    #[test]
    fn a_request_appends_until_its_response_is_there() {
        let request = RequestPredictions::new(Uuid::nil());
        for rows in [1, 2] {
            let predictions = iris(rows);
            let bytes = size(&predictions);
            request.push(predictions, bytes).unwrap();
        }
        let appended = request.take();
        assert_eq!(appended.iter().map(|some| some.rows).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(appended.size(), size(&iris(1)) + size(&iris(2)));
        let late = request.push(iris(1), 1).unwrap_err();
        assert!(late.contains("is sent"), "{late}");
        assert!(request.take().is_empty());
    }

    #[test]
    fn what_one_request_appends_is_limited() {
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
