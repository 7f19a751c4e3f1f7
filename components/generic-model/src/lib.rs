//! Whichever model is mounted, as its `model.toml` describes it.

use model_sdk::{MOUNTED, Model};

struct Mounted;

impl Model for Mounted {
    const NAME: &'static str = MOUNTED;
}

model_sdk::export!(Mounted);
