//! Experiments: the format of `experiments.toml`, and the assignment of units to variants. No I/O,
//! no clock.
