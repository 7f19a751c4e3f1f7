//! Who goes first where there are more threads than processors: those that poll connections, which
//! are done in microseconds, before those that compute.

use rustix::io;
use tracing::{debug, warn};

/// How much nicer than the rest of the process (see nice(2)) the threads of long work are.
pub const NICER: i32 = 10;
/// For how long a prompt thread runs at a time if others want to: the least Linux knows.
const SLICE_NANOS: u64 = 100_000;

/// Lowers the priority of this thread. Whoever may not do even that goes on without.
pub fn yield_to_others() {
    if let Err(error) = rustix::process::nice(NICER) {
        warn!(%error, "cannot lower the priority of a compute thread");
    }
}

/// Lets this thread run soon after it is woken: it asks for a short slice of time, and in turn gets
/// it early (EEVDF, Linux 6.12 and later; see sched(7)). Where that is not known, or not allowed, it
/// goes on without.
pub fn be_prompt() {
    match set_slice(SLICE_NANOS) {
        Ok(()) => {}
        Err(error) => debug!(%error, "no short time slices"),
    }
}

#[cfg(target_os = "linux")]
fn set_slice(nanos: u64) -> io::Result<()> {
    let mut attributes = linux::attributes()?;
    attributes.sched_runtime = nanos;
    linux::set_attributes(&attributes)
}

#[cfg(not(target_os = "linux"))]
fn set_slice(_: u64) -> io::Result<()> {
    Err(io::Errno::NOSYS)
}

/// sched_setattr(2) and sched_getattr(2), which rustix has not.
#[cfg(target_os = "linux")]
mod linux {
    use libc::{SYS_sched_getattr, SYS_sched_setattr, c_long, sched_attr, syscall};
    use rustix::io::{self, Errno};

    const THIS_THREAD: c_long = 0;
    const NO_FLAGS: c_long = 0;
    /// The first version of the structure, which every kernel has.
    const SIZE: u32 = 48;

    pub(super) fn attributes() -> io::Result<sched_attr> {
        let mut attributes = sched_attr {
            size: SIZE,
            sched_policy: 0,
            sched_flags: 0,
            sched_nice: 0,
            sched_priority: 0,
            sched_runtime: 0,
            sched_deadline: 0,
            sched_period: 0,
        };
        #[expect(unsafe_code, reason = "a system call")]
        // SAFETY: the kernel writes `SIZE` bytes, which the structure has.
        let done = unsafe {
            syscall(
                SYS_sched_getattr,
                THIS_THREAD,
                &raw mut attributes,
                c_long::from(SIZE),
                NO_FLAGS,
            )
        };
        result(done).map(|()| attributes)
    }

    pub(super) fn set_attributes(attributes: &sched_attr) -> io::Result<()> {
        #[expect(unsafe_code, reason = "a system call")]
        // SAFETY: the kernel reads as many bytes as `size` says, which the structure has.
        let done =
            unsafe { syscall(SYS_sched_setattr, THIS_THREAD, &raw const *attributes, NO_FLAGS) };
        result(done)
    }

    fn result(done: c_long) -> io::Result<()> {
        match done {
            0 => Ok(()),
            _ => {
                Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_thread_has_short_slices_and_its_priority_as_before() {
        std::thread::spawn(|| {
            yield_to_others();
            let before = linux::attributes().unwrap();
            be_prompt();
            let after = linux::attributes().unwrap();
            // A kernel that does not know them says nothing of slices.
            assert!(before.sched_runtime == 0 || after.sched_runtime == SLICE_NANOS);
            assert_eq!(
                (after.sched_policy, after.sched_nice),
                (before.sched_policy, before.sched_nice)
            );
            assert!(after.sched_nice >= NICER.min(19));
        })
        .join()
        .unwrap();
    }
}
