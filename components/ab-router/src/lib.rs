//! The A/B router: assigns each request to a variant of an experiment.
