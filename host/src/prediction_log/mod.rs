//! The prediction log: one record for each prediction that was served.

pub mod record;
