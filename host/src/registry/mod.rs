//! Where models and components come from, other than this machine.

pub mod mlflow;
//! Where components and model versions come from that are not on this machine, and go to.

pub mod oci;
