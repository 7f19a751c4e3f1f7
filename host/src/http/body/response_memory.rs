//! The memory of responses that clients have not read: how much there is, how much one client address
//! can hold, and which response is given up when it is short.
//!
//! A response that does not fit takes the place of the slowest ones: those whose clients have read
//! nothing for longest, at least [`GRACE`]. If every client reads, it is refused after a second.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{sleep, sleep_until, timeout_at};

use super::MAX_BODIES;
use super::delivery::{Delivery, GRACE, Needed};
use crate::process::memory_budget::{Charge, MemoryBudget, OverBudget};

/// Responses that are shorter, in bytes, are not charged: the state of a request takes more.
pub const MIN_CHARGED: usize = 1 << 10;
/// Default of `limits.unread_per_client`, in bytes: half of what all clients can hold.
pub const UNREAD_PER_CLIENT: usize = MAX_BODIES / 2;
/// Maximum size of the responses that wait for memory, in bytes.
const MAX_WAITING: usize = MAX_BODIES / 4;
/// Maximum time for which a response waits for memory.
const MAX_WAIT: Duration = GRACE.saturating_mul(10);

/// The memory of unread responses; clones share it.
#[derive(Clone, Debug)]
pub struct ResponseMemory(Arc<MemoryState>);

#[derive(Debug)]
struct MemoryState {
    budget: MemoryBudget,
    waiting: MemoryBudget,
    /// Maximum size of the responses that one client address holds, in bytes, if it holds several.
    per_client: usize,
    /// Bytes that each client address holds.
    clients: Mutex<HashMap<IpAddr, usize>>,
    deliveries: Mutex<Deliveries>,
}

#[derive(Debug, Default)]
struct Deliveries {
    last_number: u64,
    by_number: HashMap<u64, Arc<Delivery>>,
}

/// Bytes of a response that are held for a client.
#[derive(Debug)]
pub struct ResponseCharge {
    memory: ResponseMemory,
    client: Option<IpAddr>,
    charge: Charge,
}

/// A charge that does not fit.
#[derive(Clone, Copy, Debug)]
struct Shortage {
    needed: Needed,
    problem: OverBudget,
}

impl ResponseMemory {
    /// Memory of `total` bytes, of which one client address can hold `per_client`.
    #[must_use]
    pub fn new(total: usize, per_client: usize) -> Self {
        Self(Arc::new(MemoryState {
            budget: MemoryBudget::new(total, "responses"),
            waiting: MemoryBudget::new(MAX_WAITING, "responses that wait for memory"),
            per_client,
            clients: Mutex::default(),
            deliveries: Mutex::default(),
        }))
    }

    /// `bytes`, charged until their last part is dropped. `client`: the address they are held for;
    /// `None` within the host.
    ///
    /// # Errors
    /// They do not fit.
    pub fn try_hold(&self, bytes: Bytes, client: Option<IpAddr>) -> Result<Bytes, OverBudget> {
        if bytes.len() < MIN_CHARGED {
            return Ok(bytes);
        }
        let charge = self.try_charge(bytes.len(), client).map_err(|shortage| shortage.problem)?;
        Ok(Bytes::from_owner(HeldBytes { bytes, _charge: charge }))
    }

    /// As [`Self::try_hold`], after slower responses were given up if `bytes` do not fit with them.
    ///
    /// # Errors
    /// They do not fit, and no response can be given up.
    pub async fn hold(&self, bytes: Bytes, client: Option<IpAddr>) -> Result<Bytes, OverBudget> {
        if bytes.len() < MIN_CHARGED {
            return Ok(bytes);
        }
        let mut waiting = None;
        let until = Instant::now() + MAX_WAIT;
        loop {
            let shortage = match self.try_charge(bytes.len(), client) {
                Ok(_charge) => return Ok(Bytes::from_owner(HeldBytes { bytes, _charge })),
                Err(shortage) => shortage,
            };
            if waiting.is_none() {
                waiting = Some(self.0.waiting.charge(bytes.len())?);
            }
            let slowest = self.slowest(client.filter(|_| shortage.needed == Needed::ClientMemory));
            let now = Instant::now();
            match slowest {
                Some((since, slowest)) if since + GRACE <= now => {
                    slowest.give_up(shortage.needed);
                    // Its connection ends within moments.
                    let _ = timeout_at((now + GRACE).into(), slowest.gone()).await;
                }
                Some((since, _)) if now < until => sleep_until((since + GRACE).into()).await,
                // What holds the memory waits for its component, for memory as well, or is closed now.
                None if now < until => sleep(GRACE / 10).await,
                _ => return Err(shortage.problem),
            }
        }
    }

