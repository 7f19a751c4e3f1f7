//! Windows as JSON: in the state folder, for the next run, and in `GET /drift/windows`, for a report
//! of several hosts.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::alarms::AlarmState;
use super::expected::LabelCounts;
use super::window::WindowState;
use crate::prediction_log::quality::{QualityGroup, Results};
use crate::process::atomic_file::{self, Existing, READABLE};
use crate::process::read_file::read_file;

/// Name of the file, next to the prediction log.
pub const WINDOWS_FILE: &str = "drift-windows.json";

/// Version of the format.
const FORMAT: u32 = 1;
/// Maximum size of the file, in bytes: more than the windows of ten versions with the maximum number of
/// bins.
const MAX_BYTES: u64 = 512 << 20;

/// The windows of a host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedWindows {
    format: u32,
    /// The host, to recognise one that is given twice. Absent in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<HostId>,
    pub(super) windows: Vec<SavedWindow>,
}

/// Identifies a running host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct HostId(String);

impl Default for HostId {
    fn default() -> Self {
        Self(format!("{:032x}", fastrand::u128(..)))
    }
}

/// The window of a model version, and its alarms.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedWindow {
    pub(super) model: String,
    pub(super) version: String,
    /// Fingerprint of the baseline.
    pub(super) baseline: String,
    /// Records, or half-life, of the window.
    pub(super) shape: String,
    pub(super) window: WindowState,
    /// The alarm of each field.
    pub(super) raised: Vec<AlarmState>,
    /// Predictions with labels, for a report of several hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) labels: Option<LabelCounts>,
}

impl SavedWindows {
    pub(super) fn new(host: HostId, windows: Vec<SavedWindow>) -> Self {
        Self { format: FORMAT, host: Some(host), windows }
    }

    /// Adds the accuracy on the predictions whose labels are known, for the report of another host.
    pub fn add_quality(&mut self, quality: &[(QualityGroup, Results)]) {
        for SavedWindow { model, version, labels, .. } in &mut self.windows {
            *labels = Some(LabelCounts::of(quality, model, version));
        }
    }

    /// Model and version of each window.
    pub fn versions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.windows.iter().map(|window| (window.model.as_str(), window.version.as_str()))
    }

    /// Parses the windows of a host.
    ///
    /// # Errors
    /// Fails if they are malformed, or of another version of spinfer.
    pub fn parse(json: &[u8]) -> Result<Self> {
        serde_json::from_slice::<Self>(json)?.checked()
    }

    /// Parses the windows of other hosts, a JSON array.
    ///
    /// # Errors
    /// Fails if they are malformed, or of another version of spinfer.
    pub fn parse_all(json: &[u8]) -> Result<Vec<Self>> {
        let all: Vec<Self> = serde_json::from_slice(json)?;
        all.into_iter().map(Self::checked).collect()
    }

    fn checked(self) -> Result<Self> {
        let format = self.format;
        ensure!(format == FORMAT, "format {format} is of another version of spinfer");
        Ok(self)
    }

    /// Reads the file at `path`; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        Self::parse(&read_file(path, MAX_BYTES)?).map(Some)
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec(self)?;
        atomic_file::write(path, &json, READABLE, Existing::Replace)
            .context("cannot write the file")
    }
}
