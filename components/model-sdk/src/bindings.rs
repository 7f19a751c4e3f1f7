//! Generated from `wit/`: the imports of `wasi:nn`, and the export of the fast door. `log`: the import of the
//! prediction log, with borrowed arguments.
#![expect(clippy::mem_forget, reason = "generated")]

wit_bindgen::generate!({
    inline: "
        package spinfer:model-sdk;

        world component {
            import wasi:nn/tensor@0.2.0-rc-2024-10-28;
            import wasi:nn/graph@0.2.0-rc-2024-10-28;
            import wasi:nn/inference@0.2.0-rc-2024-10-28;
            import wasi:nn/errors@0.2.0-rc-2024-10-28;
            export spinfer:serve/buffered-handler@0.1.0;
        }
    ",
    path: ["../../wit/wasi-nn", "../../wit/spinfer-serve"],
    world: "spinfer:model-sdk/component",
    default_bindings_module: "model_sdk::bindings",
    pub_export_macro: true,
    generate_all,
});

pub(crate) mod log {
    wit_bindgen::generate!({
        inline: "
            package spinfer:model-sdk-log;

            world logging {
                import spinfer:prediction-log/log@0.1.0;
            }
        ",
        path: ["../../wit/spinfer-prediction-log"],
        world: "spinfer:model-sdk-log/logging",
        ownership: Borrowing { duplicate_if_necessary: false },
        generate_all,
    });
}