    fn try_charge(&self, bytes: usize, client: Option<IpAddr>) -> Result<ResponseCharge, Shortage> {
        let charge = self.0.budget.charge(bytes);
        if let Some(client) = client {
            let mut clients = self.0.clients.lock();
            let held = clients.get(&client).copied().unwrap_or_default();
            let (needed, limit) = (held.saturating_add(bytes), self.0.per_client);
            // One response always fits.
            if held > 0 && needed > limit {
                let setting = "limits.unread_per_client";
                let problem = OverBudget { needed, limit, setting };
                return Err(Shortage { needed: Needed::ClientMemory, problem });
            }
            if charge.is_ok() {
                clients.insert(client, needed);
            }
        }
        let charge = charge.map_err(|problem| Shortage { needed: Needed::Memory, problem })?;
        Ok(ResponseCharge { memory: self.clone(), client, charge })
    }

    fn release(&self, client: Option<IpAddr>, bytes: usize) {
        let Some(client) = client else { return };
        if let Entry::Occupied(mut held) = self.0.clients.lock().entry(client) {
            *held.get_mut() = held.get().saturating_sub(bytes);
            if *held.get() == 0 {
                held.remove();
            }
        }
    }

    /// The response that has been unread for longest, of `client` if there is one, and since when.
    fn slowest(&self, client: Option<IpAddr>) -> Option<(Instant, Arc<Delivery>)> {
        let deliveries = self.0.deliveries.lock();
        let unread = deliveries.by_number.values().filter_map(|delivery| {
            let is_asked = client.is_none_or(|client| delivery.client().ip() == client);
            Some((delivery.unread_since().filter(|_| is_asked)?, delivery))
        });
        let (since, slowest) = unread.min_by_key(|(since, _)| *since)?;
        Some((since, Arc::clone(slowest)))
    }

    /// Lists a response that holds memory or a permit, so that it can be given up.
    #[must_use]
    pub fn deliver(&self, delivery: Delivery) -> OpenDelivery {
        let delivery = Arc::new(delivery);
        let mut deliveries = self.0.deliveries.lock();
        deliveries.last_number += 1;
        let number = deliveries.last_number;
        deliveries.by_number.insert(number, Arc::clone(&delivery));
        OpenDelivery { delivery, number, memory: self.clone() }
    }
}

impl Drop for ResponseCharge {
    fn drop(&mut self) {
        self.memory.release(self.client, self.charge.bytes());
    }
}

struct HeldBytes {
    bytes: Bytes,
    _charge: ResponseCharge,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A response that is listed until this is dropped. Drop it after what it holds.
#[derive(Debug)]
pub struct OpenDelivery {
    delivery: Arc<Delivery>,
    number: u64,
    memory: ResponseMemory,
}

impl OpenDelivery {
    #[must_use]
    pub fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }
}

