//! Components and their instances, from the component file to the call of a guest's export.

pub mod component;
pub mod door;
pub mod instance;
mod readiness;
mod usage;

pub mod artifact;
mod binary;
pub mod component_file;
pub mod engine;
pub mod imports;
mod sequential;

pub mod files;
pub mod stdio;

pub mod offload;
