//! A model version with normal fields, or categories, and looks at its window after every few
//! records.

use std::collections::VecDeque;

use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
use spinfer_statistics::alarm::{
    FieldCounts, FieldEvidence, StartEvidence, covered, is_raised, p_values,
};

/// Parts of a window.
const PARTS: usize = 20;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Rows of the reference data.
    pub(crate) rows: usize,
    pub(crate) fields: usize,
    pub(crate) kind: FieldKind,
    /// Records of a window.
    pub(crate) window: usize,
    /// Records between looks.
    pub(crate) between: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum FieldKind {
    /// Normal, in deciles of the reference data.
    Normal,
    /// Categories with these shares.
    Categories(&'static [f64]),
}

/// A part of the window: counts of each field.
struct Part {
    start: Option<u64>,
    records: usize,
    counts: Vec<Vec<u64>>,
}

pub(crate) struct Simulation<'a> {
    setting: &'a Setting,
    fields: Vec<(FieldEvidence, Vec<f64>)>,
    parts: VecDeque<Part>,
    starts: u64,
}

impl<'a> Simulation<'a> {
    /// Draws the reference data.
    pub(crate) fn new(setting: &'a Setting, random: &mut impl Rng) -> Self {
        let field = |_| match setting.kind {
            FieldKind::Normal => {
                let mut values: Vec<f64> =
                    (0..setting.rows).map(|_| StandardNormal.sample(random)).collect();
                values.sort_by(f64::total_cmp);
                // As `spinfer baseline` does: halfway between a decile and the next value.
                let ends: Vec<usize> =
                    (1..10).map(|decile| (values.len() - 1) * decile / 10 + 1).collect();
                let edges = ends.iter().map(|&end| f64::midpoint(values[end - 1], values[end]));
                let bounds = [vec![0], ends.clone(), vec![values.len()]].concat();
                let counts: Vec<u64> =
                    bounds.windows(2).map(|pair| (pair[1] - pair[0]) as u64).collect();
                (FieldEvidence::numbers(&counts, 0), edges.collect())
            }
            FieldKind::Categories(shares) => {
                let edges: Vec<f64> = cumulative(shares);
                let mut counts = vec![0; shares.len()];
                for _ in 0..setting.rows {
                    counts[bin(&edges, random.random())] += 1;
                }
                (FieldEvidence::categories(&counts, 0), edges)
            }
        };
        let fields = (0..setting.fields).map(field).collect();
        Self { setting, fields, parts: VecDeque::new(), starts: 0 }
    }

    /// Draws `records` records, of which the first field is shifted by `shift` standard deviations.
    /// The number of records before the first look with a p-value below `alpha`.
    pub(crate) fn first_alarm(
        &mut self,
        records: usize,
        shift: f64,
        alpha: f64,
        random: &mut impl Rng,
    ) -> Option<usize> {
        (1..=records).find(|record| {
            self.draw(shift, random);
            record.is_multiple_of(self.setting.between)
                && self.look().iter().any(|&p_value| is_raised(false, p_value, alpha))
        })
    }

    /// The smallest p-value of all looks at `records` records without drift.
    pub(crate) fn smallest_p_value(&mut self, records: usize, random: &mut impl Rng) -> f64 {
        let mut smallest = 1.0_f64;
        for record in 1..=records {
            self.draw(0.0, random);
            if record.is_multiple_of(self.setting.between) {
                smallest = self.look().into_iter().fold(smallest, f64::min);
            }
        }
        smallest
    }

    fn draw(&mut self, shift: f64, random: &mut impl Rng) {
        if self.parts.back().is_none_or(|part| part.records >= self.setting.window / PARTS) {
            if self.parts.len() == PARTS {
                self.parts.pop_front();
            }
            let counts = self.fields.iter().map(|(_, edges)| vec![0; edges.len() + 1]).collect();
            self.parts.push_back(Part { start: None, records: 0, counts });
        }
        let last = self.parts.len() - 1;
        let part = &mut self.parts[last];
        part.records += 1;
        let fields = part.counts.iter_mut().zip(&self.fields);
        for (index, (counts, (_, edges))) in fields.enumerate() {
            let value: f64 = match self.setting.kind {
                FieldKind::Normal => StandardNormal.sample(random),
                FieldKind::Categories(_) => random.random(),
            };
            let shift = if index == 0 { shift } else { 0.0 };
            counts[bin(edges, value + shift)] += 1;
        }
    }

    fn look(&mut self) -> Vec<f64> {
        let mut starts = Vec::new();
        for covered in covered(self.parts.len()) {
            let first = self.parts.len() - covered;
            let start = *self.parts[first].start.get_or_insert_with(|| {
                self.starts += 1;
                self.starts
            });
            let ln = self.fields.iter().enumerate().map(|(field, (evidence, edges))| {
                let mut sum = vec![0; edges.len() + 1];
                for part in self.parts.iter().skip(first) {
                    sum.iter_mut().zip(&part.counts[field]).for_each(|(sum, count)| *sum += count);
                }
                evidence.ln(&FieldCounts { bins: &sum, missing: 0, unseen: 0 })
            });
            starts.push(StartEvidence { start, ln: ln.collect() });
        }
        p_values(&starts, self.fields.len())
    }
}

/// The bounds between categories on the line from 0 to 1.
fn cumulative(shares: &[f64]) -> Vec<f64> {
    let mut sum = 0.0;
    let sums = shares.iter().take(shares.len() - 1).map(|share| {
        sum += share;
        sum
    });
    sums.collect()
}

fn bin(edges: &[f64], value: f64) -> usize {
    edges.partition_point(|&edge| edge <= value)
}
