//! The ways into a component. [`fast`]: one typed call with the whole request, for components
//! that export `spinfer:serve/buffered-handler`. [`standard`]: `wasi:http`, for every component
//! and every body.

pub mod fast;
pub mod standard;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use http::Response;
use http::request::Parts;
use tracing::warn;
use wasmtime::component::Component;

use crate::app::ComponentSpec;
use crate::body::{Body, RequestBody};
use crate::engine::Engine;
use crate::error::Failure;
use crate::inference::Models;
use crate::instance::Stores;
use crate::limits::Limits;
use crate::manifest::DoorChoice;

/// A component, ready to serve.
#[derive(Debug)]
pub struct Service {
    stores: Arc<Stores>,
    fast: Option<fast::Door>,
    standard: Option<standard::Door>,
}

impl Service {
    /// Links `component`. Fails if it imports what the host has not, or exports no door.
    pub fn new(engine: &Engine, component: &Component, stores: Stores) -> Result<Self> {
        let stores = Arc::new(stores);
        let id = &stores.spec().id;
        let pre =
            engine.linker().instantiate_pre(component).map_err(anyhow::Error::from).with_context(
                || format!("component `{id}` imports something this host does not offer"),
            )?;
        let exports_fast = component.get_export_index(None, fast::EXPORT).is_some();
        let fast = match stores.spec().door {
            None if !exports_fast => None,
            None | Some(DoorChoice::Fast) => {
                let door = fast::Door::new(&pre, &stores).map_err(anyhow::Error::from);
                Some(door.with_context(|| format!("component `{id}` has no usable fast door"))?)
            }
            Some(DoorChoice::Standard) => None,
        };
        let standard = standard::Door::new(&pre, &stores);
        if fast.is_none() && standard.is_none() {
            bail!(
                "component `{id}` exports no HTTP handler (wasi:http/handler, \
                 wasi:http/incoming-handler or spinfer:serve/buffered-handler)"
            );
        }
        Ok(Self { stores, fast, standard })
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.stores.spec().limits
    }

    /// How long a body may be to be taken whole.
    #[must_use]
    pub fn whole_body(&self) -> usize {
        if self.fast.is_some() {
            self.limits().fast_body.min(self.limits().request_body)
        } else {
            0
        }
    }

    /// For people: the door a small request goes through.
    #[must_use]
    pub fn door(&self) -> &'static str {
        if self.fast.is_some() { "fast" } else { "standard" }
    }

    /// Gives the request to an instance, through the door that fits.
    pub async fn invoke(
        &self,
        head: Parts,
        body: RequestBody,
        deadline: Instant,
    ) -> Result<Response<Body>, Failure> {
        let response = match (body, &self.fast, &self.standard) {
            (RequestBody::Whole(body), Some(fast), _) => fast.invoke(&head, &body, deadline).await,
            (body, _, Some(standard)) => standard.invoke(head, body, deadline).await,
            (_, _, None) => Err(Failure::BodyTooLarge { limit: self.whole_body() }),
        }?;
        let status = response.status().as_u16();
        if !(200..600).contains(&status) {
            let problem = format!("{status} is not a final status");
            return Err(invalid_answer(self.stores.spec(), problem));
        }
        Ok(response)
    }

    /// The models this component may use.
    #[must_use]
    pub fn models(&self) -> &Models {
        self.stores.models()
    }

    /// Drops instances that had nothing to do for their idle time.
    pub fn drop_idle(&self, now: Instant) {
        if let Some(fast) = &self.fast {
            fast.drop_idle(now);
        }
    }
}

/// Every instance is taken, for as long as the request could wait.
fn busy(spec: &ComponentSpec) -> Failure {
    Failure::Busy { component: spec.id.clone(), limit: spec.limits.instances }
}

fn late(spec: &ComponentSpec) -> Failure {
    warn!(component = spec.id, "missed the deadline");
    Failure::Deadline { component: spec.id.clone() }
}

fn invalid_answer(spec: &ComponentSpec, problem: String) -> Failure {
    warn!(component = spec.id, problem, "invalid answer");
    Failure::InvalidAnswer { component: spec.id.clone(), problem }
}
