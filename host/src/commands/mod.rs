//! What the command line does beside serving: models put into an application, and told of; a host
//! that serves asked for something.

pub mod add;
pub mod cache;
pub mod health;
pub mod models;
pub mod new;

mod ask;
mod edit;
mod files;
mod signature;
mod table;
