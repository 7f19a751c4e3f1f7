//! `spinfer:prediction-log`: collects the predictions that a guest appends, until the response to
//! their request is ready. [`crate::prediction_log`] stores them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use smallvec::SmallVec;
use tracing::warn;
use uuid::Uuid;
use wasmtime::Result;
use wasmtime::component::{HasData, Linker};

use crate::guest::instance::InstanceState;
use crate::prediction_log::record::{ColumnValues, Columns, Predictions};
use crate::prediction_log::{Redaction, RequestPredictions, size, validate};
use crate::process::memory_budget::{Charge, MemoryBudget};

mod generated {
    wasmtime::component::bindgen!({
        path: "../wit/spinfer-prediction-log",
        inline: "
            package spinfer:host;
            world prediction-log {
                import spinfer:prediction-log/log@0.1.0;
            }
        ",
        world: "spinfer:host/prediction-log",
        imports: { default: trappable },
    });
}

use generated::spinfer::prediction_log::log as wit;

/// Prefix of the interface's name in each of its versions.
pub const INTERFACE: &str = "spinfer:prediction-log/log@";

/// How the predictions of one component are treated, for all of its instances.
#[derive(Debug)]
pub struct LogPolicy {
    component: String,
    redaction: Redaction,
    /// Whether a refusal was reported: repeated reports would fill the log.
    reported: AtomicBool,
}

impl LogPolicy {
    #[must_use]
    pub fn new(component: &str, redaction: Redaction) -> Self {
        Self { component: component.to_owned(), redaction, reported: AtomicBool::new(false) }
    }

    fn report(&self, problem: &str) {
        if !self.reported.swap(true, Ordering::Relaxed) {
            let component = &self.component;
            warn!(component, problem, "predictions refused; reported once per component");
        }
    }
}

/// The prediction-log state of an instance.
#[derive(Debug)]
pub struct PredictionLogCtx {
    /// `None`: predictions are discarded.
    policy: Option<Arc<LogPolicy>>,
    memory: MemoryBudget,
    /// The requests that the instance is serving.
    open: Vec<OpenRequest>,
}

#[derive(Debug)]
struct OpenRequest {
    predictions: Arc<RequestPredictions>,
    /// Charged to the instance until the request ends.
    charges: SmallVec<[Charge; 1]>,
}

impl PredictionLogCtx {
    #[must_use]
    pub fn new(policy: Option<Arc<LogPolicy>>, memory: MemoryBudget) -> Self {
        Self { policy, memory, open: Vec::new() }
    }

    /// Records that the instance starts to serve a request.
    pub fn begin(&mut self, predictions: Arc<RequestPredictions>) {
        self.open.push(OpenRequest { predictions, charges: SmallVec::new() });
    }

    /// Records that the request `id` has ended.
    pub fn end(&mut self, id: Uuid) {
        self.open.retain(|request| request.predictions.id() != id);
    }

    fn append(
        &mut self,
        policy: &LogPolicy,
        request: Option<&str>,
        predictions: wit::Predictions,
    ) -> Result<(), String> {
        let mut predictions = Predictions::from(predictions);
        validate(&predictions)?;
        let request = request_of(&mut self.open, request)?;
        policy.redaction.apply(&mut predictions);
        let bytes = size(&predictions);
        let charge = self.memory.charge(bytes).map_err(|error| error.to_string())?;
        request.predictions.push(predictions, bytes)?;
        request.charges.push(charge);
        Ok(())
    }
}

/// The request to which a guest appends.
fn request_of<'a>(
    open: &'a mut [OpenRequest],
    id: Option<&str>,
) -> Result<&'a mut OpenRequest, String> {
    let count = open.len();
    let Some(text) = id else {
        return match open {
            [request] => Ok(request),
            [] => {
                Err("request: this instance is serving no request whose predictions are logged"
                    .into())
            }
            _ => Err(format!(
                "request: this instance is serving {count} requests; pass the value of the request \
                 header `spinfer-prediction-id`"
            )),
        };
    };
    let unknown =
        || "request: not the `spinfer-prediction-id` of a request that this instance is serving";
    let id = Uuid::try_parse(text).map_err(|_| unknown())?;
    let found = open.iter_mut().find(|request| request.predictions.id() == id);
    Ok(found.ok_or_else(unknown)?)
}

/// The prediction-log state of an instance, borrowed for one call.
pub struct PredictionLogView<'a>(pub &'a mut PredictionLogCtx);

impl fmt::Debug for PredictionLogView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PredictionLogView").field(&self.0).finish()
    }
}

impl wit::Host for PredictionLogView<'_> {
    fn append(
        &mut self,
        request: Option<String>,
        predictions: wit::Predictions,
    ) -> Result<Result<(), wit::Error>> {
        let Some(policy) = self.0.policy.clone() else { return Ok(Ok(())) };
        let appended = self.0.append(&policy, request.as_deref(), predictions);
        Ok(appended.map_err(|problem| {
            policy.report(&problem);
            wit::Error::Invalid(problem)
        }))
    }
}

impl From<wit::Predictions> for Predictions {
    fn from(predictions: wit::Predictions) -> Self {
        let wit::Predictions { model, version, rows, inputs, outputs, omitted, attributes } =
            predictions;
        let columns = |all: Vec<wit::Columns>| all.into_iter().map(Columns::from).collect();
        let (inputs, outputs) = (columns(inputs), columns(outputs));
        Self { model, version, rows, inputs, outputs, omitted, attributes }
    }
}

