//! Why a body ended before it was complete.

use std::fmt;

use wasmtime_wasi_http::Error as WasiHttpError;

/// Why a body that an instance writes ended before it was complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutOff {
    /// The instance trapped, or another failure dropped it.
    Trap,
    /// The instance was interrupted: the deadlines of everything that it served had passed.
    Interrupted,
    /// The component returned, or dropped its body, without finishing it.
    Unfinished,
    /// The component closed the body with an error.
    Error(String),
    /// The body is not as long as its `Content-Length`.
    Length { announced: u64, sent: u64 },
    /// No part was written for `limits.stream_idle`.
    Idle,
    /// It was not complete within `limits.stream_total`.
    Total,
    /// Its client did not read it.
    Unread,
    /// The memory budget of responses is exhausted.
    MemoryBudget,
    /// It was still open when the host had to exit.
    Shutdown,
}

/// A kind of [`CutOff`]: the `reason` of `spinfer_responses_cut_off_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutOffReason {
    Trap,
    Deadline,
    Unfinished,
    Error,
    ContentLength,
    Idle,
    Total,
    Unread,
    MemoryBudget,
    Shutdown,
}

impl CutOffReason {
    /// In the order of the variants.
    pub const ALL: [Self; Self::Shutdown as usize + 1] = [
        Self::Trap,
        Self::Deadline,
        Self::Unfinished,
        Self::Error,
        Self::ContentLength,
        Self::Idle,
        Self::Total,
        Self::Unread,
        Self::MemoryBudget,
        Self::Shutdown,
    ];

    /// The value of the label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Unfinished => "unfinished",
            Self::Error => "error",
            Self::ContentLength => "content_length",
            Self::Idle => "idle",
            Self::Total => "total",
            Self::Unread => "unread",
            Self::MemoryBudget => "memory_budget",
            Self::Shutdown => "shutdown",
        }
    }
}

impl CutOff {
    /// The cause behind an error of wasmtime's body, which has an announced length or none.
    pub(super) fn of(error: &WasiHttpError, announced: Option<u64>, sent: u64) -> Self {
        match (error, announced) {
            (WasiHttpError::HttpResponseBodySize(actual), Some(announced)) => {
                Self::Length { announced, sent: actual.unwrap_or(sent) }
            }
            // A guest of WASI 0.2 that finishes a body too early, or drops it.
            (WasiHttpError::HttpProtocolError, Some(announced)) => Self::Length { announced, sent },
            (WasiHttpError::HttpProtocolError, None) => Self::Unfinished,
            (error, _) => Self::Error(error.to_string()),
        }
    }

    /// Its kind.
    #[must_use]
    pub fn reason(&self) -> CutOffReason {
        match self {
            Self::Trap => CutOffReason::Trap,
            Self::Interrupted => CutOffReason::Deadline,
            Self::Unfinished => CutOffReason::Unfinished,
            Self::Error(_) => CutOffReason::Error,
            Self::Length { .. } => CutOffReason::ContentLength,
            Self::Idle => CutOffReason::Idle,
            Self::Total => CutOffReason::Total,
            Self::Unread => CutOffReason::Unread,
            Self::MemoryBudget => CutOffReason::MemoryBudget,
            Self::Shutdown => CutOffReason::Shutdown,
        }
    }
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trap => "the component failed",
            Self::Interrupted => "the component exceeded its deadline",
            Self::Unfinished => "the component did not finish its body",
            Self::Error(error) => {
                return write!(f, "the component closed its body with an error: {error}");
            }
            Self::Length { announced, sent } => {
                return write!(
                    f,
                    "the component announced a content-length of {announced} bytes and sent {sent}"
                );
            }
            Self::Idle => "the component wrote nothing for limits.stream_idle",
            Self::Total => "it was not complete within limits.stream_total",
            Self::Unread => "the client did not read it",
            Self::MemoryBudget => "the memory budget of responses is exhausted",
            Self::Shutdown => "the host shuts down",
        })
    }
}

/// The error that the reader receives, which may be another component.
impl From<&CutOff> for WasiHttpError {
    fn from(cut: &CutOff) -> Self {
        match cut {
            CutOff::Trap | CutOff::Unfinished | CutOff::Shutdown => Self::HttpResponseIncomplete,
            CutOff::Interrupted | CutOff::Idle | CutOff::Total => Self::HttpResponseTimeout,
            CutOff::Unread => Self::ConnectionWriteTimeout,
            CutOff::Length { sent, .. } => Self::HttpResponseBodySize(Some(*sent)),
            CutOff::Error(_) | CutOff::MemoryBudget => Self::InternalError(Some(cut.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_unique_names() {
        for (index, reason) in CutOffReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
            let same = CutOffReason::ALL.iter().filter(|other| other.name() == reason.name());
            assert_eq!(same.count(), 1, "{reason:?}");
        }
    }

    #[test]
    fn body_of_another_length_than_announced_is_recognised() {
        let size = WasiHttpError::HttpResponseBodySize(Some(7));
        assert_eq!(CutOff::of(&size, Some(5), 0), CutOff::Length { announced: 5, sent: 7 });
        let aborted = WasiHttpError::HttpProtocolError;
        assert_eq!(CutOff::of(&aborted, Some(5), 3), CutOff::Length { announced: 5, sent: 3 });
        assert_eq!(CutOff::of(&aborted, None, 3), CutOff::Unfinished);
        let gave_up = WasiHttpError::InternalError(Some("gave up".into()));
        assert!(CutOff::of(&gave_up, Some(5), 3).to_string().ends_with("gave up"));
    }
}
