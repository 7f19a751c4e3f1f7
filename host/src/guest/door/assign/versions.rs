//! The versions of the assignment door that routers export. What is new in 0.2.0 is absent from the
//! decisions of 0.1.0.

use std::fmt;

use wasmtime::component::{Component, InstancePre};
use wasmtime::{Engine, Store};

use crate::guest::instance::InstanceState;

mod generated {
    pub(super) mod v0_1 {
        wasmtime::component::bindgen!({
            path: "../wit/spinfer-experiment-0.1",
            world: "router",
            exports: { default: async },
            ownership: Borrowing { duplicate_if_necessary: true },
            require_store_data_send: true,
        });
    }

    pub(super) mod v0_2 {
        wasmtime::component::bindgen!({
            path: "../wit/spinfer-experiment",
            world: "router",
            exports: { default: async },
            ownership: Borrowing { duplicate_if_necessary: true },
            require_store_data_send: true,
        });
    }
}

use generated::v0_1::exports::spinfer::experiment::assignment as v0_1;
use generated::v0_2::exports::spinfer::experiment::assignment as v0_2;
use v0_2::Exposure;
pub use v0_2::{Assigned, Destination, Exclusion, Refusal};
pub(super) use v0_2::{Request, RequestHeader};

/// The interface, without its version.
const EXPORT: &str = "spinfer:experiment/assignment";

/// The component, ready to be instantiated behind the version of the door that it exports.
#[derive(Clone)]
pub enum AssignPre {
    V0_1(generated::v0_1::RouterPre<InstanceState>),
    V0_2(generated::v0_2::RouterPre<InstanceState>),
}

impl fmt::Debug for AssignPre {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0_1(_) => "V0_1",
            Self::V0_2(_) => "V0_2",
        })
    }
}

impl AssignPre {
    /// The newest version that `component` exports; `None` if it is no router.
    ///
    /// # Errors
    /// The export does not match the interface.
    pub fn of(
        component: &Component,
        pre: &InstancePre<InstanceState>,
    ) -> wasmtime::Result<Option<Self>> {
        let exports = |version: &str| {
            component.get_export_index(None, format!("{EXPORT}@{version}")).is_some()
        };
        Ok(if exports("0.2.0") {
            Some(Self::V0_2(generated::v0_2::RouterPre::new(pre.clone())?))
        } else if exports("0.1.0") {
            Some(Self::V0_1(generated::v0_1::RouterPre::new(pre.clone())?))
        } else {
            None
        })
    }

    pub(super) fn engine(&self) -> &Engine {
        match self {
            Self::V0_1(pre) => pre.engine(),
            Self::V0_2(pre) => pre.engine(),
        }
    }

    pub(super) async fn instantiate(
        &self,
        store: &mut Store<InstanceState>,
    ) -> wasmtime::Result<RouterExports> {
        Ok(match self {
            Self::V0_1(pre) => RouterExports::V0_1(pre.instantiate_async(store).await?),
            Self::V0_2(pre) => RouterExports::V0_2(pre.instantiate_async(store).await?),
        })
    }
}

/// The exports of a router instance.
pub(super) enum RouterExports {
    V0_1(generated::v0_1::Router),
    V0_2(generated::v0_2::Router),
}

impl RouterExports {
    pub(super) async fn needs_body(
        &self,
        store: &mut Store<InstanceState>,
    ) -> wasmtime::Result<bool> {
        match self {
            Self::V0_1(router) => {
                router.spinfer_experiment_assignment().call_needs_body(store).await
            }
            Self::V0_2(router) => {
                router.spinfer_experiment_assignment().call_needs_body(store).await
            }
        }
    }

    pub(super) async fn needed_headers(
        &self,
        store: &mut Store<InstanceState>,
    ) -> wasmtime::Result<Vec<String>> {
        match self {
            Self::V0_1(router) => {
                router.spinfer_experiment_assignment().call_needed_headers(store).await
            }
            Self::V0_2(router) => {
                router.spinfer_experiment_assignment().call_needed_headers(store).await
            }
        }
    }

    pub(super) async fn assign(
        &self,
        store: &mut Store<InstanceState>,
        request: Request<'_>,
    ) -> wasmtime::Result<Result<Assigned, Refusal>> {
        match self {
            Self::V0_1(router) => {
                let headers = request.headers.iter();
                let headers: Vec<_> = headers
                    .map(|&RequestHeader { index, value }| v0_1::RequestHeader { index, value })
                    .collect();
                let request = v0_1::Request {
                    path_with_query: request.path_with_query,
                    headers: &headers,
                    body: request.body,
                };
                let assignment = router.spinfer_experiment_assignment();
                let decided = assignment.call_assign(store, request).await?;
                Ok(decided.map(Assigned::from).map_err(Refusal::from))
            }
            Self::V0_2(router) => {
                router.spinfer_experiment_assignment().call_assign(store, request).await
            }
        }
    }
}

impl From<Exclusion> for spinfer_experiment::Exclusion {
    fn from(exclusion: Exclusion) -> Self {
        match exclusion {
            Exclusion::NotStarted => Self::NotStarted,
            Exclusion::NoUnit => Self::NoUnit,
            Exclusion::Holdout => Self::Holdout,
            Exclusion::Namespace => Self::Namespace,
            Exclusion::Target => Self::Target,
        }
    }
}

impl From<v0_1::Assigned> for Assigned {
    fn from(assigned: v0_1::Assigned) -> Self {
        let v0_1::Assigned { experiment, variant, component, path_with_query, shadows } = assigned;
        let shadow = |shadow: v0_1::Shadow| Destination {
            variant: shadow.variant,
            component: shadow.component,
            path_with_query: shadow.path_with_query,
        };
        Self {
            experiment,
            destination: Destination { variant, component, path_with_query },
            exclusion: None,
            exposure: Exposure { unit: None, propensity: None },
            shadows: shadows.into_iter().map(shadow).collect(),
            fallback: None,
            set_cookie: None,
        }
    }
}

impl From<v0_1::Refusal> for Refusal {
    fn from(v0_1::Refusal { status, message }: v0_1::Refusal) -> Self {
        Self { status, message }
    }
}
