//! Which axis of each input and output is the batch.

use spinfer_backend::TensorInfo;

use super::super::mounts::EdgeSettings;

/// The batch axis of each input and output, in the graph's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct BatchAxes {
    pub(super) inputs: Vec<usize>,
    pub(super) outputs: Vec<usize>,
}

/// The batch axis of an input or output.
type AxisOf<'a> = dyn Fn(&TensorInfo) -> Option<usize> + 'a;

impl BatchAxes {
    /// Those that `stated` says, an entry of `model.toml` for each; else those whose name all inputs
    /// and outputs share; else the first of each. Fails with what to write where that is not free, or
    /// where there are several of such names.
    pub(in super::super) fn of(
        inputs: &[TensorInfo],
        outputs: &[TensorInfo],
        stated: &[EdgeSettings],
    ) -> Result<Self, String> {
        if inputs.is_empty() {
            return Err("batching needs an input".into());
        }
        let all = || inputs.iter().chain(outputs);
        let stated_of = |info: &TensorInfo| {
            stated.iter().find(|edge| edge.name == info.name).and_then(|edge| edge.batch_axis)
        };
        let axis_of: Box<AxisOf<'_>> = if all().any(|i| stated_of(i).is_some()) {
            Box::new(|info| Some(stated_of(info).unwrap_or_default()))
        } else {
            match shared_name(inputs, outputs)? {
                Some(name) => Box::new(move |info| named(info, &name)),
                None => Box::new(|_| Some(0)),
            }
        };
        let find = |info: &TensorInfo| {
            axis_of(info).filter(|&axis| is_free(info, axis)).ok_or_else(|| {
                let axis = axis_of(info).unwrap_or_default();
                format!(
                    "batching needs an axis that is free in every input and output: the one that \
                     `batch_axis` of [[inputs]] and [[outputs]] says, or one whose name all share, or \
                     the first; axis {axis} of `{}` is fixed",
                    info.name
                )
            })
        };
        let axes = |infos: &[TensorInfo]| infos.iter().map(find).collect::<Result<_, _>>();
        Ok(Self { inputs: axes(inputs)?, outputs: axes(outputs)? })
    }
}

fn is_free(info: &TensorInfo, axis: usize) -> bool {
    info.shape.as_ref().is_some_and(|shape| shape.get(axis).is_some_and(Option::is_none))
}

/// The only free axis of this name.
fn named(info: &TensorInfo, name: &str) -> Option<usize> {
    let names = info.axis_names.iter().enumerate();
    let mut axes = names.filter(|(axis, n)| n.as_deref() == Some(name) && is_free(info, *axis));
    let (axis, _) = axes.next()?;
    axes.next().is_none().then_some(axis)
}

