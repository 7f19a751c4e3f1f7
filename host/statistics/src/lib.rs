//! Statistics of predictions: drift and prediction quality. No I/O, no clock.
