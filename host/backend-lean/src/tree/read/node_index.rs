//! Finds nodes of trees by their ids.

use spinfer_backend::Error;
use spinfer_onnx::NodeProto;

use crate::refusal::invalid;
use crate::tree::flatten::NAN_IS_TRUE;

/// The index of each node in the lists, by tree and node id. Sorted and not hashed, so that no
/// choice of ids makes it slow.
pub(super) struct NodeIndex(Vec<(i64, i64, u32)>);

impl NodeIndex {
    pub(super) fn new(node: &NodeProto, tree_ids: &[i64], node_ids: &[i64]) -> Result<Self, Error> {
        if tree_ids.len() != node_ids.len() || tree_ids.len() >= NAN_IS_TRUE as usize {
            return Err(invalid(node, "its nodes_* lists differ in length, or are too long"));
        }
        let mut entries: Vec<(i64, i64, u32)> =
            tree_ids.iter().zip(node_ids).zip(0u32..).map(|((&t, &n), i)| (t, n, i)).collect();
        entries.sort_unstable();
        if let Some(twice) = entries.windows(2).find(|w| (w[0].0, w[0].1) == (w[1].0, w[1].1)) {
            let (tree, id, _) = twice[0];
            return Err(invalid(node, format_args!("node {id} of tree {tree} is listed twice")));
        }
        Ok(Self(entries))
    }

    pub(super) fn find(&self, tree: i64, id: i64) -> Option<u32> {
        let position =
            self.0.binary_search_by_key(&(tree, id), |&(tree, id, _)| (tree, id)).ok()?;
        Some(self.0[position].2)
    }
}
