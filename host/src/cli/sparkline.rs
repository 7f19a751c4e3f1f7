//! Histograms as one line of block characters.

/// Blocks from the lowest to the highest; an empty bin has the lowest.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Renders histograms with the same bins on a common scale: the highest bar of all is a full block. If
/// there are more than `bars` bins, neighbouring ones are merged.
pub(super) fn sparklines<const N: usize>(histograms: [&[f64]; N], bars: usize) -> [String; N] {
    let merged = histograms.map(|shares| merge(shares, bars));
    let highest = merged.iter().flatten().copied().fold(0.0, f64::max);
    merged.map(|shares| shares.into_iter().map(|share| block(share, highest)).collect())
}

fn merge(shares: &[f64], bars: usize) -> Vec<f64> {
    let per_bar = shares.len().div_ceil(bars.max(1)).max(1);
    shares.chunks(per_bar).map(|chunk| chunk.iter().sum()).collect()
}

fn block(share: f64, highest: f64) -> char {
    let steps = BLOCKS.len() - 1;
    let height = if highest > 0.0 { share / highest } else { 0.0 };
    let step = (1..=steps).rev().find(|&step| height >= (step as f64 - 0.5) / steps as f64);
    BLOCKS[step.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_share_one_scale() {
        assert_eq!(sparklines([&[0.5, 0.5], &[0.0, 1.0]], 10), ["▅▅", "▁█"]);
        assert_eq!(sparklines([&[], &[0.0]], 10), ["", "▁"]);
        assert_eq!(sparklines([&[f64::NAN, 1.0]], 10), ["▁█"]);
    }

    #[test]
    fn neighbouring_bins_are_merged() {
        let [line] = sparklines([&[0.03; 33]], 10);
        assert_eq!(line, "████████▃", "eight bars of four bins, and one of the last bin");
        assert_eq!(sparklines([&[1.0; 5]], 0)[0].chars().count(), 1);
    }
}