/// The name of an axis that every input and output has. Of several the one that says it is the batch:
/// along any other, one row would be computed with its neighbour's.
fn shared_name(inputs: &[TensorInfo], outputs: &[TensorInfo]) -> Result<Option<String>, String> {
    let first = inputs.first().map(|info| info.axis_names.as_slice()).unwrap_or_default();
    let is_shared =
        |name: &&String| inputs.iter().chain(outputs).all(|info| named(info, name).is_some());
    let shared: Vec<&String> = first.iter().flatten().filter(is_shared).collect();
    let batches: Vec<&String> =
        shared.iter().copied().filter(|n| n.to_ascii_lowercase().contains("batch")).collect();
    match (shared.as_slice(), batches.as_slice()) {
        ([], _) => Ok(None),
        ([name], _) | (_, [name]) => Ok(Some((*name).clone())),
        (names, _) => {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            Err(format!(
                "every input and output has the axes {}: say which is the batch, by `batch_axis = 0` \
                 or another number in [[inputs]] and [[outputs]]",
                names.join(" and ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use spinfer_backend::TensorType;

    use super::*;

    /// An axis is a size, or the name of a free one; `?` has none.
    fn info(name: &str, axes: &[&str]) -> TensorInfo {
        let shape = axes.iter().map(|axis| axis.parse().ok()).collect();
        let names = axes
            .iter()
            .map(|axis| (axis.parse::<u32>().is_err() && *axis != "?").then(|| (*axis).to_owned()));
        TensorInfo {
            name: name.into(),
            ty: TensorType::Fp32,
            shape: Some(shape),
            axis_names: names.collect(),
        }
    }

    fn of(
        inputs: &[&[&str]],
        outputs: &[&[&str]],
        stated: &[(&str, usize)],
    ) -> Result<(Vec<usize>, Vec<usize>), String> {
        let infos = |kind: &str, all: &[&[&str]]| {
            let named = all.iter().enumerate();
            named.map(|(n, axes)| info(&format!("{kind}{n}"), axes)).collect::<Vec<_>>()
        };
        let stated: Vec<_> = stated
            .iter()
            .map(|(name, axis)| EdgeSettings { name: (*name).into(), batch_axis: Some(*axis) })
            .collect();
        let axes = BatchAxes::of(&infos("x", inputs), &infos("y", outputs), &stated)?;
        Ok((axes.inputs, axes.outputs))
    }

    /// The axes of each input or output: sizes, names, `?` for neither.
    type Edges = &'static [&'static [&'static str]];
    type Shared = (Edges, Edges, (Vec<usize>, Vec<usize>));
    type Refused = (Edges, Edges, &'static [(&'static str, usize)], &'static str);

    #[test]
    fn the_batch_is_the_axis_that_all_share() {
        let cases: [Shared; 8] = [
            (&[&["?", "4"]], &[&["?", "3"]], (vec![0], vec![0])),
            (&[&["N", "4"]], &[&["N"], &["N", "3"]], (vec![0], vec![0, 0])),
            // Time first, as recurrent networks have it.
            (&[&["5", "batch", "4"]], &[&["5", "batch", "3"], &["batch"]], (vec![1], vec![1, 0])),
            (&[&["seq", "N", "4"]], &[&["N", "3"]], (vec![1], vec![0])),
            (
                &[&["batch", "seq"], &["batch", "seq"]],
                &[&["batch", "seq", "3"]],
                (vec![0, 0], vec![0]),
            ),
            (&[&["seq", "batch_size", "4"]], &[&["seq", "batch_size", "3"]], (vec![1], vec![1])),
            // Names that say nothing: the first.
            (&[&["a", "4"]], &[&["b", "3"]], (vec![0], vec![0])),
            (&[&["?", "?"]], &[&["?", "?"]], (vec![0], vec![0])),
        ];
        for (inputs, outputs, axes) in cases {
            assert_eq!(of(inputs, outputs, &[]), Ok(axes), "{inputs:?} {outputs:?}");
        }
        let stated = [("x0", 1), ("y0", 1)];
        let axes = of(&[&["a", "b", "4"]], &[&["a", "b", "3"], &["b"]], &stated);
        assert_eq!(axes, Ok((vec![1], vec![1, 0])));
    }

    #[test]
    fn a_graph_without_one_is_refused_with_what_to_write() {
        let cases: [Refused; 7] = [
            (&[], &[&["?"]], &[], "needs an input"),
            (&[&["1", "?"]], &[&["?"]], &[], "axis 0 of `x0` is fixed"),
            (&[&["?", "4"]], &[&["1", "3"]], &[], "axis 0 of `y0` is fixed"),
            (&[&["a", "b"]], &[&["a", "b"]], &[], "the axes `a` and `b`"),
            (&[&["batch_1", "batch_2"]], &[&["batch_1", "batch_2"]], &[], "the axes"),
            (&[&["?", "4"]], &[&["?", "3"]], &[("x0", 1)], "axis 1 of `x0` is fixed"),
            (&[&["?", "?"]], &[&["?"]], &[("y0", 7)], "axis 7 of `y0` is fixed"),
        ];
        for (inputs, outputs, stated, part) in cases {
            let error = of(inputs, outputs, stated).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let unknown = TensorInfo { shape: None, ..info("x", &[]) };
        assert!(BatchAxes::of(std::slice::from_ref(&unknown), &[], &[]).is_err());
    }
}
