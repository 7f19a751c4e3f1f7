//! `spinfer:prediction-log`: collects the predictions that a guest appends, until the response to
//! their request is ready. [`crate::prediction_log`] stores them.

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tracing::warn;
use uuid::Uuid;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, WasmList, WasmStr};
use wasmtime::{AsContextMut, Result, StoreContextMut};

use crate::guest::instance::InstanceState;
use crate::prediction_log::names::{KnownNames, Name, Names};
use crate::prediction_log::record::{ColumnValues, Columns, Predictions};
use crate::prediction_log::{Redaction, RequestPredictions, size, validate};
use crate::process::memory_budget::{Charge, MemoryBudget};

/// The interface, as `wit/spinfer-prediction-log` has it. Lifted here instead of by generated bindings,
/// which copy every name of every call, also if predictions are discarded: the names of one prediction
/// are twenty allocations.
mod wit {
    use super::*;

    pub(super) const LOG: &str = "spinfer:prediction-log/log@0.1.0";

    #[derive(ComponentType, Lift)]
    #[component(variant)]
    pub(super) enum Values {
        #[component(name = "fp32")]
        Fp32(Vec<f32>),
        #[component(name = "fp64")]
        Fp64(Vec<f64>),
        #[component(name = "int64")]
        Int64(Vec<i64>),
        #[component(name = "boolean")]
        Boolean(Vec<bool>),
        #[component(name = "text")]
        Text(Vec<String>),
    }

    #[derive(ComponentType, Lift)]
    #[component(record)]
    pub(super) struct Columns {
        pub(super) names: WasmList<WasmStr>,
        pub(super) values: Values,
    }

    #[derive(ComponentType, Lift)]
    #[component(record)]
    pub(super) struct Predictions {
        pub(super) model: WasmStr,
        pub(super) version: WasmStr,
        pub(super) rows: u32,
        pub(super) inputs: WasmList<Columns>,
        pub(super) outputs: WasmList<Columns>,
        pub(super) omitted: WasmList<String>,
        pub(super) attributes: WasmList<(String, String)>,
    }

    #[derive(ComponentType, Lower, Debug)]
    #[component(variant)]
    pub(super) enum Error {
        #[component(name = "invalid")]
        Invalid(String),
    }
}

/// Prefix of the interface's name in each of its versions.
pub const INTERFACE: &str = "spinfer:prediction-log/log@";

/// How the predictions of one component are treated, for all of its instances.
#[derive(Debug)]
pub struct LogPolicy {
    component: String,
    redaction: Redaction,
    /// The names in the predictions of all instances.
    names: Mutex<KnownNames>,
    /// Whether a refusal was reported: repeated reports would fill the log.
    reported: AtomicBool,
}

