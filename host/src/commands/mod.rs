//! What the command line does beside serving: models put into an application, and told of.

pub mod add;
pub mod models;
pub mod new;

mod edit;
mod files;
mod signature;
