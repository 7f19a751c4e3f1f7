//! Instances behind a door of typed calls ([`super::fast`], [`super::assign`]): each serves one call at
//! a time, and is used again.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::time::timeout_at;
use tracing::{debug, warn};
use wasmtime::Store;

use super::{Doors, GivesWay, Leaving, late};
use crate::guest::offload::Lane;
use crate::http::error::Failure;
use crate::guest::instance::{InstanceState, Stores, is_full, is_late};
use crate::metrics::Ended;
use crate::guest::component::Counted;

/// What a door calls of an instance.
pub(super) trait Guest: Sized + Send + 'static {
    /// What instances are made from.
    type Pre: Clone + Send + Sync;

    /// Instantiates it in `store`, and asks what it is asked once.
    fn create(
        pre: &Self::Pre,
        store: &mut Store<InstanceState>,
    ) -> impl Future<Output = wasmtime::Result<Self>> + Send;
}

/// A live instance behind the door of `G`.
pub(super) struct Instance<G> {
    pub(super) store: Store<InstanceState>,
    pub(super) guest: G,
    served: usize,
    /// Calls it may serve.
    most: usize,
    made: Instant,
    idle_since: Instant,
}

/// The instances of one component behind one door.
pub(super) struct Instances<G: Guest> {
    doors: Arc<Doors>,
    pre: G::Pre,
    stores: Arc<Stores>,
    /// Where calls that take long go on.
    background: Lane,
    /// The last used on top, so that the rest grow old and are dropped.
    idle: Mutex<Idle<G>>,
    /// Calls under way.
    calls: AtomicUsize,
    /// Spare instances in the making.
    making: AtomicUsize,
}

/// Boxed, as an instance moves from future to future with each request.
type Idle<G> = Vec<Box<Instance<G>>>;

impl<G: Guest> fmt::Debug for Instances<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instances").field("stores", &self.stores).finish_non_exhaustive()
    }
}

impl<G: Guest> Instances<G> {
    pub(super) fn new(
        pre: &G::Pre,
        stores: &Arc<Stores>,
        background: Lane,
        doors: &Arc<Doors>,
    ) -> Arc<Self> {
        let instances = Arc::new(Self {
            doors: Arc::clone(doors),
            pre: pre.clone(),
            stores: Arc::clone(stores),
            background,
            idle: Mutex::default(),
            calls: AtomicUsize::new(0),
            making: AtomicUsize::new(0),
        });
        doors.add(&instances);
        instances
    }

