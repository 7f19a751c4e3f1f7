//! The report of several hosts: the windows of this one, merged with those that others sent.

use std::time::SystemTime;

use anyhow::{Result, ensure};

use super::Monitor;
use super::report::{Report, Unwatched, UnwatchedReason};
use super::saved::{SavedWindow, SavedWindows};

impl Monitor {
    /// The report of the windows of this host, merged with those of `others`.
    ///
    /// # Errors
    /// Fails if a host is given twice, or has a window of the same version with another baseline or
    /// another shape.
    pub fn merged_report(
        &self,
        now: SystemTime,
        model: Option<&str>,
        others: &[SavedWindows],
    ) -> Result<Report> {
        let mut ids = vec![&self.id];
        for id in others.iter().filter_map(|other| other.host.as_ref()) {
            ensure!(
                !ids.contains(&id),
                "two of the addresses are of one host, whose records would count twice; write the \
                 address of each host once"
            );
            ids.push(id);
        }
        let wanted = |name: &str| model.is_none_or(|model| model == name);
        let windows = others.iter().flat_map(|other| &other.windows);
        let windows: Vec<&SavedWindow> = windows.filter(|other| wanted(&other.model)).collect();
        let mut unwatched: Vec<Unwatched> = Vec::new();
        for window in &windows {
            let SavedWindow { model, version, .. } = window;
            if let Some(watched) = self.find(model, version) {
                watched.check_mergeable(window)?;
                continue;
            }
            let other = Unwatched {
                model: model.clone(),
                version: Some(version.clone()),
                reason: UnwatchedReason::OtherHost,
                hosts: Vec::new(),
            };
            if !unwatched.contains(&other) {
                unwatched.push(other);
            }
        }
        let mut report = self.report_with(now, model, |model, version| {
            let windows = windows.iter().copied();
            windows.filter(|other| other.model == model && other.version == version).collect()
        });
        unwatched.sort_by(|a, b| (&a.model, &a.version).cmp(&(&b.model, &b.version)));
        report.unwatched.extend(unwatched);
        report.add_labels(others);
        Ok(report)
    }
}
