//! Scores of classes.

/// Whether `width` scores for each row can be those of `labels` classes: one for each, the margin between
/// each pair of classes, or a single number, such as that of the best class.
#[must_use]
pub fn scores_fit(labels: usize, width: usize) -> bool {
    let pairs = labels.saturating_mul(labels.saturating_sub(1)) / 2;
    width == labels || width == pairs || width == 1
}