    /// Gives an instance to `call`, which gives it back, and keeps it for the next unless the call
    /// failed or it has served for long enough. A request that it serves has come through `hops`
    /// components, this one included.
    pub(super) async fn call<T, Called>(
        self: &Arc<Self>,
        deadline: Instant,
        hops: usize,
        call: impl FnOnce(Box<Instance<G>>) -> Called,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        Called: Future<Output = (Box<Instance<G>>, wasmtime::Result<T>)> + Send + 'static,
    {
        let _call = Counted::new(&self.calls);
        let mut instance = match self.take_idle() {
            Some(instance) => instance,
            None => self.instantiate(deadline).await?,
        };
        let state = instance.store.data_mut();
        state.deadline = deadline;
        state.outbound.hops = hops;
        instance.store.set_epoch_deadline(1);
        let call = call(instance);
        let call = self.background.run(async move {
            let (mut instance, answer) = call.await;
            if answer.as_ref().is_err_and(|error| !is_late(error)) {
                instance.store.data_mut().ends(Ended::Failed);
            }
            (instance, answer)
        });
        let (instance, answer) = match timeout_at(deadline.into(), call).await {
            Ok(Ok((instance, Ok(answer)))) => (instance, answer),
            Ok(Ok((_, Err(error)))) if is_late(&error) => return Err(late(self.stores.spec())),
            Ok(Ok((_, Err(error)))) => return Err(self.failed(format_args!("{error:#}"))),
            Ok(Err(lost)) => return Err(self.failed(format_args!("{lost}"))),
            Err(_) => return Err(late(self.stores.spec())),
        };
        self.keep(instance);
        Ok(answer)
    }

    async fn instantiate(self: &Arc<Self>, deadline: Instant) -> Result<Box<Instance<G>>, Failure> {
        let instances = Arc::clone(self);
        // What a guest does at its start may take as long as a call.
        let making = self
            .background
            .run(async move { instances.doors.with_room(|| instances.make(deadline)).await });
        match timeout_at(deadline.into(), making).await {
            Ok(Ok(Ok(instance))) => Ok(instance),
            Ok(Ok(Err(error))) if is_late(&error) => Err(late(self.stores.spec())),
            Err(_) => Err(late(self.stores.spec())),
            Ok(Ok(Err(error))) if is_full(&error) => Err(Failure::NoRoom),
            Ok(Err(lost)) => Err(self.failed(format_args!("{lost}"))),
            Ok(Ok(Err(error))) => {
                let component = self.stores.spec().id.clone();
                warn!(component, error = format!("{error:#}"), "cannot instantiate");
                Err(Failure::Instantiation { component })
            }
        }
    }

    async fn make(&self, deadline: Instant) -> wasmtime::Result<Box<Instance<G>>> {
        let start = Instant::now();
        let mut store = self.stores.create(deadline)?;
        let guest = G::create(&self.pre, &mut store).await?;
        let made = Instant::now();
        store.data_mut().begins(made - start);
        let most = self.stores.spec().reuse.requests.draw();
        Ok(Box::new(Instance { store, guest, served: 0, most, made, idle_since: made }))
    }

    fn idle(&self) -> MutexGuard<'_, Idle<G>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance, and a spare one for the next if this was the last and others are calling.
    fn take_idle(self: &Arc<Self>) -> Option<Box<Instance<G>>> {
        let age = self.stores.spec().reuse.age;
        let mut old = Vec::new();
        let mut idle = self.idle();
        let instance = loop {
            match idle.pop() {
                // A spare one may serve once, however long it waited.
                Some(mut instance) if instance.served > 0 && instance.made.elapsed() >= age => {
                    instance.store.data_mut().ends(Ended::Retired);
                    old.push(instance);
                }
                instance => break instance,
            }
        };
        let left = idle.len();
        drop(idle);
        drop(old);
        if self.calls.load(Ordering::Relaxed) > 1 {
            self.make_spare(left);
        }
        instance
    }

    fn keep(self: &Arc<Self>, mut instance: Box<Instance<G>>) {
        let now = Instant::now();
        let age = self.stores.spec().reuse.age;
        instance.served += 1;
        if instance.served < instance.most && now - instance.made < age {
            instance.idle_since = now;
            self.idle().push(instance);
        } else {
            instance.store.data_mut().ends(Ended::Retired);
            // Here and now: dropped in the background, they could come faster than they go.
            drop(instance);
            let left = self.idle().len();
            self.make_spare(left);
        }
    }

    /// Makes an instance in the background, if fewer than `reuse.spare` are idle or being made.
    fn make_spare(self: &Arc<Self>, idle: usize) {
        let spec = self.stores.spec();
        let being_made = Making::one_more(self);
        if idle + being_made.before >= spec.reuse.spare {
            return;
        }
        let instances = Arc::clone(self);
        let deadline = Instant::now() + spec.limits.deadline;
        self.background.spawn(async move {
            match timeout_at(deadline.into(), instances.make(deadline)).await {
                Ok(Ok(instance)) => instances.idle().push(instance),
                // Whoever needs one will make it, and say what is wrong.
                Ok(Err(error)) => debug!(error = format!("{error:#}"), "no spare instance"),
                Err(_) => debug!("no spare instance in time"),
            }
            drop(being_made);
        });
    }

    fn failed(&self, error: fmt::Arguments<'_>) -> Failure {
        let component = self.stores.spec().id.clone();
        warn!(component, %error, "failed");
        Failure::Trap { component }
    }
}

impl<G: Guest> GivesWay for Instances<G> {
    fn drop_idle(&self, since: Instant) -> Leaving {
        let mut idle = self.idle();
        let old = idle.partition_point(|instance| instance.idle_since <= since);
        let mut dropped: Vec<_> = idle.drain(..old).collect();
        drop(idle);
        dropped.iter_mut().for_each(|instance| instance.store.data_mut().ends(Ended::Idle));
        Leaving::gone(dropped.len())
    }
}

/// One more spare instance in the making, for as long as it lives.
struct Making<G: Guest> {
    instances: Arc<Instances<G>>,
    before: usize,
}

impl<G: Guest> Making<G> {
    fn one_more(instances: &Arc<Instances<G>>) -> Self {
        let before = instances.making.fetch_add(1, Ordering::Relaxed);
        Self { instances: Arc::clone(instances), before }
    }
}

impl<G: Guest> Drop for Making<G> {
    fn drop(&mut self) {
        self.instances.making.fetch_sub(1, Ordering::Relaxed);
    }
}
