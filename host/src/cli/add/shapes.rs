//! The shapes of a graph's inputs and outputs, derived from its trial runs; -1 is a free axis.

use std::fmt::Write;

use super::trials::{Freedom, Trials};
use super::values::SampleKind;

/// Shapes of inputs and outputs, with notes for the user.
#[derive(Debug)]
pub(super) struct Shapes {
    pub(super) inputs: Vec<Vec<i64>>,
    pub(super) outputs: Vec<Vec<i64>>,
    /// The axis of rows, of each input and of each output.
    pub(super) batch_axes: (Vec<usize>, Vec<usize>),
    pub(super) notes: Vec<String>,
}

/// An output as the graph declares it.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) name: String,
    /// Shape inferred by the backend.
    pub(super) inferred: Option<Vec<Option<u32>>>,
    /// Names of the axes, shared with those of inputs.
    pub(super) axis_names: Vec<Option<String>>,
    /// Shape in the file; -1 is a free axis.
    pub(super) of_file: Option<Vec<i64>>,
}

impl Shapes {
    /// The shapes shown by `trials`. `by_values`: the outputs' shapes may depend on the values of inputs.
    pub(super) fn of(trials: &Trials<'_>, declared: &[Declared], by_values: bool) -> Self {
        let is_free: Vec<bool> =
            trials.freedom.iter().map(|f| !matches!(f, Freedom::Fixed { .. })).collect();
        let inputs = trials.axes.shapes(&trials.runs[0].sizes, &is_free);
        let unknown = by_values || trials.freedom.contains(&Freedom::Unknown);
        let outputs: Vec<Vec<i64>> = declared
            .iter()
            .enumerate()
            .map(|(index, declared)| output(trials, index, declared, unknown))
            .collect();
        let mut notes = notes_of_axes(trials);
        notes
            .extend(declared.iter().zip(&outputs).filter_map(|(d, shape)| contradiction(d, shape)));
        let no_axes = || (vec![0; inputs.len()], vec![0; outputs.len()]);
        let names: Vec<&[Option<String>]> = declared.iter().map(|d| &*d.axis_names).collect();
        let named = by_values.then_some(names.as_slice());
        let batch_axes = batch_axes(trials, &is_free, &outputs, named).unwrap_or_else(no_axes);
        Self { inputs, outputs, batch_axes, notes }
    }
}

/// The shape of the output `index`. An axis that had the same size in every run is fixed, unless
/// something `unknown` may change it and the graph does not declare that size.
fn output(trials: &Trials<'_>, index: usize, declared: &Declared, unknown: bool) -> Vec<i64> {
    let first = &trials.runs[0].outputs[index];
    let inferred = declared.inferred.as_ref().filter(|inferred| inferred.len() == first.len());
    let of_file = declared.of_file.as_ref().filter(|shape| shape.len() == first.len());
    let axis = |(axis, &size): (usize, &u32)| {
        let mut others = trials.runs.iter().map(|run| &run.outputs[index]);
        let varies = others.any(|other| other.len() == first.len() && other[axis] != size);
        let is_declared = inferred.is_some_and(|inferred| inferred[axis] == Some(size))
            && of_file.is_none_or(|shape| [-1, size.into()].contains(&shape[axis]));
        if varies || unknown && !is_declared { -1 } else { i64::from(size) }
    };
    first.iter().enumerate().map(axis).collect()
}

/// A note on an output whose computed shape differs from the one in the file.
fn contradiction(declared: &Declared, computed: &[i64]) -> Option<String> {
    let of_file = declared.of_file.as_ref()?;
    let fits = of_file.len() == computed.len()
        && of_file.iter().zip(computed).all(|(&declared, &is)| declared == -1 || declared == is);
    (!fits).then(|| {
        format!(
            "output `{}` is declared as {of_file:?} and computed as {computed:?}; model.toml has the \
             computed shape",
            declared.name.escape_debug()
        )
    })
}

fn notes_of_axes(trials: &Trials<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let base = &trials.runs[0].sizes;
    let name = |axis: usize| format!("`{}`", trials.axes.free[axis].name.escape_debug());
    let mut groups = Vec::new();
    for (axis, freedom) in trials.freedom.iter().enumerate() {
        let (name, size) = (name(axis), base[axis]);
        match freedom {
            Freedom::Free { failed } if failed.is_empty() => {}
            Freedom::Free { failed } => {
                let mut ran: Vec<u32> = trials.runs.iter().map(|run| run.sizes[axis]).collect();
                ran.sort_unstable();
                ran.dedup();
                notes.push(format!(
                    "{name} is free, but not every size works: the graph ran at {}, and failed at {}",
                    list(&ran),
                    list(failed)
                ));
            }
            Freedom::Fixed { failed } => notes.push(format!(
                "{name} is free in the file and fixed to {size} here: the graph failed at {}",
                list(failed)
            )),
            Freedom::Unknown => notes.push(format!(
                "{name} is free in the file; only size {size} was tried, as runs take long"
            )),
            Freedom::Together(axes) if !groups.contains(axes) => {
                groups.push(axes.clone());
                let mut names = String::new();
                for (position, &axis) in axes.iter().enumerate() {
                    let comma = if position > 0 { ", " } else { "" };
                    let free = trials.axes.free[axis].name.escape_debug();
                    let _ = write!(names, "{comma}`{free}`");
                }
                notes.push(format!("{names} are free, but only change together"));
            }
            Freedom::Together(_) => {}
        }
    }
    if trials.kind != SampleKind::Likely {
        let values = if trials.kind == SampleKind::Ones { "ones" } else { "zeros" };
        notes.push(format!(
            "the graph ran on {values}, and failed on other values; pass typical inputs with --example"
        ));
    }
    notes
}

