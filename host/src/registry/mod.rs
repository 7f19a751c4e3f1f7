//! Remote sources of models and components: MLflow and OCI registries.

pub mod mlflow;
pub mod oci;