impl Drop for OpenDelivery {
    fn drop(&mut self) {
        self.memory.0.deliveries.lock().by_number.remove(&self.number);
        self.delivery.set_gone();
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::delivery::Abort;
    use super::*;
    use crate::metrics::RouteMetrics;

    const KIB: usize = 1 << 10;

    fn client(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn bytes(length: usize) -> Bytes {
        Bytes::from(vec![7; length])
    }

    /// An unread response of `n`, whose connection is closed when it is given up.
    async fn unread(memory: &ResponseMemory, n: u8, length: usize) -> Arc<Abort> {
        let held = memory.hold(bytes(length), Some(client(n))).await.unwrap();
        let abort = Arc::new(Abort::default());
        let route = Arc::new(RouteMetrics::new("component", "/route"));
        let address = SocketAddr::from((client(n), 80));
        let open = memory.deliver(Delivery::new(address, route, Arc::clone(&abort)));
        let closed = Arc::clone(&abort);
        tokio::spawn(async move {
            std::future::poll_fn(|cx| closed.poll_requested(cx)).await;
            drop(held);
            drop(open);
        });
        abort
    }

    #[tokio::test]
    async fn responses_are_charged_until_their_last_part_is_dropped() {
        let memory = ResponseMemory::new(3 * KIB, 3 * KIB);
        let mut whole = memory.hold(bytes(2 * KIB), Some(client(1))).await.unwrap();
        let end = whole.split_off(2 * KIB - 1);
        drop(whole);
        assert_eq!((memory.0.budget.used(), &*end), (2 * KIB, &[7][..]), "a part keeps all of it");
        assert!(memory.try_hold(bytes(KIB + 1), None).is_err());
        assert!(memory.hold(bytes(KIB + 1), Some(client(2))).await.is_err(), "nothing is unread");
        assert_eq!(memory.0.clients.lock().len(), 1, "a refused charge leaves nothing behind");
        assert_eq!(memory.try_hold(bytes(KIB - 1), None).unwrap().len(), KIB - 1);
        drop(end);
        assert_eq!((memory.0.budget.used(), memory.0.clients.lock().len()), (0, 0));
        assert!(memory.try_hold(bytes(3 * KIB), None).is_ok());
    }

    #[tokio::test]
    async fn slowest_response_is_given_up_for_another() {
        let memory = ResponseMemory::new(4 * KIB, 4 * KIB);
        let slowest = unread(&memory, 1, 2 * KIB).await;
        let slow = unread(&memory, 2, 2 * KIB).await;
        let _third = memory.hold(bytes(2 * KIB), Some(client(3))).await.unwrap();
        assert!(slowest.is_requested() && !slow.is_requested());
    }

    /// Of a response that waits for its component, a part can be held that was read ahead.
    #[tokio::test]
    async fn memory_is_waited_for_while_nothing_is_unread() {
        let memory = ResponseMemory::new(4 * KIB, 4 * KIB);
        let held = memory.hold(bytes(3 * KIB), Some(client(1))).await.unwrap();
        let mut next = std::pin::pin!(memory.hold(bytes(3 * KIB), Some(client(1))));
        assert!(futures::poll!(next.as_mut()).is_pending());
        drop(held);
        assert_eq!(next.await.unwrap().len(), 3 * KIB);
    }

    #[tokio::test]
    async fn client_over_its_bound_loses_its_own_slowest_response() {
        let memory = ResponseMemory::new(100 * KIB, 4 * KIB);
        let other = unread(&memory, 1, 3 * KIB).await;
        let own = unread(&memory, 2, 3 * KIB).await;
        let _next = memory.hold(bytes(3 * KIB), Some(client(2))).await.unwrap();
        assert!(own.is_requested() && !other.is_requested());
        // A client that holds nothing else can have a response over the bound.
        assert!(memory.hold(bytes(9 * KIB), Some(client(3))).await.is_ok());
    }

    #[tokio::test]
    async fn response_is_refused_while_every_client_reads() {
        let memory = ResponseMemory::new(2 * KIB, 2 * KIB);
        let _held = memory.hold(bytes(2 * KIB), Some(client(1))).await.unwrap();
        let route = Arc::new(RouteMetrics::new("component", "/route"));
        let address = SocketAddr::from((client(1), 80));
        let open = memory.deliver(Delivery::new(address, route, Arc::default()));
        let delivery = Arc::clone(open.delivery());
        let reading = tokio::spawn(async move {
            loop {
                delivery.progress(false);
                tokio::time::sleep(GRACE / 10).await;
            }
        });
        let error = memory.hold(bytes(KIB), Some(client(2))).await.unwrap_err();
        assert_eq!((error.needed, error.limit), (3 * KIB, 2 * KIB));
        reading.abort();
        assert!(open.delivery().unread_since().is_some());
    }
}
