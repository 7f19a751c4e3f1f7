//! `fermyon:spin/config`: the component's variables.

use wasmtime::Result;

use super::wit::config;
use crate::capabilities::variables::{NoValue, VariablesView};

impl config::Host for VariablesView<'_> {
    fn get_config(&mut self, key: String) -> Result<Result<String, config::Error>> {
        Ok(self.value(key).map_err(|error| match error {
            NoValue::InvalidName(problem) => config::Error::InvalidKey(problem),
            NoValue::Undefined(name) => {
                config::Error::Other(format!("the variable `{name}` is not defined"))
            }
        }))
    }
}
