//! Metrics of drift.

use std::collections::HashSet;
use std::time::SystemTime;

use crate::drift::report::{FieldReport, UnseenReport, VersionReport};
use crate::host::Host;
use crate::metrics::exposition::Exposition;
use crate::metrics::table;

/// Maximum number of fields of a model version whose scores are exposed, features before outputs.
/// Each has up to six time series.
const MAX_DRIFT_FIELDS: usize = 100;

/// The first fields of a version with their labels.
fn labelled(version: &VersionReport) -> impl Iterator<Item = (String, &FieldReport)> {
    let features: HashSet<&str> =
        version.features.iter().map(|field| field.name.as_str()).collect();
    let outputs = version.outputs.iter().map(move |field| {
        // An output may have the name of a feature.
        let ambiguous = features.contains(field.name.as_str());
        let label = if ambiguous { format!("outputs.{}", field.name) } else { field.name.clone() };
        (label, field)
    });
    let features = version.features.iter().map(|field| (field.name.clone(), field));
    features.chain(outputs).take(MAX_DRIFT_FIELDS)
}

pub(super) fn expose(host: &Host, text: &mut Exposition) {
    let report = host.drift().report(SystemTime::now(), None);
    let mut scores = text.family(&table::DRIFT_SCORE);
    for version in &report.versions {
        for (label, field) in labelled(version) {
            let FieldReport { psi, ks, js, chi_squared, wasserstein, .. } = field;
            for (statistic, score) in [
                ("psi", *psi),
                ("ks", *ks),
                ("js", *js),
                ("chi_squared", chi_squared.map(|test| test.statistic)),
                ("wasserstein", wasserstein.map(|found| found.distance)),
            ] {
                if let Some(score) = score {
                    scores.value(&[&version.model, &version.version, &label, statistic], score);
                }
            }
        }
    }
    let mut unseen = text.family(&table::DRIFT_UNSEEN);
    for version in &report.versions {
        for (label, field) in labelled(version) {
            if let Some(UnseenReport { share, .. }) = &field.unseen {
                unseen.value(&[&version.model, &version.version, &label], share);
            }
        }
    }
    let mut accuracies = text.family(&table::DRIFT_ACCURACY);
    for version in &report.versions {
        let accuracy = version.performance.as_ref().and_then(|p| p.expected_accuracy);
        if let Some(accuracy) = accuracy {
            accuracies.value(&[&version.model, &version.version], accuracy);
        }
    }
    let mut windows = text.family(&table::DRIFT_WINDOW);
    for version in &report.versions {
        windows.value(&[&version.model, &version.version], version.window.records);
    }
    let mut alerts = text.family(&table::DRIFT_ALERT);
    for version in &report.versions {
        let kinds = [("feature", version.feature_drift), ("prediction", version.prediction_drift)];
        for (kind, drift) in kinds {
            let labels = [&version.model, &version.version, kind];
            alerts.value(&labels, u8::from(drift == Some(true)));
        }
    }
}
