//! Where models and components come from that are not on this machine, and go to.

pub mod mlflow;
pub mod oci;
