//! Instances behind a door of typed calls ([`super::fast`], [`super::spin_1`], [`super::assign`]): each
//! serves one call at a time, and is reused as long as its interface allows.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::timeout_at;
use tracing::{debug, warn};
use wasmtime::{Engine, Store};

use super::{Evictable, Evicted, InstancePool, deadline_exceeded};
use crate::config::instance_reuse::ServedInterface;
use crate::guest::instance::{InstanceState, StoreFactory, is_deadline_exceeded, is_pool_full};
use crate::guest::offload::GuestOffload;
use crate::http::body::instance_body::EndBodiesOnDrop;
use crate::http::error::Failure;
use crate::metrics::Ended;
use crate::metrics::counters::InFlight;

/// The exports of an instance that a door calls.
pub(super) trait Guest: Sized + Send + 'static {
    /// The component, ready to be instantiated.
    type AssignPre: Clone + Send + Sync;

    /// The interface that the door calls.
    const INTERFACE: ServedInterface = ServedInterface::Typed;

    /// The engine that runs the component.
    fn engine(pre: &Self::AssignPre) -> &Engine;

    /// Instantiates the component in `store`, and makes the calls that each instance receives once.
    fn create(
        pre: &Self::AssignPre,
        store: &mut Store<InstanceState>,
    ) -> impl Future<Output = wasmtime::Result<Self>> + Send;
}

/// A live instance behind the door of `G`.
pub(super) struct IdleInstance<G> {
    /// Dropped before the store.
    _bodies: EndBodiesOnDrop,
    pub(super) store: Store<InstanceState>,
    pub(super) guest: G,
    /// Number of calls served.
    served: usize,
    /// Number of calls after which the instance is retired.
    max_calls: usize,
    /// Whether its response failed: it is not used again.
    failed: bool,
    created: Instant,
    idle_since: Instant,
}

impl<G> IdleInstance<G> {
    /// Records that its response failed.
    pub(super) fn fail(&mut self) {
        self.failed = true;
    }
}

/// The instances of one component behind one door.
pub(super) struct Instances<G: Guest> {
    pool: Arc<InstancePool>,
    pre: G::AssignPre,
    stores: Arc<StoreFactory>,
    /// Where long calls continue.
    offload: GuestOffload,
    /// A stack, the last used on top, so that the others reach the idle timeout.
    idle: Mutex<Idle<G>>,
    /// Number of calls in flight.
    calls: AtomicUsize,
    /// Number of idle instances that are being created.
    refilling: AtomicUsize,
}

/// Boxed, as an instance moves from future to future with each request.
type Idle<G> = Vec<Box<IdleInstance<G>>>;

impl<G: Guest> fmt::Debug for Instances<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instances").field("stores", &self.stores).finish_non_exhaustive()
    }
}

impl<G: Guest> Instances<G> {
    pub(super) fn new(
        pre: &G::AssignPre,
        stores: &Arc<StoreFactory>,
        offload: GuestOffload,
        pool: &Arc<InstancePool>,
    ) -> Arc<Self> {
        let instances = Arc::new(Self {
            pool: Arc::clone(pool),
            pre: pre.clone(),
            stores: Arc::clone(stores),
            offload,
            idle: Mutex::default(),
            calls: AtomicUsize::new(0),
            refilling: AtomicUsize::new(0),
        });
        pool.add(&instances);
        instances
    }

    /// Runs `call` on an instance, which `call` returns. The instance is reused unless the call or its
    /// response failed, or the instance is to be retired. The request has passed through `hops` components, this one
    /// included.
    pub(super) async fn call<T, Called>(
        self: &Arc<Self>,
        deadline: Instant,
        hops: usize,
        call: impl FnOnce(Box<IdleInstance<G>>) -> Called,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        Called: Future<Output = (Box<IdleInstance<G>>, wasmtime::Result<T>)> + Send + 'static,
    {
        let _call = InFlight::new(&self.calls);
        let mut instance = match self.take_idle() {
            Some(instance) => instance,
            None => self.instantiate(deadline).await?,
        };
        let state = instance.store.data_mut();
        state.call_deadline = deadline;
        state.outbound.hops = hops;
        instance.store.set_epoch_deadline(1);
        let call = call(instance);
        let call = self.offload.run(Box::pin(async move {
            let (mut instance, result) = call.await;
            if result.as_ref().is_err_and(|error| !is_deadline_exceeded(error)) {
                instance.store.data_mut().record_end(Ended::Failed);
            }
            (instance, result)
        }));
        let (instance, value) = match timeout_at(deadline.into(), call).await {
            Ok(Ok((instance, Ok(value)))) => (instance, value),
            Ok(Ok((_, Err(error)))) if is_deadline_exceeded(&error) => {
                return Err(deadline_exceeded(self.stores.spec()));
            }
            Ok(Ok((_, Err(error)))) => return Err(self.failed(format_args!("{error:#}"))),
            Ok(Err(lost)) => return Err(self.failed(format_args!("{lost}"))),
            Err(_) => return Err(deadline_exceeded(self.stores.spec())),
        };
        self.put_back(instance);
        Ok(value)
    }

    async fn instantiate(
        self: &Arc<Self>,
        deadline: Instant,
    ) -> Result<Box<IdleInstance<G>>, Failure> {
        let instances = Arc::clone(self);
        // The start function of a guest may run as long as a call.
        let creating = self.offload.run(Box::pin(async move {
            instances.pool.instantiate(|| instances.create(deadline)).await
        }));
        match timeout_at(deadline.into(), creating).await {
            Ok(Ok(Ok(instance))) => Ok(instance),
            Ok(Ok(Err(error))) if is_deadline_exceeded(&error) => {
                Err(deadline_exceeded(self.stores.spec()))
            }
            Err(_) => Err(deadline_exceeded(self.stores.spec())),
            Ok(Ok(Err(error))) if is_pool_full(&error) => Err(Failure::InstancePoolFull),
            Ok(Err(lost)) => Err(self.failed(format_args!("{lost}"))),
            Ok(Ok(Err(error))) => {
                let component = self.stores.spec().id.clone();
                warn!(component, error = format!("{error:#}"), "cannot instantiate");
                Err(Failure::Instantiation { component })
            }
        }
    }

    async fn create(&self, deadline: Instant) -> wasmtime::Result<Box<IdleInstance<G>>> {
        let start = Instant::now();
        let mut store = self.stores.create_in(G::engine(&self.pre), deadline)?;
        let guest = G::create(&self.pre, &mut store).await?;
        let created = Instant::now();
        store.data_mut().record_instantiated(created - start);
        let max_calls = self.stores.spec().reuse.requests_through(G::INTERFACE).draw();
        Ok(Box::new(IdleInstance {
            _bodies: EndBodiesOnDrop(Arc::clone(&store.data().bodies)),
            store,
            guest,
            served: 0,
            max_calls,
            failed: false,
            created,
            idle_since: created,
        }))
    }

    fn idle(&self) -> MutexGuard<'_, Idle<G>> {
        self.idle.lock()
    }

