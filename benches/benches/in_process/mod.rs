//! The example application in this process, for benchmarks without sockets.

use std::sync::Arc;

use spinfer::config::app::App;
use spinfer::config::manifest;
use spinfer::host::Host;
use spinfer_benches::application::{root, state_dir};

/// The example application with these settings for each component, and without a response cache, so that
/// each request is a prediction.
pub(crate) fn host(settings: &str) -> Arc<Host> {
    let mut manifest = manifest::read(&root().join("spin.toml")).expect("the example manifest");
    let tool = format!("{settings}\nlimits.idle = '1h'");
    for component in manifest.component.values_mut() {
        component.tool.spinfer = Some(toml::from_str(&tool).expect("settings"));
    }
    let mut app = App::resolve(&manifest, root()).expect("`make bench` builds the components");
    app.cache.limits.memory = 0;
    Host::new(&app, &state_dir().expect("a folder")).expect("a host")
}
