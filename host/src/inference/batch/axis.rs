//! Finds the batch axis of each input and output.

use spinfer_backend::TensorInfo;

use super::super::model_toml::EdgeSettings;

/// The batch axis of each input and output, in the graph's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct BatchAxes {
    pub(super) inputs: Vec<usize>,
    pub(super) outputs: Vec<usize>,
}

/// The batch axis of an input or output.
type AxisOf<'a> = dyn Fn(&TensorInfo) -> Option<usize> + 'a;

impl BatchAxes {
    /// The axes that the entries of `model.toml` state; else those whose name all inputs and outputs
    /// share; else the first of each.
    ///
    /// # Errors
    /// An axis is not free, or several names are shared. The message contains what to write.
    pub(in super::super) fn of(
        inputs: &[TensorInfo],
        outputs: &[TensorInfo],
        stated: &[EdgeSettings],
    ) -> Result<Self, String> {
        if inputs.is_empty() {
            return Err("batching needs a graph with an input".into());
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
                    "batching needs a free axis in every input and output (`batch_axis` in \
                     [[inputs]] and [[outputs]], else an axis name that all share, else the first \
                     axis); axis {axis} of `{}` is fixed",
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

/// The name of an axis that every input and output has; of several, the one that contains `batch`.
/// Along another axis, the rows of a call would be mixed.
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
                "every input and output has the axes {}: write which one is the batch, such as \
                 `batch_axis = 0`, in [[inputs]] and [[outputs]]",
                names.join(" and ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use spinfer_backend::TensorType;

    use super::*;

    /// An axis is written as its size, or as the name of a free axis, or as `?` without a name.
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

    /// The axes of each input or output, written as for `info`.
    type Edges = &'static [&'static [&'static str]];
    type SharedCase = (Edges, Edges, (Vec<usize>, Vec<usize>));
    type RefusedCase = (Edges, Edges, &'static [(&'static str, usize)], &'static str);

    #[test]
    fn batch_axis_is_the_one_that_all_share() {
        let cases: [SharedCase; 8] = [
            (&[&["?", "4"]], &[&["?", "3"]], (vec![0], vec![0])),
            (&[&["N", "4"]], &[&["N"], &["N", "3"]], (vec![0], vec![0, 0])),
            // Time first, as in recurrent networks.
            (&[&["5", "batch", "4"]], &[&["5", "batch", "3"], &["batch"]], (vec![1], vec![1, 0])),
            (&[&["seq", "N", "4"]], &[&["N", "3"]], (vec![1], vec![0])),
            (
                &[&["batch", "seq"], &["batch", "seq"]],
                &[&["batch", "seq", "3"]],
                (vec![0, 0], vec![0]),
            ),
            (&[&["seq", "batch_size", "4"]], &[&["seq", "batch_size", "3"]], (vec![1], vec![1])),
            // No shared name: the first axis.
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
    fn graph_without_a_batch_axis_is_refused_with_what_to_write() {
        let cases: [RefusedCase; 7] = [
            (&[], &[&["?"]], &[], "needs a graph with an input"),
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
