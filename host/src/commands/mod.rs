//! What the command line does beside serving: models put into an application, and told of; a host
//! that serves asked for something.

pub mod add;
pub mod baseline;
pub mod cache;
pub mod drift;
pub mod experiment;
pub mod health;
pub mod log;
pub mod models;
pub mod new;
pub mod pull;
pub mod registry;

mod ask;
mod edit;
mod files;
mod signature;
mod sparkline;
mod table;
