//! Memory of an idle component is released in three stages, each after another `limits.idle` without
//! a request: instances are dropped, models are unloaded, code is unloaded. The next request loads
//! what it needs.

use std::time::Instant;

use tracing::info;

use super::Component;
use crate::config::app::ComponentSpec;
use crate::config::limits::ComponentLimits;
use crate::guest::door::Evictable;

impl Component {
    /// Closes response bodies that clients have stopped reading, drops idle instances, and unloads
    /// idle models and code. Returns whether any memory was released.
    pub fn drop_idle(&self, now: Instant) -> bool {
        let ComponentSpec { id, limits: ComponentLimits { idle, .. }, .. } = self.spec();
        let unread = self.open_bodies.close_unread(now);
        if unread > 0 {
            info!(component = id, unread, "response bodies closed that clients stopped reading");
        }
        let instances = self.drop_idle_instances(now);
        if instances > 0 {
            info!(component = id, instances, "idle instances dropped");
        }
        let mut dropped = instances > 0;
        let Some(idle_time) = self.usage.idle_time(now) else { return dropped };
        if idle_time >= *idle * 2 {
            let models = self.stores.models().unload();
            if models > 0 {
                info!(component = id, models, "idle models unloaded");
                dropped = true;
            }
        }
        if idle_time >= *idle * 3 && self.open_doors().take().is_some() {
            info!(component = id, "idle code unloaded");
            dropped = true;
        }
        dropped
    }

    fn drop_idle_instances(&self, now: Instant) -> usize {
        let Some(since) = now.checked_sub(self.limits().idle) else { return 0 };
        let Some(doors) = self.open_doors().clone() else { return 0 };
        let fast = doors.fast.iter().map(|door| door.drop_idle(since).instances);
        let standard = doors.standard.iter().map(|door| door.drop_idle(since).instances);
        let assign = doors.assign.iter().map(|door| door.drop_idle(since).instances);
        let spin_1 = doors.spin_1.iter().map(|door| door.drop_idle(since).instances);
        fast.chain(assign).chain(spin_1).chain(standard).sum()
    }
}
