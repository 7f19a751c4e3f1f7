//! The doors of a component: which of them it is served through, and their opening once its code is
//! loaded.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use parking_lot::MutexGuard;
use tokio::time::timeout_at;
use tracing::warn;

use super::Component;
use crate::config::app::ComponentSpec;
use crate::config::manifest::DoorChoice;
use crate::guest::component_file::LinkedComponent;
use crate::guest::door::assign::AssignDoor;
use crate::guest::door::deadline_exceeded;
use crate::guest::door::fast::{self, FastDoor};
use crate::guest::door::spin_1::Spin1Door;
use crate::guest::door::standard::StandardDoor;
use crate::guest::door::wagi::WagiDoor;
use crate::http::error::Failure;

/// The exports that the manifest lets a component serve with, next to the standard door and that of
/// commands.
#[derive(Clone, Copy, Debug)]
pub(super) struct SelectedDoors {
    pub(super) fast: bool,
    /// Of Spin 1.
    pub(super) spin_1: bool,
    /// It is a router: it assigns requests to other components instead of serving them.
    pub(super) assign: bool,
}

/// The doors of a component, and the instances behind them.
#[derive(Debug)]
pub(super) struct ComponentDoors {
    pub(super) fast: Option<Arc<FastDoor>>,
    pub(super) assign: Option<Arc<AssignDoor>>,
    pub(super) spin_1: Option<Arc<Spin1Door>>,
    pub(super) standard: Option<Arc<StandardDoor>>,
    pub(super) wagi: Option<Arc<WagiDoor>>,
    /// Shared by all components of the same file.
    _linked: Arc<LinkedComponent>,
}

impl SelectedDoors {
    /// # Errors
    /// The component does not export the door that the manifest requests, or none.
    pub(super) fn of(linked: &LinkedComponent, spec: &ComponentSpec) -> Result<Self> {
        let runs_command = spec.wagi.is_some();
        if runs_command && linked.wagi.is_none() {
            bail!(
                "it is not a command (wasi:cli/run), which `executor = {{ type = \"wagi\" }}` \
                 requires: remove the executor, or build a command"
            );
        }
        let exports_fast = linked.fast.is_some() && !runs_command;
        let fast = match spec.door {
            None => exports_fast,
            Some(DoorChoice::Standard) => false,
            Some(DoorChoice::Fast) if exports_fast => true,
            Some(DoorChoice::Fast) => bail!(
                "it does not export the fast door ({}): remove `door`, or export it",
                fast::EXPORT
            ),
        };
        let assign = linked.assign.is_some() && spec.door.is_none() && !runs_command;
        let spin_1 = linked.spin_1.is_some()
            && spec.door.is_none()
            && !(fast || assign || linked.standard.is_some() || runs_command);
        let is_http = fast || assign || linked.standard.is_some() || spin_1;
        if !is_http && !runs_command && linked.wagi.is_some() {
            bail!(
                "it is a command (wasi:cli/run), not an HTTP handler: add \
                 `executor = {{ type = \"wagi\" }}` to its trigger"
            );
        }
        if !is_http && !runs_command {
            bail!("it does not export the standard door (wasi:http)");
        }
        Ok(Self { fast, spin_1, assign })
    }
}

impl Component {
    /// The doors. Loads the code if it is not loaded.
    pub(super) async fn doors(&self, deadline: Instant) -> Result<Arc<ComponentDoors>, Failure> {
        if let Some(doors) = &*self.open_doors() {
            return Ok(Arc::clone(doors));
        }
        let start = Instant::now();
        match timeout_at(deadline.into(), self.code.linked()).await {
            Ok(Ok(linked)) => {
                self.starts.code.observe_duration(start.elapsed());
                Ok(self.open(linked))
            }
            Ok(Err(error)) => {
                let component = self.spec().id.clone();
                warn!(component, error = format!("{error:#}"), "cannot load");
                Err(Failure::Instantiation { component })
            }
            Err(_) => Err(deadline_exceeded(self.spec())),
        }
    }

    /// Opens the doors of `linked`, unless a concurrent request has opened them.
    pub(super) fn open(&self, linked: Arc<LinkedComponent>) -> Arc<ComponentDoors> {
        let mut doors = self.open_doors();
        let open = doors.get_or_insert_with(|| {
            let fast = linked.fast.as_ref().filter(|_| self.selected.fast);
            let assign = linked.assign.as_ref().filter(|_| self.selected.assign);
            let spin_1 = linked.spin_1.as_ref().filter(|_| self.selected.spin_1);
            let argv = self.spec().wagi.as_deref();
            let standard = linked.standard.as_ref().filter(|_| argv.is_none());
            let wagi = linked.wagi.as_ref().zip(argv);
            let (stores, pool) = (&self.stores, &self.instance_pool);
            let offload = || self.offload.clone();
            Arc::new(ComponentDoors {
                fast: fast.map(|pre| FastDoor::new(pre, stores, offload(), pool)),
                assign: assign.map(|pre| AssignDoor::new(pre, stores, offload(), pool)),
                spin_1: spin_1.map(|pre| Spin1Door::new(pre, stores, offload(), pool)),
                standard: standard.map(|pre| StandardDoor::new(pre, stores, offload(), pool)),
                wagi: wagi.map(|(pre, argv)| WagiDoor::new(pre, argv, stores, offload(), pool)),
                _linked: linked,
            })
        });
        Arc::clone(open)
    }

    pub(super) fn open_doors(&self) -> MutexGuard<'_, Option<Arc<ComponentDoors>>> {
        self.doors.lock()
    }

    /// The door of a router. Loads the code if it is not loaded.
    pub(super) async fn assignment_door(
        &self,
        deadline: Instant,
    ) -> Result<Arc<AssignDoor>, Failure> {
        let door = self.doors(deadline).await?.assign.clone();
        door.ok_or_else(|| Failure::Instantiation { component: self.spec().id.clone() })
    }
}
