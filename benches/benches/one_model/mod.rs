//! An application with one model in this process, for benchmarks without sockets.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use spinfer::config::app::App;
use spinfer::config::manifest;
use spinfer::host::Host;
use spinfer::inference::BackendOptions;
use spinfer_benches::application::{
    Application, IRIS, iris_component, onnxruntime_library, state_dir,
};

/// A host of the model folder `model`, with `settings` under `[component.<id>.tool.spinfer]`. The
/// manifest is in `dir`.
pub(crate) fn host(model: &Path, settings: &str, cached: bool, dir: &Path) -> Result<Arc<Host>> {
    // Valgrind has less than 64 GiB of address space in one piece for the pool of instances.
    let limits = "limits.instances = 1\nlimits.idle = '1h'";
    let settings = format!("[component.model.tool.spinfer]\n{limits}\n{settings}");
    let application = Application::new("").with(IRIS, "model", &iris_component(), model, &settings);
    let manifest = manifest::read(&application.write(dir, "spin")?)?;
    let mut app = App::resolve(&manifest, dir)?;
    if !cached {
        app.cache.limits.memory = 0;
    }
    app.backends = BackendOptions::without_trials(&onnxruntime_library());
    Host::new(&app, &state_dir()?)
}
