//! The real binary over HTTP, one file per subject:

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]

mod add; // `spinfer add` of ONNX files, and their predictions
mod admin; // the admin plane: endpoints, token, purges
mod authority; // the host of a request, HTTP/1.0
mod cache; // the response cache in memory
mod capabilities; // variables, service chaining, outbound HTTP
mod cli; // help, output and errors of the command line
mod clients; // unmodified clients from PyPI
mod commands; // `spinfer add`, `models` and `new` on an application
mod connections; // idle connections, limits
mod content_encoding; // gzip and deflate in requests and responses
mod cors; // requests from pages of other origins
mod datatypes; // datatypes and axes of graphs in every protocol
mod deploy; // manifests, the image's root file system, Redis users
mod doors; // both doors give the same responses
mod drain; // shutdown by SIGTERM and Ctrl-C
mod drift; // drift reports
mod experiments; // assignment, ramps, shadows
mod feedback; // feedback, quality, exports of the prediction log
mod feedback_file; // `spinfer log feedback`: with and without a host, problems by line
mod flags; // flags that are also Spin's, and `spinfer check`
mod golden; // golden predictions of the example models
mod graph_faults; // input values that a graph rejects, runs that never end
mod hostile; // harm by clients, guests, files and a Redis
mod http; // HTTP/1.1: routes, bodies, health, the model index
mod http2; // HTTP/2: multiplexing, streams, trailers, TLS
mod images; // PNG files: every kind, damaged ones, bombs
mod instance_reuse; // fresh instances of 0.2, instances whose response failed
mod key_value; // key-value stores
mod large_requests; // requests close to the memory of an instance
mod lifecycle; // when code, models and instances are loaded, reused and unloaded
mod limits; // traps, endless loops, memory, deadlines
mod log_crash; // the prediction log after `kill -9`, in each mode
mod log_export; // datasets of the prediction log, read by pandas, pyarrow and DuckDB
mod log_modes; // what responses wait for, and requests that the prediction log refuses
mod log_sinks; // sinks of the prediction log that fail, and hosts that are killed
mod manifests; // golden files of valid and invalid manifests
mod metrics; // the exposed metrics and cache statistics
mod missing_values; // null, NaN and empty cells
mod mlflow; // `spinfer pull mlflow` from a real tracking server
mod model_toml; // model.toml and its graph, readiness, the list of models, suggested routes
mod nn; // wasi:nn: tensor types, errors, grants, limits
mod observability; // records, feedback and quality per variant, restarts
mod onnx_kinds; // one graph of each kind, from the file to the response
mod onnxruntime; // locations of ONNX Runtime's library
mod optimize; // `spinfer build --optimize`
mod outbound_mqtt; // outbound MQTT: publications, and brokers that fail
mod outbound_network; // sockets and HTTP by grant, blocked networks, clocks
mod outbound_postgres; // outbound PostgreSQL: types, errors, limits, TLS, servers that fail
mod outbound_redis; // commands, grants, connections
mod outputs; // closed pipes, full disks, terminals
mod pages; // README.md and docs/: every runnable block
mod prediction_log; // which responses have records, and their content
mod protocol; // predict, infer, metadata, readiness
mod protocol_binary; // binary tensor data
mod protocol_mlflow; // MLflow's scoring protocol
mod python_client; // the tests of the Python package
mod registry; // OCI registries: push, pull, login, faulty servers
mod sdk_apps; // applications in JavaScript, Python and Rust, by the tools of their languages
mod shared_cache; // the response cache in a Redis
mod slow_readers; // clients that do not read their responses
mod soak; // memory, descriptors and threads do not grow
mod spin_components; // imports without a grant, core modules, release candidates of WASI
mod spin_conventions; // Spin's conventions: routes, headers, static responses, files
mod sqlite; // SQLite databases: interfaces, limits, restarts, `--sqlite`
mod streams; // streamed bodies: in both directions at once, cut off, of another length than announced
mod text; // the language identifier, strings in every protocol
mod wagi; // commands behind the Wagi door
mod watch; // `spinfer watch`: manifests, files and sources that change
