//! Components and their instances: from a component file to a call of a guest's export.

pub mod component;
pub mod door;
pub mod instance;

pub mod artifact;
pub mod component_file;
pub mod engine;
pub mod imports;

pub mod files;
pub mod stdio;

pub mod offload;
