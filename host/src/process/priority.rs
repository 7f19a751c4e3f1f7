//! Thread priorities: with more threads than processors, those that poll connections, which finish
//! within microseconds, run before those that compute.

use rustix::io;
use tracing::{debug, warn};

/// What is added to the nice value (see nice(2)) of threads that do long work.
pub const NICE_INCREMENT: i32 = 10;
/// Time slice of a thread that polls connections, in nanoseconds: the minimum of Linux.
const SLICE_NANOS: u64 = 100_000;

/// Lowers the priority of this thread. Logs a warning where the system does not permit it.
pub fn lower_priority() {
    if let Err(error) = rustix::process::nice(NICE_INCREMENT) {
        warn!(%error, "cannot lower the priority of a thread for long work");
    }
}

/// Requests a short time slice for this thread, which the scheduler then runs sooner after a wake-up
/// (EEVDF, Linux 6.12 and later; see sched(7)). Has no effect where the kernel does not support or
/// permit it.
pub fn shorten_time_slice() {
    match set_slice(SLICE_NANOS) {
        Ok(()) => {}
        Err(error) => debug!(%error, "cannot shorten the time slice of this thread"),
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

/// sched_setattr(2) and sched_getattr(2), which rustix lacks.
#[cfg(target_os = "linux")]
mod linux {
    use libc::{SYS_sched_getattr, SYS_sched_setattr, c_long, sched_attr, syscall};
    use rustix::io::{self, Errno};

    const THIS_THREAD: c_long = 0;
    const NO_FLAGS: c_long = 0;
    /// Size of the structure's first version, which every kernel supports, in bytes.
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
        // SAFETY: the kernel writes `SIZE` bytes, and the structure is at least as large.
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
        // SAFETY: the kernel reads `size` bytes, and the structure is at least as large.
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
    fn short_time_slice_keeps_the_priority() {
        std::thread::spawn(|| {
            lower_priority();
            let before = linux::attributes().unwrap();
            shorten_time_slice();
            let after = linux::attributes().unwrap();
            // A kernel without support reports 0.
            assert!(before.sched_runtime == 0 || after.sched_runtime == SLICE_NANOS);
            assert_eq!(
                (after.sched_policy, after.sched_nice),
                (before.sched_policy, before.sched_nice)
            );
            assert!(after.sched_nice >= NICE_INCREMENT.min(19));
        })
        .join()
        .unwrap();
    }
}