impl From<wit::Columns> for Columns {
    fn from(columns: wit::Columns) -> Self {
        let wit::Columns { names, values } = columns;
        let values = match values {
            wit::Values::Fp32(values) => ColumnValues::Fp32(values),
            wit::Values::Fp64(values) => ColumnValues::Fp64(values),
            wit::Values::Int64(values) => ColumnValues::Int64(values),
            wit::Values::Boolean(values) => ColumnValues::Boolean(values),
            wit::Values::Text(values) => ColumnValues::Text(values),
        };
        Self { names, values }
    }
}

struct HasPredictionLog;

impl HasData for HasPredictionLog {
    type Data<'a> = PredictionLogView<'a>;
}

/// Adds `spinfer:prediction-log` to `linker`.
///
/// # Errors
/// The linker already defines it.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> Result<()> {
    wit::add_to_linker::<_, HasPredictionLog>(linker, InstanceState::prediction_log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::INSTANCE_MEMORY;

    const NO_REQUEST: &str = "request: this instance is serving no request";

    fn predictions(rows: u32) -> wit::Predictions {
        let values = wit::Values::Fp32(vec![1.0; rows as usize]);
        wit::Predictions {
            model: "m".into(),
            version: "1".into(),
            rows,
            inputs: vec![wit::Columns { names: vec!["x".into()], values }],
            outputs: Vec::new(),
            omitted: Vec::new(),
            attributes: Vec::new(),
        }
    }

    struct TestInstance {
        ctx: PredictionLogCtx,
        budget: MemoryBudget,
    }

    impl TestInstance {
        fn new(memory: usize) -> Self {
            let budget = MemoryBudget::new(memory, INSTANCE_MEMORY);
            let policy = Arc::new(LogPolicy::new("a", Redaction::default()));
            Self { ctx: PredictionLogCtx::new(Some(policy), budget.clone()), budget }
        }

        fn begin(&mut self) -> Arc<RequestPredictions> {
            let id = Uuid::from_u64_pair(7, fastrand::u64(..));
            let request = Arc::new(RequestPredictions::new(id));
            self.ctx.begin(Arc::clone(&request));
            request
        }

        fn append(&mut self, id: Option<Uuid>, rows: u32) -> Result<(), String> {
            let id = id.map(|id| id.to_string());
            let mut view = PredictionLogView(&mut self.ctx);
            let appended = wit::Host::append(&mut view, id, predictions(rows)).unwrap();
            appended.map_err(|wit::Error::Invalid(problem)| problem)
        }
    }

    fn rows(request: &RequestPredictions) -> Vec<u32> {
        request.take().iter().map(|predictions| predictions.rows).collect()
    }

    #[test]
    fn predictions_are_appended_to_the_only_request_or_to_the_given_one() {
        let mut instance = TestInstance::new(1 << 20);
        assert!(instance.append(None, 1).unwrap_err().starts_with(NO_REQUEST));
        let first = instance.begin();
        instance.append(None, 1).unwrap();
        let second = instance.begin();
        let refused = instance.append(None, 9).unwrap_err();
        assert!(refused.contains("is serving 2 requests"), "{refused}");
        instance.append(Some(second.id()), 2).unwrap();
        instance.append(Some(first.id()), 3).unwrap();
        let refused = instance.append(Some(Uuid::nil()), 9).unwrap_err();
        assert!(refused.contains("not the `spinfer-prediction-id`"), "{refused}");
        assert_eq!((rows(&first), rows(&second)), (vec![1, 3], vec![2]));
        instance.ctx.end(first.id());
        instance.append(Some(first.id()), 9).unwrap_err();
        instance.append(None, 9).unwrap_err();
        instance.ctx.end(second.id());
        assert!(instance.append(None, 1).unwrap_err().starts_with(NO_REQUEST));
    }

    #[test]
    fn invalid_predictions_are_refused() {
        let mut instance = TestInstance::new(1 << 20);
        let request = instance.begin();
        let mut view = PredictionLogView(&mut instance.ctx);
        let mut refusal = |id: Option<&str>, rows| {
            let predictions = wit::Predictions { rows, ..predictions(2) };
            let refused = wit::Host::append(&mut view, id.map(str::to_owned), predictions);
            refused.unwrap().unwrap_err()
        };
        for (id, rows) in [(None, 1), (None, u32::MAX), (Some("x"), 2), (Some(""), 2)] {
            let wit::Error::Invalid(problem) = refusal(id, rows);
            assert!(!problem.is_empty());
        }
        assert!(rows(&request).is_empty());
    }

    #[test]
    fn instance_is_charged_until_its_request_ends() {
        let mut instance = TestInstance::new(10_000);
        let request = instance.begin();
        instance.append(None, 1000).unwrap();
        let refused = instance.append(None, 2000).unwrap_err();
        assert!(refused.contains("limits.instance_memory"), "{refused}");
        assert!(instance.budget.charge(8000).is_err());
        assert_eq!(rows(&request), [1000]);
        instance.ctx.end(request.id());
        assert!(instance.budget.charge(10_000).is_ok());
    }

    #[test]
    fn predictions_are_discarded_without_a_policy() {
        let mut ctx = PredictionLogCtx::new(None, MemoryBudget::new(0, INSTANCE_MEMORY));
        let mut view = PredictionLogView(&mut ctx);
        assert!(wit::Host::append(&mut view, None, predictions(1)).unwrap().is_ok());
    }
}