    /// Takes an idle instance, if there is one. While several calls are in flight, refills the idle
    /// instances.
    fn take_idle(self: &Arc<Self>) -> Option<Box<IdleInstance<G>>> {
        let age = self.stores.spec().reuse.age;
        let mut retired = Vec::new();
        let mut idle = self.idle();
        let instance = loop {
            match idle.pop() {
                // An instance that has not served yet serves once, however old it is.
                Some(mut instance) if instance.served > 0 && instance.created.elapsed() >= age => {
                    instance.store.data_mut().record_end(Ended::Retired);
                    retired.push(instance);
                }
                instance => break instance,
            }
        };
        let left = idle.len();
        drop(idle);
        drop(retired);
        if self.calls.load(Ordering::Relaxed) > 1 {
            self.refill(left);
        }
        instance
    }

    /// Makes the instance idle, or retires it.
    fn put_back(self: &Arc<Self>, mut instance: Box<IdleInstance<G>>) {
        let now = Instant::now();
        let age = self.stores.spec().reuse.age;
        instance.served += 1;
        let young = instance.served < instance.max_calls && now - instance.created < age;
        if young && !instance.failed {
            instance.idle_since = now;
            self.idle().push(instance);
        } else {
            let reason = if instance.failed { Ended::Failed } else { Ended::Retired };
            instance.store.data_mut().record_end(reason);
            // On this thread: in the background, instances could be retired faster than dropped.
            drop(instance);
            let left = self.idle().len();
            self.refill(left);
        }
    }

    /// Creates an idle instance in the background, if fewer than `reuse.min_idle` are idle or being
    /// created.
    fn refill(self: &Arc<Self>, idle: usize) {
        let spec = self.stores.spec();
        let refill = Refill::start(self);
        if idle + refill.before >= spec.reuse.min_idle {
            return;
        }
        let instances = Arc::clone(self);
        let deadline = Instant::now() + spec.limits.deadline;
        self.offload.spawn(async move {
            match timeout_at(deadline.into(), instances.create(deadline)).await {
                Ok(Ok(instance)) => instances.idle().push(instance),
                // The next request without an idle instance instantiates, and reports the error.
                Ok(Err(error)) => debug!(error = format!("{error:#}"), "no idle instance created"),
                Err(_) => debug!("no idle instance created within the deadline"),
            }
            drop(refill);
        });
    }

    fn failed(&self, error: fmt::Arguments<'_>) -> Failure {
        let component = self.stores.spec().id.clone();
        warn!(component, %error, "failed");
        Failure::Trap { component }
    }
}

impl<G: Guest> Evictable for Instances<G> {
    fn drop_idle(&self, since: Instant) -> Evicted {
        let mut idle = self.idle();
        let old = idle.partition_point(|instance| instance.idle_since <= since);
        let mut dropped: Vec<_> = idle.drain(..old).collect();
        drop(idle);
        dropped.iter_mut().for_each(|instance| instance.store.data_mut().record_end(Ended::Idle));
        Evicted::dropped(dropped.len())
    }
}

/// Counts an idle instance that is being created, until it is dropped.
struct Refill<G: Guest> {
    instances: Arc<Instances<G>>,
    /// Number of others that are being created.
    before: usize,
}

impl<G: Guest> Refill<G> {
    fn start(instances: &Arc<Instances<G>>) -> Self {
        let before = instances.refilling.fetch_add(1, Ordering::Relaxed);
        Self { instances: Arc::clone(instances), before }
    }
}

impl<G: Guest> Drop for Refill<G> {
    fn drop(&mut self) {
        self.instances.refilling.fetch_sub(1, Ordering::Relaxed);
    }
}
