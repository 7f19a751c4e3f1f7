//! Serves the mounted model, whichever it is, from its graph and `model.toml`.

use model_sdk::{MOUNTED, Model};

struct Mounted;

impl Model for Mounted {
    const NAME: &'static str = MOUNTED;
}

model_sdk::export!(Mounted);