impl LogPolicy {
    #[must_use]
    pub fn new(component: &str, redaction: Redaction) -> Self {
        let (component, names, reported) = (component.to_owned(), Mutex::default(), false.into());
        Self { component, redaction, names, reported }
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
    /// The names in its predictions.
    known: KnownNames,
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
        Self { policy, memory, open: Vec::new(), known: KnownNames::default() }
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
        mut predictions: Predictions,
    ) -> Result<(), String> {
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

/// Copies what a guest passed, except for the names that it has used before.
fn lifted(
    mut store: StoreContextMut<'_, InstanceState>,
    known: &mut KnownNames,
    shared: &Mutex<KnownNames>,
    predictions: wit::Predictions,
) -> Result<Predictions> {
    let wit::Predictions { model, version, rows, inputs, outputs, omitted, attributes } =
        predictions;
    let mut name =
        |text: WasmStr| -> Result<Name> { Ok(known.name(&text.to_str(&store)?, shared)) };
    let (model, version) = (name(model)?, name(version)?);
    let mut columns = |all: WasmList<wit::Columns>| -> Result<Vec<Columns>> {
        /// Number of blocks that most predictions have.
        const FEW: usize = 4;
        let all: SmallVec<[_; FEW]> = all.iter(&mut store)?.collect::<Result<_>>()?;
        let column = |wit::Columns { names, values }| {
            let names = lifted_names(store.as_context_mut(), known, shared, &names)?;
            Ok(Columns { names, values: values.into() })
        };
        all.into_iter().map(column).collect()
    };
    let (inputs, outputs) = (columns(inputs)?, columns(outputs)?);
    let omitted = omitted.iter(&mut store)?.collect::<Result<_>>()?;
    let attributes = attributes.iter(&mut store)?.collect::<Result<_>>()?;
    Ok(Predictions { model, version, rows, inputs, outputs, omitted, attributes })
}

fn lifted_names(
    mut store: StoreContextMut<'_, InstanceState>,
    known: &mut KnownNames,
    shared: &Mutex<KnownNames>,
    names: &WasmList<WasmStr>,
) -> Result<Names> {
    /// Number of names of most lists.
    const FEW: usize = 16;
    let texts: SmallVec<[WasmStr; FEW]> = names.iter(&mut store)?.collect::<Result<_>>()?;
    let texts = texts.iter().map(|text| text.to_str(&store));
    let texts: SmallVec<[Cow<'_, str>; FEW]> = texts.collect::<Result<_>>()?;
    Ok(known.list(&texts, shared))
}

/// `append` of the interface.
fn append(
    mut store: StoreContextMut<'_, InstanceState>,
    (request, predictions): (Option<WasmStr>, wit::Predictions),
) -> Result<(Result<(), wit::Error>,)> {
    let Some(policy) = store.data().predictions.policy.clone() else { return Ok((Ok(()),)) };
    let mut known = mem::take(&mut store.data_mut().predictions.known);
    let lifted = lifted(store.as_context_mut(), &mut known, &policy.names, predictions);
    store.data_mut().predictions.known = known;
    let request = request.map(|request| request.to_str(&store).map(Cow::into_owned)).transpose()?;
    let appended = store.data_mut().predictions.append(&policy, request.as_deref(), lifted?);
    Ok((appended.map_err(|problem| {
        policy.report(&problem);
        wit::Error::Invalid(problem)
    }),))
}

impl From<wit::Values> for ColumnValues {
    fn from(values: wit::Values) -> Self {
        match values {
            wit::Values::Fp32(values) => Self::Fp32(values),
            wit::Values::Fp64(values) => Self::Fp64(values),
            wit::Values::Int64(values) => Self::Int64(values),
            wit::Values::Boolean(values) => Self::Boolean(values),
            wit::Values::Text(values) => Self::Text(values),
        }
    }
}

/// Adds `spinfer:prediction-log` to `linker`.
///
/// # Errors
/// The linker already defines it.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> Result<()> {
    linker.instance(wit::LOG)?.func_wrap("append", append)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::INSTANCE_MEMORY;

    const NO_REQUEST: &str = "request: this instance is serving no request";

    fn predictions(rows: u32) -> Predictions {
        let values = ColumnValues::Fp32(vec![1.0; rows as usize]);
        Predictions {
            model: "m".into(),
            version: "1".into(),
            rows,
            inputs: vec![Columns { names: vec!["x".to_owned()].into(), values }],
            outputs: Vec::new(),
            omitted: Vec::new(),
            attributes: Vec::new(),
        }
    }

    struct TestInstance {
        ctx: PredictionLogCtx,
        budget: MemoryBudget,
        policy: LogPolicy,
    }

    impl TestInstance {
        fn new(memory: usize) -> Self {
            let budget = MemoryBudget::new(memory, INSTANCE_MEMORY);
            let policy = LogPolicy::new("a", Redaction::default());
            Self { ctx: PredictionLogCtx::new(None, budget.clone()), budget, policy }
        }

        fn begin(&mut self) -> Arc<RequestPredictions> {
            let id = Uuid::from_u64_pair(7, fastrand::u64(..));
            let request = Arc::new(RequestPredictions::new(id));
            self.ctx.begin(Arc::clone(&request));
            request
        }

        fn append(&mut self, id: Option<Uuid>, rows: u32) -> Result<(), String> {
            let id = id.map(|id| id.to_string());
            self.ctx.append(&self.policy, id.as_deref(), predictions(rows))
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
        let TestInstance { ctx, policy, .. } = &mut instance;
        let mut refusal = |id: Option<&str>, rows| {
            let predictions = Predictions { rows, ..predictions(2) };
            ctx.append(policy, id, predictions).unwrap_err()
        };
        for (id, rows) in [(None, 1), (None, u32::MAX), (Some("x"), 2), (Some(""), 2)] {
            assert!(!refusal(id, rows).is_empty());
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
}
