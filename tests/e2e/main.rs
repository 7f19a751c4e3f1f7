//! The real binary over HTTP. One file for each thing it promises:

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]

mod add; // ONNX files become URLs
mod admin; // whom the admin plane answers, and what it has the cache forget
mod browsers; // which pages of other sites may call
mod cache; // answers that are given again, and to whom
mod capabilities; // variables, requests of a guest
mod cli; // what the command line says, and what it refuses
mod clients; // stock clients from PyPI, unmodified
mod commands; // what they add to an application, or leave as it was
mod connections; // who has no request does not keep one
mod datatypes; // every datatype of a graph, any axes, in every protocol
mod deploy; // manifests, the image's root file system, Redis users with few rights
mod doors; // both doors into every component give the same answers
mod drain; // SIGTERM and Ctrl-C let requests under way finish
mod drift; // rows that moved, and what is said of them
mod edge; // what stands between a client and a component, as Spin has it
mod encodings; // gzip and deflate, both ways
mod experiments; // who is served by which variant, ramps, shadows
mod faults; // values that a graph fails on, runs that never end
mod feedback; // feedback, and the prediction log it is joined with
mod flags; // flags of Spin, and `spinfer check`
mod golden; // predictions are ONNX Runtime's, through both doors
mod hostile; // what clients, guests and files do to hurt the host
mod http; // routes, bodies, health
mod http2; // one connection for many requests, TLS, streams both ways, trailers
mod large; // more than an instance has memory for
mod lifecycle;
mod limits; // traps, endless loops, memory, deadlines: contained
mod manifests; // golden files: what is taken, and what is said of the rest
mod metrics; // everything that is counted, and how it is told
mod missing_values; // null, NaN and empty cells, in and out
mod mlflow; // models of a real MLflow tracking server become URLs
mod nn; // wasi:nn: every type, every error, every grant
mod observed; // records, feedback and quality of each variant, restarts
mod onnx_kinds; // graphs of every kind, from the file to the response
mod onnxruntime; // where its library is found, and what is done without
mod optimize; // `spinfer build --optimize`: smaller components that do what they did
mod outbound_redis; // every command, where the manifest allows
mod pages; // README.md and docs/: every runnable block
mod pictures; // PNG files of every kind, broken ones, bombs
mod prediction_log; // which responses have records, and what is in them
mod protocol; // predict, infer, metadata, ready: good and bad requests
mod protocol_binary; // tensors as bytes behind the JSON
mod protocol_mlflow; // tables in, classes out
mod python_client; // the Python package: its own tests, against the real host
mod reach; // what components reach: sockets and HTTP by grant, clocks, no blocked network
mod registry; // components and models to and from OCI registries, and what these do wrong
mod shared_cache; // what one node has made, others have; what one forgets, too
mod soak; // nothing grows: memory, descriptors, threads
mod stores; // key-value stores: every interface over every kind
mod text; // languages; strings in every protocol