fn list(sizes: &[u32]) -> String {
    sizes.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// The axis of rows of each input and output: a free axis that is in all of them with the same size. An
/// axis named `batch` is preferred to the first one. If the outputs' shapes depend on values, sizes may
/// be equal by chance: then the outputs' axes, `named`, must have the same name.
fn batch_axes(
    trials: &Trials<'_>,
    is_free: &[bool],
    outputs: &[Vec<i64>],
    named: Option<&[&[Option<String>]]>,
) -> Option<(Vec<usize>, Vec<usize>)> {
    let inputs = trials.runs.first().map(|_| trials.sample.len())?;
    let of = |free: usize| {
        let of_inputs: Option<Vec<usize>> =
            (0..inputs).map(|input| trials.axes.axis(input, free)).collect();
        let follows = |output: usize, axis: usize| {
            let has_its_name = |names: &[&[Option<String>]]| {
                let name = names[output].get(axis).and_then(Option::as_ref);
                name == Some(&trials.axes.free[free].name)
            };
            outputs[output][axis] == -1
                && named.is_none_or(has_its_name)
                && trials.runs.iter().all(|run| {
                    run.outputs[output].get(axis).is_none_or(|&size| size == run.sizes[free])
                })
        };
        let of_outputs: Option<Vec<usize>> = outputs
            .iter()
            .enumerate()
            .map(|(output, shape)| (0..shape.len()).find(|&axis| follows(output, axis)))
            .collect();
        Some((of_inputs?, of_outputs?))
    };
    let candidates = (0..is_free.len()).filter(|&free| is_free[free]);
    let candidates = candidates.filter_map(|free| Some((free, of(free)?)));
    let rank = |(free, (inputs, _)): &(usize, (Vec<usize>, Vec<usize>))| {
        let name = trials.axes.free[*free].name.to_ascii_lowercase();
        (!name.contains("batch"), inputs.iter().sum::<usize>())
    };
    candidates.min_by_key(rank).map(|(_, axes)| axes)
}

#[cfg(test)]
mod tests {
    use super::super::trials::tests::{graph, tried};
    use super::*;
    use crate::inference::LoadedGraph;

    fn shapes(graph: &LoadedGraph, of_file: Option<&[i64]>, by_values: bool) -> Shapes {
        let declared: Vec<Declared> = graph
            .outputs()
            .iter()
            .map(|info| Declared {
                name: info.name.clone(),
                inferred: info.shape.clone(),
                axis_names: info.axis_names.clone(),
                of_file: of_file.map(<[i64]>::to_vec),
            })
            .collect();
        Shapes::of(&tried(graph).unwrap(), &declared, by_values)
    }

    #[test]
    fn outputs_follow_the_axes_of_inputs() {
        let graph = graph(&["5 n 3", "n"], &["1 n 4", "? 2"], |inputs| {
            let n = inputs[1].dimensions[0];
            Ok(vec![vec![1, n, 4], vec![n, 2]])
        });
        let Shapes { inputs, outputs, batch_axes, notes } = shapes(&graph, None, false);
        assert_eq!(inputs, [vec![5, -1, 3], vec![-1]]);
        assert_eq!(outputs, [vec![1, -1, 4], vec![-1, 2]]);
        assert_eq!(batch_axes, (vec![1, 0], vec![1, 0]));
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn axis_named_batch_is_preferred_as_the_axis_of_rows() {
        let of = |axes| {
            let graph = graph(&[axes], &[axes], |inputs| Ok(vec![inputs[0].dimensions.clone()]));
            shapes(&graph, None, false).batch_axes
        };
        assert_eq!(of("sequence batch_size 2"), (vec![1], vec![1]));
        assert_eq!(of("sequence n 2"), (vec![0], vec![0]));
    }

    #[test]
    fn constant_axis_is_fixed_unless_values_may_change_it() {
        let graph = graph(&["n"], &["? ?"], |inputs| Ok(vec![vec![inputs[0].dimensions[0], 3]]));
        assert_eq!(shapes(&graph, None, false).outputs, [[-1, 3]]);
        let by_values = shapes(&graph, None, true);
        assert_eq!(by_values.outputs, [[-1, -1]]);
        assert_eq!(by_values.batch_axes, (vec![0], vec![0]));
        // Other values may produce the size that the file declares.
        let graph = self::graph(&["2"], &["4 3"], |_| Ok(vec![vec![0, 3]]));
        assert_eq!(shapes(&graph, None, true).outputs, [[-1, 3]]);
        assert_eq!(shapes(&graph, None, false).outputs, [[0, 3]]);
    }

    #[test]
    fn computed_shape_that_contradicts_the_file_is_used_and_noted() {
        let graph =
            graph(&["1 n"], &["1 n"], |inputs| Ok(vec![vec![1, 1, inputs[0].dimensions[1]]]));
        let Shapes { outputs, notes, .. } = shapes(&graph, Some(&[1, -1]), false);
        assert_eq!(outputs, [[1, 1, -1]]);
        let [note] = notes.as_slice() else { panic!("{notes:?}") };
        assert!(note.contains("declared as [1, -1] and computed as [1, 1, -1]"), "{note}");
    }

    #[test]
    fn fixed_axis_is_noted() {
        let graph = graph(&["batch 2"], &["1 2"], |inputs| match inputs[0].dimensions[0] {
            1 => Ok(vec![vec![1, 2]]),
            _ => Err("not 1"),
        });
        let Shapes { inputs, outputs, notes, .. } = shapes(&graph, None, false);
        assert_eq!((inputs, outputs), (vec![vec![1, 2]], vec![vec![1, 2]]));
        assert_eq!(
            notes,
            ["`batch` is free in the file and fixed to 1 here: the graph failed at 2, 3"]
        );
    }
}
